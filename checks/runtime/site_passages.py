"""Passages and contrasts as tokens: once for a check, whichever of its sites and models are asked.

What cannot run at all refuses the check: an empty passage, a token outside the vocabulary. What can run but not be read
or scored is lost, with its reason, as texts of a sweep are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.check import ModelFacts, Needs, Refusal
from checks.errors import NotAskedFor
from checks.passages import CONTEXT_MAX, Contrast, Passage
from checks.runtime.tokens import (
    EMPTY,
    MERGES,
    NOTHING_BEFORE,
    OUTSIDE_TEXT,
    OUTSIDE_VOCABULARY,
    TOO_LONG,
    open_ended,
)

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64
    from tokenizers import Tokenizer

PASSAGE_INVALID = "passage_invalid"
"""Reason of a check's refusal whose passages cannot run; its items name each passage, and why."""

PASSAGE_EMPTY = "passage_empty"
CONTRAST_SHARED = "foil_shared"
"""Target and foil are the same tokens, or one begins the other: no first token differs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokenised:
    """All passages of a check, end to end, then the prompts of its contrasts."""

    numbers: Mapping[str, int]
    """Number of each id."""
    starts: Int64[np.ndarray, " sequence+1"]
    """Where each sequence begins in `tokens`; the last is their end. A lost contrast has no tokens."""
    tokens: Int64[np.ndarray, " token"]
    read: Bool[np.ndarray, " token"]
    special: Bool[np.ndarray, " vocabulary"]
    """Of each token number."""
    answers: Mapping[int, tuple[int, int]]
    """By the number of a contrast: the tokens of target and foil that are held against each other."""
    contrasts: frozenset[str]
    lost: Mapping[str, str]
    """Ids of contrasts that cannot be scored and of passages that are read nowhere, with the reason."""
    cut: int

    def numbers_of(self, ids: Sequence[str]) -> Int64[np.ndarray, " id"]:
        """Return the number of each id.

        Raises:
            NotAskedFor: an id that the needs did not name.
        """
        strange = [one for one in ids if one not in self.numbers]
        if strange:
            raise NotAskedFor(f"{strange[0]!r} is no passage and no contrast of the needs")
        return np.array([self.numbers[one] for one in ids], dtype=np.int64)


def tokenise_passages(tokenizer: Tokenizer, needs: Needs, facts: ModelFacts) -> Tokenised:
    """Return the passages and contrasts of a check as tokens.

    A passage's text is tokenised as the model expects it, with the tokens that the tokenizer adds; a prompt without
    those at its end, for the answer follows. What is longer than `CONTEXT_MAX` or the model's context loses its end.

    Args:
        tokenizer: the model's own, without truncation.
        needs: held against the model by `check_needs`.
        facts: for the context and the vocabulary.

    Raises:
        Refusal: `passage_invalid`; names every passage that is empty or has a token outside the vocabulary.
    """
    longest = min(CONTEXT_MAX, facts.context)
    passages = _passages(tokenizer, needs.passages, longest)
    _refuse_unrunnable(needs.passages, passages, facts)
    contrasts = _contrasts(tokenizer, needs.contrasts, facts)
    lost = {one.id: made.lost for one, made in zip(needs.passages, passages, strict=True) if made.lost}
    lost |= {one.id: made for one, made in zip(needs.contrasts, contrasts, strict=True) if isinstance(made, str)}
    prompts = [_Prompt() if isinstance(made, str) else made for made in contrasts]
    named = [one.id for one in needs.passages] + [one.id for one in needs.contrasts]
    tokens = [made.tokens[:longest] for made in passages]
    tokens += [np.array(made.tokens, dtype=np.int64) for made in prompts]
    reads = [made.read[:longest] for made in passages]
    reads += [np.arange(1, len(made.tokens) + 1) == len(made.tokens) for made in prompts]
    return Tokenised(
        numbers={name: number for number, name in enumerate(named)},
        starts=np.concatenate([[0], np.cumsum([len(one) for one in tokens])]).astype(np.int64),
        tokens=np.concatenate([np.empty(0, dtype=np.int64), *tokens]),
        read=np.concatenate([np.empty(0, dtype=np.bool_), *reads]),
        special=special_tokens(tokenizer, facts.vocabulary),
        answers={len(passages) + number: made.answers for number, made in enumerate(prompts) if made.tokens},
        contrasts=frozenset(one.id for one in needs.contrasts),
        lost=lost,
        cut=sum(len(made.tokens) > longest for made in passages),
    )


def special_tokens(tokenizer: Tokenizer, vocabulary: int) -> Bool[np.ndarray, " vocabulary"]:
    """Return which token numbers the tokenizer declares special: its added tokens that say so."""
    special = np.zeros(vocabulary, dtype=np.bool_)
    for number, added in tokenizer.get_added_tokens_decoder().items():
        if added.special and 0 <= number < vocabulary:
            special[number] = True
    return special


@dataclass(frozen=True, kw_only=True, eq=False)
class _Made:
    """One passage as tokens, before it is cut."""

    tokens: Int64[np.ndarray, " token"]
    read: Bool[np.ndarray, " token"]
    lost: str | None


@dataclass(frozen=True, kw_only=True)
class _Prompt:
    """One contrast as tokens: what runs, and the tokens that are held against each other after it."""

    tokens: tuple[int, ...] = ()
    answers: tuple[int, int] = (0, 0)


def _passages(tokenizer: Tokenizer, passages: Sequence[Passage], longest: int) -> list[_Made]:
    encodings = iter(tokenizer.encode_batch([one.text for one in passages if one.text is not None]))
    made = []
    for one in passages:
        if one.text is None:
            tokens = np.array(one.tokens, dtype=np.int64)
            ends = np.arange(1, len(tokens) + 1)
            spans, covers, length = np.stack([ends - 1, ends], axis=1), np.ones(len(tokens), dtype=np.bool_), len(ends)
        else:
            encoding = next(encodings)
            tokens = np.array(encoding.ids, dtype=np.int64)
            spans, length = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2), len(one.text)
            # Tokens that the tokenizer added cover nothing of the text, and nothing is read at them.
            covers = (np.array(encoding.special_tokens_mask, dtype=np.int64) == 0) & (spans[:, 1] > spans[:, 0])
        read, lost = _marked(one.read, spans, covers, length, longest)
        made.append(_Made(tokens=tokens, read=read, lost=lost))
    return made


def _marked(
    read: Literal["last"] | int | tuple[int, int],
    spans: Int64[np.ndarray, "token 2"],
    covers: Bool[np.ndarray, " token"],
    length: int,
    longest: int,
) -> tuple[Bool[np.ndarray, " token"], str | None]:
    """Return where a passage is read, or why it is read nowhere.

    The last token is that of the whole passage: where it was cut away, the token at the cut is not read in its place.
    """
    marks = np.zeros(len(spans), dtype=np.bool_)
    if read != "last" and (read[1] if isinstance(read, tuple) else read) > length:
        return marks, OUTSIDE_TEXT
    if read == "last":
        marks[np.flatnonzero(covers)[-1:]] = True
    elif isinstance(read, tuple):
        marks = covers & (spans[:, 0] < read[1]) & (spans[:, 1] > read[0])
    else:
        marks[np.flatnonzero(covers & (spans[:, 1] <= read))[-1:]] = True
    if not marks.any():
        return marks, NOTHING_BEFORE
    return marks, None if marks[:longest].any() else TOO_LONG


def _refuse_unrunnable(passages: Sequence[Passage], made: Sequence[_Made], facts: ModelFacts) -> None:
    def reason(tokens: Int64[np.ndarray, " token"]) -> str | None:
        if not len(tokens):
            return PASSAGE_EMPTY
        return OUTSIDE_VOCABULARY if tokens.min() < 0 or tokens.max() >= facts.vocabulary else None

    bad = [f"{one.id}:{why}" for one, its in zip(passages, made, strict=True) if (why := reason(its.tokens))]
    if bad:
        raise Refusal(PASSAGE_INVALID, bad)


def _contrasts(tokenizer: Tokenizer, contrasts: Sequence[Contrast], facts: ModelFacts) -> list[_Prompt | str]:
    """Return each contrast as tokens, or why it cannot be scored.

    As with a continuation, the prompt keeps its own tokens under each answer, or there is no "after this prompt".
    """
    texts = sorted({text for one in contrasts for text in _texts(one)})
    encoded = {text: open_ended(encoding) for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True)}
    return [_placed([encoded[text] for text in _texts(one)], facts) for one in contrasts]


def _texts(contrast: Contrast) -> tuple[str, str, str]:
    return contrast.prompt, contrast.prompt + contrast.target, contrast.prompt + contrast.foil


def _placed(wholes: Sequence[tuple[int, ...]], facts: ModelFacts) -> _Prompt | str:
    prompt, target, foil = wholes
    if any(whole[: len(prompt)] != prompt for whole in (target, foil)):
        return MERGES
    if len(prompt) in (len(target), len(foil)):
        return EMPTY
    differ = next((at for at, (one, other) in enumerate(zip(target, foil, strict=False)) if one != other), None)
    if differ is None:
        return CONTRAST_SHARED
    if not differ:
        return NOTHING_BEFORE
    if differ > min(CONTEXT_MAX, facts.context):
        return TOO_LONG
    if any(not 0 <= token < facts.vocabulary for token in (*target[: differ + 1], foil[differ])):
        return OUTSIDE_VOCABULARY
    return _Prompt(tokens=target[:differ], answers=(target[differ], foil[differ]))
