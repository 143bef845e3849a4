"""Where each architecture keeps the weights that read and write its residual stream, and how they are cut into heads.

The table below is all that the graphs across layers know of architectures. Not in it: models with norms after a
sublayer and before the addition (gemma2, olmo2), and models whose blocks share or skip attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from checks.check import ModelFacts, Refusal
from checks.clusterability.canonical import Norm, carried, centred_writer, folded_reader
from checks.clusterability.transformer import HeadLayer

if TYPE_CHECKING:
    from jaxtyping import Float

Weights = Callable[[str], np.ndarray]
"""Returns a named tensor as float64, matrices as [out, in]: `Evidence.weights`."""

Split = Callable[[Sequence[np.ndarray], int], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Takes the stored matrices and the number of heads; returns the queries, keys and values, rows in head order."""


def _separate(stored: Sequence[np.ndarray], heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    query, key, value = stored
    return query, key, value


def _in_thirds(stored: Sequence[np.ndarray], heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All queries, then all keys, then all values."""
    query, key, value = np.split(stored[0], 3)
    return query, key, value


def _thirds_of_each_head(stored: Sequence[np.ndarray], heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each head's query, key and value, then the next head's."""
    rows, width = stored[0].shape
    by_head = stored[0].reshape(heads, 3, rows // (3 * heads), width)
    query, key, value = (by_head[:, third].reshape(rows // 3, width) for third in range(3))
    return query, key, value


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Tensor names of one architecture after a block's own prefix."""

    reads: tuple[str, ...]
    """Queries, keys and values: one fused matrix or three."""
    split: Split
    writes: str
    """Attention's output matrix; head h owns columns h * head_width and on."""
    mlp_in: str
    """As in `ModelFacts.mlp_in`; what stands before it there is the block's prefix."""
    gate: str | None = None
    norm: Norm
    attention_norm: str
    """Norm whose output attention reads; with `in_stream`, the norm right after attention is added."""
    mlp_norm: str
    """Norm whose output the MLP reads; with `in_stream`, the norm right after the MLP is added."""
    in_stream: bool = False
    """True where norms stand in the residual stream, after each addition (BERT), and not before the readers."""
    rotary: bool = False
    """True where queries and keys are rotated by position; QK is then taken at relative position 0."""


_LLAMA = Layout(
    reads=("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    split=_separate,
    writes="self_attn.o_proj.weight",
    mlp_in="mlp.up_proj.weight",
    gate="mlp.gate_proj.weight",
    norm="rms",
    attention_norm="input_layernorm.weight",
    mlp_norm="post_attention_layernorm.weight",
    rotary=True,
)

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "gpt2": Layout(
            reads=("attn.c_attn.weight",),
            split=_in_thirds,
            writes="attn.c_proj.weight",
            mlp_in="mlp.c_fc.weight",
            norm="layer",
            attention_norm="ln_1.weight",
            mlp_norm="ln_2.weight",
        ),
        "bert": Layout(
            reads=(
                "attention.self.query.weight",
                "attention.self.key.weight",
                "attention.self.value.weight",
            ),
            split=_separate,
            writes="attention.output.dense.weight",
            mlp_in="intermediate.dense.weight",
            norm="layer",
            attention_norm="attention.output.LayerNorm.weight",
            mlp_norm="output.LayerNorm.weight",
            in_stream=True,
        ),
        "llama": _LLAMA,
        "qwen2": _LLAMA,
        "gpt_neox": Layout(
            reads=("attention.query_key_value.weight",),
            split=_thirds_of_each_head,
            writes="attention.dense.weight",
            mlp_in="mlp.dense_h_to_4h.weight",
            norm="layer",
            attention_norm="input_layernorm.weight",
            mlp_norm="post_attention_layernorm.weight",
            rotary=True,
        ),
    }
)
"""Every architecture that the runtime tables (checks/runtime/architectures.py)."""


@dataclass(frozen=True)
class AttentionNames:
    """Names of all tensors that `head_graph` needs, and how to cut them."""

    layout: Layout
    prefixes: tuple[str, ...]
    """What stands before each block's names, in layer order."""
    heads: int

    @property
    def weights(self) -> tuple[str, ...]:
        """Every tensor that is needed, layer by layer."""
        held = self.layout
        parts = (*held.reads, held.writes, held.attention_norm, *((held.mlp_norm,) if held.in_stream else ()))
        return tuple(prefix + part for prefix in self.prefixes for part in parts)

    @property
    def steps(self) -> tuple[str, ...]:
        """What was done to the weights to bring them to one form, for the log (4.1)."""
        layer = self.layout.norm == "layer"
        return (
            "gains_carried_along_the_stream" if self.layout.in_stream else "norm_gains_folded_into_readers",
            *(("readers_row_means_removed",) if layer and not self.layout.in_stream else ()),
            *(("writing_columns_centred",) if layer else ()),
            *(("rotary_qk_at_relative_position_0",) if self.layout.rotary else ()),
            "biases_left_out",
        )

    def cut(self, layer: int, weights: Weights) -> HeadLayer:
        """Return a layer's heads as factors, norms folded in; keys and values that heads share are repeated.

        Raises:
            ValueError: the matrices do not hold the number of heads that the facts name.
        """
        held, prefix = self.layout, self.prefixes[layer]
        query, key, value = held.split([weights(prefix + name) for name in held.reads], self.heads)
        output = weights(prefix + held.writes)
        if len(query) % self.heads or len(query) != output.shape[1]:
            raise ValueError(f"{self.heads} heads do not share {len(query)} rows and {output.shape[1]} columns evenly")
        gain = weights(prefix + held.attention_norm)
        gains: tuple[np.ndarray, ...] = ()
        if held.in_stream:
            gains = (gain, weights(prefix + held.mlp_norm))
        else:
            query, key, value = (folded_reader(one, gain, held.norm) for one in (query, key, value))
        head_width = len(query) // self.heads
        columns = centred_writer(output, held.norm).reshape(-1, self.heads, head_width)
        return HeadLayer(
            query=query.reshape(self.heads, head_width, -1),
            key=_for_each_head(key, self.heads, head_width),
            value=_for_each_head(value, self.heads, head_width),
            output=columns.transpose(1, 0, 2),
            gains=gains,
            norm=held.norm,
        )


@dataclass(frozen=True)
class MlpPair:
    """Arguments of `virtual_mlp` and `virtual_d_eff`, norms folded in."""

    w_in_next: Float[np.ndarray, "next width"]
    w_out: Float[np.ndarray, "width hidden"]
    gate_next: Float[np.ndarray, "next width"] | None


@dataclass(frozen=True)
class MlpNames:
    """Names of all tensors that `virtual_mlp` needs for each pair of neighbouring layers."""

    layout: Layout
    prefixes: tuple[str, ...]
    mlp_out: tuple[str, ...]

    def weights(self, layer: int) -> tuple[str, ...]:
        """Return the tensors needed for the pair of a layer and the next."""
        held, here, after = self.layout, self.prefixes[layer], self.prefixes[layer + 1]
        gate = () if held.gate is None else (after + held.gate,)
        norms = (here + held.mlp_norm, after + held.attention_norm) if held.in_stream else (after + held.mlp_norm,)
        return (self.mlp_out[layer], after + held.mlp_in, *gate, *norms)

    def pair(self, layer: int, weights: Weights) -> MlpPair:
        """Return the writer of a layer and the readers of the next, norms folded in."""
        held, here, after = self.layout, self.prefixes[layer], self.prefixes[layer + 1]
        w_out = centred_writer(weights(self.mlp_out[layer]), held.norm)
        readers = [weights(after + name) for name in (held.mlp_in, held.gate) if name is not None]
        if held.in_stream:
            gains = [weights(here + held.mlp_norm), weights(after + held.attention_norm)]
            w_out = carried(w_out, gains, held.norm)
        else:
            gain = weights(after + held.mlp_norm)
            readers = [folded_reader(reader, gain, held.norm) for reader in readers]
        return MlpPair(readers[0], w_out, readers[1] if len(readers) > 1 else None)


def attention_names(facts: ModelFacts) -> AttentionNames:
    """Return where a model keeps its heads.

    Raises:
        Refusal: `no_attention`: the architecture is not tabled, or a tensor that it should have is missing.
    """
    layout, prefixes = _placed(facts, "no_attention")
    names = AttentionNames(layout, prefixes, facts.heads)
    _present(names.weights, facts, "no_attention")
    return names


def mlp_names(facts: ModelFacts) -> MlpNames:
    """Return where a model keeps what its MLPs read and write, norms and gates included.

    Raises:
        Refusal: `no_mlp`: the architecture is not tabled, or a tensor that it should have is missing.
    """
    layout, prefixes = _placed(facts, "no_mlp")
    names = MlpNames(layout, prefixes, facts.mlp_out)
    _present([name for layer in range(len(prefixes) - 1) for name in names.weights(layer)], facts, "no_mlp")
    return names


def _placed(facts: ModelFacts, reason: str) -> tuple[Layout, tuple[str, ...]]:
    layout = LAYOUTS.get(facts.architecture)
    if layout is None or not facts.mlp_in or not all(name.endswith(layout.mlp_in) for name in facts.mlp_in):
        raise Refusal(reason, (facts.architecture,))
    return layout, tuple(name.removesuffix(layout.mlp_in) for name in facts.mlp_in)


def _present(names: Sequence[str], facts: ModelFacts, reason: str) -> None:
    missing = [name for name in names if name not in facts.tensors]
    if missing:
        raise Refusal(reason, tuple(missing[:8]))


def _for_each_head(
    rows: Float[np.ndarray, "kept width"], heads: int, head_width: int
) -> Float[np.ndarray, "heads head_width width"]:
    """Repeat what a group of heads shares; heads 0, 1, .. of one group stand side by side."""
    kept = len(rows) // head_width
    if kept * head_width != len(rows) or heads % max(kept, 1):
        raise ValueError(f"{heads} heads of {head_width} cannot share {len(rows)} rows")
    return np.repeat(rows.reshape(kept, head_width, -1), heads // kept, axis=0)
