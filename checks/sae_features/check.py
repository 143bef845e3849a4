"""The check `sae_features`: is a sparse dictionary faithful here, what can be read in it, and does that act?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from assay.result import ControlResult, D, Finding, Measured, Name
from pydantic import AfterValidator, Field, model_validator

from checks.check import ROWS, ArtefactSpec, Check, DataRole, Evidence, MetricSpec, ModelFacts, Needs, missed_controls
from checks.parameters import Between
from checks.sae_features.asking import asked
from checks.sae_features.controls import (
    PERMUTATIONS_LEAST,
    FrozenDecoder,
    LabelPermutation,
    PlantedInDictionary,
    PlantedNothing,
    RandomWeights,
)
from checks.sae_features.judge import Gates, words
from checks.sae_features.metric_specs import METRICS
from checks.sae_features.reasons import REASONS
from checks.sae_features.words import WORDS

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

SITE = re.compile(r"(resid|mlp_out|attn_z)\.(0|[1-9][0-9]{0,3})|embed")
"""Sites that a dictionary can describe (specification, section 2)."""

WIDTH_MAX, WIDTH_FACTOR = 16384, 8
"""The default number of latents is 8 d, at most 16384 (section 2)."""

TOKENS_LEAST, TOKENS_A_LATENT = 1_000_000, 2000
"""Default training length: a million states, or 2000 a latent where that is more (section 2)."""

CARDS_LEAST = 3
"""One cited, one drawn at random, one drawn by rate (section 9)."""

CARDS = ArtefactSpec(
    name="cards.json",
    media_type="application/json",
    max_bytes=8 * 2**20,
    summary="Feature cards: for each latent its firing rate, strongest and random contexts as token numbers, "
    "and the tokens that it raises.",
)


def _site(text: str) -> str:
    if not SITE.fullmatch(text):
        raise ValueError('a site is "resid.<block>", "mlp_out.<block>", "attn_z.<block>" or "embed"; blocks from 0')
    return text


def _short(text: str) -> str:
    if f"{float(text):g}" != text:
        raise ValueError(f"{text} is told as a label: six significant digits at most")
    return text


def _ascending(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(numbers)) != len(numbers):
        raise ValueError("a number is named twice: name each once")
    return tuple(sorted(numbers))


Ks = Annotated[tuple[Annotated[int, Field(ge=1, le=256)], ...], Field(strict=False, min_length=1, max_length=6)]
Names = Annotated[tuple[Name, ...], Field(strict=False, max_length=16)]


class SaeFeatures(Check):
    """A sparse autoencoder at one site: trained here or supplied, held against its controls, its latents tested."""

    name: ClassVar[str] = "sae_features"
    version: ClassVar[str] = "1.0"
    source: ClassVar[str] = (
        "Bussmann et al. 2024 (arXiv 2412.06410); Gao et al. 2024 (2406.04093); Korznikov et al. (2602.14111); "
        "Heap et al. 2025 (2501.17727); Paulo & Belrose 2025 (2501.16615); Kantamneni et al. 2025 (2502.16681)"
    )
    controls: ClassVar[tuple[Any, ...]] = (
        RandomWeights(),
        FrozenDecoder(),
        LabelPermutation(),
        PlantedInDictionary(),
        PlantedNothing(),
    )
    data_roles: ClassVar[tuple[DataRole, ...]] = (
        DataRole(
            name="corpus",
            required=True,
            media_type=ROWS,
            summary="Documents that the dictionary is trained on and held out from: id, group, text or tokens.",
        ),
        DataRole(
            name="concepts",
            required=False,
            media_type=ROWS,
            summary="Places in texts where a concept is there or not: is it readable, and by what?",
        ),
        DataRole(
            name="contrast",
            required=False,
            media_type=ROWS,
            summary="Prompts with a target and a foil: the behaviour that a concept's latents are tested on.",
        ),
        DataRole(
            name="neutral",
            required=False,
            media_type=ROWS,
            summary="Texts on which an edit should change nothing; 64 held-out documents where it is not given.",
        ),
        DataRole(
            name="sae",
            required=False,
            media_type="application/octet-stream",
            summary="A dictionary to audit: one safetensors or npz file; pickles are refused.",
        ),
        DataRole(
            name="sae_config",
            required=False,
            media_type="application/json",
            summary="What the dictionary says of itself: schema assay-sae/v1, format, the peer's own config, site.",
        ),
    )
    metrics: ClassVar[tuple[MetricSpec, ...]] = METRICS
    example: ClassVar[Mapping[str, Any]] = {"site": "resid.0"}
    artefacts: ClassVar[tuple[ArtefactSpec, ...]] = (CARDS,)
    words: ClassVar[tuple[str, ...]] = WORDS
    reasons: ClassVar[tuple[str, ...]] = REASONS

    site: Annotated[str, AfterValidator(_site)] = Field(
        description="Where: resid.<block>, mlp_out.<block>, attn_z.<block> (concatenated heads) or embed."
    )
    dictionary: Literal["train", "supplied", "both"] = Field(
        default="train", description="Which is judged; supplied and both need the roles sae and sae_config."
    )
    width: Literal["auto"] | Annotated[int, Field(ge=32, le=2**19)] = Field(
        default="auto", description="Latents; auto: 8 times the site's width, at most 16384."
    )
    k: Literal["auto"] | Annotated[int, Field(ge=2, le=256)] = Field(
        default="auto", description="Mean active latents a token; auto: a 64th of the width, 8 to 64."
    )
    sparsifier: Literal["batchtopk", "topk"] = Field(default="batchtopk", description="How latents are selected.")
    train_tokens: Literal["auto"] | Annotated[int, Field(ge=100_000, le=500_000_000)] = Field(
        default="auto", description="States that are trained on; auto: a million, or 2000 a latent if more."
    )
    objective: Literal["mse", "mse_kl_tail"] = Field(
        default="mse", description="Training loss; mse_kl_tail ends with a fifth of steps through the frozen model."
    )
    dictionary_seeds: int = Field(default=2, ge=2, le=5, description="Dictionaries that are trained, each judged.")
    concepts: Literal["all"] | Names = Field(default="all", description="Concepts of the role that are asked.")
    ks: Annotated[Ks, AfterValidator(_ascending)] = Field(
        default=(1, 2, 5, 16), description="Sizes of sparse probes; the size is chosen on validation rows."
    )
    pool: Literal["last", "mean"] = Field(default="last", description="Which of a row's marked tokens are read.")
    ev_min: Annotated[D, Between("0", "1")] = Field(default="0.6", description="Floor of explained variance.")
    dce_share_max: Annotated[D, Between("0", "1")] = Field(
        default="0.1", description="Largest share of mean ablation's harm that splicing may do."
    )
    gain_min: Annotated[D, Between("-1000", "1000")] = Field(
        default="0", description="Floor of the code gain, bits a token."
    )
    epsilon: Annotated[D, Between("0.001", "0.5"), AfterValidator(_short)] = Field(
        default="0.05", description="Distortion of the code gain."
    )
    l0_tolerance: Annotated[D, Between("0.01", "1")] = Field(
        default="0.2", description="Relative difference of a supplied dictionary's L0 from the declared one."
    )
    detect_floor: Annotated[D, Between("0.5", "0.99")] = Field(
        default="0.6", description="Floor of the AUROC's lower bound from which a concept is readable."
    )
    blind_margin: Annotated[D, Between("0", "0.5")] = Field(
        default="0.05", description="How far below the dense probe the dictionary is blind."
    )
    effect_min: Annotated[D, Between("0", "1")] = Field(
        default="0.1", description="Least relative effect of an ablation."
    )
    attribution_rho: Annotated[D, Between("0", "1")] = Field(
        default="0.8", description="Rank correlation with exact ablation from which a gradient form is told."
    )
    matched_controls: int = Field(default=99, ge=19, le=999, description="Control sets of an ablation.")
    permutations: int = Field(
        default=200, ge=PERMUTATIONS_LEAST, le=5000, description="Label permutations, and group swaps."
    )
    bootstrap: int = Field(default=1000, ge=200, le=20000, description="Bootstrap draws of groups.")
    alpha: Annotated[D, Between("0.001", "0.2")] = Field(default="0.05", description="Level over all concepts.")
    edit_rows: int = Field(default=256, ge=32, le=4096, description="Contrast rows that are edited.")
    power_draws: int = Field(default=40, ge=20, le=400, description="Plants of each kind and amplitude.")
    cards: int = Field(default=24, ge=0, le=512, description="Feature cards that are handed out; 0 for none.")
    cards_bytes: int = Field(
        default=32_768, ge=4096, le=8 * 2**20, description="Bytes of the cards; detail is dropped until they fit."
    )
    export_contexts: bool = Field(default=True, description="Whether cards show contexts, as token numbers.")
    watch: Names = Field(default=(), description="Concepts whose presence is a concern.")
    seed: int = Field(default=0, ge=0, le=2**31, description="Seed of splits, dictionaries and draws.")

    @model_validator(mode="after")
    def _fits(self) -> SaeFeatures:
        if self.width != "auto" and self.k != "auto" and self.k > self.width:
            raise ValueError(f"k {self.k} is more than the width of {self.width} latents")
        if 0 < self.cards < CARDS_LEAST:
            raise ValueError(f"cards is 0, or at least {CARDS_LEAST}: cited latents are never shown alone")
        if self.concepts != "all":
            unknown = [name for name in self.watch if name not in self.concepts]
            if unknown:
                raise ValueError(f"watch names {unknown[0]}, which is not among the concepts that are asked")
        return self

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        """Ask for the site's states over the corpus and concepts, outputs under splices, and gradients of margins.

        Raises:
            Refusal: a role cannot be read, the site does not exist, or the roles do not carry what is asked.
        """
        return asked(self, model, data).needs

    def measure(self, evidence: Evidence) -> Measured:
        """Train or read dictionaries and measure them; under a control, measure what the control spoiled.

        Raises:
            Refusal: too few states, a state that is not finite, or a supplied dictionary that cannot be read.
        """
        from checks.sae_features.measuring import measured

        return measured(self, evidence)

    def judge(self, real: Measured, controls: Sequence[ControlResult]) -> tuple[Finding, ...]:
        """Read the words off the numbers; a missed control makes the words that rest on it inconclusive."""
        return words(self.gates(), real, controls, missed_controls(self, controls))

    def hand_out(self, evidence: Evidence, real: Measured, findings: Sequence[Finding]) -> Mapping[str, bytes]:
        """Return the feature cards, unless none were asked for."""
        from checks.sae_features.handing import feature_cards

        return {CARDS.name: feature_cards(self, evidence, findings)} if self.cards else {}

    def gates(self) -> Gates:
        """Return the thresholds of the words as numbers."""
        return Gates(
            ev_min=float(self.ev_min),
            dce_share_max=float(self.dce_share_max),
            gain_min=float(self.gain_min),
            detect_floor=float(self.detect_floor),
            blind_margin=float(self.blind_margin),
            effect_min=float(self.effect_min),
            attribution_rho=float(self.attribution_rho),
            epsilon=float(self.epsilon),
            seeds=0 if self.dictionary == "supplied" else self.dictionary_seeds,
            alpha=float(self.alpha),
            watch=self.watch,
        )

    def latents(self, width: int) -> int:
        """Return the number of latents at a site of this width."""
        return min(WIDTH_FACTOR * width, WIDTH_MAX) if self.width == "auto" else self.width

    def active(self, latents: int) -> int:
        """Return k for so many latents."""
        return min(max(8, latents // 64), 64) if self.k == "auto" else self.k

    def length(self, latents: int) -> int:
        """Return how many states are to be trained on."""
        return max(TOKENS_LEAST, TOKENS_A_LATENT * latents) if self.train_tokens == "auto" else self.train_tokens

    def asks(self, names: AbstractSet[str] | Sequence[str]) -> tuple[str, ...]:
        """Return the concepts of the role that are asked, in the role's order."""
        return tuple(name for name in names if self.concepts == "all" or name in self.concepts)
