"""Answers made by hand: an audit of O4 at site 1 with a supplied dictionary and a base, and ways to spoil it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from assay.result import Band, ControlResult, Finding, Measured, Metric, NullDistribution, Skipped

from checks.quantise import metric
from checks.sae_features.judge import Gates, words
from checks.sae_features.judge_causes import BATTERY
from checks.sae_features.metric_specs import METRICS

SPECS = {one.name: one for one in METRICS}

GATES = Gates()

CONTROLS = ("random_weights", "frozen_decoder", "label_permutation", "planted_in_dictionary", "planted_nothing")

TRAINED = ("trained-0", "trained-1")
DICTIONARIES = (*TRAINED, "supplied")
CONCEPTS = ("mode", "trigger")

Measure = tuple[str, float, float]
"""Name, value, half-width of the interval (0: none)."""


def read(
    name: str, value: float, reach: float = 0.0, *, n: int = 400, null: NullDistribution | None = None, **at: str
) -> Metric:
    """Return a metric as its specification has it, with an interval of this half-width."""
    spec = SPECS[name]
    return metric(
        name,
        value,
        n=n,
        unit=spec.unit,
        determinism=spec.determinism,
        better=spec.better,
        labels={"site": "resid.1", **at},
        interval=(round(value - reach, 9), round(value + reach, 9)) if reach else None,
        method="group-bootstrap",
        null=null,
    )


def of_dictionary(name: str) -> list[Metric]:
    """Return the numbers of a faithful dictionary."""
    told: list[Measure] = [
        ("ev", 0.91, 0.01),
        ("dce_share", 0.01, 0.004),
        ("ev_above_frozen", 0.32, 0.02),
        ("code_gain_above_frozen", 52, 2),
        ("code_gain_above_twin", 28, 2),
    ]
    found = [read(key, value, reach, dictionary=name) for key, value, reach in told]
    found.append(read("code_gain", 17.2, 1.0, dictionary=name, epsilon="0.05"))
    if name == "supplied":
        return [*found, read("convention_confirmed", 1, dictionary=name)]
    return [*found, read("train_tokens", 10**6, dictionary=name), read("latents", 512, dictionary=name)]


def of_concept(name: str, concept: str) -> list[Metric]:
    """Return the table of a concept that the dense probe carries."""
    told: list[Measure] = [
        ("delta_sae", -0.001, 0.002),
        ("delta_blind", -0.001, 0.002),
        ("delta_surface", 0.07, 0.02),
        ("delta_frozen", 0.001, 0.002),
    ]
    at: dict[str, Any] = {"dictionary": name, "concept": concept}
    found = [read(key, value, reach, **at) for key, value, reach in told]
    found += [read("chosen_k", 5, **at), read("concept_p", 0.005, **at), read("concept_p_holm", 0.01, **at)]
    probes = (("sparse_1", 0.996, 0.003), ("sparse_5", 0.997, 0.002), ("residual_dense", 0.89, 0.03))
    return [*found, *(read("auroc", value, reach, probe=probe, **at) for probe, value, reach in probes)]


def of_edits(name: str, concept: str) -> list[Metric]:
    """Return interventions whose effect holds and passes through the latents."""
    at: dict[str, Any] = {"dictionary": name, "concept": concept}
    null = NullDistribution(kind="matched-latents", mean="-0.05", sd="0.02", n=99, p95="0.09")
    found = [read("margin", 5.0 - 0.3 * place, 0.1, edit=edit, **at) for place, edit in enumerate(BATTERY)]
    found += [
        read("effect", -3.4, 0.2, **at),
        read("relative_effect", -0.7, 0.05, **at),
        read("effect_p", 0.01, null=null, **at),
        read("effect_p_holm", 0.02, **at),
        read("error_share", 0.02, 0.03, **at),
        read("matched_share", 0.97, **at),
    ]
    forms = (("gradient", 0.98), ("ig", 0.99))
    return [*found, *(read("attribution_rho", value, form=form, **at) for form, value in forms)]


def everything() -> list[Metric]:
    """Return all that the words rest on."""
    found = [one for name in DICTIONARIES for one in of_dictionary(name)]
    found.append(read("delta_ce_mean", 3.35, 0.05))
    for concept in CONCEPTS:
        found.append(read("auroc", 0.999, 0.001, concept=concept, probe="dense"))
        found += [one for name in DICTIONARIES for one in of_concept(name, concept)]
        found += [one for name in ("trained-0", "supplied") for one in of_edits(name, concept)]
        at: dict[str, Any] = {"dictionary": "trained-0", "concept": concept}
        found.append(read("diff_p_holm", 0.3, form="conditional", **at))
        found.append(read("diff_swaps", 200, form="conditional", **at))
        found += [read("diff_power", power, 0.05, amplitude=by, **at) for by, power in (("0.1", 0.5), ("0.25", 0.9))]
    for name in ("trained-0", "supplied"):
        found.append(read("power", 0.97, 0.03, dictionary=name, place="out", amplitude="0.5", probe="either"))
    return found


def measured(metrics: Iterable[Metric], skipped: Sequence[tuple[str, str]] = ()) -> Measured:
    """Return an answer's numbers."""
    return Measured(
        coverage={"concept": CONCEPTS, "dictionary": DICTIONARIES},
        metrics=tuple(metrics),
        skipped=tuple(Skipped(item=item, reason=reason) for item, reason in skipped),
    )


