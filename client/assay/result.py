"""What a check answers: plain frozen values, the one vocabulary that cells, service and client share.

No tensor and no array is named here, so that a reader of reports needs neither. Numbers travel as decimal
strings (`D`), quantised to a power of ten before any verdict is formed, so that a stranger who recomputes a
verdict sees exactly the numbers that the judge saw. `protos/report/v1.md` explains every field.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,18})?")
"""The decimal grammar: no exponent, no leading zero, at most 15 digits before and 18 after the point."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
"""The name alphabet: what a cell may utter besides numbers."""

STEPS_PER_INTERVAL_MAX = 101
"""(high - low) / (2 step) stays at or under this: two digits of the half-width, no room to hide weights in digits."""

STEPS_PER_VALUE_MAX = 10**6
"""Without an interval: six significant digits."""

LEVEL_MIN = "0.8"
"""Least level of an interval: one that covers less is narrow because it claims little, and would decide all the same.
The level of a bound that is simultaneous over many instances comes near 1, so that has no upper limit but 1."""

P_LEAST = "0.000000000001"
"""No p-value is told below this (report specification, section 3: a p below its floor is reported as the floor)."""

INTEGER_MAX = 2**53 - 1
"""Largest integer that every JSON reader reads exactly."""


def canonical_decimal(text: str) -> str:
    """Return the canonical form of a decimal string: no trailing zeros, no `-0`.

    Raises:
        ValueError: the text is outside the decimal grammar.
    """
    if not DECIMAL.fullmatch(text):
        raise ValueError(f"not a decimal: {text[:40]!r}")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "0") else text


def _decimal(text: str) -> str:
    if canonical_decimal(text) != text:
        raise ValueError(f"not in canonical form: {text[:40]!r}")
    return text


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError(f"outside the name alphabet: {text[:40]!r}")
    return text


def _text(text: str) -> str:
    if len(text) > 512 or not text.isprintable():
        raise ValueError("free text must be printable and at most 512 characters")
    return text


D = Annotated[str, AfterValidator(_decimal)]
"""A number as a canonical decimal string."""

Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, AfterValidator(_text)]
Count = Annotated[int, Field(ge=0, le=INTEGER_MAX)]
Labels = dict[Name, Name]


class Value(BaseModel):
    """Base of all values: frozen, unknown fields refused, no NaN, no coercion from other types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, fit for canonical encoding."""
        return self.model_dump(mode="json")


class Interval(Value):
    """A confidence or stability interval around a metric's value."""

    low: D
    high: D
    level: D
    """Coverage level, e.g. "0.95"; 1 for a range from the least to the most that was seen."""
    method: Name
    """How it was made, e.g. "wilson", "cluster-bootstrap"."""

    @model_validator(mode="after")
    def _covers(self) -> Interval:
        if not Decimal(LEVEL_MIN) <= Decimal(self.level) <= 1:
            raise ValueError(f"an interval's level is {LEVEL_MIN} to 1, not {self.level}")
        return self


class NullDistribution(Value):
    """Where the metric lies when there is nothing to find."""

    kind: Name
    """What was drawn, e.g. "whitened-directions", "gaussian-shape-keyed"."""
    mean: D
    sd: D
    n: Count
    """Number of draws."""
    p95: D | None = None
    """The 95th percentile of the draws, where the judge uses it."""


class Multiplicity(Value):
    """Which tests were looked at together, and what was done about it."""

    family: Name
    m: Count
    corrected: Literal["none", "bonferroni", "holm", "bh"]


class Tolerance(Value):
    """How far a re-run on the same hardware may be off."""

    abs: D
    rel: D


class Metric(Value):
    """One number with its uncertainty."""

    name: Name
    labels: Labels = {}
    """Which instance, e.g. {"layer": "5"}."""
    value: D
    step: D
    """A power of ten; value and bounds are multiples of it."""
    unit: Name
    """"fraction", "nats", "bits", "count", or "1" for a pure number."""
    n: Count
    """Number of independent items behind the value."""
    interval: Interval | None = None
    """Absent where `determinism` is "exact", or where the catalogue entry does not promise one of each instance: it
    says `interval: false` then (none has one), or nothing. What has none decides nothing unless it is exact."""
    null: NullDistribution | None = None
    p: D | None = None
    """From `P_LEAST` to 1."""
    multiplicity: Multiplicity | None = None
    better: Literal["higher", "lower", "none"] = "none"
    determinism: Literal["exact", "tolerance", "statistical"]
    tolerance: Tolerance | None = None
    margin: D | None = None
    """Difference that matters, for comparisons."""
    items_sha256: str | None = None

    @model_validator(mode="after")
    def _p_is_above_its_floor(self) -> Metric:
        if self.p is not None and not Decimal(P_LEAST) <= Decimal(self.p) <= 1:
            raise ValueError(f"{self.name}: p is {P_LEAST} to 1, not {self.p}")
        return self

    @model_validator(mode="after")
    def _is_quantised(self) -> Metric:
        step = Decimal(self.step)
        if step <= 0 or step.normalize().as_tuple().digits != (1,):
            raise ValueError(f"{self.name}: step {self.step} is not a power of ten")
        bounds = (self.interval.low, self.interval.high) if self.interval else ()
        for number in (self.value, *bounds):
            if Decimal(number) % step:
                raise ValueError(f"{self.name}: {number} is not a multiple of step {self.step}")
        if self.interval:
            low, high = Decimal(self.interval.low), Decimal(self.interval.high)
            if low > high:
                raise ValueError(f"{self.name}: interval low {low} is above high {high}")
            if (high - low) / (2 * step) > STEPS_PER_INTERVAL_MAX:
                raise ValueError(f"{self.name}: step {self.step} is too fine for its interval")
        elif abs(Decimal(self.value)) / step >= STEPS_PER_VALUE_MAX:
            raise ValueError(f"{self.name}: more than six significant digits without an interval")
        return self


