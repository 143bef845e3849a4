"""A run with a twin and replay: one model in memory at a time, kept while it may answer, and gone afterwards."""

from __future__ import annotations

import gc
import itertools
import json
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from assay.result import Finding, Measured
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from checks.check import Check, Continuation, Edit, Evidence, MetricSpec, ModelFacts, Needs, Text
from checks.documents import OrderedCheck
from checks.local import run_local
from checks.memory import InMemoryEvidence, generator
from checks.quantise import metric
from checks.run import STEPS
from checks.runtime import loading
from checks.runtime import look as looking
from checks.runtime.architectures import ARCHITECTURES, architectures_json
from checks.runtime.facts import model_facts_of
from checks.runtime.loading import read_tokenizer
from checks.runtime.look import Looked, look
from checks.runtime.plan import reads_of
from checks.runtime.sweep import evidence
from sandbox.reader.model import read_model
from tests.checks.models import files_of, save
from tests.checks.runtime.reference import TEXTS, needs_of
from tests.checks.runtime.test_sweep import reference


def looked(folder: Path, *needs: Needs, seed: int = 5, told: list[Any] | None = None) -> tuple[Looked, ModelFacts]:
    files = files_of(folder)
    reading = read_model(files, architectures_json())
    facts = model_facts_of(reading.config, reading.tensors)

    def on_step(*step: Any) -> None:
        if told is not None:
            told.append(step)

    return look(needs, reading, files, facts, seed=seed, threads=1, on_step=on_step), facts


def given(seen: Looked, facts: ModelFacts, needs: Needs) -> InMemoryEvidence:
    return evidence(
        facts, check="a", seed=0, needs=needs, swept=seen.swept, weights={}, rows={}, twin=seen.twin, loaded=seen.loaded
    )


