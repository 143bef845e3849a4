"""What a worker leases upon: proven first, and again when a day has passed or the host changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from sandbox import BubblewrapCell, BubblewrapSettings, ProcessCell
from sandbox.cell import Proof
from sandbox.errors import CellFailed, CellRefused, SandboxError
from service.worker.errors import WorkerClosed
from service.worker.isolation import AGAIN_S, IsolationMissing, Wall, host_digest
from tests.service.worker.scripted import ScriptedCell, good


class Proving(ScriptedCell):
    """Counts its proofs, and fails when told to."""

    def __init__(self) -> None:
        super().__init__(good)
        self.proofs = 0
        self.fails: SandboxError | None = None

    def prove(self) -> Proof:
        self.proofs += 1
        if self.fails:
            raise self.fails
        return Proof(backend="bubblewrap", version="1", profile_sha256="", kernel="", probes_sha256="probes", cases=())


class Host:
    """A worker's surroundings, in the test's hand."""

    def __init__(self, folder: Path) -> None:
        self.cell = Proving()
        self.now = 1000.0
        self.digest = "a"
        self.file = folder / "isolation.json"
        self.published = "probes"
        self.wall = Wall(
            self.cell,
            self.file,
            host=lambda: self.digest,
            published=lambda: self.published,
            clock=lambda: self.now,
        )

    def told(self) -> dict[str, str]:
        return dict(json.loads(self.file.read_text()))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_proof_is_renewed_when_a_day_has_passed(host: Host) -> None:
    host.wall.raise_first()
    host.now += AGAIN_S - 1
    host.wall.stand()
    assert host.cell.proofs == 1
    host.now += 1
    host.wall.stand()
    host.wall.stand()
    assert host.cell.proofs == 2


def test_proof_is_renewed_when_the_host_has_changed(host: Host) -> None:
    host.wall.raise_first()
    host.digest = "b"
    host.wall.stand()
    host.wall.stand()
    assert host.cell.proofs == 2


def test_a_change_while_it_is_proven_is_not_missed(host: Host) -> None:
    """Then the proof may hold for what was there before."""
    proving = host.cell.prove

    def prove() -> Proof:
        host.digest = "during"
        return proving()

    host.cell.prove = prove  # type: ignore[method-assign]
    host.wall.raise_first()
    host.wall.stand()
    assert host.cell.proofs == 2


def test_isolation_lost_at_a_renewal_closes_the_worker(host: Host) -> None:
    host.wall.raise_first()
    host.digest, host.cell.fails = "b", CellRefused("bwrap_setuid", "/usr/bin/bwrap")
    for _ in range(2):  # the next slot must not take the failure for a proof
        with pytest.raises(WorkerClosed, match="bwrap_setuid"):
            host.wall.stand()
    assert host.told()["isolation"] == "none"


def test_slots_that_lease_at_once_prove_once(host: Host) -> None:
    host.wall.raise_first()
    host.digest = "b"
    proving, meeting = host.cell.prove, threading.Barrier(2)

    def prove() -> Proof:
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(0.3)  # passes at once for two that prove at the same time
        return proving()

    host.cell.prove = prove  # type: ignore[method-assign]
    threads = [threading.Thread(target=host.wall.stand) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert host.cell.proofs == 2


def test_a_refusal_at_start_is_told_apart_from_a_machine_that_failed(host: Host) -> None:
    """The first needs a repair, the second another try."""
    host.cell.fails = CellRefused("userns_disabled")
    with pytest.raises(IsolationMissing, match=r"userns_disabled: .*max_user_namespaces"):
        host.wall.raise_first()
    assert host.told() == {"isolation": "none", "detail": str(host.cell.fails)}
    host.cell.fails = CellFailed("no_space")
    with pytest.raises(WorkerClosed, match="no_space"):
        host.wall.raise_first()


def test_a_group_that_cannot_be_swept_refuses_the_start(host: Host) -> None:
    def sweep() -> int:
        raise CellRefused("cgroup_unusable", "pids: not mounted here")

    with pytest.raises(IsolationMissing, match=r"cgroup_unusable \(pids: not mounted here\)"):
        host.wall.raise_first(sweep)
    assert host.cell.proofs == 0


def test_probes_that_were_never_published_with_their_controls_are_refused(host: Host) -> None:
    """In production only harmless controls run: of other probes nobody has shown that they can get through."""
    host.published = "others"
    with pytest.raises(IsolationMissing, match=r"selfcheck_void .*make sandbox-matrix"):
        host.wall.raise_first()
    assert host.told()["isolation"] == "none"


def test_matrix_of_this_release_is_read_and_its_absence_equals_no_digest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from service.worker import isolation

    assert len(isolation.published_probes()) == 64
    for content in (None, b"{", b"[]"):
        monkeypatch.setattr(isolation, "MATRIX", tmp_path / "matrix.json")
        if content is not None:
            (tmp_path / "matrix.json").write_bytes(content)
        assert isolation.published_probes() == ""


def test_document_of_a_self_check_lies_where_its_seals_digest_says(host: Host) -> None:
    """A digest in a report whose document nobody has proves nothing to anybody."""
    host.wall.raise_first()
    host.digest = "b"
    host.wall.stand()
    (kept,) = (host.file.parent / "selfchecks").iterdir()
    assert kept.stem == hashlib.sha256(kept.read_bytes()).hexdigest() == host.cell.prove().sha256
    assert json.loads(kept.read_bytes())["probes_sha256"] == "probes"


def test_process_cell_is_refused_outside_of_development(tmp_path: Path) -> None:
    cell = ProcessCell(unsafe=True)
    with pytest.raises(IsolationMissing, match=r'only under profile = "development"'):
        Wall(cell, tmp_path / "a").raise_first()
    assert json.loads((tmp_path / "a").read_text())["isolation"] == "none"
    Wall(cell, tmp_path / "b", profile="development").raise_first()
    assert json.loads((tmp_path / "b").read_text())["isolation"] == "process"


def test_another_bubblewrap_or_interpreter_is_a_change(tmp_path: Path) -> None:
    bwrap, interpreter = tmp_path / "bwrap", tmp_path / "interpreter"
    for path in (bwrap, interpreter):
        shutil.copy("/bin/true", path)
    cell = BubblewrapCell(BubblewrapSettings(bwrap=bwrap, interpreter=interpreter))
    before = host_digest(cell)
    assert host_digest(cell) == before
    for path in (bwrap, interpreter):
        path.chmod(0o700)
        after = host_digest(cell)
        assert after != before
        before = after
        aside = tmp_path / "aside"
        shutil.copy2(path, aside)
        os.replace(aside, path)  # an upgrade: same bytes, another file
        after = host_digest(cell)
        assert after != before
        before = after
    bwrap.unlink()
    assert host_digest(cell) != before


def test_another_profile_on_disk_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim is mounted from where it is installed, so an upgrade reaches the next cell."""
    import sandbox

    (tmp_path / "__init__.py").touch()
    (tmp_path / "inside.py").write_text("pass\n")
    monkeypatch.setattr(sandbox, "__file__", str(tmp_path / "__init__.py"))
    cell = ScriptedCell(good)
    before = host_digest(cell)
    (tmp_path / "inside.py").write_text("pass\npass\n")
    assert host_digest(cell) != before
