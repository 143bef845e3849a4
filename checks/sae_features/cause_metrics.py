"""What a concept's latents do to a behaviour, as metrics. Specification of `sae_features`, section 8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Metric, Skipped

from checks.ask import listed
from checks.holm import holm
from checks.quantise import null_distribution
from checks.sae_features.learning import editable
from checks.sae_features.probes.attribution import Attribution, attribute
from checks.sae_features.probes.battery import Battery, battery
from checks.sae_features.probes.behaviour import Draw, EditSettings, EditsRefused, rows_to_edit
from checks.sae_features.probes.concept_values import ConceptTable, least_permutations
from checks.sae_features.probes.dose import Dose, dose
from checks.sae_features.probes.interventions import Effect, ablate
from checks.sae_features.session import Session
from checks.sae_features.telling import estimated, p_told, told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from checks.sae_features.dictionary.value import Dictionary
    from checks.sae_features.rows import ContrastRow

LATENTS_MAX = 5
"""Latents that are edited where the probe chose more: k = 5 if the choice was 16 (section 8.1)."""

LOST_MOST = 0.2
"""Share of contrasts that may be unscorable (target and foil the same tokens, too long); above it a concept's
interventions are refused, as where the behaviour is not there (specification, section 3)."""

LATENTS_TOLD = 5
"""Latents whose exact effect is told beside the correlation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Caused:
    """What edits of one dictionary's latents for one concept do."""

    effect: Effect
    battery: Battery
    dose: Dose
    attribution: Attribution | None
    """Of the first dictionary alone."""
    latents: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CausesTold:
    """Metrics of all interventions, and what was left out."""

    metrics: tuple[Metric, ...]
    skipped: tuple[Skipped, ...]


def edited(session: Session) -> tuple[str, ...]:
    """Return the dictionaries whose latents are edited: the first trained one, and the supplied one."""
    names = tuple(session.judged)
    return tuple(name for name in names if name in ("trained-0", "supplied"))


def causes(session: Session) -> Mapping[tuple[str, str], Caused | EditsRefused]:
    """Return what was found by dictionary and concept; made once."""
    kept = session.evidence.kept.get("causes")
    if not isinstance(kept, dict):
        kept = session.evidence.kept["causes"] = dict(_causes(session))
    return kept


def _causes(session: Session) -> Iterator[tuple[tuple[str, str], Caused | EditsRefused]]:
    lost = session.evidence.lost()
    for concept, table in session.tables.items():
        every = [row for row in session.asked.contrast if row.concept == concept]
        rows = [row for row in every if f"contrast/{row.id}" not in lost]
        if every and len(rows) < (1 - LOST_MOST) * len(every):
            for dictionary in edited(session):
                yield (dictionary, concept), EditsRefused("contrasts_lost", rows=len(every))
            continue
        if not rows or not isinstance(table, ConceptTable):
            continue
        for dictionary in edited(session):
            yield (dictionary, concept), _caused(session, table, dictionary, rows)


def _caused(session: Session, table: ConceptTable, name: str, rows: Sequence[ContrastRow]) -> Caused | EditsRefused:
    draw: Draw = lambda label: session.rng(f"edits/{name}/{table.concept}/{label}")  # noqa: E731 -- a generator a label
    every = [f"contrast/{row.id}" for row in rows]
    ids, groups = rows_to_edit(every, [row.group for row in rows], session.check.edit_rows, draw)
    dictionary = session.judged[name]
    latents = table.read[name].latents[:LATENTS_MAX]
    if not latents:
        return EditsRefused("too_few_latents", rows=len(ids))
    site, settings = session.site(), edit_settings(session)
    rate, mass = session.firing(dictionary)
    live, may = rate > 0, editable(session.sieve)
    effect = ablate(
        site, ids, groups, dictionary, latents, mass, live, settings, draw, session.asked.neutral,
        editable=may, diffmean=table.diffmean,
    )  # fmt: skip
    if isinstance(effect, EditsRefused):
        return effect
    average = session.held.x.mean(axis=0, dtype=np.float64)
    parts = battery(site, ids, groups, dictionary, latents, average, settings, draw, editable=may)
    if isinstance(parts, EditsRefused):
        return parts
    doses = dose(
        site, ids, groups, dictionary, latents, mass, session.learned.trained.scale, settings, draw,
        editable=may, diffmean=table.diffmean,
    )  # fmt: skip
    if isinstance(doses, EditsRefused):
        return doses
    attributed = _attributed(session, ids, groups, dictionary, live, draw) if name == edited(session)[0] else None
    if isinstance(attributed, EditsRefused):
        return attributed
    return Caused(effect=effect, battery=parts, dose=doses, attribution=attributed, latents=latents)


