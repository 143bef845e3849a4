"""What a tenant holds and uses, as the database counts it."""

from __future__ import annotations

import hashlib
import random
import threading

import pytest
from sqlalchemy import insert, select, text, update

from service.blobs import MemoryBlobs
from service.rules.errors import Refusal
from service.rules.limits import MS_PER_DAY, Quotas, charged
from service.rules.names import BlobName, UploadName
from service.rules.states import ExitClass
from service.store import gc, quotas, uploads
from service.store.endings import end, take_expired
from service.store.engine import Store, now_ms
from service.store.jobs import Ending
from service.store.tables import attempt, audit, blob_grant
from service.store.tables import blob as blob_table
from service.store.tables_around import quota_use
from tests.service.store.planting import audit_id, leased, registered, submit

SMALL = Quotas(stored_bytes=100_000, unfinished_uploads=3, unfinished_audits=3, gpu_seconds_per_day=10)
"""Small enough to be met."""


def blob(n: int, size: int) -> BlobName:
    return BlobName(f"{n:064x}", size)


def test_bytes_are_those_sent_and_those_on_their_way_each_blob_once(store: Store) -> None:
    with store.begin() as connection:
        uploads.grant(connection, "t", blob(1, 30_000))
        uploads.grant(connection, "u", blob(1, 30_000))
        uploads.grant(connection, "u", blob(2, 500_000))
        for upload_id, name in (("a", blob(3, 20_000)), ("b", blob(3, 20_000)), ("c", blob(1, 30_000))):
            uploads.begin_upload(connection, "t", UploadName(upload_id, name))
        assert quotas.stored_bytes(connection, "t") == 50_000  # 30 sent, 20 coming twice, 30 coming again
        quotas.require_room(connection, "t", SMALL, 50_000)
        with pytest.raises(Refusal, match="stored_bytes is 100000"):
            quotas.require_room(connection, "t", SMALL, 50_001)
        uploads.complete_upload(connection, "t", UploadName("a", blob(3, 20_000)))
        assert quotas.stored_bytes(connection, "t") == 50_000
        assert quotas.stored_bytes(connection, "nobody") == 0


def test_blobs_of_one_byte_fill_a_quota_as_their_files_fill_the_disk(store: Store) -> None:
    with store.begin() as connection:
        for n in range(12):
            uploads.grant(connection, "t", blob(n, 1))
        for n in range(12, 24):
            uploads.begin_upload(connection, "t", UploadName(f"{n}", blob(n, 1)))
        assert quotas.stored_bytes(connection, "t") == 24 * 4096
        with pytest.raises(Refusal, match="stored_bytes is 100000"):
            quotas.require_room(connection, "t", SMALL, 4096)


def test_uploads_that_are_begun_and_never_finished_are_counted_out(store: Store) -> None:
    """Each is a row and a file for a day; also several of one blob, which count as its bytes once."""
    with store.begin() as connection:
        for n in range(3):
            uploads.begin_upload(connection, "t", UploadName(f"{n}", blob(1, 1)))
        quotas.require_upload(connection, "t", SMALL)
        uploads.begin_upload(connection, "t", UploadName("3", blob(1, 1)))
        with pytest.raises(Refusal, match="3 uploads of this tenant are not finished"):
            quotas.require_upload(connection, "t", SMALL)
        quotas.require_upload(connection, "u", SMALL)
        uploads.complete_upload(connection, "t", UploadName("3", blob(1, 1)))
        quotas.require_upload(connection, "t", SMALL)


def summed(store: Store, tenant: str) -> int:
    """Add up what the counter tells, blob by blob."""
    with store.read() as connection:
        sizes = select(blob_table.c.size).join(blob_grant, blob_grant.c.sha256 == blob_table.c.sha256)
        return sum(charged(size) for size in connection.execute(sizes.where(blob_grant.c.tenant == tenant)).scalars())


def test_counter_of_bytes_is_their_sum_whatever_is_sent_again_and_collected(store: Store) -> None:
    chance, blobs = random.Random(4), MemoryBlobs()
    for _ in range(60):
        data, tenant = b"x" * (chance.randrange(1, 20) * 1000), chance.choice("tu")
        name = BlobName(hashlib.sha256(data).hexdigest(), len(data))
        blobs.put(data, name.sha256)
        with store.begin() as connection:
            uploads.grant(connection, tenant, name)
        if chance.random() < 0.2:
            collect(store, blobs)
        with store.read() as connection:
            held = [quotas.stored_bytes(connection, one) for one in "tu"]
        assert held == [summed(store, one) for one in "tu"]
    collect(store, blobs)
    assert (summed(store, "t"), summed(store, "u")) == (0, 0)
    with store.read() as connection:
        assert quotas.stored_bytes(connection, "t") == 0


