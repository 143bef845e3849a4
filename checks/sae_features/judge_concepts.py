"""Whether a concept is readable, and by what: the rows `concept` of the table. Specification: section 12.

One finding speaks for all trained dictionaries together, so that no seed is chosen; a supplied dictionary has its own
and inherits nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    with_tags,
)
from checks.sae_features.judge_dictionary import missed_of
from checks.sae_features.judge_readings import FIRST, SUPPLIED, Gates, Readings, high, low, present, value
from checks.sae_features.words import (
    DENSE_CARRIES,
    INCONCLUSIVE,
    NOT_DETECTED,
    SAE_ADDS,
    SURFACE_EXPLAINS,
)

POWER_LEAST, POWER_AT = 0.8, 0.5
"""Share of plants outside the dictionary, at this many R, that must be detected before silence is told (section 12)."""

OF_CONCEPTS = ("auroc", "chosen_k", "delta_sae", "delta_surface", "delta_frozen", "delta_blind", "concept_p_holm")
"""Metrics whose presence says that a concept was asked of a dictionary."""


@dataclass(frozen=True)
class Read:
    """What one dictionary's table says of one concept."""

    detected: Truth
    above_surface: Truth
    sae_above_dense: Truth
    above_frozen: Truth
    blind: Truth
    sighted: Truth
    """Whether it is shown not to be blind; a wide interval shows neither."""
    metrics: tuple[Metric, ...]

    @property
    def adds(self) -> Truth:
        """Whether the dictionary shows more than dense probe and frozen decoder."""
        return all_of((self.sae_above_dense, self.above_frozen))


def concepts_of(readings: Readings) -> tuple[str, ...]:
    """Return every concept that is owed or told of."""
    owed = readings.real.coverage.get("concept", ())
    return (*dict.fromkeys((*owed, *readings.values("concept", OF_CONCEPTS))),)


def read_of(readings: Readings, dictionary: str, concept: str, gates: Gates) -> Read:
    """Return what the table of one dictionary says of a concept; unknown where its numbers are not there."""

    def found(name: str) -> Metric | None:
        return readings.find(name, dictionary=dictionary, concept=concept)

    def above(name: str) -> Truth:
        return compared(low(found(name)), lambda bound: bound > 0)

    dense, sparse = probes(readings, dictionary, concept)
    passes = [compared(low(one), lambda bound: bound > gates.detect_floor) for one in (dense, sparse)]
    named = (found(name) for name in (*OF_CONCEPTS[1:], "concept_p"))
    return Read(
        detected=all_of((any_of(passes), compared(value(found("concept_p_holm")), lambda p: p <= gates.alpha))),
        above_surface=above("delta_surface"),
        sae_above_dense=above("delta_sae"),
        above_frozen=above("delta_frozen"),
        blind=compared(high(found("delta_blind")), lambda bound: bound < -gates.blind_margin),
        sighted=compared(low(found("delta_blind")), lambda bound: bound > -gates.blind_margin),
        metrics=present((dense, sparse, *named)),
    )


def probes(readings: Readings, dictionary: str, concept: str) -> tuple[Metric | None, Metric | None]:
    """Return the dense probe's AUROC and that of the sparse probe of the chosen k."""
    k = readings.find("chosen_k", dictionary=dictionary, concept=concept)
    sparse = None
    if k is not None:
        sparse = readings.find("auroc", dictionary=dictionary, concept=concept, probe=f"sparse_{k.value}")
    return readings.shared("auroc", dictionary, concept=concept, probe="dense"), sparse


def power_of(readings: Readings, dictionary: str) -> Metric | None:
    """Return the share of plants outside the dictionary that either probe detects at `POWER_AT`."""
    own = dictionary if dictionary == SUPPLIED else FIRST
    for one in readings.real.named("power"):
        at = one.labels
        if at.get("place") == "out" and at.get("probe") == "either" and at.get("dictionary", own) == own:
            try:
                if float(at.get("amplitude", "nan")) == POWER_AT:
                    return one
            except ValueError:
                continue
    return None


