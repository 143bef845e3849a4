"""Controls in one run: where they hold, what makes each of them miss, and whom a miss silences.

Specification: truth_probe, section 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from assay.result import Answer, ControlResult

from checks.ask import ask
from checks.memory import InMemoryEvidence
from checks.truth_probe import controls as module
from checks.truth_probe import measuring, plants
from checks.truth_probe.check import TruthProbe
from checks.truth_probe.plants import EFFECTS, surrogate
from checks.truth_probe.scores import auroc, auroc_intervals
from tests.checks.truth_probe.cases import BARE, LEAN, Layer, evidence, planted_evidence, probe

LEAKING = replace(BARE, layers=(Layer(), Layer(twin=3.0)), train=200, test=300, width=32)
LESS: dict[str, Any] = {"methods": ("md", "lr"), "causal_layers": (0,)}


@pytest.fixture(scope="module")
def leaking() -> Answer:
    check = probe(LEAKING, **LESS)
    return ask(check, evidence(check, LEAKING))


def of(answer: Answer, name: str) -> list[ControlResult]:
    return [one for one in answer.controls if one.name == name]


def missed(answer: Answer) -> set[str]:
    return {one.name for one in answer.controls if not one.held}


def words(answer: Answer) -> dict[str, tuple[str, str]]:
    return {
        one.labels["layer"]: (one.word, one.labels["reason"]) for one in answer.findings if one.code == "truth_feature"
    }


def test_every_control_speaks_and_holds_where_nothing_is_wrong(leaking: Answer) -> None:
    assert {one.name for one in leaking.controls} == {control.name for control in TruthProbe.controls}
    assert all(one.held for one in leaking.controls if one.labels.get("layer", "0") == "0")


def test_surface_leak_fires_on_a_planted_lexical_leak(leaking: Answer) -> None:
    assert missed(leaking) == {"random-weights"}
    assert not leaking.valid
    assert words(leaking) == {"0": ("PROVISIONAL", "gates_open"), "1": ("INCONCLUSIVE", "surface_leak")}


def test_the_twin_tells_one_number_a_layer(leaking: Answer) -> None:
    assert [one.labels["layer"] for one in of(leaking, "random-weights")] == ["0", "1"]


def powers(answer: Answer, method: str, layer: str = "0") -> list[float]:
    found: Mapping[str, float] = {
        one.labels["effect"]: float(one.value)
        for one in of(answer, "deflated-plant")
        if one.labels["method"] == method and one.labels["layer"] == layer
    }
    return [found[effect] for effect in EFFECTS]


@pytest.mark.parametrize("method", ["md", "lr"])
def test_power_grows_with_the_effect(leaking: Answer, method: str) -> None:
    told = powers(leaking, method)
    assert told[0] <= 0.1
    assert told[-1] == 1.0
    # Ten draws each: two shares may stand a draw or two out of order, never more.
    assert all(later >= earlier - 0.2 for earlier, later in pairwise(told))


@pytest.mark.slow
def test_power_is_that_of_the_specification() -> None:
    # Section 8, d = 256, n = 400: md 0 / .50 / 1 at .71 / 1.06 / 1.41, lr 1 from .71 on.
    check = TruthProbe(**(LEAN | LESS | {"power_draws": 20}))
    told = ask(check, planted_evidence([3.0], n=400, d=256))
    empty, weak, middle, strong, most = powers(told, "md")
    assert (empty, strong, most) == (0, 1, 1)
    assert weak <= 0.15
    assert 0.2 <= middle <= 0.9
    assert powers(told, "lr")[1:] == [1, 1, 1, 1]


def ran(spoil: Callable[[pytest.MonkeyPatch], None]) -> Answer:
    """Return the answer of a layer with planted truth, with something broken in the check."""
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch)
        case = replace(LEAKING, layers=(Layer(),), train=150, test=200)
        check = probe(case, **LESS)
        return ask(check, evidence(check, case))


def test_a_weaker_plant_than_promised_is_noticed() -> None:
    def weaker(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module, "surrogate", lambda y, d, effect, rng: surrogate(y, d, 0.4 * effect, rng))

    told = ran(weaker)
    assert missed(told) == {"planted-truth"}
    # The surrogate stands for no layer: when it misses, no word stands anywhere.
    assert words(told) == {"0": ("INCONCLUSIVE", "control_missed")}


def test_a_fit_that_peeks_at_test_is_noticed() -> None:
    def peeks(patch: pytest.MonkeyPatch) -> None:
        def areas(_known: Any, test: Any, _penalty: float, rng: np.random.Generator) -> np.ndarray:
            own = test.u.T @ (2.0 * test.labels - 1)
            noise = rng.standard_normal((len(own), 50)) * np.linalg.norm(own) / len(own)
            return np.asarray(auroc(test.u @ (own[:, None] + noise), test.labels))

        patch.setattr(measuring, "shuffled_areas", areas)

    assert "shuffled-labels" in missed(ran(peeks))


def test_a_gate_that_passes_noise_is_noticed() -> None:
    def passes(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(plants, "flip_ps", lambda columns, *_: np.zeros(columns.shape[1]))
        patch.setattr(plants, "_whitened_p95", lambda *_: 0.0)

        def sure(*given: Any) -> list[Any]:
            return [replace(one, low=1.0) for one in auroc_intervals(*given)]

        patch.setattr(plants, "auroc_intervals", sure)

    told = ran(passes)
    assert {(one.name, one.labels["effect"]) for one in told.controls if not one.held} == {("deflated-plant", "0")}
    assert words(told)["0"] == ("INCONCLUSIVE", "control_missed")


def test_pairs_that_were_left_together_miss_the_re_paired_band(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(LEAKING, layers=(Layer(a=6.0),), train=150, test=200)
    check = probe(case, **LESS)
    whole = module._evidence

    def together(*given: Any, **more: Any) -> Any:
        return whole(*given, **{**more, "other": None})

    monkeypatch.setattr(module, "_evidence", together)
    assert "re-paired" in missed(ask(check, evidence(check, case)))


def test_a_control_that_could_not_look_at_a_layer_leaves_its_word_open() -> None:
    check = probe(LEAKING, **LESS)
    seen = evidence(check, LEAKING)
    states = {site: seen.twin().activations(site).copy() for site in ("resid.0", "resid.1")}
    states["resid.0"][0] = np.nan
    broken = InMemoryEvidence(
        facts=seen.facts,
        check="truth_probe",
        activations={site: seen.activations(site) for site in states},
        rows={role: seen.data(role) for role in seen.roles()},
        runs=seen.runs(),
        log_probabilities=seen.log_probabilities(),
        replay=seen.replay,
        twin=states,
    )
    answer = ask(check, broken)
    assert not [one for one in of(answer, "random-weights") if one.labels["layer"] == "0"]
    assert words(answer)["0"] == ("INCONCLUSIVE", "control_missed")


def test_a_control_without_a_twin_fails_loudly() -> None:
    case = replace(LEAKING, layers=(Layer(),), train=150, test=200)
    check = probe(case, **LESS)
    plain = evidence(check, case)
    bare = InMemoryEvidence(
        facts=plain.facts,
        check=plain.check,
        activations={"resid.0": plain.activations("resid.0")},
        rows={"pairs": plain.data("pairs")},
    )
    assert (ask(check, bare).outcome, ask(check, bare).step) == ("failed", "control")
