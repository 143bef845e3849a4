"""What a real tree lives in is taken away: its broker, its disk, its signer, its clock, one of two schedulers."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from assay.client_errors import ServerRefused

from benchmarks.soak_tree import BIN, LEASE_S, runs
from tests.e2e.burning import KINDS, burning
from tests.e2e.fire import Fire, wait

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

MIB = 2**20
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A file system of its own whose size can be changed; None where mounting is not allowed."""
    folder = tmp_path_factory.mktemp("room")
    program = shutil.which("mount")
    command = [program or "mount", "-t", "tmpfs", "-o", "size=4g", "none", str(folder)]
    if program is None or subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module", params=KINDS)
def fire(
    request: pytest.FixtureRequest, model: Path, room: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fire]:
    home = tmp_path_factory.mktemp("home")
    if room is not None:
        (home / "data").mkdir()
        for name in ("blobs", "uploads"):
            (room / request.param / name).mkdir(parents=True)
            (home / "data" / name).symlink_to(room / request.param / name)
    with burning(request.param, model, home) as made:
        yield made


def test_an_emptied_redis_is_told_again(fire: Fire) -> None:
    """Two workers of two slots are busy, so six knocks lie in Redis alone when it loses them."""
    audits = [fire.submit("slow 2") for _ in range(10)]
    wait(lambda: len(fire.tree.leasing()) == 2, "both workers are busy")
    began = time.monotonic()
    fire.kill("redis")
    shutil.rmtree(fire.tree.data / "redis" / "appendonlydir", ignore_errors=True)
    fire.ends(audits)
    took = time.monotonic() - began
    assert {fire.state(one) for one in audits} == {"COMPLETED"}
    told = fire.told(audits, ended_after_ms=int(took * 1000))
    assert told["finalised"] == 10
    assert told["republished"] >= 1


def test_without_redis_submissions_are_accepted_and_end_when_it_is_back(fire: Fire) -> None:
    with fire.away("redis"):
        audits = [fire.submit() for _ in range(4)]
        time.sleep(10 * LEASE_S)  # 5 min of 30 s
        assert {fire.state(one) for one in audits} == {"QUEUED"}
    began = time.monotonic()
    wait(lambda: all(fire.classes(one) for one in audits), "every audit is leased", 30)
    took = time.monotonic() - began
    fire.ends(audits)
    told = fire.told(audits, leased_after_ms=int(took * 1000))
    assert (told["finalised"], told["leased"] - told["lease_expired"]) == (4, 4)


def test_without_a_signer_nothing_is_leased_and_what_is_done_waits(fire: Fire) -> None:
    done = fire.submit("slow 2")
    fire.in_cell(done)
    with fire.away("signer"):
        new = fire.submit()
        wait(lambda: fire.state(done) == "SIGNING", "the result is stored")
        wait(lambda: fire.reason(done) and fire.reason(new), "both say why they wait")
        time.sleep(4 * LEASE_S)  # 2 min of 30 s
        assert (fire.state(done), fire.state(new)) == ("SIGNING", "QUEUED")
        assert {fire.reason(done), fire.reason(new)} == {"SIGNER_UNAVAILABLE"}
        assert fire.classes(new) == []
    fire.ends([done, new])
    assert {fire.state(one) for one in (done, new)} == {"COMPLETED"}
    told = fire.told([done, new])
    assert (told["leased"] - told["lease_expired"], told["completed"]) == (2, 2)


