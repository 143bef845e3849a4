"""What measurement sees of its evidence: each set's kept rows with their states, what was lost, and why.

Specification: section 3, the table of bad input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.check import Evidence, Refusal
from checks.truth_probe.asking import Asked, asked
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.splits import LOST_MAX, Masks, Plan, alike_pairs, masks, require_enough, without_lost

if TYPE_CHECKING:
    from checks.truth_probe.check import TruthProbe

NAMED_OWN, NAMED_BUILT_IN = 20, 3
"""Items named of a set that is refused, of the audit's own and of a built-in one; every letter is charged to the output
budget, and of a built-in set nobody can mend an item."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """One set, ready to be measured."""

    plan: Plan
    masks: Masks


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """All sets of an audit, ready to be measured."""

    asked: Asked
    sets: Mapping[str, Held]
    refused: Mapping[str, Refusal]
    skipped: tuple[tuple[str, str], ...]
    """(item, reason): rows, sets and layers that were left out."""
    row: Mapping[str, int]
    """Row of each text in the evidence's states."""
    broken_texts: bool
    """Whether more of the benign texts or statements were lost than may be: then no alarm is told of them."""

    def states(self, name: str, swept: np.ndarray) -> PairActivations:
        """Return the states of a set's rows at one site.

        Args:
            name: the set.
            swept: all states of the site, [text, width].
        """
        held = self.sets[name]
        at = np.array([[self.row[text.id] for text in pair.texts()] for pair in held.plan.pairs]).reshape(-1, 2)
        return PairActivations(swept[at[:, 0]], swept[at[:, 1]], held.masks.template, held.masks.cluster)


def gathered(check: TruthProbe, evidence: Evidence) -> Gathered:
    """Return every set without the rows that were lost.

    Raises:
        Refusal: no set is left.
    """
    whole = asked(check, evidence.facts, _data(evidence))
    lost, runs = evidence.lost(), evidence.runs()
    skipped = list(whole.dropped)
    skipped += [(f"layer:{layer}", "over_cell_limit") for layer in whole.thinned]
    sets: dict[str, Held] = {}
    refused = dict(whole.refused)
    for name, plan in whole.plans.items():
        try:
            kept, _, left = without_lost(plan, lost, alike_pairs(plan, runs))
            require_enough(kept)
        except Refusal as why:
            refused[name] = why
            continue
        skipped += [(f"set:{name}:{item}", reason) for item, reason in (*plan.left_out, *left)]
        sets[name] = Held(plan=kept, masks=masks(kept))
    if not sets:
        raise next(iter(refused.values()))
    for name, refusal in refused.items():
        skipped.append((f"set:{name}", refusal.reason))
        skipped += [(f"set:{name}:{item}", refusal.reason) for item in _named(refusal.items, own=name in whole.own)]
    rows = {text.id: number for number, text in enumerate(whole.texts)}
    broken = False
    for role, texts in (("benign", whole.benign), ("statements", whole.statements)):
        gone = sum(text.text().id in lost for text in texts)
        if gone:
            skipped.append((f"{role}:texts:{gone}", "text_lost"))
            broken |= gone > LOST_MAX * len(texts)
    if broken:
        skipped.append(("alarms", "items_lost"))
    elif bool(whole.benign) != bool(whole.statements):
        skipped.append(("alarms", "not_testable"))
    return Gathered(asked=whole, sets=sets, refused=refused, skipped=tuple(skipped), row=rows, broken_texts=broken)


def _named(items: Sequence[str], *, own: bool) -> tuple[str, ...]:
    """Return the first items of a refusal, and its total, which stands last."""
    most = NAMED_OWN if own else NAMED_BUILT_IN
    return tuple(items) if len(items) <= most + 1 else (*items[:most], items[-1])


def _data(evidence: Evidence) -> dict[str, Sequence[Mapping[str, Any]]]:
    return {role: evidence.data(role) for role in evidence.roles()}