@pytest.mark.parametrize("name", ["bert", "gpt2-headless", "gpt_neox", "llama"])
def test_a_twin_is_the_same_config_with_weights_drawn_from_the_seed(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    needs = needs_of(words=(), twin=True)
    seen, facts = looked(tmp_path, needs)
    entry = ARCHITECTURES[facts.architecture]
    config = json.loads((tmp_path / "config.json").read_text())
    used = {key: value for key, value in config.items() if key in {*entry.used, "model_type"}}
    torch.manual_seed(int(generator(5, "runtime", "twin").integers(2**63)))
    family = AutoModelForCausalLM if entry.head else AutoModel
    plain: Any = family.from_config(AutoConfig.for_model(**used), attn_implementation="eager")  # type: ignore[no-untyped-call]
    plain.train(False)
    assert seen.twin is not None
    tokenizer = read_tokenizer(files_of(tmp_path))
    twin = given(seen, facts, needs).twin()
    for number, read in enumerate(reads_of(needs)):
        expected = reference(plain, tokenizer, read.text)
        for layer in range(3):
            np.testing.assert_allclose(twin.activations(f"resid.{layer}")[number], expected[layer], atol=1e-5)


def test_a_twin_differs_from_its_model_and_can_be_drawn_again(tmp_path: Path) -> None:
    save("llama", tmp_path)
    needs = needs_of(words=(), sites=("resid.1",), twin=True)

    elsewhere = itertools.count()

    def states(needs: Needs, seed: int) -> InMemoryEvidence:
        torch.manual_seed(next(elsewhere))  # what is drawn elsewhere must not matter
        return given(*looked(tmp_path, needs, seed=seed), needs)

    seen, other = states(needs, 5), states(needs, 6)
    own, twin = (one.activations("resid.1") for one in (seen, seen.twin()))
    assert np.abs(own - twin).max() > 0.1
    assert np.abs(other.twin().activations("resid.1") - twin).max() > 1e-3
    np.testing.assert_array_equal(states(needs, 5).twin().activations("resid.1"), twin)
    alone = states(needs_of(words=(), sites=("resid.1",)), 5)
    np.testing.assert_array_equal(alone.activations("resid.1"), own, "a twin beside it changes nothing of the model's")


def test_a_twin_sees_the_texts_of_those_who_asked_for_it(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    needs = needs_of(TEXTS[:2], sites=("resid.0",), twin=True)
    other = needs_of(TEXTS[2:], sites=("resid.2",))
    seen, facts = looked(tmp_path, needs, other)
    assert seen.twin is not None
    assert (seen.twin.texts, list(seen.twin.states), seen.twin.scores) == (2, [0], {})
    assert given(seen, facts, needs).twin().lost() == {}
    assert given(seen, facts, needs).twin().runs() == {"t0": 0, "t1": 1}
    with pytest.raises(Exception, match="twin"):
        given(seen, facts, other).twin()


def test_two_models_are_never_in_memory_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("gpt2", tmp_path)
    whole = loading.load
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def load(*args: Any, **more: Any) -> Any:
        alive.append(sum(one() is not None for one in made))
        loaded = whole(*args, **more)
        made.append(weakref.ref(loaded.bridge))
        return loaded

    monkeypatch.setattr(looking, "load", load)
    seen, _ = looked(tmp_path, needs_of(words=(), twin=True))
    assert seen.loaded is None
    assert [one() for one in made] == [None, None], "without replay the model is gone after its sweep"
    seen, _ = looked(tmp_path, needs_of(twin=True, replay=2))
    assert seen.loaded is not None
    assert alive == [0, 0, 0, 0]
    assert [one() is None for one in made] == [True, True, True, False]
    del seen
    gc.collect()
    assert made[-1]() is None


def test_both_sweeps_are_told_as_one_step(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    told: list[Any] = []
    needs = needs_of(sites=("resid.0",), words=(" red",), twin=True)
    looked(tmp_path, needs, needs_of(("NOT", "? ?"), sites=("resid.2",), words=()), told=told)
    assert told == [("loading", 0, 1), ("sweep", 1, 2), ("loading", 1, 1), ("sweep", 3, 4), ("sweep", 4, 4)]


class Whole(Check):
    """Mean of the states, of the twin's, of two words' scores and of their scores under an edit."""

    name = "whole"
    version = "1.0"
    source = "tests"
    controls = ()
    metrics = tuple(
        MetricSpec(
            name=name,
            unit="1",
            labels=(),
            better="none",
            determinism="tolerance",
            summary="A mean.",
            tolerance=(1e-4, 0),
        )
        for name in ("state", "twin", "score", "edited")
    )
    words = ()
    reasons = ()

    edits: int = 2

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        return Needs(
            sites=("resid.1",),
            texts=(Text(id="t0", text=TEXTS[0]), Text(id="t1", text=TEXTS[1])),
            continuations=tuple(Continuation(id=f"c{n}", after=TEXTS[n], text=" red") for n in range(2)),
            replay=2,
            twin=("t0", "t1"),
        )

    def measure(self, evidence: Evidence) -> Measured:
        add = np.ones(evidence.facts.width)
        edits = [Edit(site="resid.1", row=f"t{n % 2}", add=add, ask=(f"c{n % 2}",)) for n in range(self.edits)]
        values = {
            "state": evidence.activations("resid.1").mean(),
            "twin": evidence.twin().activations("resid.1").mean(),
            "score": np.mean(list(evidence.log_probabilities().values())),
            "edited": np.mean(evidence.replay(edits)),
        }
        metrics = tuple(
            metric(
                name,
                float(value),
                n=2,
                unit="1",
                determinism="tolerance",
                labels={},
                interval=(float(value) - 1e-4, float(value) + 1e-4),
                method="fixed",
                tolerance=(1e-4, 0),
            )
            for name, value in values.items()
        )
        return Measured(coverage={}, metrics=metrics, plots=(), skipped=())

    def judge(self, real: Measured, controls: Sequence[Any]) -> tuple[Finding, ...]:
        return ()


def test_a_check_asks_for_all_of_it_in_a_run(tmp_path: Path) -> None:
    save("qwen2", tmp_path)
    told: list[str] = []

    def run(seed: int, edits: int) -> tuple[Any, Any]:
        ordered = [OrderedCheck(name="whole", version="1.0", params={"edits": edits})] * 2
        catalogue: Mapping[str, type[Check]] = {"whole": Whole}
        result = run_local(tmp_path, ordered, catalogue, seed=seed, on_step=lambda step, *_: told.append(step))
        first, second = result.answers
        return first, second

    first, second = run(1, 2)
    assert (first.outcome, first.valid) == ("measured", True)
    assert first == second, "each check has its own budget"
    values = {one.name: one.value for one in first.measured.metrics}
    assert len(set(values.values())) == 4
    other = {one.name: one.value for one in run(2, 2)[0].measured.metrics}
    assert {name for name in values if values[name] != other[name]} == {"twin"}
    over, _ = run(1, 3)
    assert (over.outcome, over.reason, over.step) == ("failed", "check_error", "measure")
    assert set(told) <= set(STEPS)


def test_a_twin_sweeps_only_the_texts_that_were_asked_of_it(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    needs = needs_of(words=(), twin=("t1",))
    seen, facts = looked(tmp_path, needs)
    states = given(seen, facts, needs).twin().activations("resid.1")
    assert np.isfinite(states).all(axis=1).tolist() == [text.id == "t1" for text in needs.texts]
    whole, _ = looked(tmp_path, needs_of(words=(), twin=True))
    assert whole.twin is not None
    assert seen.twin is not None
    assert seen.twin.texts == 1 < whole.twin.texts
