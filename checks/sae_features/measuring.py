"""One run of the check: everything for the real evidence, one part of it under a control."""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from typing import TYPE_CHECKING

import torch
from assay.result import Measured, Metric, Skipped

from checks.ask import as_name, listed
from checks.check import Evidence
from checks.memory import Joined
from checks.sae_features.cause_metrics import causes_told
from checks.sae_features.concept_metrics import concepts_told, nulls_told, power_told, powers
from checks.sae_features.controls import (
    FrozenDecoder,
    LabelPermutation,
    PlantedInDictionary,
    PlantedNothing,
    RandomWeights,
)
from checks.sae_features.dictionary.convention import Confirmed
from checks.sae_features.dictionary.training import initial
from checks.sae_features.diff_metrics import diff_told
from checks.sae_features.drawing import drawn
from checks.sae_features.fidelities import TAIL_MSE, Fidelities
from checks.sae_features.learning import FROZEN
from checks.sae_features.probes.concept_values import ConceptTable
from checks.sae_features.session import Session
from checks.sae_features.telling import told

if TYPE_CHECKING:
    from checks.passages import Which
    from checks.sae_features.check import SaeFeatures

PLANTED_AT = 0.5
"""Amplitude of the plant that the control asks for, in scales R (section 10)."""

PLANTED_PROBES = ("dense", "sparse_5")


THREADS_FROM = 2**22
"""Weights of a dictionary (d m) from which more than one thread pays. Below it a step is some milliseconds, and threads
wait for each other: on two busy cores an audit of d 64, m 512 took more than four times the CPU time of one thread."""


def measured(check: SaeFeatures, evidence: Evidence) -> Measured:
    """Return the numbers of the real evidence, or of the part that a control looks at.

    Raises:
        Refusal: the evidence cannot carry the check.
    """
    session = Session.of(check, evidence)
    threads = torch.get_num_threads()
    if evidence.facts.width * check.latents(evidence.facts.width) < THREADS_FROM:
        torch.set_num_threads(1)
    try:
        return _measured(session, evidence)
    finally:
        torch.set_num_threads(threads)


def _measured(session: Session, evidence: Evidence) -> Measured:
    if isinstance(evidence, Joined):
        return Measured(metrics=tuple(_of_control(session, evidence.control)))
    fidelities = Fidelities.of(session)
    metrics = [*_counts(session), *fidelities.metrics(), *_convention(session)]
    skipped = list(_left_out(session, fidelities))
    concepts = concepts_told(session)
    metrics += concepts.metrics
    skipped += concepts.skipped
    if any(isinstance(table, ConceptTable) for table in session.tables.values()):
        metrics += power_told(session)
    caused = causes_told(session)
    changed = diff_told(session)
    return Measured(
        coverage={
            "dictionary": tuple(one for one in _owed(session) if one != "twin" or not fidelities.thin),
            **({"concept": session.concept_names} if session.concept_names else {}),
        },
        metrics=(*metrics, *caused.metrics, *changed.metrics),
        plots=tuple(drawn(session, fidelities)),
        skipped=(*skipped, *caused.skipped, *changed.skipped),
    )


def _owed(session: Session) -> tuple[str, ...]:
    supplied = ("supplied",) if session.asked.supplied else ()
    own = tuple(name for name in session.judged if name != "supplied")
    tail = (TAIL_MSE,) if session.tails else ()
    return (*own, *supplied, *tail, FROZEN, "twin")


def _counts(session: Session) -> Iterator[Metric]:
    learned, held = session.learned, session.held
    special, outliers = session.left_out
    for name, dictionary in session.own.items():
        yield told("train_tokens", learned.trained.steps * learned.plan.batch, learned.trained.states, dictionary=name)
        yield told("latents", dictionary.latents, dictionary.latents, dictionary=name)
    yield told("train_passes", learned.passes, learned.passes)
    yield told("heldout_tokens", len(held.x), len(held.x))
    yield told("heldout_groups", len(set(held.groups)), len(held.x))
    yield told("special_tokens", special, special)
    yield told("outlier_tokens", outliers, outliers)
    yield told("cut_passages", session.site().cut(), len(session.train_ids) + len(session.held_ids))
    yield told("concepts_asked", len(session.concept_names), len(session.concept_names))


