"""Deliveries: owed once with the audit's end, signed, tried for days with one id and body, in lanes of their own."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from assay import webhooks as receiving_end
from assay.api.v1 import audits_pb2
from sqlalchemy import Connection, insert, select, update

from service.blobs import MemoryBlobs
from service.main.resolver import resolve
from service.queue.memory import MemoryQueue
from service.rules.access import Reach, Role, Scope
from service.rules.addresses import Allowed
from service.rules.callbacks import WAITS_TOLD_MAX
from service.rules.retries import DELAYS_S, Dead, Reply
from service.rules.standard_webhooks import OLD_SECRETS_MAX, Key, Signing
from service.scheduler.deliveries import Deliveries
from service.scheduler.outbound import Outbound, OutboundSettings
from service.scheduler.process import SchedulerSettings, schedule
from service.scheduler.signer_client import SignerClient
from service.store import deliveries as rows
from service.store import webhooks
from service.store.audits import SealedReport, cancel, seal
from service.store.deliveries import DeliveryState, DeliveryView, Lane
from service.store.engine import Store, StoreBusy, now_ms
from service.store.owing import owe_deliveries
from service.store.tables import audit
from service.store.tables_around import approval, approval_use, delivery, journal, webhook
from tests.service.plants.receivers import NAME, PUBLIC, Resolver, Switchboard, answer, receiving, seeded
from tests.service.store.planting import SHA, finished, leased, new_store, registered, submit

KEY = Key(signing=Signing.HMAC, private=b"k" * 32)
URL = f"https://{NAME}/hook"
LANE = Lane("t", "told")
ALL = Scope(reach=Reach.ANY, tenant="t")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = new_store(tmp_path)
    yield opened
    opened.close()


class Clock:
    """The database's clock, a minute ahead so that all that a test makes is due, and moved by hand."""

    def __init__(self, store: Store) -> None:
        with store.read() as connection:
            self.now = now_ms(connection) + 60_000

    def __call__(self, _connection: Connection) -> int:
        return self.now


class Caller:
    """Answers by a script; writes every call down."""

    def __init__(self, script: Callable[[int], Reply] = lambda _n: Reply(status=204)) -> None:
        self.script = script
        self.made: list[tuple[str, Mapping[str, str], bytes]] = []

    def post(self, url: str, headers: Mapping[str, str], body: bytes, tenant: str) -> Reply:
        self.made.append((url, headers, body))
        return self.script(len(self.made))


def wait_for(condition: Callable[[], bool], patience_s: float = 15) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sweep(loop: Deliveries) -> None:
    loop.step()
    wait_for(lambda: not loop._lanes)


def hook(
    store: Store,
    lane: Lane = LANE,
    url: str = URL,
    types: tuple[str, ...] = (),
    key: Key = KEY,
    role: Role = Role.AUDITOR,
) -> None:
    with store.begin() as connection:
        webhooks.create_webhook(connection, lane, url, types, key, role)


def completed(store: Store, n: int = 0) -> str:
    held = leased(store, registered(store, n))
    finished(store, held)
    files = [
        {"path": "report.sigstore.json", "sha256": "cd" * 32, "size": 5},
        {"path": "request.json", "sha256": SHA, "size": 6},
    ]
    with store.begin() as connection:
        assert seal(connection, held.audit, held.token, SealedReport(files=files, key_id="k"))
    return held.audit


def seen(store: Store, lane: Lane = LANE) -> tuple[DeliveryView, ...]:
    with store.read() as connection:
        return rows.delivery_page(connection, lane, ALL, None, 100)


def noted(store: Store) -> list[tuple[str, dict[str, Any]]]:
    with store.read() as connection:
        kinds = ("delivery_owed", "delivered", "dead_letter")
        found = connection.execute(select(journal).where(journal.c.kind.in_(kinds)).order_by(journal.c.seq))
        return [(row.kind, json.loads(row.detail_json)) for row in found]


