"""Evidence gives what was asked for and nothing else, and its draws can be repeated by anyone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from checks.check import Edit, Evidence
from checks.errors import NotAskedFor
from checks.memory import InMemoryEvidence, generator, model_facts


def evidence() -> InMemoryEvidence:
    return InMemoryEvidence(
        facts=model_facts(),
        check="demo",
        seed=7,
        weights={"w": np.ones((2, 3))},
        activations={"resid.0": np.zeros((4, 2))},
        rows={"pairs": [{"id": "a"}]},
        lost={"t3": "too_long"},
    )


def test_it_is_evidence() -> None:
    seen: Evidence = evidence()
    assert seen.weights("w").dtype == np.float64
    assert seen.activations("resid.0").dtype == np.float32
    assert seen.data("pairs") == ({"id": "a"},)
    assert seen.lost() == {"t3": "too_long"}


def test_what_was_not_asked_for_is_not_there() -> None:
    for read in (evidence().weights, evidence().activations, evidence().data):
        with pytest.raises(NotAskedFor, match="elsewhere"):
            read("elsewhere")


def test_replacing_leaves_the_original_untouched() -> None:
    seen = evidence()
    spoiled = seen.replacing(activations={"resid.0": np.ones((4, 2))}, lost={})
    assert spoiled.activations("resid.0").sum() == 8
    assert seen.activations("resid.0").sum() == 0
    assert spoiled.lost() == {}
    assert spoiled.data("pairs") == seen.data("pairs")
    assert (spoiled.seed, spoiled.check) == (7, "demo")


def test_spoiled_evidence_keeps_what_was_not_spoiled() -> None:
    """A control replaces states; words, runs, replay and the twin are still those of the model."""
    asked: list[int] = []

    def replay(edits: Sequence[Edit]) -> list[np.ndarray]:
        asked.append(len(edits))
        return [np.zeros(len(edit.ask)) for edit in edits]

    seen = InMemoryEvidence(
        facts=model_facts(),
        activations={"resid.0": np.zeros((2, 2))},
        runs={"a": 0, "b": 0},
        log_probabilities={"c": -1.5},
        replay=replay,
        twin={"resid.0": np.full((2, 2), 7.0)},
    )
    spoiled = seen.replacing(activations={"resid.0": np.ones((2, 2))})
    edit = Edit(site="resid.0", row="a", add=np.zeros(2), ask=("c", "c"))
    for one in (seen, spoiled, spoiled.twin()):
        assert one.runs() == {"a": 0, "b": 0}
        assert one.log_probabilities() == {"c": -1.5}
        assert [len(found) for found in one.replay([edit])] == [2]
        assert one.twin().activations("resid.0").sum() == 28
    assert asked == [1, 1, 1]
    assert spoiled.activations("resid.0").sum() == 4, "the twin replaces the states of its own evidence alone"


def test_a_replay_and_a_twin_that_nobody_asked_for_are_not_there() -> None:
    with pytest.raises(NotAskedFor, match="2 edits"):
        evidence().replay([Edit(site="resid.0", row="a", add=np.zeros(2), ask=())] * 2)
    with pytest.raises(NotAskedFor, match="twin"):
        evidence().twin()
    assert evidence().runs() == {}
    assert evidence().log_probabilities() == {}


def test_evidence_is_not_changed_in_place() -> None:
    seen = evidence()
    with pytest.raises(ValueError, match="read-only"):
        seen.activations("resid.0")[0, 0] = 1.0


def test_draws_repeat_and_labels_are_independent() -> None:
    seen = evidence()
    first = seen.rng("bootstrap").normal(size=1000)
    assert np.array_equal(first, seen.rng("bootstrap").normal(size=1000))
    others = [
        seen.rng("null").normal(size=1000),
        generator(7, "other", "bootstrap").normal(size=1000),
        generator(8, "demo", "bootstrap").normal(size=1000),
    ]
    assert all(abs(np.corrcoef(first, other)[0, 1]) < 0.13 for other in others)  # 4 standard errors at n = 1000


def test_a_stranger_can_repeat_the_draws_from_the_documented_seed() -> None:
    digest = hashlib.sha256(b"assay-rng/v1\n" + (7).to_bytes(8, "big") + b"demo" + b"\0" + b"bootstrap").digest()
    stranger = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    assert np.array_equal(stranger.integers(0, 2**60, 8), generator(7, "demo", "bootstrap").integers(0, 2**60, 8))


def test_labels_cannot_be_spliced() -> None:
    with pytest.raises(ValueError, match="NUL"):
        generator(1, "a", "b\0c")
    with pytest.raises(ValueError, match="outside"):
        generator(-1, "a", "b")
