"""A log in memory: for forges and tests. It signs whatever it is told to, as a dishonest operator could."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.tlog import notes, proofs, tiles, tree
from assay.tlog.edge import Edge
from assay.tlog.entries import Entry
from assay.tlog.notes import Checkpoint
from assay.tlog.proofs import Consistency, Proof
from assay.tlog.tree import MemoryTree, leaf_hash

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class MemoryLog:
    """An append-only log without a disk, with the methods of `Log` that make proofs.

    Args:
        origin: the log's name, also the name of its key.
        private_key: signs checkpoints.
    """

    def __init__(self, origin: str, private_key: Ed25519PrivateKey) -> None:
        self.vkey = notes.vkey_of(private_key, origin)
        self.entries: list[bytes] = []
        self._private = private_key
        self._tree = MemoryTree()

    @property
    def size(self) -> int:
        """Entries so far."""
        return len(self.entries)

    @property
    def checkpoint(self) -> bytes:
        """The current checkpoint, signed."""
        return self.checkpoint_at(self.size)

    def checkpoint_at(self, size: int) -> bytes:
        """Return the signed checkpoint of an earlier size."""
        head = Checkpoint(self.vkey.name, size, tree.root(self._tree.node, size))
        return notes.sign(head.text, self._private, self.vkey.name)

    def append(self, entry: Entry | bytes) -> tuple[int, bytes]:
        """Append one entry, of our form or not, and return its index and the bytes of its proof."""
        data = entry.data if isinstance(entry, Entry) else entry
        self.entries.append(data)
        self._tree.push(leaf_hash(data))
        return self.size - 1, self.prove(self.size - 1)

    def prove(self, index: int, size: int | None = None) -> bytes:
        """Return the proof file of an entry under the checkpoint of a size; under the current one without it."""
        size = self.size if size is None else size
        path = tree.inclusion_path(self._tree.node, index, size)
        note = self.checkpoint_at(size)
        return proofs.write_proof(Proof(entry=self.entries[index], index=index, hashes=path, checkpoint=note))

    def prove_since(self, old: int, size: int | None = None) -> bytes:
        """Return the consistency file from the tree of `old` entries to the checkpoint of a size."""
        size = self.size if size is None else size
        path = tree.consistency_path(self._tree.node, old, size)
        return proofs.write_consistency(Consistency(old=old, hashes=path, checkpoint=self.checkpoint_at(size)))

    def cut(self, size: int) -> None:
        """Forget the entries from `size` on, as an operator does who restores a backup or rewrites the past."""
        self.entries = self.entries[:size]
        self._tree = MemoryTree()
        for entry in self.entries:
            self._tree.push(leaf_hash(entry))

    def files(self) -> dict[str, bytes]:
        """Return the log's files by name, as `Log` writes them for the current size."""
        edge = Edge()
        for entry in self.entries:
            edge.push(entry)
        return {**dict(edge.files()), tiles.CHECKPOINT: self.checkpoint}

    def write(self, folder: Path) -> Path:
        """Write the log's files, without syncing them, and return the folder."""
        for name, data in self.files().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder
