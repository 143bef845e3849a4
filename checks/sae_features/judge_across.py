"""What is said across dictionaries and across models: `provenance` and `diff`. Specification: section 12."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

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
from checks.sae_features.judge_causes import not_through_error, residual_of, through_error
from checks.sae_features.judge_concepts import POWER_LEAST, read_of
from checks.sae_features.judge_dictionary import missed_of
from checks.sae_features.judge_readings import FIRST, SUPPLIED, Gates, Readings, present, value
from checks.sae_features.words import CHANGED, INCONCLUSIVE, NO_CHANGE_DETECTED, SUPPLIED_AGREES, SUPPLIED_DISAGREES

CONDITIONAL = "conditional"
"""The form of the difference that is judged; the plain one shows drift first (section 8.4)."""

OF_DIFF = ("diff_ev", "diff_p", "diff_p_holm", "diff_power", "diff_rate", "diff_mean_on", "latent_scale_ratio")


@dataclass(frozen=True)
class Beside:
    """How a supplied dictionary and the trained ones stand to each other, of one concept."""

    blind: Truth
    """The supplied one is blind and a trained one is not."""
    error: Truth
    """The behaviour passes through the error of the supplied one alone."""
    seen: Truth
    """Some dictionary's probes detect it; of a concept that none detects nothing can be alike."""
    reference: Truth
    """A usable trained dictionary detects it, is shown not to be blind, and leaves the behaviour to its latents."""
    alike: Truth
    """The supplied one is shown not to be blind, and to leave the behaviour to its latents."""


def _beside(readings: Readings, concept: str, usable: Mapping[str, Truth], gates: Gates) -> Beside:
    trained = {name: read_of(readings, name, concept, gates) for name in readings.trained}
    supplied = read_of(readings, SUPPLIED, concept, gates)
    latents = {name: not_through_error(readings, name, concept) for name in (SUPPLIED, FIRST)}
    good = [all_of((usable.get(name), one.detected, one.sighted)) for name, one in trained.items()]
    return Beside(
        blind=all_of((supplied.blind, any_of(negated(one.blind) for one in trained.values()))),
        error=_error_alone(readings, concept),
        seen=any_of(one.detected for one in (supplied, *trained.values())),
        reference=all_of((any_of(good), usable.get(FIRST), latents[FIRST])),
        alike=all_of((supplied.sighted, latents[SUPPLIED])),
    )


def provenance_verdict(
    readings: Readings, concepts: Sequence[str], usable: Mapping[str, Truth], gates: Gates
) -> Verdict:
    """Return whether a supplied dictionary hides what trained ones show.

    Args:
        readings: the numbers.
        concepts: every concept that is owed; one that cannot be compared leaves agreement open.
        usable: whether each trained dictionary was found usable; only such a one is a reference.
        gates: thresholds.
    """
    found = [_beside(readings, concept, usable, gates) for concept in concepts]
    differs = Rule.of_any(
        SUPPLIED_DISAGREES,
        *(Part("blind", one.blind, "delta_blind") for one in found),
        *(Part("error_share", one.error) for one in found),
    )
    rules = (
        Rule.of_any(
            INCONCLUSIVE,
            Part("control_missed", bool(readings.gating("provenance"))),
            Part("not_measured", not concepts),
        ),
        differs,
        Rule.of_any(
            INCONCLUSIVE,
            Part("nothing_detected", negated(any_of(one.seen for one in found)), "concept_p_holm"),
            *(Part("no_reference", all_of((one.seen, negated(one.reference)))) for one in found),
            *(Part("too_wide", all_of((one.seen, negated(one.alike)))) for one in found),
        ),
        Rule(SUPPLIED_AGREES, True, ("same_on_both",)),
    )
    named = [{"dictionary": name, "concept": one} for one in concepts for name in (SUPPLIED, *readings.trained)]
    rests = [readings.find(metric, **at) for at in named for metric in ("delta_blind", "error_share")]
    return replace(decided("provenance", rules), dictionary=SUPPLIED, rests=present(rests))


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
            of = "of the concepts that were detected"
            return f"the supplied dictionary shows what trained ones show, {of}. {detail}.{by_sender}"
    return f"{untold(verdict)}{missed_of(readings, 'provenance')}{by_sender}"


def diffed(readings: Readings) -> tuple[tuple[str, str | None], ...]:
    """Return every (dictionary, concept) that two models are compared by; no concept without conditional rates."""
    told = [one.labels for name in ("diff_p", "diff_p_holm") for one in readings.by_name.get(name, {}).values()]
    pairs = sorted({(at["dictionary"], at["concept"]) for at in told if at.get("form") == CONDITIONAL})
    by = sorted(readings.values("dictionary", OF_DIFF))
    pairs += [(name, one) for one in readings.values("concept") if readings.why_skipped(f"diff:{one}") for name in by]
    return (*dict.fromkeys(pairs),) if pairs else tuple((name, None) for name in by)


def diff_verdict(readings: Readings, dictionary: str, concept: str | None, usable: Truth, gates: Gates) -> Verdict:
    """Return whether latents fire at another rate than in the base model, where the concept is there.

    Args:
        readings: the numbers.
        dictionary: held against both models.
        concept: its name; None where no rates of a concept were compared.
        usable: whether the dictionary was found usable; latents of a poor one are silent for another reason.
        gates: thresholds.
    """
    at = {"dictionary": dictionary, "concept": concept}
    p = readings.find("diff_p_holm", **at, form=CONDITIONAL) if concept else None
    swaps = readings.find("diff_swaps", **at, form=CONDITIONAL) if concept else None
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
        Rule.of_any(
            INCONCLUSIVE,
            Part("p_resolution", readings.unresolved(value(swaps), "diff_p_holm", gates.alpha), "diff_swaps"),
            Part("dictionary_not_usable", usable is not True),
            Part("power_too_low", None if not power else seen_at(power) is None, "diff_power"),
        ),
        Rule(NO_CHANGE_DETECTED, True, ("p_above_alpha",)),
    )
    verdict = decided("diff", rules)
    return replace(verdict, dictionary=dictionary, concept=concept, rests=present((p, swaps, *power)))


def seen_at(power: Sequence[Metric]) -> str | None:
    """Return the smallest planted raise of a rate that is told often enough, or None where none is."""
    enough = [one.labels.get("amplitude", "") for one in power if float(one.value) >= POWER_LEAST]
    return min(enough, key=_amplitude, default=None)


def _amplitude(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        return inf


def diff_claim(readings: Readings, verdict: Verdict) -> str:
    """Return what is said of two models."""
    p = next((one for one in verdict.rests if one.name == "diff_p_holm"), None)
    planted = [one for one in verdict.rests if one.name == "diff_power"]
    power = ", ".join(f"{number(one)} at {one.labels.get('amplitude', 'its plant')}" for one in planted)
    tested = f"largest change over latents, p {number(p)} after Holm, models swapped by group"
    match verdict.word:
        case "changed":
            return f"latents fire at another rate than in the base model where the concept is there; {tested}."
        case "no_change_detected":
            least = f"a latent that comes on at {seen_at(planted)} of its rows would have been seen"
            return f"no change of rates was detected where the concept is there; {tested}; {least}: power {power}."
    return f"{untold(verdict)} {tested}.{missed_of(readings, 'diff')}"
