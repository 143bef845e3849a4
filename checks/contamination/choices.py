"""Whether a region holds an item's options, and whether its answer stands close by (contamination, 6.6)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from checks.contamination.quantity import holds

OPTIONS_SHARE = Fraction(3, 4)
"""Share of the options that a region and the 60 words after it must hold (section 6.6)."""

LABELS = "abcdefghij"
"""Options are lettered in order."""

ANSWER_CUES = frozenset(("answer", "answers", "solution", "correct", "ans"))
"""Options follow their question anyway: the right one counts as told only behind such a word. Own list."""

CUE_REACH = 12
"""Words behind a cue in which the answer counts as told ("the correct answer is therefore option b"). Own choice:
long enough for a clause, short of the next question's options."""


def options_found(options: Sequence[Sequence[str]], words: Sequence[str]) -> Fraction:
    """Return the share of options that stand contiguously among words.

    Args:
        options: canonical words of each; not empty. An option without words is not found.
        words: those of the region and of the 60 words after it.
    """
    return Fraction(sum(holds(words, option) for option in options), len(options))


def labelled(words: Sequence[str]) -> bool:
    """Return whether words hold lettered options: a, b and c in this order, as words of their own."""
    at = 0
    for word in words:
        at += word == LABELS[at]
        if at == len("abc"):
            return True
    return False


def answer_near(
    answer: Sequence[str] | None, numbers: Sequence[str], options: Sequence[Sequence[str]], after: Sequence[str]
) -> bool | None:
    """Return whether the answer occurs in the words after a region; None where that cannot be known.

    Args:
        answer: canonical words of the item's answer, or None.
        numbers: those of them that are numbers.
        options: canonical words of the item's options.
        after: canonical words of up to 60 tokens after the region.
    """
    if not answer or not after:
        return None
    if options:
        return _option_told(answer, options, after)
    if len(answer) == len(numbers) == 1:
        return numbers[0] in after
    return holds(after, answer)


def _option_told(answer: Sequence[str], options: Sequence[Sequence[str]], after: Sequence[str]) -> bool:
    letters = [LABELS[at] for at, option in enumerate(options[: len(LABELS)]) if tuple(option) == tuple(answer)]
    texts = [tuple(answer)]
    if len(answer) == 1 and answer[0] in LABELS[: len(options)] and not letters:
        letters = [answer[0]]
        texts.append(tuple(options[LABELS.index(answer[0])]))
    told = [after[at + 1 : at + 1 + CUE_REACH] for at, word in enumerate(after) if word in ANSWER_CUES]
    return any(holds(words, text) for words in told for text in [*texts, *((letter,) for letter in letters)])
