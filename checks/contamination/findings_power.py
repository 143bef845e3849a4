"""Whether enough planted rewrites are found for silence to mean something (contamination, 6.11, 9.2).

Of each tier the plants of its depths speak: `exact` of depths 0-1, found as `exact`; `near` and `template` of depths
2-4; `semantic` of depth 5. A deeper rewording that an embedding finds says nothing of what a comparison of words finds,
so of `near` what was found by words counts in full and what only the embedding found counts by the share of the corpus
that was embedded.

Depths of a tier are pooled: the automatic rewriter plants 40 items of a small benchmark, which leaves 24, 13 and 3 at
depths 2, 3 and 4, and a lower bound of .8 needs 16 of 16. In return no single depth with five items or more may lie
below the bound by its own share. The auditor's plants and the automatic ones both speak, the worse of them decides; of
`semantic` the auditor's alone, since taking their role away must not turn a silence into a pass (14.5).
"""

from __future__ import annotations

from assay.result import Metric

from checks.contamination import reasons
from checks.contamination.findings_readings import Readings, Truth
from checks.contamination.recall import CODE, EMBEDDED, POOLED, WORDS_ALONE

Power = tuple[Truth, str, tuple[Metric, ...]]
"""Whether silence is powered, why not, and the recall that it rests on."""


def power(readings: Readings, tier: str, least: float, share: float | None) -> Power:
    """Return whether silence at a tier means something.

    Args:
        readings: the numbers of a benchmark.
        tier: exact, near, semantic or template.
        least: lower bound of recall that is needed.
        share: of the words that were embedded; None where that was not measured.
    """
    items, code = readings.of("items"), readings.of("code_items")
    if items is None or code is None or share is None:
        return None, reasons.NOT_MEASURED, ()
    told = []
    if float(items.value) > float(code.value):
        told.append(_of_sort(readings, tier, least, share, ""))
    if float(code.value):
        told.append(_of_sort(readings, tier, least, share, CODE))
    # What is found of prose says nothing of code, nor the other way round: the worse of both decides.
    return min(told, key=_rank)


def _of_sort(readings: Readings, tier: str, least: float, share: float, sort: str) -> Power:
    depth = POOLED["near" if tier == "template" else tier]
    sources = [f"rewrites{sort}"] + ([f"automatic{sort}"] if tier != "semantic" else [])
    planted = {source: readings.of("planted", depth=depth, source=source) for source in sources}
    if any(one is None for one in planted.values()):
        return None, reasons.NOT_MEASURED, ()
    chosen = [source for source, one in planted.items() if one is not None and float(one.value)]
    if not chosen:
        authored = readings.of("recall", depth=depth, placement="all", source=f"authored{sort}")
        return False, reasons.NO_RECALL, () if authored is None else (authored,)
    return min((_of_source(readings, depth, source, least, share) for source in chosen), key=_rank)


def _of_source(readings: Readings, depth: str, source: str, least: float, share: float) -> Power:
    told = {
        (name, by): readings.of(name, depth=depth, source=source, searched=by)
        for name in ("recall.pooled", "recall.least")
        for by in (WORDS_ALONE, EMBEDDED)
    }
    whole = told["recall.pooled", EMBEDDED]
    if whole is None or any(one is None for one in told.values()):
        return None, reasons.NOT_MEASURED, ()

    def reached(name: str, of: float) -> float:
        words, all_ = (_low(one) if one is not None else 0.0 for one in (told[name, WORDS_ALONE], told[name, EMBEDDED]))
        return of * all_ + (1 - of) * words

    if min(reached("recall.pooled", share), reached("recall.least", share)) >= least:
        return True, "", (whole,)
    fully = min(reached("recall.pooled", 1.0), reached("recall.least", 1.0))
    return False, reasons.COVERAGE if fully >= least else reasons.UNDERPOWERED, (whole,)


def _rank(told: Power) -> tuple[bool, bool, float]:
    return told[0] is not None, told[0] is True, min(map(_low, told[2]), default=0.0)


def _low(metric: Metric) -> float:
    return float(metric.interval.low if metric.interval else metric.value)
