"""From numbers to words: the rule of section 7, on nothing but the metrics of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assay.result import Finding, Measured, Metric, MetricRef

from checks.clusterability.lesion_findings import DETECTED, INCONCLUSIVE, LESION_CONTROLS, NOT_DETECTED
from checks.holm import holm

WORDS = (DETECTED, NOT_DETECTED, INCONCLUSIVE)

CLOSING = "Structure is not function; a high C can be trained in and no claim rests on it; access used: weights."
"""Fixed closing line (section 7)."""


RESIDUAL = (
    "mlp.c_fc.weight",
    "mlp.c_proj.weight",
    "intermediate.dense.weight",
    "output.dense.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
    "mlp.dense_h_to_4h.weight",
    "mlp.dense_4h_to_h.weight",
)
"""How the names of single MLP matrices of transformers end, as the runtime's table of architectures has them. One side
of each lies along the axes of the residual stream, which are no natural ones (section 5)."""

POWER_LEAST = 0.8
"""Share of planted structures that a rule must find for its silence to say anything of a model."""

OF_MODEL = ("virtual_mlp.", "head_graph")
"""How the names of what speaks for a whole transformer begin (section 5)."""

NETWORK = "network"
"""Where a network is covered the model is a feed-forward one, whose sides are neurons, whatever its tensors' names."""


@dataclass(frozen=True)
class Limits:
    """The thresholds of the rule: the check's parameters as numbers."""

    alpha: float
    min_excess_q: float
    min_stability: float
    min_cluster_share: float
    as_measured: bool = True
    """Whether power was measured of the rule with these very parameters: all that it depends on are the defaults."""


@dataclass(frozen=True)
class Numbers:
    """What the rule reads of one matrix."""

    matrix: str
    p_holm: float
    p_holm_least: float
    """Smallest corrected p that this many replicates can show."""
    excess_q: float
    k: int
    smallest_share: float
    stability: float | None
    """Measured only where p and excess pass, like the next."""
    confirm_excess_q: float | None
    null_n: int
    """Null replicates that p rests on."""
    planned: int
    """Replicates that it could have rested on; those of masks stop early where nothing is to be found."""
    masked: bool
    """Whether the pattern of zeros alone was tested."""
    power: tuple[float, float, float] | None
    """Share of planted matrices found at this shape, with its interval."""
    absent: int = 0
    """Owed and untested matrices that `p_holm` counts as tests that found nothing; the metric of that name does not."""


def matrices_of(measured: Measured) -> tuple[Numbers, ...]:
    """Return what the rule reads of every tested matrix.

    A matrix that was owed and not tested counts as one more test that found nothing: otherwise leaving one out would
    make the others pass Holm's correction more easily.
    """
    tested = measured.named("p_holm")
    absent = max(len(measured.coverage.get("matrix", ())) - len(tested), 0)
    raw = [measured.find("p", **metric.labels) for metric in tested]
    padded = holm([*(1.0 if p is None else float(p.value) for p in raw), *[1.0] * absent])
    return tuple(
        _numbers(measured, metric, held if absent else 0.0, absent)
        for metric, held in zip(tested, padded, strict=False)
    )


def _numbers(measured: Measured, p_holm: Metric, padded: float, absent: int) -> Numbers:
    matrix = p_holm.labels["matrix"]
    p = measured.find("p", matrix=matrix)

    def value(name: str) -> float | None:
        metric = measured.find(name, matrix=matrix)
        return None if metric is None else float(metric.value)

    def known(name: str) -> float:
        found = value(name)
        if found is None:
            raise ValueError(f"{matrix} has no {name}")
        return found

    power = measured.find("power", matrix=matrix)
    assert p_holm.multiplicity is not None
    bounds = power.interval if power else None
    return Numbers(
        matrix=matrix,
        p_holm=max(float(p_holm.value), padded),
        p_holm_least=(p_holm.multiplicity.m + absent) / (p_holm.n + 1),
        excess_q=known("excess_q"),
        k=int(known("k")),
        smallest_share=known("min_cluster_share"),
        stability=value("stability"),
        confirm_excess_q=value("confirm_excess_q"),
        null_n=p_holm.n if p is None else p.n,
        planned=p_holm.n,
        masked=bool(value("masked")),
        power=(float(power.value), float(bounds.low), float(bounds.high)) if power and bounds else None,
        absent=absent,
    )


def word_of(numbers: Numbers, limits: Limits, *, missed: Sequence[str] = ()) -> tuple[str, str]:
    """Return the word of one matrix and the reason for it.

    Args:
        numbers: of the matrix.
        limits: thresholds.
        missed: controls that missed a band; any makes the word inconclusive.
    """
    if missed:
        return INCONCLUSIVE, "control_missed"
    if numbers.p_holm_least > limits.alpha:
        return INCONCLUSIVE, "p_resolution"
    if numbers.p_holm > limits.alpha:
        return NOT_DETECTED, "p_above_alpha"
    if numbers.excess_q < limits.min_excess_q:
        return NOT_DETECTED, "excess_below_floor"
    if numbers.confirm_excess_q is None or numbers.confirm_excess_q < limits.min_excess_q:
        return INCONCLUSIVE, "low_rank_driven"
    if numbers.stability is None or numbers.stability < limits.min_stability:
        return INCONCLUSIVE, "unstable_partition"
    if numbers.smallest_share < limits.min_cluster_share:
        return INCONCLUSIVE, "small_cluster"
    return DETECTED, "all_hold"


