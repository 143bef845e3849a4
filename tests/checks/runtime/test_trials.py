"""Trials and lesions reach a check through one run: of tokens and of vectors, each within its own budget."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from assay.result import Finding, Measured

from checks.check import Check, Evidence, MetricSpec, ModelFacts, Needs, VectorTrial
from checks.documents import OrderedCheck
from checks.errors import NotAskedFor
from checks.local import run_local
from checks.memory import InMemoryEvidence
from checks.quantise import metric
from checks.runtime import loading
from checks.runtime import look as looking
from checks.runtime.architectures import architectures_json
from checks.runtime.facts import model_facts_of
from checks.runtime.lesions import TokenLesions
from checks.runtime.look import Looked, look
from checks.runtime.sweep import evidence
from sandbox.reader.model import read_model
from tests.checks import feedforward_models
from tests.checks.models import files_of, save
from tests.checks.runtime.reference import needs_of
from tests.checks.runtime.test_lesions import TRIALS
from tests.checks.runtime.test_loading import loaded

UNITS = ("mlp.1", "heads.0")
LESIONS: list[Mapping[str, np.ndarray]] = [{}, {"mlp.1": np.arange(20)}, {"heads.0": np.array([1])}]


def trying(lesions: int = 9, **more: Any) -> Needs:
    known: dict[str, Any] = {"trials": TRIALS, "units": UNITS, "lesions": lesions}
    return Needs(**(known | more))


def looked(folder: Path, *needs: Needs, told: list[Any] | None = None) -> tuple[Looked, ModelFacts]:
    files = files_of(folder)
    reading = read_model(files, architectures_json())
    facts = model_facts_of(reading.config, reading.tensors)

    def on_step(*step: Any) -> None:
        if told is not None:
            told.append(step)

    return look(needs, reading, files, facts, seed=5, threads=1, on_step=on_step), facts


def given(seen: Looked, facts: ModelFacts, needs: Needs) -> InMemoryEvidence:
    return evidence(
        facts, check="a", seed=0, needs=needs, swept=seen.swept, weights={}, rows={}, twin=seen.twin, loaded=seen.loaded
    )


def test_a_check_of_trials_alone_gets_its_lesions(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    needs = trying()
    seen, facts = looked(tmp_path, needs)
    found = given(seen, facts, needs)
    alone = TokenLesions(loaded(tmp_path), TRIALS, UNITS, 9)
    np.testing.assert_array_equal(found.lesioned(LESIONS).loss, alone(LESIONS).loss)
    for site in UNITS:
        np.testing.assert_array_equal(found.unit_sd(site), alone.unit_sd[site])
    with pytest.raises(NotAskedFor, match=r"mlp\.0"):
        found.unit_sd("mlp.0")
    assert (seen.swept.texts, seen.swept.tokens) == (alone.texts, alone.tokens), "the report counts what ran"


def test_trials_beside_a_sweep_change_nothing_of_it(tmp_path: Path) -> None:
    save("llama", tmp_path)
    needs, other = needs_of(twin=True, replay=2), trying()
    plain, facts = looked(tmp_path, needs)
    seen, _ = looked(tmp_path, needs, other)
    one, same = given(plain, facts, needs), given(seen, facts, needs)
    for layer in range(3):
        np.testing.assert_array_equal(one.activations(f"resid.{layer}"), same.activations(f"resid.{layer}"))
    assert one.log_probabilities() == same.log_probabilities()
    np.testing.assert_array_equal(one.twin().activations("resid.1"), same.twin().activations("resid.1"))
    with pytest.raises(NotAskedFor, match="named no trials"):
        same.lesioned([{}])
    assert given(seen, facts, other).lesioned(LESIONS).correct.shape == (3, len(TRIALS))


def test_checks_that_ask_alike_have_a_budget_each_and_controls_none(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    first, second = trying(3), trying(3)
    assert first == second
    seen, facts = looked(tmp_path, first, second)
    found = given(seen, facts, first)
    found.lesioned(LESIONS[:2])
    spoiled = found.replacing(weights={"x": np.zeros((1, 1))})
    with pytest.raises(NotAskedFor, match="2 lesions, and 1 are left"):
        spoiled.lesioned(LESIONS[:2])
    assert given(seen, facts, second).lesioned(LESIONS).loss.shape == (3, len(TRIALS))


def test_a_lost_trial_is_told_beside_lost_texts(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    texts = needs_of((" ".join(["red"] * 17),), words=())
    needs = trying(trials=(*TRIALS, TRIALS[0].__class__(id="e", group="a", text="red", target="")))
    needs = Needs(**{**vars(needs), "sites": texts.sites, "texts": texts.texts})
    seen, facts = looked(tmp_path, needs)
    assert given(seen, facts, needs).lost() == {"t0": "too_long", "e": "continuation_empty"}


def test_a_model_without_a_head_answers_that_every_trial_is_lost(tmp_path: Path) -> None:
    save("bert", tmp_path)
    needs = trying()
    found = given(*looked(tmp_path, needs), needs)
    assert set(found.lost().values()) == {"no_output_head"}
    assert not found.lesioned(LESIONS).correct.any()


def test_the_model_lives_as_long_as_lesions_may_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("gpt2", tmp_path)
    whole = loading.load
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def load(*args: Any, **more: Any) -> Any:
        alive.append(sum(one() is not None for one in made))
        here = whole(*args, **more)
        made.append(weakref.ref(here.bridge))
        return here

    monkeypatch.setattr(looking, "load", load)
    seen, _ = looked(tmp_path, needs_of(words=(), twin=True), trying())
    assert seen.loaded is None
    assert alive == [0, 0], "the twin is gone before the model is read"
    assert [one() is None for one in made] == [True, False]
    del seen
    gc.collect()
    assert made[-1]() is None


def test_sweeps_and_first_passes_of_trials_are_told_as_one_step(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    told: list[Any] = []
    looked(tmp_path, needs_of(sites=("resid.0",), words=(" red",), twin=True), trying(), trying(), told=told)
    assert told == [
        ("loading", 0, 1),
        ("sweep", 1, 4),
        ("loading", 1, 1),
        ("sweep", 2, 4),
        ("sweep", 3, 4),
        ("sweep", 4, 4),
    ]
    told.clear()
    looked(tmp_path, trying(), told=told)
    assert told == [("loading", 0, 1), ("loading", 1, 1), ("sweep", 1, 1)]


def vectors(model: str, many: int = 12) -> tuple[VectorTrial, ...]:
    draw = np.random.default_rng(0)
    width = int(np.prod(feedforward_models.INPUTS[model]))
    return tuple(
        VectorTrial(id=f"v{n}", group="ab"[n % 3 == 0], values=tuple(draw.normal(size=width)), label=n % 3)
        for n in range(many)
    )


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_feed_forward_model_is_not_loaded_as_a_transformer(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trials run from the files' tensors; without a lesion they score as the torch modules themselves do."""
    net = feedforward_models.save(model, tmp_path)
    monkeypatch.setattr(looking, "load", lambda *_, **__: 1 / 0)
    trials = vectors(model)
    needs = Needs(trials=trials, units=("layer.0",), lesions=3)
    told: list[Any] = []
    seen, facts = looked(tmp_path, needs, Needs(), told=told)
    found = given(seen, facts, needs)
    inputs = torch.tensor([one.values for one in trials], dtype=torch.float32).reshape(
        len(trials), *feedforward_models.INPUTS[model]
    )
    labels = torch.tensor([one.label for one in trials])
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(net(inputs), labels, reduction="none").numpy()
    scores = found.lesioned([{}, {"layer.0": np.array([0, 1])}])
    np.testing.assert_allclose(scores.loss[0], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(scores.loss[1] - scores.loss[0]).max() > 1e-3
    assert found.unit_sd("layer.0").shape == (facts.feedforward.units(0),)  # type: ignore[union-attr]
    assert found.lost() == {}
    with pytest.raises(NotAskedFor, match="left"):
        found.lesioned([{}, {}])
    assert told == [("loading", 0, 1), ("loading", 1, 1), ("sweep", 1, 1)]
    assert (seen.swept.texts, seen.swept.tokens, seen.loaded) == (0, 0, None)


class Cut(Check):
    """Mean loss without and with a lesion, of whichever model."""

    name = "cut"
    version = "1.0"
    source = "tests"
    controls = ()
    kinds = ("transformer", "feedforward")
    metrics = tuple(
        MetricSpec(
            name=name,
            unit="nats",
            labels=(),
            better="none",
            determinism="tolerance",
            summary="A mean.",
            tolerance=(1e-4, 0),
        )
        for name in ("whole", "cut")
    )
    words = ()
    reasons = ()

    lesions: int = 2

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        if model.feedforward is None:
            return trying(2)
        return Needs(trials=vectors("mlp"), units=("layer.0",), lesions=2)

    def measure(self, evidence: Evidence) -> Measured:
        site = "mlp.1" if evidence.facts.feedforward is None else "layer.0"
        loss = evidence.lesioned([{}, {site: np.arange(9)}][: self.lesions] * (1 + self.lesions // 3)).loss
        told = tuple(
            metric(
                name,
                float(of.mean()),
                n=loss.shape[1],
                unit="nats",
                determinism="tolerance",
                labels={},
                tolerance=(1e-4, 0),
            )
            for name, of in zip(("whole", "cut"), loss, strict=False)
        )
        return Measured(coverage={}, metrics=told, plots=(), skipped=())

    def judge(self, real: Measured, controls: Sequence[Any]) -> tuple[Finding, ...]:
        return ()


@pytest.mark.parametrize("kind", ["transformer", "feedforward"])
def test_a_run_answers_checks_that_ask_for_lesions(kind: str, tmp_path: Path) -> None:
    if kind == "transformer":
        save("gpt_neox", tmp_path)
    else:
        feedforward_models.save("mlp", tmp_path)

    def run(lesions: int) -> tuple[Any, ...]:
        ordered = [OrderedCheck(name="cut", version="1.0", params={"lesions": lesions})] * 2
        return run_local(tmp_path, ordered, {"cut": Cut}, seed=1).answers

    first, second = run(2)
    assert first.outcome == "measured"
    assert first == second, "each check has its own budget"
    whole, cut = (one.value for one in first.measured.metrics)
    assert whole != cut
    over, _ = run(3)
    assert (over.outcome, over.reason, over.step) == ("failed", "check_error", "measure")
