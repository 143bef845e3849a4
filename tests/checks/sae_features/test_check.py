"""The whole check on a model whose numbers are known: what it says, what it refuses, what it keeps to itself."""

from __future__ import annotations

import json
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from assay.result import Answer
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from checks.ask import ask
from checks.check import Needs, Refusal
from checks.memory import InMemoryEvidence, model_facts
from checks.sae_features.cause_metrics import edit_settings
from checks.sae_features.check import SaeFeatures
from checks.sae_features.dictionary.formats import save_assay
from checks.sae_features.dictionary.value import Dictionary, Relu
from checks.sae_features.diff_metrics import swaps
from checks.sae_features.rows import in_training
from tests.checks.promised import hold_to_promise, unreached
from tests.checks.sae_features.linear_model import LENGTH, Drawn, Recipe, evidence

FEW: dict[str, Any] = {
    "site": "resid.0",
    "width": 128,
    "k": 4,
    "train_tokens": 100_000,
    "bootstrap": 200,
    "permutations": 50,
    "power_draws": 20,
    "matched_controls": 19,
    "edit_rows": 32,
    "cards": 8,
    "ks": (1, 5),
}
"""Few draws: enough for words that are plain."""


@cache
def drawn(amplitude: float = 1.5) -> Drawn:
    return Drawn(Recipe(amplitude=amplitude))


def asked(given: InMemoryEvidence, **params: Any) -> Answer:
    torch.set_num_threads(1)
    with threadpool_limits(limits=1, user_api="blas"):
        return ask(SaeFeatures(**{**FEW, **params}), given)


@cache
def seen() -> InMemoryEvidence:
    return evidence(drawn(), base=True)


@cache
def whole() -> Answer:
    return asked(seen())


def words(answer: Answer) -> dict[tuple[str, str, str], str]:
    return {(f.code, f.labels.get("dictionary", ""), f.labels.get("concept", "")): f.word for f in answer.findings}


def value(answer: Answer, name: str, **labels: str) -> float:
    assert answer.measured is not None
    metric = answer.measured.find(name, **labels)
    assert metric is not None, name
    return float(metric.value)


def test_a_planted_concept_is_read_acts_and_differs_from_the_base() -> None:
    answer = whole()
    hold_to_promise(answer)
    probes = ("label-permutation", "planted-in-dictionary", "planted-nothing")
    assert unreached(answer) == {(name, "concepts_asked") for name in probes}  # concepts were asked
    assert answer.outcome == "measured"
    assert answer.valid
    said = words(answer)
    assert said["concept", "", "open"] == "dense_carries"
    assert said["attribution", "trained-0", "open"] == "inconclusive"  # a hundred steps make no usable dictionary
    assert value(answer, "attribution_rho", dictionary="trained-0", concept="open", form="gradient") > 0.99
    assert said["diff", "trained-0", "open"] == "changed"
    label = {"dictionary": "trained-0", "concept": "open"}
    assert value(answer, "relative_effect", **label) < -0.5
    assert value(answer, "effect_p", **label) == pytest.approx(1 / 20)  # no matched set does as much


@pytest.mark.slow
def test_nothing_is_detected_where_nothing_is_planted_and_the_power_is_told() -> None:
    answer = asked(evidence(drawn(0.0), roles=("corpus", "concepts")))
    finding = next(one for one in answer.findings if one.code == "concept")
    assert finding.word == "not_detected"
    assert any(reference.name == "power" for reference in finding.rests_on)
    assert "absent" not in finding.claim


def test_a_twin_that_still_works_makes_words_inconclusive() -> None:
    answer = asked(evidence(drawn(), twin_works=True))
    assert not answer.valid
    missed = {one.name for one in answer.controls if not one.held}
    assert missed == {"random-weights"}
    said = words(answer)
    assert said["dictionary", "trained-0", ""] == "inconclusive"
    assert said["concept", "", "open"] == "inconclusive"


def test_fewer_roles_never_make_a_stronger_word() -> None:
    full, less = words(whole()), words(asked(evidence(drawn(), roles=("corpus",))))
    assert less
    assert all(word in (full[key], "inconclusive") for key, word in less.items())


@pytest.mark.slow
@pytest.mark.parametrize("base", [False, True])
def test_no_subset_of_roles_makes_a_stronger_word(base: bool) -> None:
    full, less = words(whole()), words(asked(evidence(drawn(), roles=("corpus", "concepts"), base=base)))
    assert less
    assert all(word in (full[key], "inconclusive") for key, word in less.items())


@pytest.mark.parametrize("roles", [("corpus",), pytest.param(("corpus", "concepts"), marks=pytest.mark.slow)])
def test_two_runs_give_the_same_bytes(roles: tuple[str, ...]) -> None:
    one, other = (asked(evidence(drawn(), roles=roles)) for _ in range(2))
    assert one == other


def test_controls_train_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from checks.sae_features.streaming import learn

    trained: list[object] = []

    def counted(*args: Any, **more: Any) -> Any:
        trained.append(args[0])
        return learn(*args, **more)

    monkeypatch.setattr("checks.sae_features.learning.learn", counted)
    asked(evidence(drawn(), roles=("corpus",)))
    assert len(trained) == 2  # the model's dictionaries together, and the twin's


