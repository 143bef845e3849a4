"""A blob that is wrongly collected is lost evidence; one that is never collected is somebody's deleted weights."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from assay.api.v1 import audits_pb2, blobs_pb2
from sqlalchemy import insert, select, update

from service.blobs import BlobDamaged, BlobMissing, MemoryBlobs
from service.rules.errors import Refusal
from service.rules.names import BlobName
from service.store import gc, keeping, naming, quotas, references, uploads
from service.store.engine import Store, now_ms
from service.store.gc import DAY_MS
from service.store.tables import attempt, audit, blob, blob_grant, idempotency, job, model, plan, report, result
from service.store.tables_around import approval, schedule
from tests.service.store.planting import audit_id, submit

WEEK = 8 * DAY_MS
HOUR = 3_600_001


class World:
    """A store with blobs, whose clock is moved by making everything older."""

    def __init__(self, store: Store) -> None:
        self.store, self.blobs, self.count = store, MemoryBlobs(), 0

    def put(self, data: bytes | None = None, *, tenant: str | None = "t") -> str:
        self.count += 1
        data = b"blob %d" % self.count if data is None else data
        name = BlobName(hashlib.sha256(data).hexdigest(), len(data))
        keeping.keep(self.store, self.blobs, (name.sha256,))
        self.blobs.put(data, name.sha256)
        with self.store.begin() as connection:
            if tenant is None:
                uploads.record_blob(connection, name)
            else:
                uploads.grant(connection, tenant, name)
        return name.sha256

    def document(self, value: Any, **options: Any) -> str:
        return self.put(json.dumps(value).encode(), **options)

    def age(self, by_ms: int) -> None:
        with self.store.begin() as connection:
            connection.execute(
                update(blob).values(stored_at=blob.c.stored_at - by_ms, doomed_at=blob.c.doomed_at - by_ms)
            )
            connection.execute(update(blob_grant).values(touched_at=blob_grant.c.touched_at - by_ms))
            connection.execute(update(model).values(deleted_at=model.c.deleted_at - by_ms))
            connection.execute(update(idempotency).values(stored_at=idempotency.c.stored_at - by_ms))

    def sweep(self) -> gc.Swept:
        return gc.sweep(self.store, self.blobs)

    def collect(self) -> None:
        """Let both steps pass."""
        self.age(WEEK)
        self.sweep()
        self.age(HOUR)
        self.sweep()

    def there(self) -> set[str]:
        with self.store.read() as connection:
            rows = set(connection.execute(select(blob.c.sha256)).scalars())
        assert rows - {uploads.EMPTY.sha256} == set(self.blobs.digests()) - {uploads.EMPTY.sha256}
        return rows

    def lacks(self, *digests: str, tenant: str = "t") -> list[str]:
        """Return those of the digests that this tenant would be asked to send."""
        names = [BlobName(digest, self.size(digest)) for digest in digests]
        with self.store.read() as connection:
            return [name.sha256 for name in uploads.missing(connection, tenant, names)]

    def size(self, digest: str) -> int:
        with self.store.read() as connection:
            return int(connection.execute(select(blob.c.size).where(blob.c.sha256 == digest)).scalar_one())

    def audit(self, n: int = 0, **values: Any) -> str:
        request = self.document({"audit": n}, tenant=None)
        with self.store.begin() as connection:
            key = submit(connection, n, request_sha256=request)
            told = {"state": "COMPLETED", **values}
            connection.execute(update(audit).where(audit.c.id == key).values(told))
        return key


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


def lone_model(world: World, **values: Any) -> tuple[str, str]:
    """Plant a model; return its manifest and its file."""
    weights = world.put()
    manifest = world.document({"files": [{"path": "model.safetensors", "sha256": weights, "size": 6}]})
    with world.store.begin() as connection:
        row = {"tenant": "t", "manifest_sha256": manifest, "bytes": 6, "files": 1, "created_at": 1}
        connection.execute(insert(model).values(**row, **values))
    return manifest, weights


def as_column(table: Any, **fixed: Any) -> Callable[[World, str, str], None]:
    def plant(world: World, key: str, digest: str) -> None:
        row = {name: digest if value is DIGEST else key if value is KEY else value for name, value in fixed.items()}
        with world.store.begin() as connection:
            connection.execute(insert(table).values(**row))

    return plant


def in_audit(column: str, told: Callable[[str], Any] = str) -> Callable[[World, str, str], None]:
    def plant(world: World, key: str, digest: str) -> None:
        with world.store.begin() as connection:
            connection.execute(update(audit).where(audit.c.id == key).values(**{column: told(digest)}))

    return plant


def in_record(world: World, key: str, digest: str) -> None:
    """An artefact that only the host's record names."""
    record = world.document({"artefacts": [{"sha256": digest, "size": 1}]}, tenant=None)
    as_column(result, audit=key, token=1, sha256=record, finalised_at=1)(world, key, digest)


