from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pytest

from checks.contamination.code_behaviour import Reference, behaviour, reference
from checks.contamination.code_mutations import applied, code_siblings, edits
from checks.contamination.functions import functions
from checks.contamination.items import Item

SOURCE = '''
def score(xs, limit):
    """Add what is small: é."""
    total = 0  # 1 + 1
    for x in xs:
        if x < limit and x != 3:
            total += (x) * 2
    return max(total, len(xs) - 1) + sum(xs)
'''
PROBES: tuple[tuple[Any, ...], ...] = (([1, 2, 3], 5), ([], 1), ([4, 9], 5), ([7], 3), ([1, 1, 1, 1], 1), ([2, 5], 9))
ITEM = Item("b", "1", "code", "Score.", language="python", entry="score", reference=SOURCE, probes=PROBES)


def item(source: str, probes: tuple[tuple[Any, ...], ...] = PROBES) -> Item:
    return Item("b", "1", "code", "Score.", language="python", entry="score", reference=source, probes=probes)


def test_zero_siblings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        code_siblings(ITEM, 0, np.random.default_rng(0))


@pytest.mark.parametrize("source", ["def score(:", "", "x = 1", "-" * 500 + "1"])
def test_a_reference_that_is_none_has_no_siblings(source: str) -> None:
    assert code_siblings(item(source), 3, np.random.default_rng(0)) == ()


def test_edits_are_single_tokens_of_every_kind() -> None:
    data = SOURCE.encode()
    told = {(data[edit.begin : edit.end].decode(), edit.new, edit.how) for edit in edits(SOURCE)}
    assert told == {
        ("0", "1", "constant"), ("<", "<=", "comparison"), ("and", "or", "operator"), ("!=", "==", "comparison"),
        ("3", "2", "constant"), ("3", "4", "constant"), ("+=", "-=", "operator"), ("*", "+", "operator"),
        ("2", "1", "constant"), ("2", "3", "constant"), ("max", "min", "extreme"), ("-", "+", "operator"),
        ("1", "0", "constant"), ("1", "2", "constant"), ("+", "-", "operator"), ("sum", "math.prod", "product"),
    }  # fmt: skip


def test_every_edit_parses_and_changes_one_place() -> None:
    for edit in edits(SOURCE):
        text = applied(SOURCE, edit)
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(SOURCE))
        assert text.endswith(SOURCE.encode()[edit.end :].decode())


def test_a_product_brings_its_import() -> None:
    (product,) = (edit for edit in edits(SOURCE) if edit.how == "product")
    assert applied(SOURCE, product).startswith("import math\n")
    assert applied(f"import math\n{SOURCE}", edits(f"import math\n{SOURCE}")[-1]).count("import math") == 1


def test_each_sibling_returns_something_else_and_keeps_its_description() -> None:
    expected = reference(ITEM)
    assert isinstance(expected, Reference)
    made = code_siblings(ITEM, 6, np.random.default_rng(3))
    assert len(made) == 6
    assert len({each.text for each in made}) == 6
    (original,) = functions(SOURCE).functions
    for number, each in enumerate(made, 1):
        assert behaviour(expected, each.text, "score").verdict == "different"
        assert functions(each.text).functions[0].description == original.description
        assert (each.probe.item, each.probe.question, each.probe.probes) == (f"1.s{number}", "Score.", PROBES)
        assert each.probe.reference == each.text


def test_mutations_that_only_fail_or_never_end_are_left_out() -> None:
    source = "def score(xs, limit):\n    i = 0\n    while i < limit:\n        i += 1\n    return i + len(xs)\n"
    made = code_siblings(item(source), 20, np.random.default_rng(0))
    assert made
    assert all("-= 1" not in each.text and "i += 0" not in each.text for each in made)


def test_equal_draws_give_equal_siblings() -> None:
    first, second, third = (code_siblings(ITEM, 4, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == second
    assert [each.text for each in first] != [each.text for each in third]


def test_numbers_that_python_cannot_write_are_left_alone() -> None:
    assert edits("def f(a):\n    return 0x" + "f" * 5000 + "\n") == ()
