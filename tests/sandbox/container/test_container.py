"""Cells in containers, as far as a fake engine shows it: what it is asked, may not change, and what comes back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox import CellFailed, CellRefused, Slot, filters
from sandbox.cell import Outcome
from sandbox.container import profile
from sandbox.container.gate import SENTRY_ROWS
from sandbox.filters import oci
from sandbox.ground import Host
from tests.sandbox.conftest import MakeOrder
from tests.sandbox.container.conftest import IMAGE, Fake

RESULT = "os.write(3, b'{}')"


def refusal(run: Callable[[], Any]) -> CellRefused:
    with pytest.raises(CellRefused) as caught:
        run()
    return caught.value


def test_a_program_runs_and_everything_comes_back(fake: Fake, order: MakeOrder) -> None:
    asked = order(
        """
        open("out/a", "wb").write(open("in/x", "rb").read() * 2)
        print("printed", flush=True)
        os.write(3, open("in/order.json", "rb").read())
        """,
        inputs={"x": b"12"},
        slots=(Slot(name="a", max_bytes=10, released=True),),
    )
    outcome = fake.cell().run(asked)
    assert (outcome.ended, outcome.status, outcome.why) == ("exited", 0, None), outcome.log_tail
    assert (outcome.result, [one.content for one in outcome.slots]) == (asked.request, [b"1212"])
    assert "out| printed" in outcome.log_tail
    assert "armed" not in outcome.log_tail, "the shim's line is none of the program's"
    assert fake.verbs == ["info", "create", "container", "start", "container", "container", "rm", "ps"]
    assert (fake.left, list((fake.home.parent / "work").iterdir())) == ([], [])
    seal = outcome.seal.to_json()
    assert (seal["backend"], seal["network"]) == ("container", "none")
    assert outcome.seal.output_bytes == len(asked.request) + 4
    assert seal["layers"] == {
        "namespaces": [], "no_new_privs": True, "cell_uid_is_root": False, "cgroup": "engine", "by": "gvisor",
        "by_sentry": list(SENTRY_ROWS), "landlock_abi": 0, "image_sha256": IMAGE[-64:],
        "seccomp_sha256": [filters.digest(one) for one in (oci.document("check"), profile.stacked("check"))],
    }  # fmt: skip
    assert seal["version"] == "docker 28.2.2, runsc 20250601.0"
    assert seal["policy_sha256"] == profile.digest("docker", "runsc", "check")
    assert {one["name"]: one["by"] for one in seal["limits"]}["memory_bytes"] == "engine"
    assert {"landlock_absent", "layers_by_sentry"} <= set(seal["statements"])


def test_the_environment_is_exactly_the_table_whatever_the_image_has(fake: Fake, order: MakeOrder) -> None:
    outcome = fake.cell().run(order("import json\nos.write(3, json.dumps(dict(os.environ)).encode())"))
    assert json.loads(outcome.result or b"") == profile.environment("check", 2)


def test_the_stacked_filter_holds_in_the_kernel(fake: Fake, order: MakeOrder) -> None:
    """The engine is a fake, the shim and its filter are not."""
    program = """
        import json, socket
        said = []
        for one in (lambda: socket.socket(), lambda: os.execv("/bin/true", ["true"]), lambda: os.fork()):
            try:
                child = one()
                if child == 0:
                    os._exit(0)
                said.append(0)
            except OSError as error:
                said.append(error.errno)
        os.write(3, json.dumps(said).encode())
        """
    assert json.loads(fake.cell().run(order(program)).result or b"") == [1, 1, 0]
    reading = order(program, kind="ingest", limits={"processes": 16})
    assert json.loads(fake.cell().run(reading).result or b"") == [1, 1, 1]


@pytest.mark.parametrize(
    ("program", "limits", "ended", "status", "why"),
    [
        ("sys.exit(3)", {}, "exited", 3, None),
        (RESULT + "; os.kill(os.getpid(), 11)", {}, "signalled", 11, None),
        ("import time; time.sleep(60)", {"wall_s": 1}, "killed", 9, "wall"),
        ("os.write(3, b' ' * 1025)", {"result_bytes": 1024}, "killed", 9, "output_cap"),
        ("while True: os.write(2, b'x' * 65536)", {"log_bytes": 1024}, "killed", 9, "log_flood"),
        ("raise MemoryError", {}, "exited", 75, "memory"),
    ],
)
def test_every_end_has_its_name_and_leaves_nothing(
    fake: Fake, order: MakeOrder, program: str, limits: dict[str, int], ended: str, status: int, why: str | None
) -> None:
    outcome: Outcome = fake.cell().run(order(program, limits=limits))
    assert (outcome.ended, outcome.status, outcome.why) == (ended, status, why), outcome.log_tail
    assert (outcome.result, outcome.slots, fake.left) == (None, (), [])


def test_a_result_at_the_cap_is_taken(fake: Fake, order: MakeOrder) -> None:
    outcome = fake.cell().run(order("os.write(3, b' ' * 1024)", limits={"result_bytes": 1024}))
    assert outcome.result == b" " * 1024


def test_a_container_that_its_command_left_alone_is_killed_and_the_hosts_failure(fake: Fake, order: MakeOrder) -> None:
    """Else a crash of the engine's command would count as the program's end."""
    fake.behave(tamper={"State.Status": "running"})
    with pytest.raises(CellFailed, match="host_lost"):
        fake.cell().run(order(RESULT))
    assert "kill" in fake.verbs
    assert fake.left == []


def test_a_cancel_kills_the_container(fake: Fake, order: MakeOrder) -> None:
    outcome = fake.cell().run(order("import time; time.sleep(60)"), cancelled=lambda: "start" in fake.verbs)
    assert (outcome.why, fake.left) == ("cancelled", [])


def test_the_engines_word_of_memory_is_taken(fake: Fake, order: MakeOrder) -> None:
    fake.behave(oom=True)
    assert fake.cell().run(order("sys.exit(1)")).why == "memory"


TAMPERED = {
    "network": {"HostConfig.NetworkMode": "bridge"},
    "read_only": {"HostConfig.ReadonlyRootfs": False},
    "privileged": {"HostConfig.Privileged": True},
    "user": {"Config.User": ""},
    "capabilities": {"HostConfig.CapDrop": []},
    "no_new_privs": {"HostConfig.SecurityOpt": ["seccomp=x"]},
    "seccomp": {"HostConfig.SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]},
    "memory": {"HostConfig.MemorySwap": -1},
    "processes": {"HostConfig.PidsLimit": 0},
    "cpus": {"HostConfig.NanoCpus": 0},
    "mounts": {"Mounts": [{"Source": "/", "Destination": "/host", "RW": False}]},
    "pid": {"HostConfig.PidMode": "host"},
    "ipc": {"HostConfig.IpcMode": "host"},
    "uts": {"HostConfig.UTSMode": "host"},
    "devices": {"HostConfig.Devices": [{"PathOnHost": "/dev/sda"}]},
    "the engine's words": {"HostConfig": {}},
}


@pytest.mark.parametrize("layer", TAMPERED)
def test_a_container_that_is_not_what_was_asked_for_never_starts(fake: Fake, order: MakeOrder, layer: str) -> None:
    fake.behave(tamper=TAMPERED[layer])
    error = refusal(lambda: fake.cell().run(order("")))
    assert error.code == "not_armed"
    assert error.item.startswith(layer)
    assert "start" not in fake.verbs
    assert fake.left == []


def test_another_image_never_starts(fake: Fake, order: MakeOrder) -> None:
    fake.behave(tamper={"Image": "other", "Config.Image": "other"})
    assert "image" in refusal(lambda: fake.cell().run(order(""))).item
    assert "start" not in fake.verbs


def test_an_engine_that_isolates_nothing_is_refused_before_anything_untrusted_runs(
    fake: Fake, order: MakeOrder, tmp_path: Path
) -> None:
    """With a runtime on the host's kernel the layers are read from the kernel, and there are none."""
    mark = tmp_path / "ran"
    fake.runsc.write_text("#!/bin/sh\necho 'runc version 1.3.0'\n")
    error = refusal(lambda: fake.cell(runtime="runc").run(order(f"open({str(mark)!r}, 'w')")))
    assert error.code in ("not_armed", "landlock_partial"), error
    assert "start" in fake.verbs
    assert (mark.exists(), fake.left) == (False, [])


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ('{"armed":false,"code":"seccomp_unsupported","item":"x"}', "seccomp_unsupported"),
        ('{"armed":false,"code":"invented","item":"x"}', "not_armed"),
        ('{"armed":true,"landlock_abi":7,"canary_before":0,"canary_errno":13}', "not_armed"),
        ('{"armed":true,"landlock_abi":0,"canary_before":2,"canary_errno":2}', "not_armed"),
        ('{"armed":true}', "not_armed"),
        ("[]", "not_armed"),
        ("hello", "not_armed"),
        ("", "not_armed"),
    ],
)
def test_a_shim_that_is_not_armed_gets_no_go(fake: Fake, order: MakeOrder, said: str, code: str) -> None:
    fake.behave(start=said)
    assert refusal(lambda: fake.cell().run(order(""))).code == code
    assert fake.left == []