def _convention(session: Session) -> Iterator[Metric]:
    supplied = session.supplied
    if supplied is None or supplied.dictionary is None or supplied.convention is None:
        return
    found: Confirmed = supplied.convention
    n = len(session.held.x)
    yield told("convention_confirmed", 1, n, dictionary="supplied")
    for one in {str(cell.cell): cell for cell in (found.declared, found.best)}.values():
        label = {"dictionary": "supplied", "cell": str(one.cell).partition(".")[2], "layer": f"{one.cell.layer}"}
        yield told("convention_ev", one.ev, n, **label)
        yield told("convention_l0", one.l0, n, **label)
    if found.ev_with_special is not None:
        yield told("convention_ev_special", found.ev_with_special, n, dictionary="supplied")
    for statement in supplied.statements:
        yield told("stated", 1, 1, dictionary="supplied", statement=as_name(statement))


def _left_out(session: Session, fidelities: Fidelities) -> Iterator[Skipped]:
    supplied = session.supplied
    if supplied is not None and supplied.refusal is not None:
        yield Skipped(item="dictionary:supplied", reason=supplied.refusal.reason)
        yield from listed((f"supplied:{item}" for item in supplied.refusal.items), supplied.refusal.reason)
    if supplied is not None:
        yield from listed((f"dropped_key:{name}" for name in supplied.dropped), "config_key_dropped")
    for reason in ("row_lost", "outlier_row"):
        yield from listed((item for item, why in session.left_out_rows if why == reason), reason)
    if session.learned.short:
        yield Skipped(item="dictionary:trained", reason="short_stream")
    if not session.learned.reached:
        yield Skipped(item="train_tokens", reason="stream_ended")
    for name, faith in fidelities.faith.items():
        if faith.ev.value is None:
            yield Skipped(item=f"ev:{name}", reason="undefined")
    if fidelities.thin:
        yield Skipped(item="code_gain", reason="too_few_tokens")
    if not fidelities.speaks:
        yield Skipped(item="dce_share", reason="no_replay")
        if session.asked.rows.contrast:
            yield Skipped(item="contrast", reason="no_replay")
    else:
        for name, outputs in fidelities.outputs.items():
            if outputs["dce_share"].value is None:
                yield Skipped(item=f"dce_share:{name}", reason=outputs["dce_share"].reason)


def _of_control(session: Session, control: str) -> Iterator[Metric]:
    yield told("concepts_asked", len(session.concept_names), len(session.concept_names))
    if control == RandomWeights.name:
        yield from _broken(session)
    elif control == FrozenDecoder.name:
        yield told("frozen_rows_equal", int(_rows_equal(session)), session.own[FROZEN].latents, dictionary=FROZEN)
    elif control == LabelPermutation.name:
        yield from nulls_told(session)
    elif control == PlantedInDictionary.name:
        for name, point in powers(session):
            if point.place == "in" and point.amplitude == PLANTED_AT and point.probe in PLANTED_PROBES:
                yield told("planted_auroc", point.auroc, point.draws, dictionary=name, probe=point.probe)
    elif control == PlantedNothing.name:
        for name, point in powers(session):
            if not point.amplitude:
                found = round(point.detected * point.draws)
                yield told("detected_at_zero", found, point.draws, dictionary=name, probe=point.probe)


def _broken(session: Session) -> Iterator[Metric]:
    """The twin's cross-entropy lies nearer to that of guessing: (CE + log V) / 2 and above (section 10)."""
    fidelities = Fidelities.of(session)
    if not fidelities.speaks:
        return
    real, n = mean_ce(session, fidelities, "submitted")
    twin, _ = mean_ce(session, fidelities, "shuffled")
    yield told("ce_twin_excess", twin - (real + log(session.evidence.facts.vocabulary)) / 2, n)


def mean_ce(session: Session, fidelities: Fidelities, which: Which) -> tuple[float, int]:
    """Return a model's mean cross-entropy over the passages whose output is compared, nats a token, and the tokens."""
    total, n = 0.0, 0
    for part in session.site(which).splice(fidelities.splice_ids, []):
        total += float(part.cross_entropy[0, part.scored].sum())
        n += int(part.scored.sum())
    return total / n, n


def _rows_equal(session: Session) -> bool:
    number = next(at for at, one in enumerate(session.learned.named) if one.frozen == "decoder")
    seed = session.learned.named[number].seed
    frozen = session.own[FROZEN]
    return torch.equal(frozen.w_dec, initial(session.learned.plan, seed, frozen.width).dec)
