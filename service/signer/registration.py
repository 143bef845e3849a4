"""Registering: what was asked is written down before the run, then the seed is drawn."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from assay import canonical, manifest, moments, request
from assay.errors import Malformed
from assay.manifest import FileEntry, Manifest
from assay.policy.registered import Registered as Rules

from service.signer import judged
from service.signer.evidence import Evidence
from service.signer.folder import Folder
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
    """What the signer wrote down before the run."""

    request_sha256: str
    entropy: str
    registered_at: str
    weights: dict[str, Any]
    """Inode, size and ctime of each weight file when it was hashed, by digest."""

    @property
    def seed(self) -> int:
        """The audit's seed."""
        return request.derive_seed(self.request_sha256, self.entropy)

    def public(self) -> dict[str, Any]:
        """Return what the scheduler stores and the client hears."""
        return {
            "request_sha256": self.request_sha256,
            "entropy": self.entropy,
            "seed": self.seed,
            "seed_mode": "derived",
            "registered_at": self.registered_at,
        }


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
    """Return what was written down about an audit, or None.

    Raises:
        Refused: STORAGE_FAILED, also when the record is damaged.
    """
    data = home.read(home.registered(audit))
    if data is None:
        return None
    try:
        value = canonical.loads_canonical(data, BYTES_MAX)
        return Registered(**{name: value[name] for name in ("request_sha256", "entropy", "registered_at", "weights")})
    except (Malformed, KeyError, TypeError) as error:
        raise Refused("STORAGE_FAILED", f"the registration of audit {audit} is damaged: restore a backup") from error


def register(row: AuditRow, evidence: Evidence, home: Folder, clock: Callable[[], datetime]) -> Registered:
    """Write an audit down and draw its seed; the first record counts, whoever asks again.

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
    weights = evidence.weigh(asked.files, {})
    now = clock()
    if now < moments.parse(asked.content["submitted_at"]):
        raise Refused("CLOCK_SKEW", "the request was submitted after this host's now; check the clocks")
    record = {
        "schema": SCHEMA,
        "audit": row.id,
        "request_sha256": asked.sha256,
        "entropy": secrets.token_hex(32),
        "registered_at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "weights": weights,
    }
    home.write_once(home.registered(row.id), canonical.dumps(record))
    written = recall(row.id, home)
    assert written is not None
    return written
