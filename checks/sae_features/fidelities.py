"""How well each dictionary stands for the site: reconstruction, output, description length, and against its baselines.

Specification of `sae_features`, sections 6 and 10.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from assay.result import Metric

from checks.passages import Change, Spliced, States
from checks.sae_features.asking import SPLICE_TOKENS_MAX
from checks.sae_features.dictionary.codelength import CodeGain, code_gain
from checks.sae_features.dictionary.fidelity import BANDS, Fidelity, duplicates, enc_dec_cosine, fidelity
from checks.sae_features.dictionary.grouped import Estimate, Groups, difference, mean
from checks.sae_features.dictionary.kept import compressed_rows
from checks.sae_features.dictionary.output import TokenScores, output_fidelity
from checks.sae_features.dictionary.value import Dictionary, FoldIllegal
from checks.sae_features.held import Held
from checks.sae_features.learning import FROZEN, sliced
from checks.sae_features.session import ENCODED_AT_ONCE, Session
from checks.sae_features.telling import estimated, told

if TYPE_CHECKING:
    from jaxtyping import Float, Int

EPSILONS = (0.02, 0.10)
"""Distortions beside the signed one (section 6)."""

SHAPE = ("mse", "cosine", "norm_ratio")
PLAIN = ("l0_median", "l0_p5", "l0_p95", "dense01", "dense01_mass", "dense10", "dense10_mass")
OUTPUT = ("delta_ce", "dce_share", "kl", "top1_agree", "tv")

TAIL_MSE = "tail-mse"
"""The first dictionary with the same last steps on reconstruction alone: what a KL tail is held against (section 5)."""

FIRST = "trained-0"
"""The dictionary of which everything is told; of further seeds, what words rest on."""

BESIDE = (FROZEN, TAIL_MSE)
"""Dictionaries that no word is said of; few of their numbers are told."""

CAUSAL_EDITS = 2
"""Zero and the mean are spliced beside the dictionaries."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Faith:
    """One dictionary's numbers."""

    fidelity: Fidelity
    gain: CodeGain
    output: Mapping[str, Estimate]
    """Empty where no output can be compared."""
    active: Int[np.ndarray, " token"]
    """Latents that are on at each held-out token."""

    @property
    def ev(self) -> Estimate:
        """EV that is judged: of a dictionary whose norm is each token's, against what that norm alone predicts.

        Such a norm takes the length of the state from the state itself: a dictionary that says nothing else would
        explain most of the variance of states that differ in length.
        """
        return self.fidelity.estimates.get("ev_given_norm", self.fidelity.estimates["ev"])


