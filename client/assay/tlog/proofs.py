"""The proof files of a report: `report.tlog-proof`, `request.tlog-proof` and `consistency.txt`, read and written.

A proof is C2SP tlog-proof v1; its `extra` line carries the entry, so that the leaf can be computed again. Nothing in
it is believed before the leaf leads to a root that the log signed. `consistency.txt` is the request body of C2SP
tlog-witness: `old N`, hashes, a blank line, the newer checkpoint.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from assay.errors import Malformed
from assay.tlog.entries import ENTRY_MAX
from assay.tlog.notes import NOTE_MAX, decode_base64, decode_hash, parse_number
from assay.tlog.tree import PATH_MAX

REPORT_PROOF = "report.tlog-proof"
REQUEST_PROOF = "request.tlog-proof"
REPLICATION_PROOF = "replication.tlog-proof"
CONSISTENCY = "consistency.txt"

HEADER = "c2sp.org/tlog-proof@v1"
"""First line of a proof (C2SP tlog-proof)."""

PROOF_MAX = NOTE_MAX + 8 * 1024
"""Bytes of a proof: a note, 63 hashes of 45 bytes, an entry of 512 in base64, and the other lines."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """That an entry is in a log, as claimed."""

    entry: bytes
    index: int
    hashes: tuple[bytes, ...]
    """From the leaf's sibling up to the root's child."""
    checkpoint: bytes
    """The signed note, verbatim."""


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """That one tree is a prefix of another, as claimed."""

    old: int
    """Size of the older tree."""
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    """The newer tree's signed note, verbatim."""


def write_proof(proof: Proof) -> bytes:
    """Return the bytes of a proof file."""
    head = [HEADER, f"extra {base64.b64encode(proof.entry).decode()}", f"index {proof.index}"]
    return _written(head, proof.hashes, proof.checkpoint)


def read_proof(data: bytes) -> Proof:
    """Read a proof file strictly.

    Raises:
        Malformed: another form; `at` is the line.
    """
    lines, checkpoint = _split(data)
    if lines[0] != HEADER:
        raise Malformed("proof_form", "line:1", f"the first line is {HEADER}")
    entry = decode_base64(_field(lines, 1, "extra"), "line:2")
    if len(entry) > ENTRY_MAX:
        raise Malformed("proof_form", "line:2", f"an entry has at most {ENTRY_MAX} bytes")
    index = parse_number(_field(lines, 2, "index"), "line:3")
    return Proof(entry=entry, index=index, hashes=_hashes(lines, 3), checkpoint=checkpoint)


def write_consistency(proof: Consistency) -> bytes:
    """Return the bytes of a consistency file."""
    return _written([f"old {proof.old}"], proof.hashes, proof.checkpoint)


def read_consistency(data: bytes) -> Consistency:
    """Read a consistency file strictly.

    Raises:
        Malformed: another form; `at` is the line.
    """
    lines, checkpoint = _split(data)
    old = parse_number(_field(lines, 0, "old"), "line:1")
    return Consistency(old=old, hashes=_hashes(lines, 1), checkpoint=checkpoint)


def _written(head: list[str], hashes: tuple[bytes, ...], checkpoint: bytes) -> bytes:
    lines = [*head, *(base64.b64encode(one).decode() for one in hashes)]
    return "\n".join(lines).encode() + b"\n\n" + checkpoint


def _split(data: bytes) -> tuple[list[str], bytes]:
    if len(data) > PROOF_MAX:
        raise Malformed("size_cap", "line:1", f"a proof has at most {PROOF_MAX} bytes")
    head, blank, checkpoint = data.partition(b"\n\n")
    if not blank or not head.isascii():
        raise Malformed("proof_form", "line:1", "a proof is lines of ASCII, a blank line, and a checkpoint")
    return head.decode("ascii").split("\n"), checkpoint


def _field(lines: list[str], number: int, name: str) -> str:
    found, space, value = lines[number].partition(" ") if number < len(lines) else ("", "", "")
    if found != name or not space:
        raise Malformed("proof_form", f"line:{number + 1}", f"expected a line: {name}, a space, and its value")
    return value


def _hashes(lines: list[str], first: int) -> tuple[bytes, ...]:
    if len(lines) - first > PATH_MAX:
        raise Malformed("proof_form", f"line:{first + PATH_MAX + 1}", f"a proof has at most {PATH_MAX} hashes")
    return tuple(decode_hash(line, f"line:{number}") for number, line in enumerate(lines[first:], first + 1))
