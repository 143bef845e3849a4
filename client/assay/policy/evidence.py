"""What a decision reads from a report, and how: whatever is absent or unknown is a reason to be inconclusive.

A report that reaches this point may be verified, half verified or hostile; nothing here trusts a field to be there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from assay.catalogue import CheckEntry
from assay.decimals import NAME, canonical_decimal
from assay.policy.fields import Labels
from assay.policy.waivers import Waiver

Number = Decimal | float | int | str


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Candidate minus baseline of one number, as a comparison of both reports told it."""

    value: str | None = None
    """The difference itself, for people."""
    low: Number | None = None
    high: Number | None = None
    """Ends of its interval, rounded outwards; None where nothing tells it."""
    method: str = ""
    unpaired_because: str | None = None
    """Why no items paired it; None where they did."""
    reason: str = "difference_missing"
    """What an entry without an interval says."""
    detail: str = ""
    """Why there is none."""


Differences = Mapping[tuple[str, str, Labels], Compared]
"""By check, metric and sorted labels."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A report, and what was established about it."""

    predicate: Mapping[str, Any]
    asked: Mapping[str, int]
    """How often the registered request asked each check; see `asked_counts`."""
    entries: Mapping[str, CheckEntry]
    """Catalogue entries by digest, as verification found them."""
    age_s: int | None
    """Seconds from the moment at which the report was logged to now; 0 at signing; None when it is not known."""
    today: date
    """Day (UTC) on which waivers are judged."""
    waivers: tuple[Waiver, ...] = ()
    differences: Differences | None = None
    """None without a baseline."""
    baseline_only: frozenset[tuple[str, str, Labels]] = frozenset()
    """Instances that the baseline has and the report has not: what is compared must be all that was."""

    @property
    def model(self) -> str | None:
        """Manifest digest of the model."""
        return text(table(self.predicate.get("model")).get("manifest_sha256"))

    def answers(self, check: str) -> list[Mapping[str, Any]]:
        """Return the answers of one check."""
        return [one for one in tables(self.predicate.get("answers")) if one.get("check") == check]

    def entry(self, answer: Mapping[str, Any]) -> CheckEntry | None:
        """Return the catalogue entry that an answer names, if it is that check's and is known."""
        found = self.entries.get(text(answer.get("catalogue_sha256")) or "")
        return found if found is not None and found.name == answer.get("check") else None


def asked_counts(request: Mapping[str, Any]) -> dict[str, int]:
    """Return how often a request asks each check."""
    return dict(Counter(str(one.get("name")) for one in tables(request.get("checks"))))


def table(value: object) -> Mapping[str, Any]:
    """Return an object, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def tables(value: object) -> list[Mapping[str, Any]]:
    """Return a list of objects; what is no object counts as an empty one, so that it is never overlooked."""
    return [table(one) for one in value] if isinstance(value, list | tuple) else []


def text(value: object) -> str | None:
    """Return a text, or None."""
    return value if isinstance(value, str) else None


def name(value: object) -> str | None:
    """Return a text of the name alphabet, or None."""
    return value if isinstance(value, str) and NAME.fullmatch(value) else None


def whole(value: object) -> int | None:
    """Return a whole number from 0, or None."""
    return value if type(value) is int and value >= 0 else None


def number(value: object) -> Decimal | None:
    """Return the exact number of a decimal string, or None."""
    try:
        return Decimal(canonical_decimal(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def labels(value: object) -> Labels | None:
    """Return labels sorted by key, or None when they are no mapping of names to names."""
    if not isinstance(value, Mapping):
        return None
    pairs = sorted(value.items()) if all(isinstance(key, str) for key in value) else [("", "")]
    fits = all(isinstance(one, str) and NAME.fullmatch(key) and NAME.fullmatch(one) for key, one in pairs)
    return tuple(pairs) if fits else None


def flaw(evidence: Evidence, answer: Mapping[str, Any]) -> str | None:
    """Return why nothing can be said from an answer, as a reason; None for a measured and valid one."""
    outcome = answer.get("outcome")
    if outcome in ("refused", "failed"):
        return f"answer_{outcome}"
    if outcome != "measured":
        return "outcome_unknown"
    entry = evidence.entry(answer)
    if entry is None:
        return "catalogue_unknown"
    controls = tables(answer.get("controls"))
    present = {text(control.get("name")) for control in controls}
    held = all(map(_held, controls)) and set(entry.controls) <= present
    if answer.get("valid") is not True or not held or not isinstance(answer.get("measured"), Mapping):
        return "answer_not_valid"
    return None


def _held(control: Mapping[str, Any]) -> bool:
    band = table(control.get("band"))
    low, value, high = number(band.get("low")), number(control.get("value")), number(band.get("high"))
    inside = low is not None and value is not None and high is not None and low <= value <= high
    return inside and control.get("held") is True


def miscounted(evidence: Evidence, check: str) -> str | None:
    """Return a reason when a check has not exactly one answer for each time it was asked."""
    found, asked = len(evidence.answers(check)), evidence.asked.get(check, 0)
    if found == asked and found:
        return None
    return "answer_missing" if found <= asked else "answer_not_asked"
