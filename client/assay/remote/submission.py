"""What a submission says, as a message."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from assay.api.v1 import audits_pb2
from assay.remote import values


def to_audit(
    model_name: str,
    checks: Sequence[tuple[str, Mapping[str, Any]]],
    data: Sequence[values.DataInput],
    limits: values.Limits,
    labels: Mapping[str, str],
    nonce: bytes,
    *,
    base: str = "",
    policy: bytes | None = None,
    waivers: bytes | None = None,
    seed: int | None = None,
    first: bytes | None = None,
) -> audits_pb2.Audit:
    """Return the input fields of an audit as a message; documents are named by digest alone.

    Args:
        model_name: models/{digest}.
        checks: name and parameters of each.
        data: data files, by role.
        limits: what the audit may take.
        labels: for listings.
        nonce: 32 bytes.
        base: models/{digest} of a second model; empty without one.
        policy: bytes of the release policy.
        waivers: bytes of the waivers.
        seed: the fixed seed of an audit that repeats another; None derives it.
        first: bytes of the bundle of the report that is repeated.
    """
    message = audits_pb2.Audit(model=model_name, base_model=base, nonce=nonce, labels=dict(labels))
    for name, parameters in checks:
        text = json.dumps(dict(parameters), allow_nan=False)
        message.checks.add(check=f"checks/{name.removeprefix('checks/')}", parameters_json=text)
    for one in data:
        added = message.data.add(role=one.role, media_type=one.media_type, rows=one.rows)
        added.blob.sha256, added.blob.size = one.sha256, one.size
    for field in ("attempts_max", "output_bytes", "wall_s"):
        setattr(message.limits, field, getattr(limits, field))
    if seed is not None:
        message.seed_mode, message.seed = audits_pb2.Audit.SEED_MODE_FIXED, seed
    for named, content in ((message.policy, policy), (message.waivers, waivers), (message.first_report, first)):
        if content is not None:
            named.sha256, named.size = hashlib.sha256(content).hexdigest(), len(content)
    return message
