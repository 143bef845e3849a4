"""Sealing: an honest audit becomes one verifiable report; what does not add up is refused with a code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from assay import bundle, canonical
from assay.catalogue import Catalogue
from assay.testing import forged_entry
from assay.tlog.registration import derive_seed
from assay.verify import verify
from sqlalchemy import delete, update
from sqlalchemy.exc import DatabaseError

from service.signer.refusal import RETRYABLE, Refused
from service.signer.rows import Rows
from service.store.tables import attempt, result
from tests.service.signer.planting import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as caught:
        call()
    assert str(caught.value).isprintable()
    assert caught.value.retryable == (caught.value.code in RETRYABLE)
    return caught.value.code


def test_the_ledger_alone_says_what_has_left_about_a_model(world: World) -> None:
    world.register()
    world.finish()
    world.execute(update(result).values(lifetime_bytes=70_000, lifetime_cap=2**20))
    told = world.forge.statement(Path(world.sealed()["directory"]))["predicate"]
    assert told["sandbox"]["lifetime_output"] == {"bytes": 70_000, "cap": 2**20}


def test_an_audit_becomes_a_report_that_verifies(world: World) -> None:
    registration = world.register()
    world.finish()
    sealed = world.sealed()
    directory = Path(sealed["directory"])
    seen = verify(
        directory,
        keys=[world.desk.public_file],
        log_vkeys=[world.desk.journal.vkey.text],
        model_dir=world.forge.model_dir,
        catalogue=world.desk.catalogue,
        now=world.now,
    )
    assert seen.outcome == "verified", seen.render_text()
    assert seen.signed_by == sealed["key_id"]
    assert seen.audit == f"audits/{world.id}"
    told = world.forge.statement(directory)["predicate"]
    assert told["registration"]["seed"] == registration["seed"]
    assert [(a["n"], a["exit_class"]) for a in told["attempts"]] == [(1, "CELL_CRASHED"), (2, "OK")]
    assert told["data"][0]["rows"] == 3  # the blank line is none, the last line without newline is one
    assert told["access"] == {"derived": ["weights", "activations"], "granted": None, "grant": None}
    assert told["parties"] == {"auditor": "t", "owner": "t", "approvals": []}
    assert told["audit"]["composed_at"] == sealed["composed_at"]
    assert {file["path"] for file in sealed["files"]} == {
        "report.sigstore.json",
        "request.json",
        "report.tlog-proof",
        "request.tlog-proof",
        "consistency.txt",
        "assay-manifest.json",
        f"artefacts/{world.forge.entry.sha256}",
    }
    for file in sealed["files"]:
        data = (directory / file["path"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["size"])


def test_sealing_again_gives_the_same_bytes(world: World) -> None:
    world.register()
    world.finish()
    first = world.sealed()
    world.now += timedelta(hours=1)
    assert world.sealed() == first
    world.set(state="COMPLETED")
    assert world.sealed() == first


def test_registering_again_gives_the_same_seed(world: World) -> None:
    first = world.ask(op="register")
    world.now += timedelta(hours=1)
    assert world.ask(op="register") == first
    registration = first["registration"]
    leaf, root = bytes.fromhex(registration["leaf_sha256"]), bytes.fromhex(registration["root_sha256"])
    assert registration["seed"] == derive_seed(leaf, root)
    assert 0 <= registration["seed"] < 2**53


def test_two_audits_never_share_a_seed(tmp_path: Path) -> None:
    seeds = {World(tmp_path / str(n)).ask(op="register")["registration"]["seed"] for n in range(3)}
    assert len(seeds) == 3


def test_nothing_is_registered_after_it_ran(world: World) -> None:
    world.set(state="RUNNING")
    assert refused(world.register) == "WRONG_STATE"


def _answers(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda record: change(record["answers"][0])


def _measures(answer: dict[str, Any]) -> list[dict[str, Any]]:
    metrics: list[dict[str, Any]] = answer["measured"]["metrics"]
    return metrics


def _measured(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return _answers(lambda answer: change(answer["measured"]))


def _metrics(**change: Any) -> Callable[[dict[str, Any]], object]:
    return _measured(lambda measured: [metric.update(change) for metric in measured["metrics"]])


def _without_labels(answer: dict[str, Any]) -> None:
    """One instance, and nothing that says of how many."""
    answer["measured"]["metrics"].pop()
    answer["measured"]["metrics"][0]["labels"] = {}
    answer["measured"]["coverage"] = {}
    answer["findings"] = []


HOSTILE: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "answer_removed": ("RECORD_REJECTED", lambda r: r["answers"].clear()),
    "answer_twice": ("RECORD_REJECTED", lambda r: r["answers"].append(r["answers"][0])),
    "other_params": ("RECORD_REJECTED", _answers(lambda a: a["params"].update(part=9))),
    "other_check": ("RECORD_REJECTED", _answers(lambda a: a.update(check="other"))),
    "held_flipped": ("RECORD_REJECTED", _answers(lambda a: a["controls"][0].update(held=False))),
    "valid_although_a_control_missed": (
        "RECORD_REJECTED",
        _answers(lambda a: a["controls"][0].update(value="0.9", held=False)),
    ),
    "control_removed": ("RECORD_REJECTED", _answers(lambda a: a["controls"].pop())),
    "labels_and_coverage_dropped": ("RECORD_REJECTED", _answers(lambda a: _without_labels(a))),
    "coverage_dropped": ("RECORD_REJECTED", _measured(lambda m: m.update(coverage={}))),
    "owed_instance_gone": ("RECORD_REJECTED", _answers(lambda a: (_measures(a).pop(), a["findings"].clear()))),
    "exact_without_interval": ("RECORD_REJECTED", _metrics(determinism="exact", interval=None)),
    "statistical_without_interval": ("RECORD_REJECTED", _metrics(interval=None)),
    "other_unit": ("RECORD_REJECTED", _metrics(unit="bits")),
    "other_better": ("RECORD_REJECTED", _metrics(better="lower")),
    "metric_that_nobody_promised": (
        "RECORD_REJECTED",
        _measured(lambda m: m["metrics"].append({**m["metrics"][0], "name": "secret.weights"})),
    ),
    "word_that_nobody_promised": ("RECORD_REJECTED", _answers(lambda a: a["findings"][0].update(word="splendid"))),
    "control_of_another_kind": (
        "RECORD_REJECTED",
        _answers(lambda a: a["controls"][0].update(kind="positive", band={"low": "-9", "high": "9"})),
    ),
    "null_control_in_a_band_of_its_own": (
        "RECORD_REJECTED",
        _answers(lambda a: a["controls"][0].update(value="0.99", band={"low": "0", "high": "1"})),
    ),
    "positive_control_in_a_band_of_its_own": (
        "RECORD_REJECTED",
        _answers(lambda a: a["controls"][1].update(value="0.1", band={"low": "0", "high": "1"})),
    ),
    "tolerance_that_nobody_promised": ("RECORD_REJECTED", _metrics(tolerance={"abs": "1000", "rel": "1000"})),
    "p_below_its_floor": ("RECORD_REJECTED", _metrics(p="0")),
    "control_that_nobody_promised": (
        "RECORD_REJECTED",
        _answers(lambda a: a["controls"].append({**a["controls"][0], "name": "Invented"})),
    ),
    "finding_rests_on_an_absent_metric": (
        "RECORD_REJECTED",
        _answers(lambda a: a["findings"][0]["rests_on"][0].update(name="ghost")),
    ),
    "skipped_layer_taken_off_coverage": (
        "RECORD_REJECTED",
        _answers(lambda a: a["skipped"].append({"item": "layer:9", "reason": "too_few_items"})),
    ),
    "interval_of_no_level": (
        "RECORD_REJECTED",
        _measured(lambda m: [one["interval"].update(level="0") for one in m["metrics"]]),
    ),
    "power_that_is_no_share": (
        "RECORD_REJECTED",
        _answers(
            lambda a: a["power"].append(
                {"metric": "accuracy", "effect": "e", "value": "5", "low": "5", "high": "0", "n_planted": 0, "fpr": "7"}
            )
        ),
    ),
    "other_code": ("CODE_DIFFERS", _answers(lambda a: a.update(code_sha256="0" * 64))),
    "other_catalogue": ("CODE_DIFFERS", _answers(lambda a: a.update(catalogue_sha256="0" * 64))),
    "unknown_field": ("RECORD_REJECTED", _answers(lambda a: a.update(note="hello"))),
    "escape_in_a_claim": ("RECORD_REJECTED", _answers(lambda a: a["findings"][0].update(claim="\x1b[2J"))),
    "false_precision": ("RECORD_REJECTED", _answers(lambda a: a["measured"]["metrics"][0].update(step="0.0000001"))),
    "measured_nowhere": ("RECORD_REJECTED", lambda r: r["sandbox"]["cells"].clear()),
    "other_audit": ("RECORD_REJECTED", lambda r: r.update(audit="0" * 32)),
    "other_token": ("RECORD_REJECTED", lambda r: r.update(token=1)),
    "other_schema": ("RECORD_REJECTED", lambda r: r.update(schema="assay-host-record/v2")),
    "schema_missing": ("RECORD_REJECTED", lambda r: r.pop("schema")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_never_signed(world: World, name: str) -> None:
    code, change = HOSTILE[name]
    record = world.record()
    change(record)
    world.register()
    world.finish(record)
    assert refused(world.sealed) == code
    # Nothing is signed, nothing is logged and nothing persisted: the audit can still be voided.
    assert not list((world.root / "signer" / "sealed").rglob("*sigstore*"))
    assert world.desk.journal.size == 1
    world.set(state="FAILED")
    assert world.ask(op="void", reason="RECORD_REJECTED") == {}


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"null", b'{"schema":1,"schema":2}', b"\xff", b'{"a":1.5}'])
def test_a_record_that_is_no_record(world: World, data: bytes) -> None:
    world.register()
    world.finish(data)
    assert refused(world.sealed) == "RECORD_REJECTED"


def test_a_dead_cell_is_reported_as_a_failed_answer(world: World) -> None:
    answer = world.forge.answer({"part": 0})
    answer.update(outcome="failed", valid=False, reason="TIME_LIMIT", measured=None, controls=[], findings=[])
    world.register()
    world.finish(world.record(answers=[answer], ingest=None))
    told = world.forge.statement(Path(world.sealed()["directory"]))["predicate"]
    assert told["answers"][0]["reason"] == "TIME_LIMIT"
    assert told["model"]["ingest"] is None


def test_a_control_that_could_not_run_makes_an_answer_that_is_not_valid(world: World) -> None:
    answer = world.forge.answer({"part": 0})
    answer["controls"].pop()
    answer.update(valid=False, skipped=[{"item": "control:PlantedTruth", "reason": "too_few_items"}])
    world.register()
    world.finish(world.record(answers=[answer]))
    assert world.sealed()["key_id"]


@pytest.mark.parametrize("what", ["request", "manifest", "weights", "data", "record"])
@pytest.mark.parametrize("how", ["altered", "absent"])
def test_evidence_that_changed_after_registering(world: World, what: str, how: str) -> None:
    world.register()
    record_sha256 = world.finish()
    weights = next(file for file in world.forge.manifest.files if file.path == "model.safetensors")
    digest = {
        "request": world.request_sha256,
        "manifest": world.forge.manifest.digest,
        "weights": weights.sha256,
        "data": world.request["data"][0]["sha256"],
        "record": record_sha256,
    }[what]
    if how == "absent":
        world.blob(digest).unlink()
    else:
        content = world.blob(digest).read_bytes()
        world.blob(digest).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert refused(world.sealed) == ("BLOB_MISSING" if how == "absent" else "BLOB_CORRUPT")


def test_unchanged_weights_are_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.register()
    world.finish()
    weights = next(file for file in world.forge.manifest.files if file.path == "model.safetensors")
    known = json.loads(world.desk.home.registered(world.id).read_bytes())["weights"]
    fresh = world.desk.evidence.weigh([weights], known)
    assert fresh[weights.sha256] == known[weights.sha256]
    # The same inode, size and ctime are believed: a record that claims them for other bytes shows it was not read.
    path = world.blob("f" * 64)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"other!!!")
    status = os.stat(path)
    claimed = {"f" * 64: [status.st_ino, status.st_size, *divmod(status.st_ctime_ns, 10**9)]}
    entry = type(weights)(path="model.safetensors", sha256="f" * 64, size=8)
    assert world.desk.evidence.weigh([entry], claimed) == claimed
    assert refused(lambda: world.desk.evidence.weigh([entry], {})) == "BLOB_CORRUPT"


def test_the_database_cannot_change_what_was_registered(world: World) -> None:
    registration = world.register()
    world.finish()
    world.set(registration_json=json.dumps({**registration, "seed": registration["seed"] + 1}))
    assert refused(world.sealed) == "REGISTRATION_DIFFERS"
    world.set(registration_json="not json")
    assert refused(world.sealed) == "REGISTRATION_DIFFERS"
    world.set(registration_json=json.dumps(registration), request_sha256=world.put(b"{}"))
    assert refused(world.sealed) == "REGISTRATION_DIFFERS"


def test_a_request_about_another_model_is_not_registered(world: World) -> None:
    world.set(model_sha256="0" * 64)
    assert refused(world.register) == "REQUEST_REJECTED"
    other = {**world.request, "audit": "0" * 32}
    world.set(model_sha256=world.forge.manifest.digest, request_sha256=world.put(canonical.dumps(other)))
    assert refused(world.register) == "REQUEST_REJECTED"
    world.set(request_sha256=world.put(json.dumps(world.request, indent=1).encode()))
    assert refused(world.register) == "REQUEST_REJECTED"


def test_states_tokens_and_names(world: World) -> None:
    assert refused(lambda: world.ask(op="seal", token=2)) == "WRONG_STATE"
    world.register()
    world.finish()
    assert refused(lambda: world.ask(op="seal", token=1)) == "STALE_TOKEN"
    assert refused(lambda: world.ask(op="seal", token=2, audit="0" * 32)) == "UNKNOWN_AUDIT"
    world.desk.home.registered(world.id).unlink()
    assert refused(world.sealed) == "NOT_REGISTERED"


def test_failed_run_dropped(world: World) -> None:
    world.register()
    world.finish()
    world.execute(delete(attempt).where(attempt.c.n == 1))
    assert refused(world.sealed) == "RECORD_REJECTED"


def test_a_result_of_another_attempt(world: World) -> None:
    world.register()
    world.finish()
    world.execute(update(attempt).where(attempt.c.n == 2).values(result_sha256="0" * 64))
    assert refused(world.sealed) == "RECORD_REJECTED"
    world.execute(delete(result))
    assert refused(world.sealed) == "WRONG_STATE"


def test_clocks_that_disagree_are_waited_for(world: World) -> None:
    world.now -= timedelta(seconds=1)
    assert refused(world.register) == "CLOCK_SKEW"
    world.now += timedelta(seconds=1)
    world.register()
    world.finish()
    world.now -= timedelta(minutes=1)
    assert refused(world.sealed) == "CLOCK_SKEW"
    world.now += timedelta(minutes=1)
    assert world.sealed()["key_id"]


def test_an_ended_audit_is_voided_once_and_never_sealed(world: World) -> None:
    assert refused(lambda: world.ask(op="void", reason="cancelled")) == "NOT_REGISTERED"
    world.register()
    assert refused(lambda: world.ask(op="void", reason="cancelled")) == "WRONG_STATE"
    world.set(state="CANCELLED")
    assert world.ask(op="void", reason="cancelled") == {}
    assert world.ask(op="void", reason="cancelled") == {}
    world.finish()
    assert refused(world.sealed) == "VOIDED"


def test_a_void_that_was_logged_before_a_kill_is_found_under_any_reason(world: World) -> None:
    world.register()
    world.set(state="FAILED")
    assert world.ask(op="void", reason="POISONED") == {}
    world.desk.home.ended(world.id).unlink()  # killed between the leaf and the note of it
    assert world.ask(op="void", reason="ATTEMPTS_EXHAUSTED") == {}
    world.desk.home.ended(world.id).unlink()
    world.set(state="CANCELLED")
    assert world.ask(op="void", reason="cancelled") == {}
    assert world.desk.journal.size == 2


def test_a_sealed_audit_cannot_be_voided(world: World) -> None:
    world.register()
    world.finish()
    world.sealed()
    world.set(state="FAILED")
    assert refused(lambda: world.ask(op="void", reason="failed")) == "ALREADY_SEALED"


def test_a_retry_after_a_catalogue_upgrade_keeps_the_old_promise(world: World) -> None:
    world.register()
    world.finish()
    first = world.sealed()
    (Path(first["directory"]) / bundle.FILE_NAME).unlink()
    upgraded = forged_entry(summary="Told better.", code_sha256="1" * 64)
    world.desk = replace(world.desk, catalogue=Catalogue((upgraded,), "0" * 64))
    assert world.sealed() == first


def test_the_database_is_opened_read_only(world: World) -> None:
    rows = Rows(world.url)
    with rows._connection() as connection:
        connection.exec_driver_sql("PRAGMA query_only=OFF")  # even then the file itself is open for reading only
        for attack in ("UPDATE audit SET state='COMPLETED'", "CREATE TABLE x (y)", "DELETE FROM audit"):
            with pytest.raises(DatabaseError, match="readonly"):
                connection.exec_driver_sql(attack)
    lost = Rows(f"sqlite:///{world.root}/nowhere.db")
    assert refused(lambda: lost.audit(world.id)) == "DATABASE_UNAVAILABLE"
    assert not (world.root / "nowhere.db").exists()
