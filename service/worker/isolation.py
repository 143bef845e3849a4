"""Whether cells can be isolated here: proven before the first lease and again in time, and told to operators."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import sandbox
from sandbox.cell import Cell, Proof
from sandbox.errors import CellRefused, SandboxError
from service.worker.errors import WorkerClosed, WorkerError

log = logging.getLogger("assay.worker")

AGAIN_S = 24 * 3600.0
"""No cell starts on a proof that is older."""

MATRIX = Path(sandbox.__file__).with_name("matrix.json")
"""What every case of the suite did, with all of its controls, when the release was made."""

SELFCHECKS = "selfchecks"
"""Folder of the documents of self-checks. Equal ones have one digest, so it grows by one when a host changes."""

EXIT_REFUSED = 2
"""Exit status of a worker that found no isolation at its start: starting it again without a repair is of no use."""

Profile = Literal["development", "production"]


class IsolationMissing(WorkerError):
    """No cell can be isolated on this host; the text has the code, the item, and what to do."""


class Wall:
    """The isolation that a worker leases upon.

    Args:
        cell: what to prove.
        file: told the state as {"isolation", "detail"}; the API serves it.
        profile: outside of development a backend that isolates nothing is refused.
        host: digest of what a proof holds for; None looks at kernel, bubblewrap, interpreter and the sandbox's code.
        published: digest of the probes whose matrix, with every control, this release was published with; outside of
            development a self-check by other probes is refused.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        cell: Cell,
        file: Path,
        *,
        profile: Profile = "production",
        host: Callable[[], str] | None = None,
        published: Callable[[], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cell = cell
        self._file = file
        self._profile = profile
        self._host = host or (lambda: host_digest(cell))
        self._published = published or published_probes
        self._clock = clock
        self._lock = threading.Lock()
        self._proven_at = 0.0
        self._proven_for = ""

    def raise_first(self, sweep: Callable[[], int] = lambda: 0) -> None:
        """Remove what dead workers left, and prove isolation for the first time.

        Raises:
            IsolationMissing: it does not hold; the worker must not start.
            WorkerClosed: the machine failed meanwhile; a fresh process may find it better.
        """
        try:
            if left := sweep():
                log.info("removed %d folders and groups of workers that were killed", left)
            self._prove()
        except CellRefused as error:
            log.critical("the worker does not start, no cell can be isolated here: %s", error)
            tell(self._file, "none", str(error))
            raise IsolationMissing(str(error)) from None
        except SandboxError as error:
            tell(self._file, "none", str(error))
            raise WorkerClosed(str(error)) from error

    def stand(self) -> None:
        """Say before each lease that the proof still holds; prove again when a day has passed or the host changed.

        Raises:
            WorkerClosed: isolation was lost; a supervisor starts a fresh process, which says what to do.
        """
        with self._lock:  # one slot proves, the others wait for it
            changed = self._host() != self._proven_for
            if not changed and self._clock() - self._proven_at < AGAIN_S:
                return
            log.info("isolation is proven again: %s", "the host has changed" if changed else "a day has passed")
            try:
                self._prove()
            except SandboxError as error:
                tell(self._file, "none", str(error))
                raise WorkerClosed(str(error)) from error

    def _prove(self) -> Proof:
        before = self._host()
        proof = self._cell.prove()
        every: Sequence[Proof] = getattr(self._cell, "both_proofs", ()) or (proof,)  # one of each backend
        for one in every:
            if self._profile != "development":
                self._check(one)
            keep(self._file, one)
        self._proven_for, self._proven_at = before, self._clock()
        told = "; ".join(f"{one.backend} {one.version}, self-check {one.sha256}" for one in every)
        tell(self._file, proof.backend, told)
        return proof

    def _check(self, proof: Proof) -> None:
        if proof.backend == "process":
            raise CellRefused(
                "selfcheck_void", 'cells of the process backend isolate nothing: only under profile = "development"'
            )
        if proof.probes_sha256 != self._published():
            raise CellRefused(
                "selfcheck_void",
                f"the probes here have digest {proof.probes_sha256}, sandbox/matrix.json was made by others: "
                "install one release whole, or run `make sandbox-matrix`",
            )


def published_probes() -> str:
    """Return the digest of the probes that the release's matrix names; empty where there is no matrix."""
    try:
        return str(json.loads(MATRIX.read_bytes())["probes_sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def keep(file: Path, proof: Proof) -> None:
    """Keep the document of a self-check beside `file`, by the digest that the seals of this worker's cells name."""
    folder = file.with_name(SELFCHECKS)
    folder.mkdir(parents=True, exist_ok=True)
    document, place = proof.document(), folder / f"{proof.sha256}.json"
    if not place.exists():
        aside = place.with_name(f"{place.name}.new")
        aside.write_bytes(document)
        aside.replace(place)


def host_digest(cell: Cell) -> str:
    """Return a digest that changes with kernel, bubblewrap, engine, interpreter, or the code that makes the profile.

    Files count by inode, size, mode and times: this is looked at before each lease.
    """
    settings = getattr(cell, "settings", None)
    named = [getattr(settings, name, None) for name in ("bwrap", "interpreter")]
    code = sorted(Path(sandbox.__file__).parent.rglob("*.py"))
    seen = [
        platform.release(),
        platform.version(),
        _engine(cell),
        *_states([one for one in named if one is not None] + code),
    ]
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()


def _engine(cell: Cell) -> str:
    """Return the versions of a container engine and its runtime, or why they cannot be told; "" where there is none."""
    asked: Callable[[], str] | None = getattr(cell, "host_now", None)
    try:
        return asked() if asked else ""
    except SandboxError as error:
        return str(error)


def _states(files: Iterable[Path]) -> list[str]:
    made = []
    for file in files:
        try:
            status = os.stat(file)
        except OSError as error:
            made.append(f"{file} {error.errno}")
            continue
        numbers = (status.st_ino, status.st_size, status.st_mode, status.st_mtime_ns, status.st_ctime_ns)
        made.append(f"{file} {numbers}")
    return made


def tell(file: Path, isolation: str, detail: str) -> None:
    """Write the state whole or not at all."""
    aside = file.with_name(f"{file.name}.new")
    aside.write_text(json.dumps({"isolation": isolation, "detail": detail}) + "\n", encoding="utf-8")
    aside.replace(file)
