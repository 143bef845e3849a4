"""What docs/guide/clusterability.md says agrees with the check: parameters, words, reasons, nulls, examples."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from checks.check import ModelFacts
from checks.clusterability.check import Clusterability
from checks.clusterability.lesion_rows import TASK_ROWS_LEAST, lesion_rows
from checks.clusterability.plots import NULL_WORDS
from checks.feedforward import FeedForward, FeedForwardHead, FeedForwardLayer
from checks.memory import model_facts

TOKENS = model_facts(vocabulary=64)

VECTORS = replace(
    TOKENS,
    feedforward=FeedForward(
        input=(4,),
        layers=(FeedForwardLayer(op="linear", weight="w"),),
        shapes=((20,),),
        heads=(FeedForwardHead(name="a", start=0, stop=10), FeedForwardHead(name="b", start=10, stop=20)),
    ),
)

GUIDE = (Path(__file__).parents[3] / "docs/guide/clusterability.md").read_text("utf-8")


def rows_of(title: str) -> list[list[str]]:
    """Return the cells of the first table behind a heading, without its head."""
    section = GUIDE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def told(default: Any) -> str:
    """Return a default as the guide writes it."""
    if isinstance(default, tuple):
        return ", ".join(f"`{item}`" for item in default)
    try:
        return f"{float(default):g}".removeprefix("0")
    except ValueError:
        return f"`{default}`"


def test_every_parameter_stands_in_the_guide_with_its_default() -> None:
    table = {row[0].strip("`"): row[1] for row in rows_of("Parameters")}
    fields = Clusterability.model_fields
    assert set(table) == set(fields)
    for name, default in table.items():
        given = told(fields[name].default)
        assert default in (given, f"{given}0"), name  # .10 is written so beside .05


def test_every_word_and_reason_stands_in_the_guide() -> None:
    missing = [code for code in (*Clusterability.words, *Clusterability.reasons) if f"`{code}`" not in GUIDE]
    assert missing == []


def test_every_control_stands_in_the_guide() -> None:
    assert [control.name for control in Clusterability.controls if f"`{control.name}`" not in GUIDE] == []


def test_every_null_that_a_title_can_name_has_its_paragraph() -> None:
    nulls = GUIDE.split("\n## The nulls\n", 1)[1].split("\n## ", 1)[0]
    assert [kind for kind in NULL_WORDS if f"`{kind}`" not in nulls] == []


def test_every_metric_stands_in_the_guide() -> None:
    told = [spec.name for spec in Clusterability.metrics if not spec.name.startswith("planted_")]  # of controls only
    assert [name for name in told if f"`{name}`" not in GUIDE] == []


@pytest.mark.parametrize(("keys", "facts"), [({"text", "target"}, TOKENS), ({"input", "label", "head"}, VECTORS)])
def test_examples_of_rows_are_read(keys: set[str], facts: ModelFacts) -> None:
    blocks = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    examples = [json.loads(line) for block in blocks for line in block.splitlines()]
    shown = [example for example in examples if keys < set(example)]
    assert len(shown) == 2
    rows = [{**example, "id": f"{example['id']}.{copy}"} for copy in range(TASK_ROWS_LEAST) for example in shown]
    assert lesion_rows(rows, facts).tasks == tuple(example["task"] for example in shown)