def test_a_key_swapped_in_mid_run_signs_nothing_that_was_logged_for_another(fire: Fire, tmp_path: Path) -> None:
    """Its leaf names the key: until that one is back the audit waits, and what begins meanwhile has the new key's."""
    from service.signer.keys import ensure_key

    keys = fire.tree.data / "signer"
    mine, public = keys / "report.key.pem", keys / "report.pub.pem"
    audit = fire.submit()
    (fire.plan / "signer.away").touch()
    fire.arm("signer.after_seal")
    fire.met("signer.after_seal")
    kept = {path: path.read_bytes() for path in (mine, public)}
    for path in kept:
        path.unlink()
    ensure_key(mine)
    (fire.plan / "signer.away").unlink()
    new = fire.submit()
    fire.ends([new])
    fire.verified(new, tmp_path / "new", public)
    wait(lambda: fire.reason(audit), "the audit says why it waits")
    waits = fire.reason(audit)
    assert fire.state(audit) == "SIGNING", waits
    for path, data in kept.items():
        path.write_bytes(data)
    fire.kill("signer")
    fire.ends([audit])
    assert fire.state(audit) == "COMPLETED"
    fire.verified(audit, tmp_path / "old")
    told = fire.told([audit, new])
    assert told["completed"] == 2
    for one in (audit, new):
        assert len(fire.tree.read(f"SELECT seq FROM journal WHERE audit = '{one}' AND kind = 'leaf'")) == 1


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("role", ["scheduler", "worker"])
def test_a_clock_that_is_an_hour_off_reaps_nothing_and_signs_no_future(
    fire: Fire, tmp_path: Path, role: str, hours: int
) -> None:
    clock = fire.plan / f"clock.{role}"
    audit = fire.submit("slow 2")
    fire.in_cell(audit)
    clock.write_text(str(hours * HOUR_MS))  # in the middle of the run
    try:
        if fire.kind == "sqlite" and (role, hours) == ("worker", 1):
            # On SQLite the database's clock is the worker's: what it wrote lies an hour ahead of the signer's clock.
            wait(lambda: fire.reason(audit) == "CLOCK_SKEW", "the audit waits for the signer's clock")
            assert (fire.state(audit), fire.classes(audit)) == ("SIGNING", ["OK"])
            assert fire.told([audit], waiting=1)["lease_expired"] == 0
            return
        fire.ends([audit])
        assert (fire.state(audit), fire.classes(audit)) == ("COMPLETED", ["OK"])
        fire.verified(audit, tmp_path / "report")
        assert composed_at(tmp_path / "report") <= datetime.now(UTC)
        told = fire.told([audit])
        assert (told["leased"], told["lease_expired"]) == (1, 0)
    finally:
        clock.unlink()


def test_a_clock_that_is_seconds_ahead_is_waited_for(fire: Fire, tmp_path: Path) -> None:
    clock = fire.plan / "clock.worker"
    clock.write_text("6000")
    try:
        audit = fire.submit()
        wait(lambda: fire.state(audit) in ("SIGNING", "COMPLETED"), "the result is stored")
    finally:
        clock.unlink()
    fire.ends([audit])
    assert fire.state(audit) == "COMPLETED"
    fire.verified(audit, tmp_path / "report")
    assert composed_at(tmp_path / "report") <= datetime.now(UTC)
    fire.told([audit])


def composed_at(report: Path) -> datetime:
    """Return when a report says that it was composed."""
    import base64

    bundle = json.loads((report / "report.sigstore.json").read_bytes())
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return datetime.fromisoformat(payload["predicate"]["audit"]["composed_at"])