def test_callback_is_signed_and_guarded(store: Store, tmp_path: Path) -> None:
    """A peer's callback was an unsigned GET to any address (ndif-team/ndif); this one proves itself and its target."""
    with receiving(tmp_path / "r") as receiver:
        board, names = Switchboard({PUBLIC: receiver.port}), Resolver({NAME: [["10.0.0.1"], [PUBLIC]]})
        board.lines["10.0.0.1"] = receiver.port
        clock = Clock(store)
        loop = Deliveries(store, Outbound(OutboundSettings(ca=receiver.ca), names, connect=board), clock=clock)
        hook(store)
        key = completed(store)
        sweep(loop)
        assert (receiver.accepted, board.dialled) == (0, [])
        assert [(one.state, one.tries, one.last_error) for one in seen(store)] == [("PENDING", 1, "FORBIDDEN_ADDRESS")]
        clock.now += 6_000
        sweep(loop)
    assert [(one.state, one.tries, one.last_status, one.last_error) for one in seen(store)] == [
        ("DELIVERED", 2, 204, "")
    ]
    heard = receiver.heard[0]
    told = receiving_end.verify(KEY.told, heard.headers, heard.body, now=clock.now / 1000)
    assert told.id == f"{key}-completed"
    with pytest.raises(receiving_end.WrongDelivery, match="BAD_SIGNATURE"):
        receiving_end.verify(KEY.told, heard.headers, heard.body + b" ", now=clock.now / 1000)
    event = json.loads(heard.body)
    assert event["data"] == {"audit": f"audits/{key}", "state": "COMPLETED", "report_sha256": "cd" * 32, "labels": {}}
    assert {name: event[name] for name in ("specversion", "id", "type", "subject")} == {
        "specversion": "1.0",
        "id": told.id,
        "type": "assay.audit.completed.v1",
        "subject": f"audits/{key}",
    }


def test_500s_for_a_day_and_more_end_in_a_dead_letter_with_one_id_and_one_body(store: Store) -> None:
    """Eleven delays between twelve tries; `webhook-timestamp` moves, everything else stays."""
    clock, caller, moments = Clock(store), Caller(lambda _n: Reply(status=500)), []
    loop = Deliveries(store, caller, clock=clock, jitter=lambda: 1.0)
    hook(store)
    completed(store)
    for _ in range(15):
        sweep(loop)
        moments.append(clock.now)
        with store.read() as connection:
            due = connection.execute(select(delivery.c.not_before).where(delivery.c.state == "PENDING")).scalar()
        if due is None:
            break
        clock.now = due - 1
        sweep(loop)  # not a moment earlier
        clock.now = due
    assert len(caller.made) == len(DELAYS_S) + 1
    assert [b - a for a, b in itertools.pairwise(moments)] == [round(s * 1100) for s in DELAYS_S]
    assert len({headers["webhook-id"] for _, headers, _ in caller.made}) == 1
    assert len({hashlib.sha256(body).hexdigest() for *_, body in caller.made}) == 1
    assert len({headers["webhook-timestamp"] for _, headers, _ in caller.made}) == len(DELAYS_S) + 1
    for (_, headers, body), at in zip(caller.made, moments, strict=True):
        receiving_end.verify(KEY.told, headers, body, now=at / 1000)
    assert [(one.state, one.tries, one.last_status, one.last_error) for one in seen(store)] == [
        (DeliveryState.DEAD, 12, 500, "BAD_STATUS")
    ]
    told = noted(store)
    assert [kind for kind, _ in told] == ["delivery_owed", "dead_letter"]
    assert told[0][1] == told[1][1]
    clock.now += 10**10
    sweep(loop)
    assert len(caller.made) == 12


