"""Whether an answer is what its check's catalogue entry promises, as worker, signer and reader ask it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from assay.promise import check_promise, skipped_items, stray_item
from assay.result import Answer, Band, ControlResult

from checks.catalogue import CATALOGUE, catalogue_json
from checks.check import Control, Expected
from checks.promises import hold_control
from checks.quantise import decimal


def hold_bands(control: Control, expected: Sequence[Expected]) -> None:
    """Fail unless what a control states in one run is what it promises."""
    hold_control(control, [_result(control, one) for one in expected])


def _result(control: Control, expected: Expected) -> ControlResult:
    value, low, high = (decimal(number) for number in (expected.value, expected.low, expected.high))
    return ControlResult(
        name=control.name, kind=control.kind, metric=expected.metric, labels=dict(expected.labels), value=value,
        band=Band(low=low, high=high), held=Decimal(low) <= Decimal(value) <= Decimal(high),
    )  # fmt: skip


def unreached(*answers: Answer) -> set[tuple[str, str]]:
    """Return the promised bands that no control of these answers states: control and metric, with its labels if any."""
    check = CATALOGUE[answers[0].check]
    promised = {(one.name, index): band for one in check.controls for index, band in enumerate(one.promises)}
    stated = {
        next(
            (result.name, index)
            for (name, index), band in promised.items()
            if name == result.name and band.metric == result.metric and band.labels.items() <= result.labels.items()
        )
        for answer in answers
        for result in answer.controls
    }
    left = [(name, band) for (name, index), band in promised.items() if (name, index) not in stated]
    return {
        (name, "/".join((band.metric, *(f"{key}:{one}" for key, one in band.labels.items())))) for name, band in left
    }


def hold_to_promise(answer: Answer) -> None:
    """Fail unless the answer keeps its promise, and names nothing as skipped that it does not owe."""
    (entry,) = catalogue_json({answer.check: CATALOGUE[answer.check]})["checks"]
    told = answer.to_json()
    check_promise(told, entry)
    assert answer.measured is not None
    for label, owed in answer.measured.coverage.items():
        assert stray_item(skipped_items(told), label, owed) is None
