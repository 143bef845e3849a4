"""The watcher and V15: growth is followed, and a fork, a rollback, a rewrite or a second end is seen."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from assay.errors import CouldNotTell, Wrong
from assay.tlog import leaves, notes, tiles, watch
from assay.tlog.entries import Entry
from assay.tlog.leaves import Leaf, LogKey
from assay.tlog.memory import MemoryLog
from assay.tlog.watch import Forked, Remembered

from tests.client.tlog.planted import ORIGIN, PRIVATE, digest, report, request, requests, void, withdrawal

NOW = datetime(2026, 1, 3, tzinfo=UTC)
LOGS = (LogKey(vkey=notes.vkey_of(PRIVATE, ORIGIN)),)


def look(log: MemoryLog, folder: Path, known: Remembered | None = None) -> Remembered:
    shutil.rmtree(folder, ignore_errors=True)
    return watch.watch(tiles.folder(log.write(folder)), LOGS, known)


def audited() -> tuple[MemoryLog, Leaf]:
    """A log of two requests and a report of the first, and the report's leaf."""
    log = requests(2)
    _, proof = log.append(report("report", 0, 5))
    return log, leaves.verify_leaf(proof, "report", digest("report"), LOGS, now=NOW)


def test_open_requests_are_counted_over_several_looks(tmp_path: Path) -> None:
    log = requests(300)
    first = look(log, tmp_path / "log")
    assert (first.counts.requests, len(first.open)) == (300, 300)
    log.append(report("r", 7, 400))
    log.append(void("v", 299, 400))
    log.append(withdrawal("w", 300, 400))
    log.append(b'{"at":"2026-01-02T04:00:00Z","kind":"resign","v":2}')
    second = look(log, tmp_path / "log", watch.load_state(watch.dump_state(first)))
    assert second == look(log, tmp_path / "log")
    assert vars(second.counts) == {"requests": 300, "reports": 1, "voids": 1, "withdrawals": 1, "unknown": 1}
    assert second.open == tuple(index for index in range(300) if index not in (7, 299))
    assert look(log, tmp_path / "log", second) == second
    assert second.head.size == 304


def test_a_fork_a_rollback_and_a_rewrite_are_seen_and_kept_as_evidence(tmp_path: Path) -> None:
    log = requests(5)
    known = look(log, tmp_path / "log")
    for count, said in ((5, "two roots of size 5"), (3, "went back from 5 to 3"), (9, "does not extend")):
        other = MemoryLog(ORIGIN, PRIVATE)
        for index in range(count):
            other.append(request(f"other {index}"))
        with pytest.raises(Forked, match=said) as seen:
            look(other, tmp_path / "other", known)
        assert seen.value.evidence == (log.checkpoint, other.checkpoint)
    with pytest.raises(Forked, match="went back"):
        look(requests(4), tmp_path / "older", known)


@pytest.mark.parametrize("name", ["tile/entries/000.p/9", "tile/0/000.p/9", "checkpoint"])
def test_a_bent_file_of_the_log_is_seen(tmp_path: Path, name: str) -> None:
    log = requests(5)
    known = look(log, tmp_path / "first")
    for index in range(5, 9):
        log.append(request(f"request {index}", index))
    folder = log.write(tmp_path / "log")
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    if name.startswith("tile/0"):
        data[40] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises((Wrong, Forked)):
        watch.watch(tiles.folder(folder), LOGS, known)
    (folder / name).unlink()
    with pytest.raises(CouldNotTell):
        watch.watch(tiles.folder(folder), LOGS, known)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (b"no entry", "entry 2 of the log is malformed"),
        (request("late", 0), "older than the one before"),
        (report("r", 7, 9), "no open request"),
        (void("v", 2, 9), "no open request"),
    ],
)
def test_an_entry_that_breaks_the_rules_is_wrong(tmp_path: Path, entry: Entry | bytes, said: str) -> None:
    log = requests(2)
    log.append(entry)
    with pytest.raises(Wrong, match=said):
        look(log, tmp_path / "log")


def test_a_second_end_of_a_request_is_wrong(tmp_path: Path) -> None:
    log, _ = audited()
    log.append(void("v", 0, 9))
    with pytest.raises(Wrong, match="no open request"):
        look(log, tmp_path / "log")


