"""What changed between a model and its base, as metrics. Specification of `sae_features`, section 8.4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from assay.result import Metric, Skipped

from checks.holm import holm
from checks.sae_features.dictionary.grouped import Estimate
from checks.sae_features.dictionary.value import Dictionary
from checks.sae_features.probes.concept_values import least_permutations
from checks.sae_features.probes.diffing import Conditional, Diff, DiffRefused, conditional, diff
from checks.sae_features.probes.diffing_swaps import Intervals, Swapped, power
from checks.sae_features.session import Session
from checks.sae_features.telling import estimated, p_told, told

LATENTS_TOLD = 5
"""Latents told of each comparison: those of the largest statistic."""

PLAIN, CONDITIONAL = "plain", "conditional"
"""Forms: rates over all tokens, and label 1 against 0 of a concept."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """Both forms of one dictionary's comparison."""

    plain: Diff | DiffRefused
    concepts: Mapping[str, Conditional | DiffRefused]


@dataclass(frozen=True, kw_only=True)
class DiffTold:
    """Metrics of the comparison, and what was left out."""

    metrics: tuple[Metric, ...]
    skipped: tuple[Skipped, ...]


def swaps(session: Session) -> int:
    """Return how often the models are swapped: fewer could not reach alpha after Holm, whatever the truth is."""
    least = least_permutations(len(session.concept_names), float(session.check.alpha))
    return max(session.check.permutations, least)


def compared(session: Session) -> tuple[str, Dictionary]:
    """Return the dictionary that is held against both models: the first that is judged."""
    return next(iter(session.judged.items()))


def comparison(session: Session) -> Compared:
    """Return the comparison of the submitted model with its base; made once."""
    kept = session.evidence.kept.get("diff")
    if not isinstance(kept, Compared):
        kept = session.evidence.kept["diff"] = _comparison(session)
    return kept


def _comparison(session: Session) -> Compared:
    _, dictionary = compared(session)
    more = {"swaps": swaps(session), "resamples": session.check.bootstrap}
    plain = diff(dictionary, session.held, session.base_held, session.rng("diff"), **more)
    concepts = {}
    for name in session.concept_names:
        rows = session.concept_rows(name)
        concepts[name] = conditional(
            dictionary,
            name,
            np.array([row.label for row in rows]),
            [row.group for row in rows],
            session.read[name].x,
            session.base_read[name].x,
            session.rng(f"diff/{name}"),
            **more,
        )
    return Compared(plain=plain, concepts=concepts)


def diff_told(session: Session) -> DiffTold:
    """Return what the comparison tells; nothing where no base model is there."""
    if "base" not in session.evidence.models():
        return DiffTold(metrics=(), skipped=())
    name, _ = compared(session)
    found = comparison(session)
    metrics: list[Metric] = []
    skipped: list[Skipped] = []
    floor = 1 / (1 + swaps(session))
    if isinstance(found.plain, DiffRefused):
        skipped.append(Skipped(item="diff", reason=found.plain.reason))
    else:
        metrics += _plain(found.plain, name, floor)
    measured = {concept: one for concept, one in found.concepts.items() if isinstance(one, Conditional)}
    corrected = holm([one.swapped.p for one in measured.values()])
    for one, p in zip(measured.values(), corrected, strict=True):
        metrics += _conditional(session, one, name, p, floor, len(measured))
    for concept, other in found.concepts.items():
        if isinstance(other, DiffRefused):
            skipped.append(Skipped(item=f"diff:{concept}", reason=other.reason))
    return DiffTold(metrics=tuple(metrics), skipped=tuple(skipped))


def _plain(found: Diff, name: str, floor: float) -> Iterator[Metric]:
    yield from estimated("ev", found.ev_base, dictionary=name, model="base")
    yield from estimated("diff_ev", found.delta_ev, dictionary=name)
    yield p_told("diff_p", found.swapped.p, found.groups, floor, dictionary=name, form=PLAIN)
    for latent in largest(found.swapped):
        label = {"dictionary": name, "latent": str(latent)}
        yield from estimated("diff_rate", _one(found.delta_rate, latent, found.tokens), form=PLAIN, **label)
        if np.isfinite(found.delta_mean_on.value[latent]):
            yield from estimated("diff_mean_on", _one(found.delta_mean_on, latent, found.tokens), **label)
        for target, ratio in (("error", found.scaling.nu_error), ("reconstruction", found.scaling.nu_reconstruction)):
            if np.isfinite(ratio[latent]):
                yield told("latent_scale_ratio", float(ratio[latent]), found.tokens, target=target, **label)


def _conditional(
    session: Session, found: Conditional, name: str, p: float, floor: float, together: int
) -> Iterator[Metric]:
    label = {"dictionary": name, "concept": found.concept}
    yield told("diff_swaps", len(found.swapped.largest), found.groups, form=CONDITIONAL, **label)
    yield p_told("diff_p", found.swapped.p, found.groups, floor, form=CONDITIONAL, **label)
    yield p_told("diff_p_holm", p, found.groups, floor, form=CONDITIONAL, **label)
    for latent in largest(found.swapped):
        one = _one(found.delta, latent, found.rows)
        yield from estimated("diff_rate", one, form=CONDITIONAL, latent=str(latent), **label)
    draw = session.rng(f"diff/power/{found.concept}")
    # A change that is told of many concepts must pass the hardest step of Holm's correction, and so must a plant.
    for point in power(found.swapped, draw, alpha=float(session.check.alpha) / together):
        share = Estimate(point.detected, point.draws, point.draws, point.low, point.high)
        yield from estimated("diff_power", share, "wilson", amplitude=f"{point.raised:g}", **label)


def largest(swapped: Swapped) -> Sequence[int]:
    """Return the latents of the largest statistics; ties to the lower number."""
    order = np.argsort(-np.abs(swapped.t), kind="stable")[:LATENTS_TOLD]
    return [int(one) for one in order if swapped.t[one]]


def _one(numbers: Intervals, latent: int, n: int) -> Estimate:
    return Estimate(float(numbers.value[latent]), n, n, float(numbers.low[latent]), float(numbers.high[latent]))
