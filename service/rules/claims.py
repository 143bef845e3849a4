"""What a request claims about consent: levels of access, and the approvals of a model's owner that it names."""

from __future__ import annotations

from collections.abc import Sequence

from assay.api.v1 import audits_pb2
from assay.approval import LEVELS
from assay.catalogue import CheckEntry

from service.rules import names
from service.rules.errors import Violation
from service.rules.names import shown

APPROVALS_MAX = 16
"""Approvals that one request may name: one serves, the others are there in case it is spent."""


def read_approvals(asked: audits_pb2.Audit, model_sha256: str) -> tuple[tuple[str, ...], list[Violation]]:
    """Return the ids of the approvals that a request names, each once.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    wrong = []
    if len(asked.approvals) > APPROVALS_MAX:
        text = f"{len(asked.approvals)} approvals are named, at most {APPROVALS_MAX} are looked at"
        return (), [Violation("audit.approvals", text, "TOO_MANY")]
    found: dict[str, None] = {}
    for position, name in enumerate(asked.approvals):
        model, identifier = names.approval(name)
        if model != model_sha256:
            text = f"is of models/{model}, which this audit is not about"
            wrong.append(Violation(f"audit.approvals[{position}]", text, "APPROVAL_MISMATCH"))
        found[identifier] = None
    return tuple(found), wrong


def read_access(
    asked: audits_pb2.Audit, entries: Sequence[CheckEntry], *, complete: bool
) -> tuple[tuple[str, ...], list[Violation]]:
    """Return the levels of access that an audit claims; without a word those that its checks need.

    That a level is left out which a check needs is told only when all checks are known (`complete`).
    """
    needed = {level for entry in entries for level in entry.access}
    claimed = set(asked.access)
    wrong = [
        Violation("audit.access", f"{shown(word, 40)!r} is none of {', '.join(LEVELS)}", "BAD_ACCESS")
        for word in sorted(claimed - set(LEVELS))
    ]
    if claimed and complete:
        wrong += [
            Violation("audit.access", f"a check needs {level!r}, which is not claimed", "BAD_ACCESS")
            for level in LEVELS
            if level in needed - claimed
        ]
    return tuple(level for level in LEVELS if level in (claimed or needed)), wrong