def test_a_shim_that_says_nothing_is_not_waited_for_for_ever(fake: Fake, order: MakeOrder) -> None:
    fake.behave(start="silent")
    assert "in time" in refusal(lambda: fake.cell(start_s=1.0).run(order(""))).item


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rm": "refuses"}, "cell_unkillable"),
        ({"create": "nonsense"}, "spawn_failed"),
        ({"hangs": "create"}, "spawn_failed"),
    ],
)
def test_a_failing_engine_is_the_machines_failure(
    fake: Fake, order: MakeOrder, changes: dict[str, Any], code: str
) -> None:
    fake.behave(**changes)
    with pytest.raises(CellFailed) as caught:
        fake.cell(start_s=2.0).run(order(RESULT))
    assert caught.value.code == code


def test_hosts_that_cannot_hold_a_cell_are_refused(fake: Fake, order: MakeOrder) -> None:
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({}, fake.docker(ServerVersion="24.0.7"), "engine_below_minimum"),
        ({}, fake.docker(ServerVersion="unknown"), "engine_below_minimum"),
        ({}, fake.docker(MemoryLimit=False), "cgroup_unusable"),
        ({}, fake.docker(SwapLimit=False), "cgroup_unusable"),
        ({}, fake.docker(PidsLimit=False), "cgroup_unusable"),
        ({}, fake.docker(CpuCfsQuota=False), "cgroup_unusable"),
        ({}, fake.docker(SecurityOptions=[]), "seccomp_unsupported"),
        ({}, fake.docker(SecurityOptions=["name=seccomp", "name=rootless"]), "cgroup_unusable"),
        ({}, fake.docker(Runtimes={}), "engine_missing"),
        ({}, {}, "engine_missing"),
        ({"runtime": "runc"}, fake.docker(), "host is right"),
        ({"engine": "podman", "runtime": "crun"}, fake.podman(), "host is right"),
        ({"engine": "podman", "runtime": "crun"}, fake.podman(cgroupControllers=["cpu"]), "cgroup_unusable"),
        ({"engine": "podman", "runtime": "crun"}, fake.podman(security={"rootless": True, "seccompEnabled": False}),
         "seccomp_unsupported"),
        ({"engine": "podman", "runtime": "crun"},
         fake.podman(cgroupVersion="v1", security={"rootless": True, "seccompEnabled": True}), "cgroup_unusable"),
        ({"engine": "podman", "runtime": "crun"}, fake.podman(ociRuntime={"name": "crun", "version": "1.8.1"}),
         "engine_below_minimum"),
    ]  # fmt: skip
    for settings, info, code in cases:
        fake.behave(info=info)
        cell = fake.cell(**settings)
        if code == "host is right":
            assert cell.version().startswith(settings.get("engine", "docker"))
            continue
        error = refusal(lambda cell=cell: cell.run(order("")))  # type: ignore[misc]
        assert code in (error.code, error.item.partition(":")[0]), (info, error)
        assert "create" not in fake.verbs


