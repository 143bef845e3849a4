"""Whether a dictionary is faithful and learned: the rows `dictionary` of the table. Specification: section 12."""

from __future__ import annotations

from dataclasses import replace

from assay.result import Metric

from checks.sae_features.findings import (
    Part,
    Rule,
    Truth,
    Verdict,
    any_of,
    compared,
    decided,
    number,
    untold,
    with_tags,
)
from checks.sae_features.judge_readings import SUPPLIED, Gates, Readings, high, low, present, value
from checks.sae_features.words import INCONCLUSIVE, LOSSY, NOT_ABOVE_BASELINE, USABLE

TOKENS_A_LATENT = 500
"""States a latent below which the stream was too short (specification, section 2)."""

HARMLESS = 0.05
"""Nats that averaging the site must cost before a share of them is defined (section 6)."""

NO_REPLAY = "no_replay"
"""Reason where the evidence has no model to replay: the share is then told as not measured, and does not count."""

BASELINES = ("ev_above_frozen", "code_gain_above_frozen", "code_gain_above_twin")


def dictionary_verdict(readings: Readings, name: str, gates: Gates) -> Verdict:
    """Return the word of one dictionary.

    Args:
        readings: the numbers.
        name: trained-0 and so on, or supplied.
        gates: thresholds.
    """
    ev, share, gain = (
        readings.find("ev", dictionary=name),
        readings.find("dce_share", dictionary=name),
        _gain(readings, name, gates),
    )
    above = {one: readings.find(one, dictionary=name) for one in BASELINES}
    rules = (
        _untold(readings, name),
        Rule.of_any(
            LOSSY,
            Part("ev", compared(low(ev), lambda bound: bound < gates.ev_min)),
            Part("dce_share", _harmful(readings, name, share, gates)),
            Part("code_gain", compared(low(gain), lambda bound: bound <= gates.gain_min)),
        ),
        Rule.of_any(
            NOT_ABOVE_BASELINE, *(Part(key, compared(low(one), lambda bound: bound <= 0)) for key, one in above.items())
        ),
        Rule(USABLE, True, ("above_baselines",)),
    )
    verdict = decided("dictionary", rules)
    noted = with_tags(
        verdict,
        ("dce_not_measured", _no_replay(readings, name)),
        ("epsilon_above_residual", compared(value(ev), lambda number: gates.epsilon > 1 - number)),
    )
    confirmed = readings.find("convention_confirmed", dictionary=name)
    rests = present((ev, share, gain, *above.values(), confirmed, *_lengths(readings, name)))
    return replace(noted, dictionary=name, rests=rests)


def _untold(readings: Readings, name: str) -> Rule:
    """Return why nothing can be said: a missed control, files read in another way, too few states a latent."""
    skipped = readings.why_skipped(f"dictionary:{name}")
    if skipped is not None:
        own = Part(skipped, True)
    elif name == SUPPLIED:
        found = readings.find("convention_confirmed", dictionary=name)
        own = Part(
            "convention_unconfirmed", compared(value(found), lambda confirmed: confirmed < 1), "convention_confirmed"
        )
    else:
        own = Part("short_stream", _short_stream(readings, name), "train_tokens")
    return Rule.of_any(INCONCLUSIVE, Part("control_missed", bool(readings.gating("dictionary"))), own)


def _lengths(readings: Readings, name: str) -> tuple[Metric | None, ...]:
    if name == SUPPLIED:
        return ()
    return readings.find("train_tokens", dictionary=name), readings.find("latents", dictionary=name)


def _short_stream(readings: Readings, name: str) -> Truth:
    tokens, latents = (value(one) for one in _lengths(readings, name))
    return None if tokens is None or latents is None else tokens < TOKENS_A_LATENT * latents


def _gain(readings: Readings, name: str, gates: Gates) -> Metric | None:
    """Return the code gain at the distortion that is judged."""
    here = (one for one in readings.real.named("code_gain") if one.labels.get("dictionary") == name)
    return next((one for one in here if float(one.labels.get("epsilon", gates.epsilon)) == gates.epsilon), None)


def _harmful(readings: Readings, name: str, share: Metric | None, gates: Gates) -> Truth:
    """Return whether splicing harms more than it may; a share that is not defined counts as unmet (section 12)."""
    if _no_replay(readings, name):
        return False
    mean = readings.shared("delta_ce_mean", name)
    if share is None:
        # Not defined where averaging does no harm; where that number is not there either, nothing is known.
        return True if compared(value(mean), lambda nats: nats < HARMLESS) else None
    return compared(high(share), lambda bound: bound > gates.dce_share_max)


def _no_replay(readings: Readings, name: str) -> bool:
    return readings.why_skipped(f"dce_share:{name}", "dce_share") == NO_REPLAY


def dictionary_claim(readings: Readings, verdict: Verdict, gates: Gates) -> str:
    """Return what is said of a dictionary."""
    name = verdict.dictionary or ""
    found = {key: readings.find(key, dictionary=name) for key in ("ev", "dce_share", *BASELINES)}
    told = f"EV {number(found['ev'])}, code gain {number(_gain(readings, name, gates))} bits a token"
    shared = f"share of mean ablation's harm {number(found['dce_share'])}"
    if "dce_not_measured" in verdict.tags:
        shared = "harm to the output not measured: no model to replay"
    against = (
        f"above the frozen decoder by {number(found['ev_above_frozen'])} EV and "
        f"{number(found['code_gain_above_frozen'])} bits, above the shuffled twin by "
        f"{number(found['code_gain_above_twin'])} bits"
    )
    if verdict.word == USABLE:
        return f"usable: {told}, {shared}; {against}. No latent of it is a concept by that alone."
    if verdict.word == LOSSY:
        return f"lossy ({', '.join(verdict.why)}): {told}, {shared}."
    if verdict.word == NOT_ABOVE_BASELINE:
        return f"not above a baseline ({', '.join(verdict.why)}): {told}; {against}."
    return f"{untold(verdict)} {told}, {shared}.{missed_of(readings, 'dictionary')}"


def missed_of(readings: Readings, code: str) -> str:
    """Return the sentence of the controls that keep a finding from being decided, or nothing."""
    missed = readings.gating(code)
    return f" Missed its band or said nothing: {', '.join(missed)}." if missed else ""


def usable(verdicts: dict[str, Verdict], name: str) -> Truth:
    """Return whether a dictionary was found usable; unknown where nothing was decided of it."""
    verdict = verdicts.get(name)
    if verdict is None or verdict.word == INCONCLUSIVE:
        return None
    return any_of((verdict.word == USABLE,))
