"""The word of a (set, layer, method): the first rule of the table that applies. Specification: section 7.

Gates open where something is missing, and SUPPORTED asks for all that could have spoken against it; so no word becomes
SUPPORTED because a number or a role was taken away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from assay.result import ControlResult, Metric

from checks.truth_probe.gates import LABEL_FREE, Cell, Limits, Ruling, present, rulings

INCONCLUSIVE, AMBIGUOUS, FEATURE_NOT_TRUTH = "INCONCLUSIVE", "AMBIGUOUS", "FEATURE-NOT-TRUTH"
NOT_DETECTED, UNSTABLE, OUTPUT_TRACKING = "NOT-DETECTED", "UNSTABLE", "OUTPUT-TRACKING"
READABLE_ONLY, PROVISIONAL, SUPPORTED = "READABLE-ONLY", "PROVISIONAL", "SUPPORTED"

RULES = (
    INCONCLUSIVE,
    AMBIGUOUS,
    FEATURE_NOT_TRUTH,
    NOT_DETECTED,
    UNSTABLE,
    OUTPUT_TRACKING,
    READABLE_ONLY,
    PROVISIONAL,
    SUPPORTED,
)
"""Words in the order of the table: the first that applies is said."""

CONCERNS = frozenset({FEATURE_NOT_TRUTH, OUTPUT_TRACKING})

STRENGTH = (
    FEATURE_NOT_TRUTH,
    OUTPUT_TRACKING,
    SUPPORTED,
    PROVISIONAL,
    READABLE_ONLY,
    AMBIGUOUS,
    UNSTABLE,
    INCONCLUSIVE,
    NOT_DETECTED,
)
"""Which of several layers' words stands for all of them: a concern before every note, so that none is hidden; then
what was found; and what could not be told before what was not found, so that absence is only claimed of layers that
were all looked at."""

GAP_TIES, SECOND_TIES = 0.25, 0.50
"""Relative gap below, and stability of the second axis from which two binary features tie (section 7)."""

EFFECT = "2.12"
"""Planted effect that must be seen before "not detected" is said (section 7)."""

POWER_MIN = 0.8
"""Share of plants of that effect that gate 1 must pass (section 7)."""

POWER_CONTROL = "deflated-plant"
REASON_OF_CONTROL = {"random-weights": "surface_leak"}
"""Reason where a certain control missed its band; the others are `control_missed` (section 8)."""


@dataclass(frozen=True)
class Controls:
    """What the controls of the run said."""

    results: Sequence[ControlResult]
    declared: Sequence[str]
    """Names of all controls of the check."""

    def touching(self, set_name: str, layer: str) -> tuple[str, ...]:
        """Return the controls that missed a band here, and those that said nothing at all."""
        told = {result.name for result in self.results}
        here = {"set": set_name, "layer": layer}
        missed = self.failed(set_name, layer)
        silent = [name for name in self.declared if name not in told or self._owes(name, here)]
        return (*dict.fromkeys((*(name for name in self.declared if name in missed), *sorted(missed), *silent)),)

    def failed(self, set_name: str, layer: str) -> frozenset[str]:
        """Return the controls that missed a band here."""
        here = {"set": set_name, "layer": layer}
        return frozenset(
            result.name
            for result in self.results
            if not result.held and all(result.labels.get(key, at) == at for key, at in here.items())
        )

    def _owes(self, name: str, here: Mapping[str, str]) -> bool:
        """Return whether a control speaks of single cells and says nothing of this one.

        The plant is the exception: it is made at a few layers, and its power serves their neighbours.
        """
        told = [one.labels for one in self.results if one.name == name]
        located = (
            bool(here["layer"])
            and name != POWER_CONTROL
            and bool(told)
            and all(here.keys() <= labels.keys() for labels in told)
        )
        return located and not any(here.items() <= labels.items() for labels in told)

    def power(self, cell: Cell) -> Mapping[str, float]:
        """Return the measured power by effect, at the planted layer nearest to a cell's; empty where there is none."""
        rows = [
            (int(one.labels["layer"]), one.labels["effect"], float(one.value))
            for one in self.results
            if one.name == POWER_CONTROL
            and one.metric == "power"
            and {"layer", "effect"} <= one.labels.keys()
            and one.labels.get("set") == cell.set
            and one.labels.get("method") == cell.method
        ]
        if not rows:
            return {}
        nearest = min((abs(layer - int(cell.layer)), layer) for layer, _, _ in rows)[1]
        return {effect: power for layer, effect, power in sorted(rows) if layer == nearest}


