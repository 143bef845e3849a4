"""A declared MLP or CNN is audited like any model: asked what it can be asked, refused by name what it cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from assay.result import ControlResult, Finding, Measured
from safetensors.torch import load_file, save_file

from checks.check import Check, Evidence, MetricSpec, ModelFacts, Needs, Refusal, VectorTrial
from checks.documents import OrderedCheck, Result, write_result
from checks.local import run_local
from checks.quantise import metric
from checks.run import STEPS
from checks.truth_probe.check import TruthProbe
from tests.checks.feedforward_models import NETS, mlp, save
from tests.checks.models import save as save_transformer
from tests.checks.toy import Toy


class Norms(Check):
    """Norm of every weighted layer's tensor; with `trials` it also wants one input scored."""

    name = "norms"
    version = "1.0"
    source = "tests"
    controls = ()
    kinds = ("feedforward",)
    metrics = (
        MetricSpec(
            name="norm",
            unit="1",
            labels=("layer",),
            better="none",
            determinism="tolerance",
            summary="Frobenius norm.",
            tolerance=(1e-6, 0),
        ),
    )
    words = ("NORM",)
    reasons = ("non_finite",)

    trials: bool = False

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        assert model.feedforward is not None
        found = model.feedforward
        asked = (VectorTrial(id="a", group="g", values=(0.0,) * int(np.prod(found.input)), label=0),)
        return Needs(weights=self._names(model), trials=asked if self.trials else ())

    def measure(self, evidence: Evidence) -> Measured:
        found = {}
        for name in self._names(evidence.facts):
            wrong = np.argwhere(~np.isfinite(evidence.weights(name)))
            if len(wrong):
                raise Refusal("non_finite", (f"{name}:{'.'.join(map(str, wrong[0]))}",))
            found[name] = float(np.linalg.norm(evidence.weights(name)))
        told = (
            metric("norm", value, n=1, unit="1", determinism="tolerance", labels={"layer": name}, tolerance=(1e-6, 0))
            for name, value in found.items()
        )
        return Measured(coverage={"layer": tuple(found)}, metrics=tuple(told), plots=(), skipped=())

    def judge(self, real: Measured, controls: Sequence[ControlResult]) -> tuple[Finding, ...]:
        return ()

    def _names(self, model: ModelFacts) -> tuple[str, ...]:
        assert model.feedforward is not None
        layers = model.feedforward.layers
        return tuple(layers[index].weight or "" for index in model.feedforward.weighted)


CHECKS: Mapping[str, type[Check]] = {"norms": Norms, "toy": Toy, "truth_probe": TruthProbe}


def asked(name: Literal["norms", "toy", "truth_probe"] = "norms", **params: Any) -> OrderedCheck:
    return OrderedCheck(name=name, version=CHECKS[name].version, params=params)


def run(model: Path, *checks: OrderedCheck, **more: Any) -> Result:
    return run_local(model, checks or (asked(),), CHECKS, **more)


@pytest.mark.parametrize(("name", "parameters", "dtype"), [("mlp", 428, "float64"), ("cnn", 431, "float32")])
def test_a_declared_model_is_answered_and_survives_the_wall(
    name: str, parameters: int, dtype: str, tmp_path: Path
) -> None:
    net = save(name, tmp_path)
    steps: list[str] = []
    result = run(tmp_path, on_step=lambda step, *_: steps.append(step))
    (answer,) = result.answers
    assert (answer.outcome, answer.valid) == ("measured", True)
    assert answer.measured is not None
    for found in answer.measured.metrics:
        weights = net.get_parameter(found.labels["layer"])
        assert float(found.value) == pytest.approx(float(torch.linalg.norm(weights.detach())), rel=1e-4)
    facts = result.facts
    assert facts is not None
    assert (facts.architecture, facts.layers, facts.width) == ("feedforward", 3, 0)
    assert (facts.parameters, facts.texts, facts.tokens, facts.dtype) == (parameters, 0, 0, dtype)
    assert Result.model_validate_json(write_result(result)) == result
    assert [step for step in STEPS if step in steps] == ["starting", "measuring", "controls", "judging"]