def test_a_key_past_its_time_cannot_go_on_signing(tmp_path: Path) -> None:
    fetch = tiles.folder(requests(5).write(tmp_path))
    last = datetime(2026, 1, 2, 3, 0, 4, tzinfo=UTC)
    with pytest.raises(Wrong, match="was not good"):
        watch.watch(fetch, (LogKey(vkey=LOGS[0].vkey, valid_until=last),), None)
    with pytest.raises(Wrong, match="no trusted key"):
        watch.watch(fetch, (), None)


def test_a_damaged_state_is_no_accusation(tmp_path: Path) -> None:
    state = watch.dump_state(look(requests(3), tmp_path))
    for data in (b"", b"{}", state[:-9], state.replace(b"assay-log-state/v1", b"assay-log-state/v2")):
        with pytest.raises(CouldNotTell, match="state file is damaged"):
            watch.load_state(data)


def test_an_honest_report_is_held_against_its_log(tmp_path: Path) -> None:
    log, leaf = audited()
    remembered = look(log, tmp_path / "first")
    for index in range(300):
        log.append(request(f"later {index}", 10 + index))
    fetch = tiles.folder(log.write(tmp_path / "log"))
    assert watch.check_report(fetch, LOGS, leaf, remembered).head.size == 303
    assert watch.check_report(fetch, LOGS, leaf, None).open[0] == 1


def test_a_withdrawn_report_is_refused(tmp_path: Path) -> None:
    log, leaf = audited()
    log.append(withdrawal("report", leaf.index, 9))
    with pytest.raises(Wrong, match="withdrawn at 2026-01-02T03:00:09Z"):
        watch.check_report(tiles.folder(log.write(tmp_path)), LOGS, leaf, None)


def test_two_reports_of_one_request_are_refused(tmp_path: Path) -> None:
    log = requests(1)
    _, proof = log.append(report("report", 0, 5))
    leaf = leaves.verify_leaf(proof, "report", digest("report"), LOGS, now=NOW)
    log.append(report("nicer report", 0, 6))
    fetch = tiles.folder(log.write(tmp_path))
    with pytest.raises(Wrong, match="no open request"):
        watch.check_report(fetch, LOGS, leaf, None)
    read = tiles.TileTree(fetch, 3)
    with pytest.raises(Wrong, match="second end: the report in entry 2"):
        watch.check_ends(read, leaf, notes.read_checkpoint(log.checkpoint)[0])


def test_a_report_whose_checkpoint_is_no_past_of_the_log_is_refused(tmp_path: Path) -> None:
    _, leaf = audited()
    for first, said in (("request 0", "no past of this log"), ("another", "no past of this log")):
        other = MemoryLog(ORIGIN, PRIVATE)
        for label in (first, "x", "y", "z"):
            other.append(request(label))
        with pytest.raises(Forked, match=said):
            watch.check_report(tiles.folder(other.write(tmp_path / first)), LOGS, leaf, None)
    with pytest.raises(Forked, match="went back from 3 to 2"):
        watch.check_report(tiles.folder(requests(2).write(tmp_path / "older")), LOGS, leaf, None)


def test_an_entry_of_an_unknown_kind_may_speak_against_the_report(tmp_path: Path) -> None:
    """A withdrawal in the words of a later version is none that may be skipped."""
    strange = [b'{"at":"2026-01-02T04:00:0%dZ","kind":"recall","v":2}' % n for n in (1, 2)]
    early = MemoryLog(ORIGIN, PRIVATE)
    early.append(strange[0])
    early.append(request("later", 4_000))
    _, proof = early.append(report("report", 1, 4_000))
    leaf = leaves.verify_leaf(proof, "report", digest("report"), LOGS, now=NOW)
    fetch = tiles.folder(early.write(tmp_path / "early"))
    assert watch.check_report(fetch, LOGS, leaf, None).head.size == 3  # before the request nothing can
    log, leaf = audited()
    for entry in strange:
        log.append(entry)
    with pytest.raises(CouldNotTell, match="entry 3 of the log and 1 more may speak against the report"):
        watch.check_report(tiles.folder(log.write(tmp_path / "log")), LOGS, leaf, None)
    withdrawal = Entry(
        kind="withdrawal",
        at="2026-01-02T04:00:09Z",
        commit=digest("report"),
        tag=digest("tag"),
        prev=leaf.index,
        reason="data_defect",
    )
    log.append(withdrawal)
    with pytest.raises(Wrong, match="withdrawn"):
        watch.check_report(tiles.folder(log.write(tmp_path / "more")), LOGS, leaf, None)
