"""How often a direction of known strength would have been detected: the power that "not detected" must quote.

Specification of `sae_features`, section 10. A draw takes the concept-free states of the audit, labels half of their
groups, adds a direction to the states of these, and asks the question of section 12. To be affordable it fits once, on
all of train, where an audit averages five subsamples; its interval has fewer draws; and its p permutes the labels of
test, by group, against the scores of the fitted probe, which is exact because those scores never saw test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.sae_features.dictionary.value import Dictionary
from checks.sae_features.probes.concept_values import BLANK_DRAWS, ProbeSettings
from checks.sae_features.probes.power_plants import Bench, Seen
from checks.statistics import proportion_interval

if TYPE_CHECKING:
    from jaxtyping import Float

AMPLITUDES = (0.1, 0.25, 0.5, 1.0)
"""Strengths in units of R (specification, section 10)."""

Place = Literal["in", "out"]
Probe = Literal["dense", "sparse_5", "either"]


@dataclass(frozen=True)
class PowerPoint:
    """What came of plants of one strength in one place."""

    place: Place
    """Along the row of a live latent of middle density, or along a random direction."""
    amplitude: float
    """a, in units of R = sqrt E‖x - mean‖²; 0 plants nothing and counts false detections ("out")."""
    probe: Probe
    auroc: float
    """Mean over the draws; of "either" that of the probe that val prefers."""
    detected: float
    """Share of the draws that the rule of section 12 calls detected."""
    draws: int
    low: float
    """Wilson's 95 % interval of the share."""
    high: float
    n: int
    """Rows of each draw, all splits."""
    groups: int


def power_table(
    x: Float[np.ndarray, "row d"],
    groups: Sequence[str],
    dictionary: Dictionary,
    settings: ProbeSettings,
    rng: Callable[[str], np.random.Generator],
    draws: int = 40,
    *,
    tests: int = 1,
    density: Float[np.ndarray, " m"] | None = None,
) -> tuple[PowerPoint, ...]:
    """Return the power at each place and amplitude, and the false detections of plants of strength 0.

    Args:
        x: concept-free states, as many as the audit has rows.
        groups: group of each; half of the groups are planted in, and none is in two splits.
        dictionary: reads the planted states.
        settings: floor, alpha, level and penalties of the audit.
        rng: returns the generator of a label.
        draws: plants of each place and amplitude.
        tests: concepts that the audit corrects over; p must be at most alpha / tests, the strictest step of Holm.
        density: firing rate of each latent; counted on `x` where it is not given.

    Raises:
        ValueError: there are fewer than 20 groups, lengths differ, states do not vary, or no latent is live.
    """
    bench = Bench(x, groups, dictionary, settings, settings.alpha / tests, density)
    found: list[PowerPoint] = []
    blank = [bench.draw("out", 0.0, rng(f"power/out/0/{one}")) for one in range(BLANK_DRAWS)]
    found += _points("out", 0.0, blank, bench)
    for place in ("in", "out"):
        for amplitude in AMPLITUDES:
            seen = [bench.draw(place, amplitude, rng(f"power/{place}/{amplitude}/{one}")) for one in range(draws)]
            found += _points(place, amplitude, seen, bench)
    return tuple(found)


def _points(place: Place, amplitude: float, seen: Sequence[Seen], bench: Bench) -> list[PowerPoint]:
    told: dict[Probe, list[tuple[float, bool]]] = {
        "dense": [(one.dense.auroc, one.dense.detected) for one in seen],
        "sparse_5": [(one.sparse.auroc, one.sparse.detected) for one in seen],
        "either": [(one.better.auroc, one.dense.detected or one.sparse.detected) for one in seen],
    }
    points = []
    for probe, results in told.items():
        hits = sum(hit for _, hit in results)
        low, high = proportion_interval(hits, len(results))
        mean = float(np.mean([area for area, _ in results]))
        share = hits / len(results)
        points.append(
            PowerPoint(place, amplitude, probe, mean, share, len(results), low, high, bench.rows, bench.groups)
        )
    return points
