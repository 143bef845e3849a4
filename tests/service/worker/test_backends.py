"""Checks in containers of a stand-in engine, models behind bubblewrap: what goes where, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import BubblewrapCell, CellRefused, CodeMount, selfcheck
from sandbox.cell import Proof
from sandbox.container import profile
from service.rules.states import ExitClass
from service.worker import isolation
from service.worker.backends import ApartCells, image_of, read_installed
from service.worker.code import Guest
from service.worker.errors import HostFault
from service.worker.record import Installed, host_record, unanswered
from tests.sandbox.conftest import MakeOrder
from tests.sandbox.conftest import order as order
from tests.sandbox.container.conftest import IMAGE, Fake
from tests.sandbox.container.conftest import fake as fake
from tests.service.signer.test_containers import judged
from tests.service.store.planting import new_store
from tests.service.worker.scripted import house
from tests.service.worker.test_two_cells import CATALOGUE, CODE, Site, Watched, mlp
from tests.service.worker.test_two_cells import bubblewrap as bubblewrap

SANDBOX = next(one for one in CODE if one.name == "sandbox")
HELD = Proof(backend="x", version="1", profile_sha256="0" * 64, kernel="k", probes_sha256="p", cases=())


@pytest.fixture
def unattacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in isolates nothing: the suite would attack this machine, and find it open."""
    monkeypatch.setattr(selfcheck, "check", lambda *_, **__: [])
    monkeypatch.setattr(BubblewrapCell, "prove", lambda _: replace(HELD, backend="bubblewrap"))


def apart(fake: Fake, bubblewrap: BubblewrapCell, **changes: Any) -> ApartCells:
    return ApartCells(bubblewrap, fake.cell(python_path=tuple(one for one in sys.path if one), **changes), SANDBOX)


@pytest.fixture
def cells(fake: Fake, bubblewrap: BubblewrapCell, unattacked: None) -> Iterator[ApartCells]:
    made = apart(fake, bubblewrap)
    made.prove()
    yield made
    assert fake.left == []


def refusal(run: Callable[[], Any]) -> CellRefused:
    with pytest.raises(CellRefused) as caught:
        run()
    return caught.value


def test_a_model_is_read_behind_bubblewrap_and_measured_in_a_container(
    tmp_path: Path, cells: ApartCells, fake: Fake
) -> None:
    store = new_store(tmp_path)
    try:
        base = house(store, tmp_path)
        watched = Watched(cells, [], [])  # type: ignore[arg-type]
        guest = Guest(module="guest_checks", code=CODE)
        bench = replace(base.bench, cell=watched, guest=guest, catalogue=CATALOGUE, image=image_of(cells))
        site = Site(replace(base, bench=bench), watched, tmp_path)
        stored = site.audit(mlp(tmp_path / "model"))
    finally:
        store.close()
    assert site.classes == ["OK"], [one.log_tail for one in watched.outcomes]
    told = stored["sandbox"]["cells"]
    assert [(one["stage"], one["backend"]) for one in told] == [("ingest", "bubblewrap"), ("check", "container")]
    assert told[1]["layers"]["image_sha256"] == IMAGE[-64:]
    assert told[1]["statements"] == ["landlock_absent", "layers_by_sentry"]
    assert told[1]["selfcheck_sha256"] == cells.both_proofs[1].sha256
    assert [one["outcome"] for one in stored["answers"]] == ["measured"]
    assert "torch" in stored["environment"]["packages"], "as its own image told"
    judged(told[1])


def test_the_packages_of_a_report_are_those_of_the_image(cells: ApartCells, fake: Fake, order: MakeOrder) -> None:
    seal = cells.run(order("os.write(3, b'{}')")).seal
    values: dict[str, Any] = {
        "audit": "a", "token": 1, "told": unanswered((), ExitClass.CELL_CRASHED), "provenance": {}, "threads": 1,
        "seals": [seal],
    }  # fmt: skip
    image = Installed(python="3.99.0", packages={"torch": "9"})
    told = json.loads(host_record(**values, image=image))["environment"]
    assert (told["python"], told["packages"]) == ("3.99.0", {"torch": "9"})
    with pytest.raises(HostFault, match="image"):
        host_record(**values)
    alone = {**values, "seals": [replace(seal, backend="bubblewrap")]}
    assert json.loads(host_record(**alone, image=image))["environment"]["python"] != "3.99.0"


def test_only_gvisor_is_taken(fake: Fake, bubblewrap: BubblewrapCell, unattacked: None, order: MakeOrder) -> None:
    cell = apart(fake, bubblewrap, runtime="runc")
    for run in (cell.prove, lambda: cell.run(order("")), lambda: cell.sweep(Path("/nowhere"))):
        assert refusal(run).code == "runtime_not_sentry"
    assert fake.calls == []


