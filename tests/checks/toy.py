"""A check small enough to read at a glance, for testing what asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from assay.result import Axis, ControlResult, D, Finding, Measured, MetricRef, Plot, Series, Skipped
from pydantic import Field

from checks.check import Check, DataRole, Evidence, Expected, MetricSpec, ModelFacts, Needs, PromisedBand, Refusal, Text
from checks.memory import InMemoryEvidence
from checks.quantise import metric

HIGH = 0.5
"""Upper end of the control's band; a parameter gives the lower one."""


@dataclass(frozen=True)
class Silenced:
    """States set to zero: their mean must be zero."""

    name: str = "silenced"
    kind: Literal["negative"] = "negative"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        return (PromisedBand(metric="mean", low=-10.0, high=HIGH, fixed=False, always=True),)

    def spoil(self, check: Any, seen: Evidence) -> Evidence:
        assert isinstance(seen, InMemoryEvidence)
        return seen.replacing(activations={"resid.0": np.zeros_like(seen.activations("resid.0"))})

    def bands(self, check: Toy, measured: Measured) -> Sequence[Expected]:
        found = measured.find("mean", layer="0")
        assert found is not None
        low = float(check.control_low)
        return [Expected(metric="mean", value=float(found.value), low=low, high=HIGH, labels={"layer": "0"})]


PLOT = Plot(
    title="A line",
    kind="line",
    x=Axis(label="x", unit="1"),
    y=Axis(label="y", unit="1"),
    series=(Series(name="line", x=tuple(str(n) for n in range(300)), y=tuple(str(n) for n in range(300))),),
)


class Toy(Check):
    """Mean of the states of the first layer over the texts of a data role."""

    name = "toy"
    version = "1.0"
    source = "tests"
    controls = (Silenced(),)
    data_roles = (DataRole(name="words", required=True, media_type="application/jsonl", summary="Texts."),)
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec(
            name="mean",
            unit="1",
            labels=("layer",),
            better="none",
            determinism="tolerance",
            summary="Mean state.",
            interval=True,
            tolerance=(1e-4, 0),
        ),
    )
    words = ("MEAN",)
    reasons = ("no_texts", "too_long", "non_finite")

    control_low: D = Field(default="-0.5", description="Lower edge of the control's band.")
    raises: Literal["", "needs", "measure", "judge", "word", "reason", "unit"] = ""
    plot: bool = False

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        if self.raises == "needs":
            raise RuntimeError("a secret path /home/x")
        if not data.get("words"):
            raise Refusal("no_texts", ("role:words",))
        texts = tuple(Text(id=row["id"], text=row["text"], read_at=row.get("read_at")) for row in data["words"])
        return Needs(data_roles=("words",), sites=("resid.0",), texts=texts)

    def measure(self, evidence: Evidence) -> Measured:
        if self.raises == "measure":
            raise RuntimeError("a secret path /home/x")
        if self.raises == "reason":
            raise Refusal("never_declared")
        states = evidence.activations("resid.0")
        good = np.isfinite(states).all(axis=1)
        value = float(states[good].mean())
        return Measured(
            coverage={"layer": ("0",)},
            metrics=(
                metric(
                    "mean",
                    value,
                    n=int(good.sum()),
                    unit="nats" if self.raises == "unit" else "1",
                    determinism="tolerance",
                    labels={"layer": "0"},
                    interval=(value - 0.1, value + 0.1),
                    method="fixed",
                    tolerance=(1e-4, 0),
                ),
            ),
            plots=(PLOT,) if self.plot else (),
            skipped=tuple(Skipped(item=item, reason=reason) for item, reason in evidence.lost().items()),
        )

    def judge(self, real: Measured, controls: Sequence[ControlResult]) -> tuple[Finding, ...]:
        if self.raises == "judge":
            raise RuntimeError("a secret path /home/x")
        word = "UNDECLARED" if self.raises == "word" else "MEAN"
        rests = (MetricRef(name="mean", labels={"layer": "0"}),)
        return (Finding(code="mean", word=word, severity="note", claim="A mean.", rests_on=rests),)


TOYS: Mapping[str, type[Check]] = {"toy": Toy}
