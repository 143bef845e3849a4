"""The verifier: whether a region asks the same as an item (contamination, 6.6; tiers of section 2).

A pure function of item, region and cosine: no model, no clock, no network. Words of a region are compared and never
obeyed. A trace holds names and counts, no word of a corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from checks.contamination.choices import OPTIONS_SHARE, answer_near, labelled, options_found
from checks.contamination.facts import DIFFERENT_COVERAGE, SAME_COVERAGE, coverage, names_differ, slot
from checks.contamination.items import Item
from checks.contamination.quantity import (
    UNDECIDED_SHARE,
    asked_classes,
    classes_differ,
    count_found,
    negations,
)
from checks.contamination.regions import Region, passage
from checks.contamination.verifier_question import Question, read_question
from checks.contamination.verifier_text import TextMatch, numbers_differ, text_match

Verdict = Literal["same", "undecided", "different"]
Tier = Literal["exact", "near", "semantic", "template", "related"]

EXACT_SCORE, NEAR_SCORE, SEMANTIC_SCORE, UNDECIDED_SCORE = 50_000, 30_000, 20_000, 10_000
"""Bases of the pair score (section 6.6): wider apart than the 10 000 parts that are added to them, so a better tier
always scores higher."""

STATES_FACT = "states_fact"
"""Tag of a text that says the fact and asks nothing: knowledge, not contamination (sections 1 and 6.6)."""


@dataclass(frozen=True)
class Bounds:
    """Bounds of the tiers, in parts of 10 000 (section 3)."""

    near_lcs: int = 7_500
    """LCS ratio .75: of strangers the largest is .45, of siblings the mean .92: it tells chance from copies (6.4)."""
    near_overlap: int = 5_000
    """Share .50 of the item's 5-grams; real rewrites rarely share an 8-gram (.05, section 1)."""
    cosine_floor: int = 5_000
    """Cosine .50: 95 of 100 real rewrites lie above .829, heavy ones above .46 (sections 6.6, 11)."""
    template_cosine: int = 8_000
    """Cosine .80: the same template with other numbers lies at .856 (section 11)."""


BOUNDS = Bounds()


@dataclass(frozen=True)
class Comparison:
    """An item held against a region."""

    verdict: Verdict
    tier: Tier | None
    """First rule of section 2 that holds; None: nothing in common."""
    score: int
    answer_near: bool | None
    """Whether the item's answer stands within 60 words after the region; None where that cannot be known."""
    trace: tuple[str, ...]
    """The rules that decided, in order, e.g. ("quantity:3/4", "negation")."""


def compare(
    item: Item | Question, region: Region | str, cosine: int | None = None, bounds: Bounds = BOUNDS
) -> Comparison:
    """Return whether a region asks the same as an item, with tier and score.

    Args:
        item: of kind prose or choice; read once (`read_question`) where many regions are compared.
        region: a region, or a whole text.
        cosine: round(10 000 cos) of the embedded texts; None where nothing was embedded, then no tier needs it.
        bounds: of the tiers.

    Raises:
        ValueError: the item is code (section 6.7).
    """
    asked = read_question(item) if isinstance(item, Item) else item
    place = passage(region) if isinstance(region, str) else region
    text = text_match(asked.wording, place.wording, bounds.near_lcs)
    near = text.lcs >= bounds.near_lcs or text.overlap >= bounds.near_overlap
    trace: list[str] = []
    verdict: Verdict = "same"
    # Many choice items ask the same ("Which of the following is true?"): without its options it is another item.
    exact = text.exact and (not _has_options(asked) or _options_there(asked, (*place.words, *place.after)))
    if exact:
        trace.append("exact")
    else:
        verdict = _verdict(asked, place, text if near else None, trace)
    tier = _tier(verdict, exact, near, cosine, STATES_FACT in trace, bounds)
    told = answer_near(asked.answer, asked.answer_numbers, asked.options, place.after)
    return Comparison(verdict, tier, _score(tier, verdict, text, cosine, bounds), told, tuple(trace))


def _verdict(asked: Question, place: Region, near: TextMatch | None, trace: list[str]) -> Verdict:
    verdict = _fact(asked, place, near, trace) if asked.fact else _quantity(asked, place, near, trace)
    if _has_options(asked) and verdict == "same":
        found = options_found(asked.options, (*place.words, *place.after))
        trace.append(f"options:{found}")
        if found < OPTIONS_SHARE:
            return "undecided"
    return verdict


