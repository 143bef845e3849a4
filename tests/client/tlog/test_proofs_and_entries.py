"""Proof files and leaf entries: written, read back, and refused in every other form."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from assay import canonical
from assay.errors import CouldNotTell, Malformed
from assay.tlog import entries, proofs
from assay.tlog.entries import Entry
from assay.tlog.proofs import Consistency, Proof

from tests.client.tlog.planted import VECTORS, digest, moment, report, request, requests, void

LOG = requests(7)
PROOF = LOG.prove(5)
LINES = PROOF.decode().split("\n")


def relined(number: int, text: str) -> bytes:
    return "\n".join([*LINES[:number], text, *LINES[number + 1 :]]).encode()


def test_a_proof_is_written_as_the_format_says_and_read_back() -> None:
    proof = proofs.read_proof(PROOF)
    assert LINES[0] == "c2sp.org/tlog-proof@v1"
    assert LINES[1] == "extra " + base64.b64encode(LOG.entries[5]).decode()
    assert (LINES[2], LINES[6], LINES[7]) == ("index 5", "", "log.assay.example")
    assert (proof.index, len(proof.hashes), proof.checkpoint) == (5, 3, LOG.checkpoint)
    assert proofs.write_proof(proof) == PROOF
    since = LOG.prove_since(3)
    assert since.startswith(b"old 3\n")
    assert proofs.write_consistency(proofs.read_consistency(since)) == since


def test_a_proof_without_hashes() -> None:
    alone = requests(1).prove(0)
    assert proofs.read_proof(alone).hashes == ()
    assert proofs.write_proof(proofs.read_proof(alone)) == alone
    same = proofs.read_consistency(LOG.prove_since(7))
    assert (same.old, same.hashes) == (7, ())


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (b"", "line:1"),
        (PROOF.replace(b"\n", b"\r\n"), "line:1"),
        (b"\xef\xbb\xbf" + PROOF, "line:1"),
        (relined(0, "c2sp.org/tlog-proof@v2"), "line:1"),
        (relined(1, LINES[1].replace("extra", "Extra")), "line:2"),
        (relined(1, LINES[1] + "="), "line:2"),
        (relined(1, LINES[1].replace("extra ", "extra  ")), "line:2"),
        (relined(1, "extra " + base64.b64encode(bytes(513)).decode()), "line:2"),
        (PROOF.replace((LINES[1] + "\n").encode(), b""), "line:2"),
        (relined(2, "index 05"), "line:3"),
        (relined(2, "index +5"), "line:3"),
        (relined(2, "index 9007199254740992"), "line:3"),
        (relined(2, "index"), "line:3"),
        (relined(3, LINES[3][:-1]), "line:4"),
        (relined(4, base64.b64encode(bytes(31)).decode()), "line:5"),
        (relined(5, " " + LINES[5]), "line:6"),
        (relined(3, "\n".join([LINES[3]] * 62)), "line:67"),
        (PROOF + bytes(80_000), "line:1"),
    ],
)
def test_a_proof_of_another_form_is_refused_at_its_line(data: bytes, at: str) -> None:
    with pytest.raises(Malformed) as refused:
        proofs.read_proof(data)
    assert refused.value.at == at


@pytest.mark.parametrize("data", [b"old 3", b"old 3\n", b"old 03\n\n", b"new 3\n\n", b"old 3\nx\n\n", PROOF])
def test_a_consistency_file_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        proofs.read_consistency(data)


def test_sixty_three_hashes_are_accepted() -> None:
    proof = Proof(entry=LOG.entries[0], index=0, hashes=(bytes(32),) * 63, checkpoint=LOG.checkpoint)
    assert proofs.read_proof(proofs.write_proof(proof)) == proof
    since = Consistency(old=1, hashes=(bytes(32),) * 63, checkpoint=LOG.checkpoint)
    assert proofs.read_consistency(proofs.write_consistency(since)) == since


def every_kind() -> list[Entry]:
    withdrawal = Entry(
        kind="withdrawal", at=moment(3), commit=digest("r"), tag=digest("tag"), prev=1, reason="data_defect"
    )
    replication = Entry(
        kind="replication", at=moment(3), commit=digest("r"), tag=digest("tag"), key=digest("key"), prev=1
    )
    root = Entry(kind="trust-root", at=moment(4), commit=digest("root"))
    return [request("q"), report("r", 0), void("q", 0), withdrawal, replication, root]


def test_every_kind_is_canonical_small_and_read_back() -> None:
    kinds = every_kind()
    assert {entry.kind for entry in kinds} == entries.KINDS
    for entry in kinds:
        assert entries.parse(entry.data) == entry
        assert canonical.loads_canonical(entry.data, entries.ENTRY_MAX)["v"] == 1
        assert len(entry.data) <= 350
    found = entries.parse(VECTORS["T7"]["entry"].encode())
    assert (found.kind, found.data.decode()) == ("request", VECTORS["T7"]["entry"])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda value: value.pop("tag"), "tag"),
        (lambda value: value.pop("prev"), "prev"),
        (lambda value: value.pop("at"), "at"),
        (lambda value: value.update(note="text"), "note"),
        (lambda value: value.update(reason="failed"), "reason"),
        (lambda value: value.update(prev=-1), "prev"),
        (lambda value: value.update(prev=True), "prev"),
        (lambda value: value.update(prev="1"), "prev"),
        (lambda value: value.update(commit="00"), "commit"),
        (lambda value: value.update(commit=None), "commit"),
        (lambda value: value.update(tag=digest("t").upper()), "tag"),
        (lambda value: value.update(at="2026-01-02 03:04:05Z"), "at"),
        (lambda value: value.update(kind=["report"]), "kind"),
        (lambda value: value.update(v="1"), "v"),
        (lambda value: value.update(v=True), "v"),
    ],
)
def test_an_entry_with_another_field_is_refused_by_its_name(change: Callable[[Any], Any], field: str) -> None:
    value = canonical.loads_canonical(report("r", 1).data, 512)
    change(value)
    with pytest.raises(Malformed) as refused:
        entries.parse(canonical.dumps(value))
    assert refused.value.at == field


@pytest.mark.parametrize("data", [b"[]", b"null", b"{}", b" {}", report("r", 1).data + b" ", b'{"v":1,"v":1}', b"\x00"])
def test_bytes_that_are_no_entry_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        entries.parse(data)


def test_a_newer_entry_is_not_a_wrong_one() -> None:
    for change in ({"v": 2}, {"kind": "resign"}):
        with pytest.raises(CouldNotTell):
            entries.parse(canonical.dumps(canonical.loads_canonical(request("q").data, 512) | change))


def test_a_void_gives_one_of_four_reasons() -> None:
    with pytest.raises(Malformed):
        Entry(kind="void", at=moment(1), commit=digest("q"), tag=digest("tag"), prev=0, reason="bored")
    with pytest.raises(Malformed):
        Entry(kind="withdrawal", at=moment(1), commit=digest("q"), tag=digest("tag"), prev=0, reason="Not a name")
