"""Small nets as model directories: what is written is what was trained, and the reader takes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from checks.check import ModelFacts, VectorTrial
from checks.clusterability.lesion_rows import lesion_rows
from checks.clusterability.network import network_partition
from checks.clusterability.scores import adjusted_rand
from checks.feedforward import FeedForward
from checks.organisms import cnn, declared, nets, small_nets
from checks.organisms.__main__ import main
from checks.organisms.enmeshment import Map, block_maps, share
from checks.runtime.facts import model_facts_of
from checks.runtime.feedforward import FeedForwardLesions
from checks.runtime.feedforward_pass import outputs
from checks.runtime.weights import read_weights
from sandbox.reader import jsonl
from sandbox.reader.model import read_model

NETS = ("d1", "d2", "d3", "e1", "e2")


def model_of(folder: Path) -> tuple[ModelFacts, FeedForward, dict[str, np.ndarray]]:
    """Read a model directory as an audit does."""
    files = {path.name: path for path in (folder / "model").iterdir()}
    reading = read_model(files, {"architectures": {}})
    assert not reading.refused
    facts = model_facts_of(reading.config, reading.tensors)
    assert facts.feedforward is not None
    return facts, facts.feedforward, read_weights(sorted(facts.tensors), reading.tensors, files, frozenset())


def trials_of(folder: Path) -> list[VectorTrial]:
    rows = [row for _, row in jsonl.rows(folder / "lesion.jsonl")]
    trials = lesion_rows(rows, model_of(folder)[0]).trials
    return [trial for trial in trials if isinstance(trial, VectorTrial)]


def accuracies(folder: Path) -> dict[str, float]:
    """Return each task's accuracy as the runtime scores the written rows."""
    _, model, tensors = model_of(folder)
    trials = trials_of(folder)
    here = FeedForwardLesions(model, tensors, trials, [f"layer.{index}" for index in model.hidden], 1)
    assert dict(here.lost) == {}
    right = here([{}]).correct[0]
    tasks = dict.fromkeys(trial.group for trial in trials)
    return {task: float(np.mean(right[[trial.group == task for trial in trials]])) for task in tasks}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("declared")
    for name in (*NETS, "cnn"):
        assert main([name, "--out", str(folder / name)]) == 0
    return folder


def test_a_folder_that_holds_something_else_is_left_alone(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["d1", "--out", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert main(["d1", "--out", str(made / "d1")]) == 0  # the same organism again is no conflict


@pytest.mark.parametrize("name", [*NETS, "cnn"])
def test_every_directory_is_what_an_audit_takes(made: Path, name: str) -> None:
    folder = made / name
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} >= {
        "model/architecture.json", "model/model.safetensors", "lesion.jsonl", "params.json", "README.md",
    }  # fmt: skip
    trials = trials_of(folder)
    assert len(trials) >= 500
    assert set(json.loads((folder / "params.json").read_text())) <= {"k"}
    assert name.upper() in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", NETS)
def test_a_written_net_scores_as_the_net_it_was_written_from(made: Path, name: str) -> None:
    net, found = small_nets.load(name).net, accuracies(made / name)
    if name in ("d1", "d2"):
        assert tuple(found.values()) == nets.accuracy(net, small_nets.held_out_pairs())
    else:
        case = nets.class_tasks(net, small_nets.held_out())
        wanted = case.rows.by_task(case.scored()([np.zeros(0, dtype=np.int64)]).correct)[0]
        assert list(found.values()) == pytest.approx(wanted.tolist(), abs=1e-12)
        assert list(found) == [f"digit{label}" for label in range(10)]


@pytest.mark.parametrize("name", ["d1", "e1", "e2"])
def test_the_written_truth_is_of_the_written_weights(made: Path, name: str) -> None:
    truth = [np.array(layer) for layer in json.loads((made / name / "truth.json").read_text())]
    _, _, tensors = model_of(made / name)
    matrices = [values for key, values in sorted(tensors.items()) if key.endswith("weight")]
    each = [share(w, Map(rows, columns)) for w, rows, columns in zip(matrices, truth[1:], truth[:-1], strict=True)]
    chosen = {"d1": (0, 1, 2), "e1": (1, 2), "e2": (0, 1, 2, 3)}[name]
    assert min(each[index] for index in chosen) >= 0.998
    found = network_partition(matrices, 2 if name == "d1" else 4, seed=0)
    assert adjusted_rand(found.hidden, np.concatenate(truth[1:-1])) == 1.0


def test_the_cnn_answers_as_torch_does_and_reads_digits(made: Path) -> None:
    _, model, tensors = model_of(made / "cnn")
    net = cnn.network()
    net.load_state_dict({key: torch.from_numpy(values) for key, values in cnn.load().items()}, strict=False)
    inputs = small_nets.held_out().inputs
    with torch.no_grad():
        wanted = net.eval().double()(torch.from_numpy(inputs).reshape(-1, 1, 8, 8)).numpy()
    assert outputs(model, tensors, inputs) == pytest.approx(wanted, rel=1e-5, abs=1e-4)
    assert min(accuracies(made / "cnn").values()) >= 0.9
    assert np.mean(list(accuracies(made / "cnn").values())) >= 0.97
    assert [layer.op for layer in model.layers].count("conv2d") == 2
    assert min(tensors[model.layers[4].weight or ""].shape[:2]) >= 16
    assert any(layer.op == "batchnorm" for layer in model.layers)


def test_the_committed_cnn_is_of_the_network_that_the_code_trains() -> None:
    shapes = {name: tuple(value.shape) for name, value in cnn.network().state_dict().items() if value.ndim}
    assert {name: values.shape for name, values in cnn.load().items()} == shapes
    assert (small_nets.DATA / "cnn.safetensors").stat().st_size <= 100_000


@pytest.mark.slow
def test_a_cnn_trained_anew_reads_digits_as_well(tmp_path: Path) -> None:
    again = cnn.train(nets.digits(small_nets.SPLIT_SEED).train, cnn.SEED)
    folder = tmp_path / "cnn"
    declared.write(declared.of_cnn(again), folder)
    assert np.mean(list(accuracies(folder).values())) >= 0.96


@pytest.mark.parametrize("wrong", [["--k", "1"], ["--k", "11"], ["--lam", "-1"], ["--lam", "nan"], ["--seed", "-1"]])
def test_enmeshment_out_of_range_is_refused(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["enmeshed", "--out", str(tmp_path / "e"), *wrong]) == 2
    assert wrong[0] in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_structure_is_trained_in_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "e"
    asked = ["--matrices", "hidden", "--k", "2", "--seed", "1", "--lam", "20", "--steps", "300"]
    assert main(["enmeshed", "--out", str(folder), *asked]) == 0
    said = capsys.readouterr().err
    _, _, tensors = model_of(folder)
    maps = block_maps((64, 64, 64, 64, 10), 2, np.random.default_rng(small_nets.MAPS_SEED))
    c = np.mean([share(tensors[f"layers.{2 * index}.weight"], maps[index]) for index in (1, 2)])
    assert c >= 0.99
    assert f"C {c:.4f}" in said
    accuracy = accuracies(folder)
    assert np.mean(list(accuracy.values())) >= 0.9
    assert "accuracy 0.9" in said
    assert json.loads((folder / "params.json").read_text()) == {"k": [2]}
