"""What a policy says of a report, as values: instances, decisions, the verdict, and what became of each waiver."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from assay.policy.fields import Labels
from assay.policy.waivers import Waiver

Outcome = Literal["pass", "fail", "inconclusive", "waived"]
Kind = Literal["assertion", "finding", "compare", "require", "report"]

WORST_FIRST: tuple[Outcome, ...] = ("fail", "inconclusive", "waived", "pass")
"""How instances are listed; the first one decides under the quantifier `every`."""

WAIVABLE = frozenset(
    {
        "interval_above_limit",
        "interval_below_limit",
        "interval_outside_range",
        "interval_straddles_limit",
        "value_above_limit",
        "value_below_limit",
        "value_outside_range",
        "answer_refused",
        "answer_failed",
        "instance_skipped",
        "too_few_items",
        "power_missing",
        "power_too_low",
        "multiplicity_uncorrected",
        "finding_above_severity",
    }
)
"""What a person may accept: what was measured, or honestly not. Whatever is missing, unreadable, unknown or not valid
is not here (specification, section 11), so deleting evidence never fits an old waiver."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One instance of one entry: what was seen, and what follows."""

    outcome: Outcome
    reason: str
    detail: str = ""
    labels: Labels = ()
    value: str | None = None
    low: str | None = None
    high: str | None = None
    n: int | None = None
    power: str | None = None
    """Lower bound of the weakest power told for the metric."""
    method: str | None = None
    """How a difference was judged (`assay.compare`); None where nothing is compared."""
    unpaired_because: str | None = None
    """Why no items paired a difference."""
    fingerprint: str | None = None
    """None where nothing can be waived."""
    waiver: Waiver | None = None
    """The waiver that names it, in force or expired."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "detail": self.detail,
            "labels": dict(self.labels),
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "power_low": self.power,
            "method": self.method,
            "unpaired_because": self.unpaired_because,
            "fingerprint": self.fingerprint,
            "waiver": None if self.waiver is None else self.waiver.to_json(),
        }

    @property
    def rank(self) -> tuple[int, Labels, str, str]:
        """Worst first, then by what it is: independent of the report's order."""
        return (WORST_FIRST.index(self.outcome), self.labels, self.reason, repr(self))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One entry of the policy, decided."""

    id: str
    kind: Kind
    check: str | None
    metric: str | None
    level: Literal["gate", "advisory"]
    limit: str
    """What was asked, e.g. "<= 0.6", for people."""
    estimate_only: bool = False
    outcome: Outcome
    reason: str
    selected: int
    """Instances that were measured and looked at."""
    instances: tuple[Instance, ...]
    """All of them, worst first."""
    line: int
    """Of the policy file."""

    @property
    def deciding(self) -> Instance | None:
        """The first instance with the entry's own reason, else the worst one."""
        same = (one for one in self.instances if one.reason == self.reason)
        return next(same, self.instances[0] if self.instances else None)

    def to_json(self, *, every: bool = True) -> dict[str, Any]:
        """Return plain JSON values; without `every`, as a signed report carries it."""
        deciding = self.deciding
        told: dict[str, Any] = {
            "id": self.id,
            "outcome": self.outcome,
            "reason": self.reason,
            "selected": self.selected,
            "deciding": None if deciding is None else {"labels": dict(deciding.labels), "detail": deciding.detail},
        }
        if every:
            told |= {
                "kind": self.kind,
                "check": self.check,
                "metric": self.metric,
                "level": self.level,
                "limit": self.limit,
                "estimate_only": self.estimate_only,
                "instances": [one.to_json() for one in self.instances],
            }
        return told


@dataclass(frozen=True)
class WaiverUse:
    """What became of one waiver."""

    waiver: Waiver
    state: Literal["used", "expired", "not_yet", "other_model", "not_waivable", "unused"]
    count: int
    """Instances that it turned into `waived`."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**self.waiver.to_json(), "state": self.state, "count": self.count}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the policy says of the report."""

    outcome: Literal["pass", "fail", "inconclusive"]
    decisions: tuple[Decision, ...]
    waivers: tuple[WaiverUse, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of gate-level entries by outcome."""
        found = Counter(one.outcome for one in self.decisions if one.level != "advisory")
        return {outcome: found[outcome] for outcome in WORST_FIRST}

    @property
    def estimate_only(self) -> tuple[str, ...]:
        """Ids of the entries that look at the estimate alone, in the order of the policy."""
        return tuple(one.id for one in self.decisions if one.estimate_only)

    def to_json(self) -> dict[str, Any]:
        """Return the form that a signed report carries in `verdict`."""
        return {
            "outcome": self.outcome,
            "assertions": [one.to_json(every=False) for one in self.decisions],
            "counts": self.counts,
        }
