"""The numbers of the model side as metrics (contamination, 9.1)."""

from __future__ import annotations

from typing import Literal

from assay.result import Metric, Multiplicity, NullDistribution

from checks.contamination.shares_estimate import Estimate
from checks.quantise import metric

Determinism = Literal["exact", "tolerance", "statistical"]

UNIFORM_SD = "0.288675"
"""Standard deviation of a p-value where there is nothing to find, 1/sqrt(12)."""


def count(name: str, value: int, benchmark: str, determinism: Determinism = "tolerance", **more: str) -> Metric:
    """Return a count; more: labels beside the benchmark."""
    labels = {"benchmark": benchmark, **more}
    return metric(name, value, n=value, unit="count", determinism=determinism, labels=labels)


def p_metric(
    name: str,
    p: float,
    n: int,
    benchmark: str,
    determinism: Determinism = "tolerance",
    null: NullDistribution | None = None,
) -> Metric:
    """Return a p-value that is not corrected, with the law it has where there is nothing to find."""
    family = Multiplicity(family=f"{name}:{benchmark}"[:128], m=1, corrected="none")
    return metric(name, p, n=n, unit="1", determinism=determinism, labels={"benchmark": benchmark}, null=null, p=p,
                  multiplicity=family)  # fmt: skip


def least_p(name: str, p: float, n: int, benchmark: str) -> Metric:
    """Return the smallest p that a test could have shown."""
    # Not exact: it hangs on how many texts could be scored.
    return metric(name, p, n=n, unit="1", determinism="tolerance", labels={"benchmark": benchmark})


def estimated(name: str, told: Estimate, benchmark: str, unit: str, determinism: Determinism = "tolerance") -> Metric:
    """Return an estimate with its interval, where it has one."""
    interval = None if told.method == "none" else (told.low, told.high)
    return metric(name, told.value, n=told.n, unit=unit, determinism=determinism, labels={"benchmark": benchmark},
                  interval=interval, method=told.method)  # fmt: skip


def uniform(kind: str, draws: int) -> NullDistribution:
    """Return the law of a p-value where there is nothing to find."""
    return NullDistribution(kind=kind, mean="0.5", sd=UNIFORM_SD, n=draws, p95="0.95")
