"""The page for strangers names every field, and its recipe works."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from assay import bundle, request, statement
from assay.predicate import Predicate, field_names
from assay.testing import Forge
from pydantic import ValidationError

PAGE = (Path(__file__).parents[2] / "protos" / "report" / "v1.md").read_text()


def test_every_field_of_the_schema_is_explained() -> None:
    quoted = set(re.findall(r"[A-Za-z0-9_]+", " ".join(re.findall(r"`([^`\n]+)`", PAGE))))
    names = field_names()
    assert {"metrics", "held", "tag_salt", "p95", "n_planted"} <= names
    assert not names - quoted


def test_no_field_is_explained_that_no_report_has() -> None:
    section = PAGE.split("## The predicate")[1].split("## The request")[0]
    firsts = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = set(re.findall(r"[a-z0-9_]+", " ".join(re.findall(r"`([^`]+)`", " ".join(firsts)))))
    assert len(named) > 60
    assert not named - field_names()


def test_every_field_of_the_request_is_explained() -> None:
    def names(shape: Any) -> set[str]:
        if isinstance(shape, dict):
            return set(shape).union(*(names(inner) for inner in shape.values()))
        return names(shape[0]) if isinstance(shape, list) else set()

    section = PAGE.split("## The request")[1].split("## Example")[0]
    assert not names(request.SHAPE) - set(re.findall(r"[A-Za-z0-9_]+", section))


def test_constants_on_the_page_are_ours() -> None:
    assert statement.PREDICATE_TYPE in PAGE
    assert statement.STATEMENT_TYPE in PAGE
    assert f"`{statement.SCHEMA_VERSION}`" in PAGE
    assert bundle.FILE_NAME in PAGE


def test_the_recipe_verifies_a_report_and_refuses_an_altered_one(tmp_path: Path) -> None:
    forge = Forge(tmp_path, seed=2)
    report = forge.report()
    (report / "report.pub.pem").write_bytes(forge.key_file.read_bytes())
    recipe = PAGE.split("```sh\n")[1].split("```")[0]
    done = subprocess.run(["bash", "-ec", recipe], cwd=report, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Verified OK" in done.stdout
    assert forge.manifest.digest in done.stdout
    text = (report / bundle.FILE_NAME).read_text()
    (report / bundle.FILE_NAME).write_text(text.replace('"payload":"ey', '"payload":"fy'))
    done = subprocess.run(["bash", "-ec", recipe], cwd=report, capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_the_signers_schema_forbids_unknown_fields(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    predicate = forge.statement(forge.report())["predicate"]
    Predicate.model_validate_json(json.dumps(predicate))
    predicate["audit"]["extra"] = 1
    with pytest.raises(ValidationError, match="extra"):
        Predicate.model_validate_json(json.dumps(predicate))
