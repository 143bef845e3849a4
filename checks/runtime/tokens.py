"""From a text and a character to the token at which a state is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.check import ModelFacts
from checks.runtime.plan import Read

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TOO_LONG = "too_long"
NOTHING_BEFORE = "no_token_before_read_at"
OUTSIDE_TEXT = "read_at_outside_text"
OUTSIDE_VOCABULARY = "token_outside_vocabulary"
NON_FINITE = "non_finite"
LOST_REASONS = (TOO_LONG, NOTHING_BEFORE, OUTSIDE_TEXT, OUTSIDE_VOCABULARY, NON_FINITE)
"""Why a text could not be read; a check that skips or refuses for lost texts tells one of these."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One text to run, and where its states are read."""

    ids: tuple[int, ...]
    reads: tuple[tuple[Read, int], ...]
    """Each read with the token position it falls on."""


def tokenise(tokenizer: Tokenizer, reads: Sequence[Read], facts: ModelFacts) -> tuple[tuple[Row, ...], dict[Read, str]]:
    """Return one row per text, and the reads that cannot be made with the reason.

    Tokens that the tokenizer adds around a text ([CLS], a beginning of text) are run, as the model expects them, but
    a state is never read at one: they end at no character of the text.

    Args:
        tokenizer: the model's own, without truncation.
        reads: sorted, so that the reads of one text are neighbours.
        facts: for the context length and the vocabulary.
    """
    by_text: dict[str, list[Read]] = {}
    for read in reads:
        by_text.setdefault(read.text, []).append(read)
    rows: list[Row] = []
    lost: dict[Read, str] = {}
    for (text, of_text), encoding in zip(by_text.items(), tokenizer.encode_batch(list(by_text)), strict=True):
        reason = _unrunnable(encoding, facts)
        ends = _ends(encoding)
        placed: list[tuple[Read, int]] = []
        for read in of_text:
            at = _position(ends, read.read_at)
            if reason:
                lost[read] = reason
            elif not 0 <= read.read_at <= len(text):
                lost[read] = OUTSIDE_TEXT
            elif at is None:
                lost[read] = NOTHING_BEFORE
            else:
                placed.append((read, at))
        if placed:
            rows.append(Row(ids=tuple(encoding.ids), reads=tuple(placed)))
    return tuple(rows), lost


def _unrunnable(encoding: Encoding, facts: ModelFacts) -> str | None:
    if len(encoding.ids) > facts.context:
        return TOO_LONG
    if any(not 0 <= token < facts.vocabulary for token in encoding.ids):
        return OUTSIDE_VOCABULARY
    return None


def _ends(encoding: Encoding) -> list[tuple[int, int]]:
    """Return (end character, token position) of every token that covers part of the text."""
    return [
        (end, position)
        for position, ((start, end), added) in enumerate(
            zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
        )
        if not added and end > start
    ]


def _position(ends: Sequence[tuple[int, int]], read_at: int) -> int | None:
    return max((position for end, position in ends if end <= read_at), default=None)
