from __future__ import annotations

from collections import Counter

from assay.result import NAME

from checks.sae_features.metric_specs import METRICS

LABELS = {
    "site", "dictionary", "concept", "probe", "shift", "edit", "band", "epsilon", "place", "amplitude", "layer",
    "cell", "model", "form", "latent", "rank", "target", "statement",
}  # fmt: skip


def test_a_metric_is_specified_once() -> None:
    assert [name for name, times in Counter(one.name for one in METRICS).items() if times > 1] == []


def test_names_units_and_labels_are_in_the_name_alphabet() -> None:
    for one in METRICS:
        assert all(NAME.fullmatch(part) for part in (one.name, one.unit, *one.labels)), one.name
        assert one.unit in {"1", "fraction", "nats", "bits", "count"}, one.name
        assert set(one.labels) <= LABELS, one.name


def test_a_number_is_exact_or_says_that_it_has_no_interval_or_is_estimated() -> None:
    for one in METRICS:
        if one.determinism == "tolerance":
            assert "No interval" in one.summary, one.name
        if one.unit == "count" and one.determinism == "exact":
            assert one.better == "none", one.name


def test_every_name_of_the_specification_is_there() -> None:
    promised = {
        "ev", "ev_position", "mse", "cosine", "shrink_gamma", "norm_ratio", "l0", "dead", "dense01", "dense10",
        "delta_ce", "delta_ce_zero", "delta_ce_mean", "dce_share", "kl", "top1_agree", "tv", "duplicates",
        "enc_dec_cosine", "code_gain", "ev_above_frozen", "code_gain_above_frozen", "code_gain_above_twin",
        "auroc", "delta_sae", "delta_surface", "delta_frozen", "concept_p", "concept_p_holm", "effect",
        "relative_effect", "effect_p_holm", "error_share", "margin", "attribution_rho", "power",
        "ce_twin_excess", "frozen_rows_equal",
    }  # fmt: skip
    assert promised <= {one.name for one in METRICS}
