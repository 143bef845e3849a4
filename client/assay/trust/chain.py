"""V02: from the root that the user pinned to the newest one, version by version.

Version n + 1 needs the threshold of version n's root keys and of its own. A root key counts if it is good, in the
document that lists it, at the moment at which the signed version says it was issued; that moment never goes back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from assay import canonical
from assay.errors import CouldNotTell, Malformed, Wrong
from assay.keys import TrustedKey
from assay.shape import COUNT, SHA256, TEXT, check, exactly
from assay.tlog.leaves import SKEW, LogKey
from assay.tlog.notes import Vkey
from assay.trust import document, envelope
from assay.trust.document import RootDocument, RootKey
from assay.trust.envelope import Envelope
from assay.trust.memory import Memory

MEMORY = "assay-root-memory/v1"

_MEMORY_MAX = 4 * 1024
"""Bytes of the memory of one operator: three short fields."""

_MEMORY_SHAPE = {"schema": exactly(MEMORY), "operator": TEXT, "version": COUNT, "sha256": SHA256}


@dataclass(frozen=True, kw_only=True)
class TrustRoot:
    """Whom the reader trusts, and when."""

    operator: str | None
    """None for keys that the user pinned one by one."""
    version: int | None
    sha256: str | None
    """Of the root's signed bytes."""
    expires_at: datetime | None
    keys: tuple[RootKey, ...]
    """Report keys, those revoked and those past their time among them: old reports were signed by them."""
    pinned: tuple[TrustedKey, ...] = ()
    """Report keys without rotation (`--key`)."""
    logs: tuple[LogKey, ...] = ()

    @property
    def report_keys(self) -> tuple[TrustedKey, ...]:
        """Every key under which a report's signature may be tried."""
        return (*self.pinned, *(key.trusted for key in self.keys))

    def check_key(self, keyid: str, at: datetime) -> str:
        """Check that a report key was good at a logged moment; return a sentence about it.

        Raises:
            Wrong: no report key, before or after its time, or revoked by then.
        """
        if any(key.id == keyid for key in self.pinned):
            return f"key {keyid[:8]}… is pinned, no rotation"
        key = next((key for key in self.keys if key.trusted.id == keyid), None)
        if key is None:
            raise Wrong(f"key {keyid[:8]}… is no report key of the trust root")
        when = f"{at:%Y-%m-%dT%H:%M:%SZ}"
        if key.revoked_at is not None and at >= key.revoked_at:
            raise Wrong(f"key {keyid[:8]}… was revoked when the report was logged at {when}: {key.revoked_reason}")
        if not key.good_at(at):
            raise Wrong(f"key {keyid[:8]}… was not good when the report was logged at {when}")
        return f"key {keyid[:8]}… was good at {when}"


def pinned_keys(keys: Sequence[TrustedKey], vkeys: Sequence[Vkey] = ()) -> TrustRoot:
    """Return the trust that `--key` and `--log-vkey` give: no rotation, no expiry."""
    logs = tuple(LogKey(vkey=vkey) for vkey in vkeys)
    return TrustRoot(operator=None, version=None, sha256=None, expires_at=None, keys=(), pinned=tuple(keys), logs=logs)


def trusted(roots: Sequence[bytes], pinned: bytes, memory: Memory | None, now: datetime) -> TrustRoot:
    """Follow the chain of roots and return whom it says to trust.

    Args:
        roots: envelopes of later versions, in any order; earlier ones and the pinned one itself do no harm.
        pinned: the envelope that the user chose to trust.
        memory: remembers the highest version of each operator; None remembers nothing.
        now: the reader's clock, or `--now`.

    Raises:
        Wrong: malformed, too few signatures, a version missing, two documents of one version, or a rollback.
        CouldNotTell: the newest root has expired, was issued after now, or the memory is damaged.
    """
    at, current = _first(pinned)
    later = _by_version(roots, at)
    for version in sorted(later):
        if version != at.version + 1:
            raise Wrong(f"the chain of trust roots lacks version {at.version + 1}")
        _check_step(at, *later[version])
        at, current = later[version]
    digest = hashlib.sha256(current.payload).hexdigest()
    if memory is not None:
        memory.update("root", at.operator, lambda before: _remembered(before, at, digest))
    _check_time(at, now)
    return TrustRoot(
        operator=at.operator,
        version=at.version,
        sha256=digest,
        expires_at=at.expires_at,
        keys=tuple(at.keys[keyid] for keyid in at.report.keyids),
        logs=at.logs,
    )


def _read(data: bytes) -> tuple[RootDocument, Envelope]:
    try:
        carried = envelope.read(data)
        return document.parse(carried.payload), carried
    except Malformed as error:
        raise Wrong(f"a trust root is malformed: {error}") from None


def _first(pinned: bytes) -> tuple[RootDocument, Envelope]:
    found, carried = _read(pinned)
    _check_threshold(found, found, carried)
    return found, carried


def _by_version(roots: Sequence[bytes], pinned: RootDocument) -> dict[int, tuple[RootDocument, Envelope]]:
    found: dict[int, tuple[RootDocument, Envelope]] = {}
    for data in roots:
        one = _read(data)
        if one[0].version <= pinned.version:
            continue
        other = found.setdefault(one[0].version, one)
        if other[1].payload != one[1].payload:
            raise Wrong(f"two different trust roots have version {one[0].version}")
    return found


def _check_step(before: RootDocument, after: RootDocument, carried: Envelope) -> None:
    if after.operator != before.operator:
        raise Wrong(f"trust root {after.version} is of operator {after.operator}, version {before.version} of another")
    if after.issued_at < before.issued_at:
        raise Wrong(f"trust root {after.version} was issued before version {before.version}")
    for judge in (before, after):
        _check_threshold(judge, after, carried)


def _check_threshold(judge: RootDocument, signed: RootDocument, carried: Envelope) -> None:
    keys = {keyid: judge.keys[keyid].trusted for keyid in judge.root.keyids}
    # A set: a key that signed twice is one key.
    good = [keyid for keyid in envelope.signers(carried, keys) if judge.keys[keyid].good_at(signed.issued_at)]
    if len(good) < judge.root.threshold:
        raise Wrong(
            f"trust root {signed.version} has {len(good)} good signatures of version {judge.version}'s root keys, "
            f"needed are {judge.root.threshold}"
        )


def _remembered(before: bytes | None, newest: RootDocument, digest: str) -> bytes:
    """Return what to remember; refuse to go back, and refuse a second document of the remembered version."""
    if before is not None:
        try:
            known = canonical.loads_canonical(before, _MEMORY_MAX)
            check(known, _MEMORY_SHAPE)
        except Malformed as error:
            raise CouldNotTell(f"the memory of operator {newest.operator} is damaged: {error}") from None
        if known["version"] > newest.version:
            raise Wrong(f"rollback: trust root {newest.version} was given, version {known['version']} was seen before")
        if known["version"] == newest.version and known["sha256"] != digest:
            raise Wrong(f"another trust root of version {newest.version} was seen before")
    return canonical.dumps({"schema": MEMORY, "operator": newest.operator, "version": newest.version, "sha256": digest})


def _check_time(newest: RootDocument, now: datetime, skew: timedelta = SKEW) -> None:
    if now >= newest.expires_at:
        raise CouldNotTell(
            f"trust root {newest.version} expired at {newest.expires_at:%Y-%m-%dT%H:%M:%SZ}: get a newer one, or "
            "judge as of then with --now"
        )
    if now + skew < newest.issued_at:
        raise CouldNotTell(f"trust root {newest.version} was issued in the future; check this machine's clock or --now")
