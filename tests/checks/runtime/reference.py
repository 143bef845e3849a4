"""What the runtime says, worked out once more by plain transformers and torch: one text at a time, nothing padded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from checks.check import Continuation, Needs, Text
from checks.memory import InMemoryEvidence
from checks.runtime.loading import Loaded
from checks.runtime.plan import plan
from checks.runtime.sweep import Swept, evidence, sweep

CAUSAL = ("gpt2", "gpt2-headless", "gpt_neox", "llama", "llama-tied", "qwen2")

TEXTS = (
    "thing1 IS red ?",
    "thing2 NOT blue",
    "thing3",
    "red red red red blue NOT round thing7 thing8",
    "? ? thing9",
)
WORDS = (" red", " blue", " NOT round", " IS red ?")


def needs_of(texts: Sequence[str] = TEXTS, words: Sequence[str] = WORDS, **more: Any) -> Needs:
    """Return needs of texts t0, t1.. at every layer of a model of three, each text with every word after it."""
    given: dict[str, Any] = {
        "sites": tuple(f"resid.{layer}" for layer in range(3)),
        "texts": tuple(Text(id=f"t{number}", text=text) for number, text in enumerate(texts)),
        "continuations": tuple(
            Continuation(id=f"t{number}{word}", after=text, text=word)
            for number, text in enumerate(texts)
            for word in words
        ),
    }
    if more.get("twin") is True:
        more["twin"] = tuple(text.id for text in given["texts"])
    return Needs(**(given | more))


def asked(here: Loaded, needs: Needs, *others: Needs) -> tuple[InMemoryEvidence, Swept]:
    """Return the evidence of the first needs, after one sweep for all."""
    swept = sweep(here, plan([needs, *others], here.facts))
    given = evidence(here.facts, check="a", seed=0, needs=needs, swept=swept, weights={}, rows={}, loaded=here)
    return given, swept


def headed(name: str, model: Any, folder: Path) -> Any:
    """Return the model with its output head: a stack alone is loaded as transformers itself would."""
    if not name.endswith("-headless"):
        return model
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(folder, local_files_only=True).train(False)


def blocks_of(model: Any) -> Any:
    stack = next(getattr(model, part) for part in ("transformer", "gpt_neox", "model") if hasattr(model, part))
    return stack.h if hasattr(stack, "h") else stack.layers


def log_probability(
    model: Any, tokenizer: Tokenizer, after: str, text: str, *, shift: tuple[int, int, np.ndarray] | None = None
) -> float:
    """Return the log-probability of `text` after `after`, token by token, each in a pass of its own.

    Args:
        model: with an output head.
        tokenizer: the model's own.
        after: what stands before.
        text: what is scored.
        shift: (layer, position, vector) added right after a block.
    """
    before, whole = tokenizer.encode(after).ids, tokenizer.encode(after + text).ids
    total = 0.0
    for end in range(len(before), len(whole)):
        handle = None
        if shift is not None:
            layer, position, vector = shift

            def hook(_module: Any, _inputs: Any, output: Any, at: int = position, add: np.ndarray = vector) -> Any:
                state = (output[0] if isinstance(output, tuple) else output).clone()
                state[0, at] = state[0, at] + torch.tensor(add, dtype=state.dtype)
                return (state, *output[1:]) if isinstance(output, tuple) else state

            handle = blocks_of(model)[layer].register_forward_hook(hook)
        with torch.no_grad():
            logits = model(torch.tensor([whole[:end]])).logits[0, -1].double()
        if handle is not None:
            handle.remove()
        total += float(torch.log(torch.softmax(logits, dim=0))[whole[end]])
    return total
