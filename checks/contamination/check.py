"""The check `contamination`: are a benchmark's items, or rewordings of them, in a corpus; does the model show it?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from assay.result import ControlResult, D, Finding, Measured, Name
from pydantic import AfterValidator, Field, model_validator

from checks.check import (
    ROWS,
    ArtefactSpec,
    DataRole,
    Evidence,
    MetricSpec,
    ModelFacts,
    Needs,
    Refusal,
    missed_controls,
)
from checks.contamination import reasons
from checks.contamination.bounded import MATCHES_MAX
from checks.contamination.controls import CONTROL_SPECS, CORPUS_CONTROLS, control_numbers
from checks.contamination.items import BENCHMARK
from checks.contamination.languages import LANGUAGES
from checks.contamination.metric_specs import SPECS
from checks.contamination.model_controls import CONTROLS as MODEL_CONTROLS
from checks.contamination.model_controls import asked_of as model_asked
from checks.contamination.model_metric_specs import SPECS as MODEL_SPECS
from checks.contamination.model_texts import DECLARATION, ROLE, TOO_FEW
from checks.contamination.words import LEAK, WORDS
from checks.parameters import Between
from checks.sharding import Planned, ShardedCheck, ShardFile, ShardStep

CORPUS_MEDIA = "application/vnd.assay.corpus"
"""Media type of the corpus: bytes to all but this check, whose parameter `corpus_format` says what they are."""

MATCHES = ArtefactSpec(
    name="matches.json",
    media_type="application/json",
    max_bytes=MATCHES_MAX,
    summary="Flagged items with tier, score, p and q-value, copies and a keyed commitment to each match, best first as "
    "far as they fit, the rest counted; never text of the corpus unless `evidence` is `reveal`.",
)

Tier = Literal["exact", "near", "semantic", "template"]
Test = Literal["order", "options", "surprise", "transfer"]
Vouched = Literal["yes", "no", "unknown"]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a value is named twice: name each once")
    return values


def _benchmarks(declared: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    for name, told in declared.items():
        if not BENCHMARK.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is no name of a benchmark")
        for field, value in told.items():
            if field not in DECLARED:
                raise ValueError(f"{name}: {field[:40]!r} is none of {', '.join(DECLARED)}")
            if field != "published_on" and value not in ("yes", "no", "unknown"):
                raise ValueError(f"{name}.{field} is yes, no or unknown")
    return declared


def _languages(listed: tuple[str, ...]) -> tuple[str, ...]:
    for one in listed:
        if one not in LANGUAGES:
            raise ValueError(f"languages: {one[:40]!r} has no detector; there are {' and '.join(LANGUAGES)}")
    return listed


DECLARED = ("order_exchangeable", "options_randomised", "published_on")
"""What an auditor may vouch for of a benchmark (section 3)."""

Windows = Annotated[tuple[Annotated[int, Field(ge=8, le=512)], ...], Field(strict=False, min_length=1, max_length=8)]
Names = Annotated[tuple[Name, ...], Field(strict=False, max_length=64)]


class Contamination(ShardedCheck):
    """Items of a benchmark in a training corpus, word for word or reworded; or traces of them in a model's surprise."""

    name: ClassVar[str] = "contamination"
    version: ClassVar[str] = "1.0"
    source: ClassVar[str] = (
        "Spiesberger et al. (arXiv 2602.12413); Yang et al. 2023 (2311.04850); Oren et al. 2023 (2310.17623); "
        "Singh et al. 2024 (2411.03923); Dekoninck et al. 2024 (2405.16281); Zhang et al. 2024 (2404.02936)"
    )
    controls: ClassVar[tuple[Any, ...]] = (*CORPUS_CONTROLS, *MODEL_CONTROLS)
    data_roles: ClassVar[tuple[DataRole, ...]] = (
        DataRole(
            name="benchmark",
            required=True,
            media_type=ROWS,
            summary="Items that are looked for: benchmark, item, kind, question, and what belongs to its kind.",
        ),
        DataRole(
            name="corpus",
            required=False,
            media_type=CORPUS_MEDIA,
            many=True,
            summary="Documents of the training corpus, read in shards; the parameter corpus_format names their form.",
        ),
        DataRole(
            name="plan",
            required=False,
            media_type="application/octet-stream",
            summary="Instead of a corpus: the plan that sketches were made by where the corpus lies.",
        ),
        DataRole(
            name="sketches",
            required=False,
            media_type="application/octet-stream",
            summary="Instead of a corpus: the merged sketch of a plan; it is declared, not observed.",
        ),
        DataRole(
            name="placebo",
            required=False,
            media_type=ROWS,
            summary="Items that no corpus can hold, matched in domain and length: as the benchmark, plus origin.",
        ),
        DataRole(
            name="rewrites",
            required=False,
            media_type=ROWS,
            summary="The auditor's own rewordings, planted to measure what is found: benchmark, item, text, depth.",
        ),
        DataRole(
            name="scores",
            required=False,
            media_type=ROWS,
            summary="Which model answered which item: model (target or a name), benchmark, item, correct.",
        ),
        DataRole(
            name="commitment_key",
            required=False,
            media_type="application/octet-stream",
            summary="32 random bytes, made and kept by the auditor: keys the commitments to matches.",
        ),
    )
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        *SPECS,
        *CONTROL_SPECS,
        *(one for one in MODEL_SPECS if one.name not in {spec.name for spec in SPECS}),
    )
    artefacts: ClassVar[tuple[ArtefactSpec, ...]] = (MATCHES,)
    beside: ClassVar[tuple[str, ...]] = (
        "organisms/__init__.py",
        "organisms/families*.py",
        "organisms/families/*.json",
        "organisms/contamination_*.py",
        "contamination/organisms/*.safetensors",
    )
    words: ClassVar[tuple[str, ...]] = WORDS
    reasons: ClassVar[tuple[str, ...]] = (
        *reasons.REFUSALS,
        *sorted(reasons.WHY),
        "uncalibrated",
        DECLARATION,
        ROLE,
        TOO_FEW,
        "no_output_head",
        "scored_tokens",
    )
    shard_role: ClassVar[str] = "corpus"
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"side": "model", "declares": {"example": {"order_exchangeable": "yes"}}},
    )

    side: Literal["corpus", "model"] = Field(
        default="corpus", description="What is asked: the corpus, or the model; ask the other in a second audit."
    )
    gating_tiers: Annotated[
        tuple[Tier, ...], Field(strict=False, min_length=1, max_length=4), AfterValidator(_distinct)
    ] = Field(default=("exact", "near", "semantic"), description="Tiers that may give `detected`.")
    q: Annotated[D, Between("0.001", "0.2")] = Field(default="0.05", description="False discovery rate, per benchmark.")
    siblings: Literal["auto"] | Annotated[int, Field(ge=1, le=100)] = Field(
        default="auto", description="Siblings of an item; auto: 20000 / items, 4 to 20."
    )
    seed_ngram: int = Field(default=5, ge=4, le=13, description="Tokens of the runs that find candidates.")
    near_lcs: Annotated[D, Between("0.5", "1")] = Field(
        default="0.75", description="Share of an item's tokens in one order from which a text is near."
    )
    near_overlap: Annotated[D, Between("0.5", "1")] = Field(
        default="0.5", description="Share of an item's 5-grams from which a text is near."
    )
    cosine_floor: Annotated[D, Between("0.3", "0.95")] = Field(
        default="0.5", description="Least cosine of what is compared by meaning."
    )
    template_cosine: Annotated[D, Between("0.3", "0.95")] = Field(
        default="0.8", description="Cosine from which a text with other numbers is of the same template."
    )
    windows: Annotated[Windows, AfterValidator(_distinct)] = Field(
        default=(24, 48, 96, 192), description="Lengths of embedded windows, in words."
    )
    embed: Literal["all", "sample", "off"] = Field(
        default="all", description="Which documents are embedded; off: `leak.semantic` is not asked."
    )
    sample_fraction: Annotated[D, Between("0.0001", "1")] = Field(
        default="1", description="Share of documents that `sample` embeds, by their hash."
    )
    always_embed: Annotated[Names, AfterValidator(_distinct)] = Field(
        default=(), description="Sources whose documents are embedded in any case."
    )
    coarse: Literal["fp32", "bf16"] = Field(default="fp32", description="Precision of the first embedding pass.")
    keep: int = Field(default=16, ge=4, le=64, description="Matches kept of each item.")
    plant_share: Annotated[D, Between("0", "0.2")] = Field(
        default="0.05", description="Share of items whose rewordings are planted, 40 to 400; 0: recall is unknown."
    )
    near_power: Annotated[D, Between("0", "1")] = Field(
        default="0.8", description="Lower bound of recall that silence needs, by words."
    )
    semantic_power: Annotated[D, Between("0", "1")] = Field(default="0.6", description="The same, by meaning.")
    text_field: str = Field(default="text", pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+){0,7}$", max_length=128,
                            description="Dotted path of a document's text.")  # fmt: skip
    languages: Annotated[Names, AfterValidator(_distinct), AfterValidator(_languages)] = Field(
        default=("en",),
        description="Languages that are read for meaning: en, or any; others are counted as not examined.",
    )
    max_bad_share: Annotated[D, Between("0", "0.05")] = Field(
        default="0.001", description="Share of bad records above which a shard fails."
    )
    max_items: int = Field(default=20_000, ge=1, le=200_000, description="Most items that may be asked.")
    corpus_format: Literal["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow"] = Field(
        default="jsonl", description="Form of every file of the corpus."
    )
    shard_bytes: Literal["auto"] | Annotated[int, Field(ge=2**16, le=2**32)] = Field(
        default="auto",
        description="Stored bytes of a shard, where the form can be cut; auto: what is embedded in 20 minutes, "
        "64 KiB to 256 MiB.",
    )
    evidence: Literal["none", "commit", "reveal"] = Field(
        default="commit", description="What is handed out of a match: counts only, a commitment, or its beginning."
    )
    reveal_chars: int = Field(default=300, ge=0, le=2000, description="Characters of a match that `reveal` tells.")
    tests: Annotated[tuple[Test, ...], Field(strict=False, min_length=1, max_length=4), AfterValidator(_distinct)] = (
        Field(default=("order", "options", "surprise"), description="Tests of the model side.")
    )
    alpha: Annotated[D, Between("0.0001", "0.1")] = Field(
        default="0.01", description="Level of the model side; Holm over the tests of a benchmark."
    )
    order_span: int = Field(default=16, ge=4, le=64, description="Items of one stretch of the order test.")
    shuffles: int = Field(default=31, ge=7, le=255, description="Random orders of each stretch.")
    option_orders: int = Field(default=24, ge=6, le=120, description="Orders of an item's options.")
    k_percent: int = Field(default=20, ge=1, le=50, description="Share of the lowest tokens in Min-K%++, in percent.")
    blind_max: Annotated[D, Between("0.5", "0.9")] = Field(
        default="0.6", description="AUC of text alone from which `surprise` proves nothing."
    )
    declares: Annotated[dict[str, dict[str, str]], Field(max_length=64), AfterValidator(_benchmarks)] = Field(
        default={},
        description="What the auditor vouches for, by benchmark: order_exchangeable, options_randomised "
        "(yes, no, unknown), published_on.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Contamination:
        if self.embed != "sample" and float(self.sample_fraction) != 1:
            raise ValueError("sample_fraction is for embed: sample")
        if float(self.template_cosine) < float(self.cosine_floor):
            raise ValueError(f"template_cosine {self.template_cosine} is below cosine_floor {self.cosine_floor}")
        return self

    def is_sharded(self, roles: Collection[str]) -> bool:
        """Say whether a corpus is to be read."""
        return self.side == "corpus" and self.shard_role in roles

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        """Ask for data alone on the corpus side; for log-probabilities of texts on the model side.

        Raises:
            Refusal: a role cannot be read, or the asked side lacks its role.
        """
        if self.side == "corpus":
            brought = {"plan", "sketches"} & data.keys()
            if self.shard_role in data and brought:
                raise Refusal("role_invalid", (*(f"corpus:and_{role}" for role in sorted(brought)), "give:one_of_them"))
            if len(brought) == 1:
                raise Refusal("role_invalid", (f"{min(brought)}:alone", "give:plan_and_sketches"))
            if self.shard_role not in data and not brought:
                raise Refusal("data_missing", ("role:corpus", "or:plan_and_sketches"))
            return Needs(data_roles=tuple(role.name for role in self.data_roles), training_data=True)
        from checks.contamination import model_texts

        return model_texts.needs(model_asked(self), data, model)

    def plan_shards(self, evidence: Evidence, files: Sequence[ShardFile]) -> Planned:
        """Fix probes, plants and shards before any of the corpus is read."""
        from checks.contamination.corpus_side import plan_shards

        return plan_shards(self, evidence, files)

    def scan_shard(self, planned: Planned, shard: int, files: Sequence[ShardFile], on_step: ShardStep) -> bytes:
        """Return the sketch of one shard."""
        from checks.contamination.corpus_side import scan_shard

        return scan_shard(self, planned, shard, files, on_step)

    def merge_parts(self, parts: Sequence[bytes]) -> bytes:
        """Return all sketches as one."""
        from checks.contamination.corpus_side import merge_parts

        return merge_parts(parts)

    def measure(self, evidence: Evidence) -> Measured:
        """Conclude from the sketch; under a control, tell the control's numbers.

        Raises:
            Refusal: plan or sketch cannot be read, or the corpus is empty.
        """
        from checks.contamination import model_measure

        control = getattr(evidence, "control", None)
        corpus = control is None or any(one.name == control for one in CORPUS_CONTROLS)
        if control is not None and corpus != (self.side == "corpus"):
            # A control of the other side: it finds nothing to measure, and says so.
            return model_measure.measure(model_asked(self), evidence) if not corpus else Measured()
        if self.side == "model":
            return model_measure.measure(model_asked(self), evidence)
        from checks.contamination.corpus_side import concluded

        told = concluded(self, evidence)
        return told.measured if control is None else control_numbers(told.conclusion.controls, control)

    def judge(self, real: Measured, controls: Sequence[ControlResult]) -> tuple[Finding, ...]:
        """Read the words off the numbers; a missed control makes the words that rest on it inconclusive."""
        from checks.contamination import findings, model_findings
        from checks.contamination.model_scores import inflation_finding

        missed = missed_controls(self, controls)
        if self.side == "model":
            return model_findings.findings(real, controls, missed, model_asked(self))
        gates = findings.Gates(
            gating_tiers=self.gating_tiers,
            q=float(self.q),
            near_power=float(self.near_power),
            semantic_power=float(self.semantic_power),
            embedded=self.embed != "off",
            languages=self.languages,
        )
        leaks = findings.findings(real, controls, missed, gates)
        absent = {one.item for one in real.skipped if one.reason == ROLE}
        told = {one.labels["benchmark"]: one for one in leaks if one.code == LEAK}
        scores = (
            inflation_finding(name, real.metrics, role=f"inflation:{name}" not in absent, leak=told.get(name))
            for name in real.coverage.get("benchmark", ())
        )
        return (*leaks, *scores)

    def hand_out(self, evidence: Evidence, real: Measured, findings: Sequence[Finding]) -> Mapping[str, bytes]:
        """Return the table of matches."""
        from checks.contamination.handing import matches

        return {MATCHES.name: matches(self, evidence)} if self.side == "corpus" else {}
