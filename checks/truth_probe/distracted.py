"""The battery of distractors at one layer: directions as fitted, and fitted again, on texts with one more feature.

Specification: section 5.10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.truth_probe.areas import areas
from checks.truth_probe.distractors import BATTERY, Variant, testable
from checks.truth_probe.fitting import GATED, Method, Rows, refit
from checks.truth_probe.masks import LOST_MAX
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.scores import Estimate

if TYPE_CHECKING:
    from jaxtyping import Int

    from checks.truth_probe.beyond import Place
    from checks.truth_probe.probing import LayerNumbers, Seen


REFIT_MIN = 50
"""Distracted train rows below which nothing is fitted again: what would follow is noise."""


@dataclass(frozen=True, kw_only=True)
class Distracted:
    """Readings by (method, kind of distractor); a kind that the model cannot see is in none of them."""

    frozen: Mapping[tuple[Method, str], Estimate]
    """AUROC of the direction as fitted for the distractor: gate 3."""
    truth: Mapping[str, Estimate]
    """AUROC of midpoint-displacement's direction as fitted for truth, by kind."""
    refit: Mapping[tuple[Method, str], Estimate]
    """AUROC of directions fitted on distracted rows for the distractor: a note about the method."""
    items: int
    """Test rows behind a frozen reading."""


def distracted(place: Place, seen: Seen, numbers: LayerNumbers) -> Distracted:
    """Return the readings of every distractor that the model can see."""
    variants = place.held.asked.battery.get(place.name, ())
    seen_by_model = testable(variants, place.evidence.runs())
    frozen: dict[tuple[Method, str], Estimate] = {}
    truth: dict[str, Estimate] = {}
    again: dict[tuple[Method, str], Estimate] = {}
    items = 0
    for kind in BATTERY:
        if kind not in seen_by_model:
            continue
        test, h = _rows(place, seen, [one for one in variants if one.kind == kind and one.use == "frozen"])
        train, _ = _rows(place, seen, [one for one in variants if one.kind == kind and one.use == "refit"])
        asked = sum(one.kind == kind and one.use == "frozen" for one in variants)
        if len(test) < (1 - LOST_MAX) * asked:
            continue
        items = max(items, len(test))
        directions = {m: d for m, d in numbers.fitted.directions.items() if m in GATED}
        rng = f"battery/{kind}"
        cluster = test.pairs.cluster
        scores = {method: direction.score(test.u) for method, direction in directions.items()}
        frozen |= {(m, kind): e for m, e in areas(scores, h, cluster, place.sure, place.rng(rng)).items()}
        of_truth = areas({"md": scores["md"]}, test.labels, cluster, place.sure, place.rng(rng))
        if of_truth:
            truth[kind] = of_truth["md"]
        if len(train) >= REFIT_MIN:
            fitted = refit(train, seen.anchor, numbers.fitted.lam, place.check.how(), place.evidence.rng, place.at)
            scores = {method: direction.score(test.u) for method, direction in fitted.items()}
            again |= {(m, kind): e for m, e in areas(scores, h, cluster, place.sure, place.rng(rng)).items()}
    return Distracted(frozen=frozen, truth=truth, refit=again, items=items)


def _rows(place: Place, seen: Seen, variants: Sequence[Variant]) -> tuple[Rows, Int[np.ndarray, " row"]]:
    """Return distracted rows, normalised by train's own statistics, and their h; lost ones are left out."""
    whole, one = place.held.asked.plans[place.name], place.held.sets[place.name]
    kept = {pair.key: row for row, pair in enumerate(one.plan.pairs)}
    lost = place.evidence.lost()
    there = [
        (kept[key], variant)
        for variant in variants
        for key in (whole.pairs[variant.row].key,)
        if key in kept and not any(text.id in lost for text in variant.texts)
    ]
    rows = np.array([row for row, _ in there], dtype=np.int64)
    at = np.array([[place.held.row[text.id] for text in one.texts] for _, one in there], dtype=np.int64).reshape(-1, 2)
    swept, masks = place.swept, one.masks
    finite = np.isfinite(swept[at]).all(axis=(1, 2))
    if not finite.all():
        # A broken state at this layer alone: the row goes, and with more than a few of them the whole kind.
        rows, at = rows[finite], at[finite]
        there = [one for one, good in zip(there, finite, strict=True) if good]
    states = PairActivations(swept[at[:, 0]], swept[at[:, 1]], masks.template[rows], masks.cluster[rows])
    pairs = seen.normaliser.apply(states)
    made = Rows(pairs=pairs, raw=states, labels=masks.labels[rows], item=masks.item[rows])
    return made, np.array([variant.h for _, variant in there], dtype=np.int64)
