"""`--base` and byte roles on the command line: refused before a byte is sent, or sent as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from assay.testing import forged_entry

from tests.client.conftest import Assay
from tests.client.fakes import AUDIT, Fake
from tests.client.planted import write_model
from tests.client.test_data_roles import safetensors, torch_zip

SAE = {"name": "sae", "required": False, "media_type": "application/octet-stream", "summary": "Dictionary."}
CONFIG = {"name": "sae_config", "required": False, "media_type": "application/json", "summary": "Its settings."}
PAIRS = {"name": "pairs", "required": False, "media_type": "application/jsonl", "summary": "Pairs."}


@pytest.fixture(autouse=True)
def roles(fake: Fake) -> None:
    fake.checks.entry = forged_entry(data_roles=[SAE, CONFIG, PAIRS], base_model=True)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    made = write_model(tmp_path / "parent")
    (made / "config.json").write_text('{"model_type":"gpt2","n_layer":3}')
    return made


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--base", "nowhere"), "neither a model's folder nor models/"),
        (("--base", "models/abc"), "neither a model's folder"),
        (("--base", "A" * 64), "64 lower-case"),
        (("--base", "bad"), "pytorch_model.bin"),
        (("--data", "sae=pickled.npz"), "pickle_format"),
        (("--data", "sae=sae.pt"), "pickle_format"),
        (("--data", "sae=rows.jsonl"), "takes tensors as safetensors or npz"),
        (("--data", "pairs=sae.safetensors"), "takes rows"),
        (("--data", "sae_config=rows.jsonl"), "one strict JSON document"),
        (("--data", "saee=sae.safetensors"), "did you mean sae?"),
        (("--data", "sae-config=cfg.json"), "did you mean sae_config?"),
    ],
)
def test_what_cannot_be_held_against_is_3_and_sends_nothing(
    assay: Assay, fake: Fake, model: Path, tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    bad = write_model(tmp_path / "bad")
    (bad / "model.safetensors").rename(bad / "pytorch_model.bin")
    (tmp_path / "pickled.npz").write_bytes(torch_zip())
    (tmp_path / "sae.pt").write_bytes(torch_zip())
    (tmp_path / "rows.jsonl").write_text('{"a":1}\n{"a":2}\n')
    (tmp_path / "sae.safetensors").write_bytes(safetensors())
    (tmp_path / "cfg.json").write_text("{}")
    ran = assay("submit", model, "--check", "forged_probe", *arguments)
    assert ran.code == 3, ran
    assert named in ran.err
    assert not fake.audits.requests
    assert not fake.blobs.asked


def test_bytes_of_a_role_arrive_as_they_are(assay: Assay, fake: Fake, model: Path, tmp_path: Path) -> None:
    (tmp_path / "sae.safetensors").write_bytes(safetensors())
    (tmp_path / "cfg.json").write_bytes(b'{\n "k": 0.5\n}')
    ran = assay(
        "submit", model, "--check", "forged_probe", "--data", "sae=sae.safetensors", "--data", "sae_config=cfg.json"
    )
    assert ran.code == 0, ran
    sae, config = fake.audits.requests[-1].audit.data
    assert (sae.media_type, sae.rows, fake.blobs.whole[sae.blob.sha256]) == (SAE["media_type"], 0, safetensors())
    assert (config.media_type, config.rows) == (CONFIG["media_type"], 0)
    assert fake.blobs.whole[config.blob.sha256] == b'{\n "k": 0.5\n}'


def test_a_base_folder_is_uploaded_beside_the_model(assay: Assay, fake: Fake, model: Path, parent: Path) -> None:
    (parent / "notes.txt").write_text("mine")
    ran = assay("submit", model, "--check", "forged_probe", "--base", parent, "--json")
    assert ran.code == 0, ran
    sent = fake.audits.requests[-1].audit
    assert sent.base_model.removeprefix("models/") in fake.blobs.whole
    assert (parent / "config.json").read_bytes() in fake.blobs.whole.values()
    assert sent.base_model != sent.model
    told = ran.json()
    assert (told["audit"], told["base_model"], told["left_out"]) == (AUDIT, sent.base_model, ["notes.txt"])


def test_a_base_that_the_service_has_is_named_by_its_digest(assay: Assay, fake: Fake, model: Path) -> None:
    for text in ("ab" * 32, f"models/{'ab' * 32}"):
        assert assay("submit", model, "--check", "forged_probe", "--base", text).code == 0
        assert fake.audits.requests[-1].audit.base_model == f"models/{'ab' * 32}"


def test_without_a_base_none_is_named(assay: Assay, fake: Fake, model: Path) -> None:
    ran = assay("submit", model, "--check", "forged_probe", "--json")
    assert fake.audits.requests[-1].audit.base_model == ""
    assert "base_model" not in ran.json()


def test_the_services_own_refusal_of_a_base_is_3_and_sends_nothing(
    assay: Assay, fake: Fake, model: Path, parent: Path
) -> None:
    fake.audits.refusal = ("INVALID_ARGUMENT", "BAD_BASE", "audit.base_model: no asked check can hold it.")
    ran = assay("submit", model, "--check", "forged_probe", "--base", parent)
    assert (ran.code, "no asked check can hold it" in ran.err) == (3, True)
    assert not fake.blobs.whole
