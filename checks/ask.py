"""Put one check to its evidence: measure, measure again under each control, judge."""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from assay.result import Answer, Band, ControlResult, Finding, Measured, Skipped

from checks.check import Check, Control, Evidence, Expected, Refusal
from checks.errors import ChecksError
from checks.promises import hold_control, hold_metric
from checks.quantise import decimal

CHECK_ERROR = "check_error"
"""Reason of a failed answer; the step says where, the text of the exception stays with the operator."""

ARTEFACT_FAILED = "artefact_failed"
ARTEFACT_TOO_LARGE = "artefact_too_large"
"""Reasons of an artefact that was not handed out, told as `artefact:<name>`; the answer stands without it."""

NO_BAND = "no_band"
"""Reason of a control that named no number: a control that says nothing has not held."""

SHARD_FAILED, SHARD_DEAD = "shard_failed", "shard_dead"
"""Reasons of an answer whose shards were not all read: one of them cannot be, or every attempt at it died."""

RUNTIME_REASONS = (
    ARTEFACT_FAILED,
    ARTEFACT_TOO_LARGE,
    CHECK_ERROR,
    NO_BAND,
    "base_mismatch",
    "base_refused",
    "check_unknown",
    "data_invalid",
    "data_missing",
    "model_kind",
    "params_invalid",
    "passage_invalid",
    "result_cap",
    SHARD_DEAD,
    SHARD_FAILED,
    "shards_too_many",
)
"""Reasons that the runtime itself gives, for every check."""

ITEMS_MAX = 200
"""Items told of one refusal; the rest are counted as `more:<n>`."""

Told = Callable[[str, int, int], None]
"""Takes (step, done, owed)."""

Given = Callable[[str, bytes], None]
"""Takes the name of an artefact and its bytes."""


class ContractBroken(ChecksError):
    """A check gave a metric, word or reason that its class does not declare."""


def unheard(_step: str, _done: int, _owed: int) -> None:
    """Take no notice of progress."""


def ask(check: Check, seen: Evidence, *, on_step: Told = unheard, on_artefact: Given | None = None) -> Answer:
    """Return the check's answer; whatever the check does, there is one.

    Args:
        check: the question.
        seen: exactly what its needs named.
        on_step: told of each step of the check: measuring, controls, judging.
        on_artefact: takes each file that the check hands out; where there is none, the check is not asked for any.
    """
    try:
        on_step("measuring", 0, 1)
        real = _declared(check, check.measure(seen))
        on_step("measuring", 1, 1)
    except Refusal as refusal:
        return refused(check, refusal)
    except MemoryError:  # the cell's limit, not the check's fault: the host names it
        raise
    except Exception:
        return failed(check, "measure")
    try:
        results, silent = _controls(check, seen, on_step)
    except MemoryError:
        raise
    except Exception:
        return failed(check, "control")
    try:
        on_step("judging", 0, 1)
        findings = _sound(check, real, check.judge(real, results))
        on_step("judging", 1, 1)
    except Exception:
        return failed(check, "judge")
    kept_back = () if on_artefact is None else _handed_out(check, seen, real, findings, on_artefact)
    return Answer(
        **_told(check),
        outcome="measured",
        valid=not silent and all(result.held for result in results),
        measured=real,
        controls=results,
        findings=findings,
        skipped=(*real.skipped, *silent, *kept_back),
    )


def refused(check: Check, refusal: Refusal) -> Answer:
    """Return the answer of a check that cannot be answered on this evidence."""
    try:
        _known_reason(check, refusal.reason)
    except ContractBroken:
        return failed(check, "measure")
    return Answer(
        **_told(check),
        outcome="refused",
        reason=refusal.reason,
        skipped=listed(refusal.items, refusal.reason),
    )


def failed(check: Check, step: str) -> Answer:
    """Return the answer of a check that raised; its traceback goes to the operator's log and nowhere else.

    Args:
        check: the check.
        step: needs, sweep, measure, control or judge.
    """
    traceback.print_exc(file=sys.stderr)
    return Answer(**_told(check), outcome="failed", reason=CHECK_ERROR, step=step)


def listed(items: Iterable[str], reason: str) -> tuple[Skipped, ...]:
    """Return items as `skipped`, in the name alphabet, the first of them and a count of the rest."""
    every = list(items)
    told = [as_name(item) for item in every[:ITEMS_MAX]]
    if len(every) > ITEMS_MAX:
        told.append(f"more:{len(every) - ITEMS_MAX}")
    return tuple(Skipped(item=item, reason=reason) for item in told)