class Axis(Value):
    """One axis of a plot."""

    label: Text
    unit: Name


class Series(Value):
    """One line, bar group or row of a plot; `low` and `high` are the interval at each point."""

    name: Name
    x: tuple[D, ...] = Field(max_length=2000)
    y: tuple[D, ...] = Field(max_length=2000)
    low: tuple[D, ...] | None = None
    high: tuple[D, ...] | None = None

    @model_validator(mode="after")
    def _is_rectangular(self) -> Series:
        lengths = {len(part) for part in (self.x, self.y, self.low, self.high) if part is not None}
        if len(lengths) > 1:
            raise ValueError(f"series {self.name}: x, y, low, high differ in length")
        return self


class Mark(Value):
    """A dashed line across a plot."""

    axis: Literal["x", "y"]
    at: D
    label: Text


class Plot(Value):
    """Named series of numbers with units. The report draws them; a check never does."""

    title: Text
    kind: Literal["line", "bar", "scatter", "heatmap", "histogram"]
    x: Axis
    y: Axis
    series: tuple[Series, ...] = Field(max_length=64)
    """At most 12; a heatmap has one for each row, at most 64."""
    marks: tuple[Mark, ...] = ()

    @model_validator(mode="after")
    def _is_readable(self) -> Plot:
        if self.kind != "heatmap" and len(self.series) > 12:
            raise ValueError(f"a {self.kind} plot has {len(self.series)} series; at most 12 can be told apart")
        return self


class Skipped(Value):
    """Something that was owed and not measured: an answer, with its reason."""

    item: Name
    """What was left out, e.g. "layer:3" or a tensor's name."""
    reason: Name


class MetricRef(Value):
    """Points at one metric of the same answer."""

    name: Name
    labels: Labels = {}


class Measured(Value):
    """The numbers of one check."""

    coverage: dict[Name, tuple[Name, ...]] = {}
    """Every instance owed, by label key: each is in `metrics` or in the answer's `skipped`."""
    metrics: tuple[Metric, ...] = ()
    plots: tuple[Plot, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def find(self, name: str, **labels: str) -> Metric | None:
        """Return the metric of this name and exactly these labels, or None."""
        return next((m for m in self.metrics if m.name == name and m.labels == labels), None)

    def named(self, name: str) -> tuple[Metric, ...]:
        """Return every instance of a metric, in report order."""
        return tuple(m for m in self.metrics if m.name == name)


class Band(Value):
    """Where a control must land."""

    low: D
    high: D


class ControlResult(Value):
    """One number of one control, and whether it landed in its band."""

    name: Name
    kind: Literal["positive", "negative", "null"]
    metric: Name
    labels: Labels = {}
    value: D
    band: Band
    held: bool

    @model_validator(mode="after")
    def _held_follows(self) -> ControlResult:
        inside = Decimal(self.band.low) <= Decimal(self.value) <= Decimal(self.band.high)
        if inside != self.held:
            raise ValueError(f"control {self.name}: held={self.held} disagrees with value and band")
        return self


class Finding(Value):
    """A claim that numbers in the same answer support."""

    code: Name
    """Stable identifier of the claim, e.g. "structure"."""
    word: Name
    """The verdict word, from the check's catalogue entry."""
    severity: Literal["note", "concern", "breach"]
    claim: Text
    labels: Labels = {}
    rests_on: tuple[MetricRef, ...]


class Power(Value):
    """Share of planted positives that the check detects at this n."""

    metric: Name
    effect: Name
    """What was planted."""
    value: D
    low: D
    high: D
    n_planted: Annotated[int, Field(ge=1, le=INTEGER_MAX)]
    fpr: D

    @model_validator(mode="after")
    def _is_a_share(self) -> Power:
        low, value, high, fpr = (Decimal(one) for one in (self.low, self.value, self.high, self.fpr))
        if not (0 <= low <= value <= high <= 1 and 0 <= fpr <= 1):
            raise ValueError(f"power of {self.metric}: not 0 <= low <= value <= high <= 1, or no false-positive rate")
        return self


OUTCOMES = ("measured", "refused", "failed")


class Answer(Value):
    """One check's answer. A check that was asked for is always answered, never left out.

    A measured answer whose controls did not all hold is not `valid`; every reader reads it as inconclusive.
    """

    check: Name
    version: Name
    params: dict[str, Any]
    outcome: Literal["measured", "refused", "failed"]
    valid: bool = False
    reason: Name | None = None
    """Why it was refused or failed: a code from the catalogue, the ingest table or the exit classes."""
    step: Name | None = None
    """Where a failed check was: needs, sweep, measure, control, judge."""
    measured: Measured | None = None
    controls: tuple[ControlResult, ...] = ()
    findings: tuple[Finding, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    power: tuple[Power, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Answer:
        if (self.outcome == "measured") != (self.measured is not None):
            raise ValueError(f"{self.check}: outcome {self.outcome} and numbers disagree")
        if (self.outcome != "measured") != (self.reason is not None):
            raise ValueError(f"{self.check}: outcome {self.outcome} and reason disagree")
        if self.valid and (self.outcome != "measured" or not all(c.held for c in self.controls)):
            raise ValueError(f"{self.check}: valid, but not measured or a control missed its band")
        return self
