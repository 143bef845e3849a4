"""What docs/guide/feedforward.md shows works: its code writes models that are read, and compute what torch computes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checks.runtime.architectures import architectures_json
from checks.runtime.facts import model_facts_of
from checks.runtime.feedforward_pass import outputs
from checks.runtime.weights import read_weights
from sandbox.reader.feedforward import OPS, read_feedforward
from sandbox.reader.model import read_model
from sandbox.reader.safetensors import TensorEntry
from tests.checks.models import files_of

GUIDE = (Path(__file__).parents[2] / "docs/guide/feedforward.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture(name="shown")
def _shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the guide's code defines, run in order in an empty folder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    exec(compile("\n".join(blocks("python")), "feedforward.md", "exec"), found)
    return found


@pytest.mark.parametrize(("name", "folder", "units"), [("mlp", "my-mlp", 32), ("cnn", "my-cnn", 16)])
def test_the_examples_are_read_and_compute_what_torch_computes(
    name: str, folder: str, units: int, shown: dict[str, Any]
) -> None:
    files = files_of(Path(folder).absolute())
    reading = read_model(files, architectures_json())
    assert not reading.refused, reading.decisions
    facts = model_facts_of(reading.config, reading.tensors)
    assert facts.feedforward is not None
    assert facts.feedforward.units(0) == units
    assert [head.name for head in facts.feedforward.heads] == (["left", "right"] if name == "mlp" else ["out"])
    rows = np.random.default_rng(0).normal(size=(5, *facts.feedforward.input))
    weights = read_weights(sorted(facts.tensors), reading.tensors, files, facts.transposed)
    with torch.no_grad():
        truth = shown[name].eval()(torch.tensor(rows, dtype=torch.float32)).numpy()
    assert outputs(facts.feedforward, weights, rows) == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize(
    "module",
    [
        torch.nn.Conv2d(4, 4, 3, groups=2), torch.nn.Conv2d(4, 4, 3, dilation=2),
        torch.nn.Conv2d(4, 4, 3, stride=(1, 2)),
        torch.nn.Conv2d(4, 4, 3, padding="same"), torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        torch.nn.BatchNorm2d(4, affine=False), torch.nn.BatchNorm1d(4, track_running_stats=False),
        torch.nn.LayerNorm((4, 4)), torch.nn.LayerNorm(4, elementwise_affine=False), torch.nn.LayerNorm(4, bias=False),
        torch.nn.MaxPool2d(2, padding=1), torch.nn.MaxPool2d(2, ceil_mode=True), torch.nn.MaxPool2d((2, 3)),
        torch.nn.AvgPool2d(2, ceil_mode=True), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Softmax(dim=1),
        torch.nn.Flatten(0), torch.nn.Sigmoid(),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_declared_stops_the_guides_code(module: torch.nn.Module, shown: dict[str, Any]) -> None:
    """Else the audit would be of another model than the one that was saved."""
    with pytest.raises(ValueError, match=r"layer 3 .* cannot be declared"):
        shown["layer_of"]("3", module)


def test_the_document_that_is_shown_is_read() -> None:
    (text,) = blocks("json")
    sizes: dict[str, tuple[int, ...]] = {"0.weight": (8, 64), "0.bias": (8,), "2.weight": (20, 8), "2.bias": (20,)}
    table = [
        TensorEntry(name=name, file="model.safetensors", dtype="F32", shape=shape, begin=0, end=0)
        for name, shape in sizes.items()
    ]
    assert read_feedforward(json.loads(text), table).problems == ()


def test_every_op_and_field_is_told() -> None:
    rows = [line.split("|")[1:3] for line in GUIDE.splitlines() if line.startswith("| `")]
    for op, fields in OPS.items():
        (row,) = [told for ops, told in rows if f"`{op}`" in ops]
        assert set(re.findall(r"`([a-z]+)`", row)) == set(fields), op
        for field, rule in fields.items():
            assert rule.required is not (f"`{field}`?" in row), (op, field)
