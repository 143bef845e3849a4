"""A replication through a real service: the numbers come out again, signed and logged; other inputs are refused."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from assay import bundle, canonical, dsse

from service.signer.keys import load_key
from tests.e2e.conftest import Ran, Server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def first(server: Server, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("first") / "report"
    ran = server.assay("submit", model, "--check", "clusterability", "--wait", "--report", place)
    assert ran.status == 0, ran.text + server.logs()
    assert "receipt: entry " in ran.err
    assert "The report verifies against its receipt" in ran.err
    return place


@pytest.fixture(scope="module")
def repeated(server: Server, first: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    place = tmp_path_factory.mktemp("second") / "report"
    return server.assay("replicate", first, "--out", place, "--json"), place


def test_on_the_same_cpu_every_number_comes_out_within_its_tolerance(
    server: Server, repeated: tuple[Ran, Path]
) -> None:
    ran, place = repeated
    assert ran.status == 0, ran.text + server.logs()
    told = ran.json()
    rows: list[dict[str, Any]] = told["results"]
    assert len(rows) > 20
    assert [row for row in rows if row["word"] != "agrees"] == []
    assert all(row["identical"] for row in rows), [row for row in rows if not row["identical"]]
    assert told["environment_differences"] == []
    assert (told["outcome"], told["signed"], told["verify"]["outcome"]) == ("replicated", "replicated", "verified")
    assert (place / "replication.sigstore.json").is_file()


def test_verify_judges_the_replication_again(server: Server, first: Path, repeated: tuple[Ran, Path]) -> None:
    receipt = repeated[1].with_name("report.receipt")
    ran = server.assay("verify", repeated[1], "--first", first, "--receipt", receipt, "--json")
    told = ran.json()
    steps = {step["step"]: step for step in told["steps"]}
    assert (ran.status, steps["V14"]["status"], told["replication"]) == (0, "ok", repeated[0].json()["signed"]), (
        ran.text
    )
    assert "judged again" in steps["V14"]["detail"]
    assert "the receipt is the same registration" in steps["V06"]["detail"]


def test_a_receipt_of_another_audit_is_wrong(server: Server, first: Path, repeated: tuple[Ran, Path]) -> None:
    other = first.with_name("report.receipt")
    ran = server.assay("verify", repeated[1], "--receipt", other, "--json")
    steps = {step["step"]: step["status"] for step in ran.json()["steps"]}
    assert (ran.status, steps["V06"]) == (1, "wrong")


def test_the_wrong_first_report_is_wrong(server: Server, repeated: tuple[Ran, Path]) -> None:
    ran = server.assay("verify", repeated[1], "--first", repeated[1], "--json")
    steps = {step["step"]: step["status"] for step in ran.json()["steps"]}
    assert (ran.status, steps["V14"]) == (1, "wrong")


def test_renderings_say_that_the_seed_was_fixed(server: Server, repeated: tuple[Ran, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert server.assay("render", repeated[1], "--html", page).status == 0
    assert "FIXED by the auditor" in page.read_text()


def test_another_model_is_refused_before_anything_is_sent(
    server: Server, first: Path, model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "model"
    shutil.copytree(model, other)
    config = other / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()), indent=7))
    ran = server.assay("replicate", first, "--model", other)
    assert ran.status == 3, ran.text
    assert "config.json is another" in ran.err
    assert "submitted" not in ran.err


def test_an_altered_first_report_is_not_repeated(server: Server, first: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered"
    shutil.copytree(first, altered)
    text = (altered / "report.sigstore.json").read_text()
    place = text.index('"payload":"') + 200
    (altered / "report.sigstore.json").write_text(
        text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
    )
    assert server.assay("replicate", altered).status == 1


@pytest.mark.slow
def test_numbers_that_were_changed_under_the_operators_own_key_do_not_come_out_again(
    server: Server, first: Path, tmp_path: Path
) -> None:
    """Signature and digests are good: only running it again convicts the report."""
    altered = tmp_path / "altered"
    shutil.copytree(first, altered)
    carried = bundle.read((altered / bundle.FILE_NAME).read_bytes())
    told = json.loads(carried.payload)
    metrics = told["predicate"]["answers"][0]["measured"]["metrics"]
    exact = next(one for one in metrics if one["determinism"] == "exact")
    moved = format(Decimal(exact["value"]) + Decimal(exact["step"]), "f")
    exact["value"] = moved.rstrip("0").rstrip(".") if "." in moved else moved
    payload = canonical.dumps(told)
    signature = dsse.sign(load_key(server.data / "signer" / "report.key.pem"), dsse.PAYLOAD_TYPE, payload)
    sealed = bundle.Bundle(payload=payload, signature=signature, key_id=carried.key_id)
    (altered / bundle.FILE_NAME).write_bytes(bundle.write(sealed))
    ran = server.assay("replicate", altered, "--key", server.public_key, "--out", tmp_path / "again", "--json")
    assert ran.status == 1, ran.text
    differing = [row for row in ran.json()["results"] if row["word"] == "differs"]
    assert [(row["item"], row["first"]) for row in differing] == [(exact["name"], exact["value"])]
    assert ran.json()["signed"] == "not_replicated"


def test_a_service_that_is_not_there_is_four(server: Server, first: Path) -> None:
    assert server.assay("replicate", first, "--server", "127.0.0.1:1").status == 4
