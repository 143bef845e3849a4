"""Registering: the request is logged before the run, and the seed follows from its place in the log."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from assay import canonical, manifest, moments, request
from assay.errors import CouldNotTell, Malformed
from assay.manifest import FileEntry, Manifest
from assay.policy.registered import Registered as Rules
from assay.tlog import entries, notes, proofs
from assay.tlog.registration import derive_seed, tag
from assay.tlog.tree import leaf_hash

from service.signer import judged
from service.signer.evidence import Evidence
from service.signer.folder import Folder
from service.signer.journal import Journal
from service.signer.refusal import Refused
from service.signer.rows import AuditRow

SCHEMA = "assay-registration/v1"
BYTES_MAX = 4 * 1024 * 1024
"""Of a registration record: at most 20,000 weight files of 130 bytes each."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The request and the model of an audit, re-read by digest."""

    data: bytes
    """Bytes of request.json."""
    sha256: str
    content: dict[str, Any]
    manifest: Manifest
    base: Manifest | None = None
    """Of the second model that the first is held against; None where the request names none."""
    rules: Rules | None = None
    """Policy and waivers that were registered with the request; None where it names no policy."""

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Files of every model that the request names."""
        return (*self.manifest.files, *(self.base.files if self.base else ()))


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What the signer wrote down and logged before the run."""

    request_sha256: str
    log_origin: str
    index: int
    """Of the request's leaf."""
    leaf: bytes
    """Its hash."""
    size: int
    """Entries under the receipt's checkpoint."""
    root: bytes
    receipt: bytes
    """The proof file that whoever asked gets."""
    registered_at: str
    """When the leaf was logged."""
    tag: str
    tag_salt: str
    weights: dict[str, Any]
    """Inode, size and ctime of each weight file when it was hashed, by digest."""
    fixed_seed: int | None = None
    """The request's own seed, where it repeats an audit."""

    @property
    def seed(self) -> int:
        """The audit's seed."""
        return derive_seed(self.leaf, self.root) if self.fixed_seed is None else self.fixed_seed

    @property
    def seed_mode(self) -> str:
        """Whether the seed follows from the log or was asked for."""
        return "derived" if self.fixed_seed is None else "fixed"

    def claims(self) -> dict[str, Any]:
        """Return the field `registration` of the predicate."""
        return {
            "log_origin": self.log_origin,
            "request_index": self.index,
            "request_sha256": self.request_sha256,
            "leaf_sha256": self.leaf.hex(),
            "tree_size": self.size,
            "root_sha256": self.root.hex(),
            "seed_mode": self.seed_mode,
            "seed": self.seed,
            "tag_salt": self.tag_salt,
        }

    def public(self) -> dict[str, Any]:
        """Return what the scheduler stores and the client hears; the salt is disclosed by reports alone."""
        told = {name: value for name, value in self.claims().items() if name != "tag_salt"}
        return {**told, "registered_at": self.registered_at, "receipt": self.receipt.decode()}


def read_asked(row: AuditRow, evidence: Evidence) -> Asked:
    """Re-read request and manifest by digest and compare them with each other and with the audit.

    Raises:
        Refused: BLOB_MISSING, BLOB_CORRUPT, REQUEST_REJECTED.
    """
    data = evidence.read(row.request_sha256, request.BYTES_MAX, "the request")
    try:
        content = request.parse(data)
        if canonical.dumps(content) != data:
            raise Refused("REQUEST_REJECTED", "the request is not in canonical form")
        model, base = content["model"]["manifest_sha256"], request.base_sha256(content)
        if content["audit"] != row.id or (model, base) != (row.model_sha256, row.base_sha256):
            raise Refused("REQUEST_REJECTED", f"the request is about another audit or model than audit {row.id}")
        listed = manifest.parse(evidence.read(model, manifest.BYTES_MAX, "the manifest"))
        rules = judged.read_registered(content, evidence)
        held = base and manifest.parse(evidence.read(base, manifest.BYTES_MAX, "the manifest of the base model"))
    except Malformed as error:
        raise Refused("REQUEST_REJECTED", f"request, manifest or policy of audit {row.id}: {error}") from error
    return Asked(data=data, sha256=row.request_sha256, content=content, manifest=listed, base=held or None, rules=rules)


