"""Carried vectors of probes: read strictly, and a scan with them gives the bytes of a scan without."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from checks.check import Refusal
from checks.contamination.items import read_benchmark
from checks.contamination.plan import Plan, ScanParameters, make_plan
from checks.contamination.scan import Scanner, scan
from checks.contamination.scan_vectors import HEAD, TAIL, probe_vectors, read_vectors
from checks.contamination.shards import shards, stored
from tests.checks.contamination.audited import WordEncoder, benchmark_rows, corpus_file, docstrings, inside

CODE = {
    "benchmark": "demo",
    "item": "code",
    "kind": "code",
    "question": "Return the sum of the even numbers.",
    "entry": "even_sum",
    "reference": "def even_sum(values):\n    return sum(v for v in values if v % 2 == 0)\n",
    "probes": [[[1, 2]], [[4]], [[]], [[6, 1]], [[8]]],
}


class Named(WordEncoder):
    digest = hashlib.sha256(b"one").hexdigest()

    def __init__(self) -> None:
        self.alone: list[str] = []

    def embed_alone(self, text: str) -> np.ndarray:
        self.alone.append(text)
        return super().embed_alone(text)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([super(Named, self).embed_alone(text) for text in texts])


def _plan(count: int = 6, **changed: object) -> Plan:
    rows, _ = benchmark_rows(count)
    items = read_benchmark([*rows, CODE, {**CODE, "item": "java", "language": "java", "question": "The same in Java."}])
    parameters = dataclasses.replace(ScanParameters(cosine_floor=3_000), **changed)  # type: ignore[arg-type]
    told = {"encoder": Named.digest}
    return make_plan(items, parameters=parameters, digests=told, window_key=b"k" * 32, rng=np.random.default_rng(1))


def _changed(vectors: bytes, rows: np.ndarray) -> bytes:
    told = vectors[: HEAD.size] + rows.astype("<f4").tobytes()
    return told + hashlib.sha256(told).digest()


def test_vectors_of_another_plan_or_encoder_are_refused() -> None:
    plan, encoder = _plan(), Named()
    vectors = probe_vectors(plan, encoder)
    with pytest.raises(Refusal, match="other_plan: plan:"):
        read_vectors(vectors, _plan(7), encoder)
    other = Named()
    other.digest = hashlib.sha256(b"two").hexdigest()
    with pytest.raises(Refusal, match="other_plan: encoder:other_digest"):
        read_vectors(vectors, plan, other)
    with pytest.raises(Refusal, match="other_plan: encoder:other_digest"):
        probe_vectors(plan, other)


@pytest.mark.parametrize("cut", [0, 10, HEAD.size, -1, -TAIL, -4 * 512])
def test_vectors_of_the_wrong_size_are_refused(cut: int) -> None:
    plan, encoder = _plan(), Named()
    vectors = probe_vectors(plan, encoder)
    with pytest.raises(ValueError, match=r"too short|do not hold"):
        read_vectors(vectors[:cut], plan, encoder)
    with pytest.raises(ValueError, match="do not hold"):
        read_vectors(vectors + b"\0", plan, encoder)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
def test_vectors_that_are_no_directions_are_refused(value: float) -> None:
    plan, encoder = _plan(), Named()
    vectors = probe_vectors(plan, encoder)
    rows = read_vectors(vectors, plan, encoder).copy()
    place = next(probe.id for probe in plan.probes if probe.kind == "prose")
    rows[place, 7] = value
    with pytest.raises(ValueError, match=f"probe:{place}:"):
        read_vectors(_changed(vectors, rows), plan, encoder)
    rows[place] = 0
    with pytest.raises(ValueError, match=f"probe:{place}:"):
        read_vectors(_changed(vectors, rows), plan, encoder)


def test_a_flipped_bit_is_refused() -> None:
    plan, encoder = _plan(), Named()
    vectors = bytearray(probe_vectors(plan, encoder))
    vectors[HEAD.size + 2] ^= 1
    with pytest.raises(ValueError, match="changed"):
        read_vectors(bytes(vectors), plan, encoder)
    with pytest.raises(ValueError, match="magic"):
        read_vectors(b"x" + bytes(vectors[1:]), plan, encoder)


def test_a_plan_without_embedding_has_no_vectors() -> None:
    with pytest.raises(ValueError, match="off"):
        probe_vectors(_plan(embed="off"), Named())


def test_equal_texts_are_run_once_and_rows_stand_by_id() -> None:
    plan, encoder = _plan(), Named()
    vectors = probe_vectors(plan, encoder)
    assert len(encoder.alone) == len(set(encoder.alone)) == len(plan.probes) - 1  # Java is not embedded
    rows = read_vectors(vectors, plan, encoder)
    for probe in plan.probes:
        assert bool(rows[probe.id].any()) == (probe.language != "java")
    assert vectors == probe_vectors(plan, Named())


@pytest.mark.parametrize("coarse", ["fp32", "bf16"])
def test_a_scan_with_carried_vectors_gives_the_same_bytes(tmp_path: Path, coarse: str) -> None:
    rows, rewordings = benchmark_rows(6)
    hosts = docstrings(2000)
    texts = [inside(hosts[0], rows[0]["question"]), inside(hosts[1], rewordings[1]), *hosts[2:]]
    (shard,) = shards([stored(corpus_file(tmp_path, texts))], 2**28)
    plan = dataclasses.replace(_plan(coarse=coarse), shards=(shard,))
    without = scan(shard, plan, Named())
    encoder = Named()
    scanner = Scanner(plan, encoder=encoder, vectors=probe_vectors(plan, Named()))
    assert not encoder.alone
    assert scan(shard, plan, scanner=scanner).to_bytes() == without.to_bytes()
    assert without.best
