"""The policy of a forged report (`assay.testing`): registered, decided and told in companions, as the signer does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay import bundle, canonical, dsse, keys
from assay.bundle import Bundle
from assay.catalogue import CheckEntry

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from assay.policy.registered import Registered


@dataclass(frozen=True)
class ForgedRules:
    """A policy and waivers as text, and the catalogue entry that the report's answers are held to."""

    policy: str | None
    waivers: str | None
    entry: CheckEntry

    def asked(self) -> dict[str, Any]:
        """Return the fields of request.json."""
        found = self._registered()
        files = {} if found is None else found.files()
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        return {"policy_sha256": digests.get("policy.json"), "waivers_sha256": digests.get("waivers.json")}

    def write(self, place: Path) -> None:
        """Write the files that travel in the report directory."""
        found = self._registered()
        for name, data in (found.files() if found is not None else {}).items():
            (place / name).write_bytes(data)

    def judged(self, predicate: Mapping[str, Any], asked: bytes) -> dict[str, Any]:
        """Return the predicate with its policy and verdict; what it has of them stands, honest or not."""
        found = self._registered()
        if found is None:
            return {"policy": None, "verdict": None, **predicate}
        from assay.policy import registered

        verdict = registered.decided(found, predicate, json.loads(asked), {self.entry.sha256: self.entry})
        return {"policy": registered.named(found.policy), "verdict": registered.signed_form(verdict), **predicate}

    def _registered(self) -> Registered | None:
        if self.policy is None:
            return None
        from assay.policy import language, loader, waivers
        from assay.policy.registered import Registered

        policy = language.parse(loader.read(self.policy.encode(), "policy.yaml"))
        if self.waivers is None:
            return Registered(policy)
        accepted = waivers.parse(loader.read(self.waivers.encode(), "waivers.yaml"))
        return Registered(policy, accepted, with_waivers=True)


def put_beside(report: Path, payload: bytes, private: EllipticCurvePrivateKey, entry: CheckEntry) -> None:
    """Write the companions of a report directory that holds a policy, after its bundle was written.

    They tell the verdict that honestly follows from the signed bytes. Bytes that are no report get none.
    """
    for name in bundle.COMPANIONS:
        (report / name).unlink(missing_ok=True)
    if not (report / "policy.json").exists():
        return
    from assay.gate import companions
    from assay.policy import registered

    accepted = (report / "waivers.json").read_bytes() if (report / "waivers.json").exists() else None
    try:
        predicate = json.loads(payload)["predicate"]
        asked = json.loads((report / "request.json").read_bytes())
        policy = registered.read_policy((report / "policy.json").read_bytes())
        found = registered.Registered(policy, registered.read_waivers(accepted) if accepted else ())
        told = companions.statements(
            model_sha256=predicate["model"]["manifest_sha256"],
            bundle_sha256=hashlib.sha256((report / bundle.FILE_NAME).read_bytes()).hexdigest(),
            key_id=keys.key_id(private.public_key()),
            policy=policy,
            verdict=registered.decided(found, predicate, asked, {entry.sha256: entry}),
            composed_at=predicate["audit"]["composed_at"],
        )
    except (ValueError, KeyError, TypeError):
        return
    for name, content in told.items():
        sign(report / name, content, private)


def sign(file: Path, content: Mapping[str, Any], private: EllipticCurvePrivateKey) -> None:
    """Sign a companion's statement and write its bundle."""
    payload = canonical.dumps(content)
    signature = dsse.sign(private, dsse.PAYLOAD_TYPE, payload)
    sealed = Bundle(payload=payload, signature=signature, key_id=keys.key_id(private.public_key()))
    file.write_bytes(bundle.write(sealed))