def collect(store: Store, blobs: MemoryBlobs) -> None:
    """Let both steps of a sweep pass over everything."""
    for _ in range(2):
        with store.begin() as connection:
            connection.execute(update(blob_table).values(stored_at=0, doomed_at=blob_table.c.doomed_at * 0))
            connection.execute(update(blob_grant).values(touched_at=0))
        gc.sweep(store, blobs)


def test_question_for_a_tenants_bytes_reads_no_blob_that_was_sent(store: Store) -> None:
    """With the sum of all blobs every upload got slower with every blob; 150 ms at 100,000."""
    if store.dialect != "sqlite":
        pytest.skip("the plan of SQLite stands for both: the same statement, the same indexes")
    with store.read() as connection:
        sql = str(quotas._COMING.params(of="t").compile(connection, compile_kwargs={"literal_binds": True}))
        steps = [str(row[-1]) for row in connection.execute(text(f"EXPLAIN QUERY PLAN {sql}"))]
    read = [step for step in steps if step.startswith(("SCAN", "SEARCH")) and "anon_" not in step]
    assert not any(step.startswith("SCAN") for step in read), steps
    assert any("ix_upload_unsent" in step for step in read), steps


def test_ended_audits_and_other_tenants_do_not_count(store: Store) -> None:
    with store.begin() as connection:
        for n in range(3):
            submit(connection, n)
        quotas.require_submission(connection, "other", "cpu", SMALL)
        with pytest.raises(Refusal, match="3 audits of this tenant have not ended"):
            quotas.require_submission(connection, "t", "cpu", SMALL)
        connection.execute(update(audit).where(audit.c.id == audit_id(1)).values(state="FAILED"))
        quotas.require_submission(connection, "t", "cpu", SMALL)


def test_last_place_is_taken_once(store: Store) -> None:
    """Ten callers at once, and three places."""
    taken: list[int] = []

    def take(n: int) -> None:
        try:
            with store.begin() as connection:
                quotas.require_submission(connection, "t", "cpu", SMALL)
                submit(connection, n)
            taken.append(n)
        except Refusal:
            pass

    callers = [threading.Thread(target=take, args=(n,)) for n in range(10)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert len(taken) == 3


def _running(store: Store, n: int, capability: str, ran_ms: int) -> None:
    """Plant an audit whose first attempt started so long ago, and end it as lost or drained."""
    held = leased(store, registered(store, n, capability=capability))
    with store.begin() as connection:
        started = now_ms(connection) - ran_ms
        connection.execute(update(attempt).where(attempt.c.audit == audit_id(n)).values(started_at=started))
    with store.begin() as connection:
        if n % 2:
            take_expired(connection, held.job, held.token, 0)
        else:
            end(connection, held, Ending(exit_class=ExitClass.DRAINED))


def _used(store: Store) -> int:
    with store.read() as connection:
        return sum(connection.execute(select(quota_use.c.used)).scalars())


def test_gpu_time_is_charged_when_an_attempt_ends_however_it_ends(store: Store) -> None:
    _running(store, 0, "cpu", 60_000)
    assert _used(store) == 0
    _running(store, 2, "gpu-24g", 4_000)
    assert 4_000 <= _used(store) < 4_900
    _running(store, 3, "gpu-80g", 7_000)
    assert 11_000 <= _used(store) < 12_900
    wide = Quotas(unfinished_audits=99, gpu_seconds_per_day=10)
    with store.begin() as connection:
        quotas.require_submission(connection, "t", "cpu", wide)
        quotas.require_submission(connection, "u", "gpu-24g", wide)
        # The machine's midnight may lie between: then both days were charged and neither is spent.
        days = connection.execute(select(quota_use.c.day)).scalars().all()
        if len(days) == 1 and days[0] == now_ms(connection) // MS_PER_DAY:
            with pytest.raises(Refusal, match="gpu_seconds_per_day is 10"):
                quotas.require_submission(connection, "t", "gpu-24g", wide)


def test_yesterday_does_not_count(store: Store) -> None:
    with store.begin() as connection:
        yesterday = now_ms(connection) // MS_PER_DAY - 1
        connection.execute(insert(quota_use).values(tenant="t", quota=quotas.GPU, day=yesterday, used=10**9))
        quotas.require_submission(connection, "t", "gpu-24g", SMALL)
