"""Statements of the interpreted subset. Specification: contamination, section 6.7."""

from __future__ import annotations

import ast
import builtins
from typing import Any

from checks.contamination import interpreter_operators as operators
from checks.contamination.interpreter_comprehensions import assign
from checks.contamination.interpreter_expressions import function_of
from checks.contamination.interpreter_limits import Raised, Undecided
from checks.contamination.interpreter_machine import BREAK, CONTINUE, Machine, Returned
from checks.contamination.interpreter_math import MEMBERS
from checks.contamination.interpreter_scopes import Env
from checks.contamination.interpreter_values import STOP, Missing, Module, Run


def expression(m: Machine, node: ast.Expr, env: Env) -> Run:
    """Evaluate an expression for its effects."""
    yield node.value, env


def assignment(m: Machine, node: ast.Assign, env: Env) -> Run:
    """Carry out `a = b = c`."""
    value = yield node.value, env
    for target in node.targets:
        if type(target) is ast.Name:
            env.holder(target.id).names[target.id] = value
        else:
            yield assign(m, target, value, env)


def annotated(m: Machine, node: ast.AnnAssign, env: Env) -> Run:
    """Carry out `a: T = b`; the annotation is not evaluated."""
    if node.value is not None:
        value = yield node.value, env
        yield assign(m, node.target, value, env)


def augmented(m: Machine, node: ast.AugAssign, env: Env) -> Run:
    """Carry out `a += b`; the place is looked up once."""
    target, name = node.target, type(node.op).__name__
    held = index = None
    if isinstance(target, ast.Name):
        value = env.look_up(target.id, m.built_in)
    elif isinstance(target, ast.Subscript):
        held = yield target.value, env
        index = yield target.slice, env
        value = operators.item_of(m.meter, held, index)
    else:
        raise Undecided("Attribute")
    right = yield node.value, env
    if name == "Add" and type(value) is list:
        more = yield m.items(right)
        m.meter.room(len(value) + len(more), len(value) + len(more) + 1)
        m.meter.room(len(more))
        value.extend(more)
    else:
        value = operators.in_place(m.meter, name, value, right)
    if isinstance(target, ast.Name):
        env.holder(target.id).names[target.id] = value
    else:
        operators.set_item(m.meter, held, index, value)


def delete(m: Machine, node: ast.Delete, env: Env) -> Run:
    """Carry out `del a`, `del a[b]`."""
    for target in node.targets:
        if isinstance(target, ast.Name):
            env.look_up(target.id, m.built_in)
            if env.holder(target.id).names.pop(target.id, STOP) is STOP:
                raise Raised("NameError")
        elif isinstance(target, ast.Subscript):
            held = yield target.value, env
            index = yield target.slice, env
            operators.delete_item(m.meter, held, index)
        else:
            raise Undecided("Delete")


def conditional(m: Machine, node: ast.If, env: Env) -> Run:
    """Carry out `if`."""
    test = yield node.test, env
    for statement in node.body if operators.truth(test) else node.orelse:
        answer = yield statement, env
        if answer is not None:
            return answer
    return None


def for_loop(m: Machine, node: ast.For, env: Env) -> Run:
    """Carry out `for`, with its `else`."""
    source = yield node.iter, env
    iterator = m.iterator(source)
    name = node.target.id if isinstance(node.target, ast.Name) else None
    while (value := (yield from m.step(iterator))) is not STOP:
        if name is not None:
            env.holder(name).names[name] = value
        else:
            yield assign(m, node.target, value, env)
        answer = yield m.block(node.body, env)
        if answer is BREAK:
            return None
        if answer is not None and answer is not CONTINUE:
            return answer
    return (yield m.block(node.orelse, env))


def while_loop(m: Machine, node: ast.While, env: Env) -> Run:
    """Carry out `while`, with its `else`."""
    while operators.truth((yield node.test, env)):
        answer = yield m.block(node.body, env)
        if answer is BREAK:
            return None
        if answer is not None and answer is not CONTINUE:
            return answer
    return (yield m.block(node.orelse, env))


