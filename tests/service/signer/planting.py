"""Plants an audit in a database and a blob folder, as api, worker and scheduler would have written it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from assay import canonical
from assay.catalogue import Catalogue
from assay.manifest import FileEntry, Manifest
from assay.testing import Forge, forged_entry
from sqlalchemy import create_engine, insert, update
from sqlalchemy.sql import Executable

from service.signer.desk import Desk
from service.signer.evidence import Evidence
from service.signer.folder import Folder
from service.signer.journal import Journal
from service.signer.keys import ensure_key, ensure_log_key, load_key, load_log_key
from service.signer.process import answer
from service.signer.rows import Rows
from service.store.tables import attempt, audit, job, model, result
from tests.service.store.fresh import migrated

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DATA = b'{"id":"a"}\n\n{"id":"b"}\n{"id":"c"}'


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


class World:
    """One audit `id` with its blobs, a signer's desk, and the steps of other rooms as methods."""

    def __init__(
        self, root: Path, *, profile: str = "development", checks: int = 1, base: bool = False, **entry: Any
    ) -> None:
        self.root = root
        self.forge = Forge(root / "forge", seed=11)
        self.forge.entry = forged_entry(**entry)
        self.base = self._second() if base else None
        self.url = migrated(root / "assay.db")
        self.now = START
        self.key_file = root / "signer" / "report.key.pem"
        self.log_key_file = root / "signer" / "log.key.pem"
        self.journal: Journal | None = None
        self.id = hashlib.sha256(str(root).encode()).hexdigest()[:32]
        for path in self.forge.model_dir.iterdir():
            self.put(path.read_bytes())
        self.request = self._request(checks)
        self.request_sha256 = self.put(canonical.dumps(self.request))
        self.put(self.forge.manifest.data)
        self.desk = self.open_desk(profile)
        size = {"bytes": self.forge.manifest.size, "files": len(self.forge.manifest.files)}
        row = {"tenant": "t", "manifest_sha256": self.forge.manifest.digest, **size, "created_at": ms(START)}
        self.execute(
            insert(audit).values(self._audit()),
            insert(job).values(id=self.id, audit=self.id, kind="whole", capability="cpu", state="QUEUED"),
            insert(model).values(row),
        )

    def _second(self) -> Manifest:
        files = {"config.json": b'{"model_type":"gpt2","n_layer":3}\n', "model.safetensors": bytes(16)}
        entries = [FileEntry(path=path, sha256=self.put(data), size=len(data)) for path, data in files.items()]
        made = Manifest(tuple(entries))
        self.put(made.data)
        return made

    def open_desk(self, profile: str = "development") -> Desk:
        home = Folder(self.root / "signer")
        self.close()
        ensure_log_key(self.log_key_file)
        self.journal = Journal(home.log, "log.assay.example", load_log_key(self.log_key_file), lambda: self.now)
        return Desk(
            rows=Rows(self.url),
            evidence=Evidence(self.root / "blobs"),
            home=home,
            journal=self.journal,
            catalogue=Catalogue((self.forge.entry,), "0" * 64),
            public_file=ensure_key(self.key_file),
            private=load_key(self.key_file),
            profile=profile,
            clock=lambda: self.now,
        )

    def close(self) -> None:
        """Let go of the log; a log has one writer."""
        if self.journal is not None:
            self.journal.close()

    def execute(self, *statements: Executable) -> None:
        engine = create_engine(self.url)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA synchronous=OFF")  # a planted row need not outlive a power cut
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        engine.dispose()

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest

    def blob(self, digest: str) -> Path:
        return self.root / "blobs" / "sha256" / digest[:2] / digest[2:4] / digest

    def ask(self, **asked: Any) -> dict[str, Any]:
        return answer(self.desk, {"audit": self.id, **asked})

    def _request(self, checks: int) -> dict[str, Any]:
        return {
            "schema": "assay-request/v1",
            "audit": self.id,
            "nonce": "ab" * 32,
            "model": {"manifest_sha256": self.forge.manifest.digest},
            **({"base": {"manifest_sha256": self.base.digest}} if self.base else {}),
            "checks": [
                {"name": self.forge.entry.name, "version": self.forge.entry.version, "params": {"part": part}}
                for part in range(checks)
            ],
            "data": [{"role": "pairs", "sha256": self.put(DATA)}],
            "limits": {"attempts_max": 3, "output_bytes": 1 << 20, "wall_s": 600},
            "seed_mode": "derived",
            "submitted_at": "2026-01-02T03:04:05Z",
        }

    def _audit(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "tenant": "t",
            "principal": "p",
            "model_sha256": self.forge.manifest.digest,
            "base_sha256": self.base.digest if self.base else None,
            "checks": self.forge.entry.name,
            "request_sha256": self.request_sha256,
            "submission": b"",
            "state": "QUEUED",
            "attempts_max": 3,
            "last_sequence": 0,
            "submitted_at": ms(START),
        }

    def register(self) -> dict[str, Any]:
        """Let the signer register, store what it said as the scheduler does."""
        registration: dict[str, Any] = self.ask(op="register")["registration"]
        self.set(registration_json=json.dumps(registration), registered_at=ms(self.now))
        return registration

    def set(self, **values: Any) -> None:
        self.execute(self._change(**values))

    def _change(self, **values: Any) -> Executable:
        return update(audit).where(audit.c.id == self.id).values(**values)

    def record(self, **changes: Any) -> dict[str, Any]:
        """Return an honest host record, fields replaced."""
        predicate = self.forge.statement(self.forge.report())["predicate"]
        return {
            "schema": "assay-host-record/v1",
            "audit": self.id,
            "token": 2,
            "answers": [self.forge.answer(question["params"]) for question in self.request["checks"]],
            "ingest": predicate["model"]["ingest"],
            **({"base_ingest": {"decisions": []}} if self.base else {}),
            "facts": None,
            "environment": predicate["environment"],
            "sandbox": predicate["sandbox"],
            **changes,
        }

    def finish(self, record: dict[str, Any] | bytes | None = None) -> str:
        """Let two attempts end, the second with this record, and the audit wait for its seal."""
        data = record if isinstance(record, bytes) else canonical.dumps(record or self.record())
        digest = self.put(data)
        attempts: list[Executable] = []
        for n, (exit_class, stored) in enumerate((("CELL_CRASHED", None), ("OK", digest)), start=1):
            self.now += timedelta(seconds=3)
            attempts.append(
                insert(attempt).values(
                    audit=self.id,
                    n=n,
                    job=self.id,
                    job_label="whole",
                    token=n,
                    worker="w",
                    started_at=ms(self.now),
                    ended_at=ms(self.now) + 1500,
                    exit_class=exit_class,
                    result_sha256=stored,
                )
            )
        self.now += timedelta(seconds=3)
        ended = insert(result).values(audit=self.id, token=2, sha256=digest, finalised_at=ms(self.now))
        self.execute(*attempts, ended, self._change(state="SIGNING"))
        return digest

    def sealed(self) -> dict[str, Any]:
        return self.ask(op="seal", token=2)
