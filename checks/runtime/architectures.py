"""Which models can be read, and where their parts lie: a table, one architecture an entry.

A config key is `used` where it changes what the model computes; only used keys ever reach a loader, each within its
rule. Keys that change nothing here (dropout, labels, generation defaults) are ignorable. Left out on purpose:
encoder-decoders and mixtures of experts (no single residual stream or MLP per block), and every architecture for
which no test compares our states with the reference implementation's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from checks.errors import LoadRefused
from checks.runtime.rules import (
    ACTIVATION,
    CONTEXT,
    EPSILON,
    FLAG,
    HEADS,
    HIDDEN,
    LAYERS,
    OFF,
    ROPE,
    ROPE_BASE,
    SHARE,
    TOKEN,
    VOCABULARY,
    WIDTH,
    Rule,
    whole,
)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How one `model_type` is read. Tensor names are given without the prefix that some files carry."""

    bridge: str
    """Name of the bridge's adapter."""
    head: bool
    """True: loaded with its output head; False: the stack alone, its head never reaches the stream."""
    causal: bool
    layers: str
    """Config key of the number of blocks; likewise the next four."""
    width: str
    heads: str
    vocabulary: str
    context: str
    used: Mapping[str, Rule]
    ignorable: tuple[str, ...]
    prefix: str
    """Prefix that a file written with an output head carries, and one written without it lacks."""
    block: str
    """Prefix of a block's tensors, `{l}` for its number."""
    embedding: str
    """Token embedding, [vocabulary, width]."""
    mlp_in: str
    mlp_out: str
    """First and last matrix of a block's MLP. Gated MLPs: the up projection, not the gate."""
    transposed: tuple[str, ...] = ()
    """Matrices that the file stores as [in, out]."""
    harmless: tuple[tuple[str, str], ...] = ()
    """Tensors that may be present or absent beside those of the stack: (regular expression, reason)."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Names in files that the loader changes: (in the file, in the model)."""


_ROTARY = (r"(.*\.)?rotary_emb\.inv_freq", "recomputed from the config: frequencies of the rotary embedding")

GPT2 = Architecture(
    bridge="GPT2LMHeadModel",
    head=True,
    causal=True,
    layers="n_layer",
    width="n_embd",
    heads="n_head",
    vocabulary="vocab_size",
    context="n_positions",
    used={
        "n_layer": LAYERS,
        "n_embd": WIDTH,
        "n_head": HEADS,
        "vocab_size": VOCABULARY,
        "n_positions": CONTEXT,
        "n_inner": whole(2**20, optional=True),
        "activation_function": ACTIVATION,
        "layer_norm_epsilon": EPSILON,
        "scale_attn_weights": FLAG,
        "scale_attn_by_inverse_layer_idx": FLAG,
        "reorder_and_upcast_attn": FLAG,
        "tie_word_embeddings": FLAG,
        "add_cross_attention": OFF,
    },
    ignorable=("n_ctx", "attn_pdrop", "embd_pdrop", "resid_pdrop"),
    prefix="transformer.",
    block="h.{l}.",
    embedding="wte.weight",
    mlp_in="h.{l}.mlp.c_fc.weight",
    mlp_out="h.{l}.mlp.c_proj.weight",
    transposed=(
        "h.{l}.attn.c_attn.weight",
        "h.{l}.attn.c_proj.weight",
        "h.{l}.mlp.c_fc.weight",
        "h.{l}.mlp.c_proj.weight",
    ),
    harmless=((r"h\.\d+\.attn\.(bias|masked_bias)", "causal mask, rebuilt from the context length"),),
)

BERT = Architecture(
    bridge="BertForMaskedLM",
    head=False,
    causal=False,
    layers="num_hidden_layers",
    width="hidden_size",
    heads="num_attention_heads",
    vocabulary="vocab_size",
    context="max_position_embeddings",
    used={
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "intermediate_size": HIDDEN,
        "hidden_act": ACTIVATION,
        "type_vocab_size": whole(1024, optional=True),
        "layer_norm_eps": EPSILON,
        "pad_token_id": TOKEN,
        "position_embedding_type": Rule(kind="one_of", values=("absolute",)),
        "is_decoder": OFF,
        "add_cross_attention": OFF,
    },
    ignorable=("attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout", "tie_word_embeddings"),
    prefix="bert.",
    block="encoder.layer.{l}.",
    embedding="embeddings.word_embeddings.weight",
    mlp_in="encoder.layer.{l}.intermediate.dense.weight",
    mlp_out="encoder.layer.{l}.output.dense.weight",
    harmless=(
        (r"embeddings\.position_ids", "buffer 0..context-1, rebuilt from the config"),
        (r"pooler\.dense\.(weight|bias)", "reads the stream after the last block, never writes to it"),
        (r"cls\..*", "output heads: read the stream, never write to it; not loaded"),
    ),
)

