"""Flip, cut, repeat and replace bytes in every file of a report: a named step fails, and nothing crashes."""

from __future__ import annotations

import json
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from assay import bundle, manifest, request
from assay.testing import Forge
from assay.tlog import notes, proofs
from assay.verify import exit_code, verify

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PROOFS = (proofs.REPORT_PROOF, proofs.REQUEST_PROOF, proofs.CONSISTENCY)

DEFAULT, NIGHTLY = 100, 2_500
"""Mutants of each file."""

STEPS = {
    bundle.FILE_NAME: {"V01", "V03"},
    request.FILE_NAME: {"V06"},
    manifest.FILE_NAME: {"V08"},
    proofs.REPORT_PROOF: {"V05"},
    proofs.REQUEST_PROOF: {"V06"},
    proofs.CONSISTENCY: {"V06"},
    "artefact": {"V11"},
}
"""Where a mutant of a file must be caught: an artefact that is not what it is called is wrong."""


def mutate(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    kind = draw.randrange(6)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + bytes([draw.randrange(256)]) + data[at:]
    if kind == 3:
        return data[:at] + data[at + draw.randrange(1, 9) :]
    if kind == 4:
        return data + data[at : at + 4]
    return data[:at] + b'","a":"' + data[at:]


def check_mutants(tmp_path: Path, which: str, count: int) -> None:
    forge = Forge(tmp_path, seed=5)
    report = forge.report()
    path = report / (f"artefacts/{forge.entry.sha256}" if which == "artefact" else which)
    original, draw = path.read_bytes(), random.Random(f"{which}")
    before = bundle.read((report / bundle.FILE_NAME).read_bytes())
    for _ in range(count):
        mutant = mutate(original, draw)
        if mutant == original:
            continue
        path.write_bytes(mutant)
        seen = verify(report, trust_root=forge.trust_root, model_dir=forge.model_dir, now=NOW)
        text = seen.render_text()
        assert "this client failed" not in text
        caught = {s.id for s in seen.steps if s.status == "wrong"}
        if not caught and which == bundle.FILE_NAME:
            # An unsigned byte that means nothing: an ignored field, or a final newline. The content is the same.
            carried = bundle.read(mutant)
            assert (carried.payload, carried.signature) == (before.payload, before.signature)
            continue
        if not caught and which == proofs.CONSISTENCY:
            # The checkpoint's own signature is repeated there; it was checked in the report's proof.
            assert _says(mutant) == _says(original)
            continue
        if not caught and which in PROOFS and exit_code(seen) == 2:
            continue  # the entry's kind became one that this client does not know
        assert caught, mutant
        assert caught <= STEPS[which], (caught, mutant)
        assert exit_code(seen) == 1
    shutil.rmtree(report)


def _says(consistency: bytes) -> object:
    proof = proofs.read_consistency(consistency)
    return proof.old, proof.hashes, notes.read_checkpoint(proof.checkpoint)[0]


@pytest.mark.parametrize("which", STEPS)
def test_mutants_of_every_file_are_caught(tmp_path: Path, which: str) -> None:
    check_mutants(tmp_path, which, DEFAULT)


@pytest.mark.slow
@pytest.mark.parametrize("which", STEPS)
def test_many_mutants_of_every_file_are_caught(tmp_path: Path, which: str) -> None:
    check_mutants(tmp_path, which, NIGHTLY)


def test_every_single_bit_of_the_signature_counts(tmp_path: Path) -> None:
    forge = Forge(tmp_path, seed=6)
    report = forge.report()
    honest = bundle.read((report / bundle.FILE_NAME).read_bytes())
    for bit in range(8 * len(honest.signature)):
        flipped = bytearray(honest.signature)
        flipped[bit // 8] ^= 1 << (bit % 8)
        altered = bundle.Bundle(payload=honest.payload, signature=bytes(flipped), key_id=honest.key_id)
        (report / bundle.FILE_NAME).write_bytes(bundle.write(altered))
        seen = verify(report, keys=[forge.key_file])
        assert {s.id for s in seen.steps if s.status == "wrong"} in ({"V01"}, {"V03"})


def test_values_of_any_type_in_any_field_of_a_resealed_report(tmp_path: Path) -> None:
    """A dishonest signer can put anything anywhere: verification still ends in named steps."""
    forge = Forge(tmp_path, seed=7)
    report = forge.report()
    draw = random.Random(7)
    odd: list[object] = [None, True, -1, 0, 2**53 - 1, "", "é\u202e", "x" * 2000, [], {}, [[]], {"é": {}}, [1, "2"]]
    for _ in range(300):
        statement = forge.statement(report)
        node: object = statement
        while True:
            children = (
                list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
            )
            if not children:
                break
            key = draw.choice(children)
            inner = node[key]  # type: ignore[index]
            if not isinstance(inner, (dict, list)) or not inner or draw.random() < 0.15:
                node[key] = draw.choice(odd)  # type: ignore[index]
                break
            node = inner
        payload = json.dumps(statement).encode()  # our canonical writer would refuse some of these
        seen = verify(forge.reseal(report, payload), trust_root=forge.trust_root, model_dir=forge.model_dir, now=NOW)
        assert "this client failed" not in seen.render_text(), statement
        assert len(seen.steps) == 15
        assert seen.render_text().replace("\n", "").isprintable()