class Fidelities:
    """Fidelity of every dictionary of a session.

    Args:
        session: what was trained and read.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    @classmethod
    def of(cls, session: Session) -> Fidelities:
        """Return the numbers of a session, made once."""
        kept = session.evidence.kept.get("fidelities")
        if not isinstance(kept, Fidelities):
            kept = session.evidence.kept["fidelities"] = cls(session)
        return kept

    @cached_property
    def dictionaries(self) -> Mapping[str, Dictionary]:
        """Those that are measured: what words are said of, and others beside them."""
        beside = {TAIL_MSE: self.session.tails[0].twin} if self.session.tails else {}
        return {**self.session.judged, **beside, FROZEN: self.session.own[FROZEN]}

    @cached_property
    def faith(self) -> Mapping[str, Faith]:
        """Every dictionary's numbers, on the same held-out states and with the same draws."""
        outputs = self.outputs
        return {name: self._faith(one, outputs.get(name, {})) for name, one in self.dictionaries.items()}

    @cached_property
    def twin_gain(self) -> CodeGain:
        """Code gain of the twin's own dictionary on the twin's states."""
        session = self.session
        return self.gain(session.twin_dictionary, session.twin_held, float(session.check.epsilon))

    def _faith(self, dictionary: Dictionary, output: Mapping[str, Estimate]) -> Faith:
        held, resamples = self.session.held, self.session.check.bootstrap
        x = torch.from_numpy(held.x)
        f, xhat = encoded(dictionary, x)
        rng = self.session.rng("fidelity")
        found = fidelity(
            x, xhat, f, held.groups, rng=rng, positions=held.positions, resamples=resamples, norm=dictionary.norm
        )
        row = np.repeat(np.arange(len(x)), np.diff(f.crow_indices().numpy()))
        return Faith(
            fidelity=found,
            gain=self.gain(dictionary, held, float(self.session.check.epsilon)),
            output=output,
            active=np.bincount(row[(f.values() > 0).numpy()], minlength=len(x)),
        )

    def gain(self, dictionary: Dictionary, held: Held, epsilon: float) -> CodeGain:
        """Return the code gain at a distortion; equal draws for all dictionaries."""
        return code_gain(
            dictionary,
            torch.from_numpy(held.x),
            held.groups,
            epsilon,
            rng=self.session.rng("code"),
            resamples=self.session.check.bootstrap,
        )

    @cached_property
    def thin(self) -> bool:
        """Whether too few states are held out for a code gain: it is then not told, and no dictionary is usable.

        Eigenvalues of so few rows are too noisy: at least max(20,000, 50 d) are needed (section 6).
        """
        return any("too_few_rows" in one.gain.flags for one in self.faith.values())

    @cached_property
    def speaks(self) -> bool:
        """Whether there is an output to compare: a causal model whose head came with it."""
        return self.session.evidence.facts.causal

    @cached_property
    def splice_ids(self) -> tuple[str, ...]:
        """Held-out passages whose output is compared."""
        ids = self.session.held_ids
        lengths = np.cumsum(self.session.site().lengths(ids))
        return ids[: max(1, int(np.searchsorted(lengths, SPLICE_TOKENS_MAX, side="right")))]

    @cached_property
    def outputs(self) -> Mapping[str, Mapping[str, Estimate]]:
        """Output fidelity of every dictionary; nothing where the model has no output."""
        if not self.speaks:
            return {}
        average = self.session.held.x.mean(axis=0, dtype=np.float64).astype(np.float32)
        names = tuple(self.dictionaries)
        changes = [self._reconstructed(self.dictionaries[name]) for name in names]
        zero, flat = self._constant(np.zeros_like(average)), self._constant(average)
        parts = list(self.session.site().splice(self.splice_ids, [zero, flat, *changes]))
        pooled = Pooled.of(parts)
        groups = [self.session.held_groups[self.splice_ids[int(one)]] for one in pooled.passage]
        drawn = Groups(groups, self.session.rng("output"), self.session.check.bootstrap)
        ce = pooled.cross_entropy
        found = {}
        for number, name in enumerate(names, start=1 + CAUSAL_EDITS):
            scores = TokenScores(
                kl=pooled.divergence[number], same_top=pooled.same_top[number], variation=pooled.variation[number]
            )
            found[name] = output_fidelity(scores, ce[0], ce[number], ce[1], ce[2], drawn)
        self.unedited = drawn.estimate(mean, np.ones(len(groups)), ce[0])
        return found

    def _reconstructed(self, dictionary: Dictionary) -> Change:
        def change(states: States) -> Float[np.ndarray, "token width"]:
            usable = self.session.sieve.usable(states)
            there = states.vectors.copy()
            there[usable] = dictionary.reconstruct(torch.from_numpy(there[usable])).numpy()
            return there

        return change

    def _constant(self, value: Float[np.ndarray, " width"]) -> Change:
        def change(states: States) -> Float[np.ndarray, "token width"]:
            return np.where(self.session.sieve.usable(states)[:, None], value, states.vectors).astype(np.float32)

        return change

    def metrics(self) -> Iterator[Metric]:
        """Yield every metric of fidelity."""
        held, epsilon = self.session.held, float(self.session.check.epsilon)
        for name, faith in self.faith.items():
            yield from self._of_one(name, faith)
            if name in BESIDE:
                continue
            dictionary = self.dictionaries[name]
            for other in EPSILONS if name in (FIRST, "supplied") else ():
                if other != epsilon and not self.thin:
                    gain = self.gain(dictionary, held, other).gain
                    yield from estimated("code_gain", gain, dictionary=name, epsilon=f"{other:g}")
            yield from self._against(name, faith)
        if not self.thin:
            yield from estimated("code_gain", self.twin_gain.gain, dictionary="twin", epsilon=f"{epsilon:g}")
        if self.speaks:
            yield from estimated("ce", self.unedited, model="submitted")
            first = next(iter(self.outputs.values()))
            for name in ("delta_ce_zero", "delta_ce_mean"):
                yield from estimated(name, first[name])

    def _of_one(self, name: str, faith: Faith) -> Iterator[Metric]:
        estimates, n = faith.fidelity.estimates, faith.fidelity.tokens
        yield from estimated("ev", faith.ev, dictionary=name)
        if faith.ev is not estimates["ev"]:
            yield from estimated("ev_with_norm", estimates["ev"], dictionary=name)
        yield from estimated("l0", estimates["l0"], dictionary=name)
        if not self.thin:
            signed = f"{float(self.session.check.epsilon):g}"
            yield from estimated("code_gain", faith.gain.gain, dictionary=name, epsilon=signed)
        for key in OUTPUT if faith.output else ():
            yield from estimated(key, faith.output[key], dictionary=name)
        if name in BESIDE:
            return
        for key in ("shrink_gamma", "dead"):
            yield from estimated(key, estimates[key], dictionary=name)
        if name not in (FIRST, "supplied"):  # a further seed: every number of an answer is charged
            return
        for key in (*SHAPE, *PLAIN):
            yield from estimated(key, estimates[key], dictionary=name)
        for band in BANDS:
            if estimates[f"ev_{band}"].value is not None and estimates[f"ev_{band}"].n:
                yield from estimated("ev_position", estimates[f"ev_{band}"], dictionary=name, band=band)
        dictionary = self.dictionaries[name]
        yield told("duplicates", duplicates(dictionary), dictionary.latents, dictionary=name)
        yield told("enc_dec_cosine", enc_dec_cosine(dictionary), dictionary.latents, dictionary=name)
        error = fold_error(dictionary, torch.from_numpy(self.session.held.x[:ENCODED_AT_ONCE]))
        if error is not None:
            yield told("fold_error", error, min(n, ENCODED_AT_ONCE), dictionary=name)
        label = {"dictionary": name, "epsilon": f"{float(self.session.check.epsilon):g}"}
        gain = faith.gain
        for key, value in (
            ("code_null", gain.null),
            ("code_switches", gain.switches),
            ("code_values", gain.values),
            ("code_residual", gain.residual),
            *((("code_norm", gain.norm),) if gain.norm else ()),
        ):
            yield told(key, value, gain.rows_measured, **label)
        yield told("code_dictionary", gain.dictionary_bits, gain.rows_measured, dictionary=name)

    def _against(self, name: str, faith: Faith) -> Iterator[Metric]:
        frozen = self.faith[FROZEN]
        pairs = (
            ("ev_above_frozen", faith.ev, frozen.ev),
            ("code_gain_above_frozen", faith.gain.gain, frozen.gain.gain),
            ("code_gain_above_twin", *self._beside_twin(self.dictionaries[name], faith.gain.gain)),
        )
        for key, one, other in pairs[:1] if self.thin else pairs:
            yield from estimated(key, difference(one, other), dictionary=name)

    def _beside_twin(self, dictionary: Dictionary, gain: Estimate) -> tuple[Estimate, Estimate]:
        """Return both gains over the same groups: one that has no usable state in one model is left out of both."""
        held, twin, epsilon = self.session.held, self.session.twin_held, float(self.session.check.epsilon)
        both = set(held.groups) & set(twin.groups)
        if both == set(held.groups) == set(twin.groups):
            return gain, self.twin_gain.gain
        mine, other = (
            sliced(one, [at for at, group in enumerate(one.groups) if group in both]) for one in (held, twin)
        )
        own = self.session.twin_dictionary
        return self.gain(dictionary, mine, epsilon).gain, self.gain(own, other, epsilon).gain