def test_a_clock_that_steps_back_at_a_fire_fires_once(fire: Fire) -> None:
    """The scheduler's clock jumps to the due minute, an hour back, and to it again; on PostgreSQL it has no say."""
    now = datetime.now(UTC)
    due = (now.minute + 30) % 60
    template = fire.client.schedules.template(fire.manifest, [("clusterability", {})])
    made = fire.client.schedules.create("stepping", template, cron=f"{due} * * * *", time_zone="UTC")
    clock = fire.plan / "clock.scheduler"
    ahead = (30 * 60 - now.second + 2) * 1000

    def fires() -> list[str]:
        return [one.outcome for one in fire.client.schedules.fires(made.name)]

    try:
        clock.write_text(str(ahead))
        if fire.kind == "sqlite":
            wait(lambda: fires(), "the minute comes", 15)
        for offset in (ahead - HOUR_MS, ahead, ahead - HOUR_MS // 2, ahead):
            clock.write_text(str(offset))
            time.sleep(1.5)
        fire.kill("scheduler")
        time.sleep(3)
        assert fires() == (["SUBMITTED"] if fire.kind == "sqlite" else [])
    finally:
        clock.unlink()
        fire.client.schedules.delete(made.name)
    audits = [row[0] for row in fire.tree.read("SELECT audit FROM fire WHERE audit IS NOT NULL")]
    # It says that it was submitted half an hour from now, so it is not registered before that.
    wait(lambda: all(fire.reason(one) == "CLOCK_SKEW" for one in audits), "the signer waits for its own clock")
    assert fire.told(audits, waiting=len(audits), fired=len(audits))["leased"] == 0


def test_a_full_blob_store_refuses_uploads_serves_reads_and_goes_on_with_space(
    fire: Fire, room: Path | None, tmp_path: Path
) -> None:
    if room is None:
        pytest.skip("mounting a file system needs root; errors injected into one process cover the same paths")
    before = fire.submit()
    fire.ends([before])
    done = fire.submit("slow 2")
    fire.in_cell(done)
    model = weights(tmp_path / "model", 3 * MIB)
    resize(room, full=True)
    try:
        with fire.another_client(patience_s=1.0) as client:
            with pytest.raises(ServerRefused) as refused:
                client.upload_model(model)
            assert refused.value.code == "RESOURCE_EXHAUSTED"
            fire.verified(before, tmp_path / "before")
            assert client.get(f"audits/{done}").state in ("RUNNING", "QUEUED")
        wait(lambda: "HOST_FAULT" in fire.classes(done), "the result finds no room", 20)
        wait(lambda: len(fire.tree.alive("scheduler")) == 1, "the scheduler lives")
    finally:
        resize(room, full=False)
    fire.client.upload_model(model)
    after = fire.submit()
    fire.ends([done, after])
    classes = fire.classes(done)
    assert (set(classes[:-1]), classes[-1]) == ({"HOST_FAULT"}, "OK")
    assert fire.tree.read("PRAGMA integrity_check" if fire.kind == "sqlite" else "SELECT 'ok'") == [("ok",)]
    told = fire.told([before, done, after], host_faults=len(classes) - 1)
    assert told["finalised"] == 3


def resize(room: Path, *, full: bool) -> None:
    """Leave no room, or take the walls back."""
    seen = os.statvfs(room)
    used = (seen.f_blocks - seen.f_bfree) * seen.f_frsize
    size = str(max(used, seen.f_frsize)) if full else "4g"
    subprocess.run(["mount", "-o", f"remount,size={size}", str(room)], check=True)


def weights(folder: Path, size: int) -> Path:
    """Write a model of random bytes."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type":"gpt2"}\n')
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    return folder


def test_an_upload_outlives_apis_killed_at_three_places_and_no_half_of_it_is_seen(fire: Fire, tmp_path: Path) -> None:
    size = 256 * MIB
    model = weights(tmp_path / "model", size)
    shares = [0.1, 0.5, 0.99]
    seen_half = 0

    def progress(done: int, total: int) -> None:
        nonlocal seen_half
        if shares and done > total * shares[0]:
            shares.pop(0)
            for name in list(fire.tree.alive("api")):
                fire.kill(name)
            seen_half += any(path.stat().st_size > MIB for path in blobs(fire) - before)

    before = blobs(fire)
    uploaded = fire.client.upload_model(model, progress=progress)
    assert not shares, "the upload was over before the APIs could be killed"
    assert seen_half == 0, "a blob was there before all its bytes were"
    # Each kill costs an fsync step of 64 MiB at most, and what was on its way.
    assert size <= uploaded.bytes_sent <= size + 3 * 96 * MIB, uploaded.bytes_sent / size
    assert fire.client.create_model(uploaded.manifest_sha256).name == f"models/{uploaded.manifest_sha256}"
    fire.told([], sent_mib=uploaded.bytes_sent // MIB, size_mib=size // MIB)


def blobs(fire: Fire) -> set[Path]:
    return {path for path in (fire.tree.data / "blobs" / "sha256").rglob("*") if path.is_file()}


def test_two_schedulers_one_of_them_killed_every_two_leases_do_everything_once(fire: Fire) -> None:
    command = [str(BIN / "assay-server"), "scheduler", "--config", str(fire.tree.data / "server.toml")]
    audits: list[str] = []
    with (fire.tree.data / "logs" / "second.log").open("w") as log:
        second = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for turn in itertools.count():
                audits += [fire.submit("slow 0.5") for _ in range(3)]
                time.sleep(2 * LEASE_S)
                if turn == 5:
                    break
                if turn % 2:
                    fire.kill("scheduler")
                else:
                    second.kill()
                    second.wait()
                    second = subprocess.Popen(command, stdout=log, stderr=log)
            fire.ends(audits)
            assert runs(second.pid), (fire.tree.data / "logs" / "second.log").read_text()[-3000:]
        finally:
            second.terminate()
            second.wait(30)
    assert second.returncode == 0
    told = fire.told(audits, killed=5)
    assert (told["finalised"], told["completed"]) == (18, 18)
    leaves = fire.tree.read("SELECT audit FROM journal WHERE kind = 'leaf'")
    assert sorted(row[0] for row in leaves if row[0] in audits) == sorted(audits)


def test_the_whole_tree_killed_and_started_again_ends_what_it_accepted(fire: Fire, tmp_path: Path) -> None:
    running, waiting = fire.submit("slow 2"), [fire.submit() for _ in range(3)]
    fire.in_cell(running)
    fire.kill_all()
    fire.ends([running, *waiting])
    assert {fire.state(one) for one in (running, *waiting)} == {"COMPLETED"}
    assert fire.lost_and_found(running)
    fire.verified(running, tmp_path / "report")
    assert fire.told([running, *waiting])["finalised"] == 4