def recall(audit: str, home: Folder) -> Registered | None:
    """Return what was registered about an audit, or None.

    Raises:
        Refused: STORAGE_FAILED, also when the record is damaged.
    """
    data, receipt = home.read(home.registered(audit)), home.read(home.receipt(audit))
    if data is None or receipt is None:
        return None
    try:
        note = canonical.loads_canonical(data, BYTES_MAX)
        proof = proofs.read_proof(receipt)
        entry, (head, _) = entries.parse(proof.entry), notes.read_checkpoint(proof.checkpoint)
        salt = home.read(home.salt(note["model"]))
        if salt is None or entry.tag is None or entry.commit != note["request_sha256"]:
            raise Refused("STORAGE_FAILED", f"the registration of audit {audit} is damaged: restore a backup")
        return Registered(
            request_sha256=note["request_sha256"],
            log_origin=head.origin,
            index=proof.index,
            leaf=leaf_hash(proof.entry),
            size=head.size,
            root=head.root,
            receipt=receipt,
            registered_at=entry.at,
            tag=entry.tag,
            tag_salt=salt.decode("ascii"),
            weights=note["weights"],
            fixed_seed=note["seed"],
        )
    except (Malformed, CouldNotTell, KeyError, TypeError, UnicodeDecodeError) as error:
        raise Refused("STORAGE_FAILED", f"the registration of audit {audit} is damaged: restore a backup") from error


def register(
    row: AuditRow, evidence: Evidence, home: Folder, journal: Journal, clock: Callable[[], datetime]
) -> Registered:
    """Write an audit down, log its request and draw its seed; the first receipt counts, whoever asks again.

    The note is written before the leaf is appended: who finds a note without a receipt looks for the leaf first.

    Raises:
        Refused: WRONG_STATE if the audit already ran, CLOCK_SKEW, and what `read_asked` raises.
    """
    known = recall(row.id, home)
    if known is not None:
        return known
    # A cancelled audit may be registered: its cancel and this request may have crossed.
    if row.state not in ("QUEUED", "CANCELLED"):
        raise Refused("WRONG_STATE", f"audit {row.id} is {row.state} and was never registered here")
    asked = read_asked(row, evidence)
    model = asked.manifest.digest
    before = home.read(home.registered(row.id))
    if before is None:
        weights = evidence.weigh(asked.files, {})
        if clock() < moments.parse(asked.content["submitted_at"]):
            raise Refused("CLOCK_SKEW", "the request was submitted after this host's now; check the clocks")
        home.write_once(home.salt(model), secrets.token_hex(32).encode())
        home.write_once(home.registered(row.id), _note(row, asked, journal.size, weights))
    salt = home.read(home.salt(model)) or b""
    receipt = journal.note(
        "request", _searched(before, row.id), commit=asked.sha256, tag=tag(salt.decode("ascii"), model)
    )
    home.write_once(home.receipt(row.id), receipt)
    written = recall(row.id, home)
    assert written is not None
    return written


def _note(row: AuditRow, asked: Asked, log_size: int, weights: dict[str, list[int]]) -> bytes:
    """Return what is written before the leaf is appended; its log size is where a retry begins to look."""
    fixed = asked.content.get("seed")
    if (asked.content["seed_mode"] == "fixed") != (fixed is not None):
        text = f"the request of audit {row.id} has a seed that is not fixed, or none that is"
        raise Refused("REQUEST_REJECTED", text)
    note = {
        "schema": SCHEMA,
        "audit": row.id,
        "request_sha256": asked.sha256,
        "model": asked.manifest.digest,
        "seed": fixed,
        "log_size": log_size,
        "weights": weights,
    }
    return canonical.dumps(note)


def _searched(note: bytes | None, audit: str) -> int | None:
    """Return from where on the log may hold the leaf of a note that an earlier try left; None without one."""
    if note is None:
        return None
    try:
        value = canonical.loads_canonical(note, BYTES_MAX)
        return int(value["log_size"])
    except (Malformed, KeyError, TypeError, ValueError) as error:
        raise Refused("STORAGE_FAILED", f"the registration of audit {audit} is damaged: restore a backup") from error