def with_values(metrics: Sequence[Metric], changes: dict[str, tuple[float, float]], **at: str) -> list[Metric]:
    """Return metrics with those of these names and labels at another value and half-width."""
    told = []
    for one in metrics:
        if one.name in changes and at.items() <= one.labels.items():
            value, reach = changes[one.name]
            labels: dict[str, Any] = {key: label for key, label in one.labels.items() if key != "site"}
            told.append(read(one.name, value, reach, null=one.null, **labels))
        else:
            told.append(one)
    return told


def with_n(metrics: Sequence[Metric], n: dict[str, int]) -> list[Metric]:
    """Return metrics with those of these names resting on another number of rows, and their null on as many draws."""
    told = []
    for one in metrics:
        null = one.null and one.null.model_copy(update={"n": n.get(one.name, one.null.n)})
        told.append(one.model_copy(update={"n": n.get(one.name, one.n), "null": null}))
    return told


def concepts_owed(real: Measured, count: int) -> Measured:
    """Return numbers of which so many concepts were asked."""
    more = (*CONCEPTS, *(f"c{number}" for number in range(count)))[:count]
    return real.model_copy(update={"coverage": {**real.coverage, "concept": more}})


def without(metrics: Sequence[Metric], which: Callable[[Metric], bool]) -> list[Metric]:
    """Return the metrics that a condition does not name."""
    return [one for one in metrics if not which(one)]


def control(name: str, held: bool = True) -> ControlResult:
    """Return one result of a control."""
    value = "0.5" if held else "2"
    return ControlResult(name=name, kind="null", metric="ev", value=value, band=Band(low="0", high="1"), held=held)


def judged(
    metrics: Iterable[Metric],
    *,
    gates: Gates = GATES,
    skipped: Sequence[tuple[str, str]] = (),
    missed: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """Return the findings of numbers whose other controls all held."""
    results = [control(name) for name in CONTROLS if name not in missed]
    return words(gates, measured(metrics, skipped), results, missed)


def key(finding: Finding) -> tuple[Any, ...]:
    """Return what a finding is of."""
    return finding.code, finding.labels.get("dictionary"), finding.labels.get("concept")


def word(findings: Sequence[Finding], code: str, dictionary: str | None = None, concept: str | None = None) -> str:
    """Return the word of one finding."""
    return one_of(findings, code, dictionary, concept).word


def one_of(findings: Sequence[Finding], code: str, dictionary: str | None, concept: str | None) -> Finding:
    """Return the only finding of a code, a dictionary and a concept."""
    (found,) = [one for one in findings if key(one) == (code, dictionary, concept)]
    return found


ALL = everything()

VARIANTS: tuple[list[Metric], ...] = (
    ALL,
    with_values(ALL, {"delta_sae": (0.03, 0.01), "delta_frozen": (0.3, 0.05)}),
    with_values(ALL, {"delta_blind": (-0.4, 0.03), "error_share": (1, 0.1)}, dictionary="supplied", concept="mode"),
    with_values(ALL, {"auroc": (0.52, 0.05), "diff_p_holm": (0.01, 0), "attribution_rho": (0.5, 0)}),
    with_values(ALL, {"ev": (0.5, 0.05), "effect_p_holm": (0.5, 0)}),
    with_values(ALL, {"delta_surface": (0, 0.05), "code_gain_above_twin": (0, 2)}),
    with_values(ALL, {"delta_sae": (0.03, 0.01), "delta_frozen": (0.3, 0.05)}, dictionary="trained-0"),
    # At the edge: two tests need 39 draws, and 38 carry only one.
    with_values(with_n(ALL, {"effect_p": 38}), {"effect_p_holm": (0.3, 0), "diff_swaps": (38, 0)}),
    with_values(ALL, {"relative_effect": (0.7, 0.05), "delta_blind": (0, 0.5)}),
    with_values(ALL, {"auroc": (0.52, 0.05), "diff_power": (0.5, 0.1)}, concept="mode"),
)
"""Answers of other words, for properties that hold of all."""
