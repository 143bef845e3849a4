"""Fingerprints: which instance of which assertion, without its value and without the model.

So a waiver that a person wrote for one release still names the same thing after a rebuild. Section 11 of the report's
specification; vector T8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from assay import canonical

if TYPE_CHECKING:
    from assay.policy.fields import Labels

DIGITS = 32
"""128 bits of SHA-256 (specification, section 11): short enough to paste, no collision by chance."""


def of_metric(check: str, assertion: str, metric: str, labels: Labels) -> str:
    """Return the fingerprint of one instance of a metric under an assertion.

    Raises:
        Malformed: a label key is not ASCII.
    """
    return _of(check, assertion, {"metric": metric}, labels)


def of_answer(check: str, assertion: str, metric: str) -> str:
    """Return the fingerprint of an assertion about an answer that is none: refused or failed as a whole.

    It is not that of an unlabelled metric, so who accepted a number near a limit has not accepted that there is none.
    """
    return _of(check, assertion, {"metric": metric, "answer": True}, ())


def of_finding(check: str, assertion: str, code: str, labels: Labels) -> str:
    """Return the fingerprint of one finding under an entry of `findings`.

    Raises:
        Malformed: a label key is not ASCII.
    """
    return _of(check, assertion, {"finding": code}, labels)


def of_claim(check: str, code: str, labels: Labels) -> str:
    """Return the fingerprint of a finding as its report tells it, under no policy: `findings[].fingerprint`.

    It names the same claim in every report of the check. Waivers name it under an entry of a policy: `of_finding`.

    Raises:
        Malformed: a label key is not ASCII.
    """
    return canonical.sha256({"v": 1, "check": check, "finding": code, "labels": dict(labels)})[:DIGITS]


def _of(check: str, assertion: str, subject: dict[str, Any], labels: Labels) -> str:
    value = {"v": 1, "check": check, "assertion": assertion, **subject, "labels": dict(labels)}
    return canonical.sha256(value)[:DIGITS]
