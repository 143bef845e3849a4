"""The Merkle tree of RFC 6962: hashes, roots, and proofs of inclusion and consistency, made and checked.

Makers ask a `Node` for hashes of complete subtrees, so that they work on memory and on tiles alike. Checkers follow
RFC 9162 sections 2.1.3.2 and 2.1.4.2, which read the shape of the tree from the bits of index and size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from assay.errors import Wrong

HASH_SIZE = 32
"""Bytes of a SHA-256 digest."""

EMPTY = hashlib.sha256(b"").digest()
"""Root of the tree of no entries (RFC 6962, section 2.1)."""

PATH_MAX = 63
"""Most hashes of a proof (C2SP tlog-witness): enough for any tree that exists."""

Node = Callable[[int, int], bytes]
"""(level, index) to the hash of the complete subtree over entries index * 2^level to (index + 1) * 2^level."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry, apart from every inner node by its first byte."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the root over 2^k sibling hashes of one level, k >= 0."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


class Frontier:
    """The right edge of a growing tree: the roots of its complete subtrees, largest first.

    Args:
        hashes: one for each set bit of `size`, largest subtree first.
        size: entries so far.
    """

    def __init__(self, hashes: Iterable[bytes] = (), size: int = 0) -> None:
        self.size = size
        self._hashes = list(hashes)
        assert len(self._hashes) == size.bit_count()

    def copy(self) -> Frontier:
        """Return the same edge, to push to."""
        return Frontier(self._hashes, self.size)

    def path_of_next(self) -> tuple[bytes, ...]:
        """Return the inclusion proof of the next leaf, whatever it will be, in the tree that it completes."""
        return tuple(reversed(self._hashes))

    def push(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        self._hashes.append(leaf)
        self.size += 1
        rest = self.size
        while rest % 2 == 0:
            right = self._hashes.pop()
            self._hashes.append(node_hash(self._hashes.pop(), right))
            rest //= 2

    def root(self) -> bytes:
        """Return the root over everything pushed."""
        return _joined(self._hashes) if self._hashes else EMPTY


class MemoryTree:
    """A tree with every node in memory: for tests, forges and small logs."""

    def __init__(self, entries: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for entry in entries:
            self.push(leaf_hash(entry))

    @property
    def size(self) -> int:
        """Entries so far."""
        return len(self._levels[0])

    def push(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        row, level = self._levels[0], 0
        row.append(leaf)
        while len(row) % 2 == 0:
            parent = node_hash(row[-2], row[-1])
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            row = self._levels[level]
            row.append(parent)

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree; see `Node`."""
        return self._levels[level][index]


def frontier(node: Node, size: int) -> Frontier:
    """Return the right edge of the tree over the first `size` entries."""
    return Frontier(_complete(node, 0, size), size)


def root(node: Node, size: int) -> bytes:
    """Return the root over the first `size` entries."""
    return _span(node, 0, size) if size else EMPTY


def inclusion_path(node: Node, index: int, size: int) -> tuple[bytes, ...]:
    """Return the hashes that prove entry `index` in the tree of `size` entries, from the leaf's sibling upwards.

    Source: RFC 6962, section 2.1.1. `index < size` is the caller's duty.
    """
    assert 0 <= index < size
    start, end = 0, size
    path: list[bytes] = []
    while end - start > 1:
        middle = start + _half(end - start)
        if index < middle:
            path.append(_span(node, middle, end))
            end = middle
        else:
            path.append(_span(node, start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_path(node: Node, old: int, new: int) -> tuple[bytes, ...]:
    """Return the hashes that prove that the tree of `old` entries is a prefix of the tree of `new` entries.

    Source: RFC 6962, section 2.1.2. `old <= new` is the caller's duty; the proof from the empty tree is empty.
    """
    assert 0 <= old <= new
    if old == 0:
        return ()
    start, end, whole = 0, new, True
    path: list[bytes] = []
    while old != end:
        middle = start + _half(end - start)
        if old <= middle:
            path.append(_span(node, middle, end))
            end = middle
        else:
            path.append(_span(node, start, middle))
            start, whole = middle, False
    if not whole:
        path.append(_span(node, start, end))
    return tuple(reversed(path))


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected: bytes) -> None:
    """Check that a leaf hash is entry `index` of the tree with root `expected`.

    Raises:
        Wrong: it is not, or the proof has another length than index and size demand.
    """
    _check_lengths((leaf, expected, *path))
    if not 0 <= index < size:
        raise Wrong(f"inclusion proof: entry {index} is not among the {size} entries of the tree")
    first, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            raise Wrong("inclusion proof: too many hashes")
        if first & 1 or first == last:
            found = node_hash(step, found)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found = node_hash(found, step)
        first, last = first >> 1, last >> 1
    if last or found != expected:
        raise Wrong(f"inclusion proof: entry {index} is not in the tree of size {size} with this root")


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that the tree with `old_root` is a prefix of the tree with `new_root`.

    Raises:
        Wrong: it is not: the log was rewritten, or the proof belongs to other trees.
    """
    _check_lengths((old_root, new_root, *path))
    if not 0 <= old <= new:
        raise Wrong(f"consistency proof: a tree of {new} entries does not extend one of {old}")
    if old in (0, new):
        expected = EMPTY if old == 0 else new_root
        if path or old_root != expected or (new == 0 and new_root != EMPTY):
            raise Wrong(f"consistency proof: from {old} to {new} the proof is empty and the roots are fixed")
        return
    if not path:
        raise Wrong(f"consistency proof: from {old} to {new} needs hashes, and there are none")
    if _walk(old, new, path if old & (old - 1) else (old_root, *path)) != (old_root, new_root):
        raise Wrong(f"consistency proof: the tree of size {old} is not a prefix of the tree of size {new}")


def _check_lengths(hashes: Sequence[bytes]) -> None:
    if any(len(one) != HASH_SIZE for one in hashes):
        raise Wrong(f"a proof's hashes and roots have {HASH_SIZE} bytes each")


def _walk(old: int, new: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Return both roots that a consistency proof leads to, or None if it has the wrong length."""
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    older = newer = path[0]
    for step in path[1:]:
        if last == 0:
            return None
        if first & 1 or first == last:
            older, newer = node_hash(step, older), node_hash(step, newer)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            newer = node_hash(newer, step)
        first, last = first >> 1, last >> 1
    return None if last else (older, newer)


def _half(count: int) -> int:
    """Return the largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _complete(node: Node, start: int, end: int) -> list[bytes]:
    """Return the roots of the complete subtrees of a span, largest first; `start` is aligned to the span."""
    hashes: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        hashes.append(node(level, start >> level))
        start += 1 << level
    return hashes


def _span(node: Node, start: int, end: int) -> bytes:
    return _joined(_complete(node, start, end))


def _joined(hashes: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees, largest first: the smaller ones hang on the right."""
    found = hashes[-1]
    for left in reversed(hashes[:-1]):
        found = node_hash(left, found)
    return found
