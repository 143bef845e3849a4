"""What read a benchmark as published is detected with a valid p; its twin is not, nor what text alone tells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import contamination_model
from checks.check import ScoredText, TokenScores
from checks.contamination.model_controls import (
    CONTROLS,
    FOUND,
    NOT_FOUND,
    asked_of,
    organism_scores,
)
from checks.contamination.model_measure import measure
from checks.contamination.model_metric_specs import NAMES
from checks.contamination.model_texts import ModelAsked, needs
from checks.contamination.order_test import order_test, rank_sum_p
from checks.contamination.surprise import area_under, min_k_score
from checks.memory import InMemoryEvidence, model_facts
from checks.organisms.contamination_options import (
    OPTIONS_RECIPE,
    choice_items,
    choice_rows,
    options_organism,
)
from checks.organisms.contamination_order import RECIPE, facts, untrained
from checks.organisms.contamination_stored import NAMES as STORED
from checks.organisms.contamination_stored import SEED, Stored, fact_rows, stored, trained
from checks.organisms.contamination_words import tokenizer, word, write, written
from tests.checks.contamination.model_side import YES, answered, check, evidence_of, facts_of, organism

DRAWS = 40


def order_rows(made: Stored, count: int = 256, name: str = "facts") -> list[dict[str, Any]]:
    return fact_rows(made.items[:count], name)


def test_an_unknown_organism_or_word_is_refused() -> None:
    for read in (stored, trained):
        with pytest.raises(ValueError, match="no organism"):
            read("other")
    with pytest.raises(ValueError, match="token 321"):
        word(321)


def test_words_are_read_back_as_the_tokens_that_they_were() -> None:
    assert tokenizer().encode(written(range(321))).ids == list(range(321))
    assert len({word(token) for token in range(321)}) == 321


def test_an_order_that_was_read_is_detected_and_the_twin_is_not() -> None:
    """The whole path: texts, scores, guards, exact p, controls, Holm, words."""
    asking = check(tests=("order",), declares={"facts": YES}, order_span=8, shuffles=7)
    fresh = untrained(RECIPE, 3)
    made = organism("order")
    seen = evidence_of(made, asked_of(asking), {"benchmark": order_rows(made, 128)}, twin=fresh)
    real, results, told = answered(asking, seen)
    assert all(one.held for one in results)
    assert told["order"].word == "detected"
    assert told["order"].severity == "concern"
    assert told["options"].labels["reason"] == "parameter"
    p = real.find("order.p", benchmark="facts")
    assert p is not None
    assert float(p.value) <= FOUND
    assert {one.name for one in real.metrics} <= NAMES | {"items"}
    assert len(real.plots) == 1
    twin = organism("order-twin")
    clean = evidence_of(twin, asked_of(asking), {"benchmark": order_rows(twin, 128)})
    real = measure(asked_of(asking), clean)
    p = real.find("order.p", benchmark="facts")
    assert p is not None
    assert float(p.value) > NOT_FOUND
    assert {one.item for one in real.skipped} == set()


def test_random_orders_called_published_are_rarely_flagged_on_the_clean_twin() -> None:
    """Forty orders of each of eight stretches; each is called published once, the other 39 are its shuffles."""
    made = organism("order-twin")
    rng = np.random.default_rng(4)
    items = made.items[rng.permutation(256)[:64]].reshape(8, 8, 8)
    texts = {
        f"{stretch}|{draw}": written(items[stretch][rng.permutation(8)].ravel())
        for stretch in range(8)
        for draw in range(DRAWS)
    }
    wanted = needs(ModelAsked(tests=()), {"benchmark": order_rows(made, 1)}, facts_of(made))
    wanted = replace(wanted, scored=tuple(ScoredText(id=name, text=text) for name, text in texts.items()))
    told = organism_scores(made.model, wanted)
    sums = np.array([[told[f"{stretch}|{draw}"].logp.sum() for draw in range(DRAWS)] for stretch in range(8)])
    p = []
    for draw in range(DRAWS):
        found = order_test(sums[:, draw], np.delete(sums, draw, axis=1))
        assert found is not None
        p.append(found.p)
    # Binomial(40, .05): more than 7 has probability .0007; (40, .01): more than 3 has probability .0007.
    assert sum(one <= 0.05 for one in p) <= 7
    assert sum(one <= 0.01 for one in p) <= 3
    assert 0.3 < float(np.mean(p)) < 0.7


def choices_of(seen: Any, unseen: Any = ()) -> dict[str, list[dict[str, Any]]]:
    placebo = {"placebo": choice_rows(unseen, "quiz", "placebo", "generated")} if len(unseen) else {}
    return {"benchmark": choice_rows(seen, "quiz"), **placebo}


def test_options_that_were_read_are_detected() -> None:
    asking = check(tests=("options",), declares={"quiz": YES})
    made = organism("options")
    unseen = choice_items(20, np.random.default_rng(5))
    fresh = untrained(RECIPE, 3, OPTIONS_RECIPE.context)
    rows = choices_of(made.items[100:140], unseen)
    real, results, told = answered(asking, evidence_of(made, asked_of(asking), rows, twin=fresh))
    assert all(one.held for one in results)
    assert told["options"].word == "detected"
    placebo = real.find("options.placebo_p", benchmark="quiz")
    assert placebo is not None
    assert float(placebo.value) > 0.001
    assert {one.name for one in real.metrics} <= NAMES | {"items"}


@pytest.mark.slow
def test_options_and_surprise_find_what_was_read_and_figures_are_those_of_the_specification() -> None:
    reader = options_organism(OPTIONS_RECIPE, np.random.default_rng(1))
    asking = check(tests=("options", "surprise"), declares={"quiz": YES})
    made = Stored("options", reader.model, reader.seen)
    fresh = untrained(RECIPE, 3, OPTIONS_RECIPE.context)
    rows = choices_of(reader.seen, reader.unseen)
    seen = evidence_of(made, asked_of(asking), rows, twin=fresh)
    real, results, told = answered(asking, seen)
    assert all(one.held for one in results)
    assert told["options"].word == told["surprise"].word == "detected"
    value = {one.name: float(one.value) for one in real.metrics if one.labels == {"benchmark": "quiz"}}
    assert value["options.p"] <= 1e-12
    assert value["options.mean_rank"] == pytest.approx(3.6 / 23, abs=0.05)
    assert value["options.placebo_p"] > 0.001
    assert value["surprise.auc"] == pytest.approx(0.84, abs=0.05)
    assert value["surprise.blind_auc"] < 0.6
    scores = seen.token_scores()
    names = [f"quiz|surprise|{row['item']}" for row in rows["benchmark"]]
    names += [f"quiz|placebo|{row['item']}" for row in rows["placebo"]]
    plain = np.array([min_k_score(scores[n].logp, scores[n].mean, scores[n].sd, 20) for n in names], dtype=np.float64)
    assert value["surprise.auc"] == pytest.approx(area_under(plain, np.arange(400) < 200), abs=0.001)


def test_blind_control_invalidates_on_the_whole_path() -> None:
    """Placebos that words alone tell from the items: membership scores prove nothing, however far apart they are."""
    asking = check(tests=("surprise",))
    made = organism("options")
    rows = choices_of(made.items[:120], choice_items(120, np.random.default_rng(6)))
    rows["placebo"] = [{**row, "question": "a0 a0 " + row["question"]} for row in rows["placebo"]]
    fresh = untrained(RECIPE, 3, OPTIONS_RECIPE.context)
    _, _, told = answered(asking, evidence_of(made, asked_of(asking), rows, twin=fresh))
    assert (told["surprise"].word, told["surprise"].labels["reason"]) == ("invalid", "blind_control")


def test_a_score_without_its_guard_claims_nothing() -> None:
    """Two templates cannot be held out in five parts, so nobody knows what text alone tells."""
    asking = check(tests=("surprise",))
    made = organism("options")
    rows = choices_of(made.items[:120], choice_items(120, np.random.default_rng(6)))
    rows["benchmark"] = [{**row, "template": f"t{at % 2}"} for at, row in enumerate(rows["benchmark"])]
    fresh = untrained(RECIPE, 3, OPTIONS_RECIPE.context)
    real, _, told = answered(asking, evidence_of(made, asked_of(asking), rows, twin=fresh))
    assert not real.named("surprise.blind_auc")
    assert told["surprise"].word == "inconclusive"


def test_the_paraphrase_organism_is_not_seen_and_silence_says_so() -> None:
    asking = check(tests=("options",), declares={"quiz": YES})
    read = options_organism(OPTIONS_RECIPE, np.random.default_rng(1), "reworded")
    made = Stored("paraphrase", read.model, read.seen)
    fresh = untrained(RECIPE, 3, OPTIONS_RECIPE.context)
    asked = asked_of(asking)
    _, _, without = answered(asking, evidence_of(made, asked, choices_of(read.seen[:60]), twin=fresh))
    assert without["options"].labels["reason"] == "no_placebo"
    seen = evidence_of(made, asked, choices_of(read.seen[:60], read.unseen[:60]), twin=fresh)
    _, results, told = answered(asking, seen)
    assert all(one.held for one in results)
    assert told["options"].word == "not_detected"
    assert "cannot see paraphrases" in told["options"].claim


def test_a_structured_order_is_invalid_and_nothing_is_scored() -> None:
    made = organism("order")
    rows = sorted(order_rows(made), key=lambda row: str(row["question"]))
    asking = check(tests=("order",), declares={"facts": YES}, order_span=8, shuffles=7)
    seen = evidence_of(made, asked_of(asking), {"benchmark": rows})
    assert not seen.token_scores()
    _, _, told = answered(asking, seen)
    assert (told["order"].word, told["order"].labels["reason"]) == ("invalid", "order_structured")


def test_controls_of_tests_that_nobody_asks_hold_and_say_so() -> None:
    made = organism("order")
    for asking in (check(tests=("transfer",)), check(side="corpus"), check(tests=("order",))):
        seen = InMemoryEvidence(facts=model_facts(), rows={"benchmark": order_rows(made, 8)})
        for control in CONTROLS:
            measured = measure(asked_of(asking), control.spoil(asking, seen))
            (band,) = control.bands(asking, measured)
            assert (band.metric, band.value, band.low, band.high) == ("tests_asked", 0, 0, 0)


def test_a_control_that_was_asked_and_gave_no_number_is_missed() -> None:
    made = organism("order")
    asking = check(tests=("order",), declares={"facts": YES}, shuffles=3)
    seen = evidence_of(made, asked_of(asking), {"benchmark": order_rows(made)})  # the twin scored nothing
    control = next(one for one in CONTROLS if one.name == "random-weights")
    (band,) = control.bands(asking, measure(asked_of(asking), control.spoil(asking, seen)))
    assert (band.metric, band.value, band.high) == ("tests_asked", 1, 0)


def test_p_of_the_report_is_that_of_a_plain_loop() -> None:
    made = organism("order")
    asked = ModelAsked(tests=("order",), declares={"facts": YES}, shuffles=5)
    rows = {"benchmark": order_rows(made, 64)}
    rng = np.random.default_rng(2)
    scores = {
        one.id: TokenScores(logp=rng.normal(size=9), mean=np.zeros(9), sd=np.ones(9))
        for one in needs(asked, rows, facts_of(made)).scored
    }
    real = measure(asked, InMemoryEvidence(facts=facts_of(made), rows=rows, token_scores=scores))
    ranks = []
    for stretch in range(4):
        sums = [sum(scores[f"facts|order|{stretch}|{at}"].logp.tolist()) for at in range(6)]
        ranks.append(sum(one >= sums[0] for one in sums[1:]))
    told = real.find("order.p", benchmark="facts")
    assert told is not None
    assert float(told.value) == pytest.approx(rank_sum_p(ranks, 5), rel=1e-5)
    assert told.null is not None
    assert told.multiplicity is not None
    assert told.multiplicity.corrected == "holm"
    lost = {name: one for name, one in scores.items() if name != "facts|order|1|3"}
    real = measure(asked, InMemoryEvidence(facts=facts_of(made), rows=rows, token_scores=lost))
    assert not real.named("order.p")
    assert [(one.item, one.reason) for one in real.skipped] == [("order:facts", "too_few")]


def test_stored_organisms_are_whole_and_small() -> None:
    for name in STORED:
        made = organism(name)
        assert 1.0e6 < sum(value.numel() * 4 for value in made.model.state_dict().values()) < 1.3e6
        rng = np.random.default_rng([SEED, STORED.index(name) // 2])
        drawn = facts(256, rng) if name.startswith("order") else choice_items(200, rng)
        assert np.array_equal(drawn, made.items)


def test_an_organism_is_a_folder_that_the_runtime_loads_and_scores_alike(tmp_path: Path) -> None:
    from tests.checks.runtime.test_look import given, looked

    made = organism("options")
    asked = ModelAsked(tests=("options",), declares={"organism-options": YES})
    rows = {"benchmark": made.rows[:6]}
    folder = write(tmp_path, made.model, rows)
    told, found = looked(folder / "model", wanted := needs(asked, rows, facts_of(made)))
    seen = given(told, found, replace(wanted, data_roles=()))
    plain = organism_scores(made.model, wanted)
    assert set(seen.token_scores()) == set(plain)
    assert not seen.lost()
    for name, one in plain.items():
        np.testing.assert_allclose(seen.token_scores()[name].logp, one.logp, atol=2e-4)
        np.testing.assert_allclose(seen.token_scores()[name].sd, one.sd, atol=2e-4)


def test_told_rates_are_those_of_the_committed_p_values() -> None:
    """At least forty clean twins, each trained anew; their rate's interval holds the level, and organisms are found."""
    told = json.loads(contamination_model.OUT.read_text())
    assert told == contamination_model.summary(told["organism_p"], told["twin_p"])
    assert told["false_positive_rate"]["n"] >= 40
    assert told["false_positive_rate"]["low"] <= 0.01
    assert told["false_positive_rate_at_.05"]["low"] <= 0.05
    assert told["power"]["share"] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", STORED)
def test_stored_organisms_are_what_their_recipe_trains(name: str) -> None:
    """Weights differ between processors in their last bits; what a control reads of them must not."""
    asking = check(declares={f"organism-{name}": YES}, tests=("order", "options"))
    again, kept = (measure(asked_of(asking), evidence_of(made, asked_of(asking), {"benchmark": made.rows}))
                   for made in (trained(name), organism(name)))  # fmt: skip
    test = name.partition("-")[0]
    for one in (again, kept):
        told = one.find(f"{test}.p", benchmark=f"organism-{name}")
        assert told is not None
        assert (float(told.value) <= FOUND) == (not name.endswith("-twin"))
        assert float(told.value) <= FOUND or float(told.value) >= NOT_FOUND
