"""V14: a replication that is not about these two reports, not logged so, or of another outcome is wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from assay import bundle, canonical, dsse
from assay.bundle import Bundle
from assay.compare import signed
from assay.compare.replicate import replicate
from assay.compare.sides import load
from assay.compare.signed import FirstReport
from assay.testing import Forge, forged_entry
from assay.tlog import entries, proofs
from assay.tlog.entries import Entry
from assay.verify import Verification, verify

Change = Callable[[dict[str, Any]], object]
TOLERANCE = {"abs": "0.001", "rel": "0"}


class Pair:
    """A report and its honest replication, signed and logged as a signer does it."""

    def __init__(self, folder: Path) -> None:
        self.forge = Forge(folder, seed=3)
        metrics = [{**one, "tolerance": TOLERANCE} for one in self.forge.entry.raw["metrics"]]
        self.forge.entry = forged_entry(metrics=metrics)
        self.first = self.forge.report(answers=[self.answer()])
        told = self.forge.statement(self.first)["predicate"]
        data = (self.first / bundle.FILE_NAME).read_bytes()
        self.named = {
            "statement_sha256": hashlib.sha256(bundle.read(data).payload).hexdigest(),
            "bundle_sha256": hashlib.sha256(data).hexdigest(),
        }
        ask = {"seed_mode": "fixed", "seed": told["registration"]["seed"], "first": self.named}
        self.second = self.forge.report(ask=ask, answers=[self.answer()])
        sides = [load(one, verify(one, trust_root=self.forge.trust_root)) for one in (self.first, self.second)]
        told_first = FirstReport(**self.named, key_id=self.forge.key_id, own_key=True)
        self.statement = signed.judged(replicate(*sides), told_first)
        self.write(self.statement)

    def answer(self) -> dict[str, Any]:
        made = self.forge.answer({"layers": 2, "part": 0})
        for metric in made["measured"]["metrics"]:
            metric["tolerance"] = TOLERANCE
        return made

    def write(self, told: dict[str, Any], kind: str = "replication", **entry: Any) -> None:
        payload = canonical.dumps(told)
        signature = dsse.sign(self.forge._private, dsse.PAYLOAD_TYPE, payload)
        sealed = Bundle(payload=payload, signature=signature, key_id=self.forge.key_id)
        (self.second / bundle.REPLICATION_FILE_NAME).write_bytes(bundle.write(sealed))
        report = proofs.read_proof((self.second / proofs.REPORT_PROOF).read_bytes())
        leaf = entries.parse(report.entry)
        fields = {
            "at": leaf.at,
            "commit": hashlib.sha256(dsse.pae(dsse.PAYLOAD_TYPE, payload)).hexdigest(),
            "tag": leaf.tag,
            "key": leaf.key,
            "prev": leaf.prev,
        } | entry
        _, proof = self.forge.logged.log.append(Entry(kind=kind, **fields))
        (self.second / proofs.REPLICATION_PROOF).write_bytes(proof)

    def seen(self, **more: Any) -> Verification:
        return verify(self.second, trust_root=self.forge.trust_root, catalogue=None, **more)

    def altered(self, change: Change) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(canonical.dumps(self.statement))
        change(told["predicate"])
        return told


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def v14(pair: Pair, **more: Any) -> tuple[str, str]:
    step = pair.seen(**more).step("V14")
    return step.status, step.detail


def test_an_honest_replication_is_ok_and_judged_again(pair: Pair) -> None:
    seen = pair.seen(first=pair.first)
    assert (seen.outcome, seen.replication) == ("verified", "replicated"), seen.render_text()
    assert seen.to_json()["replication"] == "replicated"
    assert "judged again" in seen.step("V14").detail
    bare = pair.seen()
    assert bare.outcome == "verified"
    assert any("--first" in item for item in bare.not_checked)


ALTERED: dict[str, tuple[Change, str]] = {
    "another first": (lambda told: told["first"].update(statement_sha256="0" * 64), "first/statement_sha256"),
    "another bundle": (lambda told: told["first"].update(bundle_sha256="0" * 64), "first/bundle_sha256"),
    "another second": (lambda told: told["second"].update(statement_sha256="0" * 64), "second/statement_sha256"),
    "another audit": (lambda told: told["second"].update(audit="audits/" + "0" * 32), "second/audit"),
    "another model": (lambda told: told["second"].update(model_sha256="0" * 64), "second/model_sha256"),
    "flipped outcome": (lambda told: told.update(outcome="not_replicated"), "outcome"),
    "no outcome": (lambda told: told.pop("outcome"), "outcome"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_a_replication_that_is_not_of_these_reports_is_wrong(pair: Pair, what: str) -> None:
    change, words = ALTERED[what]
    pair.write(pair.altered(change))
    status, detail = v14(pair)
    assert (status, words in detail) == ("wrong", True), detail


def test_rows_that_both_reports_do_not_give_are_wrong_where_the_first_is_at_hand(pair: Pair) -> None:
    pair.write(pair.altered(lambda told: told["results"][0].update(first="0.999")))
    assert v14(pair)[0] == "ok"
    status, detail = v14(pair, first=pair.first)
    assert (status, "/predicate/results/0" in detail) == ("wrong", True)


def test_another_first_report_than_the_one_at_hand_is_wrong(pair: Pair) -> None:
    status, detail = v14(pair, first=pair.second)
    assert (status, "not the one given by --first" in detail) == ("wrong", True)


def test_a_replication_signed_by_a_stranger_is_wrong(pair: Pair, tmp_path: Path) -> None:
    stranger = Forge(tmp_path / "stranger", seed=9)
    signature = dsse.sign(stranger._private, dsse.PAYLOAD_TYPE, canonical.dumps(pair.statement))
    sealed = Bundle(payload=canonical.dumps(pair.statement), signature=signature, key_id=pair.forge.key_id)
    (pair.second / bundle.REPLICATION_FILE_NAME).write_bytes(bundle.write(sealed))
    status, detail = v14(pair)
    assert (status, "no trusted key" in detail) == ("wrong", True)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"kind": "report"}, "kind"),
        ({"prev": 0}, "prev"),
        ({"commit": "0" * 64}, "commit"),
        ({"tag": "0" * 64}, "model"),
    ],
)
def test_a_leaf_that_says_something_else_is_wrong(pair: Pair, entry: dict[str, Any], words: str) -> None:
    pair.write(pair.statement, **entry)
    status, detail = v14(pair)
    assert (status, words in detail) == ("wrong", True), detail


def test_an_absent_proof_leaves_the_replication_open(pair: Pair) -> None:
    (pair.second / proofs.REPLICATION_PROOF).unlink()
    seen = pair.seen()
    assert (seen.outcome, seen.step("V14").status) == ("unknown", "unknown")


def test_a_replication_beside_a_report_that_repeats_nothing_is_wrong(pair: Pair) -> None:
    for name in (bundle.REPLICATION_FILE_NAME, proofs.REPLICATION_PROOF):
        (pair.first / name).write_bytes((pair.second / name).read_bytes())
    step = verify(pair.first, trust_root=pair.forge.trust_root).step("V14")
    assert (step.status, "names no first report" in step.detail) == ("wrong", True)


def test_a_replication_that_was_taken_away_is_missed(pair: Pair) -> None:
    (pair.second / bundle.REPLICATION_FILE_NAME).unlink()
    seen = pair.seen()
    assert seen.outcome == "verified"
    assert any("no signed replication lies beside it" in item for item in seen.not_checked)


def test_a_replication_presented_as_report_is_wrong_at_its_type(pair: Pair) -> None:
    (pair.second / bundle.FILE_NAME).write_bytes((pair.second / bundle.REPLICATION_FILE_NAME).read_bytes())
    seen = pair.seen()
    assert (seen.outcome, seen.step("V04").status) == ("wrong", "wrong")


def test_items_of_the_second_report_that_are_absent_accuse_nobody(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judged again without them the replication would differ from the signed one; that is no lie of its signer."""

    def owed(told: Any) -> dict[str, int]:
        return {"ab" * 32: 1} if told["registration"]["seed_mode"] == "fixed" else {}

    monkeypatch.setattr(signed, "items_of", owed)
    status, detail = v14(pair, first=pair.first)
    assert (status, "this report lacks artefact abababababababab" in detail) == ("unknown", True), detail
