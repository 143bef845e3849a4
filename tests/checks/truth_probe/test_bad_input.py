"""Bad input, through `ask` and `needs`: refused or skipped by name, and the rest goes on.

Specification: truth_probe, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from checks.ask import ask
from checks.check import Refusal
from checks.memory import InMemoryEvidence, model_facts
from checks.truth_probe.check import TruthProbe
from tests.checks.truth_probe.cases import BARE, LEAN, Layer, case_rows, evidence, planted_evidence, probe

Rows = list[dict[str, Any]]

THREE = replace(BARE, layers=(Layer(), Layer(), Layer()), train=110, test=120, width=24)
THREE_CHECK = probe(THREE, methods=("md", "lr"))


def row_of(held: InMemoryEvidence, text: str) -> int:
    """Return where the states of a text stand."""
    texts = THREE_CHECK.needs(held.facts, {role: held.data(role) for role in held.roles()}).texts
    return [one.id for one in texts].index(text)


def test_a_broken_layer_is_skipped_by_name_and_the_others_go_on() -> None:
    held = evidence(THREE_CHECK, THREE)
    broken = held.activations("resid.1").copy()
    broken[[row_of(held, "planted/p20/pos"), row_of(held, "planted/p45/neg")]] = np.nan
    still = np.repeat(held.activations("resid.2")[::2], 2, axis=0)
    told = ask(THREE_CHECK, held.replacing(activations={"resid.1": broken, "resid.2": still}))
    assert told.measured is not None
    assert {(one.item, one.reason) for one in told.skipped if one.item.startswith("layer")} == {
        ("layer:1:set:planted:p20:2", "non_finite"),
        ("layer:2:set:planted", "degenerate_layer"),
    }
    assert {one.labels["layer"] for one in told.measured.named("auroc")} == {"0"}
    assert told.measured.coverage["layer"] == ("0", "1", "2")
    words = {one.labels["layer"]: one.word for one in told.findings if one.code == "truth_feature"}
    assert words == {"0": "PROVISIONAL", "1": "INCONCLUSIVE", "2": "INCONCLUSIVE"}


def test_no_layer_at_all_is_refused() -> None:
    held = evidence(THREE_CHECK, THREE)
    empty = {f"resid.{layer}": np.full_like(held.activations("resid.0"), np.inf) for layer in range(3)}
    told = ask(THREE_CHECK, held.replacing(activations=empty))
    assert (told.outcome, told.reason) == ("refused", "nothing_measurable")


def test_lost_texts_leave_their_item_out_by_name() -> None:
    held = evidence(THREE_CHECK, THREE)
    states = {f"resid.{layer}": held.activations(f"resid.{layer}").copy() for layer in range(3)}
    for broken in states.values():
        broken[row_of(held, "planted/p3/neg")] = np.nan
    lost = {"planted/p3/neg": "text_too_long"}
    told = THREE_CHECK.measure(held.replacing(activations=states, lost=lost))
    assert ("set:planted:item:i3:text_too_long", "text_lost") in {(one.item, one.reason) for one in told.skipped}
    assert {one.labels["layer"] for one in told.named("auroc")} == {"0", "1", "2"}


def test_many_lost_texts_are_refused() -> None:
    lost = {f"planted/p{number}/pos": "text_too_long" for number in range(30)}
    told = ask(THREE_CHECK, evidence(THREE_CHECK, THREE).replacing(lost=lost))
    assert (told.outcome, told.reason) == ("refused", "items_lost")
    assert told.skipped[-1].item == "total:30"


def two_sets(**changed: Any) -> Rows:
    """Return the rows of a sound set and of a second one, changed."""
    rows = case_rows(THREE)["pairs"]
    other = [
        {**row, "id": f"{row['id']}x", "item": f"{row['item']}x", "cluster": f"{row['cluster']}x", "set": "second"}
        | {name: f"{row[name]} (second)" for name in ("pos", "neg")}
        | changed
        for row in rows
    ]
    return rows + other


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"label": None}, "unlabelled"), ({"split": "train"}, "too_few_items")],
)
def test_a_refused_set_is_named_and_the_other_is_measured(changed: Mapping[str, Any], reason: str) -> None:
    told = ask(THREE_CHECK, evidence(THREE_CHECK, THREE, {"pairs": two_sets(**changed)}))
    assert told.outcome == "measured"
    assert ("set:second", reason) in {(one.item, one.reason) for one in told.skipped}
    assert told.measured is not None
    assert told.measured.coverage["set"] == ("planted", "second")
    word = {one.labels["set"]: one.word for one in told.findings if one.code == "truth_feature_by_layer"}
    assert word == {"planted": "PROVISIONAL", "second": "INCONCLUSIVE"}


def refusal(rows: Rows, **params: Any) -> Refusal:
    check = TruthProbe(**(LEAN | params))
    with pytest.raises(Refusal) as told:
        check.needs(model_facts(layers=3, width=24), {"pairs": rows})
    return told.value


def spoilt(**changed: Any) -> Rows:
    return [{**row, **changed} for row in case_rows(THREE)["pairs"]]


@pytest.mark.parametrize(
    ("rows", "params", "reason", "named"),
    [
        ([], {}, "no_data", "role:pairs"),
        (spoilt()[:1], {}, "too_few_items", "train_pairs:1:least:100"),
        (spoilt(label=1), {}, "one_sided_labels", "train:true:110:of:110"),
        (spoilt(label=None), {}, "unlabelled", "train:labelled:0"),
        (spoilt(split="train"), {}, "too_few_items", "test_items:0:least:100"),
        (spoilt(cluster="one"), {}, "split_conflict", "cluster:one"),
        (spoilt(colour="red"), {}, "role_invalid", "line:1:colour:unknown"),
        (spoilt(id="same"), {}, "role_invalid", "line:2:id:duplicate"),
        (spoilt(), {"fit_persona": "A", "test_persona": "B"}, "persona_absent", "fit_persona:A"),
        (spoilt(), {"layers": (9,)}, "layer_out_of_range", "layer:9"),
    ],
)
def test_bad_rows_are_refused_with_reason_and_name(
    rows: Rows, params: Mapping[str, Any], reason: str, named: str
) -> None:
    told = refusal(rows, **params)
    assert told.reason == reason
    assert named in told.items
    assert reason in TruthProbe.reasons


def test_sets_that_would_share_a_name_are_refused() -> None:
    # "a b" and "a_b" are one name in the report: numbers of one would stand for the other.
    rows = [{**row, "set": "a b" if row["set"] == "planted" else "a_b"} for row in two_sets()]
    told = refusal(rows)
    assert (told.reason, told.items) == ("role_invalid", ("set:a_b:name_of_two", "total:1"))


@pytest.mark.parametrize("anchors", [0, 15])
def test_too_few_anchors_are_refused_with_their_number(anchors: int) -> None:
    case = replace(THREE, layers=(Layer(),), anchors=anchors)
    check = probe(case, methods=("md", "lr"))
    with pytest.raises(Refusal, match=f"too_few_anchors: anchors:{anchors}:least:16"):
        evidence(check, case)


def test_a_state_of_the_battery_that_is_broken_at_one_layer_costs_its_row() -> None:
    held = evidence(THREE_CHECK, THREE)
    texts = THREE_CHECK.needs(held.facts, {role: held.data(role) for role in held.roles()}).texts
    row = next(at for at, text in enumerate(texts) if "/battery/word/pos" in text.id)
    broken = held.activations("resid.1").copy()
    broken[row] = np.nan
    told = THREE_CHECK.measure(held.replacing(activations={"resid.1": broken}))
    assert {one.labels["layer"] for one in told.named("auroc")} == {"0", "1", "2"}


def test_flips_that_could_never_pass_holm_are_refused() -> None:
    case = replace(THREE, layers=tuple(Layer(a=4) for _ in range(12)))
    with pytest.raises(Refusal, match="p_resolution: permutations:200, least:239"):
        evidence(probe(case, permutations=200), case)


def test_causal_layers_that_are_not_probed_are_refused() -> None:
    with pytest.raises(Refusal, match="layer_out_of_range: causal_layer:0:not_probed"):
        evidence(probe(THREE, layers=(1, 2), causal_layers=(0,)), THREE)


def test_personas_of_built_in_sets_alone_are_refused() -> None:
    check = TruthProbe(datasets=("comparison",), fit_persona="B", test_persona="C")
    with pytest.raises(Refusal, match="persona_absent: fit_persona:B, test_persona:C"):
        check.needs(model_facts(), {})


def test_width_above_pairs_is_measured() -> None:
    told = TruthProbe(**LEAN, methods=("md", "lr"), lambda_rule="lambda0").measure(
        planted_evidence((8.0,), n=110, d=260)
    )
    found = told.find("auroc", set="planted", layer="0", method="md")
    assert found is not None
    assert float(found.value) > 0.9


def deep(count: int, **params: Any) -> Sequence[str]:
    check = TruthProbe(**(LEAN | params))
    return check.needs(model_facts(layers=count, width=24), {"pairs": spoilt()}).sites


def test_all_layers_of_a_deep_model_are_thinned_and_the_rest_told() -> None:
    case = replace(THREE, layers=(Layer(a=3),) * 48, width=22)
    check = probe(case, methods=("md", "lr"), bootstrap=200, permutations=500)
    told = check.measure(evidence(check, case))
    thinned = [one.item for one in told.skipped if one.reason == "over_cell_limit"]
    measured = {one.labels["layer"] for one in told.named("auroc")}
    assert thinned
    assert len(thinned) + len(measured) == 48
    assert told.coverage["layer"] == tuple(str(layer) for layer in range(48))
    assert "47" in measured
    # Bounds pay for the layers that were looked at.
    assert {one.multiplicity.m for one in told.named("auroc") if one.multiplicity} == {len(measured)}


def test_too_many_named_layers_are_refused_rather_than_thinned() -> None:
    with pytest.raises(Refusal, match="too_many_layers"):
        deep(48, layers=tuple(range(48)))
    assert deep(48, layers=tuple(range(5, 15))) == tuple(f"resid.{layer}" for layer in range(5, 15))


def test_states_that_do_not_match_the_plan_are_never_paired_with_labels() -> None:
    held = evidence(THREE_CHECK, THREE)
    longer = np.concatenate([held.activations("resid.0"), held.activations("resid.0")[:2]])
    with pytest.raises(ValueError, match="states for"):
        THREE_CHECK.measure(held.replacing(activations={"resid.0": longer}))


def test_needs_name_sites_and_texts_in_row_order() -> None:
    check = TruthProbe(**(LEAN | {"layers": (1,)}))
    needs = check.needs(model_facts(layers=3, width=24), {"pairs": spoilt()})
    assert needs.sites == ("resid.1",)
    assert needs.access() == ("activations",)
    assert [text.id for text in needs.texts[:3]] == ["planted/p0/pos", "planted/p0/neg", "planted/p1/pos"]
    assert needs.replay == 0


@pytest.mark.parametrize(
    "params",
    [
        {"anchors_k": 17},
        {"lambda_rule": "1"},
        {"lambda_rule": "best"},
        {"alpha": "1"},
        {"normaliser": "whiten"},
        {"methods": ("tpc", "lr")},
        {"methods": ("md",)},
        {"methods": ("md", "lr", "lr")},
        {"datasets": ("capitals",)},
        {"datasets": ("world", "world")},
        {"ccs_mode": "adam"},
        {"restarts": 1},
        {"layers": (1, 1)},
        {"causal_layers": tuple(range(9))},
        {"causal_items": 4},
        {"max_items": 20},
        {"seed": -1},
        {"colour": "red"},
    ],
)
def test_wrong_parameters_are_rejected(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TruthProbe.model_validate(params)