def concept_verdict(readings: Readings, concept: str, dictionaries: Sequence[str], gates: Gates) -> Verdict:
    """Return the word of a concept.

    Args:
        readings: the numbers.
        concept: its name.
        dictionaries: all trained ones, or the supplied one alone.
        gates: thresholds.
    """
    reads = [read_of(readings, name, concept, gates) for name in dictionaries]
    power = power_of(readings, dictionaries[0])
    seen, unseen = [one.detected for one in reads], [negated(one.detected) for one in reads]
    skipped = readings.why_skipped(f"concept:{concept}", *(f"concept:{concept}:{name}" for name in dictionaries))
    weak = compared(value(power), lambda share: share < POWER_LEAST)
    rules = (
        Rule.of_any(
            INCONCLUSIVE,
            Part("control_missed", bool(readings.gating("concept"))),
            Part(skipped or "not_measured", skipped is not None),
        ),
        Rule.of_any(
            INCONCLUSIVE,
            # Readable by one dictionary's latents and not by another's: nothing is told of the site.
            Part("seed_dependent", all_of((any_of(seen), any_of(unseen))), "auroc"),
            Part("power_too_low", all_of((*unseen, weak)), "power"),
        ),
        Rule(NOT_DETECTED, all_of(unseen), ("no_separation",), ("concept_p_holm",)),
        Rule.of_any(SURFACE_EXPLAINS, *(Part("delta_surface", negated(one.above_surface)) for one in reads)),
        Rule.of_any(
            DENSE_CARRIES,
            *(Part("delta_sae", negated(one.sae_above_dense)) for one in reads),
            *(Part("delta_frozen", negated(one.above_frozen)) for one in reads),
        ),
        Rule(SAE_ADDS, True, ("adds_to_dense",)),
    )
    verdict = _without_claims(decided("concept", rules), all_of(seen))
    split = any({True, False} <= seen for seen in ({one.above_surface for one in reads}, {one.adds for one in reads}))
    tagged = with_tags(
        verdict,
        ("sae_blind", verdict.word == DENSE_CARRIES and any(one.blind for one in reads)),
        ("seed_dependent", split and verdict.word in (SURFACE_EXPLAINS, DENSE_CARRIES)),
    )
    rests = tuple(metric for one in reads for metric in one.metrics)
    silent = present((power,)) if verdict.word in (NOT_DETECTED, INCONCLUSIVE) else ()
    supplied = SUPPLIED if tuple(dictionaries) == (SUPPLIED,) else None
    return replace(tagged, concept=concept, dictionary=supplied, rests=(*rests, *silent))


def _without_claims(verdict: Verdict, detected: Truth) -> Verdict:
    """Return a verdict whose `also` says of a concept that was not detected nothing that detection comes before."""
    return verdict if detected else replace(verdict, also=())


def concept_claim(readings: Readings, verdict: Verdict, dictionaries: Sequence[str]) -> str:
    """Return what is said of a concept."""
    concept = verdict.concept or ""
    dense = probes(readings, dictionaries[0], concept)[0]
    sparse = [(name, probes(readings, name, concept)[1]) for name in dictionaries]
    scored = f"AUROC dense {number(dense)}, " + ", ".join(f"sparse in {name} {number(one)}" for name, one in sparse)
    counted = "" if dense is None else f", n = {dense.n} statements"

    def shown(name: str) -> str:
        return " and ".join(number(readings.find(name, dictionary=one, concept=concept)) for one in dictionaries)

    match verdict.word:
        case "not_detected":
            power = number(power_of(readings, dictionaries[0]))
            seen = f"a planted direction outside the dictionary at {POWER_AT} R would be detected in {power}"
            return f"not detected by these probes ({scored}{counted}); {seen} of draws."
        case "surface_explains":
            return (
                f"readable, but not beyond the surface of the text or a shuffled twin ({shown('delta_surface')}); "
                f"{scored}{counted}."
            )
        case "dense_carries":
            blind = " The dictionary is blind to it." if "sae_blind" in verdict.tags else ""
            seeds = " Seeds disagree." if "seed_dependent" in verdict.tags else ""
            return (
                f"linearly readable, above surface and twin by {shown('delta_surface')}, carried by the dense probe: "
                f"sparse less dense {shown('delta_sae')}, less frozen {shown('delta_frozen')}; {scored}{counted}."
                f"{blind}{seeds} Readable does not mean used."
            )
        case "sae_adds":
            return (
                f"linearly readable, above surface and twin, and the dictionary adds to the dense probe: "
                f"{shown('delta_sae')}, to a frozen decoder {shown('delta_frozen')}; {scored}{counted}. "
                "Readable does not mean used."
            )
    return f"{untold(verdict)} {scored}{counted}.{missed_of(readings, 'concept')}"
