"""The log and the trust root of a forge (`assay.testing`): honest unless a test makes them otherwise.

Keys are derived from the forge's seed and are worth nothing outside a test.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay import canonical, dsse, keys
from assay.tlog import entries, proofs
from assay.tlog.entries import Entry
from assay.tlog.memory import MemoryLog
from assay.tlog.registration import derive_seed, tag
from assay.tlog.tree import leaf_hash
from assay.trust import document, envelope

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ROOT_HOLDERS = 3
"""Holders of root keys; any two of them may change the root, so that a test can let too few sign."""

_SPAN = {"valid_from": "2026-01-01T00:00:00Z", "valid_until": "2027-12-31T00:00:00Z"}


@dataclass(frozen=True, kw_only=True)
class LoggedRequest:
    """A request's place in the log."""

    index: int
    proof: bytes
    entry: Entry
    size: int
    root: bytes

    @classmethod
    def read(cls, proof: bytes) -> LoggedRequest:
        """Read the place from the proof file that a report carries."""
        from assay.tlog import notes

        found = proofs.read_proof(proof)
        head, _ = notes.read_checkpoint(found.checkpoint)
        return cls(index=found.index, proof=proof, entry=entries.parse(found.entry), size=head.size, root=head.root)


class ForgedLog:
    """A log in memory, and a trust root that names its key and a report key.

    Args:
        digest: gives 64 random-looking hexadecimal digits for a label.
        name: the log's name, and the operator's.
        report: public half of the report key.
    """

    def __init__(self, digest: Callable[[str], str], name: str, report: EllipticCurvePrivateKey) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._digest = digest
        self._name = name
        self._report = report
        self.private_key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(digest("log key")))
        self.log = MemoryLog(name, self.private_key)
        self.root_keys = tuple(
            ec.derive_private_key(int(digest(f"root key {n}")[:62], 16) + 1, ec.SECP256R1())
            for n in range(ROOT_HOLDERS)
        )

    @property
    def salt(self) -> str:
        """The salt of every model of this forge."""
        return self._digest("salt")

    def register(self, asked: bytes, manifest_sha256: str, at: str) -> LoggedRequest:
        """Log a request."""
        entry = Entry(
            kind="request", at=at, commit=hashlib.sha256(asked).hexdigest(), tag=tag(self.salt, manifest_sha256)
        )
        return LoggedRequest.read(self.log.append(entry)[1])

    def registration(self, asked: bytes, logged: LoggedRequest, fixed: int | None = None) -> dict[str, Any]:
        """Return the predicate's field; `fixed` is the seed of a request that names one."""
        leaf = leaf_hash(logged.entry.data)
        return {
            "log_origin": self._name,
            "request_index": logged.index,
            "request_sha256": hashlib.sha256(asked).hexdigest(),
            "leaf_sha256": leaf.hex(),
            "tree_size": logged.size,
            "root_sha256": logged.root.hex(),
            "seed_mode": "derived" if fixed is None else "fixed",
            "seed": derive_seed(leaf, logged.root) if fixed is None else fixed,
            "tag_salt": self.salt,
        }

    def seal(self, payload: bytes, key_id: str, logged: LoggedRequest, at: str) -> tuple[bytes, bytes] | None:
        """Log a report in the place of its last leaf, if nothing came after it; return proof and consistency."""
        if self.log.entries[logged.index : logged.index + 1] != [logged.entry.data]:
            return None  # another forge's request: this log cannot prove anything about it
        self._forget(logged.index)
        last = entries.parse(self.log.entries[-1]).at
        entry = Entry(
            kind="report",
            at=max(at, last),
            commit=hashlib.sha256(dsse.pae(dsse.PAYLOAD_TYPE, payload)).hexdigest(),
            tag=logged.entry.tag,
            key=key_id,
            prev=logged.index,
        )
        return self.log.append(entry)[1], self.log.prove_since(logged.size)

    def _forget(self, request: int) -> None:
        newest = entries.parse(self.log.entries[-1])
        if newest.kind == "report" and newest.prev == request:
            self.log.cut(self.log.size - 1)

    def listed(self, key: EllipticCurvePrivateKey, **fields: Any) -> dict[str, Any]:
        """Return a key as a trust root lists it."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        spki = base64.b64encode(der).decode()
        told = {"scheme": document.SCHEME, "public_spki_b64": spki, **_SPAN}
        return {**told, "revoked_at": None, "revoked_reason": None, **fields}

    def root(self, version: int = 1, **report_key: Any) -> dict[str, Any]:
        """Return the document of a trust root; `report_key` replaces fields of the report key in it."""
        holders = [keys.key_id(key.public_key()) for key in self.root_keys]
        reporter = keys.key_id(self._report.public_key())
        listed = {one: self.listed(key) for one, key in zip(holders, self.root_keys, strict=True)}
        return {
            "schema": document.SCHEMA,
            "version": version,
            "issued_at": _SPAN["valid_from"],
            "expires_at": _SPAN["valid_until"],
            "operator": self._name,
            "keys": listed | {reporter: self.listed(self._report, **report_key)},
            "roles": {"root": {"keyids": holders, "threshold": 2}, "report": {"keyids": [reporter], "threshold": 1}},
            "logs": [{"origin": self._name, "vkey": self.log.vkey.text, **_SPAN}],
        }

    def write_root(self, folder: Path, value: dict[str, Any] | None = None, signers: Sequence[int] = (0, 1)) -> Path:
        """Write a trust root, signed by some holders, and return its path."""
        told = value or self.root()
        path = folder / f"root.{told['version']}.dsse.json"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(envelope.sign(canonical.dumps(told), [self.root_keys[n] for n in signers]))
        return path
