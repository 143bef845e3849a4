"""What is said across dictionaries and across models: `provenance` and `diff`. Specification: section 12."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from assay.result import Metric

from checks.sae_features.findings import (
    Part,
    Rule,
    Truth,
    Verdict,
    all_of,
    any_of,
    compared,
    decided,
    negated,
    number,
    untold,
)
from checks.sae_features.judge_causes import residual_of, through_error
from checks.sae_features.judge_concepts import read_of
from checks.sae_features.judge_dictionary import missed_of
from checks.sae_features.judge_readings import FIRST, SUPPLIED, Gates, Readings, present, value
from checks.sae_features.words import CHANGED, INCONCLUSIVE, NO_CHANGE_DETECTED, SUPPLIED_AGREES, SUPPLIED_DISAGREES

CONDITIONAL = "conditional"
"""The form of the difference that is judged; the plain one shows drift first (section 8.4)."""

OF_DIFF = ("diff_ev", "diff_p", "diff_p_holm", "diff_power", "diff_rate", "diff_mean_on", "latent_scale_ratio")


def provenance_verdict(readings: Readings, concepts: Sequence[str], gates: Gates) -> Verdict:
    """Return whether a supplied dictionary hides what trained ones show.

    Args:
        readings: the numbers.
        concepts: every concept that is owed; one that cannot be compared leaves agreement open.
        gates: thresholds.
    """
    blind: list[Truth] = []
    error: list[Truth] = []
    rests: list[Metric] = []
    for concept in concepts:
        reads = {name: read_of(readings, name, concept, gates) for name in (SUPPLIED, *readings.trained)}
        trained = any_of(negated(reads[name].blind) for name in readings.trained)
        blind.append(all_of((reads[SUPPLIED].blind, trained)))
        error.append(_error_alone(readings, concept))
        for name in (SUPPLIED, *readings.trained):
            at = {"dictionary": name, "concept": concept}
            rests += present((readings.find("delta_blind", **at), readings.find("error_share", **at)))
    differs = Rule.of_any(
        SUPPLIED_DISAGREES,
        *(Part("blind", one, "delta_blind") for one in blind),
        *(Part("error_share", one) for one in error),
    )
    rules = (
        Rule.of_any(
            INCONCLUSIVE,
            Part("control_missed", bool(readings.gating("provenance"))),
            Part("not_measured", not concepts),
        ),
        differs,
        Rule(SUPPLIED_AGREES, negated(differs.holds), ("same_on_both",)),
    )
    return replace(decided("provenance", rules), dictionary=SUPPLIED, rests=tuple(rests))


def _error_alone(readings: Readings, concept: str) -> Truth:
    """Return whether the behaviour passes through the error of the supplied dictionary, and not of the trained one."""
    return all_of((through_error(readings, SUPPLIED, concept), negated(through_error(readings, FIRST, concept))))


def provenance_claim(readings: Readings, verdict: Verdict, concepts: Sequence[str]) -> str:
    """Return what is said of a supplied dictionary beside the trained ones."""
    stated = [one.labels["statement"] for one in readings.real.named("stated") if "statement" in one.labels]
    by_sender = f" The sender states, not verified: {', '.join(stated)}." if stated else ""
    told = []
    for concept in concepts:
        shares = [readings.find("error_share", dictionary=name, concept=concept) for name in (SUPPLIED, FIRST)]
        blind = readings.find("delta_blind", dictionary=SUPPLIED, concept=concept)
        still = residual_of(readings, SUPPLIED, concept)
        told.append(
            f"{concept}: sparse less dense {number(blind)}, share through the error {number(shares[0])} against "
            f"{number(shares[1])} trained, residual AUROC {number(still)}"
        )
    detail = "; ".join(told)
    match verdict.word:
        case "supplied_disagrees":
            what = {"blind": "is blind where", "error_share": "leaves the behaviour to its error where"}
            said = " and ".join(what[why] for why in verdict.why)
            return f"the supplied dictionary {said} a trained one does not. {detail}.{by_sender}"
        case "supplied_agrees":
            return f"the supplied dictionary shows what trained ones show, of these concepts. {detail}.{by_sender}"
    return f"{untold(verdict)}{missed_of(readings, 'provenance')}{by_sender}"


def diffed(readings: Readings) -> tuple[tuple[str, str | None], ...]:
    """Return every (dictionary, concept) that two models are compared by; no concept without conditional rates."""
    told = [one.labels for name in ("diff_p", "diff_p_holm") for one in readings.by_name.get(name, {}).values()]
    pairs = sorted({(at["dictionary"], at["concept"]) for at in told if at.get("form") == CONDITIONAL})
    by = sorted(readings.values("dictionary", OF_DIFF))
    pairs += [(name, one) for one in readings.values("concept") if readings.why_skipped(f"diff:{one}") for name in by]
    return (*dict.fromkeys(pairs),) if pairs else tuple((name, None) for name in by)


def diff_verdict(readings: Readings, dictionary: str, concept: str | None, gates: Gates) -> Verdict:
    """Return whether latents fire at another rate than in the base model, where the concept is there."""
    at = {"dictionary": dictionary, "concept": concept}
    p = readings.find("diff_p_holm", **at, form=CONDITIONAL) if concept else None
    power = [one for one in readings.real.named("diff_power") if at.items() <= one.labels.items()] if concept else []
    skipped = readings.why_skipped(f"diff:{concept}")
    moved = compared(value(p), lambda number: number <= gates.alpha)
    rules = (
        Rule.of_any(
            INCONCLUSIVE,
            Part("control_missed", bool(readings.gating("diff"))),
            Part("no_conditional_rates", concept is None),
            Part(skipped or "not_measured", skipped is not None),
        ),
        Rule(CHANGED, moved, ("p_below_alpha",), ("diff_p_holm",)),
        Rule(NO_CHANGE_DETECTED, True if power else None, ("p_above_alpha",), ("diff_power",)),
    )
    verdict = decided("diff", rules)
    return replace(verdict, dictionary=dictionary, concept=concept, rests=present((p, *power)))


def diff_claim(readings: Readings, verdict: Verdict) -> str:
    """Return what is said of two models."""
    p = next((one for one in verdict.rests if one.name == "diff_p_holm"), None)
    power = ", ".join(
        f"{number(one)} at {one.labels.get('amplitude', 'its plant')}"
        for one in verdict.rests
        if one.name == "diff_power"
    )
    tested = f"largest change over latents, p {number(p)} after Holm, models swapped by group"
    match verdict.word:
        case "changed":
            return f"latents fire at another rate than in the base model where the concept is there; {tested}."
        case "no_change_detected":
            return f"no change of rates was detected where the concept is there; {tested}; power {power}."
    return f"{untold(verdict)} {tested}.{missed_of(readings, 'diff')}"
