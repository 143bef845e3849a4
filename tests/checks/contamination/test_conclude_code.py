"""A code benchmark audited from rows to words: plants of code are found, and speak for code alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from checks.contamination.conclude import conclude
from checks.contamination.planning import AUTHORED, Asked
from checks.organisms import families
from tests.checks.contamination.audited import benchmark_rows, corpus, merged, prepared, scanned, word

FAMILIES = [one for one in families.dev() if one.kind == "code"]


def _rows(count: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(4)
    held = [one.item for family in FAMILIES for one in families.draws(family, rng, 4)][:count]
    return [
        {"benchmark": "demo", "item": f"c{at}", "kind": "code", "question": one.question, "entry": one.entry,
         "reference": one.reference, "probes": [list(each) for each in one.probes]}
        for at, one in enumerate(held)
    ]  # fmt: skip


def test_plants_of_code_are_found_and_need_placebos_to_say_anything(tmp_path: Path) -> None:
    rows = _rows(12)
    path = corpus(tmp_path, [], 2000)
    plan = prepared(path, rows, embed="off", asked=Asked(siblings=4))
    depths = {one.depth for one, source in zip(plan.plan.plants, plan.sources, strict=True) if source == "automatic"}
    assert {0, 1, 2} <= depths
    sketch = merged(plan, scanned(plan, path))
    found = [one for one in plan.plan.plants if one.depth < 2 and plan.sources[one.id] == "automatic"]
    assert len(found) == 12
    hit = [one for one in found if sketch.plants.get(one.id) and sketch.plants[one.id][0].tier in ("exact", "near")]
    assert len(hit) >= 0.95 * len(found)
    told = conclude(sketch, plan)
    assert word(told, "leak") == ("inconclusive", "no_placebo")
    assert told.measured.find("code_items", benchmark="demo") is not None


def test_a_code_benchmark_plants_families_of_code(tmp_path: Path) -> None:
    path = corpus(tmp_path, [], 2000)
    plan = prepared(path, _rows(8), asked=Asked(siblings=4), authored=None)
    kinds = {plan.plan.probes[one.probe].kind for one in plan.plan.owners if one.benchmark == AUTHORED}
    assert kinds == {"code"}
    texts = [one.text for one, source in zip(plan.plan.plants, plan.sources, strict=True) if source == "authored"]
    assert len(texts) == 40
    assert all("```python\ndef " in text or "```python\nimport" in text or "```python\nfrom" in text for text in texts)


def test_a_prose_benchmark_plants_eighty_items_of_its_length(tmp_path: Path) -> None:
    path = corpus(tmp_path, [], 2000)
    rows, _ = benchmark_rows(10)
    plan = prepared(path, rows, authored=None)
    owned = [one for one in plan.plan.owners if one.benchmark == AUTHORED]
    assert len(owned) == families.PLANTED
    again = prepared(path, rows, authored=None)
    assert again.plan.plan_sha256 == plan.plan.plan_sha256
