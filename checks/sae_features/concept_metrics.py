"""What was read of concepts, and what would have been: tables and plants as metrics. Sections 7 and 10."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Metric, Skipped

from checks.holm import holm
from checks.quantise import decimal
from checks.sae_features.dictionary.grouped import Estimate
from checks.sae_features.fidelities import FIRST
from checks.sae_features.probes.concept_values import ConceptRefused, ConceptTable, Readings, Spread
from checks.sae_features.probes.power import PowerPoint, power_table
from checks.sae_features.probes.power_plants import LEAST_GROUPS
from checks.sae_features.session import Session
from checks.sae_features.telling import estimated, p_told, told

if TYPE_CHECKING:
    from assay.result import NullDistribution

OWN = ("sparse_", "residual_dense")
"""Probes that a dictionary has a part in; all others are told once, without a dictionary."""

LATENTS_TOLD = 5
"""Latents of a choice that are told, strongest first; these are the ones that edits take (section 8.1)."""


@dataclass(frozen=True, kw_only=True)
class ConceptsTold:
    """Metrics of all concepts, and those that were left out."""

    metrics: tuple[Metric, ...]
    skipped: tuple[Skipped, ...]


def concepts_told(session: Session) -> ConceptsTold:
    """Return what every dictionary reads of each concept, corrected over concepts."""
    metrics: list[Metric] = []
    skipped: list[Skipped] = []
    tables = {}
    for name, table in session.tables.items():
        if isinstance(table, ConceptRefused):
            skipped.append(Skipped(item=f"concept:{name}", reason=table.reason))
        else:
            tables[name] = table
    corrected = _corrected(tables)
    for name, table in tables.items():
        metrics += _of_concept(table, session.settings.permutations, corrected)
        for shift, read in table.shifted.items():
            if isinstance(read, ConceptRefused):
                skipped.append(Skipped(item=f"concept:{name}/{shift}", reason=read.reason))
            else:
                metrics += _of_shift(name, shift, read)
    if tables:
        skipped += _powerless(session)
    return ConceptsTold(metrics=tuple(metrics), skipped=tuple(skipped))


def _corrected(tables: Mapping[str, ConceptTable]) -> Mapping[tuple[str, str], float]:
    """Return Holm's p of each dictionary and concept; each dictionary is a family of its own."""
    found: dict[tuple[str, str], float] = {}
    for dictionary in dict.fromkeys(one for table in tables.values() for one in table.read):
        asked = [(name, table.read[dictionary].p) for name, table in tables.items() if dictionary in table.read]
        known = [(name, p) for name, p in asked if p is not None]
        for (name, _), p in zip(known, holm([p for _, p in known]), strict=True):
            found[dictionary, name] = float(p)
    return found


def _of_concept(table: ConceptTable, permutations: int, corrected: Mapping[tuple[str, str], float]) -> Iterator[Metric]:
    concept = table.concept
    yield told("concept_rows", table.n, table.n, concept=concept)
    yield told("concept_groups", table.groups, table.groups, concept=concept)
    for dictionary, read in table.read.items():
        yield from _areas(read, concept, dictionary, first=dictionary == next(iter(table.read)))
        label = {"concept": concept, "dictionary": dictionary}
        yield told("chosen_k", read.k, table.n, **label)
        for rank, latent in enumerate(read.latents[:LATENTS_TOLD]):
            yield told("chosen_latent", latent, table.n, rank=str(rank), **label)
        yield from estimated("delta_sae", read.delta_sae, **label)
        yield from estimated("delta_blind", read.delta_sparse_16, **label)
        yield from estimated("delta_surface", read.delta_surface, **label)
        if read.delta_frozen is not None:
            yield from estimated("delta_frozen", read.delta_frozen, **label)
        if read.p is not None:
            floor = 1 / (1 + permutations)
            null = _null(read.null.get("best"))
            yield p_told("concept_p", read.p, table.n, floor, null, **label)
            yield p_told("concept_p_holm", corrected[dictionary, concept], table.n, floor, **label)


def _areas(read: Readings, concept: str, dictionary: str, first: bool) -> Iterator[Metric]:
    # Of a further seed, what its words rest on: every number of an answer is charged.
    shown = {f"sparse_{read.k}", "residual_dense", max(read.auroc, key=_size)}
    for probe, area in read.auroc.items():
        if probe.startswith(OWN):
            if not first and dictionary != "supplied" and probe not in shown:
                continue
            yield from estimated("auroc", area, concept=concept, dictionary=dictionary, probe=probe)
        elif first and not probe.startswith("frozen_sparse_"):
            yield from estimated("auroc", area, concept=concept, probe=probe)


