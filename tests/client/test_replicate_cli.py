"""`assay replicate`: what is not the first report's is refused before anything is sent; the code is the outcome's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from assay.api.v1 import audits_pb2
from assay.testing import Forge

from tests.client.conftest import Assay
from tests.client.fakes import Fake
from tests.client.test_verify_replication import Pair

DATA = b'{"id":"a"}\n'


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path / "pair")


@pytest.fixture
def served(fake: Fake, pair: Pair) -> Pair:
    """A service that has the model and the data, and answers with the second report."""
    forge = pair.forge
    fake.blobs.whole[forge.manifest.digest] = forge.manifest.data
    for file in forge.model_dir.iterdir():
        data = file.read_bytes()
        fake.blobs.whole[digest(data)] = data
    asked = forge.statement(pair.first)["predicate"]["data"][0]
    fake.blobs.whole[asked["sha256"]] = b"whatever it is"
    sent = audits_pb2.DataInput(role="pairs", media_type="application/jsonl", rows=1)
    sent.blob.sha256, sent.blob.size = asked["sha256"], 14
    fake.audits.data = [sent]
    fake.reports.serve(pair.second)
    return pair


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def replicate(assay: Assay, pair: Pair, *more: object) -> Any:
    return assay("replicate", pair.first, "--trust-root", pair.forge.trust_root, "--out", "again", *more)


def test_the_same_question_is_asked_under_the_same_seed(served: Pair, fake: Fake, assay: Assay) -> None:
    ran = replicate(assay, served, "--json")
    told = ran.json()
    assert (ran.code, told["outcome"], told["signed"]) == (0, "replicated", "replicated"), ran.err
    sent = fake.audits.requests[-1].audit
    first = served.forge.statement(served.first)["predicate"]
    assert (sent.seed_mode, sent.seed) == (audits_pb2.Audit.SEED_MODE_FIXED, first["registration"]["seed"])
    assert sent.first_report.sha256 == served.named["bundle_sha256"]
    assert fake.blobs.whole[sent.first_report.sha256] == (served.first / "report.sigstore.json").read_bytes()
    assert {row["word"] for row in told["results"]} == {"agrees"}


def test_every_number_has_its_word(served: Pair, assay: Assay) -> None:
    ran = replicate(assay, served)
    assert ran.code == 0
    assert "agrees      forged_probe/accuracy {layer=0}: 0.512 and 0.512 (tolerance, within_tolerance" in ran.out
    assert ran.out.rstrip().splitlines()[-1].startswith("replicated: ")


@pytest.mark.parametrize(("outcome", "code"), [("not_replicated", 1), ("cannot_tell", 2)])
def test_the_code_is_that_of_the_signed_outcome(
    served: Pair, fake: Fake, assay: Assay, outcome: str, code: int
) -> None:
    word = "differs" if code == 1 else "cannot_tell"

    def change(told: dict[str, Any]) -> None:
        told["results"][0]["word"] = word
        told["outcome"] = outcome

    served.write(served.altered(change))
    fake.reports.serve(served.second)
    # Both reports give something else: the signer's rows are wrong, and that is a no of its own.
    ran = replicate(assay, served, "--json")
    assert (ran.code, ran.json()["outcome"]) == (1, "not_verified")
    assert ran.json()["verify"]["steps"][13]["status"] == "wrong"


def test_a_service_that_signs_no_replication_cannot_tell(served: Pair, fake: Fake, assay: Assay) -> None:
    for name in ("replication.sigstore.json", "replication.tlog-proof"):
        (served.second / name).unlink()
    fake.reports.serve(served.second)
    ran = replicate(assay, served, "--json")
    assert ran.code == 2
    assert fake.audits.requests != []


def test_another_model_is_refused_by_file_before_anything_is_sent(served: Pair, fake: Fake, assay: Assay) -> None:
    (served.forge.model_dir / "tokenizer.json").write_bytes(b'{"a":1}\n')
    ran = replicate(assay, served, "--model", served.forge.model_dir)
    assert ran.code == 3
    assert fake.audits.requests == []


def test_other_data_is_refused_before_anything_is_sent(served: Pair, fake: Fake, assay: Assay, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_bytes(DATA)
    ran = replicate(assay, served, "--data", f"pairs={tmp_path / 'pairs.jsonl'}")
    assert (ran.code, "the report read" in ran.err) == (3, True)
    ran = replicate(assay, served, "--data", f"extra={tmp_path / 'pairs.jsonl'}")
    assert (ran.code, "its roles: pairs" in ran.err) == (3, True)
    assert fake.audits.requests == []


def test_what_nobody_has_is_named(pair: Pair, fake: Fake, assay: Assay) -> None:
    ran = replicate(assay, pair)
    assert ran.code == 3
    assert "--data pairs=FILE" in ran.err


def test_a_model_that_nobody_has_is_named(served: Pair, fake: Fake, assay: Assay) -> None:
    del fake.blobs.whole[served.forge.manifest.digest]
    ran = replicate(assay, served)
    assert ran.code == 3
    assert "--model DIR" in ran.err


def test_a_service_that_leaves_the_seed_out_is_not_submitted_to(served: Pair, fake: Fake, assay: Assay) -> None:
    """An older service ignores the fields that it does not know, and would run under another seed."""
    fake.audits.knows_seeds = False
    ran = replicate(assay, served)
    assert (ran.code, "cannot repeat audits" in ran.err) == (2, True)
    assert all(one.validate_only for one in fake.audits.requests)


def test_a_first_report_that_does_not_verify_is_not_repeated(
    served: Pair, fake: Fake, assay: Assay, tmp_path: Path
) -> None:
    stranger = Forge(tmp_path / "stranger", seed=8)
    ran = assay("replicate", served.first, "--trust-root", stranger.trust_root)
    assert (ran.code, fake.audits.requests) == (1, [])
    told = served.forge.statement(served.first)
    told["predicate"]["answers"][0]["controls"].pop()
    served.forge.reseal(served.first, told)
    assert replicate(assay, served).code == 1
    (served.first / "request.json").unlink()
    assert replicate(assay, served).code in (1, 2)
    assert fake.audits.requests == []


def test_an_audit_that_ends_without_a_report_cannot_tell(served: Pair, fake: Fake, assay: Assay) -> None:
    fake.audits.state = audits_pb2.Audit.STATE_FAILED
    assert replicate(assay, served, "--json").code == 2


def test_nobody_there_is_four(served: Pair, assay: Assay) -> None:
    assert replicate(assay, served, "--server", "127.0.0.1:1").code == 4
