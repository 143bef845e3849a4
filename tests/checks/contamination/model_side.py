"""A check that asks the model side, and evidence of a stored organism: what the tests of the model side share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

from assay.result import Band, ControlResult, Finding, Measured

from checks.check import TokenScores
from checks.contamination.model_controls import CONTROLS, asked_of, organism_scores
from checks.contamination.model_findings import findings
from checks.contamination.model_measure import measure
from checks.contamination.model_texts import ModelAsked, needs
from checks.memory import InMemoryEvidence, model_facts
from checks.organisms.contamination_stored import Stored, stored
from checks.quantise import decimal

YES = {"order_exchangeable": "yes", "options_randomised": "yes"}
DEFAULTS = ModelAsked()


def check(**fields: Any) -> SimpleNamespace:
    """Return what a control reads of a check: its parameters by name."""
    return SimpleNamespace(**{"side": "model", **vars(DEFAULTS), **fields})


@cache
def organism(name: str) -> Stored:
    return stored(name)


def facts_of(made: Stored) -> Any:
    config = made.model.config
    return model_facts(vocabulary=config.vocab_size, context=config.n_positions, width=config.n_embd)


def evidence_of(
    made: Stored, asked: ModelAsked, rows: Mapping[str, Sequence[Mapping[str, Any]]], twin: Any = None, seed: int = 0
) -> InMemoryEvidence:
    """Return what a sweep of an organism would hand to the check."""
    facts = facts_of(made)
    wanted = needs(asked, rows, facts)
    scores = organism_scores(made.model, wanted)
    other: dict[str, TokenScores] = {}
    if twin is not None:
        every = organism_scores(twin, wanted)
        other = {name: every[name] for name in wanted.scored_twin if name in every}
    return InMemoryEvidence(
        facts=facts, check="contamination", seed=seed, rows=rows, token_scores=scores, twin_token_scores=other
    )


def answered(asking: Any, seen: InMemoryEvidence) -> tuple[Measured, tuple[ControlResult, ...], dict[str, Finding]]:
    """Return numbers, results of all controls and findings by code, as the runtime would ask for them."""
    asked = asked_of(asking)
    real = measure(asked, seen)
    results: list[ControlResult] = []
    missed = []
    for control in CONTROLS:
        bands = control.bands(asking, measure(asked, control.spoil(asking, seen)))
        missed += [] if bands else [control.name]
        results += [
            ControlResult(
                name=control.name, kind=control.kind, metric=one.metric, labels=dict(one.labels),
                value=decimal(one.value), band=Band(low=decimal(one.low), high=decimal(one.high)),
                held=one.low <= one.value <= one.high,
            )
            for one in bands
        ]  # fmt: skip
    return real, tuple(results), {one.code: one for one in findings(real, results, missed, asked)}
