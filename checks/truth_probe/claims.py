"""The sentences of findings: what a word says of one layer, and of all layers of a method. Specification: section 7.

Texts speak of features, directions and outputs; what a model might have in mind is no part of any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from assay.result import Metric, MetricRef

from checks.truth_probe.gates import Cell
from checks.truth_probe.words import (
    AMBIGUOUS,
    CONCERNS,
    FEATURE_NOT_TRUTH,
    INCONCLUSIVE,
    NOT_DETECTED,
    OUTPUT_TRACKING,
    POWER_MIN,
    PROVISIONAL,
    READABLE_ONLY,
    SUPPORTED,
    UNSTABLE,
    Verdict,
)

CLAIM_MAX, NAME_MAX = 512, 128
"""Letters of a claim, and of a label's value: the report's limits."""

FOUND_ELSE = (NOT_DETECTED, FEATURE_NOT_TRUTH, AMBIGUOUS, INCONCLUSIVE)
"""Words beside which a reader asks what chance reaches, and what labels find."""

SPOKEN = (
    SUPPORTED,
    PROVISIONAL,
    READABLE_ONLY,
    OUTPUT_TRACKING,
    FEATURE_NOT_TRUTH,
    AMBIGUOUS,
    UNSTABLE,
    NOT_DETECTED,
    INCONCLUSIVE,
)
"""Order of the runs in the sentence of all layers."""


def claim(verdict: Verdict) -> str:
    """Return what is said of one (set, layer, method), at most 512 letters."""
    cell = verdict.cell
    parts = [_said(verdict)]
    if verdict.also:
        parts.append(f"Also: {', '.join(verdict.also)}.")
    # Beside a word that stands they would only repeat the numbers below it, and every letter is charged to the answer.
    if verdict.word in FOUND_ELSE:
        random = cell.of_layer("random_auroc_best_of_sign", null="whitened")
        if random is not None and random.null and random.null.p95 is not None:
            parts.append(f"Random directions p95 {float(random.null.p95):.3f}.")
        if cell.ceiling is not None and cell.method != "lr":
            parts.append(f"Ceiling lr {float(cell.ceiling.value):.3f}.")
    text = " ".join(parts)
    return text if len(text) <= CLAIM_MAX else f"{text[: CLAIM_MAX - 3]}..."


def _said(verdict: Verdict) -> str:
    auroc = verdict.cell.find("auroc")
    scored = "no AUROC" if auroc is None else f"AUROC {number(auroc)}, n = {auroc.n}"
    match verdict.word:
        case "SUPPORTED":
            return f"a linear feature separates true from false ({scored}); all six gates hold."
        case "PROVISIONAL":
            return f"a linear feature separates true from false ({scored}); open gates: {', '.join(verdict.open)}."
        case "READABLE-ONLY":
            return f"a direction separates true from false ({scored}) but moving states along it {_effects(verdict)}."
        case "OUTPUT-TRACKING":
            return f"a direction separates true from false ({scored}) but follows the output: {_against(verdict)}."
        case "UNSTABLE":
            return f"a direction separates true from false ({scored}) but {_halves(verdict)}."
        case "FEATURE-NOT-TRUTH":
            return f"the direction reads something else than truth ({scored}): {_other(verdict)}."
        case "AMBIGUOUS":
            gap, second = (verdict.cell.of_layer(name) for name in ("relative_gap", "second_stability"))
            tied = f"relative gap {number(gap)}, stability of the second axis {number(second)}"
            return f"two binary features tie ({tied}) and luck decides which one is found; {scored}."
        case "NOT-DETECTED":
            return f"not detected ({verdict.reason}), {scored}; {_power_here(verdict)}."
    missed = f": control {', '.join(verdict.missed)} missed its band or said nothing" if verdict.missed else ""
    told = f"; {_power_here(verdict)}" if verdict.reason == "could_not_tell" else ""
    return f"could not tell ({verdict.reason}{missed}), {scored}{told}."


def number(metric: Metric | None) -> str:
    """Return a metric's value with its bounds, three digits after the point."""
    if metric is None:
        return "not measured"
    if metric.interval is None:
        return f"{float(metric.value):.3f}"
    return f"{float(metric.value):.3f} [{float(metric.interval.low):.3f}, {float(metric.interval.high):.3f}]"


def _effects(verdict: Verdict) -> str:
    there, back = verdict.cell.find("nie_f2t"), verdict.cell.find("nie_t2f")
    random = number(verdict.cell.of_layer("nie_random_max"))
    return f"hardly moves the answer: NIE to true {number(there)}, to false {number(back)}, random up to {random}"


def _against(verdict: Verdict) -> str:
    told = []
    if "persona" in verdict.ruled["output"].why:
        told.append(f"on the test persona its AUROC is {number(verdict.cell.find('persona_auroc'))}")
    if "disagreement" in verdict.ruled["output"].why:
        found = verdict.cell.find("disagreement_auroc")
        items = 0 if found is None else found.n
        told.append(f"where output and label part ({items} items) it sides with the label in {number(found)}")
    return " and ".join(told)


def _halves(verdict: Verdict) -> str:
    if verdict.cell.method == "ccs":
        return f"restarts disagree on it: mean |cos| {number(verdict.cell.find('restart_cos'))}"
    return f"two halves of train disagree on it: |cos| {number(verdict.cell.find('stability'))}"


