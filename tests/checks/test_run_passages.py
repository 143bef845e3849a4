"""A check of passages in a whole run: three models, bytes, and files handed out; what is wrong is told by its name."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from assay.result import ControlResult, Finding, Measured
from safetensors.torch import load_file, save_file

from checks import hearing
from checks.check import (
    ArtefactSpec,
    Check,
    Continuation,
    DataRole,
    Edit,
    Evidence,
    MetricSpec,
    ModelFacts,
    Needs,
    Text,
)
from checks.documents import OrderedCheck, Result, write_result
from checks.local import run_local
from checks.passages import Passage, Which
from checks.quantise import metric
from tests.checks.models import save

ORDER: tuple[Which, ...] = ("submitted", "shuffled", "base")


class Reads(Check):
    """Mean state of each model, and of an edit that must stay the submitted model's; hands out what it was told."""

    name = "reads"
    version = "1.0"
    source = "tests"
    controls = ()
    data_roles = (
        DataRole(name="sae", required=False, media_type="application/octet-stream", summary="Bytes."),
        DataRole(name="rows", required=False, media_type="application/jsonl", summary="Rows."),
    )
    metrics = tuple(
        MetricSpec(
            name=name,
            unit="1",
            labels=("model",),
            better="none",
            determinism="tolerance",
            summary="A mean.",
            tolerance=(1e-4, 0),
        )
        for name in ("state", "edited", "bytes")
    )
    artefacts = (ArtefactSpec(name="cards.json", media_type="application/json", max_bytes=8, summary="Bytes."),)
    words = ()
    reasons = ()
    heard: ClassVar[list[Mapping[str, Any]]] = []

    hands: str = "good"
    models: str = "all"
    empty: bool = False

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        self.heard.append(dict(data))
        return Needs(
            data_roles=("sae", "rows"),
            sites=("resid.1",),
            texts=(Text(id="t", text="thing1 IS red"),),
            continuations=(Continuation(id="c", after="thing1 IS red", text=" ?"),),
            replay=2,
            passages=(Passage(id="p", text="" if self.empty else "thing1 IS red ?"),),
            passage_sites=("resid.1",),
            passage_models=ORDER if self.models == "all" else ("submitted",),
            passage_tokens=40,
        )

    def measure(self, evidence: Evidence) -> Measured:
        def edited() -> float:
            edit = Edit(site="resid.1", row="t", add=np.ones(evidence.facts.width), ask=("c",))
            return float(evidence.replay([edit])[0][0])

        values = [("edited", "first", edited())]
        for which in evidence.models():
            (given,) = evidence.site("resid.1", which).states(["p"])
            values.append(("state", which, float(given.vectors.mean())))
        values.append(("edited", "last", edited()))
        if "sae" in evidence.roles():
            values.append(("bytes", "sae", float(len(evidence.blob("sae")))))
        metrics = tuple(
            metric(
                name,
                value,
                n=1,
                unit="1",
                determinism="tolerance",
                labels={"model": label},
                interval=(value - 1e-4, value + 1e-4),
                method="fixed",
                tolerance=(1e-4, 0),
            )
            for name, label, value in values
        )
        return Measured(coverage={}, metrics=metrics, plots=(), skipped=())

    def judge(self, real: Measured, controls: Sequence[ControlResult]) -> tuple[Finding, ...]:
        return ()

    def hand_out(self, evidence: Evidence, real: Measured, findings: Sequence[Finding]) -> Mapping[str, bytes]:
        if self.hands == "raises":
            raise RuntimeError("a secret path /home/x")
        return {"other.json" if self.hands == "other" else "cards.json": b"x" * (9 if self.hands == "large" else 8)}


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> Path:
    save("gpt2", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(name="base")
def _base(model: Path) -> Path:
    base = model.parent / "base"
    shutil.copytree(model, base)
    tensors = load_file(base / "model.safetensors")
    tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"] + 0.5
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    return base


def run(model: Path, *params: dict[str, Any], **more: Any) -> Result:
    ordered = [OrderedCheck(name="reads", version="1.0", params=one) for one in params or ({},)]
    return run_local(model, ordered, {"reads": Reads}, **more)


def values(result: Result, number: int = 0) -> dict[tuple[str, str], str]:
    measured = result.answers[number].measured
    assert measured is not None, result.answers[number]
    return {(one.name, one.labels["model"]): one.value for one in measured.metrics}


def test_a_base_of_another_make_refuses_only_those_who_ask_for_it(model: Path, base: Path) -> None:
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    (base / "tokenizer.json").write_text(json.dumps(tokenizer, indent=3))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"n_head": 4}))
    first, second = run(model, {}, {"models": "one"}, base=base).answers
    assert (first.outcome, first.reason) == ("refused", "base_mismatch")
    assert [one.item for one in first.skipped] == ["base:heads", "base:tokenizer.json"]
    assert second.outcome == "measured"


