"""Compare two verified reports, metric by metric. Source: report specification, section 15."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from typing import Any

from assay.compare import words
from assay.compare.agreement import Answer, by_name, check_evidence, pair_answers, unusable
from assay.compare.differences import Difference
from assay.compare.metrics import ITEMS_ABSENT, Metric, Reader, Seen
from assay.compare.numbers import high_text, low_text, value_text
from assay.compare.sides import Side
from assay.compare.words import Better, Word
from assay.errors import CouldNotTell, Misused, shown
from assay.policy.evidence import Compared
from assay.result import canonical_decimal

SCHEMA = "assay-compare/v1"

EXACT = Context(prec=60)
"""Digits of exact differences: the decimal grammar has 15 before the point and 18 behind it."""

Labels = tuple[tuple[str, str], ...]
Margins = Mapping[tuple[str, str], float]
"""Largest difference that does not matter, by check and metric."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of both reports."""

    check: str
    metric: str
    labels: Labels
    unit: str
    better: Better
    value_a: str
    value_b: str
    seen: Seen
    margin: float | None
    interval: tuple[float, float] | None = None
    p: float | None = None
    """Holm's."""
    word: Word = "cannot_tell"

    @property
    def difference(self) -> Difference:
        """B less A."""
        return self.seen.difference

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form; numbers are decimal strings."""
        told, ends = self.difference, self.interval
        return {
            "check": self.check,
            "metric": self.metric,
            "labels": dict(self.labels),
            "unit": self.unit,
            "better": self.better,
            "a": self.value_a,
            "b": self.value_b,
            "d": value_text(told.d),
            "se": None if told.se is None else value_text(told.se),
            "low": None if ends is None else low_text(ends[0]),
            "high": None if ends is None else high_text(ends[1]),
            "p": None if told.p is None else high_text(max(told.p, words.P_FLOOR)),
            "p_holm": None if self.p is None else high_text(self.p),
            "method": told.method,
            "unpaired_because": self.seen.unpaired_because,
            "margin": None if self.margin is None else value_text(self.margin),
            "word": self.word,
            "reason": told.reason,
        }


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What one report has, and cannot be compared."""

    check: str
    metric: str | None
    labels: Labels
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form."""
        return {"check": self.check, "metric": self.metric, "labels": dict(self.labels), "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two reports, side by side."""

    a: Side
    b: Side
    rows: tuple[Row, ...]
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]

    @property
    def compared(self) -> int:
        """m, the metrics that share the level: those that were tested, and those whose signed items are absent."""
        return _shared(self.rows)

    def counts(self) -> dict[str, int]:
        """Return how often each word was said."""
        return dict(sorted(Counter(row.word for row in self.rows).items()))

    def differences(self) -> dict[tuple[str, str, Labels], Compared]:
        """Return B less A by check, metric and labels, as a policy's `compare` entries read it.

        Where a check was asked twice and both answers have an instance, neither is given: a policy cannot tell which.
        """
        first, second = _instances(self.a), _instances(self.b)
        return {
            key: _as_policies_read(row)
            for row in self.rows
            if first[key := (row.check, row.metric, row.labels)] == second[key] == 1
        }

    def only_in_first(self) -> frozenset[tuple[str, str, Labels]]:
        """Return check, metric and labels of every number that the baseline has and the candidate has not."""
        return frozenset(_instances(self.a).keys() - _instances(self.b).keys())

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form, schema assay-compare/v1."""
        return {
            "schema": SCHEMA,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "compared": self.compared,
            "level": value_text(1.0 - words.tail(self.compared)),
            "counts": self.counts(),
            "metrics": [row.to_json() for row in self.rows],
            "not_compared": [one.to_json() for one in self.missing],
            "notes": list(self.notes),
        }


def compare(a: Side, b: Side, margins: Margins | None = None) -> Comparison:
    """Compare two verified reports: B less A.

    Args:
        a: the baseline.
        b: the candidate.
        margins: by check and metric; for all others the margin counts that both reports declare.

    Raises:
        Incomparable: they do not answer the same question on the same evidence; names the field.
        Misused: a margin names no metric of both reports.
    """
    pairing = pair_answers(a, b)
    check_evidence(a, b)
    given, reader = dict(margins or {}), Reader(a, b)
    rows: list[Row] = []
    missing = [_left(one, "only_in_first") for one in pairing.only_a]
    missing += [_left(one, "only_in_second") for one in pairing.only_b]
    for answers in pairing.pairs:
        reason = unusable(answers[0]) or unusable(answers[1])
        if reason is not None:
            missing.append(_left(answers[0], reason))
            continue
        found, lost = _rows(reader, answers, given)
        rows += found
        missing += lost
    known = {(row.check, row.metric) for row in rows}
    for check, metric in given:
        if (check, metric) not in known:
            raise Misused(f"--margin {shown(check)}/{shown(metric)}: no metric of both reports has this name")
    return Comparison(a=a, b=b, rows=_worded(rows), missing=tuple(missing), notes=tuple(_notes(a, b, pairing.pairs)))


def _instances(side: Side) -> Counter[tuple[str, str, Labels]]:
    """Return how many answers of a report have each instance."""
    return Counter(
        (answer["check"], *key)
        for answer in side.predicate["answers"]
        for key in by_name((answer.get("measured") or {}).get("metrics", ()))
    )


def _shared(rows: Iterable[Row]) -> int:
    """Return among how many metrics the level is shared: one whose items were deleted leaves its share to nobody."""
    return sum(row.difference.tested or bool(row.seen.absent) for row in rows)


def _as_policies_read(row: Row) -> Compared:
    told, because = row.difference, row.seen.unpaired_because
    if row.seen.absent:
        sides = " and ".join(("baseline", "candidate")[side] for side in row.seen.absent)
        said = f"they are signed, and absent from the {sides}"
        return Compared(method=told.method, unpaired_because=because, reason=ITEMS_ABSENT, detail=said)
    if row.interval is None:
        return Compared(method=told.method, unpaired_because=because, detail=told.reason or "")
    if told.method == "exact":
        # Of two certain numbers the difference is certain too, and floats would put it beside a limit that it meets.
        d = canonical_decimal(f"{EXACT.subtract(Decimal(row.value_b), Decimal(row.value_a)):f}")
        return Compared(value=d, low=d, high=d, method=told.method, unpaired_because=because)
    try:
        value, low, high = value_text(told.d), low_text(row.interval[0]), high_text(row.interval[1])
    except CouldNotTell as error:
        return Compared(method=told.method, unpaired_because=because, detail=str(error))
    return Compared(value=value, low=low, high=high, method=told.method, unpaired_because=because)


def _left(answer: Answer, reason: str) -> Missing:
    return Missing(check=answer["check"], metric=None, labels=(), reason=reason)


def _rows(reader: Reader, answers: tuple[Answer, Answer], given: Margins) -> tuple[list[Row], list[Missing]]:
    check = answers[0]["check"]
    left, right = (by_name(answer["measured"]["metrics"]) for answer in answers)
    rows = [
        Row(
            check=check,
            metric=name,
            labels=labels,
            unit=one["unit"],
            better=one.get("better", "none"),
            value_a=one["value"],
            value_b=right[name, labels]["value"],
            seen=reader.difference(answers, (one, right[name, labels])),
            margin=given.get((check, name), declared_margin(one, right[name, labels])),
        )
        for (name, labels), one in left.items()
        if (name, labels) in right
    ]
    lost = [
        Missing(check=check, metric=name, labels=labels, reason=reason)
        for mine, other, reason in ((left, right, "only_in_first"), (right, left, "only_in_second"))
        for name, labels in mine
        if (name, labels) not in other
    ]
    return rows, lost


def declared_margin(a: Metric, b: Metric) -> float | None:
    """Return the margin that both reports declare for a metric; None where they do not, or not the same."""
    told = a.get("margin")
    return float(told) if told is not None and told == b.get("margin") else None


def _worded(rows: list[Row]) -> tuple[Row, ...]:
    tested = [at for at, row in enumerate(rows) if row.difference.tested]
    lost = [1.0] * (_shared(rows) - len(tested))  # what they would have said is unknown; 1 helps no other
    corrected = dict(zip(tested, words.holm([*(rows[at].difference.p or 0.0 for at in tested), *lost]), strict=False))
    tail = words.tail(_shared(rows))
    told = []
    for at, row in enumerate(rows):
        interval, p = row.difference.interval(tail), corrected.get(at)
        certain = row.difference.method == "exact"
        said = words.word(interval, p, row.better, row.margin, certain=certain)
        told.append(replace(row, interval=interval, p=p, word=said))
    return tuple(told)


def _notes(a: Side, b: Side, pairs: tuple[tuple[Answer, Answer], ...]) -> list[str]:
    notes = []
    if a.statement_sha256 == b.statement_sha256:
        notes.append("both sides are the same report")
    notes += [
        f"{shown(one['check'])} was answered by other code on each side, under one version"
        for one, other in pairs
        if one["code_sha256"] != other["code_sha256"]
    ]
    return notes
