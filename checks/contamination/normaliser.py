"""The normaliser `n1`: what text is to this check, with the bytes that every token came from (contamination, 6.2).

This is the plain path. The byte path of `tokens` gives the same tokens at a many times higher speed and no spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from checks.contamination.normaliser_letters import raw_tokens
from checks.contamination.normaliser_markup import clean_mapped
from checks.contamination.normaliser_prose import paragraphs, reflow_mapped, sentences
from checks.contamination.numbers_reading import Raw, read_numbers

NORMALISER = "n1"
"""Version in every plan: sketches of two versions are never merged."""


class Token(NamedTuple):
    """A canonical token. A named tuple, since a document has hundreds of thousands."""

    text: str
    """A word, a CJK character, a sign, or a number in lowest terms ("7/2")."""
    number: Fraction | None
    begin: int
    """First byte in the original's UTF-8."""
    end: int
    """The byte behind its last."""


@dataclass(frozen=True)
class Normalised:
    """A text after `n1`."""

    window_text: str
    """Folded, without markup, its wrapped lines joined; a blank line between paragraphs."""
    tokens: tuple[Token, ...]
    places: tuple[tuple[int, int], ...]
    """Where each token stands in `window_text`, in characters."""
    sentences: tuple[tuple[int, int], ...]
    """Ranges of tokens; they cover all tokens, in order."""
    paragraphs: tuple[tuple[int, int], ...]
    """Ranges of tokens; they cover all tokens, in order."""

    @property
    def words(self) -> tuple[str, ...]:
        """Return the canonical texts of the tokens."""
        return tuple(token.text for token in self.tokens)


def normalise(text: str) -> Normalised:
    """Return text after `n1`; a lone surrogate, which UTF-8 cannot hold, reads as a question mark."""
    mapped = reflow_mapped(clean_mapped(text.encode("utf-8", "replace").decode("utf-8")))
    raws = raw_words(mapped.text)
    begins, ends = mapped.begin.tolist(), mapped.end.tolist()
    tokens: list[Token] = []
    places: list[tuple[int, int]] = []
    for read in read_numbers(mapped.text, raws):
        first, last = raws[read.first].begin, raws[read.after - 1].end
        tokens.append(Token(read.text, read.number, begins[first], ends[last - 1]))
        places.append((first, last))
    starts = [place[0] for place in places]
    return Normalised(
        window_text=mapped.text,
        tokens=tuple(tokens),
        places=tuple(places),
        sentences=sentences(mapped.text, starts),
        paragraphs=paragraphs(mapped.text, starts),
    )


def raw_words(text: str) -> Sequence[Raw]:
    """Return the raw tokens of folded text, with "n't" as "not"."""
    raws: list[Raw] = []
    for found in raw_tokens(text):
        begin, end = found.span()
        word = found.group()
        if word == "t" and begin >= 3 and text[begin - 1] == "'" and raws and raws[-1].end == begin - 1:
            stem = raws[-1]
            if stem.text.endswith("n") and len(stem.text) > 1:
                raws[-1] = Raw(stem.text[:-1], stem.begin, stem.end - 1)
                raws.append(Raw("not", begin - 2, end))
                continue
        raws.append(Raw(word, begin, end))
    return raws
