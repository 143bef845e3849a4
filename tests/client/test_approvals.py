"""`assay approvals sign`: what an owner signs is whole, and nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from assay import approval
from assay.cli.run import run
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

KEY = ec.derive_private_key(21, ec.SECP256R1())
MISUSED = 3


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "owner.key.pem"
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def sign(key: Path, *more: str, **changes: str) -> tuple[int, Path]:
    out = key.with_name("out.json")
    options = {
        "model": "a" * 64,
        "grantee": "bolt",
        "check": "truth_probe",
        "max-runs": "3",
        "not-after": "2030-01-01T00:00:00Z",
        "key": str(key),
        "out": str(out),
        **{name.replace("_", "-"): text for name, text in changes.items()},
    }
    return run(
        ["approvals", "sign", *more, *(part for name, text in options.items() for part in (f"--{name}", text))]
    ), out


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model": "abc"}, "--model"),
        ({"check": "no_such_check"}, "no_such_check"),
        ({"check": "truth_probe@12"}, "params"),
        ({"not_after": "tomorrow"}, "--not-after"),
        ({"output_cap": "65537"}, "--output-cap"),
        ({"access": "everything"}, "--access"),
        ({"data": "12"}, "--data"),
        ({"grantee": ""}, "--grantee"),
    ],
)
def test_wrong_option_is_named_and_nothing_is_written(
    key: Path, changes: dict[str, str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = sign(key, **changes)
    assert code == MISUSED
    assert word in capsys.readouterr().err
    assert not out.exists()


def test_key_of_another_kind_is_refused(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key.write_bytes(
        ec.derive_private_key(5, ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    assert sign(key)[0] == MISUSED
    assert "P-256" in capsys.readouterr().err


def test_signed_approval_names_every_field_and_is_never_overwritten(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = sign(key, "--json")
    assert code == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    envelope = approval.open_envelope(out.read_bytes())
    assert approval.verifies(envelope, KEY.public_key())
    made = approval.read(envelope.payload)
    assert told["name"] == f"models/{'a' * 64}/approvals/{envelope.id}"
    assert told["document"] == made.document()
    assert set(made.document()) == set(approval.FIELDS)
    assert (made.data, made.checks[0].params_sha256) == ((), "*")
    before = out.read_bytes()
    assert sign(key)[0] == MISUSED
    assert out.read_bytes() == before
