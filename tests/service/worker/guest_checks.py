"""Checks that a rehearsal's cell asks: one of the weights alone, and one that wants states of the loaded model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from assay.result import ControlResult, Finding, Measured

from checks.check import ArtefactSpec, Check, Evidence, MetricSpec, ModelFacts, ModelKind, Needs, Refusal, Text
from checks.documents import read_order, write_result
from checks.passages import Passage
from checks.quantise import metric
from checks.run import Progress, carry_out


class Norm(Check):
    """Norm of the first tensor by name."""

    name = "norm"
    version = "1.0"
    source = "tests"
    controls = ()
    kinds: ClassVar[tuple[ModelKind, ...]] = ("transformer", "feedforward")
    metrics = (
        MetricSpec(
            name="norm", unit="1", labels=(), better="none", determinism="tolerance", summary="Norm.",
            tolerance=(1e-6, 0),
        ),
    )  # fmt: skip
    words = ("NORM",)
    reasons: ClassVar[tuple[str, ...]] = ("non_finite",)

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


class Apart(Norm):
    """How far the states of the first layer lie from those of the audit's base; the differences are handed out."""

    name = "apart"
    kinds: ClassVar[tuple[ModelKind, ...]] = ("transformer",)
    artefacts = (
        ArtefactSpec(
            name="apart.f32", media_type="application/octet-stream", max_bytes=4096, summary="Differences, float32."
        ),
    )
    reasons = ("non_finite", "no_base")

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        return Needs(
            passages=(Passage(id="a", tokens=(0, 1, 2, 3)),),
            passage_sites=("resid.0",),
            passage_models=("submitted", "base"),
            passage_tokens=64,
        )

    def measure(self, evidence: Evidence) -> Measured:
        if "base" not in evidence.models():
            raise Refusal("no_base")
        value = float(np.linalg.norm(self._apart(evidence)))
        told = metric("norm", value, n=1, unit="1", determinism="tolerance", tolerance=(1e-6, 0))
        return Measured(metrics=(told,))

    def hand_out(self, evidence: Evidence, real: Measured, findings: Sequence[Finding]) -> Mapping[str, bytes]:
        return {"apart.f32": self._apart(evidence).astype("<f4").tobytes()}

    def _apart(self, evidence: Evidence) -> np.ndarray[Any, Any]:
        ours, theirs = (
            np.concatenate([one.vectors for one in evidence.site("resid.0", which).states(["a"])])
            for which in ("submitted", "base")
        )
        difference: np.ndarray[Any, Any] = ours - theirs
        return difference


GUESTS: Mapping[str, type[Check]] = {"norm": Norm, "state": State, "apart": Apart}


def fill(slot: str, content: bytes) -> None:
    """Write a file that a check hands out to its slot, which is there already."""
    with Path("out", slot).open("r+b") as out:
        out.write(content)


def main() -> None:
    """Carry out the order as `python -m checks run` does, with these checks in place of the catalogue's."""
    order = read_order(Path("in/order.json").read_bytes())
    assert order.model.tensors is not None
    names = [*(one.input for one in (*order.model.files, *order.data)), order.model.tensors.input]
    if order.base is not None:
        assert order.base.tensors is not None
        names += [*(one.input for one in order.base.files), order.base.tensors.input]
    inputs = {name: Path("in", name) for name in names}
    result = carry_out(order, inputs, GUESTS, on_step=Progress(4), on_artefact=fill)
    with os.fdopen(3, "wb") as channel:
        channel.write(write_result(result))


if __name__ == "__main__":
    main()