def _quantity(asked: Question, place: Region, near: TextMatch | None, trace: list[str]) -> Verdict:
    found, numbers = count_found(asked.accepted, place.numbers), len(asked.accepted)
    trace.append(f"quantity:{found}/{numbers}")
    if found < UNDECIDED_SHARE * numbers:
        return "different"
    if near is not None:
        words = place.words[near.begin : near.end]
        if numbers_differ(asked.wording.words, words, asked.equal, place.numbers):
            trace.append("number_in_place")
            return "different"
    sentence = _asking(asked, place)
    if sentence is not None:
        if negations(sentence) != asked.negated:
            trace.append("negation")
            return "different"
        classes = asked_classes(sentence)
        if classes_differ(asked.classes, classes):
            trace.append(f"asked:{'+'.join(sorted(asked.classes))}/{'+'.join(sorted(classes))}")
            return "different"
    return "same" if found == numbers else "undecided"


def _fact(asked: Question, place: Region, near: TextMatch | None, trace: list[str]) -> Verdict:
    share = coverage(asked.signature, place.wording.distinct)
    trace.append(f"fact:{share}")
    words = (*place.words, *place.after)
    # An item that has no question mark itself cannot be told from a statement by one.
    if asked.marked and not (place.questions or labelled(words) or _options_there(asked, words)):
        trace.append(STATES_FACT)
        return "different"
    if share < DIFFERENT_COVERAGE or (near is not None and _other_subject(asked, place, near, trace)):
        return "different"
    slots = [found for found in map(slot, place.questions) if found is not None]
    if asked.slot is not None and slots and asked.slot not in slots:
        trace.append("other_slot")
        return "different"
    # A question without a question word ("Name the ...") has no slot to compare on either side.
    same_slot = asked.slot in slots if asked.slot is not None else not slots
    # Of another year or another person it is another fact, however much else is the same.
    subject = asked.told <= place.numbers and not any(map(place.wording.distinct.isdisjoint, asked.named))
    return "same" if share >= SAME_COVERAGE and same_slot and subject else "undecided"


def _other_subject(asked: Question, place: Region, near: TextMatch, trace: list[str]) -> bool:
    """Return whether a near text has another number, or another name, in the place of one of the item's."""
    words = place.words[near.begin : near.end]
    if asked.told and numbers_differ(asked.wording.words, words, {text: frozenset((text,)) for text in asked.told},
                                     place.numbers):  # fmt: skip
        trace.append("number_in_place")
        return True
    if names_differ(asked.wording.words, words, frozenset().union(*asked.named), place.wording.distinct):
        trace.append("name_in_place")
        return True
    return False


def _has_options(asked: Question) -> bool:
    return asked.kind == "choice" and bool(asked.options)


def _options_there(asked: Question, words: Sequence[str]) -> bool:
    return bool(asked.options) and options_found(asked.options, words) >= OPTIONS_SHARE


def _asking(asked: Question, place: Region) -> tuple[str, ...] | None:
    """Return the region's question that shares most words with the item's; of equal ones the last."""
    wanted = frozenset(asked.asked)
    if not place.questions:
        return None
    return max(reversed(place.questions), key=lambda words: len(wanted & frozenset(words)))


def _tier(
    verdict: Verdict, exact: bool, near: bool, cosine: int | None, states_fact: bool, bounds: Bounds
) -> Tier | None:
    if exact:
        return "exact"
    if near and verdict != "different":
        return "near"
    reached = cosine is not None and cosine >= bounds.cosine_floor
    if reached and verdict == "same":
        return "semantic"
    alike = near or (cosine is not None and cosine >= bounds.template_cosine)
    if alike and verdict == "different" and not states_fact:
        return "template"
    return "related" if reached else None


def _score(tier: Tier | None, verdict: Verdict, text: TextMatch, cosine: int | None, bounds: Bounds) -> int:
    if tier == "exact":
        return EXACT_SCORE
    if tier == "near":
        return NEAR_SCORE + max(text.lcs, text.overlap)
    if cosine is None or cosine < bounds.cosine_floor:
        return 0
    if tier == "semantic":
        return SEMANTIC_SCORE + cosine
    return UNDECIDED_SCORE + cosine if verdict == "undecided" else cosine
