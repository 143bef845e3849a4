"""An order is carried out as a cell would: every check answered, every refusal named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from checks.documents import OrderedCheck, Result, read_order, write_result
from checks.errors import OrderInvalid
from checks.local import run_local
from checks.run import STEPS, Progress
from sandbox.reader import strict_json
from tests.checks.models import save
from tests.checks.toy import TOYS

TEXTS = [{"id": f"t{number}", "text": f"thing{number} IS red ?"} for number in range(6)]


def data(folder: Path, rows: list[dict[str, Any]] | str) -> Path:
    path = folder / "words.jsonl"
    path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(version: str = "1.0", **params: Any) -> OrderedCheck:
    return OrderedCheck(name="toy", version=version, params=params)


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> Path:
    save("gpt2", tmp_path / "model")
    return tmp_path / "model"


def run(model: Path, rows: Any = None, *checks: OrderedCheck, **more: Any) -> Result:
    given = {"words": data(model.parent, TEXTS if rows is None else rows)}
    return run_local(model, checks or (asked(),), TOYS, **({"data": given} | more))


def test_a_run_is_answered_and_survives_the_wall(model: Path) -> None:
    told: list[tuple[str, int, int]] = []
    result = run(model, on_step=lambda *step: told.append(step))
    (answer,) = result.answers
    assert (answer.outcome, answer.valid) == ("measured", True)
    assert result.facts is not None
    assert (result.facts.architecture, result.facts.layers, result.facts.texts) == ("gpt2", 3, 6)
    document = strict_json.loads(write_result(result), cap=256 * 1024)
    assert Result.model_validate_json(json.dumps(document)) == result
    assert {step for step, _, _ in told} == set(STEPS)


def test_progress_counts_over_all_checks(model: Path) -> None:
    told: list[tuple[str, int, int]] = []
    run(model, None, asked(), asked(control_low="0.1"), on_step=lambda *step: told.append(step))
    for step in ("measuring", "controls", "judging"):
        assert [(done, owed) for name, done, owed in told if name == step] == [(0, 2), (1, 2), (1, 2), (2, 2)]


def test_two_runs_give_the_same_bytes(model: Path) -> None:
    assert write_result(run(model)) == write_result(run(model))


def test_one_bad_check_does_not_spoil_another(model: Path) -> None:
    result = run(
        model, None, asked(raises="needs"), asked(), asked(raises="measure"), asked(version="9"), asked(alpha=1)
    )
    assert [(one.outcome, one.reason, one.step) for one in result.answers] == [
        ("failed", "check_error", "needs"),
        ("measured", None, None),
        ("failed", "check_error", "measure"),
        ("refused", "check_unknown", None),
        ("refused", "params_invalid", None),
    ]
    assert [one.item for one in result.answers[4].skipped] == ["params.alpha"]
    assert "secret" not in write_result(result).decode()


@pytest.mark.parametrize(
    ("rows", "reason", "item"),
    [
        ('{"id":"a","text":"x"}\n{"id":"b",\n', "data_invalid", "words:line:2:json_invalid"),
        ('{"id":"a","id":"b","text":"x"}\n', "data_invalid", "words:line:1:json_duplicate_key"),
        ("[]\n", "data_invalid", "words:line:1:row_not_object"),
        ([], "no_texts", "role:words"),
    ],
)
def test_bad_data_refuses_the_check_and_names_the_line(model: Path, rows: Any, reason: str, item: str) -> None:
    (answer,) = run(model, rows).answers
    assert (answer.outcome, answer.reason) == ("refused", reason)
    assert [one.item for one in answer.skipped] == [item]


def test_a_missing_role_is_named(model: Path) -> None:
    (answer,) = run(model, data={}).answers
    assert (answer.outcome, answer.reason, answer.skipped[0].item) == ("refused", "data_missing", "role:words")


def test_a_config_that_asks_for_more_layers_is_refused_and_the_tensor_named(model: Path) -> None:
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"n_layer": 5}))
    result = run(model)
    (answer,) = result.answers
    assert (answer.outcome, answer.reason) == ("refused", "ingest:load_missing_key")
    refused = [one for one in result.ingest.decisions if one.decision == "refused"]
    assert refused[0].at == {"tensor": "transformer.h.3.mlp.c_fc.weight", "more": 3}
    assert result.facts is None


def test_a_model_without_a_tokenizer_is_refused_by_a_decision_that_the_host_takes(model: Path) -> None:
    """A decision's path is one of the manifest's files; one that is not there is a key."""
    (model / "tokenizer.json").unlink()
    result = run(model)
    assert result.answers[0].reason == "ingest:missing_required"
    refused = [one for one in result.ingest.decisions if one.decision == "refused"]
    assert [(one.path, one.at) for one in refused] == [(None, {"key": "tokenizer.json"})]


def test_a_directory_of_pickles_is_refused(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (answer,) = run(model).answers
    assert (answer.outcome, answer.reason) == ("refused", "ingest:missing_required")


def test_an_unknown_architecture_refuses_every_check(model: Path) -> None:
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "mamba"}))
    result = run(model, None, asked(), asked(raises="needs"))
    assert {(one.outcome, one.reason) for one in result.answers} == {("refused", "ingest:architecture_unknown")}
    assert result.answers[0].skipped[0].item == "config.json"


def test_weights_that_are_no_numbers_are_lost_texts_and_no_crash(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["transformer.wpe.weight"] = torch.full_like(tensors["transformer.wpe.weight"], float("nan"))
    save_file(tensors, model / "model.safetensors")
    (answer,) = run(model).answers
    assert answer.outcome == "failed", "a mean of nothing has no decimal; a check must refuse before"


def test_a_sweep_that_breaks_fails_the_checks_that_need_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret path /home/x")

    monkeypatch.setattr("checks.runtime.look.sweep", broken)
    result = run(model)
    assert [(one.outcome, one.reason, one.step) for one in result.answers] == [("failed", "check_error", "sweep")]
    assert "secret" not in write_result(result).decode()


def test_a_document_over_the_cap_loses_plots_first_and_then_its_largest_answer_only(model: Path) -> None:
    result = run(model, None, asked(plot=True), asked(raises="measure"))
    whole = write_result(result)
    unplotted = write_result(result, cap=len(whole) - 1)
    first = Result.model_validate_json(unplotted).answers[0]
    assert (first.outcome, first.valid, first.measured and first.measured.plots) == ("measured", True, ())
    assert [(one.item, one.reason) for one in first.skipped] == [("plots", "result_cap")]
    cut = write_result(result, cap=len(unplotted) - 1)
    assert len(cut) < len(unplotted)
    told = [(one.outcome, one.reason) for one in Result.model_validate_json(cut).answers]
    assert told == [("failed", "result_cap"), ("failed", "check_error")]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**53}, "json_number"),
        ({"nonce": "00"}, "nonce"),
        ({"checks": []}, "checks"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_bad_order_is_named(change: dict[str, Any], named: str) -> None:
    order = {
        "schema": "assay-cell-order/v1",
        "nonce": "0" * 64,
        "seed": 1,
        "model": {"manifest_sha256": "0" * 64, "files": []},
        "data": [],
        "checks": [{"name": "toy", "version": "1.0", "params": {}}],
        "threads": 1,
    }
    assert read_order(json.dumps(order).encode()).seed == 1
    with pytest.raises(OrderInvalid, match=named):
        read_order(json.dumps(order | change).encode())
    with pytest.raises(OrderInvalid, match="json_duplicate_key"):
        read_order(b'{"seed":1,"seed":2}')


def test_progress_is_lines_of_numbers_and_outlives_its_reader() -> None:
    reading, writing = os.pipe()
    progress = Progress(writing)
    progress("sweep", 3, 7)
    assert os.read(reading, 100) == b"2 3 7\n"
    os.close(reading)
    progress("judging", 1, 1)
    progress("judging", 1, 1)
    os.close(writing)


def test_the_guest_reads_its_order_and_writes_to_its_descriptors(model: Path, tmp_path: Path) -> None:
    """The real entry, in a process of its own, with the catalogue's own names: an unknown check is still answered."""
    inputs = tmp_path / "in"
    inputs.mkdir()
    files = []
    for number, path in enumerate(sorted(model.iterdir())):
        (inputs / f"model.{number}").write_bytes(path.read_bytes())
        files.append({"path": path.name, "input": f"model.{number}", "sha256": "0" * 64, "size": path.stat().st_size})
    order = {
        "schema": "assay-cell-order/v1",
        "nonce": "ab" * 32,
        "seed": 1,
        "model": {"manifest_sha256": "0" * 64, "files": files},
        "data": [],
        "checks": [{"name": "no_such_check", "version": "1.0", "params": {}}],
        "threads": 1,
    }
    (inputs / "order.json").write_text(json.dumps(order))
    root = Path(__file__).parents[2]
    command = f"exec 3>{tmp_path}/result 4>{tmp_path}/progress; exec {sys.executable} -m checks run --inputs {inputs}"
    subprocess.run(["/bin/bash", "-c", command], cwd=root, check=True, env={"PYTHONPATH": f"{root}:{root}/client"})
    result = Result.model_validate_json((tmp_path / "result").read_bytes())
    assert result.nonce == "ab" * 32
    assert [(one.outcome, one.reason) for one in result.answers] == [("refused", "check_unknown")]
    assert (tmp_path / "progress").read_text().startswith("0 0 1\n")
