"""How a word is found and told: three-valued rules, first that applies, and the finding that they become.

A number that is not there makes what rests on it unknown, and a rule that is unknown ends the search with
`inconclusive`. So taking a number away can only move a word there (Kleene's strong logic is monotonic in what is
known): with all numbers every rule before the word was false, without some of them it is false or unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from assay.result import Finding, Metric, MetricRef

from checks.sae_features.words import ASIDE, INCONCLUSIVE, WEAKENING

Truth = bool | None
"""None where what it rests on was not measured."""

SAID: Mapping[str, str] = {
    "behaviour_absent": "the behaviour does not show",
    "effect_reversed": "taking the latents out strengthens the behaviour",
    "no_reference": "no usable trained dictionary shows what this one is held against",
    "p_resolution": "too few swaps for p to reach alpha over so many concepts",
    "too_few_controls": "too few matched sets for p to reach alpha over so many concepts",
    "too_wide": "intervals too wide to call the dictionaries alike",
}
"""Codes that do not read as a sentence's part by themselves."""

CLAIM_MAX, NAME_MAX = 512, 128
"""Letters of a claim, and of a label's value: the report's limits."""


def any_of(parts: Iterable[Truth]) -> Truth:
    """Return whether one holds: true where one does, whatever is unknown."""
    told = list(parts)
    return True if True in told else None if None in told else False


def all_of(parts: Iterable[Truth]) -> Truth:
    """Return whether all hold: false where one does not, whatever is unknown."""
    told = list(parts)
    return False if False in told else None if None in told else True


def negated(part: Truth) -> Truth:
    """Return the opposite; the opposite of unknown is unknown."""
    return None if part is None else not part


def compared(number: float | None, holds: Callable[[float], bool]) -> Truth:
    """Return whether a number passes; unknown where there is none."""
    return None if number is None else holds(number)


@dataclass(frozen=True)
class Part:
    """One thing that may make a rule apply, and what it is called."""

    name: str
    holds: Truth
    rests: str = ""
    """Metric that it rests on, told where that was not measured; empty: it is called as the part is."""


@dataclass(frozen=True)
class Rule:
    """A word and what must hold for it."""

    word: str
    holds: Truth
    why: tuple[str, ...] = ()
    """Told where it holds."""
    unknown: tuple[str, ...] = ()
    """What was not measured, told where that keeps it from being decided."""

    @staticmethod
    def of_any(word: str, *parts: Part) -> Rule:
        """Return the rule that applies where one part does, and names those that do."""
        return Rule(
            word,
            any_of(part.holds for part in parts),
            tuple(dict.fromkeys(part.name for part in parts if part.holds)),
            tuple(dict.fromkeys(part.rests or part.name for part in parts if part.holds is None)),
        )


@dataclass(frozen=True)
class Verdict:
    """A word, why it is said, and what it rests on."""

    code: str
    word: str
    why: tuple[str, ...]
    also: tuple[str, ...] = ()
    """Other words whose rule applies."""
    unknown: tuple[str, ...] = ()
    """What was not measured."""
    tags: tuple[str, ...] = ()
    dictionary: str | None = None
    concept: str | None = None
    rests: tuple[Metric, ...] = ()


def decided(code: str, rules: Sequence[Rule], otherwise: str = "not_measured") -> Verdict:
    """Return the word of the first rule that is not false: its word where it holds, else inconclusive.

    Args:
        code: of the finding.
        rules: in the order of the table.
        otherwise: why nothing is told where every rule is false.
    """
    first = next((rule for rule in rules if rule.holds is not False), None)
    if first is None:
        return Verdict(code, INCONCLUSIVE, (otherwise,), _also(rules, INCONCLUSIVE))
    if first.holds is None:
        return Verdict(code, INCONCLUSIVE, ("not_measured",), _also(rules, INCONCLUSIVE), first.unknown)
    return Verdict(code, first.word, first.why, _also(rules, first.word))


def _also(rules: Sequence[Rule], said: str) -> tuple[str, ...]:
    allowed = WEAKENING if said == INCONCLUSIVE else ASIDE
    return tuple(dict.fromkeys(rule.word for rule in rules if rule.holds and rule.word in allowed - {said}))


def finding(verdict: Verdict, claim: str, severity: Literal["note", "concern", "breach"] = "note") -> Finding:
    """Return a verdict as the report has it.

    Labels: what it is of (`dictionary`, `concept`), `reason` (why this word), `also` (other words whose rule applies),
    `tags`, and `unmeasured` (what was missing); several are joined with "+".
    """
    of = {"dictionary": verdict.dictionary, "concept": verdict.concept}
    told = {"reason": verdict.why, "also": verdict.also, "tags": verdict.tags, "unmeasured": verdict.unknown}
    rests = {(one.name, *sorted(one.labels.items())): one for one in verdict.rests}
    return Finding(
        code=verdict.code,
        word=verdict.word,
        severity=severity,
        claim=claim if len(claim) <= CLAIM_MAX else f"{claim[: CLAIM_MAX - 3]}...",
        labels={name: value for name, value in of.items() if value is not None}
        | {name: joined(values) for name, values in told.items() if values},
        rests_on=tuple(MetricRef(name=one.name, labels=one.labels) for one in rests.values()),
    )


def joined(names: Iterable[str]) -> str:
    """Return names as one label's value, whole names only: "delta_sae+delta_frozen"."""
    value = ""
    for name in names:
        longer = f"{value}+{name}" if value else name
        if len(longer) > NAME_MAX:
            break
        value = longer
    return value


def number(metric: Metric | None) -> str:
    """Return a metric's value with its bounds."""
    if metric is None:
        return "not measured"
    value = _short(metric.value)
    if metric.interval is None:
        return value
    return f"{value} [{_short(metric.interval.low)}, {_short(metric.interval.high)}]"


def _short(text: str) -> str:
    value = float(text)
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def untold(verdict: Verdict) -> str:
    """Return the sentence of a word that could not be decided."""
    missing = f" ({', '.join(verdict.unknown)})" if verdict.unknown else ""
    return f"could not tell: {', '.join(map(said, verdict.why))}{missing}."


def said(code: str) -> str:
    """Return a code as it reads in a sentence; one holds a word that no sentence of this check may (section 12)."""
    return SAID.get(code) or code.replace("_", " ")


def with_tags(verdict: Verdict, *tags: tuple[str, Truth]) -> Verdict:
    """Return a verdict with the tags that hold."""
    return replace(verdict, tags=(*verdict.tags, *(name for name, holds in tags if holds)))
