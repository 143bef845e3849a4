"""Canonical trees of functions: what stays when names and spelling are taken away.

Specification: contamination, section 6.7, points 2 and 3. Two functions are near copies where their canonical texts are
equal; their k-gram fingerprints, winnowed after Schleimer, Wilkerson and Aiken (2003), make candidates.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from checks.contamination.interpreter_scopes import (
    COMPREHENSIONS,
    bindings,
    comprehension_scope,
    function_scope,
)

NODES_MIN = 25
"""Nodes of the smallest function that a near match may be claimed for (section 6.7): smaller ones are idioms."""

GRAM = 5
"""Labels of a k-gram (section 6.7)."""

WINDOW = 4
"""K-grams of which winnowing keeps the least (section 6.7)."""

CONTAINMENT_MIN = 0.6
"""Share of an item's fingerprints that makes a candidate (section 6.7)."""

FLIPPED = {"Gt": "Lt", "GtE": "LtE"}
"""Comparisons that are written the other way round, their sides exchanged."""

UNSAID = frozenset({"ctx", "kind", "type_comment", "annotation", "returns", "decorator_list", "simple"})
"""Fields that say nothing of what a function does."""


@dataclass(frozen=True)
class Canonical:
    """A function without its names and spelling."""

    digest: str
    """SHA-256 of the canonical tree; equal for near copies."""
    nodes: int
    """Nodes of that tree."""
    fingerprints: frozenset[int]
    """Winnowed hashes of 5-grams of its labels, 64 bits each."""


def canonical(function: ast.FunctionDef) -> Canonical:
    """Return a function's canonical form.

    Args:
        function: of a tree within the limits of `code_parsing`.
    """
    writer = _Writer()
    writer.function(function)
    digest = hashlib.sha256("\x1f".join(writer.words).encode("utf-8", "surrogatepass")).hexdigest()
    return Canonical(digest, writer.nodes, fingerprints(writer.labels))


def near(one: Canonical, other: Canonical) -> bool:
    """Return whether two functions are near copies."""
    return one.digest == other.digest and one.nodes >= NODES_MIN


def containment(item: Canonical, other: Canonical) -> float:
    """Return the share of the item's fingerprints that another function has; 0 where the item has none."""
    if not item.fingerprints:
        return 0.0
    return len(item.fingerprints & other.fingerprints) / len(item.fingerprints)


def fingerprints(labels: Sequence[str]) -> frozenset[int]:
    """Return the winnowed hashes of all 5-grams: of each 4 in a row the least.

    Any run of 8 labels that two sequences share gives them a common fingerprint.
    """
    grams = ("\x1f".join(labels[at : at + GRAM]) for at in range(len(labels) - GRAM + 1))
    hashes = [
        int.from_bytes(hashlib.blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        for gram in grams
    ]
    windows = range(max(len(hashes) - WINDOW + 1, 1 if hashes else 0))
    return frozenset(min(hashes[at : at + WINDOW]) for at in windows)


class _Writer:
    """Writes a tree as words; recursion is bounded by the depth that `code_parsing` allows."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.labels: list[str] = []
        self.nodes = 0
        self.scopes: list[dict[str, str]] = []
        self.named = 0

    def function(self, node: ast.FunctionDef) -> None:
        """Write the function itself; its own name is its first local."""
        self.scopes.append({})
        self._bind({node.name})
        self._definition(node)

    def write(self, node: ast.AST) -> None:
        """Write a node and what is below it."""
        if isinstance(node, ast.Name):
            self._node(node)
            self._name(node.id)
        elif isinstance(node, ast.Constant):
            self._node(node)
            self._word(f"{type(node.value).__name__} {_literal(node.value)}", type(node.value).__name__)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._definition(node)
        elif isinstance(node, ast.Lambda):
            self._node(node)
            self._inside(function_scope(node).bound, [node.args, node.body])
        elif isinstance(node, COMPREHENSIONS):
            self._node(node)
            parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            self._inside(comprehension_scope(node.generators).bound, [*node.generators, *parts])
        elif isinstance(node, ast.Compare):
            self._comparison(node)
        elif isinstance(node, ast.AugAssign):
            # x += y is x = x + y.
            self.write(ast.Assign([node.target], ast.BinOp(node.target, node.op, node.value)))
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self.write(ast.Assign([node.target], node.value))
        else:
            self._node(node)
            self._fields(node)

    def _node(self, node: ast.AST) -> None:
        self.nodes += 1
        self._word(type(node).__name__)

    def _word(self, word: str, label: str | None = None) -> None:
        self.words.append(word)
        self.labels.append(word if label is None else label)

    def _name(self, name: str) -> None:
        for scope in reversed(self.scopes):
            if name in scope:
                if not scope[name]:
                    scope[name] = f"${self.named}"
                    self.named += 1
                return self._word(scope[name], "$")
        return self._word(name)

    def _bind(self, names: Iterable[str]) -> None:
        for name in names:
            self.scopes[-1].setdefault(name, "")

    def _inside(self, names: Iterable[str], nodes: Iterable[ast.AST]) -> None:
        self.scopes.append({})
        self._bind(names)
        for node in nodes:
            self.write(node)
        self.scopes.pop()

    def _definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._node(node)
        self._name(node.name)
        bound, global_names, outer_names = bindings(node.body)
        arguments = [each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)]
        self._inside((bound | set(arguments)) - global_names - outer_names, [node.args, *_said(node.body)])

    def _comparison(self, node: ast.Compare) -> None:
        names = [type(op).__name__ for op in node.ops]
        sides = [node.left, *node.comparators]
        # A chain is turned as a whole, or not at all.
        if all(name in FLIPPED for name in names):
            names, sides = [FLIPPED[name] for name in reversed(names)], sides[::-1]
        self._node(node)
        self.nodes += len(names)
        for name in names:
            self._word(name)
        for side in sides:
            self.write(side)

    def _fields(self, node: ast.AST) -> None:
        for name, value in ast.iter_fields(node):
            if name in UNSAID or value is None:
                continue
            if isinstance(value, ast.AST):
                self.write(value)
            elif isinstance(value, list):
                self._list(name, value)
            elif name in ("arg", "id", "asname") or (name == "name" and isinstance(node, ast.ExceptHandler)):
                # The name of a keyword in a call belongs to the function that is called.
                self._word(str(value)) if isinstance(node, ast.keyword) else self._name(str(value))
            else:
                self._word(str(value))

    def _list(self, name: str, values: list[object]) -> None:
        said = _said(values)
        self.words.append(f"{name} {len(said)}")
        for value in said:
            if isinstance(value, ast.AST):
                self.write(value)
            elif value is None:
                self._word("None")
            else:
                self._name(str(value))


def _literal(value: object) -> str:
    # Python writes no whole number of more than 4300 digits in decimals, and raises.
    return hex(value) if type(value) is int else repr(value)


def _said(values: Iterable[object]) -> list[ast.AST]:
    """Return the parts that do something: no docstring, `pass`, or annotation without a value."""
    return [value for value in values if not _idle(value)]  # type: ignore[misc]


def _idle(value: object) -> bool:
    if isinstance(value, ast.Expr):
        return isinstance(value.value, ast.Constant) and type(value.value.value) is str
    return isinstance(value, ast.Pass) or (isinstance(value, ast.AnnAssign) and value.value is None)