@dataclass(frozen=True)
class Verdict:
    """A word, why it is said, and what it rests on."""

    cell: Cell
    word: str
    reason: str
    also: tuple[str, ...]
    """Other faults that apply. PROVISIONAL and SUPPORTED say that none does, and never stand beside a word."""
    ruled: Mapping[str, Ruling]
    rests: tuple[Metric, ...]
    power: Mapping[str, float] = field(default_factory=dict)
    """Power by planted effect, at the nearest planted layer."""
    missed: tuple[str, ...] = ()
    """Controls that missed a band or said nothing."""

    @property
    def open(self) -> tuple[str, ...]:
        """Gates that stay open; `tie` where nobody could look for a second feature as strong."""
        untold = ("tie",) if tie(self.cell) == "unread" else ()
        return (*(name for name, ruling in self.ruled.items() if ruling.gate == "open"), *untold)

    @property
    def features(self) -> tuple[str, ...]:
        """Features that gate 3 names."""
        return self.ruled["distractors"].why


def word(cell: Cell, limits: Limits, controls: Controls) -> Verdict:
    """Return the word of a (set, layer, method): the first rule of the table that applies.

    Args:
        cell: where, and every metric of the answer.
        limits: thresholds.
        controls: results of the controls, and which there should be.
    """
    ruled = rulings(cell, limits)
    power, missed = controls.power(cell), controls.touching(cell.set, cell.layer)
    untold = _untold(ruled, power, missed, controls.failed(cell.set, cell.layer))
    faults = ({INCONCLUSIVE: untold} if untold else {}) | _faults(cell, ruled)
    if untold or not _could_tell(power):
        faults.pop(NOT_DETECTED, None)  # what could not be told is not "not detected" on the side
    rests = {id(metric): metric for ruling in ruled.values() for metric in ruling.rests}
    for metric in present((*_tie_metrics(cell), cell.ceiling)):
        rests[id(metric)] = metric
    said = next((one for one in RULES if one in faults), None)
    verdict = Verdict(
        cell=cell,
        word=said or SUPPORTED,
        reason=faults[said] if said else "all_gates_hold",
        also=tuple(one for one in RULES if one in faults and one != said),
        ruled=ruled,
        rests=tuple(rests.values()),
        power=power,
        missed=missed,
    )
    if said is None and verdict.open:
        return replace(verdict, word=PROVISIONAL, reason="gates_open")
    return verdict


def _untold(
    ruled: Mapping[str, Ruling], power: Mapping[str, float], missed: Sequence[str], failed: Collection[str]
) -> str | None:
    """Return why nothing can be told here, or None."""
    if missed:
        return REASON_OF_CONTROL.get(missed[0], "control_missed") if missed[0] in failed else "control_missed"
    detected = ruled["detected"]
    if "not_measured" in detected.why:
        return "not_measured"
    # Power is asked for before absence is claimed; a direction that was seen to read something else claims none.
    elsewhere = "fails" in (ruled["distractors"].gate, ruled["negation"].gate)
    if detected.gate != "holds" and not elsewhere and not _could_tell(power):
        return "could_not_tell" if power else "power_not_measured"
    return None


def _faults(cell: Cell, ruled: Mapping[str, Ruling]) -> dict[str, str]:
    """Return every rule between INCONCLUSIVE and PROVISIONAL that applies, with its reason."""
    faults: dict[str, str] = {}
    detected, followed, negated = ruled["detected"], ruled["distractors"], ruled["negation"]
    if tie(cell) == "tied" and (detected.gate == "holds" or followed.gate == "fails"):
        faults[AMBIGUOUS] = "two_features_tie"
    if "fails" in (followed.gate, negated.gate):
        faults[FEATURE_NOT_TRUTH] = "+".join((*(["distractor"] if followed.gate == "fails" else []), *negated.why))
    if detected.gate != "holds":
        unstable = ruled["stable"].gate == "fails"
        faults[NOT_DETECTED] = "unstable" if unstable else (detected.why or ("no_separation",))[0]
    if ruled["stable"].gate == "fails":
        faults[UNSTABLE] = "unstable"
    if ruled["output"].gate == "fails":
        faults[OUTPUT_TRACKING] = "+".join(ruled["output"].why)
    if ruled["causal"].gate == "fails":
        faults[READABLE_ONLY] = "no_effect"
    return faults


def tie(cell: Cell) -> Literal["tied", "apart", "unread"]:
    """Tell whether two binary features are equally strong, so that luck decides which one a label-free method finds."""
    if cell.method not in LABEL_FREE:
        return "apart"
    gap, second = _tie_metrics(cell)
    if gap is None or second is None:
        return "unread"
    return "tied" if float(gap.value) < GAP_TIES and float(second.value) >= SECOND_TIES else "apart"


def _tie_metrics(cell: Cell) -> tuple[Metric | None, Metric | None]:
    if cell.method not in LABEL_FREE:
        return None, None
    return cell.of_layer("relative_gap"), cell.of_layer("second_stability")


def _could_tell(power: Mapping[str, float]) -> bool:
    """Return whether a plant of the effect passes gate 1 here: else "not detected" would say too much.

    Only a measured power counts. The prediction of section 8 is for displacements that are alike in all directions; a
    model's own are not, and a method that it foretells .99 for found none of the plants (all-MiniLM-L6-v2, comparison).
    """
    return power.get(EFFECT, 0.0) >= POWER_MIN
