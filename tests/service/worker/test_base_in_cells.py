"""A model and its base in real cells, up to a report that verifies: read apart, measured together, handed out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assay import canonical
from assay.catalogue import Catalogue, parse
from assay.cli.reading import read_predicate
from assay.manifest import FileEntry, Manifest
from assay.verify import verify
from safetensors.numpy import load_file, save_file
from sqlalchemy import select, update
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from checks.catalogue import catalogue_json
from sandbox import BubblewrapCell, CodeMount
from service.blobs import LocalBlobs
from service.signer.desk import Desk
from service.signer.evidence import Evidence
from service.signer.folder import Folder
from service.signer.journal import Journal
from service.signer.keys import ensure_key, ensure_log_key, load_key, load_log_key
from service.signer.process import answer
from service.signer.rows import Rows
from service.store import tables
from service.store.audits import register
from service.store.tables import attempt, audit, output_charge
from service.store.uploads import insert_absent
from service.worker.attempt import Attempts
from service.worker.code import Guest, _rehearsal_sha256
from tests.service.store.planting import audit_id, new_store, submit
from tests.service.worker.guest_checks import GUESTS
from tests.service.worker.scripted import house
from tests.service.worker.test_two_cells import CODE, Watched, gpt2
from tests.service.worker.test_two_cells import bubblewrap as bubblewrap


def catalogue(code_sha256: str) -> Catalogue:
    """Return the guests' catalogue with what the check `apart` can read and hand out."""
    told = catalogue_json(GUESTS)
    for entry in told["checks"]:
        entry["code_sha256"] = code_sha256
        if entry["name"] == "apart":
            spec = GUESTS["apart"].artefacts[0]
            fields = ("name", "media_type", "max_bytes", "summary")
            entry |= {"base_model": True, "artefacts": [{one: getattr(spec, one) for one in fields}]}
    return parse(canonical.dumps(told))


