"""The report key (P-256) and the log key (Ed25519), each in a file that only its owner may read."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from assay.keys import public_pem
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from service.signer.refusal import SignerError


class KeyUnusable(SignerError):
    """The key file is absent, readable by others, or holds no P-256 key. The message says what to do."""


def public_path(path: Path) -> Path:
    """Return where the public half of a key lies: `report.key.pem` has `report.pub.pem` beside it."""
    return path.with_name(path.name.removesuffix(".pem").removesuffix(".key") + ".pub.pem")


def ensure_key(path: Path) -> Path:
    """Make a report key if there is none, and its public half beside it.

    Args:
        path: the private key, written with mode 0600; an existing one is kept.

    Returns:
        The path of the public key in PEM, which auditors pin.

    Raises:
        KeyUnusable: there is a file, but it cannot serve; it is never overwritten.
    """
    if not path.exists():
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_once(path, pem, 0o600)
    public = public_path(path)
    content = public_pem(load_key(path).public_key())
    if not public.exists() or public.read_bytes() != content:
        public.unlink(missing_ok=True)
        _write_once(public, content, 0o644)
    return public


def ensure_log_key(path: Path) -> None:
    """Make a log key if there is none; an existing one is kept."""
    if not path.exists():
        private = ed25519.Ed25519PrivateKey.generate()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_once(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the report key.

    Raises:
        KeyUnusable: it cannot serve.
    """
    private = _load(path, "report key")
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise KeyUnusable(f"{path} is no P-256 key")
    return private


def load_log_key(path: Path) -> ed25519.Ed25519PrivateKey:
    """Read the log key.

    Raises:
        KeyUnusable: it cannot serve.
    """
    private = _load(path, "log key")
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise KeyUnusable(f"{path} is no Ed25519 key")
    return private


def _load(path: Path, what: str) -> object:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            pem = file.read(16 * 1024)
    except OSError as error:
        raise KeyUnusable(f"cannot read the {what} {path}: {error.strerror}; `assay-server dev` makes one") from error
    if mode & 0o077:
        raise KeyUnusable(f"the {what} {path} has mode {mode:04o}: others may read it; chmod 600, or make a new one")
    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise KeyUnusable(f"{path} is no unencrypted private key in PEM") from error


def _write_once(path: Path, content: bytes, mode: int) -> None:
    """Write aside and link into place, so that a half-written key is never seen and another's is never replaced."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        pass  # another process made it first: that one counts
    finally:
        aside.unlink(missing_ok=True)