def findings(
    real: Measured, limits: Limits, missed: Sequence[str], *, feedforward: bool = False
) -> tuple[Finding, ...]:
    """Return one finding for each tested matrix and one for the model.

    Args:
        real: the numbers, as the report has them.
        limits: thresholds.
        missed: controls that missed a band or said nothing; those of lesions gate nothing here (12e).
        feedforward: whether the families that were asked for are those of feed-forward models.
    """
    tested = matrices_of(real)
    gated = [name for name in missed if name not in LESION_CONTROLS]
    names = {*real.coverage.get("matrix", ()), *(one.item for one in real.skipped)}
    net = feedforward or NETWORK in names
    told = [(numbers, *word_of(numbers, limits, missed=gated)) for numbers in tested]
    each = tuple(_of_matrix(numbers, word, reason, limits, net=net) for numbers, word, reason in told)
    return (*each, _of_model(real, [(numbers, word) for numbers, word, _ in told], limits, net=net))


def _of_matrix(numbers: Numbers, word: str, reason: str, limits: Limits, *, net: bool) -> Finding:
    names = ["p_holm", "excess_q", "k", "min_cluster_share"]
    names += ["stability"] if numbers.stability is not None else []
    names += ["confirm_excess_q"] if numbers.confirm_excess_q is not None else []
    if word == DETECTED:
        said = f"structurally clustered into {numbers.k} groups: detected"
    elif word == NOT_DETECTED:
        said = f"structurally clustered: not detected ({reason}); {_power(numbers, limits)}"
        names += ["power"] if numbers.power and limits.as_measured else []
    else:
        said = f"structurally clustered: inconclusive ({reason})"
    counted = f", {numbers.absent} untested counted" if numbers.absent else ""
    early = f" of {numbers.planned} planned, stopped early" if numbers.null_n < numbers.planned else ""
    tested = f"p {numbers.p_holm:.4g} after Holm{counted}, {numbers.null_n} null draws{early}"
    numbers_said = f"excess Q {numbers.excess_q:.4f}, {tested}"
    return Finding(
        code="structure",
        word=word,
        severity="note",
        claim=" ".join((f"{said}; {numbers_said}.", *_basis(numbers, net=net), "Structure is not function.")),
        labels={"matrix": numbers.matrix, "reason": reason},
        rests_on=tuple(MetricRef(name=name, labels={"matrix": numbers.matrix}) for name in names),
    )


def _basis(numbers: Numbers, *, net: bool) -> tuple[str, ...]:
    """Return what a reader must know of the axes: those of the residual stream are no natural ones."""
    basis = ("Basis: residual.",) if not net and numbers.matrix.endswith(RESIDUAL) else ()
    return (*basis, "Pattern of zeros alone, magnitudes left out.") if numbers.masked else basis


def _power(numbers: Numbers, limits: Limits) -> str:
    if not limits.as_measured:
        return "power not measured for these parameters"
    if numbers.power is None:
        return "power not measured at this shape"
    share, low, high = numbers.power
    return f"power of one test {share:.2f} [{low:.2f}, {high:.2f}] for a planted off/in ratio of 0.7 at this shape"


def _of_model(real: Measured, told: Sequence[tuple[Numbers, str]], limits: Limits, *, net: bool) -> Finding:
    owed = real.coverage.get("matrix", ())
    transformer = not net and any(name.startswith(OF_MODEL) or name.endswith(RESIDUAL) for name in owed)
    if transformer:
        # Residual axes are no natural basis: single matrices keep their own words and speak for no model.
        owed = tuple(name for name in owed if name.startswith(OF_MODEL))
        told = [(numbers, word) for numbers, word in told if numbers.matrix.startswith(OF_MODEL)]
    words = [word for _, word in told]
    counts: Mapping[str, int] = {word: words.count(word) for word in WORDS}
    refused, said = len(owed) - len(words), ""
    weak = [one.matrix for one, word in told if word == NOT_DETECTED and not _could_tell(one, limits)]
    if transformer and not words:
        word, said = INCONCLUSIVE, " No virtual_mlp or head_graph was tested: single matrices speak for no transformer."
    elif counts[DETECTED]:
        word = DETECTED
    elif counts[INCONCLUSIVE] or refused or not words:
        # What was left out or could not be told never adds up to an answer.
        word = INCONCLUSIVE
    elif weak:
        word, said = INCONCLUSIVE, f" Power below {POWER_LEAST} or not measured: {', '.join(weak)[:160]}."
    else:
        word = NOT_DETECTED
    of = " products and graphs of heads" if transformer else ""
    return Finding(
        code="structure_of_model",
        word=word,
        severity="note",
        claim=(
            f"structurally clustered: detected in {counts[DETECTED]} of {len(words)}{of} tested, "
            f"{counts[INCONCLUSIVE]} inconclusive, {refused} refused.{said} {CLOSING}"
        ),
        rests_on=tuple(MetricRef(name="p_holm", labels={"matrix": one.matrix}) for one, _ in told),
    )


def _could_tell(numbers: Numbers, limits: Limits) -> bool:
    """Return whether silence about a matrix says something: power was measured as it was tested, and is high."""
    return limits.as_measured and numbers.power is not None and numbers.power[0] >= POWER_LEAST
