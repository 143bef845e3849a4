"""The right edge of a tiled tree: the partial tile of each level and the partial bundle, as entries arrive.

Pure: it says which files an append changes, and writes none of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from assay.tlog import tree
from assay.tlog.tiles import HEIGHT, WIDTH, Absent, TileTree, bundle_name, pack, partial_folder, tile_name
from assay.tlog.tree import fold, leaf_hash


class Edge:
    """State of a log's right edge after `size` entries.

    Args:
        size: entries so far.
        bundle: entries of the partial bundle.
        rows: hashes of the partial tile of each level, lowest first; a level beyond them is empty.
    """

    def __init__(self, size: int = 0, bundle: Sequence[bytes] = (), rows: Sequence[Sequence[bytes]] = ()) -> None:
        self.size = size
        self.bundle = list(bundle)
        self.rows = [list(row) for row in rows]
        self.full: list[tuple[str, bytes]] = []
        """Files completed since the start of the append, in the order in which they may be written."""
        self.frontier = tree.frontier(self._node, size)
        self._changed = 0
        """Highest level that a push reached: a level changes only when the one below completed a tile."""

    def copy(self) -> Edge:
        """Return the same edge, to append to; it has completed no file yet."""
        grown = Edge()
        grown.size, grown.frontier = self.size, self.frontier.copy()
        grown.bundle, grown.rows = list(self.bundle), [list(row) for row in self.rows]
        return grown

    def push(self, entry: bytes) -> None:
        """Append one entry."""
        self.bundle.append(entry)
        self.size += 1
        if len(self.bundle) == WIDTH:
            self.full.append((bundle_name(self.size // WIDTH - 1), pack(self.bundle)))
            self.bundle.clear()
        found, level = leaf_hash(entry), 0
        self.frontier.push(found)
        while True:
            if level == len(self.rows):
                self.rows.append([])
            row = self.rows[level]
            row.append(found)
            if len(row) < WIDTH:
                return
            self.full.append((tile_name(level, (self.size >> (HEIGHT * (level + 1))) - 1), b"".join(row)))
            found, level = fold(row), level + 1
            self._changed = max(self._changed, level)
            row.clear()

    def files(self) -> list[tuple[str, bytes]]:
        """Return what is to be written since the copy: entries first, for they can rebuild everything else."""
        files = list(self.full)
        if self.bundle:
            files.append((bundle_name(self.size // WIDTH, len(self.bundle)), pack(self.bundle)))
        for level, row in enumerate(self.rows[: self._changed + 1]):
            if row:
                files.append((tile_name(level, self.size >> (HEIGHT * (level + 1)), len(row)), b"".join(row)))
        return sorted(files, key=lambda file: not file[0].startswith("tile/entries/"))

    def sure(self) -> int:
        """Return how many of `files` nothing could replace: the entries, and everything when a tile was completed.

        The lowest partial tile follows from the partial bundle; what lies higher would need many bundles.
        """
        return len(self.files()) if self.full else 1

    def outgrown(self) -> list[str]:
        """Return the folders of partial files that the completed ones replace."""
        return [partial_folder(name) for name, _ in self.full]

    def root(self) -> bytes:
        """Return the root over all entries."""
        return self.frontier.root()

    def _node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree that lies in a partial tile; see `tree.Node`."""
        first = index << (level % HEIGHT)
        row = self.rows[level // HEIGHT][first % WIDTH : first % WIDTH + (1 << (level % HEIGHT))]
        return fold(row)


def load(tiles: TileTree) -> tuple[Edge, bool]:
    """Read the right edge of a tree from its tiles; tell whether the lowest tile was lost and made from the entries.

    Raises:
        Absent, Wrong: a file is missing or has another length.
    """
    size = tiles.size
    bundle = tiles.bundle(size // WIDTH) if size % WIDTH else []
    rows: list[Sequence[bytes]] = []
    lost = False
    for level in range((size.bit_length() + HEIGHT - 1) // HEIGHT):
        index, width = divmod(size >> (HEIGHT * level), WIDTH)
        try:
            rows.append(tiles.tile(level, index) if width else ())
        except Absent:
            if level:
                raise
            rows.append([leaf_hash(entry) for entry in bundle])
            lost = True
    return Edge(size, bundle, rows), lost
