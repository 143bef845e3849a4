"""Words of the model side never get stronger, and never pass, where something was not measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
from assay.result import Band, ControlResult, Finding, Measured, Metric, Skipped
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination import metric_specs
from checks.contamination.model_findings import BLIND_SPOT, findings
from checks.contamination.model_metric_specs import NAMES, SPECS
from checks.contamination.model_readings import adjusted
from checks.contamination.model_texts import ModelAsked
from checks.contamination.words import (
    BANNED,
    DETECTED,
    INCONCLUSIVE,
    INDICATED,
    INVALID,
    NOT_ASKED,
    NOT_DETECTED,
    WORDS,
)
from checks.quantise import decimal, metric

OF = {"benchmark": "demo"}
ASKED = ModelAsked(
    tests=("order", "options", "surprise", "transfer"),
    declares={"demo": {"order_exchangeable": "yes", "options_randomised": "yes"}},
)
CONTROLS = (
    ("order-organism", "order.p", "organism-order"),
    ("order-organism-shuffled", "order.p", "organism-order-twin"),
    ("options-organism", "options.p", "organism-options"),
    ("options-organism-shuffled", "options.p", "organism-options-twin"),
    ("random-weights", "order.p", "demo"),
    ("random-weights", "options.p", "demo"),
    ("random-weights", "surprise.p", "demo"),
    ("label-swap", "label_swap.p", "demo"),
)


def number(name: str, value: float, **more: str) -> Metric:
    return metric(name, value, n=100, unit="1", determinism="statistical", labels=OF | more)


def world(
    order: float = 0.4, options: float = 0.5, surprise: float = 0.6, transfer: float = 0.7, guard: float = 0.3,
    placebo: float | None = 0.4, blind: float = 0.5, blind_p: float = 0.5, lost: float = 0,
    **more: float,
) -> Measured:  # fmt: skip
    told = {
        "order.guard_p": guard, "order.stretches": 16, "order.lost": lost, "options.p": options,
        "options.items": 100, "options.lost": 0, "options.placebo_items": 0 if placebo is None else 50,
        "surprise.p": surprise, "surprise.blind_auc": blind, "surprise.blind_p": blind_p, "surprise.items": 200,
        "surprise.placebos": 200, "surprise.left_out": 3, "transfer.references": 2, "items": 200,
        "order.p_min": 1e-12, "options.p_min": 1e-12, "surprise.p_min": 1e-4, "transfer.p_min": 1 / 2001,
        "order.short": 0,
    }  # fmt: skip
    if guard > 0.001:
        told["order.p"] = order
    if placebo is not None:
        told |= {"options.placebo_p": placebo, "options.placebo_p_min": 1e-12}
    left_out = more.pop("left_out", 0)
    told |= {name.replace("__", "."): value for name, value in more.items()}
    metrics = [number(name, value) for name, value in told.items()]
    metrics.append(number("options.left_out", left_out, reason="all"))
    metrics += [number("transfer.p", transfer, reference="a"), number("transfer.p", transfer / 2, reference="b")]
    return Measured(coverage={"benchmark": ("demo",)}, metrics=tuple(metrics))


def controls(*missed: tuple[str, str]) -> tuple[ControlResult, ...]:
    return tuple(
        ControlResult(
            name=name, kind="null", metric=metric_, labels={"benchmark": benchmark},
            value=decimal(0.0001 if (name, metric_) in missed else 0.5), band=Band(low="0.01", high="1"),
            held=(name, metric_) not in missed,
        )
        for name, metric_, benchmark in CONTROLS
    )  # fmt: skip


def said(
    real: Measured, held: tuple[ControlResult, ...] | None = None, asked: ModelAsked = ASKED
) -> dict[str, tuple[str, str | None]]:
    told = findings(real, controls() if held is None else held, (), asked)
    return {one.code: (one.word, one.labels.get("reason")) for one in told}


def test_every_row_of_the_table() -> None:
    assert set(said(world()).values()) == {(NOT_DETECTED, None)}
    assert said(world(order=1e-12))["order"] == (DETECTED, None)
    assert said(world(options=1e-6))["options"] == (DETECTED, None)
    assert said(world(surprise=1e-4))["surprise"] == (DETECTED, None)
    assert said(world(transfer=1e-4))["transfer"] == (INDICATED, None)
    assert said(world(order=1e-12, guard=0.001))["order"] == (INVALID, "order_structured")
    assert said(world(options=1e-12, placebo=0.001))["options"] == (INVALID, "placebo_mismatch")
    assert said(world(options=1e-12, placebo=None))["options"] == (DETECTED, None)
    assert said(world(surprise=1e-4, blind=0.6))["surprise"] == (INVALID, "blind_control")
    assert said(world(surprise=1e-4, blind_p=0.01))["surprise"] == (INVALID, "blind_control")
    assert said(world(lost=5))["order"] == (INCONCLUSIVE, "coverage")
    assert said(world(lost=5, order=1e-9))["order"] == (DETECTED, None)


@pytest.mark.parametrize(
    ("test", "least"), [("options", 1 / 6), ("order", 8**-4 * 20), ("surprise", 0.0026), ("transfer", 0.0026)]
)
def test_silence_of_a_test_that_could_not_have_spoken_is_underpowered(test: str, least: float) -> None:
    """Two choice items with 3 and 2 orders have no p below 1/6; of four tests .0026 is never below .01."""
    weak: dict[str, float] = {f"{test}__p_min": least}
    assert said(world(**weak))[test] == (INCONCLUSIVE, "underpowered")
    assert {word for code, (word, _) in said(world(**weak)).items() if code != test} == {NOT_DETECTED}
    # Where other tests found something, Holm asks less of this one: what it found stands.
    strong: dict[str, float] = {"order": 1e-9, "options": 1e-9, "surprise": 1e-9, "transfer": 1e-9, test: least}
    told = said(world(**strong, **weak))[test]
    assert told == ((DETECTED if test != "transfer" else INDICATED, None) if least < 0.01 else told)
    fair: dict[str, float] = {f"{test}__p_min": 0.0024}
    assert said(world(**fair))[test] == (NOT_DETECTED, None)
    # A role less is a test less, and brings nothing into reach.
    assert said(without_surprise(world(**weak)))[test][0] != NOT_DETECTED


def test_the_level_may_be_below_what_permutations_can_show() -> None:
    low = replace(ASKED, tests=("order", "options", "surprise"), alpha=0.0001)
    assert said(world(), asked=low)["surprise"] == (INCONCLUSIVE, "underpowered")
    assert said(world(), asked=replace(low, tests=("surprise",)))["surprise"] == (NOT_DETECTED, None)


def test_items_that_were_left_out_before_scoring_are_lost() -> None:
    assert said(world(order__short=41))["order"] == (INCONCLUSIVE, "coverage")
    assert said(world(order__short=40))["order"] == (NOT_DETECTED, None)
    assert said(world(order__short=20, lost=2))["order"] == (NOT_DETECTED, None), "20 + 180 x 2 / 18 of 200"
    assert said(world(order__short=21, lost=2))["order"] == (INCONCLUSIVE, "coverage")
    assert said(world(left_out=26))["options"] == (INCONCLUSIVE, "coverage")
    assert said(world(left_out=25))["options"] == (NOT_DETECTED, None)
    assert said(world(left_out=80, options=1e-9))["options"] == (DETECTED, None)


def test_options_without_placebos_are_never_silent() -> None:
    """Leaving out the placebos on which the test fires made a pass of a test that is not valid."""
    assert said(world(placebo=0.0005))["options"] == (INVALID, "placebo_mismatch")
    assert said(world(placebo=None))["options"] == (INCONCLUSIVE, "no_placebo")
    few: dict[str, float] = {"options__placebo_p_min": 1 / 576}
    assert said(world(**few))["options"] == (INCONCLUSIVE, "no_placebo"), "two items cannot show .001"
    for real, unguarded in ((world(options=1e-9), False), (world(options=1e-9, placebo=None), True)):
        (one,) = (one for one in findings(real, controls(), (), ASKED) if one.code == "options")
        assert one.word == DETECTED
        assert ("guard on placebo items was not run" in one.claim) == unguarded


def test_what_nobody_vouches_for_or_asks_is_not_asked() -> None:
    silent = replace(ASKED, declares={"demo": {"order_exchangeable": "unknown", "options_randomised": "no"}})
    told = said(world(order=1e-12, options=1e-12), asked=silent)
    assert told["order"] == told["options"] == (NOT_ASKED, "declaration")
    assert said(world(transfer=1e-4), asked=replace(ASKED, tests=("order",)))["transfer"] == (NOT_ASKED, "parameter")
    real = world()
    few = real.model_copy(update={"skipped": (Skipped(item="order:demo", reason="too_few"),)})
    assert said(few)["order"] == (NOT_ASKED, "too_few")


@pytest.mark.parametrize(
    ("missed", "codes"),
    [
        (("order-organism", "order.p"), {"order"}),
        (("order-organism-shuffled", "order.p"), {"order"}),
        (("options-organism", "options.p"), {"options"}),
        (("options-organism-shuffled", "options.p"), {"options"}),
        (("random-weights", "order.p"), {"order"}),
        (("random-weights", "surprise.p"), {"surprise"}),
        (("label-swap", "label_swap.p"), {"surprise"}),
    ],
)
def test_a_missed_or_silent_control_gates_its_claims_alone(missed: tuple[str, str], codes: set[str]) -> None:
    real = world(order=1e-9, options=1e-9, surprise=1e-4)
    silent = tuple(one for one in controls() if (one.name, one.metric) != missed)
    for held in (controls(missed), silent):
        told = said(real, held)
        assert {code for code, one in told.items() if one == (INCONCLUSIVE, "control_missed")} == codes
        assert {code for code, one in told.items() if one[0] == DETECTED} == {"order", "options", "surprise"} - codes
    named = findings(real, controls(), (missed[0],), ASKED)
    assert codes <= {one.code for one in named if one.labels.get("reason") == "control_missed"}


def test_a_control_of_another_benchmark_does_not_speak_for_this_one() -> None:
    held = tuple(
        one.model_copy(update={"labels": {"benchmark": "other"}}) if one.name == "random-weights" else one
        for one in controls()
    )
    assert said(world(), held)["order"] == (INCONCLUSIVE, "control_missed")


def test_levels_are_holms_over_the_tests_that_were_asked() -> None:
    assert said(world(order=0.004))["order"] == (NOT_DETECTED, None), "four tests: .016"
    alone = replace(ASKED, tests=("order",))
    assert said(world(order=0.004), asked=alone)["order"] == (DETECTED, None)
    assert said(world(order=0.004, options=1e-9, surprise=1e-4, transfer=1e-4))["order"] == (DETECTED, None)
    assert adjusted({"a": 0.01, "b": 0.02}, 3) == {"a": 0.03, "b": 0.04}
    assert adjusted({}, 2) == {}


def test_a_missing_p_leaves_only_clear_words_of_the_others() -> None:
    real = world(order=0.004, options=1e-9, surprise=1e-4, transfer=1e-4)
    gone = real.model_copy(update={"metrics": tuple(one for one in real.metrics if one.name != "options.p")})
    assert said(gone)["options"] == (INCONCLUSIVE, "not_measured")
    assert said(gone)["surprise"] == (DETECTED, None)
    # .004 of the last two is .008 where options' p is 1 and .004 where it is 0; of .006 it is .012 or .006.
    assert said(gone)["order"] == (DETECTED, None)
    edge = world(order=0.006, options=1e-9, surprise=1e-4, transfer=1e-4)
    assert said(edge)["order"] == (DETECTED, None)
    gone = edge.model_copy(update={"metrics": tuple(one for one in edge.metrics if one.name != "options.p")})
    assert said(gone)["order"] == (INCONCLUSIVE, "not_measured")


def test_a_benchmark_without_numbers_claims_nothing() -> None:
    told = said(Measured(coverage={"benchmark": ("demo",)}))
    assert set(told) == {"order", "options", "surprise", "transfer"}
    assert {word for word, _ in told.values()} == {INCONCLUSIVE}


@cache
def worlds() -> tuple[tuple[Measured, tuple[ControlResult, ...]], ...]:
    some = product((1e-9, 0.004, 0.4), (1e-9, 0.4), (1e-4, 0.4), (0.3, 0.001), (0.4, 0.001, None), (0.5, 0.7), (0, 5))
    missed: tuple[tuple[tuple[str, str], ...], ...] = ((), (("random-weights", "options.p"),))
    return tuple(
        (world(order, options, surprise, 0.004, guard, placebo, blind, 0.5, lost), controls(*missed[at % 2]))
        for at, (order, options, surprise, guard, placebo, blind, lost) in enumerate(some)
    )


def without_surprise(real: Measured) -> Measured:
    metrics = tuple(one for one in real.metrics if not one.name.startswith("surprise"))
    return real.model_copy(update={"metrics": metrics, "skipped": (Skipped(item="surprise:demo", reason="role"),)})


def _weaker(less: Iterable[Finding], full: Iterable[Finding]) -> None:
    before = {one.code: one for one in full}
    for one in less:
        assert one.word in (before[one.code].word, INCONCLUSIVE), (one.code, before[one.code].word, one.word)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_taking_anything_away_never_makes_a_stronger_or_a_passing_word(data: st.DataObject) -> None:
    real, held = worlds()[data.draw(st.integers(0, len(worlds()) - 1))]
    if data.draw(st.booleans()):
        real = without_surprise(real)
    full = findings(real, held, (), ASKED)
    share = data.draw(st.sampled_from((0.03, 0.2, 0.6)))
    kept = tuple(one for one in real.metrics if data.draw(st.floats(0, 1)) > share)
    left = tuple(one for one in held if data.draw(st.floats(0, 1)) > share / 2)
    _weaker(findings(real.model_copy(update={"metrics": kept}), left, (), ASKED), full)
    _weaker(findings(real.model_copy(update={"skipped": ()}), held, (), ASKED), full)
    missed = data.draw(st.lists(st.sampled_from([one.name for one in held]), unique=True))
    _weaker(findings(real, held, missed, ASKED), full)


def test_no_single_number_holds_a_word_down() -> None:
    for real, held in worlds()[::7]:
        full = findings(real, held, (), ASKED)
        for place in range(len(real.metrics)):
            metrics = real.metrics[:place] + real.metrics[place + 1 :]
            _weaker(findings(real.model_copy(update={"metrics": metrics}), held, (), ASKED), full)


def test_silence_says_what_it_cannot_see() -> None:
    names = NAMES | metric_specs.NAMES
    for real, held in worlds()[::5]:
        for one in findings(real, held, (), ASKED):
            assert one.word in WORDS
            assert not any(banned in one.claim.lower() for banned in BANNED)
            assert (BLIND_SPOT in one.claim) == (one.word == NOT_DETECTED)
            assert {ref.name for ref in one.rests_on} <= names
            assert one.severity == ("concern" if one.word == DETECTED else "note")
    assert len(NAMES) == len(SPECS)
    assert not NAMES & metric_specs.NAMES
