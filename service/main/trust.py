"""The trust root of a development server: made at start, and renewed before it expires."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from assay import canonical, keys, strict_json
from assay.tlog.notes import Vkey
from assay.trust import document, envelope
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ROOT_LIFE = timedelta(days=365)
"""Life of a root (specification, section 16)."""

REPORT_LIFE = timedelta(days=180)
"""Life of a report key (specification, section 16); a development server renews the same key."""

RENEW = timedelta(days=30)
"""A root with less time left is followed by another version: a server is seldom restarted more rarely."""

_HOLDER_LIFE = timedelta(days=3650)
"""Life of the one root key; a version can only be renewed by a key that is good then."""


def log_origin(public: bytes) -> str:
    """Return the name of a development log: its key's, so that two servers' logs are never taken for one.

    Args:
        public: the log key's public half, 32 bytes.
    """
    return f"dev-{public[:8].hex()}.assay.example"


def ensure_root(
    folder: Path, holder: EllipticCurvePrivateKey, report: EllipticCurvePrivateKey, vkey: Vkey, now: datetime
) -> Path:
    """Make the first trust root, or a later version where the newest one does not serve; return the first.

    Clients pin the first; they find the later ones beside it.

    Args:
        folder: root.<n>.dsse.json lie there.
        holder: the one root key; a real operator has several, in several hands.
        report: the report key.
        vkey: the log's key.
        now: this host's clock.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    newest: dict[str, Any] | None = None
    number = 1
    while (path := folder / f"root.{number}.dsse.json").exists():
        newest = strict_json.loads(envelope.read(path.read_bytes()).payload, document.BYTES_MAX)
        number += 1
    if newest is None or _is_stale(newest, report, vkey, now):
        value = _document(number, newest, holder, report, vkey, now)
        document.parse(canonical.dumps(value))
        _write(folder / f"root.{number}.dsse.json", envelope.sign(canonical.dumps(value), [holder]))
    return folder / "root.1.dsse.json"


def _is_stale(newest: dict[str, Any], report: EllipticCurvePrivateKey, vkey: Vkey, now: datetime) -> bool:
    soon = _text(now + RENEW)
    listed = newest["keys"].get(keys.key_id(report.public_key()))
    logs = [log for log in newest["logs"] if log["vkey"] == vkey.text]
    spans = [newest["expires_at"], *(one["valid_until"] for one in (listed, *logs) if one is not None)]
    return listed is None or not logs or any(end < soon for end in spans)


def _document(
    version: int,
    before: dict[str, Any] | None,
    holder: EllipticCurvePrivateKey,
    report: EllipticCurvePrivateKey,
    vkey: Vkey,
    now: datetime,
) -> dict[str, Any]:
    """Return a version: earlier report and log keys stay, since reports under them stay."""
    known: dict[str, Any] = dict(before["keys"]) if before else {}
    ids = [keys.key_id(one.public_key()) for one in (holder, report)]
    for keyid, key, life in zip(ids, (holder, report), (_HOLDER_LIFE, REPORT_LIFE + RENEW), strict=True):
        start = known.get(keyid, {}).get("valid_from", _text(now))
        known[keyid] = _listed(key, start, _text(now + life))
    reporters: Sequence[str] = before["roles"]["report"]["keyids"] if before else ()
    logs = {log["vkey"]: log for log in before["logs"]} if before else {}
    since = logs.get(vkey.text, {}).get("valid_from", _text(now))
    span = {"valid_from": since, "valid_until": _text(now + ROOT_LIFE)}
    logs[vkey.text] = {"origin": vkey.name, "vkey": vkey.text, **span}
    return {
        "schema": document.SCHEMA,
        "version": version,
        "issued_at": _text(now),
        "expires_at": _text(now + ROOT_LIFE),
        "operator": f"dev-{ids[0][:16]}",
        "keys": known,
        "roles": {
            "root": {"keyids": [ids[0]], "threshold": 1},
            "report": {"keyids": list(dict.fromkeys([*reporters, ids[1]])), "threshold": 1},
        },
        "logs": list(logs.values()),
    }


def _listed(key: EllipticCurvePrivateKey, start: str, end: str) -> dict[str, Any]:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    told = {"scheme": document.SCHEME, "public_spki_b64": base64.b64encode(der).decode()}
    return {**told, "valid_from": start, "valid_until": end, "revoked_at": None, "revoked_reason": None}


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _write(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
