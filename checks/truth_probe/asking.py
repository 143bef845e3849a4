"""What is asked of the model: the data sets, how each is split, every text to sweep and every answer to score.

A function of parameters, model facts and rows alone, so that `needs` and `measure` see the same plan without handing it
on. Specification: sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from checks.check import Continuation, ModelFacts, Refusal, Text
from checks.truth_probe import distractors
from checks.truth_probe.modes import spoiled
from checks.truth_probe.pairs import Pair, read_pairs
from checks.truth_probe.replaying import CausalText, choose, passes
from checks.truth_probe.roles import Benign, Statement, read_benign, read_statements
from checks.truth_probe.sets.load import rows as built_in_rows
from checks.truth_probe.splits import Plan, plans, require_enough

if TYPE_CHECKING:
    from checks.truth_probe.check import TruthProbe

CELLS_MAX = 24
"""Sets times layers of one answer: with every role there are some 70 numbers of each, which carry about 2 KB as the
output budget of an audit (64 KiB) counts them; an answer over that budget would be withheld whole."""

BRANCHES: tuple[Literal["pos", "neg"], ...] = ("pos", "neg")

EVERYONE = "all"
"""Persona of the output's AUROC where none are separated."""

NEGATED_OF = "negation"
"""The built-in set that holds negated forms of others; its rows join the set that they negate."""


@dataclass(frozen=True)
class Asked:
    """Everything that is swept, and where it came from."""

    plans: Mapping[str, Plan]
    """By set: the audit's own first, then built-in ones."""
    refused: Mapping[str, Refusal]
    """Sets that cannot be measured, with the reason."""
    dropped: tuple[tuple[str, str], ...]
    """Further things that are not measured: (item, reason)."""
    own: tuple[str, ...]
    """Sets that came with the audit."""
    layers: tuple[int, ...]
    thinned: tuple[int, ...]
    """Layers that "all" would have meant, left out because the answer could not hold them."""
    battery: Mapping[str, tuple[distractors.Variant, ...]]
    causal: Mapping[str, tuple[CausalText, ...]]
    """Candidates by set; empty where no row carries yes and no."""
    causal_layers: tuple[int, ...]
    benign: tuple[Benign, ...]
    statements: tuple[Statement, ...]
    texts: tuple[Text, ...]
    continuations: tuple[Continuation, ...]
    replay: int

    @property
    def main_texts(self) -> tuple[str, ...]:
        """Ids of the texts that are fitted on and scored: all that a model without training is asked about."""
        return tuple(
            text.id
            for plan in self.plans.values()
            for pair, kind in zip(plan.pairs, plan.kinds, strict=True)
            if kind == "main"
            for text in pair.texts()
        )

    @property
    def primary(self) -> tuple[str, ...]:
        """Sets whose causal effect and power are measured: the audit's own, or the first built-in one."""
        mine = tuple(name for name in self.plans if name in self.own)
        return mine or tuple(self.plans)[:1]


