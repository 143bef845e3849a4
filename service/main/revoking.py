"""`assay-server principals revoke-certificate` and `revoked-certificates`: a stolen certificate is out for ever."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from service.main import config
from service.rules.certificates import PEM_MAX, CertificateMalformed, read, thumbprint_from

REASON_MAX = 200
"""Characters of a reason: the column's width."""

_WHO = "principals revoke-certificate"


def revoke(url: str, item: str, reason: str) -> None:
    """Revoke a certificate, by its thumbprint or as a file.

    Args:
        url: the database.
        item: SHA-256 of the certificate's DER in hex, or the path of its PEM.
        reason: why; may be empty.

    Raises:
        ConfigError: the item is neither, the reason is too long or not printable, or the database cannot be used.
    """
    from service.store import certificates
    from service.store.engine import StoreError
    from service.store.migrations import check_revision

    if len(reason) > REASON_MAX or not reason.isprintable():
        raise config.ConfigError(f"{_WHO}: --reason: at most {REASON_MAX} printable characters in one line")
    sha256, principal = _certificate(item)
    try:
        check_revision(url)
        fresh = certificates.revoke(url, sha256, principal=principal, reason=reason)
    except StoreError as error:
        raise config.ConfigError(f"{_WHO}: {error}") from None
    told = "revoked: out within 30 s, open streams included" if fresh else "was revoked before; nothing changes"
    print(f"{sha256}\t{told}")


def _certificate(item: str) -> tuple[str, str]:
    """Return thumbprint and principal of what the command line names; the principal is empty for a bare thumbprint."""
    try:
        return thumbprint_from(item), ""
    except CertificateMalformed as error:
        why = error
    path = Path(item)
    try:
        with path.open("rb") as file:
            data = file.read(PEM_MAX + 1)
    except (OSError, ValueError):
        raise config.ConfigError(
            f"{_WHO}: {item!r} is no SHA-256 of a certificate ({why}; `openssl x509 -noout -fingerprint -sha256 -in "
            "FILE` prints one) and no file that can be read"
        ) from None
    try:
        if len(data) > PEM_MAX:
            raise CertificateMalformed(f"it has more than {PEM_MAX} bytes")
        return read(data)
    except CertificateMalformed as error:
        raise config.ConfigError(f"{_WHO}: {item}: {error}; give the client's certificate in PEM") from None


def show(url: str, *, as_json: bool) -> None:
    """Print what is revoked, oldest first: lines of thumbprint, when, principal and reason, or one JSON array.

    Raises:
        ConfigError: the database cannot be used.
    """
    from service.store.certificates import list_revoked
    from service.store.engine import StoreError
    from service.store.migrations import check_revision

    try:
        check_revision(url)
        found = list_revoked(url)
    except StoreError as error:
        raise config.ConfigError(f"principals revoked-certificates: {error}") from None
    told = [
        {"sha256": one.sha256, "revoked_at": _moment(one.revoked_at), "principal": one.principal, "reason": one.reason}
        for one in found
    ]
    if as_json:
        print(json.dumps(told, indent=2))
        return
    for row in told:
        print("\t".join((row["sha256"], row["revoked_at"], row["principal"] or "-", row["reason"] or "-")))


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