def in_envelope(world: World, key: str, digest: str) -> None:
    """An item that only the statement of a first report names, two layers of base64 deep."""
    inner = base64.b64encode(json.dumps({"items": [digest]}).encode()).decode()
    bundle = {"dsse": base64.b64encode(json.dumps({"payload": inner}).encode()).decode()}
    request = world.document({"first": world.document(bundle)}, tenant=None)
    files = json.dumps([{"path": "x", "sha256": request, "size": 1}, *json.loads(f'[{{"sha256": "{digest}"}}]')][:1])
    first = world.document(bundle, tenant=None)
    as_column(attempt, **ATTEMPT, result_sha256=first)(world, key, digest)
    as_column(report, audit=key, n=1, files_json=files, key_id="k", signed_at=1)(world, key, digest)


DIGEST, KEY = object(), object()
ATTEMPT = {"audit": KEY, "n": 1, "job": KEY, "job_label": "whole", "token": 1, "worker": "w", "started_at": 1}
APPROVAL = {"id": "a", "model_sha256": "m", "owner_tenant": "o", "grantee_tenant": "t", "max_runs": 1, "not_after": 1}


def in_approval(world: World, key: str, digest: str) -> None:
    payload = base64.b64encode(json.dumps({"data": [digest]}).encode()).decode()
    envelope = json.dumps({"payload": payload}).encode()
    as_column(approval, **APPROVAL, envelope=envelope, envelope_sha256="e", created_at=1)(world, key, digest)


def in_manifest(world: World, key: str, digest: str) -> None:
    manifest = world.document({"files": [{"sha256": digest}]})
    as_column(model, tenant="t", manifest_sha256=manifest, bytes=1, files=1, created_at=1)(world, key, digest)


SCHEDULE = {"tenant": "t", "id": "s", "principal": "p", "cron": "@daily", "time_zone": "UTC", "misfire": "ONCE",
            "overlap": "SKIP", "considered_until": 1, "created_at": 1}  # fmt: skip
HOLDERS: dict[str, Callable[[World, str, str], None]] = {
    "model of an audit": in_audit("model_sha256"),
    "base of an audit": in_audit("base_sha256"),
    "data of an audit": in_audit("submission", lambda digest: b"\x0a\x40" + digest.encode() + b"2\x01"),
    "request that is no blob yet": in_audit("request_json", lambda digest: json.dumps({"x": digest}).encode()),
    "registration": in_audit("registration_json", lambda digest: json.dumps({"x": digest})),
    "result of an attempt": as_column(attempt, **ATTEMPT, result_sha256=DIGEST),
    "record": as_column(result, audit=KEY, token=1, sha256=DIGEST, finalised_at=1),
    "artefact": in_record,
    "item of a first report": in_envelope,
    "part": lambda world, key, digest: _job(world, key, digest),
    "plan": as_column(plan, audit=KEY, shards=2, document_sha256=DIGEST, document_size=1, planned_at=1),
    "carried": lambda world, key, digest: as_column(
        plan, audit=KEY, shards=2, document_sha256=world.document({}, tenant=None), document_size=1,
        carried_sha256=DIGEST, carried_size=1, planned_at=1,
    )(world, key, digest),
    "report": lambda world, key, digest: _report(world, key, digest),
    "approval": in_approval,
    "schedule": lambda world, key, digest: as_column(
        schedule, **SCHEDULE, template=digest.encode()
    )(world, key, digest),
    "manifest": in_manifest,
}  # fmt: skip
"""Every place that can name a blob."""