def test_a_base_that_is_no_model_names_its_file(model: Path, base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    del tensors["transformer.ln_f.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    (answer,) = run(model, base=base).answers
    assert (answer.reason, answer.skipped[0].item) == ("base_refused", "ln_f.weight:load_missing_key")
    (base / "model.safetensors").write_bytes(b"\0")
    result = run(model, base=base)
    assert (result.answers[0].reason, result.answers[0].skipped[0].item) == (
        "base_refused",
        "model.safetensors:st_short",
    )
    assert ("base/model.safetensors", "refused") in [(one.path, one.decision) for one in result.ingest.decisions]


def test_passages_that_cannot_run_refuse_their_check_alone(model: Path) -> None:
    first, second = run(model, {"empty": True}, {}).answers
    assert (first.reason, [one.item for one in first.skipped]) == ("passage_invalid", ["p:passage_empty"])
    assert second.outcome == "measured"


def test_three_models_answer_and_replay_stays_the_submitted_models(model: Path, base: Path) -> None:
    result = run(model, base=base)
    told = values(result)
    assert len({told["state", which] for which in ORDER}) == 3
    assert told["edited", "first"] == told["edited", "last"]
    alone = values(run(model))
    assert ("state", "base") not in alone
    assert all(told[key] == alone[key] for key in alone)
    assert result.facts is not None
    assert (result.facts.texts, result.facts.tokens) == (2, 3 + 3 * 4)


def test_bytes_come_as_they_are_and_rows_as_rows(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sae, rows = model.parent / "sae.bin", model.parent / "rows.jsonl"
    sae.write_bytes(b"\x80\x04 no json")
    rows.write_text('{"id":"a"}\n')
    Reads.heard.clear()
    told = values(run(model, data={"sae": sae, "rows": rows}))
    assert float(told["bytes", "sae"]) == 10
    assert Reads.heard == [{"rows": ({"id": "a"},), "sae": ()}]
    monkeypatch.setattr(hearing, "BLOB_CAP", 9)
    (answer,) = run(model, data={"sae": sae}).answers
    assert (answer.reason, answer.skipped[0].item) == ("data_invalid", "sae:offset:9:size_cap")


def test_files_are_handed_out_each_to_a_slot_of_its_own(model: Path) -> None:
    folder = model.parent / "out"
    result = run(model, {}, {"models": "one"}, artefacts=folder)
    digest = hashlib.sha256(b"x" * 8).hexdigest()
    assert [(one.slot, one.sha256, one.size) for one in result.artefacts] == [
        ("reads.cards.json", digest, 8),
        ("reads.2.cards.json", digest, 8),
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["reads.2.cards.json", "reads.cards.json"]
    assert Result.model_validate_json(write_result(result)) == result
    assert b"artefacts" not in write_result(run(model)), "nobody takes them: nothing is said of them"


@pytest.mark.parametrize(
    ("hands", "item", "reason"),
    [
        ("raises", "artefact:cards.json", "artefact_failed"),
        ("other", "artefact:other.json", "artefact_failed"),
        ("large", "artefact:cards.json", "artefact_too_large"),
    ],
)
def test_a_file_that_fails_is_left_out_and_the_answer_stands(hands: str, item: str, reason: str, model: Path) -> None:
    result = run(model, {"hands": hands, "models": "one"}, artefacts=model.parent / "out")
    (answer,) = result.answers
    assert answer.outcome == "measured"
    assert [(one.item, one.reason) for one in answer.skipped] == [(item, reason)]
    assert result.artefacts == ()
    assert b"secret" not in write_result(result)