_LLAMA_USED = {
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_key_value_heads": whole(1024, optional=True),
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "intermediate_size": HIDDEN,
    "hidden_act": ACTIVATION,
    "rms_norm_eps": EPSILON,
    "rope_theta": ROPE_BASE,
    "rope_scaling": ROPE,
    "rope_parameters": ROPE,
    "tie_word_embeddings": FLAG,
}

LLAMA = Architecture(
    bridge="LlamaForCausalLM",
    head=True,
    causal=True,
    layers="num_hidden_layers",
    width="hidden_size",
    heads="num_attention_heads",
    vocabulary="vocab_size",
    context="max_position_embeddings",
    used={
        **_LLAMA_USED,
        "head_dim": whole(4096, optional=True),
        "attention_bias": FLAG,
        "mlp_bias": FLAG,
    },
    ignorable=("pretraining_tp", "attention_dropout"),
    prefix="model.",
    block="layers.{l}.",
    embedding="embed_tokens.weight",
    mlp_in="layers.{l}.mlp.up_proj.weight",
    mlp_out="layers.{l}.mlp.down_proj.weight",
    harmless=(_ROTARY,),
)

QWEN2 = Architecture(
    bridge="Qwen2ForCausalLM",
    head=True,
    causal=True,
    layers="num_hidden_layers",
    width="hidden_size",
    heads="num_attention_heads",
    vocabulary="vocab_size",
    context="max_position_embeddings",
    used={**_LLAMA_USED, "use_sliding_window": OFF},
    # Windows and their layers mean nothing while sliding windows are off, and the rule above keeps them off.
    ignorable=("attention_dropout", "sliding_window", "max_window_layers", "layer_types"),
    prefix="model.",
    block="layers.{l}.",
    embedding="embed_tokens.weight",
    mlp_in="layers.{l}.mlp.up_proj.weight",
    mlp_out="layers.{l}.mlp.down_proj.weight",
    harmless=(_ROTARY,),
)

GPT_NEOX = Architecture(
    bridge="GPTNeoXForCausalLM",
    head=True,
    causal=True,
    layers="num_hidden_layers",
    width="hidden_size",
    heads="num_attention_heads",
    vocabulary="vocab_size",
    context="max_position_embeddings",
    used={
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "intermediate_size": HIDDEN,
        "hidden_act": ACTIVATION,
        "rotary_pct": SHARE,
        "rotary_emb_base": ROPE_BASE,
        "rope_theta": ROPE_BASE,
        "rope_scaling": ROPE,
        "rope_parameters": ROPE,
        "layer_norm_eps": EPSILON,
        "use_parallel_residual": FLAG,
        "attention_bias": FLAG,
        "tie_word_embeddings": FLAG,
        "is_decoder": FLAG,
    },
    ignorable=("attention_dropout", "hidden_dropout", "classifier_dropout"),
    prefix="gpt_neox.",
    block="layers.{l}.",
    embedding="embed_in.weight",
    mlp_in="layers.{l}.mlp.dense_h_to_4h.weight",
    mlp_out="layers.{l}.mlp.dense_4h_to_h.weight",
    harmless=(
        _ROTARY,
        (r"layers\.\d+\.attention\.(bias|masked_bias)", "causal mask, rebuilt from the context length"),
        (r"layers\.\d+\.attention\.rotary_emb\..*", "recomputed from the config"),
    ),
    renamed=(("embed_out.weight", "lm_head.weight"),),
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {"gpt2": GPT2, "bert": BERT, "llama": LLAMA, "qwen2": QWEN2, "gpt_neox": GPT_NEOX}
)

IGNORABLE = (
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "label2id",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pad_token_id",
    "return_dict",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "_name_or_path",
)
"""Config keys that change nothing in any architecture: weights are read as float32, text is never generated."""

FORBIDDEN = ("auto_map", "custom_*", "_attn_implementation*", "trust_remote_code", "quantization_config")
"""Keys that name code or another computation; a trailing `*` stands for any ending."""


def architecture(model_type: str) -> Architecture:
    """Return the entry of a model type.

    Raises:
        LoadRefused: `architecture_unknown`.
    """
    found = ARCHITECTURES.get(model_type)
    if found is None:
        raise LoadRefused("architecture_unknown", {"path": "config.json", "key": "model_type"})
    return found


def architectures_json() -> dict[str, Any]:
    """Return the table as the strict config reader takes it."""
    return {
        "schema": "assay-architectures/v1",
        "architectures": {
            name: {"used": sorted({"model_type", *entry.used}), "ignorable": sorted(entry.ignorable)}
            for name, entry in sorted(ARCHITECTURES.items())
        },
        "ignorable": sorted(set(IGNORABLE) - {"model_type"}),
        "forbidden": sorted(FORBIDDEN),
    }
