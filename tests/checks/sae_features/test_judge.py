from __future__ import annotations

import subprocess
import sys

import pytest
from assay.result import Finding, Measured

from checks.sae_features import reasons
from checks.sae_features import words as vocabulary
from checks.sae_features.judge import GATED_BY, Gates, words
from checks.sae_features.words import BANNED, CODES, INCONCLUSIVE, TAGS, WHY, WORDS
from tests.checks.sae_features.judge_reported import (
    ALL,
    CONTROLS,
    GATES,
    VARIANTS,
    concepts_owed,
    control,
    judged,
    key,
    measured,
    one_of,
    read,
    with_n,
    with_values,
    without,
    word,
)

Change = dict[str, tuple[float, float]]

CASES: dict[str, tuple[tuple[str, str | None, str | None], str, str, Change, dict[str, str]]] = {
    # what is asked of, word, reason, changed numbers, where
    "usable": (("dictionary", "trained-0", None), "usable", "above_baselines", {}, {}),
    "ev": (("dictionary", "trained-0", None), "lossy", "ev", {"ev": (0.6, 0.01)}, {}),
    "dce_share": (("dictionary", "trained-0", None), "lossy", "dce_share", {"dce_share": (0.09, 0.02)}, {}),
    "gain": (("dictionary", "trained-0", None), "lossy", "code_gain", {"code_gain": (1, 1.0)}, {}),
    "frozen ev": (
        ("dictionary", "trained-0", None), "not_above_baseline", "ev_above_frozen", {"ev_above_frozen": (0.1, 0.2)}, {},
    ),
    "frozen gain": (
        ("dictionary", "trained-0", None), "not_above_baseline", "code_gain_above_frozen",
        {"code_gain_above_frozen": (-3, 1)}, {},
    ),
    "twin gain": (
        ("dictionary", "trained-0", None), "not_above_baseline", "code_gain_above_twin",
        {"code_gain_above_twin": (1, 2)}, {},
    ),
    "short": (("dictionary", "trained-0", None), INCONCLUSIVE, "short_stream", {"train_tokens": (2e5, 0)}, {}),
    "misread": (
        ("dictionary", "supplied", None), INCONCLUSIVE, "convention_unconfirmed", {"convention_confirmed": (0, 0)}, {},
    ),
    "dense": (("concept", None, "trigger"), "dense_carries", "delta_sae+delta_frozen", {"delta_frozen": (0, 0.01)}, {}),
    "adds": (
        ("concept", None, "trigger"), "sae_adds", "adds_to_dense",
        {"delta_sae": (0.03, 0.01), "delta_frozen": (0.3, 0.05)}, {},
    ),
    "frozen reads it too": (
        ("concept", None, "trigger"), "dense_carries", "delta_frozen",
        {"delta_sae": (0.03, 0.01), "delta_frozen": (0.01, 0.05)}, {},
    ),
    "surface": (("concept", None, "trigger"), "surface_explains", "delta_surface", {"delta_surface": (0.01, 0.02)}, {}),
    "silence": (("concept", None, "trigger"), "not_detected", "no_separation", {"auroc": (0.52, 0.05)}, {}),
    "no p": (("concept", None, "trigger"), "not_detected", "no_separation", {"concept_p_holm": (0.2, 0)}, {}),
    "weak": (
        ("concept", None, "trigger"), INCONCLUSIVE, "power_too_low", {"auroc": (0.52, 0.05), "power": (0.5, 0.1)}, {},
    ),
    "through error": (
        ("causal", "trained-0", "trigger"), "through_error", "error_share", {"error_share": (1, 0.1)}, {},
    ),
    "no effect": (
        ("causal", "trained-0", "trigger"), "no_effect_beyond_controls", "p_above_alpha", {"effect_p_holm": (0.3, 0)},
        {},
    ),
    "small effect": (
        ("causal", "trained-0", "trigger"), "no_effect_beyond_controls", "too_small", {"relative_effect": (-0.1, 0.05)},
        {},
    ),
    "stronger without": (
        ("causal", "trained-0", "trigger"), INCONCLUSIVE, "effect_reversed", {"relative_effect": (0.7, 0.05)}, {},
    ),
    "through latents": (("causal", "trained-0", "trigger"), "through_latents", "effect_holds", {}, {}),
    "halves": (
        ("causal", "trained-0", "trigger"), INCONCLUSIVE, "error_share_undecided", {"error_share": (0.5, 0.1)}, {},
    ),
    "poor dictionary": (
        ("causal", "trained-0", "trigger"), INCONCLUSIVE, "dictionary_not_usable", {"ev": (0.3, 0.1)}, {},
    ),
    "chance latents": (
        ("causal", "trained-0", "trigger"), INCONCLUSIVE, "latents_do_not_read", {"concept_p_holm": (0.4, 0)}, {},
    ),
    "blind latents": (
        ("causal", "trained-0", "trigger"), INCONCLUSIVE, "latents_do_not_read", {"auroc": (0.6, 0.05)},
        {"probe": "sparse_5"},
    ),
    "validated": (("attribution", "trained-0", "trigger"), "validated", "gradient+ig", {}, {}),
    "ig alone": (
        ("attribution", "trained-0", "trigger"), "validated", "ig", {"attribution_rho": (0.59, 0)},
        {"form": "gradient"},
    ),
    "exact": (
        ("attribution", "trained-0", "trigger"), "exact_only", "attribution", {"attribution_rho": (0.6, 0)}, {},
    ),
    "agrees": (("provenance", "supplied", None), "supplied_agrees", "same_on_both", {}, {}),
    "alike only in their poverty": (
        ("provenance", "supplied", None), INCONCLUSIVE, "no_reference", {"ev": (0.3, 0.1)}, {},
    ),
    "nobody reads it": (
        ("provenance", "supplied", None), INCONCLUSIVE, "nothing_detected", {"auroc": (0.52, 0.05)}, {},
    ),
    "all equally blind": (
        ("provenance", "supplied", None), INCONCLUSIVE, "no_reference+too_wide", {"delta_blind": (-0.4, 0.05)}, {},
    ),
    "one is hardly measured": (
        ("provenance", "supplied", None), INCONCLUSIVE, "too_wide", {"delta_blind": (0, 0.5)},
        {"dictionary": "supplied"},
    ),
    "its error is hardly measured": (
        ("provenance", "supplied", None), INCONCLUSIVE, "too_wide", {"error_share": (0.3, 0.5)},
        {"dictionary": "supplied"},
    ),
    "error of the reference": (
        ("provenance", "supplied", None), INCONCLUSIVE, "no_reference", {"error_share": (0.6, 0.2)},
        {"dictionary": "trained-0"},
    ),
    "one concept is not there to compare": (
        ("provenance", "supplied", None), "supplied_agrees", "same_on_both", {"concept_p_holm": (0.4, 0)},
        {"concept": "mode"},
    ),
    "blind": (
        ("provenance", "supplied", None), "supplied_disagrees", "blind", {"delta_blind": (-0.4, 0.05)},
        {"dictionary": "supplied", "concept": "trigger"},
    ),
    "hidden": (
        ("provenance", "supplied", None), "supplied_disagrees", "error_share", {"error_share": (1, 0.1)},
        {"dictionary": "supplied"},
    ),
    "changed": (("diff", "trained-0", "trigger"), "changed", "p_below_alpha", {"diff_p_holm": (0.01, 0)}, {}),
    "unseen by a weak comparison": (
        ("diff", "trained-0", "trigger"), INCONCLUSIVE, "power_too_low", {"diff_power": (0.7, 0.1)}, {},
    ),
    "unseen by a poor dictionary": (
        ("diff", "trained-0", "trigger"), INCONCLUSIVE, "dictionary_not_usable", {"ev": (0.3, 0.1)}, {},
    ),
    "too few swaps": (
        ("diff", "trained-0", "trigger"), INCONCLUSIVE, "p_resolution", {"diff_swaps": (38, 0)}, {},
    ),
    "just enough swaps": (
        ("diff", "trained-0", "trigger"), "no_change_detected", "p_above_alpha", {"diff_swaps": (39, 0)}, {},
    ),
    "changed in a poor dictionary": (
        ("diff", "trained-0", "trigger"), "changed", "p_below_alpha", {"diff_p_holm": (0.01, 0), "ev": (0.3, 0.1)}, {},
    ),
    "same": (("diff", "trained-0", "trigger"), "no_change_detected", "p_above_alpha", {}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_row_of_the_table_has_its_word(name: str) -> None:
    of, expected, why, changes, at = CASES[name]
    found = one_of(judged(with_values(ALL, changes, **at)), *of)
    assert (found.word, found.labels["reason"]) == (expected, why)


def test_the_organism_with_a_trigger_has_the_words_of_the_specification() -> None:
    found = judged(ALL)
    assert word(found, "dictionary", "trained-0") == "usable"
    assert word(found, "concept", None, "trigger") == "dense_carries"
    assert word(found, "causal", "trained-0", "trigger") == "through_latents"
    assert "Still readable in the residual, AUROC 0.890" in one_of(found, "causal", "trained-0", "trigger").claim
    assert word(found, "attribution", "trained-0", "trigger") == "validated"
    assert {one.severity for one in found} == {"note"}
    assert [one.code for one in found] == sorted((one.code for one in found), key=("dictionary", "concept", "causal",
        "attribution", "provenance", "diff").index)  # fmt: skip


def test_a_doctored_dictionary_is_seen_through() -> None:
    doctored = with_values(ALL, {"delta_blind": (-0.4, 0.03), "delta_sae": (-0.4, 0.03)}, dictionary="supplied")
    doctored = with_values(doctored, {"error_share": (1.03, 0.05), "effect_p_holm": (0.8, 0)}, dictionary="supplied")
    doctored = with_values(doctored, {"dce_share": (0.104, 0.01)}, dictionary="supplied")
    found = judged(doctored)
    assert one_of(found, "concept", "supplied", "trigger").labels["tags"] == "sae_blind"
    causal = one_of(found, "causal", "supplied", "trigger")
    assert (causal.word, causal.labels["also"]) == ("through_error", "no_effect_beyond_controls")
    provenance = one_of(found, "provenance", "supplied", None)
    assert (provenance.word, provenance.severity) == ("supplied_disagrees", "concern")
    assert word(found, "concept", None, "trigger") == "dense_carries"


def test_a_watched_concept_is_a_concern_where_it_is_there() -> None:
    watch = Gates(watch=("trigger",))
    found = judged(ALL, gates=watch)
    assert {key(one) for one in found if one.severity == "concern"} == {
        ("concept", None, "trigger"), ("concept", "supplied", "trigger"),
        ("causal", "trained-0", "trigger"), ("causal", "supplied", "trigger"),
    }  # fmt: skip
    silent = judged(with_values(ALL, {"auroc": (0.5, 0.05)}), gates=watch)
    assert one_of(silent, "concept", None, "trigger").severity == "note"


def test_a_share_that_is_not_defined_is_unmet_and_one_that_was_not_measured_is_not() -> None:
    shareless = without(ALL, lambda one: one.name == "dce_share")
    harmless = judged(with_values(shareless, {"delta_ce_mean": (0.01, 0.005)}))
    assert one_of(harmless, "dictionary", "trained-0", None).labels["reason"] == "dce_share"
    assert word(judged(shareless), "dictionary", "trained-0") == INCONCLUSIVE
    tensors = one_of(judged(shareless, skipped=[("dce_share", "no_replay")]), "dictionary", "trained-0", None)
    assert (tensors.word, tensors.labels["tags"]) == ("usable", "dce_not_measured")
    assert "not measured" in tensors.claim


def test_one_seed_decides_nothing_for_the_others() -> None:
    adds = with_values(ALL, {"delta_sae": (0.03, 0.01), "delta_frozen": (0.3, 0.05)})
    split = one_of(judged(with_values(adds, {"delta_sae": (0, 0.01)}, dictionary="trained-1")), "concept", None, "mode")
    assert (split.word, split.labels["tags"]) == ("dense_carries", "seed_dependent")
    alone = without(adds, lambda one: one.labels.get("dictionary") == "trained-1")
    assert word(judged(alone), "concept", None, "mode") == INCONCLUSIVE
    assert word(judged(adds, gates=Gates(seeds=3)), "concept", None, "mode") == INCONCLUSIVE
    unseen = with_values(adds, {"auroc": (0.5, 0.05)}, probe="dense")
    unseen = with_values(unseen, {"auroc": (0.5, 0.05)}, probe="sparse_5", dictionary="trained-1")
    found = one_of(judged(unseen), "concept", None, "mode")
    assert (found.word, found.labels["reason"]) == (INCONCLUSIVE, "seed_dependent")


def test_an_untrained_dictionary_is_not_good() -> None:
    poor = with_values(ALL, {"ev": (0.04, 0.02), "code_gain": (-60, 3)})
    found = judged(poor)
    assert one_of(found, "dictionary", "trained-0", None).labels["reason"] == "ev+code_gain"
    assert word(found, "causal", "trained-0", "trigger") == INCONCLUSIVE


@pytest.mark.parametrize("edit", ["mean_error", "only_no_error"])
def test_no_word_says_through_latents_without_the_whole_battery(edit: str) -> None:
    found = one_of(judged(without(ALL, lambda one: one.labels.get("edit") == edit)), "causal", "trained-0", "mode")
    assert (found.word, found.labels["reason"]) == (INCONCLUSIVE, "battery_incomplete")


def test_behaviour_that_does_not_show_and_a_refused_concept_are_said() -> None:
    edits = {"margin", "effect", "relative_effect", "effect_p", "effect_p_holm", "error_share", "attribution_rho"}
    left = without(ALL, lambda one: one.name in edits | {"matched_share"} or one.labels.get("concept") == "mode")
    found = judged(left, skipped=[("contrast:trigger", "behaviour_absent"), ("concept:mode", "too_few_groups")])
    absent = one_of(found, "causal", "trained-0", "trigger")
    assert (absent.word, absent.labels["reason"]) == (INCONCLUSIVE, "behaviour_absent")
    refused = one_of(found, "concept", None, "mode")
    assert (refused.word, refused.labels["reason"]) == (INCONCLUSIVE, "too_few_groups")
    assert word(found, "provenance", "supplied") == INCONCLUSIVE


def test_a_missed_control_gates_its_codes_and_no_other() -> None:
    full = {key(one): one.word for one in judged(ALL)}
    for name in (*GATED_BY, "stranger"):
        gated = GATED_BY.get(name, frozenset(CODES))
        for of, said in {key(one): one.word for one in judged(ALL, missed=[name])}.items():
            if of[0] in gated:
                assert said == INCONCLUSIVE, (name, of)
            elif not (of[0] in ("causal", "attribution", "provenance", "diff") and "dictionary" in gated):
                assert said == full[of], (name, of)
    assert word(judged(ALL, missed=["matched_latents"]), "dictionary", "trained-0") == "usable"
    assert word(judged(ALL, missed=["random-weights"]), "dictionary", "trained-0") == INCONCLUSIVE
    results = [control(name, held=name != "frozen_decoder") for name in CONTROLS]
    assert word(words(GATES, measured(ALL), results, ()), "dictionary", "trained-0") == INCONCLUSIVE


def test_silence_of_a_p_that_could_never_reach_alpha_over_so_many_concepts_is_not_told() -> None:
    silent = with_values(ALL, {"effect_p_holm": (0.3, 0)})
    told = {}
    for count, sets in ((2, 39), (2, 38), (5, 99), (6, 99), (6, 119), (16, 319), (16, 318)):
        real = concepts_owed(measured(with_n(silent, {"effect_p": sets})), count)
        found = words(GATES, real, [control(name) for name in CONTROLS], ())
        one = one_of(found, "causal", "trained-0", "trigger")
        told[count, sets] = one.labels["reason"]
        assert ("no_effect" in one.word) == (one.labels["reason"] == "p_above_alpha")
    few, enough = "too_few_controls", "p_above_alpha"
    assert told == {
        (2, 39): enough, (2, 38): few, (5, 99): enough, (6, 99): few, (6, 119): enough, (16, 319): enough,
        (16, 318): few,
    }  # fmt: skip
    swapped = words(GATES, concepts_owed(measured(ALL), 11), [control(name) for name in CONTROLS], ())
    assert one_of(swapped, "diff", "trained-0", "mode").labels["reason"] == "p_resolution"


def test_only_concepts_with_contrasts_are_tests_of_effects() -> None:
    silent = measured(with_values(ALL, {"effect_p_holm": (0.3, 0)}))
    real = concepts_owed(silent, 16)
    assert one_of(words(GATES, real, (), ()), "causal", "trained-0", "mode").labels["reason"] == "too_few_controls"
    named = real.model_copy(update={"coverage": {**real.coverage, "contrast": ("mode", "trigger")}})
    assert word(words(GATES, named, (), ()), "causal", "trained-0", "mode") == "no_effect_beyond_controls"


def test_a_control_that_was_lost_is_still_counted_among_the_tests() -> None:
    edge = with_values(with_n(ALL, {"effect_p": 38}), {"effect_p_holm": (0.3, 0), "diff_swaps": (38, 0)})
    alone = judged(without(edge, lambda one: one.labels.get("concept") == "mode"))
    assert word(alone, "causal", "trained-0", "trigger") == INCONCLUSIVE
    assert word(alone, "diff", "trained-0", "trigger") == INCONCLUSIVE


def test_three_latents_in_the_same_order_validate_nothing() -> None:
    for n, expected in ((3, INCONCLUSIVE), (9, INCONCLUSIVE), (10, "validated")):
        found = one_of(judged(with_n(ALL, {"attribution_rho": n})), "attribution", "trained-0", "trigger")
        assert found.word == expected
        assert n >= 10 or found.labels["reason"] == "too_few_latents"


@pytest.mark.parametrize("name", ["matched_latents", "random_directions", "residual_replay"])
def test_attribution_rests_on_the_controls_of_edits_and_on_a_usable_dictionary(name: str) -> None:
    assert word(judged(ALL, missed=[name]), "attribution", "trained-0", "trigger") == INCONCLUSIVE
    poor = one_of(judged(with_values(ALL, {"ev": (0.3, 0.1)})), "attribution", "trained-0", "trigger")
    assert (poor.word, poor.labels["reason"]) == (INCONCLUSIVE, "dictionary_not_usable")


def test_a_model_without_an_output_has_no_words() -> None:
    edits = ("margin", "effect", "relative_effect", "effect_p", "effect_p_holm", "error_share", "attribution_rho")
    outputs = (*edits, "dce_share", "delta_ce_mean", "matched_share")
    for changes in ({}, {"diff_p_holm": (0.01, 0.0)}, {"delta_blind": (-0.4, 0.01)}):
        encoder = without(with_values(ALL, changes, concept="mode"), lambda one: one.name in outputs)
        found = judged(encoder, skipped=[("dce_share", "no_replay")], missed=["random_weights"])
        assert {one.word for one in found} == {INCONCLUSIVE}
        assert {"dictionary", "concept", "provenance", "diff"} == {one.code for one in found}


def test_no_change_tells_which_change_would_have_been_seen() -> None:
    assert "comes on at 0.25 of its rows would have been seen" in one_of(
        judged(ALL), "diff", "trained-0", "mode").claim  # fmt: skip
    unknown = one_of(judged(without(ALL, lambda one: one.name == "diff_power")), "diff", "trained-0", "mode")
    assert (unknown.word, unknown.labels["unmeasured"]) == (INCONCLUSIVE, "diff_power")


def test_matched_sets_are_told_beside_their_effect() -> None:
    found = judged(with_values(ALL, {"effect_p_holm": (0.3, 0)}))
    assert "99 matched sets have mean -0.050" in one_of(found, "causal", "trained-0", "mode").claim


def _all_findings() -> list[Finding]:
    told = [one for *_, changes, at in CASES.values() for one in judged(with_values(ALL, changes, **at))]
    told += [one for metrics in VARIANTS for one in judged(metrics)]
    told += [one for name in (*GATED_BY, "stranger") for one in judged(ALL, missed=[name])]
    told += judged(ALL, skipped=[("contrast:mode", "behaviour_absent"), ("concept:mode", "too_few_groups")])
    told += judged(without(ALL, lambda one: one.name == "dce_share"), skipped=[("dce_share", "no_replay")])
    told += judged(without(ALL, lambda one: one.labels.get("edit") == "only"))
    told += judged([read("diff_ev", 0.1, 0.05, dictionary="trained-0")])
    told += judged(with_values(ALL, {"matched_share": (0.5, 0)}))
    told += judged(with_values(ALL, {"ev": (0.97, 0.01)}))
    told += judged(without(ALL, lambda one: one.name in ("ev", "power", "delta_sae", "attribution_rho", "error_share")))
    unseen = with_values(ALL, {"auroc": (0.5, 0.05)}, probe="dense")
    told += judged(with_values(unseen, {"auroc": (0.5, 0.05)}, probe="sparse_5", dictionary="trained-1"))
    told += judged(with_values(with_n(ALL, {"effect_p": 38}), {"effect_p_holm": (0.3, 0)}))
    told += judged([])
    return told


def test_no_text_says_what_is_banned_and_every_word_reason_and_tag_can_be_said() -> None:
    told = _all_findings()
    for one in told:
        assert not [text for text in BANNED if text in one.claim.lower()], one.claim
        assert len(one.claim) < 512, one.claim
        assert not one.claim.endswith("..."), one.claim
    assert {one.word for one in told} == set(WORDS)
    assert {one.code for one in told} == set(CODES)
    given_reasons = {part for one in told for part in one.labels.get("reason", "").split("+")}
    assert given_reasons - set(reasons.REASONS) - set(WHY) == set()
    assert set(WHY) - given_reasons == set()
    assert {part for one in told for part in one.labels.get("tags", "").split("+") if part} == set(TAGS)
    assert {part for one in told for part in one.labels.get("also", "").split("+") if part} <= vocabulary.ASIDE


def test_a_finding_rests_on_numbers_that_are_there() -> None:
    real = measured(ALL)
    for one in judged(ALL):
        assert one.rests_on, one.code
        assert all(real.find(ref.name, **ref.labels) is not None for ref in one.rests_on)


def test_a_judge_loads_no_torch() -> None:
    code = (
        "import sys; import checks.sae_features.judge, checks.sae_features.reasons, checks.sae_features.metric_specs;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_an_empty_answer_claims_nothing() -> None:
    assert {one.word for one in words(GATES, Measured(), (), ())} <= {INCONCLUSIVE}


def test_what_was_left_out_of_one_dictionary_is_the_reason_of_its_word() -> None:
    left = without(ALL, lambda one: one.labels.get("dictionary") == "supplied")
    skipped = [
        ("dictionary:supplied", "wrong_width"),
        ("contrast:mode:supplied", "too_few_latents"),
        ("diff:mode", "tokens_differ"),
    ]
    found = judged(left, skipped=skipped)
    assert one_of(found, "dictionary", "supplied", None).labels["reason"] == "wrong_width"
    assert one_of(found, "causal", "supplied", "mode").labels["reason"] == "too_few_latents"
    assert one_of(found, "diff", "trained-0", "mode").labels["reason"] == "tokens_differ"
    assert word(found, "provenance", "supplied") == INCONCLUSIVE
    assert word(found, "dictionary", "trained-0") == "usable"


def test_a_supplied_dictionary_alone_is_judged_by_itself() -> None:
    trained = ("train_tokens", "latents")
    alone = without(ALL, lambda m: m.labels.get("dictionary", "").startswith("trained") and m.name not in trained)
    real = measured(alone).model_copy(update={"coverage": {"concept": ("mode",), "dictionary": ("supplied",)}})
    found = words(Gates(seeds=0), real, [control(name) for name in CONTROLS], ())
    assert word(found, "dictionary", "supplied") == "usable"
    assert word(found, "concept", "supplied", "mode") == "dense_carries"
    assert word(found, "causal", "supplied", "mode") == "through_latents"
    assert {one.code for one in found} == {"dictionary", "concept", "causal", "attribution"}