def _size(probe: str) -> int:
    """Return the latents of a dictionary's own sparse probe; 0 for any other."""
    return int(probe.removeprefix("sparse_")) if probe.startswith("sparse_") else 0


def _of_shift(concept: str, shift: str, read: Mapping[str, Readings]) -> Iterator[Metric]:
    first = next(iter(read.values()))
    yield told("concept_rows", first.auroc["dense"].n, first.auroc["dense"].n, concept=concept, shift=shift)
    yield from estimated("auroc", first.auroc["dense"], concept=concept, probe="dense", shift=shift)
    for dictionary, one in read.items():
        probe = f"sparse_{one.k}"
        yield from estimated("auroc", one.sparse, concept=concept, dictionary=dictionary, probe=probe, shift=shift)


def _null(spread: Spread | None) -> NullDistribution | None:
    from assay.result import NullDistribution

    if spread is None:
        return None
    return NullDistribution(
        kind="label-permutation",
        mean=decimal(spread.mean),
        sd=decimal(spread.sd),
        n=spread.n,
        p95=decimal(spread.p95),
    )


def nulls_told(session: Session) -> Iterator[Metric]:
    """Yield the mean AUROC under permuted labels of each concept, for dense and sparse probes."""
    for name, table in session.tables.items():
        if isinstance(table, ConceptRefused):
            continue
        for dictionary, read in table.read.items():
            for probe in ("dense", "sparse"):
                spread = read.null.get(probe)
                if spread is not None:
                    labels = {"concept": name, "dictionary": dictionary, "probe": probe}
                    yield told("null_auroc", spread.mean, spread.n, _null(spread), **labels)


def powers(session: Session) -> Sequence[tuple[str, PowerPoint]]:
    """Return the power of the probes at the audit's own number of rows, on held-out states, by dictionary; made once.

    Of the dictionaries that were trained the first stands for all: they differ by their seed alone.
    """
    kept = session.evidence.kept.get("power")
    if not isinstance(kept, tuple):
        kept = session.evidence.kept["power"] = _powers(session)
    return kept


def _powers(session: Session) -> tuple[tuple[str, PowerPoint], ...]:
    measured = [table for table in session.tables.values() if isinstance(table, ConceptTable)]
    if not measured:
        return ()
    rows = min(sum(table.counts[split] for split in ("train", "val", "test")) for table in measured)
    held = session.held
    chosen = np.sort(session.rng("power/rows").permutation(len(held.x))[:rows])
    if len({held.groups[int(one)] for one in chosen}) < LEAST_GROUPS:
        return ()
    found: list[tuple[str, PowerPoint]] = []
    for name, dictionary in session.judged.items():
        if name not in (FIRST, "supplied"):
            continue
        density = session.firing(dictionary)[0]
        if not density.any():  # nothing can be planted along a row that never fires
            continue
        points = power_table(
            held.x[chosen],
            [held.groups[int(one)] for one in chosen],
            dictionary,
            session.settings,
            lambda label: session.rng(f"power/{label}"),
            session.check.power_draws,
            tests=len(measured),
            density=density,
        )
        found += ((name, point) for point in points)
    return tuple(found)


def _powerless(session: Session) -> Iterator[Skipped]:
    """Yield the dictionaries whose power cannot be measured: too few held-out groups to plant in, or no live latent."""
    measured = {name for name, _ in powers(session)}
    for name, dictionary in session.judged.items():
        if name in (FIRST, "supplied") and name not in measured:
            live = session.firing(dictionary)[0].any()
            yield Skipped(item=f"power:{name}", reason="too_few_groups" if live else "no_live_latents")


def power_told(session: Session) -> Iterator[Metric]:
    """Yield the share of plants that the rule detects, and the areas that they reach."""
    for dictionary, point in powers(session):
        if not point.amplitude:
            continue
        label = {
            "dictionary": dictionary,
            "place": point.place,
            "amplitude": f"{point.amplitude:g}",
            "probe": point.probe,
        }
        share = Estimate(point.detected, point.draws, point.draws, point.low, point.high)
        yield from estimated("power", share, "wilson", **label)
        yield told("power_auroc", point.auroc, point.draws, **label)
