"""What a check is: a frozen question, the evidence it asks for, and how it reads the numbers.

A check's fields are its parameters, so the check *is* its record in the report, and replaying a report is
validating that record again. This module names tensors in annotations only: `judge` must import without torch.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from assay.result import ControlResult, Finding, Measured, Value

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float, Int

    from checks.feedforward import FeedForward
    from checks.passages import Contrast, Passage, Site, Which
    from checks.sharding import Gathered

Access = Literal["weights", "activations", "gradients", "training_data"]
"""Access levels of a report; they follow from `Needs` and are never typed by hand."""


ModelKind = Literal["transformer", "feedforward"]


class Refusal(Exception):
    """The check cannot be answered on this evidence; the reason is told, and is no finding.

    Args:
        reason: a code from the check's `reasons`, e.g. "too_few_items".
        items: what was wrong, in the name alphabet, e.g. ("line:3:bad_json",); told in `skipped`.
    """

    def __init__(self, reason: str, items: Sequence[str] = ()) -> None:
        super().__init__(f"{reason}: {', '.join(items)}" if items else reason)
        self.reason = reason
        self.items = tuple(items)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of the model before any weight is read: from the canonical config and the tensor table."""

    architecture: str
    """Config's `model_type`, e.g. "gpt2", "bert"."""
    layers: int
    """Transformer blocks."""
    width: int
    """Residual stream width, d_model."""
    heads: int
    vocabulary: int
    context: int
    """Longest input, in tokens."""
    causal: bool
    """True where a position sees only earlier ones."""
    tensors: Mapping[str, tuple[int, ...]]
    """Every tensor in the files by name, with its shape."""
    mlp_in: tuple[str, ...]
    """Names of each block's first MLP matrix, in layer order; empty where the architecture is not tabled."""
    mlp_out: tuple[str, ...]
    """Names of each block's last MLP matrix, in layer order."""
    transposed: frozenset[str]
    """Matrices that the file stores as [in, out] (GPT-2's Conv1D); `Evidence.weights` turns them to [out, in]."""
    feedforward: FeedForward | None = None
    """The declared layers of an MLP or CNN; None for transformers. Such a model has no tokens and no blocks: its
    `layers` counts linear and convolutional layers, and `width`, `heads`, `vocabulary` and `context` are 0."""

    @property
    def kind(self) -> ModelKind:
        """What kind of model this is; a check is asked only of the kinds that it names."""
        return "transformer" if self.feedforward is None else "feedforward"


@dataclass(frozen=True, kw_only=True)
class Text:
    """One text to sweep, and the character before which the state is read."""

    id: str
    """Unique within the check; the row order of `Evidence.activations` is the order of `Needs.texts`."""
    text: str
    read_at: int | None = None
    """Read at the last token that ends at or before this character; None reads the last token."""


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """Words whose log-probability after a text is wanted."""

    id: str
    """Unique within the check, also against its texts; the key of `Evidence.log_probabilities`."""
    after: str
    """The text that stands before; scored at its end, wherever its state is read."""
    text: str
    """What is scored, with its leading space where the tokenizer wants one: the two are concatenated as they are."""


@dataclass(frozen=True, kw_only=True)
class ScoredText:
    """One text of which every token's log-probability is wanted."""

    id: str
    """Unique within the check, also against its other texts; the key of `Evidence.token_scores`."""
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenScores:
    """What a model makes of each token of a text, given the tokens before it.

    The first token of a text has nothing before it and is left out; where the tokenizer puts a beginning of text before
    it, that one is left out and every token of the text is there.
    """

    logp: Float[np.ndarray, " scored"]
    """Log-probability of the token, nats, float64."""
    mean: Float[np.ndarray, " scored"]
    """Mean of log-probability over the vocabulary at its position, weighted by probability, nats, float64."""
    sd: Float[np.ndarray, " scored"]
    """Standard deviation likewise."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One forward pass in which a state is shifted; addressed by site, row and the row's own read position."""

    site: str
    """"resid.{l}": the shift is added right after block l."""
    row: str
    """Id of a text of `Needs.texts`; the shift is added at its read position alone."""
    add: Float[np.ndarray, " width"]
    ask: tuple[str, ...]
    """Ids of continuations that are scored under the edit; each stands after this row's own text."""


