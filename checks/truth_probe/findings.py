"""Claims: what the words of all cells say, as findings. A pure function of the report. Specification: section 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from assay.result import ControlResult, Finding, Measured

from checks.truth_probe.claims import CLAIM_MAX, NAME_MAX, claim, joined, references, sentence
from checks.truth_probe.gates import Cell, Limits, Readings
from checks.truth_probe.relation import RELATIONS, indicator, relation
from checks.truth_probe.words import CONCERNS, INCONCLUSIVE, PROVISIONAL, RULES, STRENGTH, Controls, Verdict, word

__all__ = ["WORDS", "Limits", "findings"]

WORDS = (*RULES, *RELATIONS)
"""Every word of a finding of this check."""

THINNED = "over_cell_limit"
"""Reason of layers that no answer has room for: the sentence of all layers tells them, findings would crowd it."""

PRIMARY = "md"
"""The method whose layers are told one by one; the others are told as a whole (section 2)."""


def findings(
    real: Measured, limits: Limits, controls: Sequence[ControlResult], declared: Sequence[str]
) -> tuple[Finding, ...]:
    """Return every claim that the numbers support.

    Args:
        real: the numbers, as the report has them.
        limits: thresholds of the gates.
        controls: every result of every control.
        declared: names of the check's controls; one without any result makes every word INCONCLUSIVE.
    """
    readings, ran = Readings.of(real), Controls(controls, declared)
    told: list[Finding] = []
    for name in _sets(real):
        told += _of_set(real, readings, name, limits, ran)
    return tuple(told)


def _of_set(real: Measured, readings: Readings, name: str, limits: Limits, ran: Controls) -> list[Finding]:
    measured = {(one.labels["method"], one.labels["layer"]) for one in real.named("auroc") if one.labels["set"] == name}
    # Where no score exists at all, the primary method stands for what was not measured.
    methods = [*dict.fromkeys(method for method, _ in sorted(measured, key=_method_order))] or [PRIMARY]
    layers = _layers(real)
    told: list[Finding] = []
    whole: list[Finding] = []
    primary: list[Verdict] = []
    for method in methods:
        here = [layer for layer in layers if (method, layer) in measured]
        left_out = {layer: _why(real, name, layer) for layer in layers if layer not in here}
        verdicts = [word(Cell(readings, name, layer, method), limits, ran) for layer in here]
        whole.append(_by_layer(name, method, verdicts, left_out, layers))
        if method == PRIMARY and measured:
            primary = verdicts
            told += map(_of_layer, verdicts)
            told += [_unmeasured(name, layer, why) for layer, why in left_out.items() if why != THINNED]
    told += whole
    if measured:
        told.append(relation(readings, name, primary, limits, ran))
    return [*told, *indicator(primary)]


def _method_order(one: tuple[str, str]) -> tuple[bool, str]:
    return one[0] != PRIMARY, one[0]


def _sets(real: Measured) -> list[str]:
    """Return every set that is owed or measured, in report order."""
    seen = (one.labels["set"] for one in real.metrics if "set" in one.labels)
    return [*dict.fromkeys((*real.coverage.get("set", ()), *seen))]


def _layers(real: Measured) -> list[str]:
    """Return every layer that is owed or measured, in order."""
    seen = (one.labels["layer"] for one in real.named("auroc"))
    return sorted({*real.coverage.get("layer", ()), *seen}, key=int)


def _why(real: Measured, set_name: str, layer: str) -> str:
    """Return why a layer of a set was not measured, as the answer's list of what was left out has it.

    An item names a layer as "layer:3", "set:world:layer:3" or "layer:3:world", each with more behind it at will.
    """
    whole = next((skipped.reason for skipped in real.skipped if skipped.item == f"set:{set_name}"[:NAME_MAX]), None)
    if whole is not None:
        return whole
    others = [name for name in _sets(real) if name != set_name]
    for skipped in real.skipped:
        rest = skipped.item.removeprefix(f"set:{set_name}:")
        if f"{rest}:".startswith(f"layer:{layer}:"):
            tail = rest.removeprefix(f"layer:{layer}").removeprefix(":").removeprefix("set:")
            if not any(f"{tail}:".startswith(f"{other}:") for other in others):
                return skipped.reason
    return "not_measured"


def _of_layer(verdict: Verdict) -> Finding:
    cell = verdict.cell
    labels = {"set": cell.set, "layer": cell.layer, "method": cell.method, "reason": verdict.reason}
    if verdict.also:
        labels["also"] = joined(verdict.also)
    if verdict.features:
        labels["h"] = joined(verdict.features)
    if verdict.word == PROVISIONAL:
        labels["open"] = joined(verdict.open)
    return Finding(
        code="truth_feature",
        word=verdict.word,
        severity="concern" if verdict.word in CONCERNS else "note",
        claim=claim(verdict),
        labels=labels,
        rests_on=references(verdict.rests),
    )


def _unmeasured(set_name: str, layer: str, why: str) -> Finding:
    return Finding(
        code="truth_feature",
        word=INCONCLUSIVE,
        severity="note",
        claim=f"this layer was not measured ({why}): nothing is claimed of it."[:CLAIM_MAX],
        labels={"set": set_name, "layer": layer, "method": PRIMARY, "reason": why},
        rests_on=(),
    )


def _by_layer(
    name: str, method: str, verdicts: Sequence[Verdict], left_out: Mapping[str, str], layers: Sequence[str]
) -> Finding:
    words = {verdict.cell.layer: verdict.word for verdict in verdicts} | dict.fromkeys(left_out, INCONCLUSIVE)
    said = next((one for one in STRENGTH if one in words.values()), INCONCLUSIVE)
    return Finding(
        code="truth_feature_by_layer",
        word=said,
        severity="concern" if said in CONCERNS else "note",
        claim=sentence(verdicts, left_out, layers),
        labels={"set": name, "method": method, **{f"layer:{layer}": words[layer] for layer in layers}},
        rests_on=references(one for verdict in verdicts if (one := verdict.cell.find("auroc")) is not None),
    )