def _job(world: World, key: str, digest: str) -> None:
    with world.store.begin() as connection:
        connection.execute(update(job).where(job.c.audit == key).values(part_sha256=digest))


def _report(world: World, key: str, digest: str) -> None:
    files = json.dumps([{"path": "report.json", "sha256": digest, "size": 1}])
    as_column(report, audit=key, n=1, files_json=files, key_id="k", signed_at=1)(world, key, digest)


@pytest.mark.parametrize("place", HOLDERS)
def test_what_anything_refers_to_is_never_collected(world: World, place: str) -> None:
    key, digest, lost = world.audit(), world.document([place]), world.document(["nobody", place])
    HOLDERS[place](world, key, digest)
    world.collect()
    assert digest in world.there()
    assert lost not in world.there()


def test_every_column_that_may_hold_a_digest_is_looked_at() -> None:
    """A new column with a digest in its name has to be decided about."""
    from service.store.schema import metadata

    apart = {
        "audit_log", "access_log.previous_sha256", "access_log.sha256", "approval.envelope_sha256",
        "approval.model_sha256", "blob.sha256", "blob_grant.sha256", "upload.sha256", "idempotency.request_sha256",
        "model.manifest_sha256", "output_total.model_sha256", "output_charge.model_sha256", "token_use.token_sha256",
        "report_file.sha256", "revoked_certificate.sha256",
    }  # fmt: skip
    looked = {str(place.column) for place in naming.PLACES}
    digests = {str(column) for table in metadata.tables.values() for column in table.c if "sha256" in column.name}
    assert digests - looked <= apart


def test_request_that_is_no_blob_yet_does_not_stop_the_sweep(world: World) -> None:
    with world.store.begin() as connection:
        submit(connection, 1, request_sha256="ef" * 32)
        connection.execute(update(audit).values(request_json=b"{}", state="COMPLETED"))
    assert "ef" * 32 in references.find(world.store, world.blobs).kept


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_random_references_decide_alone(world: World, seed: int) -> None:
    """Blobs with and without holders, of random kinds: exactly the unheld go."""
    chance, held, free = random.Random(seed), set[str](), set[str]()
    places = [place for place in HOLDERS if place not in ("approval", "schedule")]
    for n in range(12 if seed == 0 else 120):
        key, digest = world.audit(n), world.put()
        if chance.random() < 0.3:
            free.add(digest)
            continue
        place = chance.choice([one for one in places if one != "result of an attempt"])
        digest = world.document({"n": n})
        HOLDERS[place](world, key, digest)
        held.add(digest)
    world.collect()
    there = world.there()
    assert held <= there
    assert not free & there


def test_a_blob_goes_in_two_steps_and_only_after_a_week_and_an_hour(world: World) -> None:
    digest = world.put()
    assert world.sweep() == gc.Swept()
    world.age(7 * DAY_MS + 1000)
    assert gc.sweep(world.store, world.blobs, dry_run=True).doomed == 1
    assert world.sweep().doomed == 1
    assert digest in world.there()
    assert not gc.is_due(world.store)
    assert world.sweep() == gc.Swept()
    world.age(HOUR)
    assert gc.is_due(world.store)
    assert gc.sweep(world.store, world.blobs, dry_run=True).deleted == 1
    assert world.sweep().deleted == 1
    assert digest not in world.there()


