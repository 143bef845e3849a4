"""Rewrites of code items, to be planted: a scan's recall on code is measured on them (contamination, 6.7, 6.11).

Depth 0 is the reference itself, 1 the same tokens in another layout, 2 other names, 3 other statements too. A rewrite
from depth 2 on is kept only where the interpreter finds that it returns what the reference returns.
"""

from __future__ import annotations

import ast
import builtins
import keyword
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from checks.contamination.code_behaviour import Reference, behaviour, reference
from checks.contamination.code_canonical import near
from checks.contamination.code_parsing import parsed
from checks.contamination.code_plants_statements import restated
from checks.contamination.functions import WORDS, entry_function, tokens
from checks.contamination.interpreter_scopes import bindings
from checks.contamination.rewriter import rewrite

if TYPE_CHECKING:
    import numpy as np

    from checks.contamination.items import Item

LOCALS = (
    "acc", "amount", "arr", "base", "bits", "block", "bound", "chunk", "current", "cut", "data", "edge", "entry",
    "extra", "field", "first_one", "given", "group", "head", "held", "idx", "left_part", "level", "mark", "member",
    "nxt", "obj", "out_value", "pair", "part", "piece", "prev", "quota", "rest", "right_part", "row", "seen_one",
    "seq", "slot", "tail", "temp", "term", "thing", "unit", "val", "width",
)  # fmt: skip
"""Names of a rewrite's locals: what people call them. Own list."""

VERBS = ("compute", "find", "get", "make", "run", "solve", "work_out")
"""First words of a rewrite's name; the item's own words follow in another order."""

REMARKS = ("# next step", "# as described above", "# see the task", "# keep going", "# main part")
"""Comments that say nothing of what the code does. Own list."""

REMARK_SHARE = 0.4
"""Share of statements that a comment or an empty line is put above at depth 1: most functions get two or more."""


def code_rewrites(item: Item, rng: np.random.Generator) -> dict[int, str]:
    """Return rewrites of a code item by depth, each its question above a fenced block.

    Depths that cannot be made safely are left out: all but 0 where the reference does not parse, 2 and 3 where its
    behaviour cannot be compared with, 3 where no statement can be said otherwise.

    Args:
        item: of kind code, in Python, with its reference.
        rng: the plan's stream "plants".

    Raises:
        ValueError: the item has no Python reference.
    """
    source, entry = item.reference, item.entry
    if item.kind != "code" or item.language.lower() != "python" or source is None or entry is None:
        raise ValueError("an item without a Python reference has no rewrites of it")
    made = {0: _fenced(item.question, source)}
    own = entry_function(source, entry)
    if own is None:
        return made
    laid = _laid_out(source, rng)
    if laid is not None:
        made[1] = _fenced(item.question, laid)
    expected = reference(item)
    if not isinstance(expected, Reference):
        return made
    question = item.question if "def " in item.question else rewrite(item.question, 2, rng) or item.question
    renamed = _renamed(source, entry, rng)
    if renamed is None or behaviour(expected, *renamed).verdict != "same":
        return made
    made[2] = _fenced(question, renamed[0])
    for _ in range(TRIES):
        text = restated(renamed[0], rng)
        other = None if text is None else entry_function(text, renamed[1])
        if text is None or other is None or near(own.canonical, other.canonical):
            continue
        if behaviour(expected, text, renamed[1]).verdict == "same":
            made[3] = _fenced(question, text)
            break
    return made


TRIES = 4
"""Draws for a depth-3 rewrite that behaves the same and is no near copy: a draw takes another set of changes."""


def _fenced(question: str, source: str) -> str:
    return f"{question}\n\n```python\n{source.rstrip()}\n```"


def _laid_out(source: str, rng: np.random.Generator) -> str | None:
    """Return the source with comments and empty lines between its statements; None where a token would change."""
    tree = parsed(source)
    if not isinstance(tree, ast.Module):
        return None
    lines = source.splitlines()
    starts = {
        node.lineno: node.col_offset
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and not lines[node.lineno - 1][: node.col_offset].strip()
    }
    told: list[str] = []
    for number, line in enumerate(lines, 1):
        if number in starts and rng.random() < REMARK_SHARE:
            remark = REMARKS[int(rng.integers(len(REMARKS)))]
            told.append("" if rng.random() < 0.5 else " " * starts[number] + remark)
        told.append(line)
    text = "\n".join(told) + f"\n{REMARKS[0]}\n"
    return text if tokens(text) == tokens(source) else None


def _renamed(source: str, entry: str, rng: np.random.Generator) -> tuple[str, str] | None:
    """Return the source with its functions, arguments and locals under other names, and the entry's new name."""
    tree = parsed(source)
    if not isinstance(tree, ast.Module):
        return None
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    arguments = [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    inside = [name for node in functions for name in sorted(bindings(node.body)[0])]
    stored = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    imported = {each.asname or each.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, IMPORTS)
                for each in node.names}  # fmt: skip
    wanted = [*arguments, *inside, *stored, *(node.name for node in functions)]
    names = [name for name in dict.fromkeys(wanted) if name not in imported and not name.startswith("__")]
    taken = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)} | set(names) | imported
    new = dict(zip(names, _fresh(len(names), taken, rng), strict=True))
    new[entry] = _verbed(entry, taken | set(new.values()), rng)
    _Renaming(new, {node.name for node in functions}).visit(tree)
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n", new[entry]


IMPORTS = (ast.Import, ast.ImportFrom)


def _fresh(count: int, taken: Iterable[str], rng: np.random.Generator) -> list[str]:
    held = {*taken, *keyword.kwlist, *dir(builtins)}
    pool = [LOCALS[int(at)] for at in rng.permutation(len(LOCALS))]
    rounds = ("" if turn == 0 else f"_{turn + 1}" for turn in range(count + len(held) + 1))
    names = (f"{name}{end}" for end in rounds for name in pool if f"{name}{end}" not in held)
    return [next(names) for _ in range(count)]


def _verbed(entry: str, taken: Iterable[str], rng: np.random.Generator) -> str:
    words: Sequence[str] = [word.lower() for word in WORDS.findall(entry) if not word.isdigit()]
    name = "_".join((VERBS[int(rng.integers(len(VERBS)))], *reversed(words)))
    held = {*taken, *dir(builtins)}
    return next(one for one in (name, *(f"{name}_{at}" for at in range(2, len(held) + 3))) if one not in held)


class _Renaming(ast.NodeTransformer):
    """Gives names of the source other ones; names of attributes, imports and built-in functions stay."""

    def __init__(self, new: dict[str, str], functions: set[str]) -> None:
        self._new, self._functions = new, functions

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._new.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        self.generic_visit(node)
        node.arg = self._new.get(node.arg, node.arg)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = self._new.get(node.name, node.name)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in self._functions:
            for each in node.keywords:
                each.arg = None if each.arg is None else self._new.get(each.arg, each.arg)
        self.generic_visit(node)
        return node

    def visit_Global(self, node: ast.Global) -> ast.AST:
        node.names = [self._new.get(name, name) for name in node.names]
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        node.names = [self._new.get(name, name) for name in node.names]
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        self.generic_visit(node)
        node.name = None if node.name is None else self._new.get(node.name, node.name)
        return node
