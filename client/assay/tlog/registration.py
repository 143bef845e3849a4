"""V06: that the request was in the log before the report, and what follows from its place: seed and tag."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from assay import moments
from assay.errors import Malformed, Wrong, shown
from assay.shape import COUNT, SEED_MODE, SHA256, Kind, check
from assay.tlog import notes, proofs, tree
from assay.tlog.leaves import Leaf, LogKey, verify_leaf
from assay.tlog.notes import Checkpoint

_SHAPE = {
    "log_origin": Kind("a log's name", notes.is_origin),
    "request_index": COUNT,
    "request_sha256": SHA256,
    "leaf_sha256": SHA256,
    "tree_size": COUNT,
    "root_sha256": SHA256,
    "seed_mode": SEED_MODE,
    "seed": COUNT,
    "tag_salt": SHA256,
}


@dataclass(frozen=True, kw_only=True)
class Registration:
    """The field `registration` of a predicate: what the signer says about the request's place in the log."""

    log_origin: str
    request_index: int
    request_sha256: str
    leaf_sha256: str
    tree_size: int
    root_sha256: str
    seed_mode: str
    seed: int
    tag_salt: str

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Registration:
        """Read the field of a parsed predicate; unknown fields are ignored.

        Raises:
            Malformed: a field is missing or of another kind; `at` is the JSON pointer.
        """
        check(value, _SHAPE, "/predicate/registration")
        return cls(**{name: value[name] for name in _SHAPE})


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files that prove a registration, as bytes."""

    request: bytes
    """request.json."""
    request_proof: bytes
    consistency: bytes
    """From the request's checkpoint to the report's."""


def derive_seed(leaf: bytes, root: bytes) -> int:
    """Return the audit's seed: 53 bits that the auditor could not try out before registering.

    Args:
        leaf: hash of the request's leaf, 32 bytes.
        root: root of the receipt's checkpoint, 32 bytes; it depends on entries that the auditor did not write.
    """
    return int.from_bytes(hashlib.sha256(b"assay-seed/v1\n" + leaf + root).digest()[:8], "big") >> 11


def tag(salt: str, manifest_digest: str) -> str:
    """Return the mark that a model's leaves share, hex; unlinkable for who has no salt.

    Args:
        salt: 32 random bytes of the model, hex.
        manifest_digest: the model's digest, hex.
    """
    return hashlib.sha256(b"assay-tag/v1\n" + bytes.fromhex(salt) + bytes.fromhex(manifest_digest)).hexdigest()


def verify_registration(
    files: Files,
    claimed: Registration,
    report: Leaf,
    logs: Sequence[LogKey],
    *,
    manifest_sha256: str,
    started_at: str,
    ended_at: str,
    now: datetime,
    asked_seed: int | None = None,
    receipt: tuple[bytes, bytes] | None = None,
) -> Leaf:
    """Check that the request was fixed before the run, and return its leaf.

    Args:
        files: the request and its proofs.
        claimed: what the verified statement says.
        report: the report's leaf, proven.
        logs: the trusted log keys.
        manifest_sha256: the audited model's digest.
        started_at: when the first attempt started, as the statement says.
        ended_at: when the last one ended.
        now: the reader's clock.
        asked_seed: the request's own `seed`, where `seed_mode` is fixed.
        receipt: request.json and request.tlog-proof as the client stored them at submission.

    Raises:
        Wrong: any mismatch.
    """
    digest = hashlib.sha256(files.request).hexdigest()
    if digest != claimed.request_sha256:
        raise Wrong(f"request.json has digest {digest[:16]}…, registered was {claimed.request_sha256[:16]}…")
    asked = verify_leaf(files.request_proof, "request", digest, logs, now=now, name=proofs.REQUEST_PROOF)
    _check_claims(claimed, asked)
    if asked.origin != report.origin:
        raise Wrong(f"request and report are in two logs: {asked.origin} and {report.origin}")
    if asked.index >= report.index:
        raise Wrong(f"the request is entry {asked.index}, not before the report, entry {report.index}")
    if report.entry.prev != asked.index:
        raise Wrong(f"the report's leaf names entry {report.entry.prev} as its request, the proof entry {asked.index}")
    check_extends(files.consistency, asked.checkpoint, report.checkpoint)
    _check_order(asked, started_at, ended_at, report)
    _check_seed(claimed, asked, asked_seed)
    owed = tag(claimed.tag_salt, manifest_sha256)
    for leaf in (asked, report):
        if leaf.entry.tag != owed:
            raise Wrong(f"the {leaf.entry.kind} leaf carries another tag than the salt and this model give")
    if receipt is not None:
        _check_receipt(receipt, files)
    return asked


def check_extends(data: bytes, old: Checkpoint, new: Checkpoint) -> None:
    """Check a consistency file between two checkpoints whose signatures were checked.

    Raises:
        Wrong: malformed, between other checkpoints, or the older tree is no prefix of the newer.
    """
    try:
        proof = proofs.read_consistency(data)
        carried, _ = notes.read_checkpoint(proof.checkpoint)
    except Malformed as error:
        raise Wrong(f"{proofs.CONSISTENCY} is malformed: {error}") from None
    if proof.old != old.size or carried != new:
        raise Wrong(f"{proofs.CONSISTENCY} runs from {proof.old} to {carried.size}, owed: {old.size} to {new.size}")
    tree.check_consistency(old.size, old.root, new.size, new.root, proof.hashes)


def _check_claims(claimed: Registration, asked: Leaf) -> None:
    pairs = (
        ("log_origin", claimed.log_origin, asked.origin),
        ("request_index", claimed.request_index, asked.index),
        ("leaf_sha256", claimed.leaf_sha256, asked.hash.hex()),
        ("tree_size", claimed.tree_size, asked.size),
        ("root_sha256", claimed.root_sha256, asked.root.hex()),
    )
    for field, said, proven in pairs:
        if said != proven:
            raise Wrong(f"/predicate/registration/{field} is {shown(said, 24)}, the proof gives {shown(proven, 24)}")


def _check_order(asked: Leaf, started_at: str, ended_at: str, report: Leaf) -> None:
    try:
        times = (asked.at, moments.parse(started_at, "started_at"), moments.parse(ended_at, "ended_at"), report.at)
    except Malformed as error:
        raise Wrong(str(error)) from None
    names = ("the request's logged time", "started_at", "ended_at", "the report's logged time")
    for place in range(3):
        if times[place] > times[place + 1]:
            raise Wrong(f"{names[place]} is later than {names[place + 1]}")


def _check_seed(claimed: Registration, asked: Leaf, asked_seed: int | None) -> None:
    owed = derive_seed(asked.hash, asked.root) if claimed.seed_mode == "derived" else asked_seed
    if claimed.seed != owed:
        raise Wrong(f"the seed is {claimed.seed}, but the registration gives {owed}")


def _check_receipt(receipt: tuple[bytes, bytes], files: Files) -> None:
    """The receipt is the same registration; only lines of witnesses may have been added to the note since."""
    request, proof = receipt
    if request != files.request:
        raise Wrong("the receipt holds another request.json than the report")
    try:
        held, told = proofs.read_proof(proof), proofs.read_proof(files.request_proof)
        heads = [notes.read_checkpoint(one.checkpoint)[0] for one in (held, told)]
    except Malformed as error:
        raise Wrong(f"the receipt is malformed: {error}") from None
    if (held.entry, held.index, held.hashes, heads[0]) != (told.entry, told.index, told.hashes, heads[1]):
        raise Wrong("the receipt proves another registration than the report's")
