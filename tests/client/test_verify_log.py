"""Log, registration and trust root in verification: each way to cheat fails at the step that is there for it."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from assay import bundle, dsse, request
from assay.errors import Misused, Wrong
from assay.testing import Forge
from assay.tlog import proofs
from assay.tlog.entries import Entry, parse
from assay.tlog.leaves import LogKey, verify_leaf
from assay.tlog.registration import Files, Registration, verify_registration
from assay.tlog.tree import leaf_hash
from assay.verify import Verification, exit_code, verify

from tests.client.conftest import Assay
from tests.client.test_verify import failing

NOW = datetime(2026, 3, 1, tzinfo=UTC)
AT = "2026-01-02T03:04:31Z"
"""When the first report of a forge is logged."""


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path, seed=5)


def look(forge: Forge, report: Path, **arguments: Any) -> Verification:
    told = {"trust_root": forge.trust_root, "model_dir": forge.model_dir, "now": NOW, **arguments}
    return verify(report, **told)


def wrong(seen: Verification, step: str) -> str:
    assert failing(seen) == [(step, "wrong")], seen.render_text()
    assert exit_code(seen) == 1
    return seen.step(step).detail


def test_an_honest_report_is_proven_to_be_in_the_log(forge: Forge, tmp_path: Path) -> None:
    report = forge.report()
    forge.report()
    for more in ({}, {"log_dir": forge.log_dir}, {"log_dir": forge.log_dir, "state_dir": tmp_path / "state"}):
        seen = look(forge, report, **more)
        assert seen.outcome == "verified", seen.render_text()
        asked = {"V05", "V06"} | ({"V15"} if more else set())
        assert {step.id for step in seen.steps if step.status == "ok"} >= asked
        assert seen.trusted_by == "trust root 1 of forge-5.assay.example"
    pinned = {"trust_root": None, "keys": [forge.key_file], "log_vkeys": [forge.logged.log.vkey.text]}
    assert look(forge, report, **pinned).step("V06").status == "ok"


def test_with_a_report_key_alone_the_log_is_listed_as_not_checked(forge: Forge) -> None:
    report = forge.report()
    (report / proofs.REPORT_PROOF).unlink()
    seen = look(forge, report, trust_root=None, keys=[forge.key_file])
    assert seen.outcome == "verified"
    assert seen.step("V05").status == "not_asked"
    assert any("no log key given" in item for item in seen.not_checked)


@pytest.mark.parametrize("name", [proofs.REPORT_PROOF, proofs.REQUEST_PROOF, proofs.CONSISTENCY])
def test_an_absent_proof_cannot_be_told(forge: Forge, name: str) -> None:
    report = forge.report()
    (report / name).unlink()
    seen = look(forge, report)
    assert exit_code(seen) == 2
    assert failing(seen) == [("V05" if name == proofs.REPORT_PROOF else "V06", "unknown")]


def test_the_swapped_proof_of_another_report(forge: Forge) -> None:
    one, two = forge.report(), forge.report()
    shutil.copy(two / proofs.REPORT_PROOF, one / proofs.REPORT_PROOF)
    assert "commit" in wrong(look(forge, one), "V05")


def test_the_swapped_registration_of_another_report(forge: Forge) -> None:
    one, two = forge.report(), forge.report()
    shutil.copy(two / proofs.REQUEST_PROOF, one / proofs.REQUEST_PROOF)
    assert "commit" in wrong(look(forge, one), "V06")


def test_a_request_logged_after_the_report(forge: Forge) -> None:
    """Both leaves are in the log and name each other, but in the wrong order."""
    report = forge.report()
    log, told = forge.logged.log, forge.statement(report)
    asked = parse(log.entries[0])
    told["predicate"]["registration"]["request_index"] = 1
    forge.reseal(report, told)
    payload = bundle.read((report / bundle.FILE_NAME).read_bytes()).payload
    commit = hashlib.sha256(dsse.pae(dsse.PAYLOAD_TYPE, payload)).hexdigest()
    log.cut(0)
    log.append(Entry(kind="report", at=asked.at, commit=commit, tag=asked.tag, key=forge.key_id, prev=1))
    log.append(asked)
    (report / proofs.REPORT_PROOF).write_bytes(log.prove(0))
    (report / proofs.REQUEST_PROOF).write_bytes(log.prove(1))
    (report / proofs.CONSISTENCY).write_bytes(log.prove_since(2))
    claimed = {"tree_size": 2, "leaf_sha256": leaf_hash(asked.data).hex()}
    assert wrong(look(forge, report), "V06")
    # Said so in the statement, it fails for the order alone.
    seen = check_order(forge, report, claimed)
    assert "not before the report" in seen


def check_order(forge: Forge, report: Path, claimed: dict[str, Any]) -> str:
    """Return what the rule says when the claims fit the late leaf; a statement cannot hold the root over itself."""
    log = forge.logged.log
    keys = [LogKey(vkey=log.vkey)]
    entry = parse(log.entries[0])
    leaf = verify_leaf(log.prove(0), "report", entry.commit, keys, now=NOW)
    read = {**forge.statement(report)["predicate"]["registration"], **claimed, "root_sha256": leaf.root.hex()}
    files = Files(request=(report / request.FILE_NAME).read_bytes(), request_proof=log.prove(1), consistency=b"")
    with pytest.raises(Wrong) as caught:
        verify_registration(
            files, Registration.read(read), leaf, keys, manifest_sha256="0" * 64, started_at=AT, ended_at=AT, now=NOW
        )
    return str(caught.value)


REGISTRATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "seed_altered": ("V06", {"seed": 7}),
    "root_altered": ("V06", {"root_sha256": "0" * 64}),
    "leaf_altered": ("V06", {"leaf_sha256": "0" * 64}),
    "size_altered": ("V06", {"tree_size": 2}),
    "other_salt": ("V06", {"tag_salt": "0" * 64}),
    "other_log": ("V06", {"log_origin": "other.assay.example"}),
    "other_place": ("V05", {"request_index": 3}),
    "seed_fixed_although_derived": ("V06", {"seed_mode": "fixed"}),
}


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_a_registration_altered_and_signed_and_logged_honestly(forge: Forge, name: str) -> None:
    step, change = REGISTRATIONS[name]
    report = forge.report()
    told = forge.statement(report)
    told["predicate"]["registration"].update(change)
    wrong(look(forge, forge.reseal(report, told)), step)


def test_registered_at_is_the_logged_time(forge: Forge) -> None:
    report = forge.report()
    told = forge.statement(report)
    told["predicate"]["audit"]["registered_at"] = "2026-01-02T03:04:02Z"
    assert "logged at" in wrong(look(forge, forge.reseal(report, told)), "V06")


def test_a_forked_log_has_two_roots_of_one_size(forge: Forge, tmp_path: Path) -> None:
    report = forge.report()
    state = tmp_path / "state"
    assert look(forge, report, log_dir=forge.log_dir, state_dir=state).outcome == "verified"
    log = forge.logged.log
    log.cut(1)
    log.append(Entry(kind="void", at=AT, commit=parse(log.entries[0]).commit, tag="0" * 64, prev=0, reason="failed"))
    detail = wrong(look(forge, report, log_dir=forge.log_dir), "V15")
    assert "two roots" in detail
    assert "two roots" in wrong(look(forge, report, log_dir=forge.log_dir, state_dir=state), "V15")


def test_a_restored_older_log(forge: Forge, tmp_path: Path) -> None:
    report = forge.report()
    older = shutil.copytree(forge.log_dir, tmp_path / "older")
    forge.report()
    state = tmp_path / "state"
    assert look(forge, report, log_dir=older).outcome == "verified"
    assert look(forge, report, log_dir=forge.log_dir, state_dir=state).outcome == "verified"
    assert "went back" in wrong(look(forge, report, log_dir=older, state_dir=state), "V15")


@pytest.mark.parametrize("kind", ["withdrawal", "report", "void"])
def test_what_came_after_a_report_in_the_log(forge: Forge, kind: str) -> None:
    report = forge.report()
    log = forge.logged.log
    asked, told = (parse(data) for data in log.entries)
    common: dict[str, Any] = {"kind": kind, "at": AT, "tag": asked.tag}
    log.append(
        {
            "withdrawal": lambda: Entry(**common, commit=told.commit, prev=1, reason="wrong_data"),
            "report": lambda: Entry(**common, commit="0" * 64, prev=0, key=forge.key_id),
            "void": lambda: Entry(**common, commit=asked.commit, prev=0, reason="failed"),
        }[kind]()
    )
    assert look(forge, report).outcome == "verified"  # nobody looked: listed as not checked
    wrong(look(forge, report, log_dir=forge.log_dir), "V15")


def test_a_log_that_is_not_there_cannot_be_told(forge: Forge, tmp_path: Path) -> None:
    report = forge.report()
    assert failing(look(forge, report, log_dir=tmp_path / "gone")) == [("V15", "unknown")]
    keys_alone = look(forge, report, log_dir=forge.log_dir, trust_root=None, keys=[forge.key_file])
    assert failing(keys_alone) == [("V15", "unknown")]


def _root(forge: Forge, folder: Path, version: int = 1, signers: tuple[int, ...] = (0, 1), **key: Any) -> Path:
    return forge.logged.write_root(folder, forge.logged.root(version, **key), signers)


@pytest.mark.parametrize(
    ("revoked_at", "good"), [("2026-01-02T03:04:31Z", False), ("2026-01-02T03:04:32Z", True), (AT, False)]
)
def test_a_key_revoked_before_and_after_the_report_was_logged(
    forge: Forge, tmp_path: Path, revoked_at: str, good: bool
) -> None:
    report = forge.report()
    root = _root(forge, tmp_path / "r", revoked_at=revoked_at, revoked_reason="stolen")
    seen = look(forge, report, trust_root=root)
    if good:
        assert seen.outcome == "verified", seen.render_text()
    else:
        assert "revoked" in wrong(seen, "V05")


def test_a_key_outside_its_time(forge: Forge, tmp_path: Path) -> None:
    report = forge.report()
    assert wrong(look(forge, report, trust_root=_root(forge, tmp_path / "a", valid_from="2026-01-03T00:00:00Z")), "V05")
    assert wrong(look(forge, report, trust_root=_root(forge, tmp_path / "b", valid_until=AT)), "V05")


def test_root_rollback(forge: Forge, tmp_path: Path) -> None:
    report, state = forge.report(), tmp_path / "state"
    folder = forge.trust_root.parent
    assert look(forge, report, state_dir=state).outcome == "verified"
    second = _root(forge, folder, 2)
    assert "trust root 2 of" in str(look(forge, report, state_dir=state).trusted_by)
    second.unlink()
    assert "rollback" in wrong(look(forge, report, state_dir=state), "V02")
    assert look(forge, report).outcome == "verified"  # who remembers nothing cannot see it


def test_a_root_signed_twice_by_one_key(forge: Forge, tmp_path: Path) -> None:
    report = forge.report()
    root = _root(forge, tmp_path / "r", signers=(0, 0))
    assert "1 good signatures" in wrong(look(forge, report, trust_root=root), "V02")


def test_an_expired_root_cannot_be_told_unless_now_lies_within(forge: Forge) -> None:
    report = forge.report()
    late = look(forge, report, now=datetime(2028, 6, 1, tzinfo=UTC))
    assert failing(late) == [("V02", "unknown")]
    assert exit_code(late) == 2


def test_a_root_without_a_log_is_no_pass(forge: Forge, tmp_path: Path) -> None:
    report = forge.report()
    root = forge.logged.write_root(tmp_path / "r", forge.logged.root() | {"logs": []})
    assert look(forge, report, trust_root=root).step("V05").status == "unknown"
    assert exit_code(look(forge, report, trust_root=root)) == 2


def test_the_receipt_must_be_the_same_registration(forge: Forge, tmp_path: Path) -> None:
    one, two = forge.report(), forge.report(checks=2)
    for number, report in enumerate((one, two)):
        (tmp_path / f"receipt{number}").mkdir()
        for name in (request.FILE_NAME, proofs.REQUEST_PROOF):
            shutil.copy(report / name, tmp_path / f"receipt{number}" / name)
    assert look(forge, one, receipt=tmp_path / "receipt0").outcome == "verified"
    assert "receipt" in wrong(look(forge, one, receipt=tmp_path / "receipt1"), "V06")
    keys_alone = look(forge, one, receipt=tmp_path / "receipt0", trust_root=None, keys=[forge.key_file])
    assert failing(keys_alone) == [("V06", "unknown")]
    with pytest.raises(Misused, match="receipt"):
        look(forge, one, receipt=tmp_path / "gone")


def test_a_fixed_seed_is_the_requests_own(forge: Forge) -> None:
    report = forge.report(ask={"seed_mode": "fixed", "seed": 41})
    assert look(forge, report).outcome == "verified"
    told = forge.statement(report)
    told["predicate"]["registration"]["seed"] = 42
    wrong(look(forge, forge.reseal(report, told)), "V06")


def test_both_kinds_of_trust_at_once_are_refused(forge: Forge) -> None:
    with pytest.raises(Misused, match="not both"):
        look(forge, forge.report(), keys=[forge.key_file])


def test_the_command_takes_roots_logs_and_moments(assay: Assay, forge: Forge, fake: Any) -> None:
    report = forge.report()
    root = ("--trust-root", forge.trust_root, "--now", "2026-03-01T00:00:00Z")
    steps = {step["step"]: step["status"] for step in assay("verify", report, *root, "--json").json()["steps"]}
    assert (steps["V02"], steps["V05"], steps["V06"]) == ("ok", "ok", "ok")
    vkey = forge.logged.log.vkey.text
    pinned = assay("verify", report, "--key", forge.key_file, "--log-vkey", vkey, "--json").json()
    assert {step["step"]: step["status"] for step in pinned["steps"]}["V05"] == "ok"
    assert assay("verify", report, "--log-vkey", vkey).code == 3
    assert assay("verify", report, "--trust-root", forge.trust_root, "--key", forge.key_file).code == 3
    assert assay("verify", report, "--key", forge.key_file, "--log-vkey", "junk").code == 3
    assert assay("verify", report, *root[:2], "--now", "tomorrow").code == 3
    config = json.loads(fake.config.read_text())
    fake.config.write_text(json.dumps({**config, "trust_root": str(forge.trust_root)}))
    assert "trust_root of the client configuration" in assay("verify", report, *root[2:]).out
