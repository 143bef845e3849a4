"""Comprehensions of the interpreted subset, and the binding of targets. Specification: contamination, section 6.7."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from checks.contamination import interpreter_operators as operators
from checks.contamination.interpreter_limits import ELEMENTS_MAX, Undecided
from checks.contamination.interpreter_machine import Machine
from checks.contamination.interpreter_scopes import Env
from checks.contamination.interpreter_values import STOP, Lazy, Produced, Run


def _comprehension(m: Machine, node: Any, env: Env, first: Any, parts: Sequence[ast.expr]) -> Run:
    """Produce the elements of a comprehension; its loops are a stack here, so that many nest nothing."""
    inner = Env(m.scopes[node], env)
    iterators = [first]
    while iterators:
        value = yield from m.step(iterators[-1])
        if value is STOP:
            iterators.pop()
            continue
        clause = node.generators[len(iterators) - 1]
        if isinstance(clause.target, ast.Name):
            inner.names[clause.target.id] = value
        else:
            yield assign(m, clause.target, value, inner)
        for condition in clause.ifs:
            if not operators.truth((yield condition, inner)):
                break
        else:
            if len(iterators) < len(node.generators):
                iterators.append(m.iterator((yield node.generators[len(iterators)].iter, inner)))
                continue
            made = []
            for part in parts:
                made.append((yield part, inner))
            yield Produced(made[0] if len(made) == 1 else made)
    return STOP


def _begun(m: Machine, node: Any, env: Env, parts: Sequence[ast.expr]) -> Run:
    if any(clause.is_async for clause in node.generators):
        raise Undecided("comprehension")
    source = yield node.generators[0].iter, env
    return Lazy(_comprehension(m, node, env, m.iterator(source), parts))


def generator_exp(m: Machine, node: ast.GeneratorExp, env: Env) -> Run:
    """Evaluate a generator expression: nothing but its first iterable yet."""
    return (yield _begun(m, node, env, (node.elt,)))


def list_comp(m: Machine, node: ast.ListComp, env: Env) -> Run:
    """Evaluate `[a for b in c]`."""
    return (yield m.items((yield _begun(m, node, env, (node.elt,)))))


def set_comp(m: Machine, node: ast.SetComp, env: Env) -> Run:
    """Evaluate `{a for b in c}`."""
    made: set[Any] = set()
    lazy = yield _begun(m, node, env, (node.elt,))
    while (value := (yield lazy)) is not STOP:
        m.meter.key(value, len(made))
        made.add(value)
        m.meter.room(len(made), ELEMENTS_MAX)
    return made


def dict_comp(m: Machine, node: ast.DictComp, env: Env) -> Run:
    """Evaluate `{a: b for c in d}`."""
    made: dict[Any, Any] = {}
    lazy = yield _begun(m, node, env, (node.key, node.value))
    while (pair := (yield lazy)) is not STOP:
        operators.set_item(m.meter, made, pair[0], pair[1])
    return made


def assign(m: Machine, target: ast.expr, value: Any, env: Env) -> Run:
    """Bind a target: a name, an element, or a pattern of them."""
    m.meter.charge(1)
    if isinstance(target, ast.Name):
        env.holder(target.id).names[target.id] = value
    elif isinstance(target, ast.Subscript):
        held = yield target.value, env
        index = yield target.slice, env
        if type(index) is slice and type(held) is list:
            value = yield m.items(value)
        operators.set_item(m.meter, held, index, value)
    elif isinstance(target, (ast.Tuple, ast.List)):
        values = yield m.items(value)
        yield _unpacked(m, target.elts, values, env)
    else:
        raise Undecided(type(target).__name__)


def _unpacked(m: Machine, targets: Sequence[ast.expr], values: Sequence[Any], env: Env) -> Run:
    stars = [number for number, each in enumerate(targets) if isinstance(each, ast.Starred)]
    after = len(targets) - stars[0] - 1 if stars else 0
    if len(values) < len(targets) - len(stars) or (not stars and len(values) > len(targets)):
        raise ValueError
    # A copy: the targets may change the list that is being taken apart.
    held = list(values)
    for number, target in enumerate(targets):
        if isinstance(target, ast.Starred):
            yield assign(m, target.value, held[number : len(held) - after], env)
        elif stars and number > stars[0]:
            yield assign(m, target, held[len(held) - len(targets) + number], env)
        else:
            yield assign(m, target, held[number], env)


COMPREHENDING: dict[type[ast.AST], Any] = {
    ast.GeneratorExp: generator_exp, ast.ListComp: list_comp, ast.SetComp: set_comp, ast.DictComp: dict_comp,
}  # fmt: skip
"""Node class -> its evaluation."""