@pytest.mark.parametrize(
    "image",
    ["cell", "cell:latest", "cell@sha256:ab", "cell@sha256:" + "AB" * 32, "--privileged@sha256:" + "ab" * 32, ""],
)
def test_an_image_without_its_digest_is_refused(fake: Fake, order: MakeOrder, image: str) -> None:
    assert "image_not_by_digest" in str(refusal(lambda: fake.cell(image=image).run(order(""))))
    assert fake.calls == []


@pytest.mark.parametrize("program", ["docker", "/nonexistent/docker", "/"])
def test_an_engine_that_is_not_there_is_refused(fake: Fake, order: MakeOrder, program: str) -> None:
    assert "engine_missing" in str(refusal(lambda: fake.cell(program=Path(program)).run(order(""))))


def test_gpu_cells_have_no_container(fake: Fake, order: MakeOrder) -> None:
    assert refusal(lambda: fake.cell().run(order("", kind="check_gpu", gpus=(0,)))).code == "profile_invalid"
    assert fake.calls == []


def test_a_path_that_the_engine_would_read_as_two_is_refused(fake: Fake, order: MakeOrder, tmp_path: Path) -> None:
    from sandbox import CodeMount

    evil = tmp_path / "a,readonly=false,target="
    evil.mkdir()
    code = (CodeMount(name="x", source=evil),)
    assert refusal(lambda: fake.cell().run(order("", code=code))).code == "profile_invalid"
    assert "create" not in fake.verbs


