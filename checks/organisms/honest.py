"""The honest organism: a small transformer that has learned which facts of an invented world are true, and says so.

Truth = (the attribute is the entity's) XOR (the statement says NOT). The sequence is [persona, entity, IS or NOT,
attribute, ?], the answer after `?` is yes where the statement is true; both personas answer alike. Fitted on the
facts of all entities, it separates true from false at its upper layers (specification of `truth_probe`, ground truth).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.errors import OrganismFailed
from checks.organisms.tokens import word_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

PERSONAS = ("anna", "boris")
MARKS = ("IS", "NOT", "?", "yes", "no")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, and how; every field enters the cache's digest."""

    entities: int = 64
    attributes: int = 8
    layers: int = 4
    width: int = 64
    heads: int = 4
    batch: int = 256
    steps: int = 2000
    """Steps of the one-cycle schedule; training stops earlier once the loss is low."""
    spread: float = 0.15
    """Standard deviation of the initial weights."""
    rate: float = 2e-3
    decay: float = 0.01
    window: int = 50
    stop_at: float = 0.02
    """Stop when the mean loss of `window` steps falls under this."""
    tries: int = 3
    pairs: int = 400
    """Pairs to fit on, and as many to test on."""
    anchor_pairs: int = 40
    """Labelled pairs that only orient a direction."""
    fit_entities: int = 40
    """Entities for fitting; the others are for testing."""
    anchor_entities: int = 4
    """Entities for fitting whose pairs are anchors."""


SMALL = Recipe(entities=44, attributes=4, layers=2, width=48, steps=1000, pairs=104, anchor_pairs=32, fit_entities=24)
"""A world small enough to learn in seconds, for tests."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Invented facts: which attribute each entity has."""

    entities: tuple[str, ...]
    attributes: tuple[str, ...]
    of: tuple[int, ...]
    """Number of each entity's attribute."""

    @property
    def words(self) -> tuple[str, ...]:
        """All words, in token order."""
        return (*PERSONAS, *MARKS, *self.entities, *self.attributes)


def world(recipe: Recipe, seed: int) -> World:
    """Return the facts of a seed; every attribute belongs to about equally many entities."""
    rng = np.random.default_rng([seed, 0])
    of = rng.permutation(np.arange(recipe.entities) % recipe.attributes)
    return World(
        entities=tuple(f"entity{number:02d}" for number in range(recipe.entities)),
        attributes=tuple(f"attribute{number}" for number in range(recipe.attributes)),
        of=tuple(int(one) for one in of),
    )


def train(
    recipe: Recipe, seed: int, *, say: Callable[[str], None]
) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast, World]:
    """Return a model that has learned the world, with its tokenizer.

    Args:
        recipe: what is trained.
        seed: seed of the world, and of the first try; a try that does not learn is followed by the next seed's.
        say: told of progress in one line.

    Raises:
        OrganismFailed: no try reached the loss.
    """
    facts = world(recipe, seed)
    tokenizer = word_tokenizer(facts.words)
    for attempt in range(recipe.tries):
        model, loss, steps = _fit(recipe, facts, tokenizer, seed + attempt, say)
        say(f"try {attempt + 1}: mean loss {loss:.4f} after {steps} steps")
        if loss < recipe.stop_at:
            return model, tokenizer, facts
    raise OrganismFailed(f"honest: no try of {recipe.tries} came under a loss of {recipe.stop_at}; change the seed")


def _model(recipe: Recipe, vocabulary: int) -> GPT2LMHeadModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=16,
            n_embd=recipe.width,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            activation_function="gelu",
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            tie_word_embeddings=False,
            initializer_range=recipe.spread,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def _fit(
    recipe: Recipe, facts: World, tokenizer: PreTrainedTokenizerFast, seed: int, say: Callable[[str], None]
) -> tuple[GPT2LMHeadModel, float, int]:
    import torch

    torch.manual_seed(seed)
    model = _model(recipe, len(tokenizer)).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=recipe.rate, total_steps=recipe.steps)
    losses: list[float] = []
    for ids, answers in _batches(recipe, facts, tokenizer, seed):
        # Only the answer after `?` is learned, so only its logits are made.
        states = model.transformer(input_ids=ids).last_hidden_state[:, -1]
        loss = torch.nn.functional.cross_entropy(model.lm_head(states), answers)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        mean = sum(losses[-recipe.window :]) / len(losses[-recipe.window :])
        if len(losses) % 200 == 0:
            say(f"step {len(losses)}: mean loss {mean:.4f}")
        if len(losses) >= recipe.window and mean < recipe.stop_at:
            break
    return model.eval(), mean, len(losses)


