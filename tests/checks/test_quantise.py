"""Numbers that leave a check are told with two digits of their uncertainty, whatever the float was."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from assay.result import DECIMAL, Metric, canonical_decimal
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from checks.quantise import decimal, metric, null_distribution, p_value, quantise
from checks.statistics import proportion_interval

NUMBERS = st.floats(min_value=-9e14, max_value=9e14, allow_nan=False)


@given(value=NUMBERS, bounds=st.none() | st.tuples(NUMBERS, NUMBERS))
def test_every_float_makes_a_valid_metric(value: float, bounds: tuple[float, float] | None) -> None:
    interval = None if bounds is None else (min(bounds), max(bounds))
    made = metric("m", value, n=1, unit="1", determinism="statistical", interval=interval, method="wilson")
    assert Metric.model_validate(made.to_json() | {"interval": made.interval}) == made


@given(value=NUMBERS, half=st.floats(min_value=0, max_value=1e6), shift=st.floats(-1e3, 1e3))
def test_bounds_never_narrow(value: float, half: float, shift: float) -> None:
    low, high = value + shift - half, value + shift + half
    _, told_low, told_high, step = quantise(value, low, high)
    assert told_low is not None
    assert told_high is not None
    assert Decimal(told_low) <= Decimal(repr(low))
    assert Decimal(told_high) >= Decimal(repr(high))
    assert Decimal(repr(low)) - Decimal(told_low) <= Decimal(step)


@given(value=NUMBERS, digits=st.integers(1, 15))
def test_decimal_is_canonical_and_near(value: float, digits: int) -> None:
    text = decimal(value, digits)
    assert DECIMAL.fullmatch(text)
    assert canonical_decimal(text) == text
    assert abs(Decimal(text) - Decimal(repr(value))) <= max(
        abs(Decimal(repr(value))) * Decimal(10) ** (1 - digits), Decimal("1e-18")
    )


def test_the_step_has_two_digits_of_the_half_width() -> None:
    assert quantise(0.8123, 0.7834, 0.8391) == ("0.812", "0.783", "0.84", "0.001")
    assert quantise(1234.5, 1100.0, 1400.0) == ("1230", "1100", "1400", "10")


def test_ties_go_to_the_even_digit() -> None:
    assert quantise(0.0125, 0.0, 0.02)[0] == "0.012"
    assert quantise(0.0135, 0.0, 0.02)[0] == "0.014"


@pytest.mark.parametrize(("value", "told"), [(999999.7, "1000000"), (0.1 + 0.2, "0.3"), (0.0, "0"), (-1e-30, "0")])
def test_six_digits_where_there_is_no_interval(value: float, told: str) -> None:
    assert quantise(value, None, None)[0] == told


def test_float_noise_is_no_uncertainty() -> None:
    assert quantise(0.3, 0.3, 0.1 + 0.2)[3] == "0.000001"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e15, -1e300, 999999999999999.9])
def test_what_no_decimal_can_tell_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"finite number|too large"):
        quantise(value, None, None)


def test_crossed_and_half_intervals_are_refused() -> None:
    with pytest.raises(ValueError, match="above high"):
        quantise(0.5, 0.6, 0.4)
    with pytest.raises(ValueError, match="both bounds"):
        quantise(0.5, 0.4, None)
    with pytest.raises(ValueError, match="how the interval was made"):
        metric("m", 0.5, n=3, unit="1", determinism="exact", interval=(0.4, 0.6))


def test_p_is_never_below_its_floor_nor_rounded_down() -> None:
    assert p_value(0.0, 1 / 1001) == "0.000999001"
    assert p_value(0.01234567) == "0.0123457"
    assert p_value(0.01234561) == "0.0123457"
    assert p_value(0.0) == "0.000000000001"
    assert p_value(1.0) == "1"
    with pytest.raises(ValueError, match="probability"):
        p_value(1.2)


@given(p=st.floats(0, 1), floor=st.floats(0, 1))
def test_p_values_stay_probabilities(p: float, floor: float) -> None:
    assert Decimal(repr(max(p, floor))) <= Decimal(p_value(p, floor)) <= 1


def test_a_null_is_summarised_as_numpy_does() -> None:
    draws = np.random.default_rng(0).normal(size=1000)
    null = null_distribution("gaussian", draws.tolist())
    assert float(null.mean) == pytest.approx(draws.mean(), rel=1e-5)
    assert float(null.sd) == pytest.approx(draws.std(ddof=1), rel=1e-5)
    assert null.p95 is not None
    assert float(null.p95) == pytest.approx(np.quantile(draws, 0.95, method="inverted_cdf"), rel=1e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (5, 5), (19, 20), (38, 40), (400, 1000)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert proportion_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_proportion_of_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="0 trials"):
        proportion_interval(0, 0)
    with pytest.raises(ValueError, match="6 successes in 5"):
        proportion_interval(6, 5)
