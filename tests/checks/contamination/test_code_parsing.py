from __future__ import annotations

import ast

import pytest

from checks.contamination.code_parsing import BYTES_MAX, DEPTH_MAX, measured, parsed

N = 60_000


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("-" * N + "1", "too_large"), ("-" * 20_000 + "1", "too_deep"), ("not " * 20_000 + "1", "too_deep"),
        ("lambda:" * 20_000 + "1", "too_deep"), ("(" * 5000 + ")" * 5000, "not_python"), ("(" * N, "not_python"),
        ("a" + ".a" * 20_000, "too_deep"), ("a" + "()" * 20_000, "too_deep"), ("a" + "[0]" * 15_000, "too_deep"),
        ("1" + "+1" * 20_000, "too_deep"), ("1" + "**1" * 20_000, "too_deep"),
        ("1 if a else " * 10_000 + "1", "too_deep"),
        ("if a:pass\n" + "elif a:pass\n" * 9000, "too_deep"), ("f" * 150 + "(" * 150 + "1 1" + ")" * 150, "not_python"),
        ("'" + "\\d" * 90_000 + "'", None), ("9" * 5000, "not_python"), ("f'" + "{1}" * 20_000 + "'", "too_large"),
        ("f'" + "{1}" * 4900 + "'", None), ("a\0b", "not_python"), ("\ud800", "not_python"), ("", None),
        ("a = 1\n" * 20_000, "too_large"), ("é" * 150_000, "too_long"), ("x" * (BYTES_MAX + 1), "too_long"),
        ("{" * 4000, "not_python"), ("{1:" * 99, "not_python"), ("for a in b:\n" * 3, "not_python"),
        ("def f():\n" + "".join("\n" + " " * i + "if a:" for i in range(1, 99)) + "\n" + " " * 99 + "pass", None),
        ("'''" + "\n" * 190_000 + "'''", None), ("#" * 190_000, None), ("\\\n" * 90_000, "too_large"),
    ],
)  # fmt: skip
def test_hostile_text_is_refused_and_crashes_nothing(source: str, told: str | None) -> None:
    answer = parsed(source)
    if told is None:
        assert isinstance(answer, (ast.Module, str))
    else:
        assert answer in {told, "too_deep", "too_large", "not_python"} - (
            {"not_python"} if told != "not_python" else set()
        )


def test_depth_and_nodes_are_the_specifications() -> None:
    assert isinstance(parsed("x = " + "-" * (DEPTH_MAX - 4) + "1"), ast.Module)
    assert parsed("x = " + "-" * DEPTH_MAX + "1") == "too_deep"
    # Module, and per line an assignment, a name, its context and a constant.
    assert isinstance(parsed("a=1\n" * 4_900), ast.Module)
    assert parsed("a=1\n" * 5_100) == "too_large"


def test_a_tree_that_was_nested_by_hand_does_not_recurse() -> None:
    tree: ast.expr = ast.Constant(1)
    for _ in range(5000):
        tree = ast.UnaryOp(ast.USub(), tree)
    assert measured(tree) == "too_deep"
    while isinstance(tree, ast.UnaryOp):
        tree = tree.operand
