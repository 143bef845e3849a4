"""Verification: honest reports pass, and each dishonest one fails at the step that is there for it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from assay import bundle, canonical, manifest, request
from assay.catalogue import Catalogue
from assay.errors import CouldNotTell, MachineFailed, Misused, Wrong
from assay.testing import Forge, forged_entry
from assay.verify import Verification, exit_code, verify

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path, seed=3)


def look(forge: Forge, report: Path, **arguments: Any) -> Verification:
    return verify(report, **{"keys": [forge.key_file], "model_dir": forge.model_dir, **arguments})


def failing(seen: Verification) -> list[tuple[str, str]]:
    """Return the steps that failed by themselves."""
    return [
        (step.id, step.status)
        for step in seen.steps
        if step.status in ("wrong", "unknown") and not step.detail.startswith("depends on")
    ]


@pytest.mark.parametrize("checks", [1, 64])
def test_an_honest_report_is_verified(forge: Forge, checks: int) -> None:
    seen = look(forge, forge.report(checks=checks))
    assert (seen.outcome, exit_code(seen)) == ("verified", 0)
    assert [step.id for step in seen.steps] == [f"V{n:02d}" for n in range(1, 16)]
    assert [step.id for step in seen.steps if step.status == "not_asked"] == ["V05", "V13", "V14", "V15"]
    assert seen.signed_by == forge.key_id
    assert "development key" in seen.render_text()


def test_refused_and_failed_answers_are_honest(forge: Forge) -> None:
    answer = forge.answer({"layers": 2, "part": 0})
    empty: dict[str, Any] = {"valid": False, "measured": None, "controls": [], "findings": []}
    for change in (
        {"outcome": "refused", "reason": "too_few_items", "skipped": [{"item": "line:3", "reason": "bad_json"}]},
        {"outcome": "failed", "reason": "TIME_LIMIT", "step": None},
    ):
        assert look(forge, forge.report(answers=[{**answer, **empty, **change}])).outcome == "verified"


def test_a_control_that_missed_its_band_is_honest_when_not_valid(forge: Forge) -> None:
    answer = forge.answer({"layers": 2, "part": 0})
    answer["controls"][0].update(value="0.6", held=False)
    assert look(forge, forge.report(answers=[{**answer, "valid": False}])).outcome == "verified"
    assert failing(look(forge, forge.report(answers=[answer]))) == [("V12", "wrong")]


def _answer(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda s: change(s["predicate"]["answers"][0])


def _audit(field: str, value: str) -> Change:
    return lambda s: s["predicate"]["audit"].update({field: value})


def _metrics(**change: Any) -> Change:
    return _answer(lambda a: [metric.update(change) for metric in a["measured"]["metrics"]])


def _interval(**change: Any) -> Change:
    return _answer(lambda a: [metric["interval"].update(change) for metric in a["measured"]["metrics"]])


def _without_labels(answer: dict[str, Any]) -> None:
    """One instance, and nothing that says of how many."""
    answer["measured"]["metrics"].pop()
    answer["measured"]["metrics"][0]["labels"] = {}
    answer["measured"]["coverage"] = {}
    answer["findings"] = []


def power(**change: Any) -> dict[str, Any]:
    told = {"metric": "accuracy", "effect": "e", "value": "0.9", "low": "0.8", "high": "1", "n_planted": 20, "fpr": "0"}
    return {**told, **change}


FORGERIES: dict[str, tuple[str, Change]] = {
    "other_predicate_type": ("V04", lambda s: s.update(predicateType="https://assay.example/replication/v1")),
    "other_statement_type": ("V04", lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")),
    "field_missing": ("V04", lambda s: s["predicate"].pop("attempts")),
    "digest_is_upper_case": ("V04", lambda s: s["subject"][1]["digest"].update(sha256="A" * 64)),
    "version_is_no_version": ("V04", lambda s: s["predicate"].update(schema_version="1")),
    "seed_altered": ("V06", lambda s: s["predicate"]["registration"].update(seed=7)),
    "root_altered": ("V06", lambda s: s["predicate"]["registration"].update(root_sha256="0" * 64)),
    "registered_after_start": ("V06", _audit("registered_at", "2026-01-02T03:04:03Z")),
    "composed_before_end": ("V06", _audit("composed_at", "2026-01-02T03:04:29Z")),
    "composed_in_the_future": ("V06", _audit("composed_at", "2999-01-01T00:00:00Z")),
    "attempt_outside_the_run": (
        "V06",
        lambda s: s["predicate"]["attempts"][0].update(started_at="2026-01-02T03:04:01Z"),
    ),
    "params_differ": ("V07", _answer(lambda a: a["params"].update(layers=1))),
    "params_true_for_one": ("V07", _answer(lambda a: a["params"].update(part=False))),
    "data_dropped": ("V07", lambda s: s["predicate"]["data"].clear()),
    "nonce_differs": ("V07", _audit("nonce", "0" * 64)),
    "other_audit": ("V07", _audit("name", f"audits/{'0' * 32}")),
    "submitted_earlier": ("V07", _audit("submitted_at", "2025-01-02T03:04:00Z")),
    "model_file_renamed": ("V08", lambda s: s["subject"][1].update(name="other.json")),
    "subject_dropped": ("V08", lambda s: s["subject"].pop()),
    "extra_subject": ("V08", lambda s: s["subject"].append({"name": "x", "digest": {"sha256": "0" * 64}})),
    "subject_twice": ("V08", lambda s: s["subject"].append(s["subject"][1])),
    "manifest_not_first": ("V08", lambda s: s["subject"].reverse()),
    "no_subject": ("V08", lambda s: s["subject"].clear()),
    "answer_removed": ("V10", lambda s: s["predicate"]["answers"].clear()),
    "answer_added": ("V10", lambda s: s["predicate"]["answers"].append(s["predicate"]["answers"][0])),
    "failed_run_dropped": ("V10", lambda s: s["predicate"]["attempts"].pop(0)),
    "all_attempts_dropped": ("V10", lambda s: s["predicate"]["attempts"].clear()),
    "deciding_attempt_dropped": ("V10", lambda s: s["predicate"]["attempts"].pop()),
    "control_removed": ("V10", _answer(lambda a: a["controls"].pop())),
    "layer_removed_in_silence": ("V10", _answer(lambda a: a["measured"]["metrics"].pop(0))),
    "coverage_shrunk": ("V10", _answer(lambda a: a["measured"]["coverage"]["layer"].pop())),
    "coverage_missing": ("V10", _answer(lambda a: a["measured"]["coverage"].clear())),
    "finding_rests_on_absent_metric": ("V10", _answer(lambda a: a["findings"][0]["rests_on"][0].update(labels={}))),
    "code_differs_from_catalogue": ("V10", _answer(lambda a: a.update(code_sha256="0" * 64))),
    "labels_dropped": ("V10", _answer(lambda a: _without_labels(a))),
    "exact_without_interval": ("V10", _metrics(determinism="exact", interval=None)),
    "statistical_without_interval": ("V10", _metrics(interval=None)),
    "tolerance_for_statistical": ("V10", _metrics(determinism="tolerance")),
    "other_unit": ("V10", _metrics(unit="bits")),
    "other_better": ("V10", _metrics(better="lower")),
    "one_label_more": ("V10", _answer(lambda a: [m["labels"].update(set="a") for m in a["measured"]["metrics"]])),
    "metric_that_nobody_promised": (
        "V10",
        _answer(lambda a: a["measured"]["metrics"].append({**a["measured"]["metrics"][0], "name": "secret.weights"})),
    ),
    "instance_told_twice": ("V10", _answer(lambda a: a["measured"]["metrics"].append(a["measured"]["metrics"][1]))),
    "word_that_nobody_promised": ("V10", _answer(lambda a: a["findings"][0].update(word="splendid"))),
    "control_of_another_kind": ("V10", _answer(lambda a: a["controls"][1].update(kind="null", metric="nothing"))),
    "null_control_in_a_band_of_its_own": (
        "V10",
        _answer(lambda a: a["controls"][0].update(value="0.99", band={"low": "0", "high": "1"})),
    ),
    "positive_control_in_a_band_of_its_own": (
        "V10",
        _answer(lambda a: a["controls"][1].update(value="0.1", band={"low": "0", "high": "1"})),
    ),
    "tolerance_that_nobody_promised": ("V10", _metrics(tolerance={"abs": "1000", "rel": "1000"})),
    "margin_that_nobody_promised": ("V10", _metrics(margin="0.9")),
    "p_below_its_floor": ("V10", _metrics(p="0")),
    "control_that_nobody_promised": (
        "V10",
        _answer(lambda a: a["controls"].append({**a["controls"][0], "name": "Invented"})),
    ),
    "power_of_a_metric_that_nobody_promised": ("V10", _answer(lambda a: a["power"].append(power(metric="ghost")))),
    "skipped_layer_taken_off_coverage": (
        "V10",
        _answer(lambda a: a["skipped"].append({"item": "layer:9", "reason": "too_few_items"})),
    ),
    "part_of_a_layer_taken_off_coverage": (
        "V10",
        _answer(lambda a: a["measured"]["skipped"].append({"item": "layer:9:pair-7", "reason": "too_few_items"})),
    ),
    "access_that_no_check_needs": (
        "V10",
        lambda s: s["predicate"]["access"]["derived"].extend(["gradients", "training_data"]),
    ),
    "access_dropped": ("V10", lambda s: s["predicate"]["access"]["derived"].pop()),
    "interval_of_no_level": ("V12", _interval(level="0")),
    "interval_of_a_low_level": ("V12", _interval(level="0.5")),
    "interval_above_certain": ("V12", _interval(level="1.1")),
    "power_that_is_no_share": ("V12", _answer(lambda a: a["power"].append(power(value="5", low="5", high="0")))),
    "power_of_nothing_planted": ("V12", _answer(lambda a: a["power"].append(power(n_planted=0)))),
    "power_at_an_impossible_rate": ("V12", _answer(lambda a: a["power"].append(power(fpr="7")))),
    "power_outside_its_interval": ("V12", _answer(lambda a: a["power"].append(power(value="0.5")))),
    "held_flipped": ("V12", _answer(lambda a: a["controls"][0].update(held=False))),
    "control_value_outside_band": ("V12", _answer(lambda a: a["controls"][0].update(value="0.7"))),
    "valid_flipped": ("V12", _answer(lambda a: a.update(valid=False))),
    "false_precision": ("V12", _answer(lambda a: a["measured"]["metrics"][0].update(step="0.00001"))),
    "not_a_decimal": ("V12", _answer(lambda a: a["measured"]["metrics"][0].update(value="1e3"))),
    "measured_with_a_reason": ("V12", _answer(lambda a: a.update(reason="too_few_items"))),
    "unknown_outcome": ("V12", _answer(lambda a: a.update(outcome="passed"))),
    "fingerprint_of_another_finding": ("V12", _answer(lambda a: a["findings"][0].update(fingerprint="0" * 32))),
    "claim_with_control_characters": ("V12", _answer(lambda a: a["findings"][0].update(claim="ok\x1b[2K"))),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_resealed_forgery_fails_at_its_step(forge: Forge, name: str) -> None:
    step, change = FORGERIES[name]
    report = forge.report()
    statement = forge.statement(report)
    change(statement)
    seen = look(forge, forge.reseal(report, statement))
    assert failing(seen) == [(step, "wrong")]
    assert exit_code(seen) == 1
    assert f"{step} WRONG" in seen.render_text()
    assert seen.render_text().replace("\n", "").isprintable()


def test_an_answer_of_another_version_fits_neither_request_nor_catalogue(forge: Forge) -> None:
    answer = {**forge.answer({"layers": 2, "part": 0}), "version": "0.9"}
    assert failing(look(forge, forge.report(answers=[answer]))) == [("V07", "wrong"), ("V10", "wrong")]


def test_more_attempts_than_asked_for(forge: Forge) -> None:
    attempts = [forge.attempt(n, "CELL_CRASHED", result=False) for n in (1, 2, 3)] + [forge.attempt(4, "OK")]
    assert failing(look(forge, forge.report(attempts=attempts))) == [("V07", "wrong")]


def test_a_skipped_layer_with_its_reason_is_honest(forge: Forge) -> None:
    answer = forge.answer({"layers": 2, "part": 0})
    answer["measured"]["metrics"].pop(0)
    answer["skipped"] = [{"item": "layer:0", "reason": "not_finite"}]
    assert look(forge, forge.report(answers=[answer])).outcome == "verified"


def test_power_that_was_measured_is_honest(forge: Forge) -> None:
    answer = {**forge.answer({"layers": 2, "part": 0}), "power": [power()]}
    assert look(forge, forge.report(answers=[answer])).outcome == "verified"


def sharded(forge: Forge) -> list[dict[str, Any]]:
    """Return attempts of an audit in two shards, of which the second was never read."""
    forge.entry = forged_entry(
        data_roles=[
            {
                "name": "pairs",
                "required": True,
                "media_type": "application/jsonl",
                "summary": "Pairs of texts.",
                "many": True,
            }
        ],
        shard_role="pairs",
    )
    jobs = [("whole", True), ("shard:0", True), ("shard:1", False), ("combine", True)]
    return [
        {**forge.attempt(1, "OK" if done else "CELL_CRASHED", result=done), "job": job}  # one attempt at each
        for job, done in jobs
    ]


def test_a_shard_that_was_never_read_is_named_or_nothing_was_measured(forge: Forge) -> None:
    for item, expected in (("shard:1", []), ("shard:0", [("V10", "wrong")]), ("pairs", [("V10", "wrong")])):
        attempts = sharded(forge)  # in the minute of the next report
        answer = {**forge.answer({"layers": 2, "part": 0}), "skipped": [{"item": item, "reason": "CELL_CRASHED"}]}
        assert failing(look(forge, forge.report(attempts=attempts, answers=[answer]))) == expected, item


def test_a_finding_has_one_name_in_every_report(forge: Forge) -> None:
    answer = forge.answer({"layers": 2, "part": 0})
    # By hand: SHA-256 of {"check":"forged_probe","finding":"readable","labels":{"layer":"1"},"v":1}.
    answer["findings"][0]["fingerprint"] = "18b6702d5fd486c555d1beb8770fd3da"
    assert look(forge, forge.report(answers=[answer])).outcome == "verified"


def test_a_control_that_could_not_run_is_honest_when_named_and_not_valid(forge: Forge) -> None:
    answer = forge.answer({"layers": 2, "part": 0})
    answer["controls"].pop()
    answer["skipped"] = [{"item": "control:PlantedTruth", "reason": "too_few_items"}]
    assert failing(look(forge, forge.report(answers=[answer]))) == [("V12", "wrong")]
    assert look(forge, forge.report(answers=[{**answer, "valid": False}])).outcome == "verified"


@pytest.mark.parametrize("item", ["layer:0", "0", "layer:0:pair-7", "0:3:4"])
def test_ways_to_name_a_skipped_instance(forge: Forge, item: str) -> None:
    answer = forge.answer({"layers": 2, "part": 0})
    answer["measured"]["metrics"].pop(0)
    answer["measured"]["skipped"] = [{"item": item, "reason": "non_finite"}]
    assert look(forge, forge.report(answers=[answer])).outcome == "verified"
    answer["measured"]["skipped"] = [{"item": "layer:01", "reason": "non_finite"}]
    assert failing(look(forge, forge.report(answers=[answer]))) == [("V10", "wrong")]


def test_a_request_swapped_for_another(forge: Forge) -> None:
    one, two = forge.report(), forge.report(checks=2)
    shutil.copy(two / request.FILE_NAME, one / request.FILE_NAME)
    assert failing(look(forge, one)) == [("V06", "wrong")]


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"\xef\xbb\xbf{}", b'{"a":1,"a":1}', b"\xff", b"[" * 5000])
def test_signed_bytes_that_are_no_statement(forge: Forge, payload: bytes) -> None:
    assert failing(look(forge, forge.reseal(forge.report(), payload))) == [("V04", "wrong")]


@pytest.mark.parametrize("escaped", [True, False])
def test_a_key_outside_of_ascii_is_wrong_even_where_nobody_reads_it(forge: Forge, escaped: bool) -> None:
    report = forge.report()
    statement = forge.statement(report)
    statement["predicate"]["unknown"] = [{"caf\u00e9": 1}]
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=escaped).encode()
    assert failing(look(forge, forge.reseal(report, payload))) == [("V12", "wrong")]


def test_a_newer_major_version_cannot_be_told(forge: Forge) -> None:
    seen = look(forge, forge.report(schema_version="2.0"))
    assert failing(seen) == [("V04", "unknown")]
    assert exit_code(seen) == 2


def test_a_newer_minor_version_may_add_fields_and_words(forge: Forge) -> None:
    report = forge.report(schema_version="1.7", approvals=[{"by": "0" * 64}])
    statement = forge.statement(report)
    statement["predicate"]["answers"][0]["measured"]["metrics"][0]["trend"] = {"slope": "1"}
    assert look(forge, forge.reseal(report, statement)).outcome == "verified"
    statement["predicate"]["answers"][0]["findings"][0]["severity"] = "catastrophe"
    assert failing(look(forge, forge.reseal(report, statement))) == [("V12", "unknown")]


def _isolated(**changes: Any) -> dict[str, Any]:
    cell = {"backend": "bubblewrap", "network": "none", "statements": [], "stage": "check", "version": "0.8.0"}
    more = {"policy_sha256": "0" * 64, "layers": {}, "limits": [], "selfcheck_sha256": "1" * 64}
    return {**cell, **more, "output": {"bytes": 1, "cap": 2}, **changes}


def test_a_production_report_of_a_process_cell_is_never_verified(forge: Forge) -> None:
    production: dict[str, Any] = {"signer": {"profile": "production"}}
    honest = forge.report(**production, sandbox={"cells": [_isolated(stage="ingest"), _isolated()]})
    assert look(forge, honest).outcome == "verified"
    unknown = {"backend": "process_v2"}
    for change in (unknown, {"backend": "process"}, {"network": "host"}, {"statements": ["nothing_isolated"]}):
        report = forge.report(**production, sandbox={"cells": [_isolated(), _isolated(**change)]})
        assert failing(look(forge, report)) == [("V12", "wrong")]


def test_an_unknown_profile_is_never_read_as_production(forge: Forge) -> None:
    assert failing(look(forge, forge.report(signer={"profile": "staging"}))) == [("V04", "unknown")]


def test_another_key_does_not_verify(forge: Forge, tmp_path: Path) -> None:
    other = Forge(tmp_path / "other", seed=4)
    report = forge.report()
    seen = verify(report, keys=[other.key_file])
    assert failing(seen) == [("V03", "wrong")]
    assert seen.statement_sha256 is None
    assert verify(report, keys=[other.key_file, forge.key_file]).outcome == "verified"
    assert failing(verify(report)) == [("V02", "unknown")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (bundle.FILE_NAME, [("V01", "unknown")]),
        (request.FILE_NAME, [("V06", "unknown")]),
        (manifest.FILE_NAME, [("V08", "unknown")]),
    ],
)
@pytest.mark.parametrize("instead", ["absent", "directory", "pipe", "link to nowhere"])
def test_a_file_that_cannot_be_read_is_unknown_and_never_blocks(
    forge: Forge, name: str, expected: list[tuple[str, str]], instead: str
) -> None:
    report = forge.report()
    (report / name).unlink()
    if instead == "directory":
        (report / name).mkdir()
    elif instead == "pipe":
        os.mkfifo(report / name)
    elif instead == "link to nowhere":
        (report / name).symlink_to(report / "nowhere")
    assert failing(look(forge, report)) == expected


def test_a_bundle_alone_proves_the_signature_and_nothing_beside_it(forge: Forge) -> None:
    seen = look(forge, forge.report() / bundle.FILE_NAME)
    assert failing(seen) == [("V06", "unknown"), ("V08", "unknown")]
    assert seen.step("V03").status == "ok"


def test_model_files_are_compared_both_ways(forge: Forge) -> None:
    report, model = forge.report(), forge.model_dir
    assert "model files not checked (pass --model DIR)" in verify(report, keys=[forge.key_file]).not_checked
    (model / "extra.json").write_bytes(b"{}")
    assert failing(look(forge, report)) == [("V09", "wrong")]
    (model / "extra.json").unlink()
    (model / "tokenizer.json").rename(model / "tokeniser.json")
    assert failing(look(forge, report)) == [("V09", "wrong")]
    (model / "tokeniser.json").rename(model / "tokenizer.json")
    (model / "model.safetensors").write_bytes(bytes(7) + b"\x01")
    assert "model.safetensors differs" in look(forge, report).step("V09").detail
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to("/dev/zero")
    assert failing(look(forge, report)) == [("V09", "wrong")]
    assert failing(look(forge, report, model_dir=model / "nowhere")) == [("V09", "unknown")]


@pytest.mark.parametrize(
    "name",
    [
        ".gitattributes",
        ".git/HEAD",
        ".git/objects/ab/cd",
        ".cache/huggingface/download/model.safetensors.metadata",
        ".cache/huggingface/.gitignore",
        "README.md",
        "pairs.jsonl",
        "LICENSE",
        "LICENSE.md",
        "NOTICE.txt",
        "img/a.png",
    ],
)
def test_files_beside_a_model_are_listed(forge: Forge, name: str) -> None:
    report, path = forge.report(), forge.model_dir / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"x")
    seen = look(forge, report)
    assert seen.outcome == "verified"
    assert any(name in item for item in seen.not_checked)


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "modeling.py",
        "b.safetensors",
        "a/c.safetensors",
        "adapter_config.json",
        "x.jinja",
        "s",
        "a/b/c.so",
        ".cache/x.bin",
        ".cache/model.safetensors",
        ".cache/huggingface/download/model.safetensors",
        ".cache/huggingface/download/notes",
        ".git/model.safetensors",
        ".hidden.py",
        ".hidden",
        "a/.hidden",
        "a/.gitignore/x",
        "LICENSE.safetensors",
        "LICENSE/pytorch_model.bin",
        "LICENSE_weights",
        "NOTICE_modeling.py",
        "README.md.py",
    ],
)
def test_anything_else_that_was_not_audited_is_wrong(forge: Forge, name: str) -> None:
    report, path = forge.report(), forge.model_dir / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"")
    assert failing(look(forge, report)) == [("V09", "wrong")]


@pytest.mark.parametrize("name", ["README.md", ".gitattributes", ".git2", "x.bin", "LICENSE"])
def test_a_link_beside_a_model_is_wrong(forge: Forge, name: str) -> None:
    report = forge.report()
    (forge.model_dir / name).symlink_to("/etc")
    assert failing(look(forge, report)) == [("V09", "wrong")]


def test_a_weaker_catalogue_entry_than_the_shipped_one(forge: Forge) -> None:
    strict = forged_entry(controls=[*forge.entry.raw["controls"], {"name": "RandomWeights", "kind": "null"}])
    report = forge.report()
    assert failing(look(forge, report, catalogue=Catalogue((strict,), "0" * 64))) == [("V10", "wrong")]
    same = look(forge, report, catalogue=Catalogue((forge.entry,), "0" * 64))
    assert same.outcome == "verified"
    assert not any("ships no catalogue entry" in item for item in same.not_checked)
    patched = look(forge, report, catalogue=Catalogue((forged_entry(code_sha256="1" * 64),), "0" * 64))
    assert patched.outcome == "verified"
    assert any("other code" in item for item in patched.not_checked)


def test_an_absent_entry_is_taken_from_the_client_or_cannot_be_told(forge: Forge) -> None:
    report = forge.report()
    (report / "artefacts" / forge.entry.sha256).unlink()
    assert failing(look(forge, report)) == [("V10", "unknown")]
    seen = look(forge, report, catalogue=Catalogue((forge.entry,), "0" * 64))
    assert seen.outcome == "verified"
    assert any("is absent" in item for item in seen.not_checked)


def test_a_signed_artefact_that_is_no_entry(forge: Forge) -> None:
    report, junk = forge.report(), b'{"name":"forged_probe"}'
    digest = hashlib.sha256(junk).hexdigest()
    (report / "artefacts" / digest).write_bytes(junk)
    statement = forge.statement(report)
    statement["predicate"]["answers"][0]["catalogue_sha256"] = digest
    assert failing(look(forge, forge.reseal(report, statement))) == [("V10", "wrong")]


@pytest.mark.parametrize("name", ["x", "A" * 64, "\x1b[31m"])
def test_an_artefact_that_is_not_named_by_its_digest(forge: Forge, name: str) -> None:
    report = forge.report()
    (report / "artefacts" / name).write_bytes(b"{}")
    assert failing(look(forge, report)) == [("V11", "wrong")]


def test_the_moment_of_judging_can_be_given(forge: Forge) -> None:
    early = datetime(2026, 1, 2, 2, 59, tzinfo=UTC)
    assert failing(look(forge, forge.report(), now=early)) == [("V06", "wrong")]


def test_exit_codes_of_what_can_end_a_verification() -> None:
    assert exit_code(Wrong("x")) == 1
    assert exit_code(Misused("x")) == 3
    for other in (CouldNotTell("x"), MachineFailed("x"), RuntimeError("x"), MemoryError()):
        assert exit_code(other) == 2


def test_the_json_form_has_the_documented_keys(forge: Forge) -> None:
    told = look(forge, forge.report()).to_json()
    assert json.loads(json.dumps(told)) == told
    assert told["schema"] == "assay-verify/v1"
    assert {"outcome", "steps", "not_checked", "statement_sha256", "model_sha256", "audit", "signed_by", "trusted_by",
            "verdict"} <= set(told)  # fmt: skip
    assert set(told["steps"][0]) == {"step", "status", "detail"}


def test_the_same_seed_forges_the_same_bytes(tmp_path: Path) -> None:
    one, two = Forge(tmp_path / "a", seed=9).report(), Forge(tmp_path / "b", seed=9).report()
    assert (one / bundle.FILE_NAME).read_bytes() == (two / bundle.FILE_NAME).read_bytes()


def test_verification_imports_nothing_heavy(forge: Forge) -> None:
    rules = """
