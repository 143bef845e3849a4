"""Scopes of the interpreted subset: which names a function binds, and where a name is found."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from checks.contamination.interpreter_limits import Raised, Undecided
from checks.contamination.interpreter_values import Missing

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Scope:
    """Names that a function, a comprehension or the module binds."""

    bound: frozenset[str]
    global_names: frozenset[str] = frozenset()
    outer_names: frozenset[str] = frozenset()
    comprehension: bool = False


class Env:
    """Values of the names of one call, one comprehension, or the module."""

    __slots__ = ("names", "parent", "scope")

    def __init__(self, scope: Scope, parent: Env | None, names: dict[str, Any] | None = None) -> None:
        self.scope, self.parent = scope, parent
        self.names: dict[str, Any] = {} if names is None else names

    def look_up(self, name: str, built_in: dict[str, Any]) -> Any:
        """Return the value of a name.

        Raises:
            Raised: a local without a value yet.
            Undecided: no such name: a document that shows one function leaves others out.
        """
        env = self
        if name in env.scope.global_names:
            env = env.module()
        while True:
            if name in env.names:
                value = env.names[name]
                break
            if env.parent is None:
                if name not in built_in:
                    raise Undecided("Name")
                value = built_in[name]
                break
            if name in env.scope.bound:
                raise Raised("UnboundLocalError" if env is self else "NameError")
            env = env.parent
        if type(value) is Missing:
            raise Undecided(value.node)
        return value

    def holder(self, name: str, walrus: bool = False) -> Env:
        """Return the scope that an assignment to a name writes to."""
        env = self
        while walrus and env.scope.comprehension and env.parent is not None:
            env = env.parent
        if name in env.scope.global_names:
            return env.module()
        if name in env.scope.outer_names:
            outer = env.parent
            while outer is not None and outer.parent is not None:
                if name in outer.scope.bound:
                    return outer
                outer = outer.parent
            raise Undecided("Nonlocal")
        return env

    def module(self) -> Env:
        """Return the outermost scope."""
        env = self
        while env.parent is not None:
            env = env.parent
        return env


def parameters(arguments: ast.arguments) -> list[str]:
    """Return all names that a signature binds."""
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [each.arg for each in (*every, arguments.vararg, arguments.kwarg) if each is not None]


def function_scope(node: ast.FunctionDef | ast.Lambda) -> Scope:
    """Return the names that a function binds: its parameters, and what its body assigns."""
    body: list[ast.AST] = list(node.body) if isinstance(node, ast.FunctionDef) else [node.body]
    bound, global_names, outer_names = bindings(body)
    kept = (bound | set(parameters(node.args))) - global_names - outer_names
    return Scope(frozenset(kept), frozenset(global_names), frozenset(outer_names))


def comprehension_scope(generators: Iterable[ast.comprehension]) -> Scope:
    """Return the names that a comprehension's targets bind."""
    found = {node.id for each in generators for node in ast.walk(each.target) if isinstance(node, ast.Name)}
    return Scope(frozenset(found), comprehension=True)


def bindings(body: Iterable[ast.AST]) -> tuple[set[str], set[str], set[str]]:
    """Return the names that statements bind in their own scope, and those they declare global and nonlocal."""
    bound: set[str] = set()
    global_names: set[str] = set()
    outer_names: set[str] = set()
    stack = list(body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.Global):
            global_names.update(node.names)
        elif isinstance(node, ast.Nonlocal):
            outer_names.update(node.names)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        stack.extend(_inside(node))
    return bound, global_names, outer_names


def _inside(node: ast.AST) -> list[ast.AST]:
    """Return the children whose bindings belong to the same scope."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
        return []
    if isinstance(node, COMPREHENSIONS):
        # Only a walrus binds outside of a comprehension.
        walruses = [each.target for each in ast.walk(node) if isinstance(each, ast.NamedExpr)]
        return list(walruses)
    return list(ast.iter_child_nodes(node))