def test_a_doomed_blob_is_missing_and_sending_it_again_saves_it(world: World) -> None:
    digest = world.put(b"wanted")
    world.age(WEEK)
    world.sweep()
    with world.store.read() as connection, pytest.raises(Refusal, match="missing"):
        uploads.require_granted(connection, "t", [BlobName(digest, 6)])
    assert world.put(b"wanted") == digest
    world.age(HOUR)
    assert world.sweep().deleted == 0
    with world.store.read() as connection:
        uploads.require_granted(connection, "t", [BlobName(digest, 6)])


def test_a_blob_asked_for_between_look_and_step_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = world.put(b"wanted")
    world.age(WEEK)
    find = references.find

    def ask_meanwhile(*arguments: Any) -> Any:
        found = find(*arguments)
        with world.store.begin() as connection:
            uploads.touch(connection, "t", [BlobName(digest, 6)])
        return found

    monkeypatch.setattr(references, "find", ask_meanwhile)
    assert world.sweep().doomed == 0


def test_a_blob_kept_between_look_and_deletion_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker puts the same bytes as its artefact while the sweep is under way."""
    digest = world.put(b"wanted")
    world.age(WEEK)
    world.sweep()
    world.age(HOUR)
    find = references.find

    def put_meanwhile(*arguments: Any) -> Any:
        found = find(*arguments)
        keeping.keep(world.store, world.blobs, (digest,))
        return found

    monkeypatch.setattr(references, "find", put_meanwhile)
    assert world.sweep().deleted == 0
    assert digest in world.there()


def test_a_doomed_blob_that_something_refers_to_after_all_is_taken_back(world: World) -> None:
    key, digest = world.audit(), world.put()
    world.age(WEEK)
    world.sweep()
    HOLDERS["model of an audit"](world, key, digest)
    world.age(HOUR)
    assert world.sweep().revived == 1
    assert world.sweep().deleted == 0


def test_a_document_that_cannot_be_read_stops_the_sweep(world: World) -> None:
    key, lost = world.audit(), world.put()
    as_column(result, audit=key, token=1, sha256="ab" * 32, finalised_at=1)(world, key, "")
    world.age(WEEK)
    with pytest.raises(references.ReferencesUnreadable, match="abab"):
        world.sweep()
    assert lost in world.there()


def test_a_rotten_manifest_stops_the_sweep_and_is_asked_for_again(world: World) -> None:
    """One changed digit inside a live model's manifest must not free its weights."""
    manifest, weights = lone_model(world)
    data = world.blobs._bytes[manifest]
    world.blobs._bytes[manifest] = data.replace(weights.encode(), ("0" * 8 + weights[8:]).encode())
    world.age(WEEK)
    with pytest.raises(references.ReferencesUnreadable, match=manifest):
        gc.sweep(world.store, world.blobs, dry_run=True)
    assert world.lacks(manifest) == []
    for _ in range(2):
        with pytest.raises(references.ReferencesUnreadable, match=manifest):
            world.sweep()
        world.age(HOUR)
    assert {manifest, weights} <= world.there()
    assert world.lacks(manifest) == [manifest]
    world.put(data)
    world.collect()
    assert weights in world.there()


def test_a_rotten_document_of_any_size_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "WHOLE_MAX", 100)
    key, record = world.audit(), world.put(b"x" * 1000)
    as_column(result, audit=key, token=1, sha256=record, finalised_at=1)(world, key, "")
    world.age(WEEK)
    world.sweep()
    world.blobs._bytes[record] = b"x" * 999 + b"y"
    with pytest.raises(references.ReferencesUnreadable, match=record):
        world.sweep()


def test_a_rotten_manifest_of_a_purged_model_frees_nothing(world: World) -> None:
    manifest, weights = lone_model(world, deleted_at=1, purged_at=1)
    key, kept = world.audit(model_sha256=manifest), world.put()
    HOLDERS["report"](world, key, world.document({"kept": kept}))
    world.blobs._bytes[manifest] = world.blobs._bytes[manifest].replace(weights.encode(), kept.encode())
    world.collect()
    assert kept in world.there()