def test_hanging_receiver_does_not_delay_another_webhook(store: Store, tmp_path: Path) -> None:
    with receiving(tmp_path / "r", lambda heard: "hang" if heard.line.startswith("POST /hang") else answer(200)) as r:
        board, names = Switchboard({PUBLIC: r.port}), Resolver({NAME: [[PUBLIC]]})
        outbound = Outbound(OutboundSettings(ca=r.ca), names, connect=board, call_s=30)
        loop = Deliveries(store, outbound, clock=Clock(store))
        for n in range(3):
            hook(store, Lane("t", f"hang{n}"), f"https://{NAME}/hang{n}")
        hook(store, Lane("t", "quick"), f"https://{NAME}/quick")
        for n in range(4):
            completed(store, n)
        loop.step()
        wait_for(lambda: [one.state for one in seen(store, Lane("t", "quick"))] == ["DELIVERED"] * 4)
        loop.step()  # a lane that is open is not opened twice, and the quick one closes a moment after its last row
        wait_for(lambda: sorted(lane.webhook for lane in loop._lanes) == ["hang0", "hang1", "hang2"])
        hung = [one.line for one in r.heard if "hang" in one.line]
        assert len(hung) == len(set(hung)) <= 3
        assert all(one.state == "PENDING" for n in range(3) for one in seen(store, Lane("t", f"hang{n}")))
    loop.close()


def test_410_disables_and_everything_owed_is_a_dead_letter(store: Store) -> None:
    clock, caller = Clock(store), Caller(lambda _n: Reply(status=410))
    loop = Deliveries(store, caller, clock=clock)
    hook(store)
    hook(store, Lane("t", "other"))
    completed(store, 0)
    completed(store, 1)
    with store.begin() as connection:  # the other webhook stays what it was
        connection.execute(update(delivery).where(delivery.c.webhook == "other").values(not_before=clock.now + 10**9))
    sweep(loop)
    assert len(caller.made) == 1
    assert [(one.state, one.last_error) for one in seen(store)] == [("DEAD", "GONE")] * 2
    completed(store, 2)  # nothing is owed to a webhook that is off
    assert (len(seen(store)), len(seen(store, Lane("t", "other")))) == (2, 3)
    with store.read() as connection:
        assert connection.execute(select(webhook.c.disabled_at).where(webhook.c.id == "told")).scalar() == clock.now
    assert [kind for kind, _ in noted(store)].count("dead_letter") == 2


def test_redeliver_sends_the_same_id_and_body_and_switches_on(store: Store) -> None:
    clock, caller = Clock(store), Caller(lambda n: Reply(status=410 if n == 1 else 200))
    loop = Deliveries(store, caller, clock=clock)
    hook(store)
    completed(store)
    sweep(loop)
    with store.begin() as connection:
        assert rows.redeliver(connection, LANE, seen(store)[0].id)
        assert not rows.redeliver(connection, Lane("u", "told"), seen(store)[0].id)
        assert not rows.redeliver(connection, LANE, "0" * 32)
    sweep(loop)
    first, second = caller.made
    assert (first[1]["webhook-id"], first[2]) == (second[1]["webhook-id"], second[2])
    assert [(one.state, one.tries) for one in seen(store)] == [("DELIVERED", 1)]
    assert [kind for kind, _ in noted(store)] == ["delivery_owed", "dead_letter", "delivery_owed", "delivered"]
    completed(store, 1)
    sweep(loop)
    assert len(caller.made) == 3


@pytest.mark.parametrize("signing", list(Signing))
def test_rotation_signs_with_both_for_a_day(store: Store, signing: Signing) -> None:
    clock, caller = Clock(store), Caller()
    loop = Deliveries(store, caller, clock=clock)
    old = Key(signing=signing, private=b"o" * 32)
    hook(store, key=old)
    with store.begin() as connection:
        new = webhooks.rotate_secret(connection, LANE)
    assert new is not None
    assert new.private != old.private
    completed(store, 0)
    sweep(loop)
    clock.now += 24 * 3600 * 1000 + 1
    completed(store, 1)
    sweep(loop)
    (_, both, body), (_, one, later) = caller.made
    for key in (old, new):
        receiving_end.verify(key.told, both, body, now=int(both["webhook-timestamp"]))
    assert len(one["webhook-signature"].split(" ")) == 1
    receiving_end.verify(new.told, one, later, now=clock.now / 1000)
    with pytest.raises(receiving_end.WrongDelivery):
        receiving_end.verify(old.told, one, later, now=clock.now / 1000)


