"""The controls of the corpus side, each a number in a band (contamination, 10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, cast

import numpy as np
from assay.result import Band, ControlResult

from checks.contamination.conclude_flags import Flagged
from checks.contamination.encoder import KNOWN_COSINES, KNOWN_TOLERANCE, Encoder, known_answer
from checks.contamination.placebo import SETS, SETS_MAX, placebo_sets
from checks.contamination.recall import CODE, PlantOutcome
from checks.contamination.verifier_known import KNOWN_PAIRS, missed_pairs
from checks.quantise import decimal

PLACEBO_AS_ITEM, PLANTED_REWRITES, PLANTED_FAMILIES = "PlaceboAsItem", "PlantedRewrites", "PlantedFamilies"
HARD_NEGATIVES, KNOWN_ANSWER, KNOWN_ENCODER = "HardNegatives", "KnownAnswer", "KnownAnswer.encoder"

VERBATIM_DEPTHS = (0, 1)
"""Depths of plants that any scan must find (section 10)."""

VERBATIM_MIN = 0.95
"""Their least recall (section 10): of 40 plants two may be missed."""

FAMILY_DEPTH = 5
"""Depth of the rewordings of authored families (6.11)."""

FAMILIES = frozenset({"authored", f"authored{CODE}"})
"""Sources of the plants of authored families."""

FAMILIES_MIN = 0.60
"""Least recall of the authored families (section 10)."""

NEGATIVES_MAX = 0.05
"""Largest share of hard negatives that pass as the same (section 10; measured 0 of 240)."""


class Known(Protocol):
    """What is needed of an encoder."""

    def embed_alone(self, text: str) -> np.ndarray:
        """Return the unit vector of one text."""
        ...


def control_results(
    told: Flagged, outcomes: Sequence[PlantOutcome], gating: Sequence[str], q: float, rng: np.random.Generator
) -> Iterator[ControlResult]:
    """Yield the controls of one benchmark; one that has nothing to measure yields nothing.

    Args:
        told: what is flagged.
        outcomes: plants, as `conclude_metrics.reached` returns them.
        gating: tiers that may give `detected`.
        q: false discovery rate.
        rng: draws which siblings play the items.
    """
    labels = {"benchmark": told.benchmark}
    fired = [
        placebo_sets(one.scores, told.of_group(at), q, rng).flagged
        for at, one in enumerate(told.groups)
        if len(one.scores.siblings) and one.kind not in told.closed
    ]
    if fired:
        yield _result(PLACEBO_AS_ITEM, "null", "sets_flagged", labels, max(fired), 0, SETS_MAX)
    for name, chosen, least in (
        (PLANTED_REWRITES, [one for one in outcomes if one.depth in VERBATIM_DEPTHS], VERBATIM_MIN),
        (PLANTED_FAMILIES, [one for one in outcomes if one.source in FAMILIES], FAMILIES_MIN),
    ):
        if chosen:
            share = sum(one.tier in gating for one in chosen) / len(chosen)
            yield _result(name, "positive", "recall", labels, share, least, 1)


def known_answers(encoder: Known | None) -> Iterator[ControlResult]:
    """Yield whether verifier and encoder answer what they are known to answer.

    Args:
        encoder: None where nothing was embedded.
    """
    yield _result(KNOWN_ANSWER, "positive", "pairs_missed", {}, len(missed_pairs()), 0, 0)
    if encoder is not None:
        told = known_answer(cast("Encoder", encoder))
        off = max(abs(one - known) for one, known in zip(told, KNOWN_COSINES, strict=True))
        # Told to a seventh: what lies below is noise of float32, and differs between machines.
        yield _result(KNOWN_ENCODER, "positive", "largest_difference", {}, round(off, 7), 0, KNOWN_TOLERANCE)


def hard_negatives(passed: int, n: int) -> ControlResult:
    """Return whether families with other numbers are told apart.

    Args:
        passed: hard negatives that the verifier calls the same.
        n: all of them, at least one.
    """
    return _result(HARD_NEGATIVES, "negative", "passed_as_same", {}, passed / n, 0, NEGATIVES_MAX)


def _result(
    name: str,
    kind: Literal["positive", "negative", "null"],
    metric: str,
    labels: dict[str, str],
    value: float,
    low: float,
    high: float,
) -> ControlResult:
    # As told, not as computed: the report's own rule holds the decimal against the band.
    text = decimal(value)
    held = low <= float(text) <= high
    return ControlResult(
        name=name, kind=kind, metric=metric, labels=labels, value=text,
        band=Band(low=decimal(low), high=decimal(high)), held=held,
    )  # fmt: skip


__all__ = ["KNOWN_PAIRS", "SETS", "control_results", "hard_negatives", "known_answers"]