def test_every_lost_document_is_asked_for_by_one_sweep(world: World) -> None:
    lost = [lone_model(world)[0] for _ in range(3)]
    for manifest in lost:
        world.blobs.delete(manifest)
    with pytest.raises(references.ReferencesUnreadable, match="3 blobs"):
        world.sweep()
    assert world.lacks(*lost) == []  # nothing at all is there: a share that is not mounted has lost nothing
    lone_model(world)
    with pytest.raises(references.ReferencesUnreadable, match="3 blobs"):
        world.sweep()
    assert world.lacks(*lost) == lost


def test_a_document_that_a_bucket_has_damaged_is_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (manifest, _), _ = lone_model(world), lone_model(world)
    opened = world.blobs.open

    def damaged(digest: str) -> Any:
        if digest == manifest:
            raise BlobDamaged("other bytes")
        return opened(digest)

    monkeypatch.setattr(world.blobs, "open", damaged)
    with pytest.raises(references.ReferencesUnreadable, match=manifest):
        world.sweep()
    assert world.lacks(manifest) == [manifest]


def test_a_disk_that_fails_a_read_asks_nobody_to_send_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, _ = lone_model(world)

    def fails(_digest: str) -> Any:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(world.blobs, "open", fails)
        with pytest.raises(references.ReferencesUnreadable, match=manifest):
            world.sweep()
    assert world.lacks(manifest) == []


def test_weights_of_a_deleted_model_go_after_a_month_and_its_reports_stay(world: World) -> None:
    manifest, weights = lone_model(world)
    key = world.audit(model_sha256=manifest)
    report_file = world.document({"weights": weights})
    HOLDERS["report"](world, key, report_file)
    with world.store.begin() as connection:
        connection.execute(update(model).values(deleted_at=now_ms(connection)))
    world.collect()
    assert weights in world.there()
    world.age(30 * DAY_MS)
    assert world.sweep().models_purged == 1
    world.age(HOUR)
    assert world.sweep().deleted == 1
    assert {manifest, report_file} <= world.there()
    assert weights not in world.there()


def test_files_of_a_purged_model_that_another_model_has_stay(world: World) -> None:
    manifest, weights = lone_model(world, deleted_at=1, purged_at=1)
    world.audit(model_sha256=manifest)
    other = world.document({"files": [{"sha256": weights}], "other": 1})
    as_column(model, tenant="u", manifest_sha256=other, bytes=1, files=1, created_at=1)(world, "", "")
    world.collect()
    assert weights in world.there()


def test_a_model_that_an_audit_still_reads_is_not_purged(world: World) -> None:
    manifest, weights = lone_model(world, deleted_at=1)
    key = world.audit(model_sha256=manifest)
    with world.store.begin() as connection:
        connection.execute(update(audit).where(audit.c.id == key).values(state="QUEUED"))
    world.collect()
    assert weights in world.there()


def waits(world: World, n: int, **values: Any) -> str:
    """Plant a stranger's audit that nobody has consented to."""
    return world.audit(n, **{"tenant": "u", "state": "AWAITING_APPROVAL", **values})


def test_an_audit_that_waits_for_a_model_that_nobody_has_stops_no_sweep(world: World) -> None:
    waits(world, 1, model_sha256="cd" * 32, base_sha256="ce" * 32)
    free = world.put()
    world.collect()
    assert free not in world.there()


def test_a_stranger_who_waits_for_consent_holds_no_deleted_weights(world: World) -> None:
    manifest, weights = lone_model(world, deleted_at=1)
    waits(world, 1, model_sha256=manifest)
    world.collect()
    assert weights not in world.there()
    assert manifest in world.there()


