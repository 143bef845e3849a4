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
    control,
    judged,
    key,
    measured,
    one_of,
    read,
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
    "blind": (
        ("provenance", "supplied", None), "supplied_disagrees", "blind", {"delta_blind": (-0.4, 0.05)},
        {"dictionary": "supplied", "concept": "trigger"},
    ),
    "hidden": (
        ("provenance", "supplied", None), "supplied_disagrees", "error_share", {"error_share": (1, 0.1)},
        {"dictionary": "supplied"},
    ),
    "changed": (("diff", "trained-0", "trigger"), "changed", "p_below_alpha", {"diff_p_holm": (0.01, 0)}, {}),
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
            elif not (of[0] == "causal" and "dictionary" in gated):
                assert said == full[of], (name, of)
    assert word(judged(ALL, missed=["matched_latents"]), "dictionary", "trained-0") == "usable"
    assert word(judged(ALL, missed=["random-weights"]), "dictionary", "trained-0") == INCONCLUSIVE
    results = [control(name, held=name != "frozen_decoder") for name in CONTROLS]
    assert word(words(GATES, measured(ALL), results, ()), "dictionary", "trained-0") == INCONCLUSIVE


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