def kinds(store: Store, lane: Lane) -> list[str]:
    return sorted(one.type.split(".")[2] for one in seen(store, lane))


def foreign(store: Store, n: int = 0, labels: dict[str, str] | None = None, *, approved: bool = False) -> str:
    """Plant an audit of tenant "t" on a model of the tenant "owner"."""
    key = registered(store, n)
    body = audits_pb2.Audit(labels=labels).SerializeToString()
    with store.begin() as connection:
        connection.execute(update(audit).where(audit.c.id == key).values(model_tenant="owner", submission=body))
        if approved:
            row = {"model_sha256": SHA, "owner_tenant": "owner", "grantee_tenant": "t", "envelope": b"", "max_runs": 1}
            row |= {"id": key, "envelope_sha256": key, "not_after": 1, "created_at": 1}
            connection.execute(insert(approval).values(row))
            connection.execute(insert(approval_use).values(approval=key, audit=key, used_at=1))
    return key


def waits_and_is_cancelled(store: Store, key: str) -> None:
    with store.begin() as connection:
        owe_deliveries(connection, key, "AWAITING_APPROVAL")
        owe_deliveries(connection, key, "AWAITING_APPROVAL")  # told once
        owe_deliveries(connection, key, "RUNNING")
        cancel(connection, key)


def test_two_rotations_within_a_day_leave_each_secret_its_own_day(store: Store) -> None:
    clock, caller, hour = Clock(store), Caller(), 3600 * 1000
    loop = Deliveries(store, caller, clock=clock)
    hook(store)
    keys = [KEY]
    for _ in range(2):
        with store.begin() as connection:
            made = webhooks.rotate_secret(connection, LANE)
        assert made is not None
        keys.append(made)
    with store.begin() as connection:  # the first rotation was 23 h before the second
        kept = json.loads(connection.execute(select(webhook.c.old_secrets_json)).scalar_one())
        kept[1]["until"] -= 23 * hour
        connection.execute(update(webhook).values(old_secrets_json=json.dumps(kept)))
    believed = []
    for n in range(3):
        completed(store, n)
        sweep(loop)
        _, signed, body = caller.made[-1]
        believed.append([_is_believed(key, signed, body, clock.now / 1000) for key in keys])
        clock.now += (2, 30)[min(n, 1)] * hour
    assert believed == [[True, True, True], [False, True, True], [False, False, True]]


def test_the_oldest_of_too_many_secrets_makes_room_and_receivers_read_them_all(store: Store) -> None:
    hook(store)
    keys = [KEY]
    for _ in range(OLD_SECRETS_MAX + 3):
        with store.begin() as connection:
            made = webhooks.rotate_secret(connection, LANE)
        assert made is not None
        keys.append(made)
    caller, clock = Caller(), Clock(store)
    completed(store)
    sweep(Deliveries(store, caller, clock=clock))
    _, signed, body = caller.made[0]
    believed = [_is_believed(key, signed, body, clock.now / 1000) for key in keys]
    assert believed == [False] * 3 + [True] * (OLD_SECRETS_MAX + 1)


def _is_believed(key: Key, signed: Mapping[str, str], body: bytes, now: float) -> bool:
    try:
        receiving_end.verify(key.told, signed, body, now=now)
    except receiving_end.WrongDelivery:
        return False
    return True


def test_each_end_is_told_to_those_who_asked_for_it_and_the_owner_alone(store: Store) -> None:
    wanted = {
        Lane("t", "all-of-it"): ((), Role.AUDITOR, ["approval_needed", "cancelled"]),
        Lane("t", "cancelled"): (("assay.audit.cancelled.v1",), Role.AUDITOR, ["cancelled"]),
        Lane("owner", "owners"): ((), Role.OWNER, ["approval_needed", "cancelled"]),
        Lane("stranger", "strangers"): ((), Role.OWNER, []),
    }
    for lane, (types, role, _) in wanted.items():
        hook(store, lane, types=types, role=role)
    waits_and_is_cancelled(store, foreign(store, approved=True))
    assert {lane: kinds(store, lane) for lane in wanted} == {lane: told for lane, (*_, told) in wanted.items()}