@pytest.mark.parametrize(
    ("changes", "info", "code"),
    [
        ({"image": "cell:latest"}, {}, "image_not_by_digest"),
        ({"program": Path("/nonexistent/docker")}, {}, "engine_missing"),
        ({}, {"ServerVersion": "24.0.9"}, "engine_below_minimum"),
        ({}, {"Runtimes": {"runc": {"path": "runc"}}}, "engine_missing"),
        ({}, {"PidsLimit": False}, "cgroup_unusable"),
        ({}, {"SecurityOptions": ["name=seccomp", "name=rootless"]}, "cgroup_unusable"),
    ],
    ids=str,
)
def test_a_worker_is_told_what_to_do_before_anything_is_leased(
    tmp_path: Path, fake: Fake, bubblewrap: BubblewrapCell, changes: dict[str, Any], info: dict[str, Any], code: str
) -> None:
    fake.behave(info=fake.docker(**info))
    wall = isolation.Wall(apart(fake, bubblewrap, **changes), tmp_path / "isolation.json")
    with pytest.raises(isolation.IsolationMissing, match=code):
        wall.raise_first()
    assert code in (tmp_path / "isolation.json").read_text()
    assert "create" not in fake.verbs


def test_both_proofs_are_kept_and_an_upgraded_engine_is_proven_anew(
    tmp_path: Path, fake: Fake, bubblewrap: BubblewrapCell, unattacked: None
) -> None:
    cell = apart(fake, bubblewrap)
    wall = isolation.Wall(cell, tmp_path / "isolation.json", profile="development")
    wall.raise_first()
    kept = {one.stem for one in (tmp_path / isolation.SELFCHECKS).iterdir()}
    assert kept == {one.sha256 for one in cell.both_proofs}
    assert json.loads((tmp_path / "isolation.json").read_text())["isolation"] == "container"
    started = fake.verbs.count("start")
    wall.stand()
    assert fake.verbs.count("start") == started
    fake.behave(info=fake.docker(ServerVersion="28.3.0"))
    wall.stand()
    assert fake.verbs.count("start") == started + 1
    assert "28.3.0" in cell.both_proofs[1].version


def test_another_probe_digest_of_either_backend_closes_a_production_worker(
    tmp_path: Path, fake: Fake, bubblewrap: BubblewrapCell, unattacked: None
) -> None:
    cell = apart(fake, bubblewrap)
    probes = cell._measuring.prove().probes_sha256
    wall = isolation.Wall(cell, tmp_path / "isolation.json", published=lambda: probes)
    with pytest.raises(isolation.IsolationMissing, match="selfcheck_void"):
        wall.raise_first()


def test_an_image_that_does_not_tell_what_it_holds_is_refused(
    fake: Fake, bubblewrap: BubblewrapCell, unattacked: None, tmp_path: Path
) -> None:
    folder = tmp_path / "fallen" / "container"
    folder.mkdir(parents=True)
    for name in (folder.parent / "__init__.py", folder / "__init__.py", folder / "installed.py"):
        name.write_text("")
    cell = apart(fake, bubblewrap)
    cell._code = CodeMount(name="sandbox", source=folder.parent)
    assert refusal(cell.prove).code == "image_unusable"
    assert (cell.image(), cell.both_proofs) == (None, ())


TOLD: dict[str, Any] = {"schema": "assay-installed/v1", "nonce": "n", "python": "3", "packages": {"a": "1"}}
UNTOLD: tuple[dict[str, Any], ...] = (
    {"nonce": "m"}, {"schema": "x"}, {"more": 1}, {"packages": {}}, {"packages": {"a": 1}}, {"python": None},
    {"packages": [1]}, {"packages": {"a": "x" * 257}},
)  # fmt: skip


@pytest.mark.parametrize(
    "told",
    [
        b"", b"[]", b"{}", b'{"schema":1}', b"1",
        *(json.dumps(TOLD | one).encode() for one in UNTOLD),
    ],
)  # fmt: skip
def test_what_an_image_tells_is_read_strictly(told: bytes) -> None:
    from assay.errors import Malformed

    assert read_installed(json.dumps(TOLD).encode(), "n").packages == {"a": "1"}
    with pytest.raises((Malformed, LookupError, TypeError, ValueError)):
        read_installed(told, "n")


def test_containers_of_killed_workers_are_swept_and_those_of_living_ones_are_not(
    fake: Fake, bubblewrap: BubblewrapCell, tmp_path: Path
) -> None:
    cells = tmp_path / "cells"
    (cells / "alive").mkdir(parents=True)
    (cells / "alive" / "r").touch()
    sources = {"a": cells / "alive" / "r", "b": cells / "dead" / "r", "c": tmp_path / "others" / "r"}
    common = [
        "--network=none", "--cap-drop=ALL", "--security-opt=x", "--memory=1", "--memory-swap=1", "--pids-limit=1",
        "--cpus=1", "--ipc=none", "--user=1",
    ]  # fmt: skip
    for name, source in sources.items():
        mount = f"--mount=type=bind,source={source},target={profile.RESULT}"
        (fake.home / f"{name * 64}.json").write_text(json.dumps({"arguments": [*common, mount, "image"]}))
    assert apart(fake, bubblewrap).sweep(cells) == 1
    assert sorted(one.stem[0] for one in fake.left) == ["a", "c"]
