"""A schedule's template: the input fields of an audit, without the nonce that each fire draws anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from assay.api.v1 import audits_pb2

from service.rules.errors import Violation

INPUT_FIELDS = (
    *("model", "base_model", "checks", "data", "policy", "waivers", "limits", "labels", "approvals", "access"),
    *("seed_mode", "seed", "first_report"),
)
"""What SubmitAudit reads of an audit besides its nonce; everything else is output only."""


def template_of(asked: audits_pb2.Audit) -> audits_pb2.Audit:
    """Return what a schedule keeps of an audit. Versions that were left open stay open: they follow the server's."""
    kept = audits_pb2.Audit.FromString(asked.SerializeToString())
    fields: Any = kept  # the stubs know each field's name as a literal alone
    for name in {field.name for field in kept.DESCRIPTOR.fields} - set(INPUT_FIELDS):
        fields.ClearField(name)
    fields.DiscardUnknownFields()
    return kept


def audit_of(template: audits_pb2.Audit, nonce: bytes) -> audits_pb2.Audit:
    """Return the audit that one fire asks."""
    asked = audits_pb2.Audit()
    asked.CopyFrom(template)
    asked.nonce = nonce
    return asked


def check_template(asked: audits_pb2.Audit) -> list[Violation]:
    """Return what is wrong with a template besides what is wrong with it as an audit."""
    if asked.nonce:
        return [Violation("schedule.template.nonce", "is drawn anew for each fire; leave it empty", "BAD_SCHEDULE")]
    return []


def in_template(violations: Sequence[Violation]) -> list[Violation]:
    """Return the violations of an audit as those of a schedule's template."""
    return [
        Violation(f"schedule.template{one.field.removeprefix('audit')}", one.description, one.reason)
        for one in violations
    ]