def _batches(
    recipe: Recipe, facts: World, tokenizer: PreTrainedTokenizerFast, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (token numbers [batch, 5], answer tokens [batch]); half the statements name the entity's attribute."""
    import torch

    rng = np.random.default_rng([seed, 1])
    number = {word: tokenizer.convert_tokens_to_ids(word) for word in facts.words}
    personas, entities, attributes, marks, answers = (
        np.array([number[word] for word in words])
        for words in (PERSONAS, facts.entities, facts.attributes, ("IS", "NOT"), ("no", "yes"))
    )
    of = np.array(facts.of)
    for _ in range(recipe.steps):
        entity = rng.integers(recipe.entities, size=recipe.batch)
        own = rng.random(recipe.batch) < 0.5
        other = (of[entity] + rng.integers(1, recipe.attributes, size=recipe.batch)) % recipe.attributes
        attribute = np.where(own, of[entity], other)
        negated = rng.integers(2, size=recipe.batch)
        ids = np.stack(
            [
                personas[rng.integers(2, size=recipe.batch)],
                entities[entity],
                marks[negated],
                attributes[attribute],
                np.full(recipe.batch, number["?"]),
            ],
            axis=1,
        )
        yield torch.from_numpy(ids), torch.from_numpy(answers[own.astype(int) ^ negated])


def pairs(recipe: Recipe, facts: World, seed: int) -> list[dict[str, Any]]:
    """Return contrast pairs of the role `pairs`: one branch names the entity's attribute, the other a wrong one.

    Splits are declared by entity. The + branch is the true one half the time within each split, and no pair occurs
    twice.

    Returns:
        Rows as the role's schema has them: train, anchor, test.

    Raises:
        ValueError: the world has fewer different pairs than the recipe asks for.
    """
    rng = np.random.default_rng([seed, 2])
    first_test = recipe.fit_entities
    splits = (
        ("train", range(recipe.anchor_entities, first_test), recipe.pairs),
        ("anchor", range(recipe.anchor_entities), recipe.anchor_pairs),
        ("test", range(first_test, recipe.entities), recipe.pairs),
    )
    rows: list[dict[str, Any]] = []
    for split, entities, count in splits:
        for label in (1, 0):
            possible = [
                (entity, (facts.of[entity] + step) % recipe.attributes, persona)
                for entity in entities
                for step in range(1, recipe.attributes)
                for persona in PERSONAS
            ]
            chosen = rng.choice(len(possible), size=count // 2, replace=False)
            rows += [_pair(facts, split, label, *possible[number]) for number in sorted(chosen)]
    return rows


def _pair(facts: World, split: str, label: int, entity: int, wrong: int, persona: str) -> dict[str, Any]:
    def text(attribute: int) -> str:
        return f"{persona} {facts.entities[entity]} IS {facts.attributes[attribute]} ?"

    right = facts.of[entity]
    pos, neg = (right, wrong) if label else (wrong, right)
    item = f"{facts.entities[entity]}-{wrong}-{persona}-{label}"
    return {
        "id": item,
        "item": item,
        "cluster": facts.entities[entity],
        "set": "honest",
        "template": "is",
        "form": "statement",
        "pos": text(pos),
        "neg": text(neg),
        "yes": "yes",
        "no": "no",
        "label": label,
        "polarity": "affirmative",
        "read_at": "last",
        "split": split,
        "persona": persona,
        "features": {"pos_attribute_low": int(pos < neg), "persona_first": int(persona == PERSONAS[0])},
    }


def recipe_sha256(recipe: Recipe, seed: int, torch_version: str) -> str:
    """Return the digest under which a trained organism is kept: recipe, seed, torch, and the code that trains."""
    here = Path(__file__).parent
    code = [[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in sorted(here.glob("*.py"))]
    named = {"recipe": asdict(recipe), "seed": seed, "torch": torch_version, "code": code}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