def _attributed(
    session: Session, ids: Sequence[str], groups: Sequence[str], dictionary: Dictionary, live: np.ndarray, draw: Draw
) -> Attribution | EditsRefused:
    may = editable(session.sieve)
    return attribute(session.site(), ids, groups, dictionary, live, edit_settings(session), draw, editable=may)


def edit_settings(session: Session) -> EditSettings:
    """Return how many rows, controls and draws the interventions have."""
    check = session.check
    # Fewer control sets could not reach alpha over so many concepts, whatever the effect is.
    least = least_permutations(len(session.concept_names), float(check.alpha))
    controls = max(check.matched_controls, least)
    return EditSettings(edit_rows=check.edit_rows, matched_controls=controls, bootstrap=check.bootstrap)


def causes_told(session: Session) -> CausesTold:
    """Return the metrics of every intervention, corrected over concepts."""
    metrics: list[Metric] = []
    lost = session.evidence.lost()
    unscored = [row.id for row in session.asked.contrast if f"contrast/{row.id}" in lost]
    skipped = list(listed((f"contrast_row:{one}" for one in unscored), "contrasts_lost"))
    found = causes(session)
    corrected = _corrected(found)
    for (dictionary, concept), one in found.items():
        if isinstance(one, EditsRefused):
            skipped.append(Skipped(item=f"contrast:{concept}:{dictionary}", reason=one.reason))
            continue
        metrics += _of_one(session, dictionary, concept, one, corrected[dictionary, concept])
    return CausesTold(metrics=tuple(metrics), skipped=tuple(skipped))


def _corrected(found: Mapping[tuple[str, str], Caused | EditsRefused]) -> Mapping[tuple[str, str], float]:
    corrected: dict[tuple[str, str], float] = {}
    for dictionary in dict.fromkeys(name for name, _ in found):
        known = [(key, one.effect.p) for key, one in found.items() if key[0] == dictionary and isinstance(one, Caused)]
        for (key, _), p in zip(known, holm([p for _, p in known]), strict=True):
            corrected[key] = float(p)
    return corrected


def _of_one(session: Session, dictionary: str, concept: str, one: Caused, corrected: float) -> Iterator[Metric]:
    effect, label = one.effect, {"dictionary": dictionary, "concept": concept}
    if dictionary == edited(session)[0]:
        yield told("contrast_rows", effect.n, effect.n, concept=concept)
        yield told("contrast_groups", effect.groups, effect.groups, concept=concept)
        yield told("contrast_left_out", len(effect.left_out), effect.n, concept=concept)
    for edit, margin in one.battery.margins.items():
        yield from estimated("margin", margin, edit=edit, **label)
    yield from estimated("error_share", one.battery.error_share, **label)
    yield from estimated("effect", effect.value, **label)
    yield from estimated("relative_effect", effect.relative, **label)
    floor = 1 / (1 + len(effect.controls))
    null = null_distribution("matched-latents", effect.controls.tolist())
    yield p_told("effect_p", effect.p, effect.n, floor, null, **label)
    yield p_told("effect_p_holm", corrected, effect.n, floor, **label)
    yield told("control_effect", float(effect.random.mean()), len(effect.random), edit="random", **label)
    if effect.diffmean is not None:
        yield from estimated("control_effect", effect.diffmean, edit="diffmean", **label)
    yield told("matched_share", effect.matched_share, len(effect.controls), **label)
    if effect.off_target_kl is not None:
        yield from estimated("off_target_kl", effect.off_target_kl, **label)
    if effect.per_nat is not None:
        yield told("effect_per_nat", effect.per_nat, effect.n, **label)
    if one.attribution is not None:
        yield from _of_attribution(one.attribution, label)


def _of_attribution(found: Attribution, label: Mapping[str, str]) -> Iterator[Metric]:
    checked = len(found.exact)
    for form, one in found.forms.items():
        for name, value in (
            ("attribution_rho", one.spearman),
            ("attribution_pearson", one.pearson),
            ("attribution_slope", one.slope),
        ):
            if value is not None:
                yield told(name, value, checked, form=form, **label)
        yield from estimated("attribution_error", one.error, form=form, **label)
    strongest = sorted(found.exact, key=lambda latent: (-abs(found.exact[latent].value or 0.0), latent))
    for latent in strongest[:LATENTS_TOLD]:
        yield from estimated("latent_effect", found.exact[latent], latent=str(latent), **label)
