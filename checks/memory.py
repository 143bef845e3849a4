"""Evidence held in memory: what the sweep fills, what controls spoil, what a test writes by hand.

There is one kind of evidence. The runtime fills it from a model; a test fills it with a few arrays and no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from checks.check import ModelFacts
from checks.errors import NotAskedFor

if TYPE_CHECKING:
    from jaxtyping import Float

T = TypeVar("T")

RNG_DOMAIN = b"assay-rng/v1\n"
"""Separates these seeds from every other use of SHA-256 over a seed."""


def generator(seed: int, check: str, label: str) -> np.random.Generator:
    """Return the generator of a label: reproducible, and independent of every other label.

    Args:
        seed: the audit's registered seed, 0 <= seed < 2**63.
        check: the check's name, so that two checks never share draws.
        label: what is drawn, e.g. "bootstrap".

    Raises:
        ValueError: the seed is out of range, or a name holds a NUL.
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed {seed} is outside 0..2^63-1")
    if "\0" in check or "\0" in label:
        raise ValueError("a check's name and a label hold no NUL: it separates them")
    entropy = RNG_DOMAIN + seed.to_bytes(8, "big") + check.encode() + b"\0" + label.encode()
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(entropy).digest(), "big")))


def _sealed(arrays: Mapping[str, np.ndarray], dtype: type[np.floating[Any]]) -> Mapping[str, np.ndarray]:
    """Return read-only views: evidence is changed by replacing it, never in place."""
    sealed = {}
    for name, array in arrays.items():
        view = np.asarray(array, dtype=dtype).view()
        view.flags.writeable = False
        sealed[name] = view
    return MappingProxyType(sealed)


class InMemoryEvidence:
    """Evidence as plain arrays and rows; implements `checks.check.Evidence`.

    Args:
        facts: what is known of the model.
        check: name of the check that asks; it seeds `rng`.
        seed: the audit's seed.
        weights: tensors by name, matrices as [out, in]; stored as float64.
        activations: states by site, [text, width]; stored as float32.
        rows: parsed rows by data role.
        lost: ids of texts that could not be read, with the reason.
    """

    def __init__(
        self,
        *,
        facts: ModelFacts,
        check: str = "check",
        seed: int = 0,
        weights: Mapping[str, np.ndarray] | None = None,
        activations: Mapping[str, np.ndarray] | None = None,
        rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        lost: Mapping[str, str] | None = None,
    ) -> None:
        self.facts = facts
        self.check = check
        self.seed = seed
        self._weights = _sealed(weights or {}, np.float64)
        self._activations = _sealed(activations or {}, np.float32)
        self._rows = MappingProxyType({role: tuple(of_role) for role, of_role in (rows or {}).items()})
        self._lost = MappingProxyType(dict(lost or {}))

    def weights(self, name: str) -> Float[np.ndarray, "out in"]:
        """Return a named tensor as float64, matrices as [out, in]."""
        return self._found(self._weights, name, "tensor")

    def activations(self, site: str) -> Float[np.ndarray, "text width"]:
        """Return the states at a site, float32, one row per text of `Needs.texts`."""
        return self._found(self._activations, site, "site")

    def data(self, role: str) -> Sequence[Mapping[str, Any]]:
        """Return the rows of a role, in file order."""
        return self._found(self._rows, role, "data role")

    def lost(self) -> Mapping[str, str]:
        """Return the ids of texts that could not be read, with the reason."""
        return self._lost

    def rng(self, label: str) -> np.random.Generator:
        """Return a fresh generator of a label; the same label draws the same numbers each time."""
        return generator(self.seed, self.check, label)

    def replacing(
        self,
        *,
        weights: Mapping[str, np.ndarray] | None = None,
        activations: Mapping[str, np.ndarray] | None = None,
        rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        lost: Mapping[str, str] | None = None,
    ) -> InMemoryEvidence:
        """Return evidence in which the named tensors, sites and roles are replaced and all else is as it was.

        `lost`, where given, replaces the whole table.
        """
        return InMemoryEvidence(
            facts=self.facts,
            check=self.check,
            seed=self.seed,
            weights={**self._weights, **(weights or {})},
            activations={**self._activations, **(activations or {})},
            rows={**self._rows, **(rows or {})},
            lost=self._lost if lost is None else lost,
        )

    def _found(self, table: Mapping[str, T], name: str, kind: str) -> T:
        if name not in table:
            raise NotAskedFor(
                f"{self.check} read the {kind} {name!r}, which its needs did not name: {sorted(table)[:8]}"
            )
        return table[name]


def model_facts(**known: Any) -> ModelFacts:
    """Return facts for evidence that is written by hand; what is not given is a small causal model.

    Args:
        known: fields of `ModelFacts` that the test at hand cares about.
    """
    small: dict[str, Any] = {
        "architecture": "gpt2",
        "layers": 4,
        "width": 64,
        "heads": 4,
        "vocabulary": 128,
        "context": 32,
        "causal": True,
        "tensors": {},
        "mlp_in": (),
        "mlp_out": (),
        "transposed": frozenset(),
    }
    return ModelFacts(**(small | known))
