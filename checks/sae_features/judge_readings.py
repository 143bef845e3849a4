"""What the judge reads: thresholds, and metrics by name and labels."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from assay.result import Measured, Metric

from checks.sae_features.findings import Truth

TRAINED = re.compile(r"trained-(0|[1-9][0-9]?)")
"""Names of the dictionaries that the audit trained and judges."""

FIRST = "trained-0"
"""The trained dictionary whose latents are edited, and whose power is measured."""

SUPPLIED = "supplied"

GATED_BY: Mapping[str, frozenset[str]] = {
    "random_weights": frozenset({"dictionary", "concept", "provenance", "diff"}),
    "frozen_decoder": frozenset({"dictionary", "concept"}),
    "label_permutation": frozenset({"concept", "provenance"}),
    "planted_in_dictionary": frozenset({"concept", "provenance"}),
    "planted_nothing": frozenset({"concept", "provenance"}),
    "matched_latents": frozenset({"causal", "attribution"}),
    "random_directions": frozenset({"causal", "attribution"}),
    "residual_replay": frozenset({"causal", "attribution", "provenance"}),
}
"""Which codes a missed control makes inconclusive (specification, sections 10 and 19f).

random_weights: a twin that still works is no baseline for the code gain or for the surface; of a model without an
output, whose twin shows nothing, no word is said of what dictionaries read or of how rates changed. frozen_decoder:
rows that moved are no baseline for EV, code gain or delta_frozen. label_permutation: probes that read noise read no
concept.
planted_*: power is quoted from plants, so probes that miss a plant, or find one that is not there, decide nothing.
matched_latents, random_directions, residual_replay: an effect or a share of the error is told against them alone.
A dictionary that is not usable makes `through_latents`, `validated`, `exact_only`, `supplied_agrees` and
`no_change_detected` inconclusive by their own rules, so whatever gates dictionaries reaches them; `through_error` rests
on margins alone. Fidelity is untouched by probes and by edits. A control that is not in this table gates every code.
"""


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Thresholds of specification section 2, as numbers."""

    ev_min: float = 0.60
    dce_share_max: float = 0.10
    gain_min: float = 0.0
    epsilon: float = 0.05
    """Distortion whose code gain is judged."""
    detect_floor: float = 0.60
    blind_margin: float = 0.05
    effect_min: float = 0.10
    attribution_rho: float = 0.80
    alpha: float = 0.05
    seeds: int = 2
    """Dictionaries that were to be trained; one that is not there leaves what is said of all of them open. 0: only a
    supplied one is judged, whatever was trained for its baselines."""
    watch: tuple[str, ...] = ()
    """Concepts whose presence is a concern."""


ROUNDING = 1e-9
"""Tests and the draws that they need count as equal where they differ by the order of a product."""


class Readings:
    """Metrics by name and labels; the label `site` is the same everywhere and is not asked for.

    Args:
        real: the numbers, as the report has them.
        missed: controls that missed a band or said nothing.
        seeds: dictionaries that were to be trained and judged.
    """

    def __init__(self, real: Measured, missed: Collection[str], seeds: int) -> None:
        self.real = real
        self.missed = tuple(sorted({name.replace("-", "_") for name in missed}))
        self.by_name: dict[str, dict[frozenset[tuple[str, str]], Metric]] = {}
        for one in real.metrics:
            self.by_name.setdefault(one.name, {})[_key(one.labels)] = one
        owed = {f"trained-{seed}" for seed in range(seeds)}
        there = {name for name in self.values("dictionary") if TRAINED.fullmatch(name)}
        self.trained = tuple(sorted(owed | there)) if seeds else ()
        """Every trained dictionary that is owed or there; none where they are baselines alone."""

    def find(self, name: str, **labels: str | None) -> Metric | None:
        """Return the metric of these labels; labels of None are left away."""
        return self.by_name.get(name, {}).get(_key({key: at for key, at in labels.items() if at is not None}))

    def shared(self, name: str, dictionary: str, **labels: str) -> Metric | None:
        """Return the metric of a dictionary, else the one that no dictionary has a part in."""
        return self.find(name, dictionary=dictionary, **labels) or self.find(name, **labels)

    def values(self, label: str, names: Iterable[str] | None = None) -> tuple[str, ...]:
        """Return every value of a label that is owed or there, in report order.

        Args:
            label: its key.
            names: metrics to look at, and not at what is owed; None looks at all and at what is owed.
        """
        looked = [*self.by_name] if names is None else list(names)
        there = [one.labels[label] for one in self.real.metrics if one.name in looked and label in one.labels]
        return (*dict.fromkeys((*(self.real.coverage.get(label, ()) if names is None else ()), *there)),)

    def judged(self) -> tuple[str, ...]:
        """Return the dictionaries that a word is owed of: trained ones and the supplied one, where any number is."""
        seen = self.values("dictionary")
        return tuple(name for name in (*self.trained, SUPPLIED) if name in seen)

    def gating(self, code: str) -> tuple[str, ...]:
        """Return the missed controls that make findings of a code inconclusive."""
        return tuple(name for name in self.missed if code in GATED_BY.get(name, (code,)))

    def unresolved(self, draws: float | None, of: str, alpha: float, over: str = "concept") -> Truth:
        """Return whether the smallest p that so many draws can show, Holm-corrected, stays above alpha.

        Holm's first step multiplies by the number of tests, so below tests / alpha draws no p of any concept reaches
        alpha. Tests are the concepts that are owed or told of: one whose numbers went missing is still counted.

        Args:
            draws: behind the p-value; None where they were not told.
            of: name of the p-value; concepts that have it are tests.
            alpha: level.
            over: key of `coverage` whose values are owed this p; "concept" where it is not there.
        """
        owed = self.real.coverage.get(over, self.real.coverage.get("concept", ()))
        tests = len({*owed, *self.values("concept", (of,))})
        return None if draws is None else tests > alpha * (draws + 1) + ROUNDING

    def why_skipped(self, *items: str) -> str | None:
        """Return the reason of the first of these items that was left out, or None."""
        told = {one.item: one.reason for one in self.real.skipped}
        return next((told[item] for item in items if item in told), None)


def _key(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset((key, value) for key, value in labels.items() if key != "site")


def low(metric: Metric | None) -> float | None:
    """Return the lower bound; None where there is none."""
    return None if metric is None or metric.interval is None else float(metric.interval.low)


def high(metric: Metric | None) -> float | None:
    """Return the upper bound; None where there is none."""
    return None if metric is None or metric.interval is None else float(metric.interval.high)


def value(metric: Metric | None) -> float | None:
    """Return the value; None where there is no metric."""
    return None if metric is None else float(metric.value)


def present(metrics: Iterable[Metric | None]) -> tuple[Metric, ...]:
    """Return those that are there."""
    return tuple(one for one in metrics if one is not None)
