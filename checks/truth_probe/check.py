"""The check `truth_probe`: is there a direction, found without labels, along which true and false texts part?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from assay.result import ControlResult, D, Finding, Measured, Skipped, canonical_decimal
from pydantic import AfterValidator, Field

from checks.check import Check, DataRole, Evidence, MetricSpec, ModelFacts, Needs, Refusal, missed_controls
from checks.parameters import Between, Layers, chosen_layers
from checks.truth_probe.controls import PlantedTruth, ShuffledLabels, SpoiledFacts
from checks.truth_probe.findings import WORDS, Limits, findings
from checks.truth_probe.metrics import METRICS, layer_metrics, set_metrics
from checks.truth_probe.nulls import predicted_auroc
from checks.truth_probe.pairs import PairActivations, read_pairs
from checks.truth_probe.plots import plots
from checks.truth_probe.probing import LayerNumbers, Settings, Split, fault, probe
from checks.truth_probe.splits import LOST_MAX, Plan, plan, require_enough

LAYERS_MAX = 48
"""Layers of one answer: beyond, the numbers would crowd the result document; ask for fewer."""

ANCHORS_MIN = 16
"""Labelled anchor items at least: with fewer hardly any sign could be fixed (5.8)."""

EFFECT = 2.12
"""Planted effect that a measurement must be able to see before "not detected" is said (section 7)."""


def _rule(text: str) -> str:
    if text in ("split_half", "lambda0"):
        return text
    if canonical_decimal(text) != text or not 0 <= float(text) < 1:
        raise ValueError("lambda_rule is split_half, lambda0, or a decimal in [0, 1)")
    return text


def _even(count: int) -> int:
    if count % 2:
        raise ValueError("anchors_k is even: half true, half false")
    return count


class TruthProbe(Check):
    """Midpoint-displacement at every layer with its supervised ceilings; the gates built so far: detected, stable."""

    name: ClassVar[str] = "truth_probe"
    version: ClassVar[str] = "0.1"
    source: ClassVar[str] = (
        "Fry et al. 2023 (arXiv 2311.00488); Burns et al. 2022 (2212.03827); Farquhar et al. 2023 (2312.10029)"
    )
    controls: ClassVar[tuple[Any, ...]] = (ShuffledLabels(), PlantedTruth())
    data_roles: ClassVar[tuple[DataRole, ...]] = (
        DataRole(
            name="pairs",
            required=True,
            media_type="application/jsonl",
            summary="Pairs of texts of which one is true: answer or statement form, labels, clusters.",
        ),
    )
    metrics: ClassVar[tuple[MetricSpec, ...]] = METRICS
    words: ClassVar[tuple[str, ...]] = WORDS
    reasons: ClassVar[tuple[str, ...]] = (
        "role_invalid",
        "many_sets",
        "split_conflict",
        "branches_alike",
        "items_lost",
        "too_few_items",
        "too_few_anchors",
        "unlabelled",
        "one_sided_labels",
        "layer_out_of_range",
        "too_many_layers",
        "nothing_measurable",
        "non_finite",
        "degenerate_layer",
        "negated_not_fitted",
        "over_max_items",
        "surplus_anchor",
        "text_lost",
    )

    layers: Layers = Field(default="all", description="Blocks whose residual stream is probed, counted from 0.")
    max_items: int = Field(default=1000, ge=100, le=20000, description="Items used, by hash order of their name.")
    normaliser: Literal["mean"] = Field(default="mean", description="Centring by train means of branch and template.")
    lambda_rule: Annotated[str, AfterValidator(_rule)] = Field(
        default="split_half", description="How the midpoint is weighed: split_half, lambda0, or a decimal in [0, 1)."
    )
    anchors_k: Annotated[int, AfterValidator(_even)] = Field(
        default=32, ge=16, le=256, description="Labelled items that only orient directions; even."
    )
    detect_floor: Annotated[D, Between("0.5", "0.99")] = Field(
        default="0.6", description="Floor of the AUROC's lower bound for gate 1."
    )
    stable_floor: Annotated[D, Between("0", "1")] = Field(
        default="0.5", description="Split-half |cos| from which gate 2 holds."
    )
    unstable_below: Annotated[D, Between("0", "1")] = Field(
        default="0.2", description="Split-half |cos| below which gate 2 fails."
    )
    alpha: Annotated[D, Between("0.001", "0.2")] = Field(default="0.05", description="Level over all layers.")
    bootstrap: int = Field(default=1000, ge=200, le=20000, description="Cluster bootstrap draws.")
    permutations: Literal["auto"] | Annotated[int, Field(ge=200, le=100000)] = Field(
        default="auto", description="Cluster flips; auto: the larger of 1000 and 40 for each layer."
    )

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        """Ask for the residual stream at the chosen layers, at the end of every text of the plan.

        Raises:
            Refusal: the rows cannot be read or split, or are too few; a layer does not exist.
        """
        sites = self.sites(model)
        if len(sites) > LAYERS_MAX:
            raise Refusal("too_many_layers", (f"layers:{len(sites)}", f"limit:{LAYERS_MAX}"))
        drawn = self.plan(data["pairs"])
        require_enough(drawn)
        texts = tuple(text for pair in drawn.pairs for text in pair.texts())
        return Needs(data_roles=("pairs",), sites=sites, texts=texts)

    def measure(self, evidence: Evidence) -> Measured:
        """Fit, orient and score at every layer.

        Raises:
            Refusal: too much of the data was lost, or no layer can be measured.
        """
        whole = self.plan(evidence.data("pairs"))
        drawn, rows, lost = _without_lost(whole, evidence.lost())
        require_enough(drawn)
        split = _split(drawn)
        if split.anchor.sum() < ANCHORS_MIN:
            raise Refusal("too_few_anchors", (f"anchors:{int(split.anchor.sum())}:least:{ANCHORS_MIN}",))
        skipped = [Skipped(item=_named(item), reason=reason) for item, reason in (*whole.left_out, *lost)]
        layers = self._layers(evidence.facts)
        states, faults = self._states(layers, drawn, rows, evidence, owed=2 * len(whole.pairs))
        if not states:
            raise Refusal("nothing_measurable", tuple(f"{one.item}:{one.reason}"[:128] for one in faults))
        numbers = self._probe(states, split, evidence)
        clusters = len({c for c, kind in zip(drawn.clusters, drawn.splits, strict=True) if kind == "test"})
        items = len({pair.item for pair, kept in zip(drawn.pairs, split.test, strict=True) if kept})
        trained = int(split.train.sum())
        predicted = predicted_auroc(EFFECT, trained, evidence.facts.width)
        set_name = _named(drawn.set)
        return Measured(
            coverage={"set": (set_name,), "layer": tuple(str(layer) for layer in layers)},
            metrics=(
                *layer_metrics(set_name, numbers, items),
                *set_metrics(set_name, train_pairs=trained, test_clusters=clusters, predicted=predicted),
            ),
            plots=plots(numbers),
            skipped=(*faults, *skipped),
        )

    def judge(self, real: Measured, controls: Sequence[ControlResult]) -> tuple[Finding, ...]:
        """Read the words off the numbers; a missed control makes every word INCONCLUSIVE."""
        missed = missed_controls(self, controls)
        return findings(real, self.limits(), missed)

    def limits(self) -> Limits:
        """Return the thresholds of the gates as numbers."""
        return Limits(
            alpha=float(self.alpha),
            detect_floor=float(self.detect_floor),
            stable_floor=float(self.stable_floor),
            unstable_below=float(self.unstable_below),
        )

    def plan(self, rows: Sequence[Mapping[str, Any]]) -> Plan:
        """Return what is swept and how it is split; a function of the rows and the parameters alone."""
        return plan(read_pairs(rows), max_items=self.max_items, anchors_k=self.anchors_k)

    def sites(self, facts: ModelFacts) -> tuple[str, ...]:
        """Return the residual-stream sites of the chosen layers."""
        return tuple(f"resid.{layer}" for layer in self._layers(facts))

    def _layers(self, facts: ModelFacts) -> tuple[int, ...]:
        every = isinstance(facts, SpoiledFacts) and facts.all_layers
        return chosen_layers("all" if every else self.layers, facts.layers)

    def _states(
        self, layers: Sequence[int], drawn: Plan, rows: np.ndarray, evidence: Evidence, *, owed: int
    ) -> tuple[dict[int, PairActivations], list[Skipped]]:
        """Return the states of the layers that can be measured, and the other layers with their reasons."""
        template = np.unique([pair.template for pair in drawn.pairs], return_inverse=True)[1]
        cluster = np.unique(drawn.clusters, return_inverse=True)[1]
        states: dict[int, PairActivations] = {}
        faults: list[Skipped] = []
        for layer in layers:
            swept = evidence.activations(f"resid.{layer}")
            if len(swept) != owed:
                # Rows are told apart by their place alone: one text too many would pair states with wrong labels.
                raise ValueError(f"layer {layer} has {len(swept)} states for {owed} texts")
            here = PairActivations(swept[0::2][rows], swept[1::2][rows], template, cluster)
            wrong = fault(here)
            if wrong is None:
                states[layer] = here
            else:
                reason, row = wrong
                # Which pair was first helps where a state is broken, and says nothing of a layer without spread.
                item = f"layer:{layer}" + (f":{drawn.pairs[row].id}" if reason == "non_finite" else "")
                faults.append(Skipped(item=_named(item), reason=reason))
        return states, faults

    def _probe(self, states: Mapping[int, PairActivations], split: Split, evidence: Evidence) -> list[LayerNumbers]:
        facts = evidence.facts
        how = Settings(
            lambda_rule=self.lambda_rule,
            level=1.0 - float(self.alpha) / len(states),
            bootstrap=self.bootstrap,
            permutations=max(1000, 40 * len(states)) if self.permutations == "auto" else self.permutations,
            shuffles=isinstance(facts, SpoiledFacts) and facts.shuffles,
        )
        return [probe(layer, here, split, how, evidence.rng) for layer, here in states.items()]


def _named(text: str) -> str:
    """Return a caller's name in the name alphabet, at most 128 characters."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._:/@+-") else "_" for letter in text)
    return (kept if kept[:1].isalnum() else f"x{kept}")[:128]


