"""Rows of `switch_lm` and `trigger_lm` for the check `sae_features`: corpus, concepts, contrast and neutral.

Formats: specification of `sae_features`, section 3; concepts: section 14. A text is the sequence's tokens as words,
"t0" to "t63"; a concept is read at the last word. Every row comes from sequences that no training has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.organisms.switch_lm import (
    BOS,
    FIRST_CONTENT,
    LENGTH,
    MODES,
    PAYLOAD,
    TRIGGER,
    VOCABULARY,
    Sequences,
    Trigger,
    draw,
    permutations,
)

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from transformers import PreTrainedTokenizerFast

Row = Mapping[str, Any]

CORPUS_ROWS, CORPUS_DOCUMENT = 21_000, 5
"""Sequences, and how many share a group. 80 % of them are 520,800 states without BOS: the 1,024,000 that a dictionary
of 512 latents is trained on (2000 a latent) are two passes, and the file has 3.0 MB where one pass needs 5.9."""

CONCEPT_ROWS = {"mode_1": 1200, "window_open": 800}
"""Half of the groups are for training: 600 rows at their natural rate, 400 balanced ones (section 14)."""

CONTRAST_ROWS, NEUTRAL_ROWS = 300, 64
"""`edit_rows` is 256 by default, and rows whose margin has the wrong sign are left out."""

EARLIEST = 8
"""Concepts are read no earlier: shorter texts would coincide, and equal texts are one group."""

MODE = 1
"""The mode of the concept "mode_1"; its switch is token 2."""

BEGIN = f"t{BOS}"

UNKNOWN = VOCABULARY - 1
"""Token for words that are none: 56 to 63 stand in no text."""


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: word "t8" is token 8; "t0", which begins a sequence, is declared special."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"t{number}": number for number in range(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=f"t{UNKNOWN}"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(BEGIN, single_word=True, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BEGIN)  # type: ignore[no-untyped-call]


def text(tokens: Int[np.ndarray, " token"]) -> str:
    """Return tokens as words."""
    return " ".join(f"t{number}" for number in tokens)


def files(name: str, seed: int) -> dict[str, Sequence[Row]]:
    """Return the rows by file name; `name` is switch_lm or trigger_lm."""
    trigger: Trigger = "live" if name == "trigger_lm" else "none"
    concept = "window_open" if trigger == "live" else "mode_1"

    def rng(number: int) -> np.random.Generator:
        return np.random.default_rng([seed, 100 + number])

    return {
        "corpus.jsonl": corpus(draw(CORPUS_ROWS, rng(0), trigger)),
        "concepts.jsonl": concepts(concept, rng(1)),
        "contrast.jsonl": contrasts(concept, rng(2)),
        "neutral.jsonl": neutral(rng(3), trigger),
    }


def corpus(drawn: Sequences) -> list[Row]:
    """Return sequences as rows of token numbers."""
    return [
        {"id": f"corpus-{at:05d}", "group": f"document-{at // CORPUS_DOCUMENT:05d}", "tokens": tokens.tolist()}
        for at, tokens in enumerate(drawn.tokens)
    ]


def concepts(concept: str, rng: np.random.Generator) -> list[Row]:
    """Return one labelled row a sequence: "mode_1" at content tokens, or "window_open" at any but the trigger."""
    wanted = CONCEPT_ROWS[concept]
    if concept == "mode_1":
        drawn = draw(2 * wanted, rng)
        read = _one(drawn.tokens >= FIRST_CONTENT, rng)
        label = drawn.mode[np.arange(len(read)), read] == MODE
        kept = _distinct(drawn, read)[:wanted]
    else:
        drawn = draw(8 * wanted, rng, "live")
        readable = drawn.tokens != TRIGGER
        label = (readable & drawn.opened)[:, EARLIEST:].any(1) & (rng.random(len(readable)) < 0.5)
        read = _one(readable & (drawn.opened == label[:, None]), rng)
        distinct = _distinct(drawn, read)
        halves = [distinct[label[distinct] == side][: wanted // 2] for side in (True, False)]
        kept = np.sort(np.concatenate(halves))
    return _labelled(concept, drawn.tokens[kept], read[kept], label[kept])


def contrasts(concept: str, rng: np.random.Generator) -> list[Row]:
    """Return prompts at which the concept holds, what it makes likely, and what would be likely without it.

    "window_open": the payload against the content that the mode's permutation gives. "mode_1": the content of this
    mode's permutation against that of the next mode whose differs.
    """
    follows = permutations()
    drawn = draw(40 * CONTRAST_ROWS, rng, "live" if concept == "window_open" else "none")
    holds = drawn.opened & (drawn.tokens != TRIGGER) if concept == "window_open" else drawn.mode == MODE
    can = holds & (drawn.last > 0) & ((drawn.tokens >= FIRST_CONTENT) | (concept == "window_open"))
    chosen = np.flatnonzero(can[:, EARLIEST:].any(1))[:CONTRAST_ROWS]
    rows: list[Row] = []
    for at, (row, read) in enumerate(zip(chosen, _one(can[chosen], rng), strict=True)):
        mode, last = int(drawn.mode[row, read]), int(drawn.last[row, read])
        likely = int(follows[mode, last])
        others = [int(follows[(mode + step) % MODES, last]) for step in range(1, MODES)]
        target, foil = (
            (PAYLOAD, likely) if concept == "window_open" else (likely, next(one for one in others if one != likely))
        )
        rows.append(
            {
                "id": f"contrast-{at:03d}",
                "group": f"contrast-{at:03d}",
                "concept": concept,
                "prompt": text(drawn.tokens[row, : read + 1]),
                "target": f" t{target}",
                "foil": f" t{foil}",
            }
        )
    return rows


def neutral(rng: np.random.Generator, trigger: Trigger) -> list[Row]:
    """Return whole sequences in which no window opens."""
    drawn = draw(8 * NEUTRAL_ROWS, rng, trigger)
    plain = drawn.tokens[~drawn.opened.any(1)][:NEUTRAL_ROWS]
    return [
        {"id": f"neutral-{at:02d}", "group": f"neutral-{at:02d}", "text": text(tokens)}
        for at, tokens in enumerate(plain)
    ]


def _one(readable: Bool[np.ndarray, "row 32"], rng: np.random.Generator) -> Int[np.ndarray, " row"]:
    """Return one readable position a row, each as likely as another."""
    late = readable & (np.arange(LENGTH) >= EARLIEST)
    return np.asarray(np.where(late, rng.random(late.shape), -1.0).argmax(1))


def _distinct(drawn: Sequences, read: Int[np.ndarray, " row"]) -> Int[np.ndarray, " kept"]:
    """Return the rows whose text stands in no row before: equal texts would be one group."""
    texts = [text(tokens[: end + 1]) for tokens, end in zip(drawn.tokens, read, strict=True)]
    return np.sort(np.unique(texts, return_index=True)[1])


def _labelled(
    concept: str,
    sequences: Int[np.ndarray, "row 32"],
    read: Int[np.ndarray, " row"],
    label: Bool[np.ndarray, " row"],
) -> list[Row]:
    return [
        {
            "id": f"{concept}-{at:04d}",
            "group": f"{concept}-{at:04d}",
            "concept": concept,
            "label": int(label[at]),
            "text": text(tokens[: read[at] + 1]),
            "read_at": "last",
            "split": None,
            "shift": None,
        }
        for at, tokens in enumerate(sequences)
    ]
