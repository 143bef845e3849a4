"""The numbers of the model side as metrics (contamination, 9.1)."""

from __future__ import annotations

from assay.result import Metric, Multiplicity, NullDistribution

from checks.contamination.shares_estimate import Estimate
from checks.quantise import metric

UNIFORM_SD = "0.288675"
"""Standard deviation of a p-value where there is nothing to find, 1/sqrt(12)."""


def count(name: str, value: int, benchmark: str, determinism: str = "tolerance", **more: str) -> Metric:
    """Return a count; more: labels beside the benchmark."""
    labels = {"benchmark": benchmark, **more}
    made = metric(name, value, n=value, unit="count", determinism="exact", labels=labels)
    return made if determinism == "exact" else made.model_copy(update={"determinism": determinism})


def p_metric(
    name: str, p: float, n: int, benchmark: str, determinism: str = "tolerance", null: NullDistribution | None = None
) -> Metric:
    """Return a p-value that is not corrected, with the law it has where there is nothing to find."""
    family = Multiplicity(family=f"{name}:{benchmark}"[:128], m=1, corrected="none")
    made = metric(name, p, n=n, unit="1", determinism="exact", labels={"benchmark": benchmark}, null=null, p=p,
                  multiplicity=family)  # fmt: skip
    return made.model_copy(update={"determinism": determinism})


def least_p(name: str, p: float, n: int, benchmark: str) -> Metric:
    """Return the smallest p that a test could have shown."""
    made = metric(name, p, n=n, unit="1", determinism="exact", labels={"benchmark": benchmark})
    return made.model_copy(update={"determinism": "tolerance"})  # it hangs on how many texts could be scored


def estimated(name: str, told: Estimate, benchmark: str, unit: str, determinism: str = "tolerance") -> Metric:
    """Return an estimate with its interval, where it has one."""
    interval = None if told.method == "none" else (told.low, told.high)
    made = metric(name, told.value, n=told.n, unit=unit, determinism="exact", labels={"benchmark": benchmark},
                  interval=interval, method=told.method)  # fmt: skip
    return made.model_copy(update={"determinism": determinism})


def uniform(kind: str, draws: int) -> NullDistribution:
    """Return the law of a p-value where there is nothing to find."""
    return NullDistribution(kind=kind, mean="0.5", sd=UNIFORM_SD, n=draws, p95="0.95")