def rival(world: World, *files: str, tenant: str = "m", n: int = 50, **values: Any) -> str:
    """Plant a model of another tenant, with its ended audit; return its manifest."""
    manifest = world.document({"files": [{"path": name, "sha256": name} for name in files], "of": tenant})
    row = {"tenant": tenant, "manifest_sha256": manifest, "bytes": 6, "files": 1, "created_at": 1, **values}
    with world.store.begin() as connection:
        connection.execute(insert(model).values(**row))
        for digest in files:
            uploads.grant(connection, tenant, BlobName(digest, world.size(digest)))
    key = world.audit(n, tenant=tenant, model_sha256=manifest)
    HOLDERS["report"](world, key, world.document({"subject": [*files], "by": tenant}))
    return manifest


def test_a_stranger_who_deletes_a_model_takes_nobodys_evidence_along(world: World) -> None:
    """The same bytes are an item that a first report's request names, and a stranger's config.json."""
    item, own = world.put(), world.put(tenant="m")
    request = world.document({"items": [item]}, tenant=None)
    with world.store.begin() as connection:
        submit(connection, 1, request_sha256=request)
        connection.execute(update(audit).values(state="COMPLETED"))
    manifest = rival(world, item, own, deleted_at=1)
    world.collect()
    world.age(40 * DAY_MS)
    world.collect()
    with world.store.read() as connection:
        assert connection.execute(select(model.c.purged_at).where(model.c.manifest_sha256 == manifest)).scalar_one()
    assert item in world.there()
    assert own not in world.there()
    assert world.lacks(item) == []
    assert world.lacks(item, tenant="m") == [item]


@pytest.mark.parametrize("state", ["QUEUED", "SIGNING"])
def test_what_a_record_names_stays_until_its_report_is_signed_whatever_a_stranger_deletes(
    world: World, state: str
) -> None:
    artefact = world.put(tenant=None)
    key = world.audit(1, state=state)
    in_record(world, key, artefact)
    rival(world, artefact, deleted_at=1, purged_at=1)
    world.collect()
    assert artefact in world.there()


WRITTEN: dict[str, Callable[[World, str], Any]] = {
    "label": lambda world, digest: world.audit(1, tenant="m", submission=digest.encode()),
    "model": lambda world, digest: waits(world, 1, tenant="m", model_sha256=digest),
    "base": lambda world, digest: waits(world, 1, tenant="m", base_sha256=digest),
    "request": lambda world, digest: waits(world, 1, tenant="m", request_json=digest.encode()),
    "schedule": lambda world, digest: as_column(schedule, **{**SCHEDULE, "tenant": "m"}, template=digest.encode())(
        world, "", ""
    ),
    "result": lambda world, digest: HOLDERS["report"](
        world, world.audit(1, tenant="m"), world.document({"text": digest}, tenant=None)
    ),
}
"""Where a stranger can write a digest that it only knows."""


@pytest.mark.parametrize("where", WRITTEN)
def test_nobody_holds_deleted_weights_by_writing_their_digest_down(world: World, where: str) -> None:
    manifest, weights = lone_model(world, deleted_at=1)
    WRITTEN[where](world, weights)
    world.collect()
    assert weights not in world.there()
    assert manifest in world.there()


def test_who_has_sent_the_bytes_keeps_them_by_naming_them(world: World) -> None:
    _, weights = lone_model(world, deleted_at=1)
    with world.store.begin() as connection:
        uploads.grant(connection, "m", BlobName(weights, world.size(weights)))
    WRITTEN["label"](world, weights)
    world.collect()
    assert weights in world.there()


def test_items_of_a_report_that_is_repeated_stay_while_the_audit_lives(world: World) -> None:
    """They are named in the report's bundle alone, and a request names the bundle."""
    item = world.put()
    inner = base64.b64encode(json.dumps({"items": [item], "and": "x" * 30}).encode()).decode()
    first = world.document({"dsse": {"payload": inner}})
    asked = audits_pb2.Audit(first_report=blobs_pb2.Digest(sha256=first, size=world.size(first)))
    key = world.audit(1, state="QUEUED", submission=asked.SerializeToString())
    world.collect()
    assert item in world.there()
    with world.store.begin() as connection:
        connection.execute(update(audit).where(audit.c.id == key).values(state="COMPLETED"))
    world.collect()
    assert item not in world.there()


