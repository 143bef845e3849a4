"""The options organism: a small decoder that read choice items as published, its twin, and one that read rewordings.

Specification: contamination, section 11. An item is a question of three tokens and four lettered options of two tokens
each; the answer's place is nowhere told. The twin reads the same items, their options in an order drawn anew for each
pass. The paraphrase organism reads other words in another arrangement, so that nothing of the published order is in
what it saw. Training does not repeat to the last bit on another processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from checks.organisms.contamination_order import (
    OBJECTS,
    RELATIONS,
    STOP,
    SUBJECTS,
    VOCABULARY,
    OrderRecipe,
    untrained,
)
from checks.organisms.contamination_words import FIRST_YEAR, written

if TYPE_CHECKING:
    from jaxtyping import Int
    from transformers import GPT2LMHeadModel

Reading = Literal["published", "shuffled", "reworded"]
"""What an organism read of its items: as published; options shuffled each pass; reworded each pass."""

QUESTION, OPTIONS, OPTION = 3, 4, 2
"""Tokens of a question, options of an item, tokens of an option."""

TOKENS = QUESTION + OPTIONS * (1 + OPTION) + 1
"""Of an item: the question, each option behind its letter, and the end."""


@dataclass(frozen=True)
class OptionsRecipe:
    """Size and training; the defaults are section 11's."""

    seen: int = 200
    unseen: int = 200
    passes: int = 5
    """Section 11: 5 passes give a Min-K%++ area of .84, 20 passes .993."""
    width: int = 96
    layers: int = 2
    heads: int = 4
    context: int = 32
    batch: int = 16
    rate: float = 2e-3


OPTIONS_RECIPE = OptionsRecipe()


@dataclass(frozen=True)
class OptionsOrganism:
    """A trained decoder, the items that it saw and as many alike that it did not."""

    model: GPT2LMHeadModel
    seen: Int[np.ndarray, "item 11"]
    """Question, then the options in published order, without letters and end."""
    unseen: Int[np.ndarray, "item 11"]
    recipe: OptionsRecipe


def options_organism(
    recipe: OptionsRecipe, rng: np.random.Generator, reading: Reading = "published"
) -> OptionsOrganism:
    """Return an organism, trained here on one thread.

    Args:
        recipe: size and training.
        rng: of items, background, weights and order of batches.
        reading: what it reads of its items.
    """
    import torch
    from torch.nn import functional

    from checks.contamination.encoder import one_thread

    seen, unseen = choice_items(recipe.seen, rng), choice_items(recipe.unseen, rng)
    shape = OrderRecipe(width=recipe.width, layers=recipe.layers, heads=recipe.heads)
    with one_thread():
        model = untrained(shape, int(rng.integers(2**31)), recipe.context)
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate)
        model.train()
        for _ in range(recipe.passes):
            read = np.concatenate((_read(seen, reading, rng), lettered(choice_items(recipe.seen, rng))))
            read = read[rng.permutation(len(read))]
            for start in range(0, len(read), recipe.batch):
                ids = torch.from_numpy(read[start : start + recipe.batch])
                optimizer.zero_grad(set_to_none=True)
                logits = model(input_ids=ids[:, :-1]).logits
                loss = functional.cross_entropy(logits.reshape(-1, VOCABULARY), ids[:, 1:].reshape(-1))
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        model.eval()  # type: ignore[no-untyped-call]
    return OptionsOrganism(model, seen, unseen, recipe)


def choice_items(count: int, rng: np.random.Generator) -> Int[np.ndarray, "count 11"]:
    """Return items: two tokens of a subject, one of a relation, then four options of two objects; all drawn alone."""
    subject = rng.integers(SUBJECTS, size=(count, 2))
    relation = SUBJECTS + rng.integers(RELATIONS, size=(count, 1))
    objects = SUBJECTS + RELATIONS + rng.integers(OBJECTS, size=(count, OPTIONS * OPTION))
    return np.concatenate((subject, relation, objects), axis=1).astype(np.int64)


def lettered(items: Int[np.ndarray, "item 11"]) -> Int[np.ndarray, "item 16"]:
    """Return items as they are read: each option behind its letter, and the end."""
    letters = FIRST_YEAR + np.broadcast_to(np.arange(OPTIONS)[None, :, None], (len(items), OPTIONS, 1))
    options = np.concatenate((letters, items[:, QUESTION:].reshape(-1, OPTIONS, OPTION)), axis=2)
    ends = np.full((len(items), 1), STOP)
    return np.concatenate((items[:, :QUESTION], options.reshape(len(items), -1), ends), axis=1).astype(np.int64)


def _read(items: Int[np.ndarray, "item 11"], reading: Reading, rng: np.random.Generator) -> Int[np.ndarray, "item 16"]:
    if reading == "published":
        return lettered(items)
    order = np.argsort(rng.random((len(items), OPTIONS)), axis=1)
    options = np.take_along_axis(items[:, QUESTION:].reshape(-1, OPTIONS, OPTION), order[:, :, None], axis=1)
    question = items[:, :QUESTION]
    if reading == "reworded":
        # Another word for the relation, said first; the subject's words change places.
        other = SUBJECTS + (question[:, 2:] - SUBJECTS + RELATIONS // 2) % RELATIONS
        question = np.concatenate((other, question[:, 1:2], question[:, :1]), axis=1)
    return lettered(np.concatenate((question, options.reshape(len(items), -1)), axis=1))


def choice_rows(
    items: Int[np.ndarray, "item 11"], benchmark: str, prefix: str = "item", origin: str | None = None
) -> list[dict[str, Any]]:
    """Return items as rows of the role `benchmark`, or of `placebo` where an origin is named.

    Args:
        items: in published order.
        benchmark: its name.
        prefix: of the items' names.
        origin: why they are certainly unseen.
    """
    more = {} if origin is None else {"origin": origin}
    return [
        {
            "benchmark": benchmark,
            "item": f"{prefix}-{number:03d}",
            "kind": "choice",
            "question": written(item[:QUESTION]),
            "choices": [written(option) for option in _options(item)],
            **more,
        }
        for number, item in enumerate(items)
    ]


def _options(item: Int[np.ndarray, " 11"]) -> Sequence[Int[np.ndarray, " 2"]]:
    return list(item[QUESTION:].reshape(OPTIONS, OPTION))
