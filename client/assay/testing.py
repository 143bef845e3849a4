"""A forge: honest reports and skilfully dishonest ones, for tests of readers, gates and pipelines.

    forge = Forge(tmp_path, seed=1)
    honest = forge.report()
    statement = forge.statement(honest)
    statement["predicate"]["answers"][0]["controls"].pop()
    forged = forge.reseal(honest, statement)      # honestly signed, so that the later steps are reached

Keys are derived from the seed and are worth nothing outside a test; the same seed gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from assay import bundle, canonical, dsse, forged_parts, keys, manifest, moments, request, statement
from assay.bundle import Bundle
from assay.catalogue import SCHEMA as CATALOGUE_SCHEMA
from assay.catalogue import CheckEntry, parse_entry
from assay.forged_log import ForgedLog, LoggedRequest
from assay.forged_rules import ForgedRules, put_beside
from assay.tlog import entries, proofs

_MODEL = {
    "config.json": b'{"model_type":"gpt2"}\n',
    "model.safetensors": bytes(8),
    "tokenizer.json": b"{}\n",
}

_TIMES = {"submitted_at": 0, "registered_at": 1, "started_at": 2, "ended_at": 30, "composed_at": 31}
"""Seconds after a report's own minute; the log's time never goes back, so each report has a minute of its own."""

_START_MS = 1_767_323_040_000
"""2026-01-02T03:04:00Z."""


class Forge:
    """Makes reports under one key.

    Args:
        directory: where model, key and reports are put.
        seed: chooses the key and the random-looking bytes.
    """

    def __init__(self, directory: Path, seed: int = 0) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._directory = directory
        self._seed = seed
        self._private = ec.derive_private_key(int(self._hex("key")[:62], 16) + 1, ec.SECP256R1())
        self._count = 0
        self.key_id = keys.key_id(self._private.public_key())
        self.key_file = directory / f"forge-{seed}.pem"
        self.model_dir = directory / "model"
        self.model_dir.mkdir(parents=True, exist_ok=True)
        for name, content in _MODEL.items():
            (self.model_dir / name).write_bytes(content)
        self.key_file.write_bytes(keys.public_pem(self._private.public_key()))
        self.manifest = manifest.build(self.model_dir)
        self.entry = forged_entry()
        self.logged = ForgedLog(self._hex, f"forge-{seed}.assay.example", self._private)
        self.trust_root = self.logged.write_root(directory / f"trust-{seed}")

    @property
    def catalogue_file(self) -> Path:
        """A catalogue of the forge's one check, written anew: what a reader gives with `--catalogue`."""
        place = self._directory / f"catalogue-{self._seed}.json"
        place.write_bytes(canonical.dumps({"schema": CATALOGUE_SCHEMA, "checks": [dict(self.entry.raw)]}))
        return place

    @property
    def log_dir(self) -> Path:
        """The forge's log as files, written anew."""
        return self.logged.log.write(self._directory / f"log-{self._seed}")

    def report(
        self,
        *,
        checks: int = 1,
        ask: dict[str, Any] | None = None,
        rules: str | None = None,
        waivers: str | None = None,
        **overrides: Any,
    ) -> Path:
        """Write a report directory and return its path.

        Args:
            checks: how many checks were asked, with different parameters.
            ask: fields of request.json to replace; what follows from them follows.
            rules: a release policy in YAML; it is registered, decided and told in companions.
            waivers: waivers in YAML that are registered with it.
            overrides: fields of the predicate to replace, honest or not.
        """
        fixed = ForgedRules(rules, waivers, self.entry)
        asked = canonical.dumps({**self._request(checks), **fixed.asked(), **(ask or {})})
        place = self._directory / f"report-{self._count + 1}"
        (place / "artefacts").mkdir(parents=True)
        (place / request.FILE_NAME).write_bytes(asked)
        fixed.write(place)
        (place / manifest.FILE_NAME).write_bytes(self.manifest.data)
        (place / "artefacts" / self.entry.sha256).write_bytes(self.entry.data)
        times = self._times()
        wanted = json.loads(asked)
        logged = self.logged.register(asked, wanted["model"]["manifest_sha256"], times["registered_at"])
        (place / proofs.REQUEST_PROOF).write_bytes(logged.proof)
        registration = self.logged.registration(asked, logged, wanted.get("seed"))
        predicate = {**self._predicate(asked), "registration": registration, **overrides}
        self._count += 1
        return self._seal(place, statement.build(self.manifest, fixed.judged(predicate, asked)), times["composed_at"])

    def statement(self, report: Path) -> dict[str, Any]:
        """Return a report's statement, to be altered."""
        value: dict[str, Any] = json.loads(bundle.read((report / bundle.FILE_NAME).read_bytes()).payload)
        return value

    def reseal(self, report: Path, altered: dict[str, Any] | bytes) -> Path:
        """Sign and log altered bytes under the forge's keys, as a dishonest operator could."""
        last = entries.parse(proofs.read_proof((report / proofs.REPORT_PROOF).read_bytes()).entry)
        return self._seal(report, altered, last.at)

    def _seal(self, report: Path, altered: dict[str, Any] | bytes, at: str) -> Path:
        payload = altered if isinstance(altered, bytes) else canonical.dumps(altered)
        signature = dsse.sign(self._private, dsse.PAYLOAD_TYPE, payload)
        sealed = Bundle(payload=payload, signature=signature, key_id=self.key_id)
        (report / bundle.FILE_NAME).write_bytes(bundle.write(sealed))
        put_beside(report, payload, self._private, self.entry)
        logged = LoggedRequest.read((report / proofs.REQUEST_PROOF).read_bytes())
        proven = self.logged.seal(payload, self.key_id, logged, at)
        for name, data in zip((proofs.REPORT_PROOF, proofs.CONSISTENCY), proven or (), strict=False):
            (report / name).write_bytes(data)
        return report

    def _times(self) -> dict[str, str]:
        """Return the moments of the next report."""
        return {
            name: moments.from_ms(_START_MS + 60_000 * self._count + 1000 * after) for name, after in _TIMES.items()
        }

    def _hex(self, label: str) -> str:
        return hashlib.sha256(f"assay-forge/{self._seed}/{label}".encode()).hexdigest()

    def _request(self, checks: int) -> dict[str, Any]:
        return {
            "schema": request.SCHEMA,
            "audit": self._hex("audit")[:32],
            "nonce": self._hex("nonce"),
            "model": {"manifest_sha256": self.manifest.digest},
            "checks": [
                {"name": self.entry.name, "version": self.entry.version, "params": {"layers": 2, "part": index}}
                for index in range(checks)
            ],
            "data": [{"role": "pairs", "sha256": self._hex("pairs")}],
            "limits": {"attempts_max": 3, "output_bytes": 1 << 20, "wall_s": 600},
            "seed_mode": "derived",
            "submitted_at": self._times()["submitted_at"],
        }

    def _predicate(self, asked: bytes) -> dict[str, Any]:
        wanted = json.loads(asked)
        return {
            "schema_version": statement.SCHEMA_VERSION,
            "audit": {
                "name": f"audits/{wanted['audit']}",
                "nonce": wanted["nonce"],
                **self._times(),
                "submitted_at": wanted["submitted_at"],
            },
            "model": {
                "manifest_sha256": wanted["model"]["manifest_sha256"],
                "ingest": {
                    "decisions": [
                        {"path": file.path, "decision": "accepted", "reason": None, "at": None}
                        for file in self.manifest.files
                    ]
                },
            },
            "base": {**wanted["base"], "ingest": None, "lifetime_output": None} if "base" in wanted else None,
            "access": {"derived": list(self.entry.access)},
            "data": [{**item, "rows": 400, "media_type": "application/jsonl"} for item in wanted["data"]],
            "answers": [self.answer(question["params"]) for question in wanted["checks"]],
            "facts": None,
            "attempts": [self.attempt(1, "CELL_CRASHED", result=False), self.attempt(2, "OK")],
            "environment": forged_parts.environment(),
            "sandbox": {"cells": [forged_parts.cell()]},
            "signer": {"profile": "development"},
        }

    def attempt(self, n: int, exit_class: str, *, result: bool = True) -> dict[str, Any]:
        """Return one attempt at the job "whole", in the minute of the next report."""
        times = self._times()
        return {
            "job": "whole",
            "n": n,
            "started_at": times["started_at"],
            "ended_at": times["ended_at"],
            "exit_class": exit_class,
            "result_sha256": self._hex("result") if result else None,
        }

    def answer(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return a measured answer over two layers, with both controls held."""
        return {
            "check": self.entry.name,
            "version": self.entry.version,
            "code_sha256": self.entry.code_sha256,
            "catalogue_sha256": self.entry.sha256,
            "params": params,
            "outcome": "measured",
            "valid": True,
            "reason": None,
            "step": None,
            "measured": {
                "coverage": {"layer": ["0", "1"]},
                "metrics": [
                    forged_parts.metric("0", "0.512", "0.477", "0.547"),
                    forged_parts.metric("1", "0.861", "0.835", "0.883"),
                ],
                "plots": [],
                "skipped": [],
            },
            "controls": [
                forged_parts.control("ShuffledLabels", "null", "0.503", "0.45", "0.55"),
                forged_parts.control("PlantedTruth", "positive", "0.97", "0.9", "1"),
            ],
            "findings": [
                {
                    "code": "readable",
                    "word": "detected",
                    "severity": "concern",
                    "claim": "A planted direction is readable at layer 1.",
                    "labels": {"layer": "1"},
                    "rests_on": [{"name": "accuracy", "labels": {"layer": "1"}}],
                }
            ],
            "skipped": [],
            "power": [],
        }


def forged_entry(**overrides: Any) -> CheckEntry:
    """Return the catalogue entry of a check that exists only in forged reports."""
    return parse_entry(
        {
            "name": "forged_probe",
            "version": "1.0",
            "summary": "A check that exists only in tests.",
            "source": "assay.testing",
            "access": ["weights", "activations"],
            "params": {"type": "object", "additionalProperties": True},
            "data_roles": [
                {"name": "pairs", "required": True, "media_type": "application/jsonl", "summary": "Pairs of texts."}
            ],
            "metrics": [
                {
                    "name": "accuracy",
                    "unit": "fraction",
                    "labels": ["layer"],
                    "better": "none",
                    "determinism": "statistical",
                    "interval": True,
                    "tolerance": None,
                    "margin": "0.03",
                    "summary": "Share of held-out pairs told apart.",
                }
            ],
            "controls": [
                {"name": "ShuffledLabels", "kind": "null", "bands": [forged_parts.band("0.45", "0.55")]},
                {"name": "PlantedTruth", "kind": "positive", "bands": [forged_parts.band("0.9", "1")]},
            ],
            "words": ["detected", "not_detected"],
            "reasons": ["too_few_items"],
            "code_sha256": hashlib.sha256(b"forged_probe 1.0").hexdigest(),
            "capability": "cpu",
            "time_limit_s": 3600,
            "power": None,
            "false_positive_rate": None,
            **overrides,
        }
    )