def test_cards_show_cited_latents_beside_others_and_no_text() -> None:
    answer, check = whole(), SaeFeatures(**FEW)
    assert answer.measured is not None
    files = check.hand_out(seen(), answer.measured, answer.findings)
    assert set(files) == {"cards.json"}
    cards = json.loads(files["cards.json"])["cards"]
    assert any(card["finding"] for card in cards)
    assert any(not card["finding"] for card in cards)
    assert len(files["cards.json"]) <= check.cards_bytes


@pytest.mark.parametrize("name", ["nan", "inf"])
def test_a_state_that_is_not_finite_is_named_by_passage_and_position(name: str) -> None:
    states = dict(drawn().states)
    first = next(iter(states))
    spoiled = states[first].copy()
    spoiled[3, 0] = float(name)
    answer = asked(evidence(drawn(), roles=("corpus",), states={**states, first: spoiled}))
    assert (answer.outcome, answer.reason) == ("refused", "non_finite")
    assert [one.item for one in answer.skipped] == [f"passage:{first}", "position:3"]


def test_a_site_that_does_not_vary_is_refused() -> None:
    flat = dict.fromkeys(drawn().states, np.ones((LENGTH, 32), dtype=np.float32))
    answer = asked(evidence(drawn(), roles=("corpus",), states=flat))
    assert (answer.outcome, answer.reason) == ("refused", "constant_site")


def test_too_few_tokens_are_refused_with_the_count_and_the_limit() -> None:
    answer = asked(evidence(Drawn(Recipe(passages=400, rows=0, contrasts=0)), roles=("corpus",)))
    assert (answer.outcome, answer.reason) == ("refused", "too_few_tokens")
    items = [one.item for one in answer.skipped]
    assert items[1] == "limit:100000"
    assert 4000 < int(items[0].removeprefix("usable:")) < 6400  # about four fifths of 6400


def test_a_concept_of_too_few_groups_is_left_out_by_name_and_the_dictionary_is_still_judged() -> None:
    answer = asked(evidence(Drawn(Recipe(rows=60, contrasts=0)), roles=("corpus", "concepts")))
    assert any(one.item == "concept:open" and one.reason == "too_few_groups" for one in answer.skipped)
    said = words(answer)
    assert said["dictionary", "trained-0", ""] != "inconclusive"
    assert said["concept", "", "open"] == "inconclusive"


def supplied(width: int = 32, **config: Any) -> dict[str, bytes]:
    rng = np.random.default_rng(7)
    rows = torch.from_numpy(rng.standard_normal((64, width)).astype(np.float32))
    dictionary = Dictionary(rows.T.contiguous(), torch.zeros(64), rows, torch.zeros(width), Relu())
    stated, weights = save_assay(dictionary)
    return {"sae": weights, "sae_config": json.dumps({**json.loads(stated), "site": "resid.0", **config}).encode()}


@pytest.mark.parametrize(
    ("blobs", "reason", "item"),
    [
        *(
            pytest.param(*wrong, marks=pytest.mark.slow)
            for wrong in (
                (supplied(width=16), "wrong_width", "supplied:dictionary:16"),
                (supplied(site="resid.7"), "site_mismatch", "supplied:site:resid.7"),
                ({**supplied(), "sae": b"PK\x03\x04" + b"\0" * 64}, "weights_unreadable", None),
                ({**supplied(), "sae_config": b"{"}, "sae_config", None),
            )
        ),
        pytest.param({**supplied(), "sae": b"\x80\x04cposix\nsystem\n"}, "pickle_format", None, marks=pytest.mark.slow),
        (supplied(declared_l0=1.0), "convention_unconfirmed", "supplied:cause:l0"),
    ],
)
def test_a_wrong_supplied_dictionary_is_named_and_the_trained_ones_still_answer(
    blobs: dict[str, bytes], reason: str, item: str | None
) -> None:
    answer = asked(evidence(drawn(), roles=("corpus",), blobs=blobs), dictionary="both")
    assert answer.outcome == "measured"
    told = {(one.item, one.reason) for one in answer.skipped}
    assert ("dictionary:supplied", reason) in told
    assert item is None or (item, reason) in told
    said = words(answer)
    assert said["dictionary", "trained-0", ""] != "inconclusive"
    assert said.get(("dictionary", "supplied", ""), "inconclusive") == "inconclusive"


@pytest.mark.slow
@pytest.mark.parametrize("config", [{"site": "my site"}, {"site": "not a site", "assume_site": True}])
def test_what_a_sender_writes_neither_ends_the_answer_nor_stands_in_it(config: dict[str, Any]) -> None:
    answer = asked(evidence(drawn(), roles=("corpus",), blobs=supplied(**config)), dictionary="both")
    assert answer.outcome == "measured"
    assert answer.measured is not None
    labels = [value for metric in answer.measured.metrics for value in metric.labels.values()]
    told = " ".join([*labels, *(one.claim for one in answer.findings)]).replace("_", " ")
    assert "my site" not in told
    assert "not a site" not in told


