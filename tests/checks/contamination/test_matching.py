from __future__ import annotations

import hashlib

import numpy as np
import pytest

from checks.contamination.matching import MARGIN, Exact, Match, candidates


def unit(rng: np.random.Generator, count: int, width: int = 16) -> np.ndarray:
    raw = rng.normal(size=(count, width))
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), dtype=np.float32)


class Counted:
    """Gives each text a vector of its own, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_alone(self, text: str) -> np.ndarray:
        self.asked.append(text)
        seed = int.from_bytes(hashlib.sha256(text.split("#")[0].encode()).digest()[:4], "big")
        return np.asarray(unit(np.random.default_rng(seed), 1)[0])


@pytest.mark.parametrize(
    ("left", "right"),
    [(np.zeros((2, 3)), np.zeros((2, 4))), (np.zeros(3), np.zeros((1, 3))), (np.full((1, 3), np.nan), np.ones((1, 3)))],
)
def test_vectors_that_cannot_be_compared_are_refused(left: np.ndarray, right: np.ndarray) -> None:
    with pytest.raises(ValueError, match="vector"):
        candidates(left.astype(np.float32), right.astype(np.float32))


@pytest.mark.parametrize(("windows", "probes"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_meets_nothing(windows: int, probes: int) -> None:
    rng = np.random.default_rng(0)
    found = candidates(unit(rng, windows), unit(rng, probes))
    assert len(found.windows) == len(found.probes) == len(found.cosines) == 0


@pytest.mark.parametrize("block", [1, 70, 2**20])
def test_every_pair_at_the_floor_is_found_whatever_the_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checks.contamination.matching.BLOCK", block)
    rng = np.random.default_rng(4)
    windows, probes = unit(rng, 120), unit(rng, 35)
    table = windows.astype(np.float64) @ probes.astype(np.float64).T
    found = candidates(windows, probes, 0.3)
    pairs = set(zip(found.windows.tolist(), found.probes.tolist(), strict=True))
    assert pairs >= set(zip(*(at.tolist() for at in np.nonzero(table >= 0.3)), strict=True))
    assert pairs == set(zip(*(at.tolist() for at in np.nonzero(table >= 0.3 - MARGIN)), strict=True))
    assert list(pairs) != []
    np.testing.assert_allclose(found.cosines, table[found.windows, found.probes], atol=1e-6)
    assert sorted(pairs) == list(zip(found.windows.tolist(), found.probes.tolist(), strict=True))


def test_kept_cosines_come_from_texts_that_were_run_alone() -> None:
    texts, probes = ["a#1", "b", "c"], ["a", "c", "d"]
    everything = candidates(np.ones((3, 2), dtype=np.float32), np.ones((3, 2), dtype=np.float32))
    encoder = Counted()
    found = Exact(encoder).matches(everything, texts, probes, 0.99)
    assert found == (Match(0, 0, 10_000), Match(2, 1, 10_000))
    assert sorted(encoder.asked) == sorted([*texts, *probes])  # each once


def test_known_probe_vectors_are_not_made_again() -> None:
    encoder = Counted()
    known = {0: encoder.embed_alone("a")}
    pairs = candidates(np.ones((1, 2), dtype=np.float32), np.ones((1, 2), dtype=np.float32))
    exact = Exact(encoder, known)
    assert exact.matches(pairs, ["a#x"], ["a"]) == (Match(0, 0, 10_000),)
    assert encoder.asked == ["a", "a#x"]


def test_the_coarse_error_changes_no_match() -> None:
    rng = np.random.default_rng(7)
    windows, probes = unit(rng, 200), unit(rng, 40)
    noisy = windows + rng.uniform(-0.002, 0.002, windows.shape).astype(np.float32)
    exact = {(w, p) for w, p in np.argwhere(windows @ probes.T >= 0.5).tolist()}
    found = candidates(noisy, probes, 0.5)
    assert np.abs(noisy @ probes.T - windows @ probes.T).max() < MARGIN
    assert exact <= set(zip(found.windows.tolist(), found.probes.tolist(), strict=True))
