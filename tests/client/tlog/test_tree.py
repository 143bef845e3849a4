"""Hashing and proofs: published vectors, a second definition straight from the RFC, and every mutant refused."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from assay.errors import Wrong
from assay.tlog import tree
from assay.tlog.tree import MemoryTree

from tests.client.tlog import naive
from tests.client.tlog.planted import VECTORS

MERKLE = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[3] / "../shared/data")) / "vectors/merkle"
LARGEST = 40
ENTRIES = [b"entry %d" % index for index in range(LARGEST + 1)]


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    try:
        tree.check_inclusion(leaf, index, size, path, root)
    except Wrong:
        return False
    return True


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    try:
        tree.check_consistency(old, old_root, new, new_root, path)
    except Wrong:
        return False
    return True


def bent(path: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield a proof with hashes dropped, added, reversed, swapped and each one flipped."""
    stray = bytes(32)
    yield from ([*path[:at], *path[at + 1 :]] for at in range(len(path)))
    yield from ([*path[:at], stray, *path[at:]] for at in range(len(path) + 1))
    yield from ([*path[:at], path[at], *path[at:]] for at in range(len(path)))
    if len(path) > 1:
        yield list(reversed(path))
    for at, one in enumerate(path):
        yield [*path[:at], bytes([one[0] ^ 1]) + one[1:], *path[at + 1 :]]
        yield [*path[:at], one[:-1] + bytes([one[-1] ^ 128]), *path[at + 1 :]]


def test_vector_t4() -> None:
    vector = VECTORS["T4"]
    entries = [bytes.fromhex(entry) for entry in vector["entries"]]
    built = MemoryTree(entries)
    for size, start in enumerate(vector["roots_start"]):
        assert tree.root(built.node, size).hex().startswith(start)
    assert tree.root(built.node, 7).hex() == vector["root_7"]
    assert tree.root(built.node, 8).hex() == vector["root_8"]
    inclusion = tree.inclusion_path(built.node, 5, 7)
    assert [one.hex()[:8] for one in inclusion] == vector["inclusion_5_in_7_start"]
    consistency = tree.consistency_path(built.node, 3, 7)
    assert [one.hex()[:8] for one in consistency] == vector["consistency_3_to_7_start"]


def test_roots_and_proofs_equal_the_recursion_of_the_rfc() -> None:
    built = MemoryTree(ENTRIES)
    for size in range(LARGEST + 1):
        some = ENTRIES[:size]
        assert tree.root(built.node, size) == naive.mth(some)
        for index in range(size):
            assert list(tree.inclusion_path(built.node, index, size)) == naive.path(index, some)
        for old in range(size + 1):
            assert list(tree.consistency_path(built.node, old, size)) == naive.proof(old, some)


def test_every_mutant_of_an_inclusion_proof_is_refused() -> None:
    valid = mutants = 0
    for size in range(1, LARGEST + 1):
        some, root = ENTRIES[:size], naive.mth(ENTRIES[:size])
        for index in range(size):
            leaf, path = naive.mth([ENTRIES[index]]), naive.path(index, some)
            assert included(leaf, index, size, path, root)
            valid += 1
            wrong = [included(leaf, index, size, one, root) for one in bent(path)]
            wrong += [included(leaf, other, size, path, root) for other in range(-1, size + 2) if other != index]
            wrong.append(included(naive.mth([b"another"]), index, size, path, root))
            wrong.append(included(leaf, index, size, path, bytes(32)))
            mutants += len(wrong)
            assert not any(wrong), (size, index)
    assert (valid, mutants) == (820, 47112)


def test_every_mutant_of_a_consistency_proof_is_refused() -> None:
    valid = mutants = 0
    roots = [naive.mth(ENTRIES[:size]) for size in range(LARGEST + 2)]
    for new in range(1, LARGEST + 1):
        for old in range(new + 1):
            path = naive.proof(old, ENTRIES[:new])
            assert consistent(old, roots[old], new, roots[new], path)
            valid += 1
            wrong = [consistent(old, roots[old], new, roots[new], one) for one in bent(path)]
            wrong += [consistent(one, roots[old], new, roots[new], path) for one in (old - 1, old + 1)]
            wrong += [consistent(old, roots[one], new, roots[new], path) for one in range(new + 1) if one != old]
            if old:  # the empty tree is a prefix of every tree, whatever its root
                wrong.append(consistent(old, roots[old], new, bytes(32), path))
            if old != new:
                wrong.append(consistent(new, roots[new], old, roots[old], path))
            mutants += len(wrong)
            assert not any(wrong), (old, new)
    assert (valid, mutants) == (860, 47096)


def test_a_hash_of_another_length_is_refused() -> None:
    assert not included(b"", 0, 1, [], b"")
    assert not consistent(1, b"", 1, b"", [])
    root = naive.mth(ENTRIES[:2])
    assert not consistent(1, b"", 2, root, [root])


def test_the_empty_tree_is_a_prefix_of_every_tree_and_of_no_proof() -> None:
    root = naive.mth(ENTRIES)
    assert consistent(0, tree.EMPTY, len(ENTRIES), root, [])
    assert consistent(0, tree.EMPTY, 0, tree.EMPTY, [])
    assert not consistent(0, bytes(32), len(ENTRIES), root, [])
    assert not consistent(0, tree.EMPTY, 0, root, [])
    assert not consistent(0, tree.EMPTY, len(ENTRIES), root, [root])
    assert not included(naive.mth([b""]), 0, 0, [], tree.EMPTY)


@pytest.mark.skipif(not MERKLE.is_dir(), reason="no Merkle vectors: set ASSAY_DATA to the folder of vectors/")
def test_published_merkle_vectors() -> None:
    seen = 0
    for file in sorted(MERKLE.rglob("*.json")):
        case = json.loads(file.read_bytes())
        path = [base64.b64decode(one) for one in case["proof"] or []]
        if "leafIdx" in case:
            leaf, root = base64.b64decode(case["leafHash"]), base64.b64decode(case["root"])
            accepted = included(leaf, case["leafIdx"], case["treeSize"], path, root)
        else:
            old, new = base64.b64decode(case["root1"]), base64.b64decode(case["root2"])
            accepted = consistent(case["size1"], old, case["size2"], new, path)
            # Theirs refuses every proof from the empty tree; ours allows the empty proof from the empty root.
            if case["size1"] == 0 and accepted:
                assert (old, path) == (tree.EMPTY, [])
                continue
            if len(old) != tree.HASH_SIZE:  # theirs compares roots of any length
                assert not accepted
                continue
        assert accepted != case["wantErr"], file
        seen += 1
    assert seen > 150
