"""Judge a replication against the report that it repeats. Pure; source: report specification, section 15.

The same question on the same bytes under the same seed. Lack of a difference is not agreement: a statistical number
agrees only where the interval of the difference lies inside the margin that the check declared beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from assay import canonical, statement
from assay.compare import words
from assay.compare.agreement import Answer, by_name, check_data, must_agree, unusable
from assay.compare.compare import Labels, declared_margin
from assay.compare.environment import Change, changes, same_machine
from assay.compare.metrics import Metric, Reader
from assay.compare.sides import Side

SCHEMA = "assay-replication/v1"

PREDICATE_TYPE = statement.PREDICATE_TYPE.replace("/report/", "/replication/")
"""Its own type: a replication can never be replayed as a report (specification, section 6)."""

SCHEMA_VERSION = "1.0"

Agreement = Literal["agrees", "differs", "cannot_tell"]
Outcome = Literal["replicated", "not_replicated", "cannot_tell"]
Rule = Literal["exact", "tolerance", "statistical", "finding", "answer"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric, finding or answer of both reports."""

    check: str
    item: str | None
    """Name of the metric or code of the finding; None for an answer as a whole."""
    labels: Labels
    rule: Rule
    word: Agreement
    reason: str
    first: str | None
    second: str | None
    identical: bool = False
    """Whether value, bounds and number of items are equal as written; by itself no agreement."""

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form."""
        return {
            "check": self.check,
            "item": self.item,
            "labels": dict(self.labels),
            "rule": self.rule,
            "word": self.word,
            "reason": self.reason,
            "first": self.first,
            "second": self.second,
            "identical": self.identical,
        }


@dataclass(frozen=True, kw_only=True)
class Replication:
    """What became of a replication."""

    first: Side
    second: Side
    outcome: Outcome
    rows: tuple[Row, ...]
    environment: tuple[Change, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form, schema assay-replication/v1; also the predicate of its statement."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "outcome": self.outcome,
            "counts": dict(sorted(Counter(row.word for row in self.rows).items())),
            "results": [row.to_json() for row in self.rows],
            "environment_differences": [change.to_json() for change in self.environment],
            "notes": list(self.notes),
        }

    def statement(self) -> dict[str, Any]:
        """Return the unsigned in-toto statement; its subjects are those of both reports."""
        return {
            "_type": statement.STATEMENT_TYPE,
            "subject": [dict(one) for one in self.second.statement["subject"]],
            "predicateType": PREDICATE_TYPE,
            "predicate": self.to_json(),
        }


def replicate(first: Side, second: Side) -> Replication:
    """Judge a replication.

    Args:
        first: the report.
        second: the run that repeats it.

    Raises:
        Incomparable: another model, base, data, seed, question or order of questions; names the field.
    """
    _check_same(first, second)
    pairs = list(zip(first.predicate["answers"], second.predicate["answers"], strict=True))
    alike = same_machine(first.predicate, second.predicate)
    rows = tuple(_Judge(first, second, alike, _compared(pairs)).rows(pairs))
    return Replication(
        first=first,
        second=second,
        outcome=outcome_of(row.word for row in rows),
        rows=rows,
        environment=tuple(changes(first, second)),
        notes=tuple(_notes(first, second)),
    )


def outcome_of(words_said: Iterable[str]) -> Outcome:
    """Return what words about single numbers amount to: all agree, any differs, or nobody can tell."""
    said = set(words_said)
    if "differs" in said:
        return "not_replicated"
    return "replicated" if said == {"agrees"} else "cannot_tell"


def _check_same(first: Side, second: Side) -> None:
    one, other = first.predicate, second.predicate
    must_agree("model/manifest_sha256", one["model"]["manifest_sha256"], other["model"]["manifest_sha256"])
    bases = [(told.get("base") or {}).get("manifest_sha256") for told in (one, other)]
    must_agree("base/manifest_sha256", *bases)
    check_data(first, second)
    must_agree("answers", *([answer["check"] for answer in told["answers"]] for told in (one, other)))
    for at, (left, right) in enumerate(zip(one["answers"], other["answers"], strict=True)):
        must_agree(f"answers/{at}/version", left["version"], right["version"])
        if canonical.dumps(left["params"]) != canonical.dumps(right["params"]):
            must_agree(f"answers/{at}/params", canonical.sha256(left["params"]), canonical.sha256(right["params"]))
    must_agree("registration/seed", one["registration"]["seed"], other["registration"]["seed"])
    named = second.request.get("first")
    if named is not None:
        must_agree("request/first", first.statement_sha256, named["statement_sha256"])


def _compared(pairs: list[tuple[Answer, Answer]]) -> int:
    """Return m: the metrics of both sides that are judged by an interval, whatever comes out."""
    return sum(
        metric["determinism"] != "exact"
        for answers in pairs
        if not (unusable(answers[0]) or unusable(answers[1]))
        for metric in answers[0]["measured"]["metrics"]
    )


class _Judge:
    def __init__(self, first: Side, second: Side, alike: bool, compared: int) -> None:
        self._reader = Reader(first, second)
        self._alike = alike
        self._tail = words.tail(compared)

    def rows(self, pairs: list[tuple[Answer, Answer]]) -> Iterator[Row]:
        for answers in pairs:
            reasons = [unusable(answer) for answer in answers]
            if any(reasons):
                yield self._whole(answers, reasons)
                continue
            yield from self._metrics(answers)
            yield from _findings(answers)

    def _whole(self, answers: tuple[Answer, Answer], reasons: list[str | None]) -> Row:
        # Two refusals for one reason agree: the question has the same answer. Everything else proves nothing.
        told = [f"{answer['outcome']}:{answer['reason']}" for answer in answers]
        agrees = reasons == ["answer_refused", "answer_refused"] and told[0] == told[1]
        return Row(
            check=answers[0]["check"], item=None, labels=(), rule="answer",
            word="agrees" if agrees else "cannot_tell",
            reason="same_refusal" if agrees else next(reason for reason in reasons if reason),
            first=told[0], second=told[1],
        )  # fmt: skip

    def _metrics(self, answers: tuple[Answer, Answer]) -> Iterator[Row]:
        left, right = (by_name(answer["measured"]["metrics"]) for answer in answers)
        for key in dict.fromkeys((*left, *right)):
            one, other = left.get(key), right.get(key)
            if one is None or other is None:
                yield Row(
                    check=answers[0]["check"], item=key[0], labels=key[1], rule=(one or other or {})["determinism"],
                    word="cannot_tell", reason="only_in_second" if one is None else "only_in_first",
                    first=None if one is None else one["value"], second=None if other is None else other["value"],
                )  # fmt: skip
            else:
                yield self._metric(answers, one, other)

    def _metric(self, answers: tuple[Answer, Answer], one: Metric, other: Metric) -> Row:
        rule: Rule = one["determinism"]
        word: Agreement
        if rule != other["determinism"]:
            word, reason = "cannot_tell", "other_determinism"
        elif rule == "exact":
            word, reason = _told(one["value"] == other["value"], "equal", "not_equal")
        elif self._alike and _within(one, other):
            rule, word, reason = "tolerance", "agrees", "within_tolerance"
        else:
            rule = "statistical"
            word, reason = self._statistical(answers, one, other)
        parts = ("value", "interval", "n")
        return Row(
            check=answers[0]["check"], item=one["name"], labels=tuple(sorted(one["labels"].items())), rule=rule,
            word=word, reason=reason, first=one["value"], second=other["value"],
            identical=all(one.get(part) == other.get(part) for part in parts),
        )  # fmt: skip

    def _statistical(self, answers: tuple[Answer, Answer], one: Metric, other: Metric) -> tuple[Agreement, str]:
        margin = declared_margin(one, other)
        if margin is None:
            return "cannot_tell", "no_margin"
        seen = self._reader.difference(answers, (one, other))
        interval = seen.difference.interval(self._tail)
        if interval is None:
            return "cannot_tell", seen.difference.reason or "no_interval"
        low, high = interval
        if -margin <= low and high <= margin:
            return "agrees", "inside_margin"
        if low > margin or high < -margin:
            return "differs", "outside_margin"
        return "cannot_tell", "unpaired_straddles_margin" if seen.unpaired_because else "straddles_margin"


def _told(agrees: bool, yes: str, no: str) -> tuple[Agreement, str]:
    return ("agrees", yes) if agrees else ("differs", no)


def _within(one: Metric, other: Metric) -> bool:
    """Return whether |a - b| <= abs + rel |a|, exactly, with the tolerance that both sides declare.

    A number of determinism "tolerance" that declares none may not move at all. A statistical number may declare one
    too: then it is how far a run on the same machine may move it. Without one only its margin can tell.
    """
    allowed = one.get("tolerance")
    if allowed != other.get("tolerance"):
        return False
    if not allowed:
        return one["determinism"] == "tolerance" and Decimal(one["value"]) == Decimal(other["value"])
    a, b = Decimal(one["value"]), Decimal(other["value"])
    return abs(a - b) <= Decimal(allowed["abs"]) + Decimal(allowed["rel"]) * abs(a)


def _findings(answers: tuple[Answer, Answer]) -> Iterator[Row]:
    """Yield a row for each finding: the same code and labels must have the same word."""
    left, right = (_words(answer) for answer in answers)
    for code, labels in dict.fromkeys((*left, *right)):
        one, other = left.get((code, labels)), right.get((code, labels))
        word, reason = _told(one == other, "same_word", "other_word" if one and other else "finding_missing")
        yield Row(
            check=answers[0]["check"], item=code, labels=labels, rule="finding", word=word, reason=reason,
            first=one, second=other, identical=one == other,
        )  # fmt: skip


def _words(answer: Answer) -> dict[tuple[str, Labels], str]:
    told: dict[tuple[str, Labels], list[str]] = {}
    for one in answer["findings"]:
        told.setdefault((one["code"], tuple(sorted((one.get("labels") or {}).items()))), []).append(one["word"])
    return {key: ",".join(sorted(found)) for key, found in told.items()}


def _notes(first: Side, second: Side) -> Iterator[str]:
    if first.statement_sha256 == second.statement_sha256:
        yield "both sides are the same report: nothing was run again"
    if second.request.get("first") is None:
        yield "the second request does not name the report that it repeats"
