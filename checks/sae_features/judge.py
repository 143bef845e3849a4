"""From numbers to words: the table of section 12, on nothing but the metrics of a report."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from assay.result import ControlResult, Finding, Measured

from checks.sae_features.findings import Verdict, finding
from checks.sae_features.judge_across import (
    diff_claim,
    diff_verdict,
    diffed,
    provenance_claim,
    provenance_verdict,
)
from checks.sae_features.judge_causes import (
    attributed,
    attribution_claim,
    attribution_verdict,
    causal_claim,
    causal_verdict,
    edited,
)
from checks.sae_features.judge_concepts import OF_CONCEPTS, concept_claim, concept_verdict, concepts_of
from checks.sae_features.judge_dictionary import dictionary_claim, dictionary_verdict, usable
from checks.sae_features.judge_readings import GATED_BY, SUPPLIED, Gates, Readings
from checks.sae_features.words import SUPPLIED_DISAGREES, WATCHED

__all__ = ["GATED_BY", "Gates", "words"]

Verdicts = dict[str, Verdict]
"""Of the dictionaries that are judged, by name."""


def words(
    gates: Gates, real: Measured, controls: Sequence[ControlResult], missed: Collection[str]
) -> tuple[Finding, ...]:
    """Return every claim that the numbers support, in the order of the table.

    Taking away a metric, a control, a role or a dictionary moves a word towards `inconclusive`, or leaves its question
    unasked, and does nothing else. Which missed control gates which code: `GATED_BY`; a missed control of edits leaves
    fidelity as it is.

    Args:
        gates: thresholds.
        real: the numbers, as the report has them. `coverage` names the concepts and dictionaries that are owed.
            Of `skipped` are read "concept:<name>" (why a concept was refused), "contrast:<name>" (why its latents were
            not edited) and "dce_share" with the reason `no_replay`, each at will with ":<dictionary>" behind it;
            "dictionary:supplied" (why it was not read), and "diff:<concept>".
        controls: every result of every control.
        missed: controls that missed a band or said nothing, by name.
    """
    gone = {*missed, *(one.name for one in controls if not one.held)}
    readings = Readings(real, gone, gates.seeds)
    verdicts = {name: dictionary_verdict(readings, name, gates) for name in readings.judged()}
    return (
        *_dictionaries_and_edits(readings, verdicts, gates),
        *_provenance(readings, verdicts, gates),
        *_diffs(readings, verdicts, gates),
    )


def _dictionaries_and_edits(readings: Readings, verdicts: Verdicts, gates: Gates) -> Iterator[Finding]:
    for verdict in verdicts.values():
        yield finding(verdict, dictionary_claim(readings, verdict, gates))
    yield from _concepts(readings, gates)
    for dictionary, concept in edited(readings):
        verdict = causal_verdict(readings, dictionary, concept, usable(verdicts, dictionary), gates)
        yield finding(verdict, causal_claim(readings, verdict), _severity(verdict, gates))
    for dictionary, concept in attributed(readings):
        verdict = attribution_verdict(readings, dictionary, concept, usable(verdicts, dictionary), gates)
        yield finding(verdict, attribution_claim(readings, verdict))


def _concepts(readings: Readings, gates: Gates) -> Iterator[Finding]:
    for concept in concepts_of(readings):
        for dictionaries in _judged_together(readings):
            verdict = concept_verdict(readings, concept, dictionaries, gates)
            yield finding(verdict, concept_claim(readings, verdict, dictionaries), _severity(verdict, gates))


def _judged_together(readings: Readings) -> tuple[tuple[str, ...], ...]:
    """Return the trained dictionaries, whose seeds must agree, and the supplied one where it is read."""
    there = readings.values("dictionary", OF_CONCEPTS)
    together = (readings.trained,) if readings.trained else ()
    return (*together, (SUPPLIED,)) if SUPPLIED in there or not together else together


def _provenance(readings: Readings, verdicts: Verdicts, gates: Gates) -> Iterator[Finding]:
    """Speak of a supplied dictionary where a trained one stands beside it; without concepts nothing compares them."""
    judged = readings.judged()
    concepts = concepts_of(readings)
    if SUPPLIED in judged and len(judged) > 1 and concepts:
        good = {name: usable(verdicts, name) for name in readings.trained}
        verdict = provenance_verdict(readings, concepts, good, gates)
        severity: Literal["note", "concern"] = "concern" if verdict.word == SUPPLIED_DISAGREES else "note"
        yield finding(verdict, provenance_claim(readings, verdict, concepts), severity)


def _diffs(readings: Readings, verdicts: Verdicts, gates: Gates) -> Iterator[Finding]:
    for dictionary, concept in diffed(readings):
        verdict = diff_verdict(readings, dictionary, concept, usable(verdicts, dictionary), gates)
        yield finding(verdict, diff_claim(readings, verdict))


def _severity(verdict: Verdict, gates: Gates) -> Literal["note", "concern"]:
    return "concern" if verdict.concept in gates.watch and verdict.word in WATCHED else "note"
