"""What sealing works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from assay import bundle, dsse, keys
from assay.bundle import Bundle
from assay.catalogue import Catalogue
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from service.signer.evidence import Evidence
from service.signer.folder import Folder
from service.signer.journal import Journal
from service.signer.rows import Rows


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What sealing works with."""

    rows: Rows
    evidence: Evidence
    home: Folder
    catalogue: Catalogue
    private: EllipticCurvePrivateKey
    journal: Journal
    public_file: Path
    """The public half in PEM, against which the finished report is verified."""
    profile: str
    clock: Callable[[], datetime]

    @property
    def key_id(self) -> str:
        """The report key's id."""
        return keys.key_id(self.private.public_key())

    def sign(self, payload: bytes) -> bytes:
        """Return the bundle of a statement of ours; the signature is a function of key and bytes."""
        signature = dsse.sign(self.private, dsse.PAYLOAD_TYPE, payload)
        return bundle.write(Bundle(payload=payload, signature=signature, key_id=self.key_id))
