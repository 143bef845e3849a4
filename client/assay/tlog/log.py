"""The log's one writer: appends entries to a folder of tiles and signs a checkpoint after each append.

Order of an append: entries, tiles, then the checkpoint; the entries are durable before the checkpoint gets its name.
Entries that lie on the disk beyond the checkpoint are taken into the log when it is opened again, never written over:
a power cut may take back a checkpoint that a reader has seen, and the same entries give the same one. So after a crash,
or any refusal of the disk, a caller opens the log again and asks `search` for its entry before it appends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from assay import moments
from assay.errors import CouldNotTell, MachineFailed, Malformed, Misused, Wrong
from assay.tlog import edge as edges
from assay.tlog import entries, notes, proofs, tiles, tree
from assay.tlog.disk import Disk, only_writer, storage
from assay.tlog.edge import Edge
from assay.tlog.entries import Entry
from assay.tlog.notes import Checkpoint
from assay.tlog.proofs import Consistency, Proof
from assay.tlog.tiles import WIDTH, TileTree

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

BATCH_MAX = 256
"""Most entries under one checkpoint (specification, section 16)."""


class Log:
    """An append-only log in a folder. Use it in a `with`, or call `close`.

    Args:
        folder: where the log lies; made if absent, with a checkpoint of no entries.
        origin: the log's name, also the name of its key.
        private_key: signs checkpoints.
        disk: the operations on files; a test may bring its own.

    Raises:
        Locked: another writer has the folder.
        Wrong: the folder is another log's, was signed by another key, or its tiles do not give its root.
        MachineFailed: the folder cannot be used.
    """

    def __init__(self, folder: Path, origin: str, private_key: Ed25519PrivateKey, *, disk: Disk | None = None) -> None:
        self.vkey = notes.vkey_of(private_key, origin)
        self._private = private_key
        self._disk = disk or Disk(folder)
        self._fetch = tiles.folder(folder)
        self._broken = False
        with ExitStack() as held:
            held.enter_context(only_writer(folder))
            self._edge = self._open(folder)
            self._tree = _Live(self._fetch, self._edge)
            self._note = self._signed(self._edge)
            self._last = self._last_moment()
            self._adopt()
            self._held = held.pop_all()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder; another writer may have it."""
        self._broken = True
        self._held.close()

    @property
    def size(self) -> int:
        """Entries under the current checkpoint."""
        return self._edge.size

    @property
    def checkpoint(self) -> bytes:
        """The current checkpoint, signed."""
        return self._note

    def append(self, entry: Entry) -> tuple[int, bytes]:
        """Append one entry and return its index and the bytes of its proof.

        Raises:
            MachineFailed: the disk refused, or the clock went back; after the first, open the log again.
        """
        path, raw = self._edge.frontier.path_of_next(), entry.data
        index = self._extend((entry,), [raw])
        return index, proofs.write_proof(Proof(entry=raw, index=index, hashes=path, checkpoint=self._note))

    def append_all(self, batch: Sequence[Entry]) -> list[tuple[int, bytes]]:
        """Append up to 256 entries under one checkpoint; see `append`."""
        first = self._extend(batch, [entry.data for entry in batch])
        return [(index, self.prove(index)) for index in range(first, self.size)]

    def _extend(self, batch: Sequence[Entry], raw: Sequence[bytes]) -> int:
        if not 1 <= len(batch) <= BATCH_MAX:
            raise Misused(f"a batch has 1 to {BATCH_MAX} entries, this one {len(batch)}")
        if self._broken:
            raise MachineFailed("the log is closed, or its disk failed: open it again")
        for before, at in pairwise((self._last, *(entry.at for entry in batch))):
            if at < before:
                raise MachineFailed(f"the clock went back: an entry of {at} follows one of {before}")
        first = self.size
        self._commit(raw)
        self._last = batch[-1].at
        return first

    def entry(self, index: int) -> bytes:
        """Return the bytes of one entry."""
        if not 0 <= index < self.size:
            raise Misused(f"the log has {self.size} entries, asked was entry {index}")
        return self._tree.entry(index)

    def search(self, match: Callable[[Entry], bool], first: int = 0) -> int | None:
        """Return the index of the newest entry from `first` on that matches, or None."""
        for index in range(self.size - 1, first - 1, -1):
            if match(entries.parse(self.entry(index))):
                return index
        return None

    def prove(self, index: int) -> bytes:
        """Return the proof file of an entry under the current checkpoint."""
        entry = self.entry(index)
        path = tree.inclusion_path(self._tree.node, index, self.size)
        return proofs.write_proof(Proof(entry=entry, index=index, hashes=path, checkpoint=self.checkpoint))

    def prove_since(self, old: int) -> bytes:
        """Return the consistency file from the tree of `old` entries to the current checkpoint."""
        if not 0 <= old <= self.size:
            raise Misused(f"the log has {self.size} entries, no tree of {old}")
        path = tree.consistency_path(self._tree.node, old, self.size)
        return proofs.write_consistency(Consistency(old=old, hashes=path, checkpoint=self.checkpoint))

    def require(self, handed_out: Checkpoint) -> None:
        """Check that a checkpoint which somebody holds is one of this log's past.

        Raises:
            Wrong: it is larger, or has another root: this folder is an older copy, and to go on would fork the log.
        """
        if handed_out.origin != self.vkey.name:
            raise Wrong(f"the checkpoint is of log {handed_out.origin}, this one is {self.vkey.name}")
        if handed_out.size > self.size:
            raise Wrong(f"a checkpoint of size {handed_out.size} was handed out, this copy of the log has {self.size}")
        if self._tree.root(handed_out.size) != handed_out.root:
            raise Wrong(f"a checkpoint of size {handed_out.size} with another root was handed out: the log was forked")

    def check(self) -> None:
        """Compute the whole log again: entries to leaves, leaves to tiles, tiles to the root.

        Raises:
            Wrong: some file does not fit; the message names it.
        """
        read = TileTree(self._fetch, self.size)
        again = Edge()
        for index in range(-(-self.size // WIDTH)):
            for entry in read.bundle(index):
                again.push(entry)
            for name, data in again.full:
                if self._fetch(name, max(len(data), 1)) != data:
                    raise Wrong(f"log file {name} does not follow from the entries")
            again.full.clear()
        for name, data in again.files():
            if self._fetch(name, max(len(data), 1)) != data:
                raise Wrong(f"log file {name} does not follow from the entries")
        if again.root() != self._edge.root():
            raise Wrong("the entries of the log do not give its root")

    def _open(self, place: Path) -> Edge:
        try:
            note = tiles.checkpoint(self._fetch)
        except tiles.Absent:
            with storage(place):
                if (place / "tile").exists():
                    raise Wrong(f"{place} has tiles but no checkpoint: restore it from a backup") from None
            self._disk.put((), (tiles.CHECKPOINT, self._signed(Edge())), sure=0)
            return Edge()
        try:
            found = notes.open_checkpoint(note, [self.vkey])
        except Malformed as error:
            raise Wrong(f"the checkpoint in {place} is malformed: {error}") from None
        if found.origin != self.vkey.name:
            raise Wrong(f"{place} is the log {found.origin}, not {self.vkey.name}")
        edge, lost = edges.load(TileTree(self._fetch, found.size))
        if edge.root() != found.root:
            raise Wrong(f"the tiles in {place} do not give the root of its checkpoint: restore it from a backup")
        if lost:
            self._disk.put(edge.files(), (tiles.CHECKPOINT, note), sure=len(edge.files()))
        return edge

    def _adopt(self) -> None:
        """Take in the entries that a crash left beyond the checkpoint."""
        while True:
            index, width = divmod(self.size, WIDTH)
            found = self._beyond(index, width)
            if found[:width] != self._edge.bundle:
                raise Wrong(f"log file {tiles.bundle_name(index, len(found))} changes entries under the checkpoint")
            if len(found) == width:
                return
            for raw in found[width:]:
                at = _moment(raw)
                if at < self._last:
                    raise Wrong("an entry beyond the checkpoint is older than the one before it")
                self._last = at
            self._commit(found[width:])

    def _beyond(self, index: int, width: int) -> list[bytes]:
        """Return the longest form of the newest bundle."""
        for name in (tiles.bundle_name(index), *(tiles.bundle_name(index, w) for w in range(WIDTH - 1, width, -1))):
            try:
                data = self._fetch(name, tiles.BUNDLE_MAX)
            except tiles.Absent:
                continue
            wide = WIDTH if name == tiles.bundle_name(index) else int(name.rpartition("/")[2])
            return tiles.unpack(data, wide, name)
        return list(self._edge.bundle)

    def _last_moment(self) -> str:
        return _moment(self._tree.entry(self.size - 1)) if self.size else ""

    def _commit(self, raw: Sequence[bytes]) -> None:
        grown = self._edge.copy()
        for entry in raw:
            grown.push(entry)
        # Until everything is durable, nobody knows what the disk holds: only opening again finds out.
        self._broken = True
        note = self._signed(grown)
        self._disk.put(grown.files(), (tiles.CHECKPOINT, note), sure=grown.sure())
        for name in grown.outgrown():
            self._disk.drop(name)
        grown.full.clear()
        self._edge, self._note = grown, note
        self._tree = _Live(self._fetch, grown)
        self._broken = False

    def _signed(self, edge: Edge) -> bytes:
        return notes.sign(Checkpoint(self.vkey.name, edge.size, edge.root()).text, self._private, self.vkey.name)


class _Live(TileTree):
    """The tree under the current checkpoint; its right edge is in memory already."""

    def __init__(self, fetch: tiles.Fetch, edge: Edge) -> None:
        super().__init__(fetch, edge.size)
        self._edge = edge

    def tile(self, level: int, index: int) -> Sequence[bytes]:
        if level < len(self._edge.rows) and index == self.size >> (tiles.HEIGHT * (level + 1)):
            return self._edge.rows[level]
        return super().tile(level, index)

    def bundle(self, index: int) -> list[bytes]:
        return self._edge.bundle if index == self.size // WIDTH else super().bundle(index)


def _moment(raw: bytes) -> str:
    try:
        at = entries.parse(raw).at
    except (Malformed, CouldNotTell) as error:
        raise Wrong(f"the newest entry of the log is none of ours: {error}") from None
    moments.parse(at)
    return at