def test_too_few_held_states_for_a_code_gain_are_told_and_not_judged() -> None:
    few = Drawn(Recipe(passages=8400, rows=0, contrasts=0))  # about 27,000 held states; a fifth of them is left
    held = [row for row in few.rows["corpus"] if not in_training(row["group"], 0)]
    gone = {row["id"] for row in held[: int(0.8 * len(held))]}
    few.rows["corpus"] = [row for row in few.rows["corpus"] if row["id"] not in gone]
    answer = asked(evidence(few, roles=("corpus",)), train_tokens=100_000)
    assert answer.outcome == "measured"
    assert answer.measured is not None
    assert answer.measured.named("code_gain") == ()
    assert ("code_gain", "too_few_tokens") in {(one.item, one.reason) for one in answer.skipped}
    assert words(answer)["dictionary", "trained-0", ""] != "usable"  # lossy by what it does to the output


@pytest.mark.slow
def test_a_group_whose_states_are_outliers_in_one_model_alone_is_left_out_of_what_compares_them() -> None:
    states = dict(drawn().states)
    held = [row for row in drawn().rows["corpus"] if not in_training(row["group"], 0)]
    group = [f"corpus/{row['id']}" for row in held if row["group"] == held[0]["group"]]
    answer = asked(evidence(drawn(), roles=("corpus",), states=states | {one: 1000 * states[one] for one in group}))
    assert answer.outcome == "measured"
    assert value(answer, "outlier_tokens") == LENGTH * len(group)


@pytest.mark.parametrize("count", [1, 16])
def test_corrections_have_the_draws_that_alpha_needs(count: int) -> None:
    session: Any = SimpleNamespace(check=SaeFeatures(**FEW), concept_names=tuple(f"c{n}" for n in range(count)))
    assert count / (1 + swaps(session)) <= 0.05
    assert count / (1 + edit_settings(session).matched_controls) <= 0.05


def test_more_concepts_than_an_answer_can_carry_are_refused_before_any_weight_is_read() -> None:
    rows = [
        {**row, "id": f"{row['id']}/{n}", "concept": f"c{n}"} for n in range(16) for row in drawn().rows["concepts"][:4]
    ]
    data = {"corpus": drawn().rows["corpus"], "concepts": rows}
    model = model_facts(layers=1, width=32)
    assert SaeFeatures(**FEW).needs(model, data).passages
    with pytest.raises(Refusal) as caught:
        SaeFeatures(**{**FEW, "dictionary_seeds": 5}).needs(model, data)
    assert caught.value.reason == "too_many_concepts"
    assert "dictionaries:5" in caught.value.items


def test_more_active_latents_than_there_are_is_refused_by_both_numbers() -> None:
    with pytest.raises(Refusal) as caught:
        SaeFeatures(site="resid.0", k=256).needs(model_facts(layers=1, width=16), {"corpus": drawn().rows["corpus"]})
    assert (caught.value.reason, caught.value.items) == ("k_over_latents", ("k:256", "latents:128"))


def needed(check: SaeFeatures, roles: tuple[str, ...], layers: int = 1) -> Needs:
    data: dict[str, Any] = {role: drawn().rows.get(role, ()) for role in roles}
    return check.needs(model_facts(layers=layers, width=32), data)


@pytest.mark.parametrize(
    ("params", "roles", "reason", "items"),
    [
        ({"site": "resid.1"}, ("corpus",), "site_unknown", ("site:resid.1", "layers:1")),
        ({"dictionary": "both"}, ("corpus",), "dictionary_missing", ("role:sae", "role:sae_config")),
        ({"dictionary": "both"}, ("corpus", "sae"), "dictionary_missing", ("role:sae_config",)),
        ({}, ("corpus", "sae", "sae_config"), "dictionary_not_asked", ("params.dictionary",)),
        ({"watch": ("closed",)}, ("corpus", "concepts"), "concept_unknown", ("concept:closed",)),
        ({}, ("corpus", "contrast"), "contrast_without_concept", ("concept:open",)),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_weight_is_read(
    params: dict[str, Any], roles: tuple[str, ...], reason: str, items: tuple[str, ...]
) -> None:
    with pytest.raises(Refusal) as caught:
        needed(SaeFeatures(**{**FEW, **params}), roles)
    assert (caught.value.reason, caught.value.items) == (reason, items)


@pytest.mark.parametrize(
    ("params", "what"),
    [
        ({"site": "blocks.0"}, "a site is"),
        ({"k": 200}, "k 200 is more than the width of 128"),
        ({"cards": 2}, "at least 3"),
        ({"ks": (5, 5)}, "named twice"),
        ({"concepts": ("a",), "watch": ("b",)}, "watch names b"),
    ],
)
def test_wrong_parameters_say_what_is_wrong(params: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        SaeFeatures(**{**FEW, **params})


def test_access_follows_from_the_roles() -> None:
    assert needed(SaeFeatures(**FEW), ("corpus", "concepts")).access() == ("activations",)
    assert needed(SaeFeatures(**FEW), ("corpus", "concepts", "contrast")).access() == ("activations", "gradients")