def _other(verdict: Verdict) -> str:
    told = [f"AUROC for {h} {number(verdict.cell.find('frozen_auroc', h=h))}" for h in verdict.features]
    for why in verdict.ruled["negation"].why:
        told.append(f"{why}, AUROC on negated items {number(verdict.cell.find('negation_auroc'))}")
    return "; ".join(told)


def _power_here(verdict: Verdict) -> str:
    planted = [(effect, power) for effect, power in verdict.power.items() if float(effect) > 0]
    if planted:
        told = ", ".join(
            f"{short(power)} at {effect}" for effect, power in sorted(planted, key=lambda one: float(one[0]))
        )
        return f"power by planted effect: {told}"
    return "power was not measured"


def sentence(verdicts: Sequence[Verdict], left_out: Mapping[str, str], layers: Sequence[str]) -> str:
    """Return the sentence of all layers, built from runs and never from one best layer; at most 512 letters.

    Args:
        verdicts: of every measured layer.
        left_out: every other layer that is owed, with the reason.
        layers: all layers that are owed, as labels in order, counted from 0.
    """
    by_word: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_word.setdefault(verdict.word, []).append(verdict)
    places = {word: [int(one.cell.layer) for one in found] for word, found in by_word.items()}
    if left_out:
        places[INCONCLUSIVE] = sorted([*places.get(INCONCLUSIVE, []), *map(int, left_out)])
    details = {word: _details(word, found) for word, found in by_word.items()}
    untold = dict.fromkeys((*(one.reason for one in by_word.get(INCONCLUSIVE, ())), *left_out.values()))
    details[INCONCLUSIVE] = ", ".join(untold)
    spoken = [word for word in SPOKEN if word in places]
    # What does not fit is left to the findings of single layers; no word is ever cut away.
    for detailed, listed in ((True, True), (False, True), (False, False)):
        runs: list[str] = []
        for word in spoken:
            where = _runs(places[word]) if listed else f"{len(places[word])} in {min(places[word])}-{max(places[word])}"
            place = f"{'layer' if len(places[word]) == 1 else 'layers'} {where}{_of(layers)}" if not runs else where
            runs.append(f"{word} at {place}" + (f" ({details[word]})" if detailed and details.get(word) else ""))
        text = f"{'; '.join(runs)}." if runs else "nothing was measured."
        if len(text) <= CLAIM_MAX:
            break
    return text


def _of(layers: Sequence[str]) -> str:
    whole = list(map(int, layers)) == list(range(len(layers)))
    return f" of {len(layers)}" if whole else f" of {len(layers)} asked"


def _runs(layers: Sequence[int]) -> str:
    """Return runs of layers, e.g. "0-2, 5"."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _details(word: str, found: Sequence[Verdict]) -> str:
    """Return what belongs to a word, over all layers that have it."""
    told: list[str] = []
    if word == NOT_DETECTED:
        told += _sensitivity(found)
    if word == PROVISIONAL:
        told.append("open: " + ", ".join(dict.fromkeys(gate for one in found for gate in one.open)))
    if word == FEATURE_NOT_TRUTH:
        told += dict.fromkeys(name for one in found for name in (*one.features, *one.ruled["negation"].why))
    also = dict.fromkeys(other for one in found for other in one.also if other in CONCERNS)
    return "; ".join([*told, *(f"also {other}" for other in also)])


def _sensitivity(found: Sequence[Verdict]) -> list[str]:
    """Return how small an effect would have been seen at all of these layers, and what labels found there."""
    shared = set.intersection(*({effect for effect in one.power if float(effect) > 0} for one in found))
    least = {effect: min(one.power[effect] for one in found) for effect in sorted(shared, key=float)}
    items = min((auroc.n for one in found if (auroc := one.cell.find("auroc")) is not None), default=0)
    told = [f"power not measured, n = {items}"]
    if least:
        effect = next((one for one, power in least.items() if power >= POWER_MIN), [*least][-1])
        told = [f"power {short(least[effect])} at effect {effect}, n = {items}"]
    ceilings = [(float(one.cell.ceiling.value), one.cell) for one in found if one.cell.ceiling is not None]
    if ceilings and found[0].cell.method != "lr":
        value, cell = max(ceilings, key=lambda one: one[0])
        told.append(f"ceiling lr {short(value)} at {cell.layer}")
    return told


def short(value: float) -> str:
    """Return a share with two digits, as ".95"."""
    return f"{value:.2f}".removeprefix("0")


def joined(names: Iterable[str]) -> str:
    """Return names as one label's value, whole names only: "OUTPUT-TRACKING+READABLE-ONLY"."""
    value = ""
    for name in names:
        longer = f"{value}+{name}" if value else name
        if len(longer) > NAME_MAX:
            break
        value = longer
    return value


def references(metrics: Iterable[Metric]) -> tuple[MetricRef, ...]:
    """Return where metrics stand in the answer."""
    return tuple(MetricRef(name=metric.name, labels=metric.labels) for metric in metrics)


def layers_of(cells: Iterable[Cell]) -> str:
    """Return the layers of cells as runs, e.g. "layers 0-2, 5"."""
    layers = [int(cell.layer) for cell in cells]
    return f"{'layer' if len(layers) == 1 else 'layers'} {_runs(layers)}"