@dataclass(frozen=True, kw_only=True, eq=False)
class Pooled:
    """Scored tokens of a splice, all batches together."""

    passage: np.ndarray
    cross_entropy: Float[np.ndarray, "edit token"]
    divergence: Float[np.ndarray, "edit token"]
    same_top: Float[np.ndarray, "edit token"]
    variation: Float[np.ndarray, "edit token"]

    @classmethod
    def of(cls, parts: Sequence[Spliced]) -> Pooled:
        """Return the scored tokens of all batches."""
        return cls(
            passage=np.concatenate([part.passage[part.scored] for part in parts]),
            cross_entropy=np.concatenate([part.cross_entropy[:, part.scored] for part in parts], axis=1),
            divergence=np.concatenate([part.divergence[:, part.scored] for part in parts], axis=1),
            same_top=np.concatenate([part.same_top[:, part.scored] for part in parts], axis=1).astype(np.float64),
            variation=np.concatenate([part.variation[:, part.scored] for part in parts], axis=1),
        )


def encoded(
    dictionary: Dictionary, x: Float[torch.Tensor, "row d"]
) -> tuple[Float[torch.Tensor, "row m"], Float[torch.Tensor, "row d"]]:
    """Return the latents of many states in compressed rows, and their reconstruction."""
    starts, columns, values, made = [torch.zeros(1, dtype=torch.int64)], [], [], []
    for part in torch.split(x, ENCODED_AT_ONCE):
        f = dictionary.encode(part)
        made.append(dictionary.decode(f, part))
        where = f.nonzero()
        starts.append(torch.cumsum((f != 0).sum(dim=1), 0) + starts[-1][-1])
        columns.append(where[:, 1])
        values.append(f[where[:, 0], where[:, 1]])
    f = compressed_rows(torch.cat(starts), torch.cat(columns), torch.cat(values), (len(x), dictionary.latents))
    return f, torch.cat(made)


def fold_error(dictionary: Dictionary, x: Float[torch.Tensor, "row d"]) -> float | None:
    """Return the relative error of reconstructions after folding rows to unit norm; None where folding is illegal."""
    try:
        folded = dictionary.fold()
    except FoldIllegal:
        return None
    made = dictionary.reconstruct(x)
    return float((folded.reconstruct(x) - made).norm() / made.norm())