def asked(check: TruthProbe, facts: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Asked:
    """Return what the check asks of this model with this data.

    Raises:
        Refusal: a role cannot be read, no set can be measured, or more layers are named than an answer holds.
    """
    own, dropped, drawn = _drawn(check, facts, data)
    whole: dict[str, Plan] = {}
    refused: dict[str, Refusal] = {}
    for name, plan in drawn.items():
        why = plan if isinstance(plan, Refusal) else _too_little(plan)
        if why is None and isinstance(plan, Plan):
            whole[name] = plan
        elif why is not None:
            refused[name] = why
    if not whole:
        raise next(iter(refused.values()), Refusal("no_data", ("role:pairs",)))
    layers, thinned = _layers(check, facts, len(whole))
    least = ceil(len(layers) / float(check.alpha))
    if check.permutations != "auto" and check.permutations + 1 < least and not spoiled(facts):
        # Fewer flips could never pass Holm over these layers: gate 1 would fail whatever the model carries.
        raise Refusal("p_resolution", (f"permutations:{check.permutations}", f"least:{least - 1}"))
    mine = tuple(name for name in whole if name in own)
    battery = (
        {name: distractors.battery(plan, check.seed) for name, plan in whole.items()} if not spoiled(facts) else {}
    )
    for_replay = mine or tuple(whole)[:1]
    causal = {name: _causal_texts(whole[name]) for name in for_replay} if facts.causal else {}
    at = causal_layers(check, facts, layers)
    benign, statements = read_benign(data.get("benign", ())), read_statements(data.get("statements", ()))
    texts = (
        *(text for plan in whole.values() for pair in plan.pairs for text in pair.texts()),
        *(text for of_set in battery.values() for one in of_set for text in one.texts),
        *(one.text() for one in benign),
        *(one.text() for one in statements),
    )
    continuations = tuple(c for plan in whole.values() for c in _continuations(plan)) if facts.causal else ()
    shifted = sum(len(choose(of_set, check.causal_items)) for of_set in causal.values())
    return Asked(
        plans=whole,
        refused=refused,
        dropped=tuple(dropped),
        own=own,
        layers=layers,
        thinned=thinned,
        battery=battery,
        causal=causal,
        benign=benign,
        statements=statements,
        texts=texts,
        continuations=continuations,
        causal_layers=at,
        replay=passes(len(at), shifted, check.causal_random),
    )


def _drawn(
    check: TruthProbe, facts: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[tuple[str, ...], list[tuple[str, str]], dict[str, Plan | Refusal]]:
    """Return the audit's own sets, what was dropped, and every set's plan: its own first, then built-in ones."""

    def planned(pairs: Sequence[Pair], *, personas: bool) -> dict[str, Plan | Refusal]:
        return plans(
            pairs,
            max_items=check.max_items,
            anchors_k=check.anchors_k,
            seed=check.seed,
            fit_persona=check.fit_persona if personas else None,
            test_persona=check.test_persona if personas else None,
        )

    drawn = planned(read_pairs(data.get("pairs", ())), personas=not spoiled(facts))
    own = tuple(drawn)
    asked_for = {"fit_persona": check.fit_persona, "test_persona": check.test_persona}
    if not own and not spoiled(facts) and any(asked_for.values()):
        # Built-in sets name nobody: left unsaid, the separation that was asked for would silently not happen.
        raise Refusal("persona_absent", tuple(f"{who}:{name}" for who, name in asked_for.items() if name))
    dropped: list[tuple[str, str]] = []
    wanted = () if spoiled(facts) else check.datasets
    for name in wanted:
        if name in own:
            dropped.append((f"built-in:{name}", "set_named_twice"))
            continue
        negated = [row for row in built_in_rows(NEGATED_OF) if row["set"] == name]
        # Who speaks is the business of the audit's own rows: built-in ones name nobody.
        drawn |= planned(read_pairs((*built_in_rows(name), *negated)), personas=False)
    return own, dropped, drawn


def _too_little(plan: Plan) -> Refusal | None:
    try:
        require_enough(plan)
    except Refusal as why:
        return why
    return None


def _layers(check: TruthProbe, facts: ModelFacts, sets: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the layers to measure, and those that "all" would have meant beyond what an answer holds.

    Raises:
        Refusal: layers were named, and are too many.
    """
    chosen = check.chosen(facts)
    room = CELLS_MAX // sets
    if spoiled(facts) or len(chosen) <= room:
        return chosen, ()
    if check.layers != "all" or not room:
        raise Refusal("too_many_layers", (f"layers:{len(chosen)}", f"sets:{sets}", f"limit:{room}:layers"))
    # Evenly spaced, the last one among them.
    kept = sorted({round((number + 1) * len(chosen) / room) - 1 for number in range(room)})
    return tuple(chosen[at] for at in kept), tuple(layer for at, layer in enumerate(chosen) if at not in kept)


def causal_layers(check: TruthProbe, facts: ModelFacts, layers: Sequence[int]) -> tuple[int, ...]:
    """Return the layers at which effects are measured and truth is planted, chosen before any score is seen."""
    if check.causal_layers != "auto":
        outside = [layer for layer in check.causal_layers if layer not in layers]
        if outside and not spoiled(facts):
            raise Refusal("layer_out_of_range", tuple(f"causal_layer:{layer}:not_probed" for layer in outside))
        return tuple(layer for layer in check.causal_layers if layer in layers)
    quarters = {-(-facts.layers * part // 4) - 1 for part in (1, 2, 3)}
    wanted = {min(layers, key=lambda layer: (abs(layer - quarter), layer)) for quarter in quarters}
    return tuple(sorted(wanted))


def _causal_texts(plan: Plan) -> tuple[CausalText, ...]:
    """Return the test texts that carry yes and no."""
    return tuple(
        CausalText(
            id=text.id,
            cluster=cluster,
            true=pair.truth(branch) == 1,
            yes=f"{text.id}/yes",
            no=f"{text.id}/no",
        )
        for pair, cluster, split, kind in zip(plan.pairs, plan.clusters, plan.splits, plan.kinds, strict=True)
        if kind == "main" and split == "test" and pair.asks is not None and pair.label is not None
        for branch, text in zip(BRANCHES, pair.texts(), strict=True)
    )


def _continuations(plan: Plan) -> tuple[Continuation, ...]:
    """Return the answers to score: those of scored rows alone."""
    return tuple(
        continuation
        for pair, split, kind in zip(plan.pairs, plan.splits, plan.kinds, strict=True)
        if split == "test" and kind in ("main", "other")
        for continuation in pair.continuations()
    )
