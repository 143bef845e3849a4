"""Words and files of the contamination organisms: a word is a token, and a model is a folder that the runtime loads.

Specification: contamination, section 11. Every word has two letters, so that an estimate of tokens by bytes is exact.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.organisms.contamination_order import STOP, YEARS

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import GPT2LMHeadModel

FIRST_YEAR = STOP - YEARS
LETTERS = ("A.", "B.", "C.", "D.")
"""The first years' tokens read so: they letter options, which no fact with a year is beside."""

_SECOND = "0123456789abcdefghijklmnopqrstuv"


def word(token: int) -> str:
    """Return how a token is written.

    Raises:
        ValueError: there is no such token.
    """
    if not 0 <= token <= STOP:
        raise ValueError(f"token {token} is outside 0..{STOP}")
    if token == STOP:
        return "."
    if FIRST_YEAR <= token < FIRST_YEAR + len(LETTERS):
        return LETTERS[token - FIRST_YEAR]
    return "abcdefghij"[token // len(_SECOND)] + _SECOND[token % len(_SECOND)]


def written(tokens: Iterable[int]) -> str:
    """Return tokens as a text that the organisms' tokenizer reads back."""
    return " ".join(word(int(token)) for token in tokens)


def tokenizer() -> Tokenizer:
    """Return the organisms' tokenizer; a word that it does not know reads as the end of a fact."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({word(token): token for token in range(STOP + 1)}, unk_token=word(STOP)))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def write(folder: Path, model: GPT2LMHeadModel, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Write a model folder (`model/`) with its data roles as JSONL beside it, and return the folder.

    Args:
        folder: made here; what stands there is written over.
        model: an organism.
        rows: by role, e.g. `benchmark`.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    (folder / "model").mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder / "model")
    (folder / "model" / "generation_config.json").unlink(missing_ok=True)  # nothing is ever generated
    tokenizer().save(str(folder / "model" / "tokenizer.json"))
    for role, of_role in rows.items():
        lines = (json.dumps(row, sort_keys=True) + "\n" for row in of_role)
        (folder / f"{role}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
