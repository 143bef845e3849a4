"""What a concept's latents do to the behaviour, and what gradients say of it: `causal` and `attribution`.

Specification: sections 8 and 12.
"""

from __future__ import annotations

from dataclasses import replace

from assay.result import Metric, NullDistribution

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
    said,
    untold,
    with_tags,
)
from checks.sae_features.judge_concepts import probes
from checks.sae_features.judge_dictionary import missed_of
from checks.sae_features.judge_readings import FIRST, Gates, Readings, high, low, present, value
from checks.sae_features.words import (
    EXACT_ONLY,
    INCONCLUSIVE,
    NO_EFFECT,
    THROUGH_ERROR,
    THROUGH_LATENTS,
    VALIDATED,
)

BATTERY = ("unedited", "xhat", "mean", "mean_error", "ablated", "ablated_no_error", "only", "only_no_error")
"""Edits of the residual battery (section 8.2); one that is not there leaves it incomplete."""

HALF = 0.5
"""Share of the behaviour through the error above which it, and below which the latents, carry most (section 12)."""

READABLE = 0.60
"""Lower bound of `residual_dense` above which the sentence of the residual is said (section 12)."""

MATCHED_LEAST = 0.9
"""Share of control draws within .6 of the log mass below which `poorly_matched` is noted (section 10)."""

RANKED_LEAST = 10
"""Latents behind a rank correlation below which it says nothing: three in one order are one draw of six."""

FORMS = ("gradient", "ig")
"""Ways to attribute (section 8.3)."""

OF_EDITS = ("margin", "effect", "relative_effect", "effect_p_holm", "error_share")
"""Metrics whose presence says that interventions were asked."""


def edited(readings: Readings) -> tuple[tuple[str, str], ...]:
    """Return every (dictionary, concept) whose latents were edited, or were to be."""
    told = [one.labels for name in OF_EDITS for one in readings.by_name.get(name, {}).values()]
    pairs = [(at["dictionary"], at["concept"]) for at in told if {"dictionary", "concept"} <= at.keys()]
    concepts = readings.values("concept")
    owed = [(FIRST, name) for name in concepts if readings.why_skipped(f"contrast:{name}")]
    owed += [
        (one, name) for name in concepts for one in readings.judged() if readings.why_skipped(f"contrast:{name}:{one}")
    ]
    return (*dict.fromkeys(sorted((*pairs, *owed))),)


def causal_verdict(readings: Readings, dictionary: str, concept: str, usable: Truth, gates: Gates) -> Verdict:
    """Return the word of what a concept's latents do.

    Args:
        readings: the numbers.
        dictionary: whose latents.
        concept: its name.
        usable: whether the dictionary was found usable.
        gates: thresholds.
    """
    at = {"dictionary": dictionary, "concept": concept}
    share, p, relative, effect, matched = (
        readings.find(name, **at)
        for name in ("error_share", "effect_p_holm", "relative_effect", "effect", "matched_share")
    )
    battery = [readings.find("margin", **at, edit=edit) for edit in BATTERY]
    residual = residual_of(readings, dictionary, concept)
    skipped = readings.why_skipped(f"contrast:{concept}", f"contrast:{concept}:{dictionary}")
    found = compared(value(p), lambda p: p <= gates.alpha)
    null = null_of(readings, dictionary, concept)
    coarse = readings.unresolved(None if null is None else null.n, "effect_p_holm", gates.alpha, over="contrast")
    rules = (
        Rule.of_any(
            INCONCLUSIVE,
            Part("control_missed", bool(readings.gating("causal"))),
            Part(skipped or "not_measured", skipped is not None),
        ),
        Rule(THROUGH_ERROR, through_error(readings, dictionary, concept), ("error_share",), ("error_share",)),
        Rule.of_any(
            INCONCLUSIVE,
            Part("battery_incomplete", None in (*battery, residual)),
            Part("dictionary_not_usable", usable is not True),
        ),
        # Of so few control sets none of any effect could have been told, and silence says nothing.
        Rule.of_any(INCONCLUSIVE, Part("too_few_controls", all_of((negated(found), coarse)), "effect_p")),
        Rule.of_any(
            NO_EFFECT,
            Part("p_above_alpha", negated(found), "effect_p_holm"),
            Part("too_small", compared(_size(relative), lambda size: size < gates.effect_min), "relative_effect"),
        ),
        # Latents that read nothing of a concept were chosen by chance: what they do is not told of the concept.
        # A behaviour that grows without them does not pass through them.
        Rule.of_any(
            INCONCLUSIVE,
            Part("latents_do_not_read", latents_read(readings, dictionary, concept, gates) is not True),
            Part("effect_reversed", compared(low(relative), lambda bound: bound > 0), "relative_effect"),
        ),
        _through_latents(readings, dictionary, concept, relative),
    )
    verdict = with_tags(
        decided("causal", rules, otherwise="error_share_undecided"),
        ("poorly_matched", compared(value(matched), lambda part: part < MATCHED_LEAST)),
    )
    rests = present((share, p, relative, effect, readings.find("effect_p", **at), residual, *battery))
    return replace(verdict, dictionary=dictionary, concept=concept, rests=rests)


def _through_latents(readings: Readings, dictionary: str, concept: str, relative: Metric | None) -> Rule:
    below = not_through_error(readings, dictionary, concept)
    weaker = compared(high(relative), lambda bound: bound < 0)
    return Rule(THROUGH_LATENTS, all_of((below, weaker)), ("effect_holds",), ("error_share",))


def null_of(readings: Readings, dictionary: str | None, concept: str | None) -> NullDistribution | None:
    """Return the effects of matched latents that an effect's p is counted among."""
    p = readings.find("effect_p", dictionary=dictionary, concept=concept)
    return None if p is None else p.null