@dataclass(frozen=True, kw_only=True)
class TokenTrial:
    """A text and what must follow it, scored under lesions.

    It is right where every token of `target` is the most likely one, the target's earlier tokens given; its loss is the
    mean over the target's tokens of -log p, in nats. Text and target are tokenised apart and joined.
    """

    id: str
    """Unique within the check, also against its texts and continuations."""
    group: str
    """Task: means over trials count every group equally."""
    text: str
    target: str


@dataclass(frozen=True, kw_only=True)
class VectorTrial:
    """An input of a feed-forward model and its label: right where the label's output is the largest of its head."""

    id: str
    group: str
    values: tuple[float, ...]
    """In C order of the model's input shape."""
    label: int
    """Counted from 0 within the head."""
    head: str | None = None
    """Name of a declared head; None is the only one."""


Trial = TokenTrial | VectorTrial

Lesion = Mapping[str, "Int[np.ndarray, ' held']"]
"""Units by site, each held at its mean over the trials, groups weighted equally, in one pass over all trials.

Sites: "mlp.{l}" are the hidden neurons of block l, as its last MLP matrix reads them; "heads.{l}" are the attention
heads of block l, as W_O reads them; "layer.{i}" are the outputs of the linear or convolutional layer i of a
feed-forward model (neurons or channels), after the activation that follows it. They are held at every token and
position: a neuron of a token model at its mean over all tokens, a channel at its mean at each position.
"""


@dataclass(frozen=True, kw_only=True)
class TrialScores:
    """How every trial fared under each lesion, in the order of `Needs.trials`; a lost trial is wrong, its loss NaN."""

    correct: Bool[np.ndarray, "lesion trial"]
    loss: Float[np.ndarray, "lesion trial"]
    """Nats."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What must be captured before the check can measure."""

    data_roles: tuple[str, ...] = ()
    """Roles of the audit's data that the check reads."""
    weights: tuple[str, ...] = ()
    """Tensor names."""
    sites: tuple[str, ...] = ()
    """Activation sites by name: "resid.{l}" is the residual stream after block l, counted from 0."""
    texts: tuple[Text, ...] = ()
    """Texts whose states are read at every one of `sites`."""
    continuations: tuple[Continuation, ...] = ()
    """Scored in the same sweep; only a causal model with an output head can."""
    replay: int = 0
    """Edited passes that `measure` may ask for, one for each `Edit`; the sweep's `texts` are the rows."""
    twin: tuple[str, ...] = ()
    """Ids of the texts that a randomly initialised twin of the model sweeps too (`Evidence.twin`)."""
    trials: tuple[Trial, ...] = ()
    """Scored under lesions; token trials need a causal model with an output head, vector trials a feed-forward one."""
    units: tuple[str, ...] = ()
    """Sites whose units lesions may hold, e.g. "mlp.3"; see `Lesion`."""
    lesions: int = 0
    """Lesions that `measure` and controls may ask for, one pass over all trials each."""
    passages: tuple[Passage, ...] = ()
    """Sequences whose every state may be asked of `Evidence.site`."""
    contrasts: tuple[Contrast, ...] = ()
    """Prompts whose margins may be asked of it."""
    passage_sites: tuple[str, ...] = ()
    """Names of the sites that may be asked; see `checks.passages.Site`."""
    passage_models: tuple[Which, ...] = ("submitted",)
    """Whose states may be asked; "base" needs an audit that names one."""
    passage_tokens: int = 0
    """Tokens that may run forward for all sites and models together, controls among them."""
    gradients: bool = False
    """Whether gradients may be asked of sites."""
    training_data: bool = False
    """Whether documents that a model is or was trained on are read."""
    scored: tuple[ScoredText, ...] = ()
    """Texts whose every token is scored; only a causal model with an output head can."""
    scored_twin: tuple[str, ...] = ()
    """Ids of those that a freshly initialised twin of the model scores too (`Evidence.twin`)."""

    def access(self) -> tuple[Access, ...]:
        """Return the access levels that these needs amount to."""
        levels: list[Access] = []
        if self.weights:
            levels.append("weights")
        if self.sites or self.continuations or self.replay or self.trials or self.passage_sites or self.scored:
            levels.append("activations")
        if self.gradients:
            levels.append("gradients")
        if self.training_data:
            levels.append("training_data")
        return tuple(levels)