def loop_end(m: Machine, node: ast.Break | ast.Continue, env: Env) -> Run:
    """Carry out `break` and `continue`."""
    return BREAK if isinstance(node, ast.Break) else CONTINUE
    yield


def returning(m: Machine, node: ast.Return, env: Env) -> Run:
    """Carry out `return`."""
    return Returned(None if node.value is None else (yield node.value, env))


def nothing(m: Machine, node: ast.stmt, env: Env) -> Run:
    """Carry out `pass`; `global` and `nonlocal` are known from the scope."""
    return None
    yield


def definition(m: Machine, node: ast.FunctionDef, env: Env) -> Run:
    """Carry out `def`; decorators, and functions that yield, are outside the subset and harmless until called."""
    unknown = "decorator" if node.decorator_list else _yields(node)
    value = Missing(unknown) if unknown else (yield function_of(m, node, node.body, env))
    env.holder(node.name).names[node.name] = value


def _yields(node: ast.FunctionDef) -> str | None:
    stack: list[ast.AST] = list(node.body)
    while stack:
        inner = stack.pop()
        if isinstance(inner, (ast.Yield, ast.YieldFrom, ast.Await)):
            return type(inner).__name__
        if not isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            stack.extend(ast.iter_child_nodes(inner))
    return None


def unknown_definition(m: Machine, node: ast.ClassDef | ast.AsyncFunctionDef, env: Env) -> Run:
    """Bind a class or coroutine: outside the subset, harmless until it is used."""
    env.holder(node.name).names[node.name] = Missing(type(node).__name__)
    return None
    yield


def importing(m: Machine, node: ast.Import | ast.ImportFrom, env: Env) -> Run:
    """Bind `math` and its members; all else is outside the subset, harmless until it is used. Nothing is imported."""
    for alias in node.names:
        name = alias.asname or alias.name.partition(".")[0]
        value: Any = Missing(type(node).__name__)
        if isinstance(node, ast.Import) and alias.name == "math":
            value = Module(MEMBERS)
        elif isinstance(node, ast.ImportFrom) and node.module == "math" and not node.level:
            value = MEMBERS.get(alias.name, value)
            if alias.name == "*":
                raise Undecided("ImportFrom")
        env.holder(name).names[name] = value
    return None
    yield


def raising(m: Machine, node: ast.Raise, env: Env) -> Run:
    """Carry out `raise` of a built-in exception; its arguments are evaluated, its text is kept nowhere."""
    named = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    kind = getattr(builtins, named.id, None) if isinstance(named, ast.Name) else None
    if not (isinstance(named, ast.Name) and isinstance(kind, type) and issubclass(kind, Exception)):
        raise Undecided("Raise")
    if named.id in env.module().names:
        raise Undecided("Raise")
    if isinstance(node.exc, ast.Call):
        for argument in node.exc.args:
            yield argument, env
    raise Raised(named.id)


def asserting(m: Machine, node: ast.Assert, env: Env) -> Run:
    """Carry out `assert`."""
    if not operators.truth((yield node.test, env)):
        raise Raised("AssertionError")


STATEMENTS: dict[type[ast.AST], Any] = {
    ast.Expr: expression, ast.Assign: assignment, ast.AnnAssign: annotated, ast.AugAssign: augmented,
    ast.Delete: delete, ast.If: conditional, ast.For: for_loop, ast.While: while_loop, ast.Break: loop_end,
    ast.Continue: loop_end, ast.Return: returning, ast.Pass: nothing, ast.Global: nothing, ast.Nonlocal: nothing,
    ast.FunctionDef: definition, ast.AsyncFunctionDef: unknown_definition, ast.ClassDef: unknown_definition,
    ast.Import: importing, ast.ImportFrom: importing, ast.Raise: raising, ast.Assert: asserting,
}  # fmt: skip
"""Node class -> its execution. `try`, `with`, `match`, `yield` and `async` are outside the subset."""