def _without_lost(whole: Plan, lost: Mapping[str, str]) -> tuple[Plan, np.ndarray, list[tuple[str, str]]]:
    """Return the plan without items of which a text could not be read, the rows kept, and what was left out.

    Raises:
        Refusal: `items_lost`, when more than 2 % of the items are.
    """
    gone = {pair.item for pair in whole.pairs if any(text.id in lost for text in pair.texts())}
    if len(gone) > LOST_MAX * len({pair.item for pair in whole.pairs}):
        raise Refusal("items_lost", (*(f"item:{item}" for item in sorted(gone)[:20]), f"total:{len(gone)}"))
    rows = np.array([row for row, pair in enumerate(whole.pairs) if pair.item not in gone])
    kept = Plan(
        whole.set,
        tuple(whole.pairs[row] for row in rows),
        tuple(whole.clusters[row] for row in rows),
        tuple(whole.splits[row] for row in rows),
        whole.left_out,
    )
    return kept, rows, [(f"item:{item}", "text_lost") for item in sorted(gone)]


def _split(drawn: Plan) -> Split:
    labels = np.array([-1 if pair.label is None else pair.label for pair in drawn.pairs])
    kinds = np.array(drawn.splits)
    anchor = np.zeros(len(labels), dtype=bool)
    voted: set[str] = set()
    for row, pair in enumerate(drawn.pairs):
        # One vote an item: its other templates would say the same thing again.
        if kinds[row] == "anchor" and labels[row] >= 0 and pair.item not in voted:
            anchor[row] = True
            voted.add(pair.item)
    return Split(kinds == "train", anchor, (kinds == "test") & (labels >= 0), labels)