def test_a_webhook_tells_no_more_than_its_maker_may_see(store: Store) -> None:
    """An auditor of the owner's tenant may not read a stranger's audit; an owner reads those on its own models."""
    hook(store, Lane("owner", "auditors"), role=Role.AUDITOR)
    hook(store, Lane("owner", "owners"), role=Role.OWNER)
    hook(store, Lane("t", "owners"), role=Role.OWNER)
    waits_and_is_cancelled(store, foreign(store, approved=True))
    assert kinds(store, Lane("owner", "auditors")) == []
    assert kinds(store, Lane("owner", "owners")) == ["approval_needed", "cancelled"]
    assert kinds(store, Lane("t", "owners")) == []


def test_a_stranger_floods_no_owner_with_waits_that_it_cancels(store: Store) -> None:
    theirs, mine = Lane("owner", "owners"), Lane("t", "all-of-it")
    hook(store, theirs, role=Role.OWNER)
    hook(store, mine)
    for n in range(WAITS_TOLD_MAX + 5):
        waits_and_is_cancelled(store, foreign(store, n, {"note": "buy-now"}))
    assert kinds(store, theirs) == ["approval_needed"] * WAITS_TOLD_MAX
    with store.read() as connection:
        bodies = connection.execute(select(delivery.c.body).where(delivery.c.tenant == "owner")).scalars().all()
        assert not any(b"buy-now" in body for body in bodies)
        own = connection.execute(select(delivery.c.body).where(delivery.c.tenant == "t")).scalars().all()
    assert sum(b"buy-now" in body for body in own) == WAITS_TOLD_MAX + 5
    with store.begin() as connection:  # a day later
        connection.execute(update(delivery).values(created_at=delivery.c.created_at - 24 * 3600 * 1000))
    waits_and_is_cancelled(store, foreign(store, 99))
    assert len(kinds(store, theirs)) == WAITS_TOLD_MAX + 1


def test_an_end_that_is_rolled_back_owes_nothing(store: Store) -> None:
    hook(store)

    def fail() -> None:
        with store.begin() as connection:
            cancel(connection, submit(connection))
            assert len(rows.delivery_page(connection, LANE, ALL, None, 10)) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen(store) == ()


def test_a_body_never_holds_what_was_measured_or_asked(store: Store) -> None:
    hook(store)
    completed(store)
    with store.read() as connection:
        body = connection.execute(select(delivery.c.body)).scalar_one()
    assert set(json.loads(body)["data"]) == {"audit", "state", "report_sha256", "labels"}
    assert b"scripted" not in body


def test_two_schedulers_make_one_try(store: Store) -> None:
    clock, inside, release = Clock(store), threading.Barrier(2, timeout=10), threading.Event()

    class Slow(Caller):
        def post(self, url: str, headers: Mapping[str, str], body: bytes, tenant: str) -> Reply:
            inside.wait()
            release.wait(10)
            return super().post(url, headers, body, tenant)

    slow, other = Slow(), Caller()
    hook(store)
    completed(store)
    one, two = Deliveries(store, slow, clock=clock), Deliveries(store, other, clock=clock)
    one.step()
    inside.wait()
    sweep(two)
    release.set()
    wait_for(lambda: not one._lanes)
    assert (len(slow.made), len(other.made)) == (1, 0)
    assert [(view.state, view.tries) for view in seen(store)] == [("DELIVERED", 1)]


def test_a_scheduler_that_died_in_a_try_leaves_it_due_and_says_nothing_afterwards(store: Store) -> None:
    clock = Clock(store)
    hook(store)
    completed(store)
    with store.begin() as connection:
        lost = rows.claim(connection, LANE, clock.now)
    assert lost is not None
    caller = Caller()
    loop = Deliveries(store, caller, clock=clock)
    sweep(loop)
    assert caller.made == []
    clock.now += rows.CLAIM_MS
    sweep(loop)
    assert [(one.state, one.tries) for one in seen(store)] == [("DELIVERED", 2)]
    with store.begin() as connection:
        assert not rows.settle(connection, lost, Dead("BAD_STATUS"), 500, clock.now)
    assert [one.state for one in seen(store)] == ["DELIVERED"]