def test_containers_of_dead_workers_are_swept(fake: Fake) -> None:
    from sandbox.container import engine

    (fake.home / ("a" * 64 + ".json")).write_text("{}")
    (fake.home / ("b" * 64 + ".json")).write_text("{}")
    assert engine.sweep(fake.settings(), profile.LABEL, frozenset({"b" * 64})) == 1
    assert [one.stem[0] for one in fake.left] == ["b"]


def _real() -> tuple[str, Path] | None:
    for name in ("podman", "docker"):
        for folder in ("/usr/bin", "/usr/local/bin"):
            path = Path(folder, name)
            if os.access(path, os.X_OK) and os.system(f"{path} info >/dev/null 2>&1") == 0:
                return name, path
    return None


@pytest.mark.slow
def test_the_self_check_holds_in_real_containers() -> None:
    """Needs an engine, and ASSAY_CELL_IMAGE: an image by digest with this interpreter's version in it."""
    from sandbox.container import ContainerCell, ContainerSettings

    found, image = _real(), os.environ.get("ASSAY_CELL_IMAGE", "")
    if found is None:
        pytest.skip("no container engine answers on this machine")
    if not image:
        pytest.skip("ASSAY_CELL_IMAGE names no image by digest")
    settings = ContainerSettings(
        engine="podman" if found[0] == "podman" else "docker",
        program=found[1],
        runtime=os.environ.get("ASSAY_CELL_RUNTIME", "runc"),  # type: ignore[arg-type]
        image=image,
    )
    assert all(case.word != "open" for case in ContainerCell(settings).prove().cases)


def test_the_suite_is_told_what_a_container_must_show(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """`prove` runs the same suite as bubblewrap's, on the kinds that have a profile."""
    from sandbox import selfcheck

    asked: list[Any] = []

    def check(cell: Any, host: Host, *, kinds: Any) -> list[Any]:
        asked.extend([host.landlock_abi, host.environment("check"), tuple(kinds)])
        return []

    monkeypatch.setattr(selfcheck, "check", check)
    cell = fake.cell()
    proof = cell.prove()
    assert asked == [0, profile.environment("check", 2), ("ingest", "check")]
    assert (proof.backend, proof.version) == ("container", "docker 28.2.2, runsc 20250601.0")


def test_image_is_named_in_what_is_created(fake: Fake, order: MakeOrder) -> None:
    fake.cell().run(order(RESULT))
    (created,) = [one for one in fake.calls if one[0] == "create"]
    assert created[created.index(IMAGE) - 1].startswith("--entrypoint=")
    (mounts,) = [[one for one in created if one.startswith("--mount=")]]
    writable = [one for one in mounts if ",readonly," not in one]
    assert len(writable) == 1
    assert "target=/out/.result," in writable[0]
