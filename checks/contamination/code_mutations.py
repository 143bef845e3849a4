"""Siblings of code items: the reference with one mutation that changes what it returns.

Specification: contamination, section 6.7. Mutations are made in the text itself, so that a sibling differs from its
item by one token and is written as the item is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from checks.contamination.code_behaviour import Reference, equal, reference
from checks.contamination.code_parsing import parsed
from checks.contamination.functions import LINE_END
from checks.contamination.interpreter import interpret, program
from checks.contamination.interpreter_limits import BITS_MAX
from checks.contamination.items import Item

How = Literal["constant", "comparison", "operator", "product", "extreme"]

COMPARISONS = {
    "Lt": ("<", "<="), "LtE": ("<=", "<"), "Gt": (">", ">="), "GtE": (">=", ">"), "Eq": ("==", "!="),
    "NotEq": ("!=", "=="), "In": ("in", "not in"), "Is": ("is", "is not"),
}  # fmt: skip
"""Class of the node -> its sign, and the sign that takes its place: the neighbour, or the negation."""

OPERATORS = {
    "Add": ("+", "-"), "Sub": ("-", "+"), "Mult": ("*", "+"), "Div": ("/", "*"), "FloorDiv": ("//", "*"),
    "Mod": ("%", "//"), "BitAnd": ("&", "|"), "BitOr": ("|", "&"), "LShift": ("<<", ">>"), "RShift": (">>", "<<"),
    "And": ("and", "or"), "Or": ("or", "and"),
}  # fmt: skip
"""Likewise."""

EXTREMES = {"min": "max", "max": "min"}

TRIES_PER_SIBLING = 8
"""Mutations tried for each sibling that is wanted. Of the mutations of the tested references over half change an
output, so eight leave out fewer than one item in a hundred that has any; each costs a run on all probes."""


@dataclass(frozen=True)
class Edit:
    """One mutation of a text."""

    begin: int
    """First byte that is replaced."""
    end: int
    new: str
    how: How


@dataclass(frozen=True)
class CodeSibling:
    """One probe of the null, for code."""

    item: Item
    """The item that it was made from."""
    text: str
    """The mutated reference."""
    probe: Item
    """The sibling as an item: description and probes kept; its name is "item.s1", "item.s2"."""
    how: How


def code_siblings(item: Item, k: int, rng: np.random.Generator) -> tuple[CodeSibling, ...]:
    """Return up to k siblings of a code item; none where its behaviour cannot be compared with.

    Args:
        item: of kind code.
        k: at least 1.
        rng: the stream "siblings".

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"{k} siblings per item: at least 1 is needed")
    expected = reference(item)
    if not isinstance(expected, Reference) or item.reference is None:
        return ()
    every = edits(item.reference)
    made: dict[str, How] = {}
    for number in rng.permutation(len(every))[: TRIES_PER_SIBLING * k]:
        edit = every[int(number)]
        text = applied(item.reference, edit)
        if text not in made and changes(expected, text):
            made[text] = edit.how
        if len(made) == k:
            break
    return tuple(
        CodeSibling(item, text, replace(item, item=f"{item.item}.s{number}", reference=text, answer=None), how)
        for number, (text, how) in enumerate(made.items(), 1)
    )


def changes(expected: Reference, source: str) -> bool:
    """Return whether a mutated reference returns another value on some probe, and is decided on all.

    One that only fails, or never ends, resembles no natural function.
    """
    held = program(source)
    if isinstance(held, str):
        return False
    other = False
    for probe, output in zip(expected.probes, expected.outputs, strict=True):
        outcome = interpret(held, expected.entry, probe)
        if outcome.word == "undecided":
            return False
        other |= outcome.word == "value" and not equal(outcome.value, output)
    return other


def applied(source: str, edit: Edit) -> str:
    """Return a text with one edit carried out."""
    data = source.encode("utf-8")
    text = (data[: edit.begin] + edit.new.encode("utf-8") + data[edit.end :]).decode("utf-8")
    needs_math = edit.new.startswith("math.") and "import math" not in source
    return f"import math\n{text}" if needs_math else text


def edits(source: str) -> tuple[Edit, ...]:
    """Return every single mutation of a text, in text order; none where it does not parse."""
    tree = parsed(source)
    if not isinstance(tree, ast.Module):
        return ()
    data = source.encode("utf-8")
    place = _Places(data)
    found: list[Edit] = []
    for node in ast.walk(tree):
        found += _of_node(node, data, place)
    return tuple(sorted(found, key=lambda edit: (edit.begin, edit.end, edit.new)))


class _Places:
    """Byte offsets of nodes."""

    def __init__(self, data: bytes) -> None:
        self.starts = [0, *(found.end() for found in LINE_END.finditer(data))]

    def begin(self, node: ast.expr) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr) -> int:
        return self.starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)


def _of_node(node: ast.AST, data: bytes, place: _Places) -> Iterator[Edit]:
    # The interpreter runs no longer number, and Python writes none of more than 4300 digits.
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value.bit_length() <= BITS_MAX:
        begin, end = place.begin(node), place.end(node)
        # A number inside an f-string has no place of its own in Python 3.11.
        if data[begin:end].decode("utf-8", "replace") == str(node.value):
            for value in {node.value + 1, max(node.value - 1, 0)} - {node.value}:
                yield Edit(begin, end, str(value), "constant")
    elif isinstance(node, ast.Compare):
        for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            yield from _sign(place.end(left), place.begin(right), data, COMPARISONS, op, "comparison")
    elif isinstance(node, ast.BinOp):
        yield from _sign(place.end(node.left), place.begin(node.right), data, OPERATORS, node.op, "operator")
    elif isinstance(node, ast.BoolOp):
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from _sign(place.end(left), place.begin(right), data, OPERATORS, node.op, "operator")
    elif isinstance(node, ast.AugAssign):
        signs = {name: (f"{old}=", f"{new}=") for name, (old, new) in OPERATORS.items()}
        yield from _sign(place.end(node.target), place.begin(node.value), data, signs, node.op, "operator")
    elif isinstance(node, ast.Call):
        yield from _called(node, data, place)


def _sign(
    begin: int, end: int, data: bytes, signs: dict[str, tuple[str, str]], op: ast.AST, how: How
) -> Iterator[Edit]:
    """Yield the exchange of the sign between two operands, where nothing but brackets and blanks is beside it."""
    old, new = signs.get(type(op).__name__, ("", ""))
    gap = data[begin:end]
    at = gap.find(old.encode()) if old else -1
    if at >= 0 and gap.strip(b"() \t\r\n\\") == old.encode():
        yield Edit(begin + at, begin + at + len(old), new, how)


def _called(node: ast.Call, data: bytes, place: _Places) -> Iterator[Edit]:
    begin, end = place.begin(node.func), place.end(node.func)
    name = data[begin:end].decode("utf-8", "replace")
    if name in EXTREMES:
        yield Edit(begin, end, EXTREMES[name], "extreme")
    elif name == "sum":
        yield Edit(begin, end, "math.prod", "product")
    elif name in ("math.prod", "prod"):
        yield Edit(begin, end, "sum", "product")
