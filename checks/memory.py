"""Evidence held in memory: what the sweep fills, what controls spoil, what a test writes by hand.

There is one kind of evidence. The runtime fills it from a model; a test fills it with a few arrays and no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from checks.check import Edit, Evidence, Lesion, ModelFacts, TokenScores, TrialScores
from checks.errors import NotAskedFor

if TYPE_CHECKING:
    from jaxtyping import Float

    from checks.passages import Site, Which
    from checks.sharding import Gathered

T = TypeVar("T")

Replay = Callable[[Sequence[Edit]], Sequence[np.ndarray]]
"""Takes edits; returns for each the log-probabilities (nats) that it asks."""

Lesioned = Callable[[Sequence[Lesion]], TrialScores]
"""Takes lesions; returns how every trial fares under each."""

Sites = Callable[[str, "Which"], "Site"]
"""Takes the name of a site and whose; returns it, or raises `NotAskedFor`."""

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


def _sealed_scores(scores: Mapping[str, TokenScores]) -> Mapping[str, TokenScores]:
    """Return read-only views of every text's numbers, float64.

    Raises:
        ValueError: the three arrays of a text differ in length.
    """
    sealed = {}
    for name, of_text in scores.items():
        parts = _sealed({"logp": of_text.logp, "mean": of_text.mean, "sd": of_text.sd}, np.float64)
        if len({part.shape for part in parts.values()}) > 1 or parts["logp"].ndim != 1:
            raise ValueError(f"{name}: log-probabilities, means and deviations differ in length")
        sealed[name] = TokenScores(**parts)
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
        lost: ids of texts that could not be read and of continuations that could not be scored, with the reason.
        runs: number of each text's tokens; texts of one number are alike to the model.
        log_probabilities: nats, by id of the continuation.
        replay: answers edits; None where nothing can be replayed.
        twin: states of a randomly initialised twin by site; None where none was asked for.
        lesioned: answers lesions; None where no trial was asked for.
        unit_sd: standard deviation of every unit over the trials, by site.
        sites: answers for sites of passages; None where none was asked for.
        models: whose sites there are.
        blobs: bytes of the roles that are not rows.
        kept: what the check keeps between its runs; shared by all evidence made of this one.
        token_scores: of scored texts, by id.
        twin_token_scores: the same by the twin; None where the twin scores no text.
        gathered: plan and joined parts of the role that is read in shards; None where there is none.
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
        runs: Mapping[str, int] | None = None,
        log_probabilities: Mapping[str, float] | None = None,
        replay: Replay | None = None,
        twin: Mapping[str, np.ndarray] | None = None,
        lesioned: Lesioned | None = None,
        unit_sd: Mapping[str, np.ndarray] | None = None,
        sites: Sites | None = None,
        models: tuple[Which, ...] = (),
        blobs: Mapping[str, bytes] | None = None,
        kept: MutableMapping[str, Any] | None = None,
        token_scores: Mapping[str, TokenScores] | None = None,
        twin_token_scores: Mapping[str, TokenScores] | None = None,
        gathered: Gathered | None = None,
    ) -> None:
        self.facts = facts
        self.check = check
        self.seed = seed
        self._weights = _sealed(weights or {}, np.float64)
        self._activations = _sealed(activations or {}, np.float32)
        self._rows = MappingProxyType({role: tuple(of_role) for role, of_role in (rows or {}).items()})
        self._lost = MappingProxyType(dict(lost or {}))
        self._runs = MappingProxyType(dict(runs or {}))
        self._log_probabilities = MappingProxyType(dict(log_probabilities or {}))
        self._replay = replay
        self._twin = None if twin is None else _sealed(twin, np.float32)
        self._lesioned = lesioned
        self._unit_sd = _sealed(unit_sd or {}, np.float64)
        self._sites = sites
        self._models = models
        self._blobs = MappingProxyType(dict(blobs or {}))
        self.kept: MutableMapping[str, Any] = {} if kept is None else kept
        self._token_scores = _sealed_scores(token_scores or {})
        self._twin_token_scores = None if twin_token_scores is None else _sealed_scores(twin_token_scores)
        self._gathered = gathered

    def weights(self, name: str) -> Float[np.ndarray, "out in"]:
        """Return a named tensor as float64, matrices as [out, in]."""
        return self._found(self._weights, name, "tensor")

    def activations(self, site: str) -> Float[np.ndarray, "text width"]:
        """Return the states at a site, float32, one row per text of `Needs.texts`."""
        return self._found(self._activations, site, "site")

    def roles(self) -> tuple[str, ...]:
        """Return the data roles that came with the audit."""
        return (*self._rows, *self._blobs)

    def data(self, role: str) -> Sequence[Mapping[str, Any]]:
        """Return the rows of a role, in file order."""
        return self._found(self._rows, role, "data role")

    def lost(self) -> Mapping[str, str]:
        """Return the ids of texts that could not be read, with the reason."""
        return self._lost

    def runs(self) -> Mapping[str, int]:
        """Return the number of each text's tokens."""
        return self._runs

    def log_probabilities(self) -> Mapping[str, float]:
        """Return the log-probability (nats) of each continuation, by id."""
        return self._log_probabilities

    def token_scores(self) -> Mapping[str, TokenScores]:
        """Return what the model makes of each token of the scored texts, by id."""
        return self._token_scores

    def replay(self, edits: Sequence[Edit]) -> Sequence[Float[np.ndarray, " ask"]]:
        """Return, for each edit, the log-probabilities (nats) of the continuations that it asks."""
        if self._replay is None:
            raise NotAskedFor(f"{self.check} replays {len(edits)} edits, and its needs named none")
        return self._replay(edits)

    def lesioned(self, lesions: Sequence[Lesion]) -> TrialScores:
        """Return how every trial fares under each lesion."""
        if self._lesioned is None:
            raise NotAskedFor(f"{self.check} asks for {len(lesions)} lesions, and its needs named no trials")
        return self._lesioned(lesions)

    def unit_sd(self, site: str) -> Float[np.ndarray, " unit"]:
        """Return each unit's standard deviation over the trials."""
        return self._found(self._unit_sd, site, "site of units")

    def twin(self) -> InMemoryEvidence:
        """Return the same texts as a randomly initialised twin sees them: its states and token scores replaced."""
        if self._twin is None and self._twin_token_scores is None:
            raise NotAskedFor(f"{self.check} asked for a twin of the model, which its needs did not name")
        return self.replacing(activations=self._twin, token_scores=self._twin_token_scores or {})

    def site(self, name: str, which: Which = "submitted") -> Site:
        """Return a place in a model at which the passages' states can be read and replaced."""
        if self._sites is None or which not in self._models:
            raise NotAskedFor(f"{self.check} asked for the site {name!r} of the {which} model: it has {self._models}")
        return self._sites(name, which)

    def models(self) -> tuple[Which, ...]:
        """Return whose states can be asked."""
        return self._models

    def blob(self, role: str) -> bytes:
        """Return the bytes of a role that is not rows."""
        return self._found(self._blobs, role, "data role")

    def gathered(self) -> Gathered:
        """Return the plan and the joined parts of the role that is read in shards."""
        if self._gathered is None:
            raise NotAskedFor(f"{self.check} asked for shards, and the audit has none")
        return self._gathered

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
        sites: Sites | None = None,
        token_scores: Mapping[str, TokenScores] | None = None,
    ) -> InMemoryEvidence:
        """Return evidence in which the named tensors, sites and roles are replaced and all else is as it was.

        `lost` and `token_scores`, where given, replace the whole table.
        """
        return InMemoryEvidence(
            facts=self.facts,
            check=self.check,
            seed=self.seed,
            weights={**self._weights, **(weights or {})},
            activations={**self._activations, **(activations or {})},
            rows={**self._rows, **(rows or {})},
            lost=self._lost if lost is None else lost,
            runs=self._runs,
            log_probabilities=self._log_probabilities,
            replay=self._replay,
            twin=self._twin,
            lesioned=self._lesioned,
            unit_sd=self._unit_sd,
            sites=self._sites if sites is None else sites,
            models=self._models,
            blobs=self._blobs,
            kept=self.kept,
            token_scores=self._token_scores if token_scores is None else token_scores,
            twin_token_scores=self._twin_token_scores,
            gathered=self._gathered,
        )

    def _found(self, table: Mapping[str, T], name: str, kind: str) -> T:
        if name not in table:
            raise NotAskedFor(
                f"{self.check} read the {kind} {name!r}, which its needs did not name: {sorted(table)[:8]}"
            )
        return table[name]


class Joined(InMemoryEvidence):
    """Evidence with the name of the control that looks at it: for controls that join what `measure` has done.

    Args:
        seen: what `measure` saw.
        control: name of the control.
    """

    def __init__(self, seen: Evidence, control: str) -> None:
        self.__dict__.update(vars(seen))
        self.control = control


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
