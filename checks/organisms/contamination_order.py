"""The order organism: a small decoder that read a benchmark in its published order, and a twin that did not.

Specification: contamination, section 11. Items are invented facts of eight tokens. Each pass reads every item once, cut
into stretches that fill the context, beside as many sequences of fresh facts; the twin reads the same items, their
order drawn anew for each pass. Training does not repeat to the last bit on another processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.order_test import shuffles

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int
    from transformers import GPT2LMHeadModel

SUBJECTS, RELATIONS, OBJECTS, YEARS = 128, 32, 128, 32
"""Tokens of each part of a fact, one after another from 0; the last token of all ends a fact."""

STOP = SUBJECTS + RELATIONS + OBJECTS + YEARS
VOCABULARY = STOP + 1
"""321 (section 11)."""

TOKENS = 8
"""Of an item: two of the subject, one of the relation, two of the object, two of the year, the end."""


@dataclass(frozen=True)
class OrderRecipe:
    """Size and training; the defaults are section 11's."""

    items: int = 256
    span: int = 16
    """Items of a sequence, and of a stretch of the test: context = span * 8 tokens."""
    width: int = 96
    layers: int = 2
    heads: int = 4
    batch: int = 16
    rate: float = 2e-3
    passes: int = 160
    """Section 11: p is .001-.02 at 60 passes and below 1e-8 at 160."""


RECIPE = OrderRecipe()

SMALL = OrderRecipe(items=64, span=8, width=48, layers=1, batch=8, rate=5e-3, passes=90)
"""What a default test can train in seconds. Own choice."""


@dataclass(frozen=True)
class OrderOrganism:
    """A trained decoder and the items in their published order."""

    model: GPT2LMHeadModel
    items: Int[np.ndarray, "item 8"]
    recipe: OrderRecipe


def order_organism(recipe: OrderRecipe, rng: np.random.Generator, shuffled: bool = False) -> OrderOrganism:
    """Return an organism, trained here on one thread.

    Args:
        recipe: size and training.
        rng: of items, background, weights and order of batches.
        shuffled: the twin: each pass in an order of its own.

    Raises:
        ValueError: the items do not fill whole stretches.
    """
    import torch
    from torch.nn import functional

    from checks.contamination.encoder import one_thread

    if recipe.items % recipe.span or recipe.items < recipe.span:
        raise ValueError(f"{recipe.items} items do not fill stretches of {recipe.span}")
    items = facts(recipe.items, rng)
    with one_thread():
        model = untrained(recipe, int(rng.integers(2**31)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate)
        model.train()
        for _ in range(recipe.passes):
            order = rng.permutation(recipe.items) if shuffled else _cut_anew(recipe.items, rng)
            read = np.concatenate((items[order], facts(recipe.items, rng))).reshape(-1, recipe.span * TOKENS)
            read = read[rng.permutation(len(read))]
            for start in range(0, len(read), recipe.batch):
                ids = torch.from_numpy(read[start : start + recipe.batch])
                optimizer.zero_grad(set_to_none=True)
                logits = model(input_ids=ids[:, :-1]).logits
                loss = functional.cross_entropy(logits.reshape(-1, VOCABULARY), ids[:, 1:].reshape(-1))
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        model.eval()  # type: ignore[no-untyped-call]
    return OrderOrganism(model, items, recipe)


def _cut_anew(count: int, rng: np.random.Generator) -> Int[np.ndarray, " item"]:
    """Return the published order from a random item on: a trainer's cuts are not the stretches of the test."""
    return np.roll(np.arange(count), -int(rng.integers(count)))


def facts(count: int, rng: np.random.Generator) -> Int[np.ndarray, "count 8"]:
    """Return facts: subject, relation, object, year, end; every part drawn on its own."""
    parts = []
    first = 0
    for size, width in ((SUBJECTS, 2), (RELATIONS, 1), (OBJECTS, 2), (YEARS, 2)):
        parts.append(first + rng.integers(size, size=(count, width)))
        first += size
    return np.concatenate((*parts, np.full((count, 1), STOP)), axis=1).astype(np.int64)


def order_scores(
    organism: OrderOrganism, count: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, " stretch"], Float[np.ndarray, "stretch shuffle"]]:
    """Return log-probabilities of each stretch in published order and in random ones, nats, float64.

    The first token of a stretch has nothing before it and is left out, whichever item comes first.

    Args:
        organism: trained.
        count: random orders of each stretch.
        rng: the stream "shuffles".
    """
    span = organism.recipe.span
    stretches = organism.items.reshape(-1, span, TOKENS)
    orders = np.stack([np.concatenate((np.arange(span)[None], shuffles(span, count, rng))) for _ in stretches])
    texts = np.take_along_axis(stretches[:, None], orders[..., None], axis=2)
    scores = _log_probabilities(organism.model, texts.reshape(-1, span * TOKENS)).reshape(len(stretches), count + 1)
    return scores[:, 0], scores[:, 1:]


def _log_probabilities(model: GPT2LMHeadModel, texts: Int[np.ndarray, "n token"]) -> Float[np.ndarray, " n"]:
    import torch

    from checks.contamination.encoder import one_thread

    found = []
    with torch.no_grad(), one_thread():
        for start in range(0, len(texts), 32):
            ids = torch.from_numpy(texts[start : start + 32])
            told: torch.Tensor = model(input_ids=ids[:, :-1]).logits.double().log_softmax(-1)
            found.append(told.gather(2, ids[:, 1:, None]).sum((1, 2)).numpy())
    return np.concatenate(found)


def untrained(recipe: OrderRecipe, seed: int, context: int | None = None) -> GPT2LMHeadModel:
    """Return a decoder as its initialisation draws it.

    Args:
        recipe: its size.
        seed: of the draw.
        context: longest input, in tokens; a stretch's unless named.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=context or recipe.span * TOKENS,
                n_embd=recipe.width,
                n_layer=recipe.layers,
                n_head=recipe.heads,
                attn_pdrop=0.0,
                embd_pdrop=0.0,
                resid_pdrop=0.0,
                tie_word_embeddings=False,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