def latents_read(readings: Readings, dictionary: str, concept: str, gates: Gates) -> Truth:
    """Return whether the latents that are edited read the concept: section 12's rule, for the sparse probe alone."""
    sparse = probes(readings, dictionary, concept)[1]
    p = readings.find("concept_p_holm", dictionary=dictionary, concept=concept)
    return all_of(
        (
            compared(low(sparse), lambda bound: bound > gates.detect_floor),
            compared(value(p), lambda p: p <= gates.alpha),
        )
    )


def not_through_error(readings: Readings, dictionary: str, concept: str) -> Truth:
    """Return whether less than half of the behaviour is shown to pass through what the dictionary leaves out."""
    share = readings.find("error_share", dictionary=dictionary, concept=concept)
    return compared(high(share), lambda bound: bound < HALF)


def through_error(readings: Readings, dictionary: str, concept: str) -> Truth:
    """Return whether most of the behaviour passes through what the dictionary leaves out."""
    share = readings.find("error_share", dictionary=dictionary, concept=concept)
    return compared(low(share), lambda bound: bound > HALF)


def residual_of(readings: Readings, dictionary: str, concept: str) -> Metric | None:
    """Return the AUROC of the dense probe on what the dictionary leaves out."""
    return readings.find("auroc", dictionary=dictionary, concept=concept, probe="residual_dense")


def _size(relative: Metric | None) -> float | None:
    """Return the lower bound of an effect's size: 0 where its interval holds 0."""
    bottom, top = low(relative), high(relative)
    return None if bottom is None or top is None else max(bottom, -top, 0.0)


def causal_claim(readings: Readings, verdict: Verdict) -> str:
    """Return what is said of a concept's latents."""
    at = {"dictionary": verdict.dictionary, "concept": verdict.concept}
    effect, share, relative = (readings.find(name, **at) for name in ("effect", "error_share", "relative_effect"))
    null = null_of(readings, verdict.dictionary, verdict.concept)
    beyond = "" if null is None else f"; {null.n} matched sets have mean {float(null.mean):.3f}"
    did = f"setting its latents to zero changes the margin by {number(effect)} nats{beyond}"
    through = f"share through the error {number(share)}"
    still = _residual(readings, verdict)
    match verdict.word:
        case "through_error":
            return f"the behaviour passes through what the dictionary leaves out: {through}; {did}.{still}"
        case "no_effect_beyond_controls":
            reach = "" if null is None or null.p95 is None else f" Matched sets reach {float(null.p95):.3f} (p95)"
            reach = reach and f"{reach}: an effect below that would not have been seen."
            return f"no effect beyond matched sets was found ({', '.join(map(said, verdict.why))}): {did}.{reach}"
        case "through_latents":
            return f"the behaviour passes through these latents: {did}, relative {number(relative)}; {through}.{still}"
    return f"{untold(verdict)} {did}; {through}.{missed_of(readings, 'causal')}"


def _residual(readings: Readings, verdict: Verdict) -> str:
    """Return the sentence that no word of effects goes without where it holds (section 12)."""
    residual = residual_of(readings, verdict.dictionary or "", verdict.concept or "")
    readable = compared(low(residual), lambda bound: bound > READABLE)
    return f" Still readable in the residual, AUROC {number(residual)}." if readable else ""


def attributed(readings: Readings) -> tuple[tuple[str, str], ...]:
    """Return every (dictionary, concept) with a validation of attribution."""
    told = [one.labels for one in readings.by_name.get("attribution_rho", {}).values()]
    return (*dict.fromkeys(sorted((at["dictionary"], at["concept"]) for at in told)),)


def attribution_verdict(readings: Readings, dictionary: str, concept: str, usable: Truth, gates: Gates) -> Verdict:
    """Return whether attribution by gradients agrees with exact ablation.

    Args:
        readings: the numbers; `n` of a correlation counts the latents that were ablated.
        dictionary: whose latents.
        concept: its name.
        usable: whether the dictionary was found usable.
        gates: thresholds.
    """
    found = {
        form: readings.find("attribution_rho", dictionary=dictionary, concept=concept, form=form) for form in FORMS
    }
    ranked = {form: one if one is not None and one.n >= RANKED_LEAST else None for form, one in found.items()}
    passes = {form: compared(value(one), lambda rho: rho >= gates.attribution_rho) for form, one in ranked.items()}
    few = bool(present(found.values())) and not present(ranked.values())
    rules = (
        Rule.of_any(
            INCONCLUSIVE,
            Part("control_missed", bool(readings.gating("attribution"))),
            Part("dictionary_not_usable", usable is not True),
            Part("too_few_latents", few),
        ),
        Rule.of_any(VALIDATED, *(Part(form, holds, "attribution_rho") for form, holds in passes.items())),
        Rule(EXACT_ONLY, negated(any_of(passes.values())), ("attribution",)),
    )
    verdict = decided("attribution", rules)
    return replace(verdict, dictionary=dictionary, concept=concept, rests=present(found.values()))


def attribution_claim(readings: Readings, verdict: Verdict) -> str:
    """Return what is said of attribution."""
    at = {"dictionary": verdict.dictionary, "concept": verdict.concept}
    told = ", ".join(f"{form} {number(readings.find('attribution_rho', **at, form=form))}" for form in FORMS)
    ranks = f"rank correlation with exact ablation: {told}"
    if verdict.word == VALIDATED:
        return f"attribution ranks latents as exact ablation does ({', '.join(verdict.why)}); {ranks}."
    if verdict.word == EXACT_ONLY:
        return f"no form of attribution ranks latents as exact ablation does; only exact effects are told; {ranks}."
    return f"{untold(verdict)} {ranks}.{missed_of(readings, 'attribution')}"
