"""The receipt of a submission: checked against what was asked as soon as it comes, and kept before results exist.

Who holds it needs nobody's word that checks, data and policy were fixed first: `assay verify --receipt` demands that
the report is of exactly this registration.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from assay import canonical, request
from assay.errors import CouldNotTell, MachineFailed, Malformed, Wrong, shown
from assay.tlog import entries, notes, proofs, tree
from assay.tlog.leaves import LogKey, verify_leaf


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What was asked for; None is what the caller does not know any more."""

    audit: str
    """audits/{32 hex}"""
    model_sha256: str
    base_sha256: str | None = None
    checks: Sequence[tuple[str, Mapping[str, Any]]]
    """Name and the parameters that were given; the service adds defaults, and changes none."""
    data: Sequence[tuple[str, str]]
    """Role and digest."""
    policy_sha256: str | None = None
    waivers_sha256: str | None = None
    nonce: bytes | None = None
    seed: int | None = None
    """The fixed seed; None where it is derived."""
    first_sha256: str | None = None
    """Digest of the bundle of the report that is repeated; None where none is."""

    def of(self, audit: str) -> Expected:
        """Return the same of an audit that has its name now."""
        return replace(self, audit=audit)


def place_beside(report: Path) -> Path:
    """Return the folder of a receipt: beside the report's, which holds nothing but the report."""
    return report.with_name(f"{report.name}.receipt")


def check(registered: bytes, proof: bytes, expected: Expected, logs: Sequence[LogKey], now: datetime) -> str:
    """Check that a receipt is sound and says what was asked.

    Args:
        registered: request.json as it was registered.
        proof: request.tlog-proof.
        expected: what was asked for.
        logs: log keys that the caller trusts; without one the checkpoint's signature is not checked.
        now: the caller's clock.

    Returns:
        What was found, for a person.

    Raises:
        Wrong: the proof proves something else, or something else than was asked is registered.
    """
    digest = hashlib.sha256(registered).hexdigest()
    try:
        told = request.parse(registered)
        leaf = proofs.read_proof(proof)
    except Malformed as error:
        raise Wrong(f"the receipt is malformed: {error}") from None
    for what, wanted, found in _pairs(told, expected):
        if wanted != found:
            raise Wrong(f"registered was another {what}: {shown(found, 80)}, asked was {shown(wanted, 80)}")
    if logs:
        try:
            known = verify_leaf(proof, "request", digest, logs, now=now, name=proofs.REQUEST_PROOF)
        except CouldNotTell as error:
            raise Wrong(str(error)) from None
        return f"entry {known.index} of log {known.origin}, logged at {known.entry.at}"
    _check_unsigned(leaf, digest)
    return f"entry {leaf.index} of a log whose key is not known here (no trust root configured)"


def _check_unsigned(proof: proofs.Proof, digest: str) -> None:
    """Check all but the log's signature."""
    try:
        entry = entries.parse(proof.entry)
        head, _ = notes.read_checkpoint(proof.checkpoint)
    except (Malformed, CouldNotTell) as error:
        raise Wrong(f"{proofs.REQUEST_PROOF} is malformed: {error}") from None
    if (entry.kind, entry.commit) != ("request", digest):
        raise Wrong(f"{proofs.REQUEST_PROOF} is of another entry than this request's")
    tree.check_inclusion(tree.leaf_hash(proof.entry), proof.index, head.size, proof.hashes, head.root)


def _pairs(told: Mapping[str, Any], asked: Expected) -> Iterator[tuple[str, object, object]]:
    yield "audit", asked.audit, f"audits/{told['audit']}"
    yield "model", asked.model_sha256, told["model"]["manifest_sha256"]
    yield "base model", asked.base_sha256, request.base_sha256(told)
    yield "list of checks", [name for name, _ in asked.checks], [one["name"] for one in told["checks"]]
    for (name, given), one in zip(asked.checks, told["checks"], strict=False):
        for key, value in given.items():
            found = one["params"].get(key)
            yield f"{name}.{key}", _plain(value), _plain(found)
    yield "data", sorted(asked.data), sorted((one["role"], one["sha256"]) for one in told["data"])
    yield "policy", asked.policy_sha256, told.get("policy_sha256")
    yield "waivers", asked.waivers_sha256, told.get("waivers_sha256")
    yield "seed", asked.seed, told.get("seed")
    yield "way to a seed", "derived" if asked.seed is None else "fixed", told["seed_mode"]
    yield "first report", asked.first_sha256, (told.get("first") or {}).get("bundle_sha256")
    if asked.nonce is not None:
        yield "nonce", asked.nonce.hex(), told["nonce"]


def _plain(value: Any) -> str:
    """Return one text for a number and its decimal string: registered parameters have no fractions."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return canonical.dumps(_texts(value)).decode(errors="replace")
    try:
        return str(Decimal(str(value)).normalize())
    except InvalidOperation:
        return str(value)


def _texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _texts(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(one) for one in value]
    return value if value is None or isinstance(value, bool) else _plain(value)


def store(folder: Path, registered: bytes, proof: bytes) -> None:
    """Write a receipt, synced before anyone relies on it. The same receipt again changes nothing.

    Raises:
        Wrong: the folder holds the receipt of another registration.
        MachineFailed: the disk.
    """
    content = {request.FILE_NAME: registered, proofs.REQUEST_PROOF: proof}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in content.items():
            place = folder / name
            if place.exists() and place.read_bytes() != data:
                raise Wrong(f"{shown(str(place), 200)} is the receipt of another registration; it is kept")
            _write(place, data)
    except OSError as error:
        raise MachineFailed(f"cannot keep the receipt in {shown(str(folder), 200)}: {error.strerror}") from error


def _write(place: Path, data: bytes) -> None:
    descriptor, aside = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, place)
    except OSError:
        Path(aside).unlink(missing_ok=True)
        raise
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
