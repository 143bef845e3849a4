"""Checks that a rehearsal's cell asks: one of the weights alone, and one that wants states of the loaded model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from assay.result import ControlResult, Finding, Measured

from checks.check import Check, Evidence, MetricSpec, ModelFacts, ModelKind, Needs, Text
from checks.documents import read_order, write_result
from checks.quantise import metric
from checks.run import Progress, carry_out


class Norm(Check):
    """Norm of the first tensor by name."""

    name = "norm"
    version = "1.0"
    source = "tests"
    controls = ()
    kinds: ClassVar[tuple[ModelKind, ...]] = ("transformer", "feedforward")
    metrics = (MetricSpec(name="norm", unit="1", labels=(), better="none", determinism="tolerance", summary="Norm."),)
    words = ("NORM",)
    reasons = ("non_finite",)

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        return Needs(weights=(min(model.tensors),))

    def measure(self, evidence: Evidence) -> Measured:
        value = float(np.linalg.norm(evidence.weights(min(evidence.facts.tensors))))
        told = metric("norm", value, n=1, unit="1", determinism="tolerance", tolerance=(1e-6, 0))
        return Measured(metrics=(told,))

    def judge(self, real: Measured, controls: Sequence[ControlResult]) -> tuple[Finding, ...]:
        return ()


class State(Norm):
    """Norm of the state of the first layer over one text."""

    name = "state"
    kinds: ClassVar[tuple[ModelKind, ...]] = ("transformer",)

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        return Needs(sites=("resid.0",), texts=(Text(id="a", text="thing1 IS red ?"),))

    def measure(self, evidence: Evidence) -> Measured:
        value = float(np.linalg.norm(evidence.activations("resid.0")))
        told = metric("norm", value, n=1, unit="1", determinism="tolerance", tolerance=(1e-6, 0))
        return Measured(metrics=(told,))


GUESTS: Mapping[str, type[Check]] = {"norm": Norm, "state": State}


def main() -> None:
    """Carry out the order as `python -m checks run` does, with these checks in place of the catalogue's."""
    order = read_order(Path("in/order.json").read_bytes())
    assert order.model.tensors is not None
    names = [*(one.input for one in (*order.model.files, *order.data)), order.model.tensors.input]
    result = carry_out(order, {name: Path("in", name) for name in names}, GUESTS, on_step=Progress(4))
    with os.fdopen(3, "wb") as channel:
        channel.write(write_result(result))


if __name__ == "__main__":
    main()
