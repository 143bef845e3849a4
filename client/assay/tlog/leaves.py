"""V05: is this leaf in a trusted log, and does it say what it must?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from assay import moments
from assay.errors import Malformed, Wrong, shown
from assay.tlog import entries, notes, proofs, tree
from assay.tlog.entries import Entry
from assay.tlog.notes import Checkpoint, Vkey

SKEW = timedelta(minutes=5)
"""How far a log's clock may be ahead of the reader's (specification, section 16)."""


@dataclass(frozen=True, kw_only=True)
class LogKey:
    """A log key that the reader trusts for a span of logged time."""

    vkey: Vkey
    """Its name is the log's origin."""
    valid_from: datetime | None = None
    """None: for ever, as a key has that the user pinned."""
    valid_until: datetime | None = None
    """The first moment at which it is no longer good."""

    def good_at(self, at: datetime) -> bool:
        """Tell whether the key may speak for an entry of that moment."""
        return (self.valid_from is None or self.valid_from <= at) and (
            self.valid_until is None or at < self.valid_until
        )


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """An entry that is proven to be in a trusted log."""

    entry: Entry
    index: int
    hash: bytes
    """Its leaf hash."""
    checkpoint: Checkpoint
    """The signed head that the proof leads to."""
    note: bytes
    """That head as the log signed it."""

    @property
    def at(self) -> datetime:
        """When the log appended it: the only time that keys are judged by."""
        return moments.parse(self.entry.at)

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.checkpoint.origin

    @property
    def size(self) -> int:
        """Entries under the checkpoint."""
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        """Root under the checkpoint."""
        return self.checkpoint.root


def verify_leaf(
    data: bytes,
    kind: str,
    commit: str,
    logs: Sequence[LogKey],
    *,
    now: datetime,
    key: str | None = None,
    prev: int | None = None,
    name: str = proofs.REPORT_PROOF,
) -> Leaf:
    """Check a proof file: the entry, its inclusion, the checkpoint's signature, and the log's clock.

    Args:
        data: bytes of the proof file.
        kind: what the leaf must be; a replication presented as a report is refused here.
        commit: hex digest that it must commit to, computed by the caller from bytes that it verified.
        logs: the trusted log keys.
        now: the reader's clock.
        key: key id that the entry must name; None leaves it to the caller (`Leaf.entry.key`).
        prev: index that the entry must name; None leaves it to the caller.
        name: the file's name, for messages.

    Raises:
        Wrong: any mismatch.
        CouldNotTell: an entry of a kind or version that this client does not know.
    """
    try:
        proof = proofs.read_proof(data)
        entry = entries.parse(proof.entry)
    except Malformed as error:
        raise Wrong(f"{name} is malformed: {error}") from None
    owed = {"kind": kind, "commit": commit, "key": key, "prev": prev}
    for field, expected in owed.items():
        found = getattr(entry, field)
        if expected is not None and found != expected:
            raise Wrong(f"{name}: the leaf's {field} is {shown(found, 24)}, expected {shown(expected, 24)}")
    checkpoint = open_checkpoint(proof.checkpoint, logs, moments.parse(entry.at), name)
    leaf = tree.leaf_hash(proof.entry)
    tree.check_inclusion(leaf, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    if moments.parse(entry.at) > now + SKEW:
        raise Wrong(f"{name}: the entry was logged at {entry.at}, in the future; check this machine's clock")
    return Leaf(entry=entry, index=proof.index, hash=leaf, checkpoint=checkpoint, note=proof.checkpoint)


def open_checkpoint(data: bytes, logs: Sequence[LogKey], at: datetime, name: str) -> Checkpoint:
    """Read a checkpoint and check that a log key good at a moment signed it.

    Raises:
        Wrong: malformed, no trusted key signed it, or the one that did was not good then.
    """
    claimed, signed = open_signed(data, logs, name)
    check_good(signed, at, name)
    return claimed


def open_signed(data: bytes, logs: Sequence[LogKey], name: str) -> tuple[Checkpoint, tuple[LogKey, ...]]:
    """Read a checkpoint; return it with the trusted keys of its log that signed it, whenever they were good.

    Raises:
        Wrong: malformed, or no trusted key of its log signed it.
    """
    try:
        claimed, note = notes.read_checkpoint(data)
    except Malformed as error:
        raise Wrong(f"{name}: the checkpoint is malformed: {error}") from None
    known = [log for log in logs if log.vkey.name == claimed.origin]
    if not known:
        raise Wrong(f"{name}: no trusted key of a log named {claimed.origin}")
    signed = notes.verify(note, [log.vkey for log in known])
    return claimed, tuple(log for log in known if log.vkey in signed)


def check_good(signed: Sequence[LogKey], at: datetime, name: str) -> None:
    """Check that one of the keys was good at a logged moment.

    Raises:
        Wrong: none was.
    """
    if not any(log.good_at(at) for log in signed):
        raise Wrong(f"{name}: the key of {signed[0].vkey.name} was not good at {at:%Y-%m-%dT%H:%M:%SZ}")