def test_a_check_of_transformers_is_refused_by_kind_and_the_rest_is_answered(tmp_path: Path) -> None:
    save("mlp", tmp_path)
    result = run(tmp_path, asked("truth_probe"), asked(), asked("toy", raises="needs"))
    told = [(one.outcome, one.reason, [part.item for part in one.skipped]) for one in result.answers]
    assert told == [
        ("refused", "model_kind", ["kind:feedforward"]),
        ("measured", None, []),
        ("refused", "model_kind", ["kind:feedforward"]),
    ]


def test_a_check_of_declared_layers_is_refused_on_a_transformer(tmp_path: Path) -> None:
    save_transformer("gpt2", tmp_path)
    (answer,) = run(tmp_path).answers
    assert (answer.outcome, answer.reason, answer.skipped[0].item) == ("refused", "model_kind", "kind:transformer")


def test_a_weight_that_is_no_number_is_named_by_tensor_and_index(tmp_path: Path) -> None:
    save("mlp", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["3.weight"][2, 5] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    (answer,) = run(tmp_path).answers
    assert (answer.outcome, answer.reason, answer.skipped[0].item) == ("refused", "non_finite", "3.weight:2.5")


def declare(model: Path, **changes: Any) -> None:
    path = model / "architecture.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_wrong_declaration_refuses_every_check_and_names_the_layers(tmp_path: Path) -> None:
    save("mlp", tmp_path)
    layers = json.loads((tmp_path / "architecture.json").read_text())["layers"]
    layers[2] = {"op": "mish"}
    layers[3]["groups"] = 2
    declare(tmp_path, layers=layers)
    result = run(tmp_path, asked(), asked("truth_probe"))
    assert {(one.outcome, one.reason) for one in result.answers} == {("refused", "ingest:architecture_unknown")}
    wrong = [(one.path, one.reason, one.at) for one in result.ingest.decisions if one.decision == "refused"]
    assert wrong == [
        ("architecture.json", "architecture_unknown", {"key": "layers.2.op"}),
        ("architecture.json", "config_key_unknown", {"key": "layers.3.groups"}),
    ]
    assert result.facts is None


def test_the_count_of_a_batch_norms_batches_is_told_as_unnamed(tmp_path: Path) -> None:
    """What torch saves and no computation reads must be left out by whoever saves, not by whoever reads."""
    save("mlp", tmp_path)
    save_file(mlp().state_dict(), tmp_path / "model.safetensors")
    result = run(tmp_path)
    wrong = [(one.reason, one.at) for one in result.ingest.decisions if one.decision == "refused"]
    assert wrong == [("load_unexpected_key", {"tensor": "1.num_batches_tracked"})]


def test_trials_that_break_fail_only_the_check_that_asked_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret path /home/x")

    save("mlp", tmp_path)
    monkeypatch.setattr("checks.run.look", broken)
    result = run(tmp_path, asked(trials=True), asked())
    assert [(one.outcome, one.step) for one in result.answers] == [("failed", "sweep"), ("measured", None)]
    assert "secret" not in write_result(result).decode()


def test_trials_run_in_the_sweep_and_are_no_texts(tmp_path: Path) -> None:
    save("cnn", tmp_path)
    steps: list[str] = []
    result = run(tmp_path, asked(trials=True), on_step=lambda step, *_: steps.append(step))
    assert result.answers[0].outcome == "measured"
    assert [step for step in STEPS if step in steps] == list(STEPS)
    assert result.facts is not None
    assert (result.facts.texts, result.facts.tokens) == (0, 0)


@pytest.mark.parametrize("name", NETS)
def test_two_runs_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    assert write_result(run(tmp_path)) == write_result(run(tmp_path))