schema: assay-policy/v1
name: release
assertions:
  - {id: low, check: forged_probe, metric: accuracy, quantifier: every, op: "<=", value: 0.99, bound: worst}
"""
    report = forge.report(rules=rules)
    code = (
        "import sys, pathlib; from assay.verify import verify;"
        f"seen = verify(pathlib.Path({str(report)!r}), trust_root=pathlib.Path({str(forge.trust_root)!r}));"
        "assert (seen.outcome, seen.verdict) == ('verified', 'pass'), seen.render_text();"
        "bad = {'pydantic', 'grpc', 'yaml', 'typer', 'rich', 'socket'} & set(sys.modules); assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_messages_shorten_what_a_report_says(forge: Forge) -> None:
    report = forge.report()
    statement = forge.statement(report)
    statement["predicate"]["answers"][0]["check"] = "\x1b]0;pwned\x07" * 400
    seen = look(forge, forge.reseal(report, statement))
    assert failing(seen)[0] == ("V07", "wrong")
    assert all(len(step.detail) < 400 and step.detail.isprintable() for step in seen.steps)


def test_no_lower_exception_escapes(forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the disk or a library does, a verification ends in steps; a broken client is never a pass."""
    report = forge.report()

    def fail(*_: object, **__: object) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        seen = look(forge, report)
        assert failing(seen) == [("V01", "unknown")]
        assert "Permission denied" in seen.step("V01").detail
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", fail)
        assert failing(look(forge, report)) == [("V09", "unknown")]
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", fail)
        assert failing(look(forge, report)) == [("V11", "unknown")]
    with monkeypatch.context() as patched:
        patched.setattr("assay.dsse.verify", fail)
        seen = look(forge, report)
        assert failing(seen) == [("V03", "unknown")]
        assert "this client failed" in seen.step("V03").detail
    for name in ("x" * 5000, "nul\0byte"):
        seen = look(forge, tmp_path / name)
        assert failing(seen) == [("V01", "unknown")]
        assert "this client failed" not in seen.render_text()