class Evidence(Protocol):
    """All that a check may see: exactly what its needs named. No model, no path, no socket, no environment."""

    facts: ModelFacts
    kept: MutableMapping[str, Any]
    """What the check keeps between its runs on this evidence: a control joins what `measure` has trained, and does not
    train it again. Shared by all evidence made of this one, and gone with it."""

    def weights(self, name: str) -> Float[np.ndarray, "out in"]:
        """Return a named tensor as float64, matrices as [out, in]."""
        ...

    def activations(self, site: str) -> Float[np.ndarray, "text width"]:
        """Return the states at a site, float32, one row per text of `Needs.texts`, in their order.

        A text that could not be read (too long, no token before `read_at`) has a row of NaN and is in `lost`.
        """
        ...

    def roles(self) -> tuple[str, ...]:
        """Return the data roles that came with the audit, of those that the needs named."""
        ...

    def data(self, role: str) -> Sequence[Mapping[str, Any]]:
        """Return the rows of a role, parsed strictly, in file order."""
        ...

    def lost(self) -> Mapping[str, str]:
        """Return the ids of texts that could not be read, with the reason."""
        ...

    def runs(self) -> Mapping[str, int]:
        """Return a number for each text that ran: two texts of one number are the same tokens to the model."""
        ...

    def log_probabilities(self) -> Mapping[str, float]:
        """Return the log-probability (nats) of each continuation, by id; what could not be scored is in `lost`."""
        ...

    def token_scores(self) -> Mapping[str, TokenScores]:
        """Return what the model makes of each token of the scored texts, by id; lost texts are absent and in `lost`."""
        ...

    def replay(self, edits: Sequence[Edit]) -> Sequence[Float[np.ndarray, " ask"]]:
        """Return, for each edit, the log-probabilities (nats) of the continuations that it asks.

        Raises:
            NotAskedFor: more edits than the needs declared, an unknown row or site, or a continuation of another text.
        """
        ...

    def lesioned(self, lesions: Sequence[Lesion]) -> TrialScores:
        """Return how every trial fares under each lesion; one that holds no unit is the model as it is.

        Raises:
            NotAskedFor: more lesions than the needs declared, a site or a unit that is not there.
        """
        ...

    def unit_sd(self, site: str) -> Float[np.ndarray, " unit"]:
        """Return each unit's standard deviation over the trials, groups weighted equally.

        Over all positions where a unit has several; of a head, the root of the summed variance of what it hands to W_O.
        """
        ...

    def twin(self) -> Evidence:
        """Return the same texts as a randomly initialised twin of the model sees them; rows not asked for are NaN.

        Of scored texts it holds those that `Needs.scored_twin` names.

        Raises:
            NotAskedFor: the needs did not ask for one.
        """
        ...

    def site(self, name: str, which: Which = "submitted") -> Site:
        """Return a place in a model at which the passages' states can be read and replaced.

        Raises:
            NotAskedFor: the needs did not name this site or this model.
        """
        ...

    def models(self) -> tuple[Which, ...]:
        """Return whose states can be asked: those of the needs' `passage_models` that are there."""
        ...

    def blob(self, role: str) -> bytes:
        """Return the bytes of a role that is not rows (its media type is not JSON lines).

        Raises:
            NotAskedFor: the needs did not name the role, or the audit has none.
        """
        ...

    def gathered(self) -> Gathered:
        """Return the plan and the joined parts of a check that reads a role in shards.

        Raises:
            NotAskedFor: the audit has nothing to shard.
        """
        ...

    def rng(self, label: str) -> np.random.Generator:
        r"""Return the generator of a label.

        PCG64 seeded by SHA-256("assay-rng/v1\n" || seed as 8 bytes || check name || 0x00 || label).
        """
        ...


class Control(Protocol):
    """A re-run of `measure` on spoiled or planted evidence, and the band in which a number must land."""

    @property
    def name(self) -> str:
        """Name in the catalogue and in the report."""
        ...

    @property
    def kind(self) -> Literal["positive", "negative", "null"]:
        """Whether the effect is planted, removed, or drawn from the null."""
        ...

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Every band that it may ever state, from the constants that `bands` uses; the catalogue tells them."""
        ...

    def spoil(self, check: Any, seen: Evidence) -> Evidence:
        """Return the evidence with the effect removed (negative, null) or planted (positive)."""
        ...

    def bands(self, check: Any, measured: Measured) -> Sequence[Expected]:
        """Return the numbers that must land, and where; computed from the control's own run."""
        ...


