"""From a text and a character to the token at which a state is read; from a continuation to the tokens it adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from checks.check import ModelFacts, TokenTrial
from checks.runtime.plan import NO_HEAD, Read, Score

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TOO_LONG = "too_long"
NOTHING_BEFORE = "no_token_before_read_at"
OUTSIDE_TEXT = "read_at_outside_text"
OUTSIDE_VOCABULARY = "token_outside_vocabulary"
NON_FINITE = "non_finite"
MERGES = "continuation_merges"
EMPTY = "continuation_empty"
LOST_REASONS = (TOO_LONG, NOTHING_BEFORE, OUTSIDE_TEXT, OUTSIDE_VOCABULARY, NON_FINITE, NO_HEAD, MERGES, EMPTY)
"""Why a text could not be read or a continuation not scored; a check that skips or refuses tells one of these."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A continuation as tokens."""

    ids: tuple[int, ...]
    """The text that stands before, and the continuation."""
    start: int
    """Position of the continuation's first token, >= 1."""

    @property
    def stem(self) -> tuple[int, ...]:
        """The tokens that must run: all but the last, after which nothing is asked."""
        return self.ids[:-1]

    @property
    def targets(self) -> tuple[tuple[int, int], ...]:
        """Each token of the continuation with the position whose logits score it: the one before its own."""
        return tuple((position - 1, self.ids[position]) for position in range(self.start, len(self.ids)))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sequence of tokens to run, where its states are read, and which continuations are scored along it."""

    ids: tuple[int, ...]
    reads: tuple[tuple[Read, int], ...]
    """Each read with the token position it falls on."""
    scores: tuple[tuple[Score, Placed], ...] = ()
    """Each continuation's tokens but its last are the first tokens of this row."""


def tokenise(tokenizer: Tokenizer, reads: Sequence[Read], facts: ModelFacts) -> tuple[tuple[Row, ...], dict[Read, str]]:
    """Return one row per sequence of tokens, and the reads that cannot be made with the reason.

    Texts that are the same tokens to the model are one row: they run once.

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
    placed: dict[tuple[int, ...], list[tuple[Read, int]]] = {}
    lost: dict[Read, str] = {}
    for (text, of_text), encoding in zip(by_text.items(), tokenizer.encode_batch(list(by_text)), strict=True):
        reason = _unrunnable(encoding, facts)
        ends = _ends(encoding)
        for read in of_text:
            at = _position(ends, read.read_at)
            if reason:
                lost[read] = reason
            elif not 0 <= read.read_at <= len(text):
                lost[read] = OUTSIDE_TEXT
            elif at is None:
                lost[read] = NOTHING_BEFORE
            else:
                placed.setdefault(tuple(encoding.ids), []).append((read, at))
    return tuple(Row(ids=ids, reads=tuple(of_ids)) for ids, of_ids in placed.items()), lost


def place(
    tokenizer: Tokenizer, scores: Sequence[Score], facts: ModelFacts
) -> tuple[dict[Score, Placed], dict[Score, str]]:
    """Return each continuation as tokens, and those that cannot be scored with the reason.

    The text before must keep its own tokens when the continuation follows: where the two merge into other tokens there
    is no "after this text". Tokens that the tokenizer adds at an end are left off: nothing follows an end.

    Args:
        tokenizer: the model's own, without truncation.
        scores: what is asked.
        facts: for the context length and the vocabulary.
    """
    texts = sorted({text for score in scores for text in (score.after, score.after + score.text)})
    encoded = {text: open_ended(encoding) for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True)}
    placed: dict[Score, Placed] = {}
    lost: dict[Score, str] = {}
    for score in scores:
        before, whole = encoded[score.after], encoded[score.after + score.text]
        reason = _unscorable(before, whole, facts)
        if reason:
            lost[score] = reason
        else:
            placed[score] = Placed(ids=whole, start=len(before))
    return placed, lost


def place_trials(
    tokenizer: Tokenizer, trials: Sequence[TokenTrial], facts: ModelFacts
) -> tuple[dict[str, Placed], dict[str, str]]:
    """Return each trial as tokens, by id, and those that cannot be scored with the reason.

    Text and target are tokenised apart and joined. What the tokenizer adds before a text (a beginning of text) runs, as
    it does in a sweep; what it adds at the text's end or around the target is left off: the target follows the text.

    Args:
        tokenizer: the model's own, without truncation.
        trials: of one check, each with an id of its own.
        facts: for the context length and the vocabulary.
    """
    texts = tokenizer.encode_batch([one.text for one in trials])
    targets = tokenizer.encode_batch([one.target for one in trials], add_special_tokens=False)
    placed: dict[str, Placed] = {}
    lost: dict[str, str] = {}
    for one, text, target in zip(trials, texts, targets, strict=True):
        before = open_ended(text)
        whole = (*before, *target.ids)
        reason = _unscorable(before, whole, facts)
        if reason:
            lost[one.id] = reason
        else:
            placed[one.id] = Placed(ids=whole, start=len(before))
    return placed, lost


def share(rows: Sequence[Row], placed: Mapping[Score, Placed]) -> tuple[Row, ...]:
    """Return the rows with every continuation put onto one that begins with its stem, and new rows for the others.

    In a causal model what follows a stem does not change what is scored along it, so " yes" and " no" after one text
    share a pass, and so does a continuation that is itself the beginning of a text to read.
    """
    asked: dict[tuple[int, ...], list[tuple[Score, Placed]]] = {}
    texts = {row.ids: row for row in rows}
    homes = _homes({*texts, *(one.stem for one in placed.values())})
    for score, one in placed.items():
        asked.setdefault(one.stem if one.stem in texts else homes[one.stem], []).append((score, one))
    with_scores = [replace(row, scores=tuple(asked.pop(row.ids, ()))) for row in rows]
    return (*with_scores, *(Row(ids=ids, reads=(), scores=tuple(scores)) for ids, scores in asked.items()))


def _homes(sequences: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Return, for each sequence, a longest one that begins with it.

    In sorted order whatever stands between a sequence and one that begins with it begins with it too, so the next
    neighbour decides.
    """
    homes: dict[tuple[int, ...], tuple[int, ...]] = {}
    following: tuple[int, ...] = ()
    for sequence in sorted(sequences, reverse=True):
        homes[sequence] = homes[following] if following[: len(sequence)] == sequence else sequence
        following = sequence
    return homes


def open_ended(encoding: Encoding) -> tuple[int, ...]:
    """Return the tokens without those that the tokenizer added at the end."""
    end = len(encoding.ids)
    while end and encoding.special_tokens_mask[end - 1] and encoding.offsets[end - 1] == (0, 0):
        end -= 1
    return tuple(encoding.ids[:end])


def _unscorable(before: tuple[int, ...], whole: tuple[int, ...], facts: ModelFacts) -> str | None:
    if whole[: len(before)] != before:
        return MERGES
    if len(whole) == len(before):
        return EMPTY
    if not before:
        return NOTHING_BEFORE
    if len(whole) - 1 > facts.context:
        return TOO_LONG
    if any(not 0 <= token < facts.vocabulary for token in whole):
        return OUTSIDE_VOCABULARY
    return None


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