def test_a_huge_dishonest_report_is_answered_quickly(forge: Forge) -> None:
    """Work grows with the bytes of a report, not with their square."""
    answer = forge.answer({"layers": 2, "part": 0})
    names = [str(number) for number in range(20_000)]
    answer["measured"]["coverage"]["layer"] = names
    answer["skipped"] = [{"item": f"layer:{name}:::::", "reason": "x"} for name in names]
    answer["findings"][0]["rests_on"] = [{"name": "accuracy", "labels": {"layer": "1"}}] * 20_000
    report = forge.report(answers=[answer])
    started = time.monotonic()
    assert look(forge, report).outcome == "verified"
    assert time.monotonic() - started < 20


def test_a_bundle_over_its_cap_is_wrong_and_not_read_whole(forge: Forge) -> None:
    report = forge.report()
    with (report / bundle.FILE_NAME).open("r+b") as file:
        file.truncate(1 << 33)
    assert failing(look(forge, report)) == [("V01", "wrong")]


def test_canonical_reader_is_not_needed_for_the_statement(forge: Forge) -> None:
    report = forge.report()
    spaced = json.dumps(forge.statement(report), indent=1).encode()
    assert spaced != canonical.dumps(forge.statement(report))
    assert look(forge, forge.reseal(report, spaced)).outcome == "verified"
