"""V05 and V06: an honest report is accepted, and every skilful forgery of its place in the log is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from assay.errors import Malformed, Wrong
from assay.tlog import leaves, notes, proofs, registration
from assay.tlog.entries import Entry
from assay.tlog.leaves import Leaf, LogKey
from assay.tlog.memory import MemoryLog
from assay.tlog.registration import Files, Registration

from tests.client.tlog.planted import ORIGIN, OTHER, PRIVATE, digest, moment

NOW = datetime(2026, 1, 3, tzinfo=UTC)
LOGS = (LogKey(vkey=notes.vkey_of(PRIVATE, ORIGIN)),)
REQUEST = b'{"schema":"assay-request/v1"}'
ASKED = hashlib.sha256(REQUEST).hexdigest()
REPORT, KEY, SALT, MODEL = digest("report"), digest("key"), digest("salt"), digest("model")
TAG = registration.tag(SALT, MODEL)
FILLER = Entry(kind="trust-root", at=moment(0), commit=digest("root"))


class Case:
    """An honest report of request 2 in a log of other entries; each field may be bent before it is checked."""

    def __init__(self, *, asked: dict[str, Any] | None = None, told: dict[str, Any] | None = None) -> None:
        self.log = MemoryLog(ORIGIN, PRIVATE)
        self.log.append(FILLER)
        self.log.append(FILLER)
        fields = {"kind": "request", "at": moment(1), "commit": ASKED, "tag": TAG, **(asked or {})}
        index, proof = self.log.append(Entry(**fields))
        self.log.append(replace(FILLER, at=moment(2)))
        fields = {"kind": "report", "at": moment(9), "commit": REPORT, "tag": TAG, "key": KEY, "prev": index}
        _, self.report_proof = self.log.append(Entry(**(fields | (told or {}))))
        self.files = Files(request=REQUEST, request_proof=proof, consistency=self.log.prove_since(index + 1))
        self.receipt: tuple[bytes, bytes] | None = (REQUEST, proof)
        head, _ = notes.read_checkpoint(self.log.checkpoint_at(index + 1))
        leaf = hashlib.sha256(b"\x00" + self.log.entries[index]).digest()
        self.claimed = Registration(
            log_origin=ORIGIN,
            request_index=index,
            request_sha256=ASKED,
            leaf_sha256=leaf.hex(),
            tree_size=head.size,
            root_sha256=head.root.hex(),
            seed_mode="derived",
            seed=registration.derive_seed(leaf, head.root),
            tag_salt=SALT,
        )
        self.times = (moment(3), moment(8))
        self.asked_seed: int | None = None

    def leaf(self, now: datetime = NOW) -> Leaf:
        return leaves.verify_leaf(self.report_proof, "report", REPORT, LOGS, now=now, key=KEY, prev=2)

    def registered(self, logs: tuple[LogKey, ...] = LOGS) -> Leaf:
        return registration.verify_registration(
            self.files,
            self.claimed,
            leaves.verify_leaf(self.report_proof, "report", REPORT, LOGS, now=NOW),
            logs,
            manifest_sha256=MODEL,
            started_at=self.times[0],
            ended_at=self.times[1],
            now=NOW,
            asked_seed=self.asked_seed,
            receipt=self.receipt,
        )


def test_an_honest_report_is_accepted() -> None:
    case = Case()
    leaf = case.leaf()
    assert (leaf.index, leaf.size, leaf.entry.at, leaf.origin) == (4, 5, moment(9), ORIGIN)
    assert leaf.at == datetime(2026, 1, 2, 3, 0, 9, tzinfo=UTC)
    assert case.registered().index == 2
    case.receipt = None
    assert case.registered().size == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "replication"}, "kind"),
        ({"commit": digest("another report")}, "commit"),
        ({"key": digest("another key")}, "key"),
        ({"prev": 1}, "prev"),
    ],
)
def test_a_leaf_that_says_something_else_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Wrong, match=f"leaf's {said}"):
        Case(told=change).leaf()


def test_a_swapped_proof_of_another_entry_is_refused() -> None:
    case = Case()
    case.report_proof = case.log.prove(2)
    with pytest.raises(Wrong, match="kind"):
        case.leaf()
    proof = proofs.read_proof(Case().report_proof)
    for bent in (
        replace(proof, index=3),
        replace(proof, hashes=proof.hashes[1:]),
        replace(proof, entry=proof.entry.replace(moment(9).encode(), moment(8).encode())),
        replace(proof, checkpoint=case.log.checkpoint_at(4)),
    ):
        case.report_proof = proofs.write_proof(bent)
        with pytest.raises(Wrong, match="inclusion proof"):
            case.leaf()


def test_a_checkpoint_of_another_key_is_refused() -> None:
    case = Case()
    forged = MemoryLog(ORIGIN, OTHER)
    for entry in case.log.entries:
        forged.append(entry)
    case.report_proof = forged.prove(4)
    with pytest.raises(Wrong, match="no trusted log key"):
        case.leaf()
    case.report_proof = b"junk"
    with pytest.raises(Wrong, match=r"report\.tlog-proof is malformed"):
        case.leaf()
    with pytest.raises(Wrong, match="no trusted key of a log named"):
        leaves.verify_leaf(Case().report_proof, "report", REPORT, (), now=NOW)


def test_a_log_key_counts_within_its_time_only() -> None:
    logged = datetime(2026, 1, 2, 3, 0, 9, tzinfo=UTC)
    second = timedelta(seconds=1)
    for start, end, good in (
        (logged, logged + second, True),
        (logged + second, None, False),
        (None, logged, False),
    ):
        key = LogKey(vkey=LOGS[0].vkey, valid_from=start, valid_until=end)
        call = [Case().report_proof, "report", REPORT, (key,)]
        if good:
            leaves.verify_leaf(*call, now=NOW)  # type: ignore[arg-type]
        else:
            with pytest.raises(Wrong, match="was not good"):
                leaves.verify_leaf(*call, now=NOW)  # type: ignore[arg-type]


def test_an_entry_from_the_future_is_refused() -> None:
    logged = datetime(2026, 1, 2, 3, 0, 9, tzinfo=UTC)
    Case().leaf(now=logged - timedelta(seconds=300))
    with pytest.raises(Wrong, match="future"):
        Case().leaf(now=logged - timedelta(seconds=301))


def claims(**fields: Any) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        case.claimed = replace(case.claimed, **fields)

    return change


def files(**fields: Any) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        case.files = replace(case.files, **fields)

    return change


def _sooner(case: Case) -> None:
    case.times = (moment(0), moment(8))


def _later(case: Case) -> None:
    case.times = (moment(3), moment(10))


def _backwards(case: Case) -> None:
    case.times = (moment(8), moment(3))


def _newer_receipt(case: Case) -> None:
    case.receipt = (REQUEST, case.log.prove(2))


def _other_receipt(case: Case) -> None:
    case.receipt = (REQUEST + b"\n", case.files.request_proof)


def _newer_checkpoint(case: Case) -> None:
    case.files = replace(case.files, request_proof=case.log.prove(2), consistency=case.log.prove_since(5))


def _shifted_consistency(case: Case) -> None:
    case.files = replace(case.files, consistency=case.files.consistency.replace(b"old 3", b"old 2"))


def _fixed(case: Case) -> None:
    case.claimed = replace(case.claimed, seed_mode="fixed")
    case.asked_seed = case.claimed.seed + 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (claims(log_origin="log.other.example"), "log_origin"),
        (claims(request_index=1), "request_index"),
        (claims(request_sha256=digest("another")), "request.json has digest"),
        (claims(leaf_sha256=digest("another")), "leaf_sha256"),
        (claims(tree_size=4), "tree_size"),
        (claims(root_sha256=digest("another")), "root_sha256"),
        (claims(seed=1), "the seed is 1"),
        (claims(seed_mode="fixed"), "the seed is"),
        (_fixed, "the seed is"),
        (claims(tag_salt=digest("another")), "another tag"),
        (files(request=REQUEST + b" "), "request.json has digest"),
        (files(request_proof=b"junk"), "request.tlog-proof is malformed"),
        (files(consistency=b"junk"), "consistency.txt is malformed"),
        (_shifted_consistency, "consistency.txt runs from 2"),
        (_newer_checkpoint, "tree_size"),
        (_sooner, "logged time is later than started_at"),
        (_later, "ended_at is later"),
        (_backwards, "started_at is later"),
        (_newer_receipt, "another registration"),
        (_other_receipt, "another request.json"),
    ],
)
def test_every_forged_registration_is_refused(change: Callable[[Case], None], said: str) -> None:
    case = Case()
    change(case)
    with pytest.raises(Wrong, match=said.replace(".", r"\.")):
        case.registered()


def test_a_fixed_seed_is_the_one_that_the_request_asked_for() -> None:
    case = Case()
    case.claimed = replace(case.claimed, seed_mode="fixed", seed=7)
    case.asked_seed = 7
    assert case.registered().index == 2


def test_tags_of_another_model_are_refused_in_both_leaves() -> None:
    for case in (Case(asked={"tag": digest("another")}), Case(told={"tag": digest("another")})):
        with pytest.raises(Wrong, match="another tag"):
            case.registered()


def test_a_request_logged_after_its_report_is_refused() -> None:
    case = Case()
    index, late = case.log.append(Entry(kind="request", at=moment(9), commit=ASKED, tag=TAG))
    proof, found = proofs.read_proof(late), notes.read_checkpoint(case.log.checkpoint)[0]
    leaf = hashlib.sha256(b"\x00" + proof.entry).digest()
    case.files = replace(case.files, request_proof=late)
    case.claimed = replace(
        case.claimed,
        request_index=index,
        leaf_sha256=leaf.hex(),
        tree_size=found.size,
        root_sha256=found.root.hex(),
        seed=registration.derive_seed(leaf, found.root),
    )
    with pytest.raises(Wrong, match="not before the report"):
        case.registered()


def test_a_forked_log_between_request_and_report_is_refused() -> None:
    case, fork = Case(), MemoryLog(ORIGIN, PRIVATE)
    fork.append(replace(FILLER, commit=digest("another root")))
    for entry in case.log.entries[1:]:
        fork.append(entry)
    case.report_proof = fork.prove(4)
    case.files = replace(case.files, consistency=fork.prove_since(3))
    with pytest.raises(Wrong, match="is not a prefix"):
        case.registered()
    case.files = replace(case.files, consistency=case.log.prove_since(3))
    with pytest.raises(Wrong, match="runs from"):
        case.registered()


def test_the_field_of_the_predicate_is_read_strictly() -> None:
    value = vars(Case().claimed)
    assert Registration.read(value | {"unknown": 1}) == Case().claimed
    for name in value:
        with pytest.raises(Malformed) as refused:
            Registration.read({other: found for other, found in value.items() if other != name})
        assert refused.value.at == f"/predicate/registration/{name}"
    for change in ({"seed": -1}, {"seed_mode": "drawn"}, {"log_origin": "two words"}, {"tag_salt": "00"}):
        with pytest.raises(Malformed):
            Registration.read(value | change)
