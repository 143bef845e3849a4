"""What was asked for, fixed before the run: `request.json`, whose SHA-256 the signer registers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay import strict_json
from assay.shape import AUDIT, COUNT, MOMENT, OBJECT, SEED_MODE, SHA256, TEXT, Maybe, check, exactly

SCHEMA = "assay-request/v1"
FILE_NAME = "request.json"

BYTES_MAX = 1024 * 1024
"""A request of 64 checks has about 30 KB."""

SHAPE = {
    "schema": exactly(SCHEMA),
    "audit": AUDIT,
    "nonce": SHA256,
    "model": {"manifest_sha256": SHA256},
    "base": Maybe({"manifest_sha256": SHA256}),
    "checks": [{"name": TEXT, "version": TEXT, "params": OBJECT}],
    "data": [{"role": TEXT, "sha256": SHA256}],
    "policy_sha256": Maybe(SHA256),
    "waivers_sha256": Maybe(SHA256),
    "access": Maybe({"granted": [TEXT]}),
    "limits": {"attempts_max": COUNT, "output_bytes": COUNT, "wall_s": COUNT},
    "seed_mode": SEED_MODE,
    "seed": Maybe(COUNT),
    "first": Maybe({"statement_sha256": SHA256, "bundle_sha256": SHA256}),
    "submitted_at": MOMENT,
}


def parse(data: bytes) -> dict[str, Any]:
    """Read a request.

    Raises:
        Malformed: it is not strict JSON, or a field is missing or of another kind.
    """
    value = strict_json.loads(data, BYTES_MAX)
    check(value, SHAPE)
    request: dict[str, Any] = value
    return request


def base_sha256(asked: Mapping[str, Any]) -> str | None:
    """Return the digest of a request's second model, the one that the first is held against; None without one."""
    base = asked.get("base")
    return None if base is None else str(base["manifest_sha256"])
