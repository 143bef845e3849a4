"""Statements of a function said otherwise: the last step of a code rewrite (contamination, 6.7, 6.11).

Each change keeps what natural code does; whether a rewrite as a whole does is found by interpreting it, not here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

from checks.contamination.code_parsing import parsed

if TYPE_CHECKING:
    import numpy as np

SHARE = 0.8
"""Share of the places where a change fits that are changed: most, and not the same in every draw."""

OPPOSITE = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq}
"""Comparison -> the one that says the same with its sides exchanged."""


def restated(source: str, rng: np.random.Generator) -> str | None:
    """Return a source with some statements said otherwise and independent ones exchanged; None where none fits.

    Comprehensions that are assigned or returned become loops; branches of an `if` change places; comparisons are
    turned; returned expressions get a name; loops over a sequence count; neighbouring plain beginnings are exchanged.

    Args:
        source: within the limits of `code_parsing`.
        rng: which places are changed.
    """
    tree = parsed(source)
    if not isinstance(tree, ast.Module):
        return None
    before = ast.dump(tree)
    change = _Restating(rng, {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
    tree = change.visit(tree)
    return None if ast.dump(tree) == before else ast.unparse(ast.fix_missing_locations(tree)) + "\n"


class _Restating(ast.NodeTransformer):
    def __init__(self, rng: np.random.Generator, taken: set[str]) -> None:
        self._rng, self._taken = rng, taken

    def _drawn(self) -> bool:
        return bool(self._rng.random() < SHARE)

    def _name(self, stem: str) -> str:
        names = (stem if at == 1 else f"{stem}_{at}" for at in count(1))
        name = next(one for one in names if one not in self._taken)
        self._taken.add(name)
        return name

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.body = self._exchanged(node.body)
        return node

    def _exchanged(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Return the statements with neighbouring assignments of plain values in the other order."""
        told = list(body)
        at = 0
        while at + 1 < len(told):
            first, second = _plain(told[at]), _plain(told[at + 1])
            if first and second and first != second and self._drawn():
                told[at], told[at + 1] = told[at + 1], told[at]
                at += 1
            at += 1
        return told

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) == 1 and type(node.ops[0]) in OPPOSITE and self._drawn():
            return ast.Compare(node.comparators[0], [OPPOSITE[type(node.ops[0])]()], [node.left])
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        if node.orelse and not isinstance(node.orelse[0], ast.If) and self._drawn():
            return ast.If(ast.UnaryOp(ast.Not(), node.test), node.orelse, node.body)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        return ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.orelse, node.body) if self._drawn() else node

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        counted = isinstance(node.iter, ast.Call) and getattr(node.iter.func, "id", "") in ("range", "enumerate")
        if counted or not self._drawn():
            return node
        place = ast.Name(self._name("turn"), ast.Store())
        node.target = ast.Tuple([place, node.target], ast.Store())
        node.iter = ast.Call(ast.Name("enumerate", ast.Load()), [node.iter], [])
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.target, ast.Name) or not self._drawn():
            return node
        return ast.Assign([node.target], ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value))

    def visit_Return(self, node: ast.Return) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if node.value is None or isinstance(node.value, (ast.Name, ast.Constant)) or not self._drawn():
            return node
        name = self._name("answer")
        told = ast.Return(ast.Name(name, ast.Load()))
        return [*_assigned(name, node.value), told]

    def visit_Assign(self, node: ast.Assign) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        target = node.targets[0]
        own = {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
        # A comprehension that reads the name it is given cannot be built up under that name.
        if len(node.targets) > 1 or not isinstance(target, ast.Name) or target.id in own or not self._drawn():
            return node
        return list(_assigned(target.id, node.value))


def _assigned(name: str, value: ast.expr) -> Iterator[ast.stmt]:
    """Yield the statements that give a value a name, a list, set or dict comprehension as a loop."""
    loop = _loop(name, value)
    if loop is None:
        yield ast.Assign([ast.Name(name, ast.Store())], value)
        return
    yield from loop


def _loop(name: str, value: ast.expr) -> Sequence[ast.stmt] | None:
    held = ast.Name(name, ast.Load())
    empty: ast.expr
    step: ast.stmt
    if isinstance(value, ast.ListComp):
        empty, step = ast.List([], ast.Load()), _called(held, "append", value.elt)
    elif isinstance(value, ast.SetComp):
        empty, step = ast.Call(ast.Name("set", ast.Load()), [], []), _called(held, "add", value.elt)
    elif isinstance(value, ast.DictComp):
        empty = ast.Dict([], [])
        step = ast.Assign([ast.Subscript(held, value.key, ast.Store())], value.value)
    elif _sums(value):
        assert isinstance(value, ast.Call)
        value = value.args[0]
        assert isinstance(value, ast.GeneratorExp)
        total = ast.BinOp(held, ast.Add(), value.elt)
        empty, step = ast.Constant(0), ast.Assign([ast.Name(name, ast.Store())], total)
    else:
        return None
    for each in reversed(value.generators):
        if each.is_async:
            return None
        for test in reversed(each.ifs):
            step = ast.If(test, [step], [])
        step = ast.For(each.target, each.iter, [step], [])
    return ast.Assign([ast.Name(name, ast.Store())], empty), step


def _sums(value: ast.expr) -> bool:
    """Return whether an expression is the sum of a generator."""
    called = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "sum"
    return called and len(value.args) == 1 and isinstance(value.args[0], ast.GeneratorExp)  # type: ignore[attr-defined]


def _called(held: ast.expr, method: str, value: ast.expr) -> ast.stmt:
    return ast.Expr(ast.Call(ast.Attribute(held, method, ast.Load()), [value], []))


def _plain(node: ast.stmt) -> str | None:
    """Return the name that a statement gives a plain or empty value; None of any other statement."""
    if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
        return None
    value = node.value
    plain = isinstance(value, ast.Constant) or (isinstance(value, (ast.List, ast.Tuple)) and not value.elts)
    return node.targets[0].id if plain or (isinstance(value, ast.Dict) and not value.keys) else None
