"""Whether a region asks for the same fact: its signature and the slot that is asked for (contamination, 6.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from rapidfuzz.distance import Levenshtein
from rapidfuzz.fuzz import ratio

from checks.contamination.normaliser import normalise
from checks.contamination.siblings_values import places

RAREST = 3
"""Tokens of a signature besides names and numbers (section 6.6)."""

SAME_COVERAGE, DIFFERENT_COVERAGE = Fraction(4, 5), Fraction(2, 5)
"""Coverage of the signature from which a region may be `same`, and below which it is `different` (section 6.6)."""

SPELT_ALIKE = 70
"""Similarity (0-100, indel) from which two words are one name with a misspelling, or one inflected. Own choice: one
letter exchanged in a word of four gives 75, and of the 1100 pairs of names within a pool of the authored families one
reaches it (Hanna, Sanna: 80; the next 66.7)."""

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
    "called", "would", "will", "could", "might", "may", "can",
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

ENDINGS = ("ings", "ing", "ers", "er", "ors", "or", "ed", "es", "s")
"""Endings that a rewording exchanges, the longer first. Own list."""

STEM_LEAST = 4
"""Letters that a stem keeps: of "sing" or "king" nothing is cut."""

Slot = tuple[str, str]


def signature(question: str, rarity: Mapping[str, int] | None = None) -> frozenset[str]:
    """Return the words that tell a question apart: names, numbers, and the three other words rarest among the probes.

    Args:
        question: as written; names are found by their capitals.
        rarity: number of items that hold a word; without it longer words count as rarer.
    """
    read = normalise(question)
    kept = {token.text for token in read.tokens if token.number is not None}
    kept = kept.union(*names(question))
    rest = dict.fromkeys(word for word in read.words if word not in kept and word not in _COMMON)
    told = rarity or {}
    kept.update(sorted(rest, key=lambda word: (told.get(word, 0), -len(word), word))[:RAREST])
    return frozenset(kept)


def names(question: str) -> tuple[frozenset[str], ...]:
    """Return the canonical words of each name in a question, found by its capitals."""
    found = (place.surface for place in places(question) if place.value.kind == "entity")
    return tuple(words for words in (frozenset(normalise(surface).words) for surface in dict.fromkeys(found)) if words)


def names_differ(
    item: Sequence[str], region: Sequence[str], named: frozenset[str], kept: frozenset[str] = frozenset()
) -> bool:
    """Return whether a near text lacks one of the item's names and has another word where one stood.

    A word that the item holds itself, a common one, or one spelt almost alike is no other name. A text has no capitals
    any more where it is compared, so a name is known by the item's.

    Args:
        item: canonical words of the question.
        region: those of the stretch that it is aligned with.
        named: words of the item's names.
        kept: words of the whole region: a name that stands anywhere in it was moved, not left out.
    """
    if named <= kept:
        return False
    own = frozenset(item)
    for step in Levenshtein.opcodes(item, region):
        if step.tag != "replace":
            continue
        for old, new in zip(item[step.src_start : step.src_end], region[step.dest_start : step.dest_end], strict=True):
            other = new not in own and new not in _COMMON and new.isalpha()
            if old in named and other and ratio(old, new) < SPELT_ALIKE:
                return True
    return False


def coverage(wanted: frozenset[str], words: frozenset[str]) -> Fraction:
    """Return the share of a signature that stands among words, whatever their ending; 0 for an empty signature."""
    if not wanted:
        return Fraction(0)
    missing = wanted - words
    if missing:
        stems = frozenset(map(stem, words))
        missing = frozenset(word for word in missing if stem(word) not in stems)
    return Fraction(len(wanted) - len(missing), len(wanted))


def stem(word: str) -> str:
    """Return a word without its ending: "founder", "founded" and "founding" are one word to a rewording."""
    ending = next((one for one in ENDINGS if word.endswith(one) and len(word) - len(one) >= STEM_LEAST), "")
    return word.removesuffix(ending)


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
