"""What a claim says of its own strength: draws that were made, power that was measured, and what speaks for a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assay.result import Finding, Measured, Metric, Multiplicity

from checks.clusterability.check import Clusterability
from checks.clusterability.findings import Limits, findings
from checks.clusterability.intervals import clopper_pearson, stopped_at
from checks.quantise import metric
from tests.checks.clusterability.evidence import evidence_of

LIMITS = Limits(alpha=0.05, min_excess_q=0.02, min_stability=0.7, min_cluster_share=0.01)


def test_a_mask_whose_null_stopped_early_tells_the_draws_that_were_made() -> None:
    rng = np.random.default_rng(70)
    sparse = rng.standard_normal((32, 48)) * (rng.random((32, 48)) < 0.3)
    check = Clusterability(nulls=499, k=(2,), families=("mlp_in",))
    measured = check.measure(evidence_of({"w": sparse}))
    p, held = measured.find("p", matrix="w"), measured.find("p_holm", matrix="w")
    assert p is not None
    assert held is not None
    assert 10 <= p.n < held.n == 499
    assert p.interval is not None
    assert p.interval.method == "inverse-binomial"
    claim = findings(measured, check.limits(), ())[0].claim
    assert f"{p.n} null draws of 499 planned, stopped early" in claim
    dense = check.measure(evidence_of({"w": rng.standard_normal((32, 48))}))
    drawn = dense.find("p", matrix="w")
    assert drawn is not None
    assert drawn.interval is not None
    assert drawn.interval.method == "clopper-pearson"
    assert "499 null draws." in findings(dense, check.limits(), ())[0].claim


def test_an_interval_after_stopping_covers_what_it_should() -> None:
    rng = np.random.default_rng(71)
    for p in (0.05, 0.3, 0.8):
        drawn = 10 + rng.negative_binomial(10, p, size=2000)
        bounds = {int(n): stopped_at(10, int(n)) for n in np.unique(drawn)}
        covered = np.mean([bounds[int(n)][0] <= p <= bounds[int(n)][1] for n in drawn])
        assert covered >= 0.94
    assert stopped_at(10, 10)[1] == 1.0
    # One success was bound to be the last draw: the upper end lies below that of a fixed number of draws.
    assert stopped_at(10, 40)[1] < clopper_pearson(10, 40)[1]
    assert stopped_at(10, 40)[0] == clopper_pearson(10, 40)[0]


def numbers_of(*matrices: str, p: float = 0.9, power: dict[str, float] | None = None) -> Measured:
    """Return numbers of matrices of one p, each with the power that is given."""
    told: list[Metric] = []
    for name in matrices:
        at: dict[str, Any] = {"n": 999, "unit": "1", "determinism": "exact", "labels": {"matrix": name}}
        known = {"excess_q": 0.1, "k": 4.0, "min_cluster_share": 0.2, "stability": 0.9, "confirm_excess_q": 0.1, "p": p}
        told += [metric(key, value, **at) for key, value in known.items()]
        held = min(1.0, p * len(matrices))
        told.append(
            metric("p_holm", held, multiplicity=Multiplicity(family="m", m=len(matrices), corrected="holm"), **at)
        )
        if name in (power or {}):
            share = (power or {})[name]
            told.append(metric("power", share, interval=(share - 0.1, share + 0.1), method="wilson", **at))
    return Measured(coverage={"matrix": matrices}, metrics=tuple(told))


def of_model(measured: Measured, limits: Limits = LIMITS) -> Finding:
    return findings(measured, limits, ())[-1]


def test_a_model_is_not_called_undetected_without_power() -> None:
    strong = numbers_of("a", "b", power={"a": 0.8, "b": 0.975})
    assert of_model(strong).word == "not-detected"
    for weak in ({"a": 0.975}, {"a": 0.975, "b": 0.79}, {"a": 0.975, "b": 0.0}, {}):
        told = findings(numbers_of("a", "b", power=weak), LIMITS, ())
        assert [one.word for one in told] == ["not-detected", "not-detected", "inconclusive"]
        assert "Power below 0.8 or not measured: " in told[-1].claim
        assert told[-1].claim.endswith("access used: weights.")
    # One that is found, or refused, has its own reason.
    assert of_model(numbers_of("a", "b", p=0.001)).word == "detected"
    owed = strong.model_copy(update={"coverage": {"matrix": ("a", "b", "c")}})
    assert "Power" not in of_model(owed).claim


def test_long_names_leave_room_for_the_closing_line() -> None:
    claim = of_model(numbers_of(*(f"{at}." + "x" * 120 for at in range(5)))).claim
    assert len(claim) <= 512
    assert claim.endswith("access used: weights.")


@pytest.mark.parametrize(
    "changed",
    [
        {"alpha": "0.01"},
        {"k": (2, 3)},
        {"min_excess_q": "0.05"},
        {"min_stability": "0.8"},
        {"min_cluster_share": "0.1"},
        {"zero_share_dense": "0.1"},
        {"nulls": 199},
    ],
)
def test_power_is_told_for_the_parameters_it_was_measured_with_alone(changed: dict[str, Any]) -> None:
    measured = numbers_of("a", power={"a": 0.9})
    told, model = (one for one in Clusterability().judge(measured, ()) if one.code.startswith("structure"))
    assert told.word == model.word == "inconclusive"  # no control ran
    plain, other = Clusterability().limits(), Clusterability(**changed).limits()
    assert "power of one test 0.90 [0.80, 1.00]" in findings(measured, plain, ())[0].claim
    one, model = findings(measured, other, ())
    assert (one.word, model.word) == ("not-detected", "inconclusive")
    assert "power not measured for these parameters" in one.claim
    assert not any(ref.name == "power" for ref in one.rests_on)


def test_powers_that_hold_for_other_parameters_are_not_in_the_numbers() -> None:
    noise = evidence_of({"w": np.random.default_rng(72).standard_normal((64, 64))})
    for check, told in ((Clusterability(families=("mlp_in",)), 1), (Clusterability(families=("mlp_in",), k=(2,)), 0)):
        assert len(check.measure(noise).named("power")) == told


SINGLE = "transformer.h.0.mlp.c_fc.weight"


def test_single_matrices_speak_for_no_transformer() -> None:
    for p, own in ((0.0001, "detected"), (0.9, "not-detected")):
        told = findings(numbers_of(SINGLE, p=p, power={SINGLE: 1.0}), LIMITS, ())
        assert [one.word for one in told] == [own, "inconclusive"]
        assert "single matrices speak for no transformer" in told[-1].claim
        assert told[-1].rests_on == ()
    for whole in ("virtual_mlp.0", "head_graph"):
        powers = {SINGLE: 1.0, whole: 1.0}
        assert of_model(numbers_of(SINGLE, whole, p=0.0001)).word == "detected"
        assert of_model(numbers_of(SINGLE, whole, power=powers)).word == "not-detected"
        # A matrix that is found does not make a model of it whose products are not.
        found, other = numbers_of(SINGLE, p=0.0001).metrics, numbers_of(whole, power=powers).metrics
        mixed = Measured(coverage={"matrix": (SINGLE, whole)}, metrics=(*found, *other))
        assert [one.word for one in findings(mixed, LIMITS, ())] == ["detected", "not-detected", "not-detected"]
        absent = Measured(coverage={"matrix": (SINGLE, whole)}, metrics=found)
        assert of_model(absent).word == "inconclusive"


def test_a_net_named_like_a_transformer_speaks_for_itself() -> None:
    told = numbers_of(SINGLE, p=0.0001)
    assert findings(told, LIMITS, (), feedforward=True)[-1].word == "detected"
    assert "Basis: residual" not in findings(told, LIMITS, (), feedforward=True)[0].claim
    assert of_model(numbers_of(SINGLE, "network", p=0.0001)).word == "detected"