@dataclass(frozen=True, kw_only=True)
class Expected:
    """One number of a control and its band; the runtime decides `held`."""

    metric: str
    value: float
    low: float
    high: float
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class PromisedBand:
    """A band that a control promises in the catalogue: of one number, or of those that carry some labels.

    Of the bands of one metric the first that fits counts, so those with labels stand before the one without.
    """

    metric: str
    low: float
    high: float
    labels: Mapping[str, str] = field(default_factory=dict)
    """Instances that are meant: those that carry these; all where empty."""
    fixed: bool = True
    """Whether the band is the same in every answer. Else it hangs on n or on the data, and lies within this one."""
    always: bool = False
    """Whether every run of the control that says anything states at least one such number."""


class Check(Value, abc.ABC):
    """A check is a value: its fields are its parameters, and the report records them as they are."""

    name: ClassVar[str]
    version: ClassVar[str]
    source: ClassVar[str]
    controls: ClassVar[tuple[Control, ...]]
    data_roles: ClassVar[tuple[DataRole, ...]] = ()
    metrics: ClassVar[tuple[MetricSpec, ...]]
    example: ClassVar[Mapping[str, Any]] = {}
    """Parameters that have no default, with a value each: the catalogue asks with them what the check needs."""
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """More parameters, where others than the example's ask for other access."""
    artefacts: ClassVar[tuple[ArtefactSpec, ...]] = ()
    """Files that it may hand out beside the report."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Files outside its own folder that decide its answer too, as patterns below `checks/`."""
    kinds: ClassVar[tuple[ModelKind, ...]] = ("transformer",)
    """Models that it can be asked of; of another it is refused (`model_kind`)."""
    words: ClassVar[tuple[str, ...]]
    """Every word a finding may use."""
    reasons: ClassVar[tuple[str, ...]]
    """Every reason code of a refusal or a skipped item."""

    @abc.abstractmethod
    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        """Say what to capture. Called before any weight is loaded, with the parsed rows of the roles it declares.

        Raises:
            Refusal: model or data cannot carry this check.
        """

    @abc.abstractmethod
    def measure(self, evidence: Evidence) -> Measured:
        """Measure, and judge nothing. Runs once for real and once under every control.

        Raises:
            Refusal: the evidence cannot carry this measurement (too few items, one class).
        """

    @abc.abstractmethod
    def judge(self, real: Measured, controls: Sequence[ControlResult]) -> tuple[Finding, ...]:
        """Turn numbers into claims. No tensors, no randomness, nothing that the report does not hold.

        Args:
            real: the numbers, as the report has them.
            controls: every result of every control; a control that said nothing has none.
        """

    def hand_out(self, evidence: Evidence, real: Measured, findings: Sequence[Finding]) -> Mapping[str, bytes]:
        """Return the files to hand out, by the names of `artefacts`. Called once, after `judge`, on the real evidence.

        Args:
            evidence: what `measure` saw.
            real: the numbers, as the report has them.
            findings: what `judge` said.
        """
        return {}


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A metric that a check may report: the catalogue's promise."""

    name: str
    unit: str
    labels: tuple[str, ...]
    better: Literal["higher", "lower", "none"]
    determinism: Literal["exact", "tolerance", "statistical"]
    summary: str
    interval: bool | None = None
    """Whether each instance has one, or none has. None where some have: then no reader counts on it."""
    tolerance: tuple[float, float] | None = None
    """Absolute and relative difference that a re-run may show; `quantise.REPEATED` if not given, none if exact."""
    margin: float | None = None
    """Difference that matters, the same in every answer; None where nobody has said which does."""


@dataclass(frozen=True, kw_only=True)
class ArtefactSpec:
    """A file that a check may hand out: named in the report by digest, counted as output, byte for byte."""

    name: str
    """Flat file name, e.g. "cards.json"."""
    media_type: str
    max_bytes: int
    summary: str


ROWS = "application/jsonl"
"""Media type of roles that are rows; a role of any other type is bytes (`Evidence.blob`)."""


@dataclass(frozen=True, kw_only=True)
class DataRole:
    """A role of data that a check reads."""

    name: str
    required: bool
    media_type: str
    summary: str
    many: bool = False
    """Whether it may be sent in several files; then it is the role that a `ShardedCheck` reads in shards."""


def missed_controls(check: Check, results: Sequence[ControlResult]) -> list[str]:
    """Return the controls of a check that missed a band or said nothing, in the check's order."""
    told = {result.name for result in results}
    missed = {result.name for result in results if not result.held}
    return [control.name for control in check.controls if control.name in missed or control.name not in told]
