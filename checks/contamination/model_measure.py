"""From token scores to the numbers of the model side (contamination, 7, 9.1). No word is formed here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Measured, Metric, Multiplicity, Skipped

from checks import memory
from checks.check import Evidence, TokenScores
from checks.contamination.model_numbers import count, estimated, least_p, p_metric, uniform
from checks.contamination.model_plots import PLOTTED, rank_plot
from checks.contamination.model_readings import ALL, adjusted
from checks.contamination.model_scores import transfer_numbers
from checks.contamination.model_texts import (
    OPTIONS,
    ORDER,
    SURPRISE,
    TESTS,
    TOO_FEW,
    TRANSFER,
    BenchmarkTexts,
    Choices,
    ModelAsked,
    Stretch,
    texts_of,
)
from checks.contamination.options_test import options_test
from checks.contamination.order_test import order_test
from checks.contamination.shares_estimate import cluster_index
from checks.contamination.surprise import PERMUTATIONS, permuted_area, scores_of, surprise_test, units
from checks.contamination.surprise_blind import blind_control
from checks.quantise import metric, p_value

if TYPE_CHECKING:
    from assay.result import Plot
    from jaxtyping import Float, Int

SWAP_MIN = 20
"""Placebos in each half of the control LabelSwap: fewer cannot show a p below .001 with any stability."""

LABEL_SWAP = "label-swap"
"""Name of the control that asks the surprise test of placebos alone."""

_ROLES = ("benchmark", "placebo", "scores")


class Joined(memory.Joined):
    """Evidence of a control of the model side, and what is asked of it.

    Args:
        seen: what `measure` saw, with rows and token scores replaced as the control wants.
        control: name of the control.
        asked: parameters that stand in for the check's own.
    """

    def __init__(self, seen: Evidence, control: str, asked: ModelAsked) -> None:
        super().__init__(seen, control)
        self.asked = asked


@dataclass
class _Told:
    """What was measured so far."""

    metrics: list[Metric]
    plots: list[Plot]
    skipped: list[Skipped]


def measure(asked: ModelAsked, evidence: Evidence) -> Measured:
    """Return the numbers of the model side, one benchmark after another.

    Args:
        asked: parameters; those of a control stand in for them where the evidence is `Joined`.
        evidence: with the role `benchmark`, the roles `placebo` and `scores` where they came, and token scores.

    Raises:
        Refusal: `role_invalid`.
    """
    control = evidence.control if isinstance(evidence, Joined) else None
    asked = evidence.asked if isinstance(evidence, Joined) else asked
    every = _texts(asked, evidence)
    told = _Told([], [], [])
    owed = 0
    for one in every:
        tests = [test for test in TESTS if one.asks(test)]
        owed += len(tests)
        told.skipped += [Skipped(item=f"{test}:{one.benchmark}", reason=one.not_asked[test]) for test in one.not_asked
                         if test in asked.tests]  # fmt: skip
        told.metrics.append(count("items", len(one.items), one.benchmark, "exact"))
        if control == LABEL_SWAP:
            told.metrics += _swapped(one, asked, evidence) if SURPRISE in tests else []
        else:
            _benchmark(one, tests, asked, evidence, told)
    told.metrics.append(metric("tests_asked", owed, n=len(every), unit="count", determinism="exact"))
    return Measured(
        coverage={"benchmark": tuple(one.benchmark for one in every)},
        metrics=tuple(told.metrics),
        plots=tuple(told.plots),
        skipped=tuple(told.skipped),
    )


def _texts(asked: ModelAsked, evidence: Evidence) -> tuple[BenchmarkTexts, ...]:
    """Return what was asked; worked out once for all runs on equal rows, for the guards take a thousand orders each."""
    there = set(evidence.roles())
    rows = {role: evidence.data(role) for role in _ROLES[:2] if role in there}
    key = hashlib.sha256(json.dumps([repr(asked), evidence.facts.context, rows]).encode()).hexdigest()
    kept = evidence.kept.setdefault("contamination.model_texts", {})
    if key not in kept:
        kept[key] = texts_of(asked, rows, evidence.facts.context)
    found: tuple[BenchmarkTexts, ...] = kept[key]
    return found


def _benchmark(one: BenchmarkTexts, tests: Sequence[str], asked: ModelAsked, evidence: Evidence, told: _Told) -> None:
    scores = evidence.token_scores()
    made = {
        ORDER: lambda: _order(one, scores, told),
        OPTIONS: lambda: _options(one, scores, told),
        SURPRISE: lambda: _surprise(one, asked, evidence, told),
        TRANSFER: lambda: transfer_numbers(one, evidence, told.metrics, told.skipped),
    }
    first = len(told.metrics)
    skipped = len(told.skipped)
    for test in tests:
        made[test]()
    lost = {entry.item.partition(":")[0] for entry in told.skipped[skipped:]}
    m = len([test for test in tests if test not in lost and not (test == ORDER and one.structured)])
    raw = {test: [x for x in told.metrics[first:] if x.name == f"{test}.p"] for test in tests}
    corrected = adjusted({test: max(float(x.value) for x in of) for test, of in raw.items() if of}, m)
    family = Multiplicity(family=f"model:{one.benchmark}", m=m, corrected="holm")
    for at, x in enumerate(told.metrics[first:], first):
        if x.name in {f"{test}.p" for test in corrected}:
            p = p_value(corrected[x.name.removesuffix(".p")])
            told.metrics[at] = x.model_copy(update={"p": p, "multiplicity": family})


def _order(one: BenchmarkTexts, scores: Mapping[str, TokenScores], told: _Told) -> None:
    name = one.benchmark
    if one.structure is not None:
        least = min((guard.p for guard in one.structure.guards), default=1.0)
        told.metrics.append(p_metric("order.guard_p", least, len(one.items), name, "statistical"))
    told.metrics.append(count("order.short", one.short, name, "exact"))
    if one.structured:
        return
    ranked = [sums for stretch in one.stretches if (sums := _sums(stretch, scores)) is not None]
    told.metrics.append(count("order.stretches", len(ranked), name))
    told.metrics.append(count("order.lost", len(one.stretches) - len(ranked), name))
    whole = np.stack(ranked) if ranked else np.empty((0, 1))
    found = order_test(whole[:, 0], whole[:, 1:])
    if found is None:
        told.skipped.append(Skipped(item=f"{ORDER}:{name}", reason=TOO_FEW))
        return
    null = uniform("random-orders", len(ranked) * found.shuffles)
    told.metrics.append(p_metric("order.p", found.p, len(ranked), name, null=null))
    told.metrics.append(least_p("order.p_min", found.p_min, len(ranked), name))
    told.metrics.append(estimated("order.effect", found.effect, name, "sd"))
    if len(told.plots) < 2 * PLOTTED:
        told.plots.append(rank_plot(ORDER, name, found.ranks / found.shuffles))


def _options(one: BenchmarkTexts, scores: Mapping[str, TokenScores], told: _Told) -> None:
    name = one.benchmark
    ranked = [sums for item in one.choices if (sums := _sums(item, scores)) is not None]
    found = options_test(ranked, one.left_out)
    told.metrics.append(count("options.items", len(ranked), name))
    told.metrics.append(count("options.lost", len(one.choices) - len(ranked), name))
    told.metrics.append(count("options.left_out", len(one.left_out), name, "exact", reason=ALL))
    for reason in sorted(set(one.left_out)):
        told.metrics.append(count("options.left_out", one.left_out.count(reason), name, "exact", reason=reason))
    if found is None:
        told.skipped.append(Skipped(item=f"{OPTIONS}:{name}", reason=TOO_FEW))
        return
    orders = sum(len(item.ids) - 1 for item in one.choices)
    told.metrics.append(p_metric("options.p", found.p, len(ranked), name, null=uniform("option-orders", orders)))
    told.metrics.append(least_p("options.p_min", found.p_min, len(ranked), name))
    told.metrics.append(estimated("options.mean_rank", found.mean_rank, name, "fraction"))
    others = [sums for item in one.placebo_choices if (sums := _sums(item, scores)) is not None]
    placebo = options_test(others)
    told.metrics.append(count("options.placebo_items", len(others) if placebo else 0, name))
    if placebo is not None:
        told.metrics.append(p_metric("options.placebo_p", placebo.p, len(others), name))
        told.metrics.append(least_p("options.placebo_p_min", placebo.p_min, len(others), name))
    if len(told.plots) < 2 * PLOTTED:
        told.plots.append(rank_plot(OPTIONS, name, found.shares))


def _surprise(one: BenchmarkTexts, asked: ModelAsked, evidence: Evidence, told: _Told) -> None:
    name = one.benchmark
    items, placebos = _scored(one, asked, evidence)
    template = cluster_index([*(x.template for x in one.items), *(x.item.template for x in one.placebos)])
    seen, unseen = template[: len(one.items)], template[len(one.items) :]
    found = surprise_test(items[0], placebos[0], seen[items[1]], unseen[placebos[1]], evidence.rng(f"bootstrap/{name}"))
    left = len(one.surprise) - len(items[0]) - len(placebos[0])
    told.metrics.append(count("surprise.items", len(items[0]), name))
    told.metrics.append(count("surprise.placebos", len(placebos[0]), name))
    told.metrics.append(count("surprise.left_out", left, name))
    if found is None:
        told.skipped.append(Skipped(item=f"{SURPRISE}:{name}", reason=TOO_FEW))
        return
    n = found.items + found.placebos
    null = uniform("label-permutations", PERMUTATIONS)
    told.metrics.append(p_metric("surprise.p", found.p, n, name, "statistical", null))
    told.metrics.append(least_p("surprise.p_min", found.p_min, n, name))
    told.metrics.append(estimated("surprise.auc", found.auc, name, "fraction", "statistical"))
    told.metrics += _blind(one, template, evidence)


def _blind(one: BenchmarkTexts, template: Int[np.ndarray, " text"], evidence: Evidence) -> Iterator[Metric]:
    """Yield how well text alone tells items from placebos; nothing where templates are too few to hold any out."""
    seen = np.arange(len(one.surprise)) < len(one.items)
    try:
        blind = blind_control(
            [text.text for text in one.surprise], seen, template, evidence.rng(f"shuffles/{one.benchmark}")
        )
    except ValueError:  # fewer templates than parts: the guard is not measured, and nothing is claimed
        return
    labels = {"benchmark": one.benchmark}
    yield metric("surprise.blind_auc", blind.auc, n=blind.n, unit="fraction", determinism="statistical", labels=labels)
    yield p_metric("surprise.blind_p", blind.p, blind.n, one.benchmark, "statistical")


def _swapped(one: BenchmarkTexts, asked: ModelAsked, evidence: Evidence) -> Iterator[Metric]:
    """Yield the test's p where one half of the placebos, whole templates, plays the items."""
    _, placebos = _scored(one, asked, evidence)
    template = cluster_index([one.placebos[row].item.template for row in placebos[1]])
    names = evidence.rng(f"shuffles/swap/{one.benchmark}").permutation(int(template.max()) + 1 if len(template) else 0)
    seen = np.isin(template, names[: len(names) // 2])
    if min(int(seen.sum()), int((~seen).sum())) < SWAP_MIN:
        return
    rng = evidence.rng(f"bootstrap/swap/{one.benchmark}")
    _, p = permuted_area(placebos[0], seen, units(template, seen), rng)
    yield p_metric("label_swap.p", p, len(seen), one.benchmark, "statistical")


Kept = tuple["Float[np.ndarray, ' kept']", "Int[np.ndarray, ' kept']"]


def _scored(one: BenchmarkTexts, asked: ModelAsked, evidence: Evidence) -> tuple[Kept, Kept]:
    """Return (scores, rows) of items and of placebos; short and lost texts have neither."""
    found = evidence.token_scores()
    sides = one.surprise[: len(one.items)], one.surprise[len(one.items) :]
    told: list[Kept] = []
    for side in sides:
        rows = [row for row, text in enumerate(side) if text.id in found]
        given = [(found[side[row].id].logp, found[side[row].id].mean, found[side[row].id].sd) for row in rows]
        scores, kept = scores_of(given, asked.k_percent)
        told.append((scores, np.array(rows, dtype=np.int64)[kept]))
    return told[0], told[1]


def _sums(part: Stretch | Choices, scores: Mapping[str, TokenScores]) -> Float[np.ndarray, " order"] | None:
    """Return the log-probability of each order, nats; None where one could not be scored.

    One that is lost takes all with it: leaving it out would compare the published order with such as happen to fit.
    """
    if any(name not in scores for name in part.ids):
        return None
    return np.array([float(np.sum(scores[name].logp)) for name in part.ids])


def only(asked: ModelAsked, *tests: str) -> ModelAsked:
    """Return the same parameters with no other tests than these."""
    return replace(asked, tests=tuple(test for test in asked.tests if test in tests))
