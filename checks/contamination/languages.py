"""Which documents are English enough to be embedded, and words too common to say anything (contamination, 6.3, 6.4)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

COMMONEST = frozenset(
    [
        "the",
        "of",
        "and",
        "to",
        "a",
        "in",
        "is",
        "that",
        "it",
        "for",
        "was",
        "on",
        "with",
        "as",
        "be",
        "at",
        "by",
        "this",
        "are",
        "from",
        "or",
        "have",
        "not",
        "but",
        "which",
    ]
)
"""The 25 commonest function words of English (our choice of 25; 6.3 names their number)."""

FUNCTION_WORDS = COMMONEST | frozenset(
    [
        "about",
        "above",
        "after",
        "again",
        "against",
        "all",
        "also",
        "although",
        "always",
        "am",
        "among",
        "an",
        "another",
        "any",
        "anybody",
        "anyone",
        "anything",
        "around",
        "away",
        "back",
        "because",
        "been",
        "before",
        "behind",
        "being",
        "below",
        "beneath",
        "beside",
        "besides",
        "between",
        "beyond",
        "both",
        "can",
        "cannot",
        "could",
        "did",
        "do",
        "does",
        "doing",
        "done",
        "down",
        "during",
        "each",
        "either",
        "else",
        "enough",
        "even",
        "ever",
        "every",
        "everyone",
        "everything",
        "except",
        "few",
        "first",
        "following",
        "former",
        "further",
        "had",
        "has",
        "having",
        "he",
        "hence",
        "her",
        "here",
        "hers",
        "herself",
        "him",
        "himself",
        "his",
        "how",
        "however",
        "i",
        "if",
        "indeed",
        "inside",
        "instead",
        "into",
        "its",
        "itself",
        "just",
        "last",
        "latter",
        "least",
        "less",
        "like",
        "likely",
        "made",
        "many",
        "may",
        "me",
        "might",
        "mine",
        "more",
        "most",
        "much",
        "must",
        "my",
        "myself",
        "near",
        "neither",
        "never",
        "no",
        "nobody",
        "none",
        "nor",
        "nothing",
        "now",
        "off",
        "often",
        "once",
        "only",
        "onto",
        "other",
        "others",
        "otherwise",
        "ought",
        "our",
        "ours",
        "ourselves",
        "out",
        "outside",
        "over",
        "own",
        "per",
        "perhaps",
        "quite",
        "rather",
        "s",
        "same",
        "seem",
        "seemed",
        "seems",
        "several",
        "shall",
        "she",
        "should",
        "since",
        "so",
        "some",
        "someone",
        "something",
        "still",
        "such",
        "t",
        "than",
        "their",
        "theirs",
        "them",
        "themselves",
        "then",
        "there",
        "therefore",
        "these",
        "they",
        "those",
        "though",
        "through",
        "throughout",
        "thus",
        "till",
        "together",
        "too",
        "toward",
        "towards",
        "under",
        "unless",
        "until",
        "up",
        "upon",
        "us",
        "use",
        "used",
        "very",
        "via",
        "we",
        "well",
        "were",
        "what",
        "whatever",
        "when",
        "whenever",
        "where",
        "whether",
        "while",
        "who",
        "whoever",
        "whole",
        "whom",
        "whose",
        "why",
        "will",
        "within",
        "without",
        "would",
        "yet",
        "you",
        "your",
        "yours",
        "yourself",
    ]
)
"""Words without a subject of their own; a seed made of these alone is not looked for (6.4)."""

LATIN_SHARE = 0.60
"""Share of letters that are Latin (6.3)."""

COMMON_SHARE = 0.04
"""Share of tokens among the commonest words (6.3)."""

SHORT = 20
"""Tokens below which a text is not told apart and counts as undecided (6.3)."""

ANY = "any"
"""Listed as a language: texts in no language that can be told are examined too."""

LANGUAGES = ("en", ANY)
"""What may be listed: English alone has a detector (6.3), and another name would list what is never examined."""

_CODE = re.compile(r"(?m)[;{}]$|^(?:def|class|import|from|return|#include) ")
CODE_SHARE = 0.15
"""Share of lines that look like code above which a text is code (our choice; such lines are rare in prose)."""

_LATIN_END = 0x024F
"""Last code point of Latin Extended-B."""


def is_code(text: str) -> bool:
    """Return whether a text holds a fenced block or looks like source code; code counts as English (6.3)."""
    if "```" in text:
        return True
    return len(_CODE.findall(text)) > CODE_SHARE * (text.count("\n") + 1)


def is_english(text: str, tokens: int, common: int) -> bool:
    """Return whether a text is English.

    Args:
        text: as read.
        tokens: its tokens.
        common: those among `COMMONEST`.
    """
    if tokens < SHORT:
        return False
    return (common >= COMMON_SHARE * tokens and latin_share(text) >= LATIN_SHARE) or is_code(text)


def latin_share(text: str) -> float:
    """Return the share of Latin letters among the letters; 1 where there is no letter."""
    if text.isascii():
        return 1.0
    letters = [letter for letter in text if letter.isalpha()]
    return sum(ord(letter) <= _LATIN_END for letter in letters) / len(letters) if letters else 1.0


def examined(text: str, words: Sequence[str], languages: Collection[str]) -> bool:
    """Return whether a text is embedded: English where that is listed, anything where `any` is."""
    common = sum(word in COMMONEST for word in words)
    return ANY in languages or ("en" in languages and is_english(text, len(words), common))
