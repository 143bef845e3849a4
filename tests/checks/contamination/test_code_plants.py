"""Rewrites of code items: each depth is what it says, and does what its item does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from checks.contamination.code_behaviour import Reference, behaviour, reference
from checks.contamination.code_canonical import near
from checks.contamination.code_plants import LOCALS, code_rewrites
from checks.contamination.functions import Function, entry_function, functions
from checks.contamination.items import Item
from checks.organisms import families
from checks.organisms.families import draws


def items() -> list[Item]:
    held = (*families.dev(), *families.test())
    return [draws(one, np.random.default_rng(7), 1)[0].item for one in held if one.kind == "code"]


def last(text: str) -> Function:
    return functions(text).functions[-1]


def own(item: Item) -> Function:
    found = entry_function(str(item.reference), str(item.entry))
    assert found is not None
    return found


@pytest.mark.parametrize("changed", [{"language": "java"}, {"reference": None}, {"entry": None}, {"kind": "prose"}])
def test_an_item_without_a_python_reference_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="Python reference"):
        code_rewrites(replace(items()[0], **changed), np.random.default_rng(0))  # type: ignore[arg-type]


def test_a_reference_that_cannot_be_run_is_rewritten_no_deeper_than_its_layout() -> None:
    item = replace(items()[0], reference="import numpy\ndef f(a):\n    return numpy.abs(a)\n", entry="f")
    assert {*code_rewrites(item, np.random.default_rng(0))} == {0, 1}
    assert {*code_rewrites(replace(item, reference="def f(:"), np.random.default_rng(0))} == {0}


def test_each_depth_is_what_it_says() -> None:
    depths = []
    for number, item in enumerate(items()):
        made = code_rewrites(item, np.random.default_rng(number))
        depths += list(made)
        expected, first = reference(item), own(item)
        assert isinstance(expected, Reference)
        assert last(made[0]).source == first.source
        assert last(made[1]).tokens == first.tokens
        assert made[1] != made[0]
        for depth in {2, 3} & made.keys():
            found = last(made[depth])
            assert found.tokens != first.tokens
            assert found.name != item.entry
            assert behaviour(expected, found.source, found.name).verdict == "same"
        assert last(made[2]).canonical.digest == first.canonical.digest
        assert 3 not in made or not near(first.canonical, last(made[3]).canonical)
    assert depths.count(2) == len(items()) == 24
    assert depths.count(3) >= 20


def test_equal_draws_give_equal_rewrites() -> None:
    item = items()[3]
    assert code_rewrites(item, np.random.default_rng(1)) == code_rewrites(item, np.random.default_rng(1))
    assert code_rewrites(item, np.random.default_rng(1)) != code_rewrites(item, np.random.default_rng(2))


def test_names_of_attributes_imports_and_keywords_stay() -> None:
    source = (
        "import math\n\ndef helper(value, scale=2):\n    return value * scale\n\n"
        "def f(items, data):\n    best = sorted(items, key=lambda value: -value)\n    text = f'{data}:{best}'\n"
        "    items = {'items': math.floor(helper(value=len(text), scale=3))}\n"
        "    return sorted(items.items(), reverse=True) + [data]\n"
    )
    probes = tuple(([at, 3, 1], at * "x") for at in range(6))
    item = replace(items()[0], reference=source, entry="f", probes=probes, question="Do as told.")
    text = code_rewrites(item, np.random.default_rng(0))[2]
    assert "math.floor" in text
    assert ".items()" in text
    assert "'items'" in text
    assert "key=" in text
    assert "best" not in text
    assert "scale" not in text


def test_more_names_than_the_list_holds_stay_apart() -> None:
    many = 2 * len(LOCALS)
    body = "".join(f"    v{at} = a + {at}\n" for at in range(many))
    source = f"def f(a):\n{body}    return [{', '.join(f'v{at}' for at in range(many))}]\n"
    item = replace(items()[0], reference=source, entry="f", probes=tuple((at,) for at in range(6)))
    assert 2 in code_rewrites(item, np.random.default_rng(0))
