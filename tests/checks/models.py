"""Random models of every tabled architecture, small enough to make in a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from checks.organisms.tokens import word_tokenizer
from sandbox.reader.names import file_rule

WORDS = ("IS", "NOT", "red", "blue", "round", "?", *(f"thing{number}" for number in range(20)))
VOCABULARY = len(WORDS) + 2
LAYERS = 3
_LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "initializer_range": 0.5,
}
_OTHER = {key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"}
_GPT2 = GPT2Config(
    vocab_size=VOCABULARY, n_positions=16, n_embd=16, n_layer=LAYERS, n_head=2, initializer_range=0.5,
    bos_token_id=None, eos_token_id=None,
)  # fmt: skip

MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2LMHeadModel(_GPT2),
    "gpt2-headless": lambda: GPT2Model(_GPT2),
    "bert-headless": lambda: BertModel(BertConfig(**_OTHER)),
    "bert": lambda: BertForMaskedLM(BertConfig(**_OTHER)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_LLAMA)),
    "llama-tied": lambda: LlamaForCausalLM(LlamaConfig(**_LLAMA, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_LLAMA)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**_OTHER)),
}


def save(name: str, folder: Path) -> Any:
    """Save a random model and its tokenizer; return the model, in eval mode."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for parameter in model.parameters():  # biases too, so that none of them is nothing
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    word_tokenizer(WORDS).backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").unlink(missing_ok=True)
    return model


def files_of(folder: Path) -> dict[str, Path]:
    """Return the files of a directory that a manifest may name, as a submission picks them."""
    return {path.name: path for path in folder.iterdir() if file_rule(path.name) is None}