def copied(folder: Path) -> tuple[CodeMount, ...]:
    """Return the code as it is now: signer and worker must see the same bytes while others write at it."""
    folder.mkdir()
    made = []
    for mount in CODE:
        target = folder / mount.name
        if mount.source.is_dir():
            shutil.copytree(mount.source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(mount.source, target)
        made.append(CodeMount(name=mount.name, source=target))
    return tuple(made)


class Place:
    """A store, files, a worker with real cells and a signer, without the processes around them."""

    def __init__(self, folder: Path, cell: BubblewrapCell) -> None:
        self.folder, self.sent = folder, 0
        self.store = new_store(folder)
        self.blobs = LocalBlobs(folder / "blobs")
        self.cell = Watched(cell, [], [])
        guest = Guest(module="guest_checks", code=copied(folder / "code"))
        self.catalogue = catalogue(_rehearsal_sha256(guest))
        made = house(self.store, folder)
        self.bench = replace(made.bench, blobs=self.blobs, cell=self.cell, guest=guest, catalogue=self.catalogue)
        key, log_key = folder / "signer" / "report.key.pem", folder / "signer" / "log.key.pem"
        ensure_log_key(log_key)
        self.desk = Desk(
            rows=Rows(f"sqlite:///{folder}/assay.db"),
            evidence=Evidence(folder / "blobs"),
            home=Folder(folder / "signer"),
            catalogue=self.catalogue,
            journal=Journal(folder / "log", "log.assay.example", load_log_key(log_key), lambda: datetime.now(UTC)),
            public_file=ensure_key(key),
            private=load_key(key),
            profile="production",
            clock=lambda: datetime.now(UTC),
        )

    def send(self, model: Path) -> Manifest:
        entries = []
        for file in sorted(one for one in model.rglob("*") if one.is_file()):
            digest = self.put(file.read_bytes())
            entries.append(FileEntry(path=file.relative_to(model).as_posix(), sha256=digest, size=file.stat().st_size))
        made = Manifest(tuple(entries))
        self.put(made.data)
        row = {"tenant": "t", "manifest_sha256": made.digest, "bytes": 1, "files": len(entries), "created_at": 1}
        with self.store.begin() as connection:
            insert_absent(connection, tables.model, row)
        return made

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs.put(data, digest)
        return digest

    def audit(self, model: Path, base: Path | None) -> tuple[Path, dict[str, Any]]:
        """Register, run, seal and verify; return the report and its predicate."""
        self.sent += 1
        key, digests = audit_id(self.sent), [self.send(one).digest for one in (model, base) if one]
        request = canonical.dumps(
            {
                "schema": "assay-request/v1",
                "audit": key,
                "nonce": "11" * 32,
                "model": {"manifest_sha256": digests[0]},
                **({"base": {"manifest_sha256": digests[1]}} if base else {}),
                "checks": [{"name": "apart", "version": "1.0", "params": {}}],
                "data": [],
                "limits": {"attempts_max": 3, "output_bytes": 65_536, "wall_s": 60},
                "seed_mode": "derived",
                "submitted_at": "2026-01-02T03:04:05Z",
            }
        )
        with self.store.begin() as connection:
            submit(connection, self.sent, request_sha256=self.put(request))
            named = {"model_sha256": digests[0], "base_sha256": digests[1] if base else None}
            connection.execute(update(audit).where(audit.c.id == key).values(**named))
        told = answer(self.desk, {"audit": key, "op": "register"})["registration"]
        with self.store.begin() as connection:
            register(connection, key, told)
        Attempts(self.bench).attempt(key)
        with self.store.read() as connection:
            ended = connection.execute(select(attempt.c.exit_class, attempt.c.operator_note)).all()
        assert ended[-1].exit_class in ("OK", "REFUSED"), ended[-1].operator_note
        report = Path(answer(self.desk, {"audit": key, "op": "seal", "token": 1})["directory"])
        seen = verify(report, keys=[self.desk.public_file], catalogue=self.catalogue, model_dir=model)
        assert seen.outcome == "verified", seen.render_text()
        return report, read_predicate(report)


@pytest.fixture
def place(tmp_path: Path, bubblewrap: BubblewrapCell) -> Iterator[Place]:
    bubblewrap.prove()
    made = Place(tmp_path, bubblewrap)
    yield made
    made.store.close()


def loadable(folder: Path) -> Path:
    """Write the small GPT-2 with a tokenizer of four words."""
    made = gpt2(folder)
    words = Tokenizer(WordLevel({word: number for number, word in enumerate("abcd")}, unk_token="a"))
    words.pre_tokenizer = Whitespace()
    words.save(str(made / "tokenizer.json"))
    return made


def moved(source: Path, target: Path, **changes: Any) -> Path:
    """Write a base: the model with another first embedding, or with fields of its config changed."""
    target.mkdir()
    for one in source.iterdir():
        (target / one.name).write_bytes(one.read_bytes())
    tensors = load_file(source / "model.safetensors")
    tensors["wte.weight"] = tensors["wte.weight"] + np.float32(1)
    save_file(tensors, target / "model.safetensors")
    config = json.loads((source / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_a_model_held_against_its_base_is_measured_and_reported(place: Place) -> None:
    model = loadable(place.folder / "model")
    base = moved(model, place.folder / "base")
    report, told = place.audit(model, base)
    [answer] = told["answers"]
    assert answer["outcome"] == "measured", answer
    assert [cell["stage"] for cell in told["sandbox"]["cells"]] == ["ingest", "ingest", "check"]
    assert told["base"]["manifest_sha256"] == place.send(base).digest
    assert {one["path"] for one in told["base"]["ingest"]["decisions"]} >= {"config.json", "model.safetensors"}
    [one] = answer["artefacts"]
    handed = np.frombuffer((report / "artefacts" / one["sha256"]).read_bytes(), "<f4")
    value = float(answer["measured"]["metrics"][0]["value"])
    assert np.linalg.norm(handed) == pytest.approx(value, rel=1e-3)
    assert value > 0
    with place.store.read() as connection:
        charges = connection.execute(select(output_charge.c.model_sha256, output_charge.c.bytes)).all()
    assert len({one.model_sha256 for one in charges}) == 2
    assert all(charge.bytes > one["size"] for charge in charges)
    assert told["base"]["lifetime_output"]["bytes"] == charges[0].bytes


@pytest.mark.slow
def test_without_a_base_the_same_check_says_so(place: Place) -> None:
    _, told = place.audit(loadable(place.folder / "model"), None)
    assert (told["answers"][0]["reason"], told["base"]) == ("no_base", None)


@pytest.mark.slow
def test_a_base_of_another_architecture_is_refused_inside(place: Place) -> None:
    model = loadable(place.folder / "model")
    base = moved(model, place.folder / "base", n_head=2)
    _, told = place.audit(model, base)
    [answer] = told["answers"]
    assert (answer["outcome"], answer["reason"]) == ("refused", "base_mismatch")
    assert [one["item"] for one in answer["skipped"]] == ["base:heads"]
