"""A sparse dictionary in its normal form: what reads a state into latents, and latents back into a state.

Every format is brought to this one value, so that no other module knows a peer's file. Source: specification of
`sae_features`, section 4; gates: ReLU, TopK (Gao et al. 2024, 2406.04093), thresholds (Rajamanoharan et al. 2024,
2407.14435, and BatchTopK, 2412.06410), gated (Rajamanoharan et al. 2024, 2404.16014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from checks.sae_features.dictionary.norms import (
    LAYER_NORM_EPS,
    LayerNorm,
    Norm,
    Scale,
    TokenRms,
    divisor,
    into,
    norms,
    out_of,
    side,
)

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = [
    "LAYER_NORM_EPS",
    "UNIT_TOLERANCE",
    "Dictionary",
    "FoldIllegal",
    "Gate",
    "Gated",
    "LayerNorm",
    "NeedsInput",
    "Norm",
    "Origin",
    "Relu",
    "Scale",
    "Threshold",
    "TokenRms",
    "TopK",
]

UNIT_TOLERANCE = 1e-6
"""Rows whose norm differs from 1 by less are unit rows: the rounding of a float32 division."""


class FoldIllegal(ValueError):
    """Folding would change what the dictionary computes: a TopK that compares pre-activations of unscaled rows."""


class NeedsInput(ValueError):
    """Decoding needs the states that were encoded: their norm was divided out token by token."""


@dataclass(frozen=True)
class Relu:
    """f = max(0, z)."""


@dataclass(frozen=True)
class TopK:
    """f = max(0, z) for the k largest z of each row, else 0."""

    k: int


@dataclass(frozen=True, eq=False)
class Threshold:
    """f = max(0, z) where z > theta, strictly, else 0."""

    theta: Float[torch.Tensor, " latent"]


@dataclass(frozen=True, eq=False)
class Gated:
    """With p the bare product: f = max(0, p exp(r_mag) + b_mag) where p + b_gate > 0, else 0; `b_enc` is not read."""

    b_gate: Float[torch.Tensor, " latent"]
    b_mag: Float[torch.Tensor, " latent"]
    r_mag: Float[torch.Tensor, " latent"]


Gate = Relu | TopK | Threshold | Gated


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a dictionary came from, as its files state it; nothing here is believed."""

    format: str = "assay"
    sha256: str = ""
    """SHA-256 of the source bytes (the weights file); empty where it was made in memory."""
    site: str = ""
    """The site that `sae_config` names."""
    hook: str | None = None
    """Hook that the peer's own configuration names, e.g. "blocks.3.hook_resid_post"."""
    model_name: str | None = None
    declared_l0: float | None = None
    """Mean active latents a token that the sender states."""
    trained_on: str = "unknown"
    """base, submitted or unknown."""
    assume_site: bool = False
    """True where the sender asks to take the site as stated whatever the hook says."""
    dropped: tuple[str, ...] = ()
    """Keys of the peer's configuration that no rule reads."""


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse dictionary; d = width of the states, m = latents; all tensors float32 (or all float64).

    Raises:
        ValueError: shapes or dtypes do not fit together, k is outside 1..m, or `rescale` stands without TopK.
    """

    w_enc: Float[torch.Tensor, "d m"]
    b_enc: Float[torch.Tensor, " m"]
    w_dec: Float[torch.Tensor, "m d"]
    b_dec: Float[torch.Tensor, " d"]
    gate: Gate
    pre_bias: bool = False
    """Whether `b_dec` is subtracted before encoding, after the norm."""
    norm: Norm | None = None
    rescale: bool = False
    """TopK only: z times the row norm selects and is the value, and the row decodes at unit norm."""
    origin: Origin = Origin()

    def __post_init__(self) -> None:
        if self.w_enc.ndim != 2:
            raise ValueError(f"w_enc has shape {tuple(self.w_enc.shape)}, not [d, m]")
        d, m = self.w_enc.shape
        wanted = {"w_enc": (d, m), "b_enc": (m,), "w_dec": (m, d), "b_dec": (d,)}
        for name, tensor in self.tensors().items():
            if tuple(tensor.shape) != wanted.get(name, (m,)):
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {wanted.get(name, (m,))}")
            if tensor.dtype != self.w_enc.dtype or tensor.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"{name} is {tensor.dtype}, w_enc {self.w_enc.dtype}: all float32, or all float64")
        if isinstance(self.gate, TopK) and not 1 <= self.gate.k <= m:
            raise ValueError(f"k {self.gate.k} is outside 1..{m}")
        if self.rescale and not isinstance(self.gate, TopK):
            raise ValueError("rescale is a rule of TopK; fold any other gate instead")

    @property
    def width(self) -> int:
        """Width d of the states."""
        return self.w_enc.shape[0]

    @property
    def latents(self) -> int:
        """Number m of latents."""
        return self.w_enc.shape[1]

    @property
    def rows(self) -> Float[torch.Tensor, "m d"]:
        """Directions that latents of value 1 add, before a norm is undone."""
        return self.w_dec / divisor(self.row_norms)[:, None] if self.rescale else self.w_dec

    @cached_property
    def row_norms(self) -> Float[torch.Tensor, " m"]:
        """Norm of each row of `w_dec` as stored."""
        return norms(self.w_dec)

    def tensors(self) -> Mapping[str, Float[torch.Tensor, "*axes"]]:
        """Return every tensor by its name in the normal form, the gate's own included."""
        own = {"w_enc": self.w_enc, "b_enc": self.b_enc, "w_dec": self.w_dec, "b_dec": self.b_dec}
        parts = {one.name: getattr(self.gate, one.name) for one in fields(self.gate)}
        return MappingProxyType(own | {name: part for name, part in parts.items() if isinstance(part, torch.Tensor)})

    @cached_property
    def sha256(self) -> Mapping[str, str]:
        """SHA-256 of each tensor's values, little-endian, in C order and the tensor's own dtype."""
        return MappingProxyType({name: _digest(tensor) for name, tensor in self.tensors().items()})

    def encode(self, x: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, "row m"]:
        """Return the latents of states in raw units; states of less precision are promoted to the weights' dtype."""
        states = into(self.norm, x.to(self.w_enc.dtype))
        return self.activate((states - self.b_dec if self.pre_bias else states) @ self.w_enc)

    def activate(self, product: Float[torch.Tensor, "row m"]) -> Float[torch.Tensor, "row m"]:
        """Return the latents for a product with `w_enc` to which no bias was added."""
        if isinstance(self.gate, Gated):
            magnitude = torch.relu(product * self.gate.r_mag.exp() + self.gate.b_mag)
            return torch.where(product + self.gate.b_gate > 0, magnitude, 0.0)
        z = product + self.b_enc
        if isinstance(self.gate, TopK):
            return _top(z * self.row_norms if self.rescale else z, self.gate.k)
        f = torch.relu(z)
        return torch.where(z > self.gate.theta, f, 0.0) if isinstance(self.gate, Threshold) else f

    def side(self, x: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, "row number"]:
        """Return what `decode` takes from each state beside its latents: no, one (TokenRms) or two numbers."""
        return side(self.norm, x.to(self.w_dec.dtype))

    def decode(
        self,
        f: Float[torch.Tensor, "row m"],
        x: Float[torch.Tensor, "row d"] | None = None,
        *,
        taken: Float[torch.Tensor, "row number"] | None = None,
    ) -> Float[torch.Tensor, "row d"]:
        """Return the states, in raw units, that latents stand for.

        Args:
            f: latents.
            x: the states that were encoded; needed where the norm is one of each token.
            taken: in place of x, what `side` would take from it, exact or rounded.

        Raises:
            NeedsInput: the norm is one of each token and neither is given.
        """
        if taken is None and isinstance(self.norm, TokenRms | LayerNorm):
            if x is None:
                raise NeedsInput("the norm is one of each token: give the states that were encoded")
            taken = self.side(x)
        return out_of(self.norm, f @ self.rows + self.b_dec, taken)

    def reconstruct(self, x: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, "row d"]:
        """Return what the dictionary makes of states in raw units."""
        return self.decode(self.encode(x), x)

    def contributions(self, f: Float[torch.Tensor, "row m"]) -> Float[torch.Tensor, "row m"]:
        """Return g = f times the norm of what it adds: equal for folded and unfolded files.

        In raw units; under a norm of each token in that token's normalised units.
        """
        lengths = norms(self.rows)
        return f * (lengths / self.norm.s if isinstance(self.norm, Scale) else lengths)

    def fold_scale(self) -> Dictionary:
        """Return the dictionary that takes raw states where `norm` is a scale; else this one.

        w_enc s, w_dec / s and b_dec / s, while thresholds and b_enc stay (SAELens #354 left b_dec out).
        """
        if not isinstance(self.norm, Scale):
            return self
        s = self.norm.s
        return replace(self, w_enc=self.w_enc * s, w_dec=self.w_dec / s, b_dec=self.b_dec / s, norm=None)

    def fold(self) -> Dictionary:
        """Return the dictionary of unit decoder rows and without a scale that computes the same reconstruction.

        Rows of norm 0 stay as they are: their latents add nothing.

        Raises:
            FoldIllegal: a TopK without `rescale` whose rows are not unit rows: folding would change which k it takes.
        """
        raw = self.fold_scale()
        n = divisor(raw.row_norms)
        if isinstance(self.gate, TopK) and not self.rescale:
            if torch.any((n - 1).abs() > UNIT_TOLERANCE):
                raise FoldIllegal("a TopK without rescale compares unscaled pre-activations: its rows cannot be folded")
            return raw
        gate = raw.gate
        if isinstance(gate, Threshold):
            gate = Threshold(gate.theta * n)
        elif isinstance(gate, Gated):  # r_mag is a ratio of two pre-activations that scale alike
            gate = Gated(gate.b_gate * n, gate.b_mag * n, gate.r_mag)
        w_enc, b_enc, w_dec = raw.w_enc * n, raw.b_enc * n, raw.w_dec / n[:, None]
        return replace(raw, w_enc=w_enc, b_enc=b_enc, w_dec=w_dec, gate=gate, rescale=False)


def _top(z: Float[torch.Tensor, "row m"], k: int) -> Float[torch.Tensor, "row m"]:
    values, places = torch.topk(z, k, dim=-1, sorted=False)
    return torch.zeros_like(z).scatter_(-1, places, torch.relu(values))


def _digest(tensor: Float[torch.Tensor, "*axes"]) -> str:
    array = tensor.detach().cpu().contiguous().numpy()
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()
