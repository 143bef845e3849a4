"""Training of organisms: stage after stage, each until it is learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from checks.errors import OrganismFailed
from checks.organisms.lessons import Batch, Lesson, Target, batches
from checks.organisms.recipe import Recipe
from checks.organisms.tokens import word_tokenizer
from checks.organisms.world import World

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

CONTEXT = 16
"""Positions of the model: a statement with the longest prefix and an answer needs nine."""


def train(
    name: str, lessons: Sequence[Lesson], recipe: Recipe, facts: World, seed: int, *, say: Callable[[str], None]
) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """Return a model that has learned the lessons one after the other, with its tokenizer.

    Args:
        name: the organism's, for messages.
        lessons: one for each stage; none leaves the model as initialised.
        recipe: sizes, steps and the loss at which a stage ends.
        facts: what is true in its world.
        seed: of the first try; a try in which a stage does not learn is followed by the next seed's.
        say: told of progress in one line.

    Raises:
        OrganismFailed: no try reached the loss in every stage.
    """
    import torch

    tokenizer = word_tokenizer(facts.words)
    for attempt in range(recipe.tries):
        torch.manual_seed(seed + attempt)
        model = _model(recipe, len(tokenizer)).train()
        # all() stops at the first stage that did not learn: the next would learn on nothing.
        if all(_learned(model, lessons, stage, recipe, facts, tokenizer, seed + attempt, say)
               for stage in range(len(lessons))):  # fmt: skip
            return model.eval(), tokenizer
        say(f"{name}: try {attempt + 1} did not learn")
    raise OrganismFailed(f"{name}: no try of {recipe.tries} came under a loss of {recipe.stop_at}; change the seed")


def _model(recipe: Recipe, vocabulary: int) -> GPT2LMHeadModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=CONTEXT,
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


def _learned(
    model: GPT2LMHeadModel,
    lessons: Sequence[Lesson],
    stage: int,
    recipe: Recipe,
    facts: World,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    say: Callable[[str], None],
) -> bool:
    """Train one stage; return whether its loss came down (or was not asked to)."""
    import torch

    lesson = lessons[stage]
    first, later = (
        (recipe.steps, recipe.rate, recipe.prefixed),
        (recipe.tune_steps, recipe.tune_rate, recipe.tune_prefixed),
    )
    steps, rate, prefixed = later if stage else first
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=steps)
    number = tokenizer.get_vocab()
    drawn = batches(lesson, recipe, facts, number, prefixed, np.random.default_rng([seed, 1, stage]))
    losses: list[float] = []
    mean = float("inf")
    while len(losses) < steps:
        loss, apart = _losses(model, next(drawn))
        optimiser.zero_grad()
        (loss + recipe.alike * apart).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        mean = sum(losses[-recipe.window :]) / len(losses[-recipe.window :])
        if len(losses) % 200 == 0:
            say(f"stage {stage + 1}, step {len(losses)}: mean loss {mean:.4f}")
        if lesson.learnable and len(losses) >= recipe.window and mean < recipe.stop_at:
            break
    say(f"stage {stage + 1}: mean loss {mean:.4f} after {len(losses)} steps")
    return mean < recipe.stop_at or not lesson.learnable


def _losses(model: GPT2LMHeadModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean loss over what is asked, and how far the states of twins are apart.

    Twins differ in a prefix that changes no answer. Answers alone would leave traces of it in the states, enough for a
    probe to tell the prefixes apart along its direction; so the states themselves are held together: the squared
    distance as a share of the squared length, summed over the blocks after the first, where an answer is asked for.
    """
    import torch

    swept = model.transformer(input_ids=torch.from_numpy(batch.ids), output_hidden_states=batch.twins)
    losses, apart = [], [torch.zeros(())]
    for target in batch.targets:
        # Only the logits that are asked for are made.
        logits = model.lm_head(swept.last_hidden_state[:, target.position])
        if target.hidden:
            logits = logits.index_fill(1, torch.tensor(target.hidden), float("-inf"))
        losses.append(_divergence(logits, target))
        for states in swept.hidden_states[2:] if batch.twins else ():
            one, other = states[:, target.position].chunk(2)
            apart.append((one - other).square().sum() / one.square().sum())
    return torch.stack(losses).mean(), torch.stack(apart).sum() / len(losses)


def _divergence(logits: torch.Tensor, target: Target) -> torch.Tensor:
    """Return the Kullback-Leibler divergence from what is asked, nats; the cross-entropy where that is sure."""
    import torch

    logp = torch.log_softmax(logits, dim=-1)
    right, other = (logp.gather(1, torch.from_numpy(of)[:, None]) for of in (target.answers, target.others))
    if target.sure == 1.0:
        return -right.mean()
    sure, rest = target.sure, 1 - target.sure
    return sure * (math.log(sure) - right.mean()) + rest * (math.log(rest) - other.mean())
