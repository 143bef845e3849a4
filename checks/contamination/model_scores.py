"""Numbers that rest on the role `scores`: transfer (7.4) and score inflation (section 8)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Finding, Metric, MetricRef, Multiplicity, Skipped

from checks.check import Evidence
from checks.contamination import reasons
from checks.contamination.inflation import inflation
from checks.contamination.items import Item, Score, read_scores
from checks.contamination.model_texts import ROLE, TOO_FEW, TRANSFER, BenchmarkTexts
from checks.contamination.shares_estimate import DRAWS, Estimate, cluster_index
from checks.contamination.transfer import MODELS_MIN, Answers, transfer_test
from checks.contamination.words import DETECTED, INCONCLUSIVE, INVALID, NOT_ASKED, NOT_DETECTED
from checks.quantise import metric

if TYPE_CHECKING:
    from jaxtyping import Int

TARGET = "target"
"""Name of the audited model in the role `scores` (section 4)."""

POINTS = 100
"""Points in a share of 1."""

INFLATION = "inflation"
"""Code of the finding."""

RAW, ADJUSTED = "inflation.raw", "inflation.adjusted"


def transfer_numbers(one: BenchmarkTexts, evidence: Evidence, metrics: list[Metric], skipped: list[Skipped]) -> None:
    """Add the transfer test of a benchmark against every other benchmark that is scored; none tells why.

    A reference benchmark whose items have the audited one's names is a rewritten one, and items are drawn in pairs.

    Args:
        one: the audited benchmark.
        evidence: with the role `scores`, where it came.
        metrics: numbers are added here.
        skipped: why there are none.
    """
    item = f"{TRANSFER}:{one.benchmark}"
    if "scores" not in evidence.roles():
        skipped.append(Skipped(item=item, reason=ROLE))
        return
    scores = read_scores(evidence.data("scores"))
    references = dict.fromkeys(score.benchmark for score in scores if score.benchmark != one.benchmark)
    guess = float(np.mean([1 / len(x.choices) if x.kind == "choice" and x.choices else 0.0 for x in one.items]))
    told = []
    for reference in references:
        found = _answered(scores, one.benchmark, reference, guess)
        if found is not None:
            audited, other, paired = found
            result = transfer_test(other, audited, paired, evidence.rng(f"bootstrap/transfer/{one.benchmark}"))
            told += [] if result is None else [(reference, result)]
    if not told:
        skipped.append(Skipped(item=item, reason=TOO_FEW))
        return
    of = {"benchmark": one.benchmark}
    metrics.append(metric("transfer.references", len(told), n=len(told), unit="count", determinism="exact", labels=of))
    metrics.append(
        metric("transfer.p_min", 1 / (DRAWS + 1), n=len(told), unit="1", determinism="statistical", labels=of)
    )
    for reference, result in told:
        labels = of | {"reference": reference}
        family = Multiplicity(family=f"transfer:{one.benchmark}", m=len(told), corrected="none")
        metrics.append(
            metric("transfer.p", result.p, n=result.models, unit="1", determinism="statistical", labels=labels,
                   p=result.p, p_floor=1 / (DRAWS + 1), multiplicity=family)
        )  # fmt: skip
        metrics.append(_points("transfer.delta", result.delta, labels))


def _answered(
    scores: Sequence[Score], benchmark: str, reference: str, guess: float
) -> tuple[Answers, Answers, bool] | None:
    """Return the answers on both benchmarks by the same models, and whether items are pairs."""
    tables = [_table(scores, name) for name in (benchmark, reference)]
    models = sorted(set(tables[0]) & set(tables[1]) - {TARGET})
    if len(models) < MODELS_MIN or any(TARGET not in table for table in tables):
        return None
    items = [sorted(set.intersection(*(set(table[name]) for name in (TARGET, *models)))) for table in tables]
    paired = items[0] == items[1]
    if not all(items):
        return None
    audited, other = (
        Answers(
            target=_answers(table, TARGET, own),
            others=np.stack([_answers(table, name, own) for name in models]),
            chance=guess,
        )
        for table, own in zip(tables, items, strict=True)
    )
    return audited, other, paired


Table = dict[str, dict[str, int]]


def _table(scores: Sequence[Score], benchmark: str) -> Table:
    told: Table = {}
    for score in scores:
        if score.benchmark == benchmark:
            told.setdefault(score.model, {})[score.item] = score.correct
    return told


def _answers(table: Table, model: str, items: Sequence[str]) -> Int[np.ndarray, " item"]:
    return np.array([table[model][item] for item in items], dtype=np.int64)


def inflation_metrics(
    benchmark: str, flagged: Collection[str], items: Sequence[Item], scores: Sequence[Score], rng: np.random.Generator
) -> list[Metric]:
    """Return raw and adjusted inflation in points; nothing where there are too few models, flagged or other items.

    Items that the target or a reference model was not asked are left out: a model that answered other items than the
    others did would change their difficulty.

    Args:
        benchmark: its name.
        flagged: items found in the corpus, by the name within the benchmark or as "benchmark/item".
        items: of the benchmark.
        scores: rows of the role `scores`.
        rng: the stream "bootstrap".
    """
    table = _table(scores, benchmark)
    models = sorted(set(table) - {TARGET})
    own = [one for one in items if one.benchmark == benchmark]
    asked = [one for one in own if TARGET in table and all(one.item in table[name] for name in (TARGET, *models))]
    if not asked or not models:
        return []
    names = [one.item for one in asked]
    flags = np.array([one.item in flagged or one.name in flagged for one in asked], dtype=np.bool_)
    told = inflation(
        _answers(table, TARGET, names),
        np.stack([_answers(table, name, names) for name in models]),
        flags,
        cluster_index([one.template for one in asked]),
        rng,
    )
    if told is None:
        return []
    labels = {"benchmark": benchmark}
    return [_points(RAW, told.raw, labels), _points(ADJUSTED, told.adjusted, labels)]


def inflation_finding(benchmark: str, metrics: Sequence[Metric], *, role: bool, leak: Finding | None) -> Finding:
    """Return the claim on a benchmark's score: `detected` where the adjusted lower bound is above 0 (9.2).

    Flagged items of a leak that is not `detected` are no leaks: whatever kept that word back keeps this one back too.

    Args:
        benchmark: its name.
        metrics: of the report; those of this benchmark are read.
        role: whether the role `scores` came with the audit.
        leak: the finding `leak` of this benchmark.
    """
    told = {one.name: one for one in metrics if one.labels == {"benchmark": benchmark} and one.name in (RAW, ADJUSTED)}
    raw, adjusted = told.get(RAW), told.get(ADJUSTED)
    if raw is None or adjusted is None or adjusted.interval is None:
        why = TOO_FEW if role else ROLE
        less = "too few items, flagged items or reference models are scored" if role else "there is no role scores"
        return _said(benchmark, NOT_ASKED, f"not asked: {less}.", why)
    rests = (raw, adjusted)
    if leak is None or leak.word != DETECTED:
        return _as_the_leak(benchmark, leak, rests)
    whole = f"raw {raw.value} points, confounded by difficulty"
    if float(adjusted.interval.low) > 0:
        claim = f"at least {adjusted.interval.low} points, on the flagged items ({whole}); a lower bound."
        return _said(benchmark, DETECTED, claim, None, rests)
    bounds = f"{adjusted.value} [{adjusted.interval.low}, {adjusted.interval.high}] points on the flagged items"
    claim = f"not detected: {bounds} ({whole}); gains on other items hide those on flagged ones."
    return _said(benchmark, NOT_DETECTED, claim, None, rests)


_BEGINS = {INVALID: "not valid", INCONCLUSIVE: "could not tell", NOT_ASKED: "not asked"}


def _as_the_leak(benchmark: str, leak: Finding | None, rests: Sequence[Metric]) -> Finding:
    word = leak.word if leak is not None and leak.word in _BEGINS else INCONCLUSIVE
    why = (leak.labels.get("reason") if leak is not None else None) or reasons.NOT_MEASURED
    claim = f"{_BEGINS[word]}: a leak of the flagged items is not detected itself ({why})."
    return _said(benchmark, word, claim, why, rests if word != NOT_ASKED else ())


def _said(benchmark: str, word: str, claim: str, why: str | None, rests: Sequence[Metric] = ()) -> Finding:
    return Finding(
        code=INFLATION,
        word=word,
        severity="concern" if word == DETECTED else "note",
        claim=claim,
        labels={"benchmark": benchmark} | ({"reason": why} if why else {}),
        rests_on=tuple(MetricRef(name=one.name, labels=one.labels) for one in rests),
    )


def _points(name: str, told: Estimate, labels: dict[str, str]) -> Metric:
    interval = (POINTS * told.low, POINTS * told.high)
    return metric(name, POINTS * told.value, n=told.n, unit="points", determinism="statistical", labels=labels,
                  interval=interval, method=told.method)  # fmt: skip
