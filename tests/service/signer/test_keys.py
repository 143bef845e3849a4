"""The report key: made once, never overwritten, never shared with others."""

from __future__ import annotations

from pathlib import Path

import pytest
from assay.keys import load_public
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from service.signer.keys import KeyUnusable, ensure_key, load_key, public_path


def test_a_key_is_made_once_with_its_public_half(tmp_path: Path) -> None:
    path = tmp_path / "signer" / "report.key.pem"
    public = ensure_key(path)
    assert public == public_path(path) == tmp_path / "signer" / "report.pub.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    assert ensure_key(path) == public
    assert path.read_bytes() == before
    assert load_public(public).public.public_numbers() == load_key(path).public_key().public_numbers()


def test_a_lost_or_swapped_public_half_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "report.key.pem"
    public = ensure_key(path)
    content = public.read_bytes()
    public.unlink()
    assert ensure_key(path).read_bytes() == content
    public.write_bytes(b"other")
    assert ensure_key(path).read_bytes() == content


def _pem(private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("content", [b"", b"junk", "ed25519", "p384"])
def test_a_file_that_is_no_key_is_refused_and_kept(tmp_path: Path, content: bytes | str) -> None:
    made: dict[str, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey]
    made = {"ed25519": ed25519.Ed25519PrivateKey.generate(), "p384": ec.generate_private_key(ec.SECP384R1())}
    data = content if isinstance(content, bytes) else _pem(made[content])
    path = tmp_path / "report.key.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(KeyUnusable):
        ensure_key(path)
    assert path.read_bytes() == data


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.key.pem"
    ensure_key(path)
    path.chmod(0o640)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        load_key(path)
    with pytest.raises(KeyUnusable, match="cannot read"):
        load_key(tmp_path / "nowhere")
