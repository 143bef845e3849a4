"""Which service the client talks to: one small JSON file, found in a fixed order.

    {"address":"127.0.0.1:7443","ca":"ca.pem","certificate":"client.pem","key":"client.key","report_key":"report.pub.pem",
     "trust_root":"root.1.dsse.json"}

Order: the `--config` option, the environment variable ASSAY_CONFIG, `.assay/client.json` in this folder or one above,
`~/.config/assay/client.json`. The first that exists counts; they are never merged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import strict_json
from assay.client_errors import NoConfig
from assay.errors import Malformed, shown

VARIABLE = "ASSAY_CONFIG"
BYTES_MAX = 64 * 1024

_REQUIRED = ("address", "ca", "certificate", "key")
_OPTIONAL = ("report_key", "trust_root", "token_file")
_CERTIFIED = ("certificate", "key")
"""Needed together, and only where there is no token."""


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """One service, and who the caller is to it."""

    address: str
    """host:port"""
    ca: Path
    """Certificate authority that the service's certificate descends from, PEM."""
    certificate: Path | None = None
    """The caller's certificate, PEM; its URI names the principal. None where a token alone does."""
    key: Path | None = None
    """The certificate's private key, PEM."""
    token_file: Path | None = None
    """Bearer token of the caller, read again for each call: whoever renews it replaces the file by a rename."""
    report_key: Path | None = None
    """Public key of this service's reports, PEM; `assay verify` uses it when no trust is given and none stands here."""
    trust_root: Path | None = None
    """Trust root of this service's operator, which `assay verify` uses before the key: it has the log's key, too."""
    source: Path | None = None
    """The file that said so."""


def discover(
    explicit: Path | None, environ: Mapping[str, str], folder: Path | None = None, *, walk: bool = True
) -> Path | None:
    """Return the configuration file that counts, or None.

    A file that is named by option or variable is returned even when it is absent: reading it then says so, instead of
    silently talking to another service.

    Args:
        explicit: named by an option.
        environ: the environment.
        folder: the working directory.
        walk: whether a file in the working directory or above it counts.
    """
    if explicit is not None:
        return explicit
    if environ.get(VARIABLE):
        return Path(environ[VARIABLE])
    here = (folder or Path.cwd()).absolute()
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".config")
    near = [place / ".assay" / "client.json" for place in (here, *here.parents)] if walk else []
    places = [*near, home / "assay" / "client.json"]
    return next((place for place in places if place.is_file()), None)


def find(explicit: Path | None = None, environ: Mapping[str, str] | None = None) -> ClientConfig:
    """Return the configuration that counts.

    Raises:
        NoConfig: there is none, or it is unusable.
    """
    path = discover(explicit, os.environ if environ is None else environ)
    if path is None:
        raise NoConfig(
            "no client configuration found: start `assay-server dev`, which writes .assay/client.json, "
            f"or name one by --config FILE or {VARIABLE}"
        )
    return read(path)


def read(path: Path) -> ClientConfig:
    """Read one configuration; relative paths in it are relative to its folder.

    Raises:
        NoConfig: unreadable, not strict JSON, a key unknown or missing, or a named file absent.
    """
    try:
        value = strict_json.loads(path.read_bytes(), BYTES_MAX)
    except OSError as error:
        raise NoConfig(
            f"cannot read the client configuration {shown(str(path), 200)} ({error.strerror}): "
            "start `assay-server dev`, or name another by --config FILE"
        ) from None
    except Malformed as error:
        raise NoConfig(f"the client configuration {shown(str(path), 200)} is not usable: {error}") from None
    texts = _texts(value, path)
    files = {name: path.absolute().parent / texts[name] for name in texts if name != "address"}
    for name, file in files.items():
        if not file.is_file():
            raise NoConfig(f"{shown(str(path), 200)}: {name} names {shown(str(file), 200)}, which is no file")
    return ClientConfig(address=texts["address"], source=path, **files)


def _texts(value: Any, path: Path) -> dict[str, str]:
    where = shown(str(path), 200)
    if not isinstance(value, dict):
        raise NoConfig(f"{where}: expected a JSON object with {', '.join(_REQUIRED)}")
    unknown = sorted(set(value) - {*_REQUIRED, *_OPTIONAL})
    if unknown:
        raise NoConfig(f"{where}: unknown key {shown(unknown[0])}; keys are {', '.join((*_REQUIRED, *_OPTIONAL))}")
    texts = {name: entry for name, entry in value.items() if entry is not None}
    for name in _REQUIRED:
        by_token = name in _CERTIFIED and "token_file" in texts and not set(_CERTIFIED) & set(texts)
        if name not in texts and not by_token:
            raise NoConfig(f"{where}: {name} is missing")
    for name, entry in texts.items():
        if not isinstance(entry, str) or not entry or not entry.isprintable():
            raise NoConfig(f"{where}: {name} must be a non-empty printable text")
    return texts
