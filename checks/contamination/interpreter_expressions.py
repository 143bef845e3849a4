"""Expressions of the interpreted subset. Specification: contamination, section 6.7."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from checks.contamination import interpreter_operators as operators
from checks.contamination.interpreter_comprehensions import COMPREHENDING
from checks.contamination.interpreter_formats import formatted, shown
from checks.contamination.interpreter_limits import MADE_PER_STEP, Undecided
from checks.contamination.interpreter_machine import Machine
from checks.contamination.interpreter_methods import method
from checks.contamination.interpreter_scopes import Env
from checks.contamination.interpreter_values import Function, Method, Module, Native, Run

CONVERSIONS = {-1: None, 115: "s", 114: "r", 97: "a"}
"""Codes of `ast.FormattedValue`: none, and the letters s, r, a."""


def bin_op(m: Machine, node: ast.BinOp, env: Env) -> Run:
    """Evaluate `a + b` and its like."""
    left = yield node.left, env
    right = yield node.right, env
    return operators.binary(m.meter, type(node.op).__name__, left, right)


def unary_op(m: Machine, node: ast.UnaryOp, env: Env) -> Run:
    """Evaluate `-a`, `+a`, `~a`, `not a`."""
    value = yield node.operand, env
    return operators.unary(m.meter, type(node.op).__name__, value)


def bool_op(m: Machine, node: ast.BoolOp, env: Env) -> Run:
    """Evaluate `and`, `or`: the first operand that decides."""
    wanted = isinstance(node.op, ast.Or)
    value = None
    for each in node.values:
        value = yield each, env
        if operators.truth(value) is wanted:
            return value
    return value


def compare(m: Machine, node: ast.Compare, env: Env) -> Run:
    """Evaluate a chain of comparisons."""
    left = yield node.left, env
    answer = True
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        right = yield comparator, env
        answer = operators.compare(m.meter, type(op).__name__, left, right)
        if not answer:
            return answer
        left = right
    return answer


def if_exp(m: Machine, node: ast.IfExp, env: Env) -> Run:
    """Evaluate `a if b else c`."""
    test = yield node.test, env
    return (yield (node.body if operators.truth(test) else node.orelse), env)


def named_expr(m: Machine, node: ast.NamedExpr, env: Env) -> Run:
    """Evaluate `(a := b)`."""
    value = yield node.value, env
    env.holder(node.target.id, walrus=True).names[node.target.id] = value
    return value


def elements(m: Machine, nodes: Sequence[ast.expr], env: Env) -> Run:
    """Return the values of elements, those with a star spread."""
    values: list[Any] = []
    for node in nodes:
        if isinstance(node, ast.Starred):
            spread = yield node.value, env
            more = yield m.items(spread)
            m.meter.room(len(values) + len(more))
            values.extend(more)
        else:
            values.append((yield node, env))
    return values


def list_display(m: Machine, node: ast.List, env: Env) -> Run:
    """Evaluate `[a, b]`."""
    return (yield elements(m, node.elts, env))


def tuple_display(m: Machine, node: ast.Tuple, env: Env) -> Run:
    """Evaluate `(a, b)`."""
    return tuple((yield elements(m, node.elts, env)))


def set_display(m: Machine, node: ast.Set, env: Env) -> Run:
    """Evaluate `{a, b}`."""
    values = yield elements(m, node.elts, env)
    m.meter.keys(values, 0)
    return set(values)


def dict_display(m: Machine, node: ast.Dict, env: Env) -> Run:
    """Evaluate `{a: b, **c}`."""
    made: dict[Any, Any] = {}
    for key_node, value_node in zip(node.keys, node.values, strict=True):
        key = None if key_node is None else (yield key_node, env)
        value = yield value_node, env
        if key_node is not None:
            operators.set_item(m.meter, made, key, value)
        elif type(value) is dict:
            m.meter.keys(value, len(made))
            made.update(value)
        else:
            raise TypeError
    return made


def subscript(m: Machine, node: ast.Subscript, env: Env) -> Run:
    """Evaluate `a[b]`, `a[b:c:d]`."""
    held = yield node.value, env
    index = yield node.slice, env
    return operators.item_of(m.meter, held, index)


def slice_of(m: Machine, node: ast.Slice, env: Env) -> Run:
    """Evaluate the bounds of a slice."""
    bounds = []
    for each in (node.lower, node.upper, node.step):
        bounds.append(None if each is None else (yield each, env))
    return slice(*bounds)


def attribute(m: Machine, node: ast.Attribute, env: Env) -> Run:
    """Evaluate `a.b`: a method from the allow-list, or a member of `math`."""
    held = yield node.value, env
    if type(held) is Module:
        if node.attr not in held.members:
            raise Undecided("Attribute")
        return held.members[node.attr]
    if type(held) is Native and held.name in ("str", "list", "dict", "set", "int", "float"):
        kind = {"str": str, "list": list, "dict": dict, "set": set, "int": int, "float": float}[held.name]
        if node.attr == "fromkeys":
            raise Undecided("Attribute")
        return Native(node.attr, _unbound(kind, node.attr))
    return Method(held, method(held, node.attr))


def _unbound(kind: type, name: str) -> Callable[..., Any]:
    call = method(kind(), name)

    def checked(m: Any, receiver: Any, *values: Any, **named: Any) -> Any:
        if type(receiver) is not kind:
            raise TypeError
        return call(m, receiver, *values, **named)

    return checked


def call(m: Machine, node: ast.Call, env: Env) -> Run:
    """Evaluate a call, with stars."""
    function = yield node.func, env
    arguments = yield elements(m, node.args, env)
    named: dict[str, Any] = {}
    for keyword in node.keywords:
        value = yield keyword.value, env
        pairs = {keyword.arg: value} if keyword.arg is not None else value
        if type(pairs) is not dict or not all(type(name) is str for name in pairs) or pairs.keys() & named.keys():
            raise TypeError
        m.meter.room(len(named) + len(pairs), MADE_PER_STEP)
        named.update(pairs)
    return (yield m.call(function, arguments, named))


def lambda_of(m: Machine, node: ast.Lambda, env: Env) -> Run:
    """Evaluate a lambda to a function."""
    return (yield function_of(m, node, node.body, env))


def function_of(m: Machine, node: ast.Lambda | ast.FunctionDef, body: Any, env: Env) -> Run:
    """Return a function, its defaults evaluated now."""
    defaults = yield elements(m, node.args.defaults, env)
    by_name: dict[str, Any] = {}
    for parameter, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if default is not None:
            by_name[parameter.arg] = yield default, env
    return Function(node.args, body, env, m.scopes[node], defaults, by_name)


def joined_str(m: Machine, node: ast.JoinedStr, env: Env) -> Run:
    """Evaluate an f-string."""
    parts: list[str] = []
    length = 0
    for each in node.values:
        parts.append((yield each, env))
        length += len(parts[-1])
        m.meter.letters(length, True)
    return "".join(parts)


def formatted_value(m: Machine, node: ast.FormattedValue, env: Env) -> Run:
    """Evaluate one field of an f-string."""
    value = yield node.value, env
    spec = "" if node.format_spec is None else (yield node.format_spec, env)
    return formatted(m.meter, shown(m.meter, value, CONVERSIONS[node.conversion]), spec)


EXPRESSIONS: dict[type[ast.AST], Any] = {
    **COMPREHENDING,
    ast.BinOp: bin_op, ast.UnaryOp: unary_op, ast.BoolOp: bool_op, ast.Compare: compare, ast.IfExp: if_exp,
    ast.NamedExpr: named_expr, ast.List: list_display, ast.Tuple: tuple_display, ast.Set: set_display,
    ast.Dict: dict_display, ast.Subscript: subscript, ast.Slice: slice_of, ast.Attribute: attribute, ast.Call: call,
    ast.Lambda: lambda_of, ast.JoinedStr: joined_str, ast.FormattedValue: formatted_value,
}  # fmt: skip
"""Node class -> its evaluation; constants and names are the machine's own."""