def test_a_webhook_deleted_during_a_try_harms_nobody(store: Store) -> None:
    clock = Clock(store)

    def script(_n: int) -> Reply:
        with store.begin() as connection:
            assert webhooks.delete_webhook(connection, LANE)
        return Reply(status=500)

    loop = Deliveries(store, Caller(script), clock=clock)
    hook(store)
    completed(store)
    sweep(loop)
    sweep(loop)
    assert seen(store) == ()
    assert [kind for kind, _ in noted(store)] == ["delivery_owed", "dead_letter"]


def test_a_lane_that_dies_takes_the_loop_down_and_a_busy_database_does_not(store: Store) -> None:
    hook(store)
    completed(store)
    clock = Clock(store)

    def busy(_n: int) -> Reply:
        raise StoreBusy("held")

    loop = Deliveries(store, Caller(busy), clock=clock)
    sweep(loop)
    clock.now += rows.CLAIM_MS

    def broken(_n: int) -> Reply:
        raise ArithmeticError("a bug")

    loop = Deliveries(store, Caller(broken), clock=clock)
    sweep(loop)
    with pytest.raises(ArithmeticError):
        loop.step()


def test_a_receiver_of_changing_mood_gets_every_event_at_least_once(store: Store, tmp_path: Path) -> None:
    script = seeded(11, [answer(200), answer(500), answer(302, Location="https://127.0.0.1/"), b"nonsense"])
    with receiving(tmp_path / "r", script) as receiver:
        board, names = Switchboard({PUBLIC: receiver.port}), Resolver({NAME: [[PUBLIC]]})
        clock = Clock(store)
        loop = Deliveries(store, Outbound(OutboundSettings(ca=receiver.ca), names, connect=board), clock=clock)
        hook(store)
        keys = [completed(store, n) for n in range(4)]
        for _ in range(14):
            sweep(loop)
            clock.now += 25 * 3600 * 1000
    assert [one.state for one in seen(store)] == ["DELIVERED"] * 4
    assert set(receiver.ids) == {f"{key}-completed" for key in keys}
    assert {address for address, _ in board.dialled} == {PUBLIC}
    bodies = {one.headers["webhook-id"]: set[bytes]() for one in receiver.heard}
    for one in receiver.heard:
        bodies[one.headers["webhook-id"]].add(one.body)
    assert all(len(same) == 1 for same in bodies.values())


def test_the_scheduler_s_own_loops_deliver_to_a_loopback_receiver_where_that_is_allowed(
    store: Store, tmp_path: Path
) -> None:
    """Every part as it is wired: real clock, real connection, the operator's ports and authority."""
    stop = threading.Event()
    with receiving(tmp_path / "r") as receiver:
        allowed = Allowed(ports=frozenset({receiver.port}), loopback=True)
        settings = SchedulerSettings(
            database_url="",
            blob_dir=tmp_path,
            broker_url=None,
            signer_socket=tmp_path,
            outbound=OutboundSettings(allowed=allowed, ca=receiver.ca),
            resolve=resolve,
        )
        hook(store, url=f"https://localhost:{receiver.port}/hook")
        completed(store)
        rooms: dict[str, Any] = {
            "blobs": MemoryBlobs(),
            "signer": SignerClient(tmp_path / "absent.sock"),
            "knocker": MemoryQueue(),
        }
        thread = threading.Thread(target=schedule, args=(settings,), kwargs={"store": store, "stop": stop, **rooms})
        thread.start()
        wait_for(lambda: [one.state for one in seen(store)] == ["DELIVERED"])
        stop.set()
        thread.join(20)
    assert [(one.name, one.line) for one in receiver.heard] == [("localhost", "POST /hook HTTP/1.1")]