def test_what_others_have_does_not_lengthen_a_grant(world: World) -> None:
    """A stranger who sent the bytes of a live model learns from no answer that somebody has it."""
    _, weights = lone_model(world)
    free = world.put()
    with world.store.begin() as connection:
        for digest in (weights, free):
            uploads.grant(connection, "m", BlobName(digest, world.size(digest)))
    assert world.sweep().grants_expired == 0
    world.age(WEEK)
    assert gc.sweep(world.store, world.blobs, dry_run=True).grants_expired == 0
    assert world.lacks(weights, tenant="m") == []
    assert world.sweep().grants_expired == 3
    assert sorted(world.lacks(weights, free, tenant="m")) == sorted([weights, free])
    assert world.lacks(weights) == []
    with world.store.read() as connection:
        assert quotas.stored_bytes(connection, "m") == 0
    world.age(HOUR)
    world.sweep()
    assert weights in world.there()


def test_a_grant_that_was_touched_or_is_named_stays(world: World) -> None:
    named, touched = world.put(), world.put()
    HOLDERS["data of an audit"](world, world.audit(), named)
    world.age(WEEK)
    with world.store.begin() as connection:
        uploads.touch(connection, "t", [BlobName(touched, world.size(touched))])
    world.sweep()
    assert world.lacks(named, touched) == []


def test_a_grant_touched_between_look_and_step_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = world.put()
    world.age(WEEK)
    take = keeping._take_grants

    def touch_meanwhile(*arguments: Any) -> int:
        with world.store.begin() as connection:
            uploads.touch(connection, "t", [BlobName(digest, world.size(digest))])
        return take(*arguments)

    monkeypatch.setattr(keeping, "_take_grants", touch_meanwhile)
    assert world.sweep().grants_expired == 0
    assert world.lacks(digest) == []


def test_bytes_without_a_row_age_as_others_do(world: World) -> None:
    digest = hashlib.sha256(b"left behind").hexdigest()
    world.blobs.put(b"left behind", digest)
    assert world.sweep().adopted == 1
    world.collect()
    with pytest.raises(BlobMissing):
        world.blobs.open(digest)


def test_a_store_that_fails_to_delete_leaves_the_row(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = world.put()
    world.age(WEEK)
    world.sweep()
    world.age(HOUR)

    def fails(_digest: str) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(world.blobs, "delete", fails)
        with pytest.raises(OSError, match="no"):
            world.sweep()
    assert digest in world.there()
    assert world.sweep().deleted == 1


def test_a_corrupt_blob_is_missing_until_it_is_sent_again(world: World) -> None:
    digest = world.put(b"sound")
    world.blobs._bytes[digest] = b"rotten"
    with world.store.begin() as connection:
        assert keeping.quarantine(connection, digest)
        assert not keeping.quarantine(connection, digest)
    with world.store.read() as connection:
        assert uploads.missing(connection, "t", [BlobName(digest, 5)]) == (BlobName(digest, 5),)
    assert world.sweep().absolved == 0
    world.put(b"sound")
    with world.store.read() as connection:
        assert uploads.missing(connection, "t", [BlobName(digest, 5)]) == ()
    with world.blobs.open(digest) as file:
        assert file.read() == b"sound"


def test_a_restored_blob_is_absolved_by_the_next_sweep(world: World) -> None:
    digest = world.put(b"sound")
    with world.store.begin() as connection:
        keeping.quarantine(connection, digest)
    assert world.sweep().absolved == 1


def test_requests_are_remembered_for_a_week(world: World) -> None:
    row = {"principal": "p", "method": "m", "request_id": "r", "request_sha256": "s", "resource": audit_id(0)}
    with world.store.begin() as connection:
        connection.execute(insert(idempotency).values(**row, stored_at=now_ms(connection)))
    assert world.sweep().requests_forgotten == 0
    world.age(7 * DAY_MS + 1000)
    assert world.sweep().requests_forgotten == 1
