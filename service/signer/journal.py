"""The signer's hand on the transparency log: one writer, one entry an operation, no fork after a restored backup."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import AssayError, Malformed
from assay.tlog import entries, notes, proofs
from assay.tlog.entries import Entry
from assay.tlog.log import Log
from assay.tlog.notes import Vkey

from service.signer.refusal import CannotServe, Refused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Journal:
    """The log in the signer's own folder; threads take turns.

    Args:
        folder: where the log lies.
        origin: the log's name, also the name of its key.
        private_key: signs checkpoints.
        clock: tells when an entry is appended.

    Raises:
        CannotServe: the log is damaged, another process writes to it, or it is of another key.
    """

    def __init__(
        self, folder: Path, origin: str, private_key: Ed25519PrivateKey, clock: Callable[[], datetime]
    ) -> None:
        self._folder = folder
        self._origin = origin
        self._private = private_key
        self._clock = clock
        self._lock = threading.Lock()
        self.vkey: Vkey = notes.vkey_of(private_key, origin)
        try:
            self._log: Log | None = Log(folder, origin, private_key)
            self._log.check()
        except AssayError as error:
            raise CannotServe(f"the log cannot be written: {error}") from error

    def close(self) -> None:
        """Let go of the log's folder."""
        with self._lock:
            if self._log is not None:
                self._log.close()
            self._log = None

    def require(self, proven: Iterable[tuple[str, bytes]]) -> None:
        """Check that checkpoints which were handed out are this log's past: a restored backup would fork it.

        Args:
            proven: who carries it, and a proof file.

        Raises:
            CannotServe: one is not; the message says who carries it.
        """
        seen: set[bytes] = set()
        with self._lock:
            for who, proof in proven:
                try:
                    note = proofs.read_proof(proof).checkpoint
                    if note in seen:
                        continue
                    seen.add(note)
                    assert self._log is not None
                    self._log.require(notes.open_checkpoint(note, [self.vkey]))
                except AssayError as error:
                    raise CannotServe(
                        f"the log in {self._folder} is not the one that {who} was proven in: {error}; restore the "
                        "newest copy of the log, nothing is signed until then"
                    ) from error

    @property
    def size(self) -> int:
        """Entries so far.

        Raises:
            Refused: STORAGE_FAILED.
        """
        with self._open() as log:
            return log.size

    def note(self, kind: str, since: int | None, **fields: Any) -> bytes:
        """Append an entry, unless it is there, and return its proof.

        Args:
            kind: of the entry.
            since: where to look for an entry that was appended before the signer was killed: from this index on; None
                where it cannot have been.
            fields: the entry's other fields; `at` is now.

        Raises:
            Refused: STORAGE_FAILED, CLOCK_SKEW.
        """
        with self._open() as log:
            return self._noted(log, kind, since, fields)

    def note_with_consistency(self, kind: str, since: int | None, old: int, **fields: Any) -> tuple[bytes, bytes]:
        """As `note`, with the consistency file from the tree of `old` entries to the proof's checkpoint."""
        with self._open() as log:
            return self._noted(log, kind, since, fields), log.prove_since(old)

    def _noted(self, log: Log, kind: str, since: int | None, fields: dict[str, Any]) -> bytes:
        owed = "prev" if "prev" in fields else "commit"  # what an entry of this kind may stand for once

        def is_it(entry: Entry) -> bool:
            return entry.kind == kind and getattr(entry, owed) == fields[owed]

        found = None if since is None else log.search(is_it, since)
        if found is not None:
            there = entries.parse(log.entry(found))
            for name, value in fields.items():
                if getattr(there, name) != value:
                    text = f"entry {found} of the log is this {kind} with another {name}: {getattr(there, name)}"
                    raise Refused("SELF_CHECK_FAILED", f"{text}; one that was logged is never logged again")
            return log.prove(found)
        at = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        return log.append(Entry(kind=kind, at=at, **fields))[1]

    @contextmanager
    def _open(self) -> Iterator[Log]:
        """Hold the log; after any failure it is opened again, which finds out what the disk holds."""
        with self._lock:
            try:
                if self._log is None:
                    self._log = Log(self._folder, self._origin, self._private)
                yield self._log
            except Malformed as error:
                raise Refused("INTERNAL", f"an entry of ours is malformed: {error}") from error
            except AssayError as error:
                if self._log is not None:
                    self._log.close()
                self._log = None
                skewed = "the clock went back" in str(error)
                raise Refused("CLOCK_SKEW" if skewed else "STORAGE_FAILED", f"the log: {error}") from error