def as_name(text: str) -> str:
    """Return text in the name alphabet: other characters become `_`, and at most 128 are kept."""
    kept = re.sub(r"[^A-Za-z0-9._:/@+-]", "_", text)[:128]
    return kept if kept and kept[0].isalnum() else f"x{kept}"[:128]


def _told(check: Check) -> dict[str, Any]:
    params = json.loads(check.model_dump_json())
    return {"check": check.name, "version": check.version, "params": params}


def _controls(check: Check, seen: Evidence, on_step: Told) -> tuple[tuple[ControlResult, ...], tuple[Skipped, ...]]:
    """Run every control; return its results, and the controls that said nothing."""
    results: list[ControlResult] = []
    silent: list[Skipped] = []
    for number, control in enumerate(check.controls):
        on_step("controls", number, len(check.controls))
        try:
            measured = _declared(check, check.measure(control.spoil(check, seen)))
        except Refusal as refusal:
            silent.append(Skipped(item=f"control:{control.name}", reason=refusal.reason))
            continue
        bands = control.bands(check, measured)
        stated = [_result(control, expected) for expected in bands]
        hold_control(control, stated)
        results += stated
        if not bands:
            silent.append(Skipped(item=f"control:{control.name}", reason=NO_BAND))
    on_step("controls", len(check.controls), len(check.controls))
    return tuple(results), tuple(silent)


def _handed_out(
    check: Check, seen: Evidence, real: Measured, findings: tuple[Finding, ...], give: Given
) -> tuple[Skipped, ...]:
    """Hand out the check's artefacts; return those that were kept back: the answer stands without them."""
    promised = {spec.name: spec for spec in check.artefacts}
    if not promised:
        return ()
    try:
        made = dict(check.hand_out(seen, real, findings))
    except MemoryError:
        raise
    except Exception:
        traceback.print_exc(file=sys.stderr)
        return tuple(_kept_back(name, ARTEFACT_FAILED) for name in promised)
    told = []
    for name, content in made.items():
        if name not in promised or not isinstance(content, bytes):
            print(f"{check.name} hands out {name!r}, which is not declared or no bytes", file=sys.stderr)
            told.append(_kept_back(str(name), ARTEFACT_FAILED))
        elif len(content) > promised[name].max_bytes:
            told.append(_kept_back(name, ARTEFACT_TOO_LARGE))
        else:
            give(name, content)
    return tuple(told)


def _kept_back(name: str, reason: str) -> Skipped:
    return Skipped(item=as_name(f"artefact:{name}"), reason=reason)


def _result(control: Control, expected: Expected) -> ControlResult:
    value, low, high = (decimal(number) for number in (expected.value, expected.low, expected.high))
    return ControlResult(
        name=control.name,
        kind=control.kind,
        metric=expected.metric,
        labels=dict(expected.labels),
        value=value,
        band=Band(low=low, high=high),
        held=Decimal(low) <= Decimal(value) <= Decimal(high),
    )


def _declared(check: Check, measured: Measured) -> Measured:
    """Hold the numbers against what the check's class, and so the catalogue, promises."""
    promised = {spec.name: spec for spec in check.metrics}
    for metric in measured.metrics:
        spec = promised.get(metric.name)
        if spec is None or not set(metric.labels) <= set(spec.labels):
            raise ContractBroken(f"{check.name} reports an undeclared metric {metric.name} {sorted(metric.labels)}")
        hold_metric(metric, spec)
    for skipped in measured.skipped:
        _known_reason(check, skipped.reason)
    return measured


def _sound(check: Check, real: Measured, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Each finding uses a declared word and rests on numbers that are there."""
    for finding in findings:
        if finding.word not in check.words:
            raise ContractBroken(f"{check.name} uses an undeclared word {finding.word}")
        for reference in finding.rests_on:
            if real.find(reference.name, **reference.labels) is None:
                raise ContractBroken(f"{check.name} rests {finding.code} on an absent metric {reference.name}")
    return findings


def _known_reason(check: Check, reason: str) -> None:
    if reason not in check.reasons and reason not in RUNTIME_REASONS:
        raise ContractBroken(f"{check.name} gives an undeclared reason {reason}")
