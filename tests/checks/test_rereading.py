"""A model that another cell passed on is read again, and any difference refuses it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checks.documents import Order, OrderedCheck, OrderedFile, OrderedInput, OrderedModel, Result, canonical
from checks.run import carry_out
from checks.runtime.architectures import architectures_json
from sandbox.ingest import ingest
from tests.checks.feedforward_models import save as save_net
from tests.checks.models import files_of, save
from tests.service.worker.guest_checks import GUESTS


def passed_on(model: Path, folder: Path) -> tuple[OrderedModel, dict[str, Path]]:
    """Return a model as an ingest cell passes it on, and the inputs."""
    files = files_of(model)
    refused, decisions, _more, slots = ingest(files, architectures_json())
    assert not refused, decisions
    folder.mkdir()
    inputs = {"weights.safetensors": files["model.safetensors"]}
    for name, content in slots.items():
        inputs[name] = folder / name
        inputs[name].write_bytes(content)
    paths = {"model.safetensors": "weights.safetensors"}
    paths |= {name: name for name in slots if name not in ("tensors.json", "config.json")}
    paths["config.json" if "config.json" in files else "architecture.json"] = "config.json"
    listed = tuple(OrderedFile(path=path, **named(inputs, name)) for path, name in paths.items())
    table = OrderedInput(**named(inputs, "tensors.json"))
    return OrderedModel(manifest_sha256="0" * 64, files=listed, tensors=table), inputs


def named(inputs: dict[str, Path], name: str) -> dict[str, Any]:
    data = inputs[name].read_bytes()
    return {"input": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def ask(model: OrderedModel, inputs: dict[str, Path]) -> Result:
    checks = (OrderedCheck(name="norm", version="1.0"),)
    order = Order(schema="assay-cell-order/v1", nonce="0" * 64, seed=0, model=model, checks=checks)
    return carry_out(order, inputs, GUESTS)


@pytest.fixture(name="given", params=["gpt2", "mlp"])
def _given(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[OrderedModel, dict[str, Path]]:
    (save_net if request.param == "mlp" else save)(request.param, tmp_path / "model")
    return passed_on(tmp_path / "model", tmp_path / "passed")


Given = tuple[OrderedModel, dict[str, Path]]


def test_what_was_passed_on_is_measured_and_nothing_is_decided_twice(given: Given) -> None:
    """The negative control of the next test."""
    result = ask(*given)
    assert [one.outcome for one in result.answers] == ["measured"]
    assert result.ingest.decisions == ()


def swap(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Path]], None]:
    def swapped(inputs: dict[str, Path]) -> None:
        inputs[name].write_bytes(canonical(change(json.loads(inputs[name].read_bytes()))))

    return swapped


@pytest.mark.parametrize(
    "change",
    [
        swap("tensors.json", lambda rows: rows[:-1]),
        swap("tensors.json", lambda rows: rows[::-1]),
        swap("tensors.json", lambda rows: [rows[0] | {"end": rows[0]["end"] + 1}, *rows[1:]]),
        swap("tensors.json", lambda rows: [rows[0] | {"dtype": "I32"}, *rows[1:]]),
        swap("config.json", lambda config: config | {"auto_map": {}}),
        swap("config.json", lambda config: config | {"other": 1}),
        lambda inputs: inputs["config.json"].write_bytes(inputs["config.json"].read_bytes() + b"\n"),
        lambda inputs: inputs["config.json"].write_bytes(b""),
        lambda inputs: inputs["tensors.json"].unlink(),
    ],
)
def test_any_difference_refuses_every_check(given: Given, change: Callable[[dict[str, Path]], Any]) -> None:
    model, inputs = given
    change(inputs)
    result = ask(model, inputs)
    assert [(one.outcome, one.reason) for one in result.answers] == [("refused", "ingest:ingest_disagrees")]
    (decision,) = result.ingest.decisions
    assert (decision.decision, decision.reason) == ("refused", "ingest_disagrees")
    assert decision.path in {None, *(file.path for file in model.files)}
