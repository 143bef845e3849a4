"""Whether a region asks for the same fact: its signature and the slot that is asked for (contamination, 6.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from checks.contamination.normaliser import normalise
from checks.contamination.siblings_values import places

RAREST = 3
"""Tokens of a signature besides names and numbers (section 6.6)."""

SAME_COVERAGE, DIFFERENT_COVERAGE = Fraction(4, 5), Fraction(2, 5)
"""Coverage of the signature from which a region may be `same`, and below which it is `different` (section 6.6)."""

WHO, WHEN, WHERE, HOW_MANY = ("who", ""), ("when", ""), ("where", ""), ("how many", "")

SLOT_WORDS = {
    "who": WHO, "whom": WHO, "whose": WHO, "when": WHEN, "where": WHERE, "why": ("why", ""),
}  # fmt: skip

SLOT_NOUNS = {
    "year": WHEN, "date": WHEN, "day": WHEN, "month": WHEN, "century": WHEN, "decade": WHEN,
    "place": WHERE, "location": WHERE,
    "person": WHO, "man": WHO, "woman": WHO, "people": WHO,
    "number": HOW_MANY, "count": HOW_MANY,
}  # fmt: skip
"""Head nouns that say the same as a question word: "which year" asks when. Own list."""

SKIPPED = frozenset((
    "is", "are", "was", "were", "be", "been", "do", "does", "did", "has", "have", "had", "the", "a", "an", "of", "one",
    "1", "s", "this", "that", "these", "those", "its", "their", "his", "her", "following", "main", "name", "names",
    "called",
))  # fmt: skip
"""Words between "what" and its head noun. Own list."""

LINKING = frozenset((
    "and", "or", "but", "if", "then", "than", "as", "at", "by", "for", "from", "in", "into", "on", "onto", "to",
    "with", "without", "within", "before", "after", "during", "through", "between", "among", "against", "about",
    "over", "under", "near", "since", "until", "while", "because", "also", "not", "no", "it", "he", "she", "they",
    "there", "would", "could", "should", "will", "can", "may", "might", "must", "being", "first",
))  # fmt: skip
"""Words that a rewording changes freely: they never stand in a signature, however rare. Own list."""

QUESTION_WORDS = frozenset(("who", "whom", "whose", "when", "where", "why", "how", "what", "which", "many", "much"))

_COMMON = QUESTION_WORDS | SKIPPED | LINKING

Slot = tuple[str, str]


def signature(question: str, rarity: Mapping[str, int] | None = None) -> frozenset[str]:
    """Return the words that tell a question apart: names, numbers, and the three other words rarest among the probes.

    Args:
        question: as written; names are found by their capitals.
        rarity: number of items that hold a word; without it longer words count as rarer.
    """
    read = normalise(question)
    kept = {token.text for token in read.tokens if token.number is not None}
    for place in places(question):
        if place.value.kind == "entity":
            kept.update(normalise(place.surface).words)
    rest = dict.fromkeys(word for word in read.words if word not in kept and word not in _COMMON)
    told = rarity or {}
    kept.update(sorted(rest, key=lambda word: (told.get(word, 0), -len(word), word))[:RAREST])
    return frozenset(kept)


def coverage(wanted: frozenset[str], words: frozenset[str]) -> Fraction:
    """Return the share of a signature that stands among words; 0 for an empty signature."""
    return Fraction(len(wanted & words), len(wanted)) if wanted else Fraction(0)


def slot(words: Sequence[str]) -> Slot | None:
    """Return what a sentence asks for: its question word, or "what" with the head noun; None where it asks nothing."""
    for at, word in enumerate(words):
        if word in SLOT_WORDS:
            return SLOT_WORDS[word]
        if word == "how":
            following = words[at + 1] if at + 1 < len(words) else ""
            return HOW_MANY if following in ("many", "much") else ("how", following)
        if word in ("what", "which"):
            head = next((one for one in words[at + 1 :] if one not in SKIPPED), "")
            return SLOT_NOUNS.get(head, ("what", head.removesuffix("s")))
    return None
