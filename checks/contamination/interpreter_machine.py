"""The machine of the interpreter: it walks the tree with a stack of its own.

Specification: contamination, section 6.7. Each piece of evaluation is a generator that hands what it needs to the
machine: a node with its scope, another generator, or a lazy iterator. So nesting in hostile code, or recursion, nests
nothing of Python's own, and a run does not depend on how deep its caller stands.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from types import GeneratorType
from typing import Any

from checks.contamination.interpreter_builtins import NATIVES
from checks.contamination.interpreter_limits import (
    DEPTH_MAX,
    ELEMENTS_MAX,
    MADE_PER_STEP,
    READ_PER_STEP,
    Meter,
    Raised,
    Undecided,
)
from checks.contamination.interpreter_scopes import Env, Scope
from checks.contamination.interpreter_values import (
    STOP,
    Function,
    Lazy,
    Mark,
    Method,
    Native,
    Produced,
    Run,
    host_iterator,
)

BREAK, CONTINUE = Mark(), Mark()
"""What a statement answers when its loop is to end or to go on."""


class Returned:
    """What a statement answers when its function is to end."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Machine:
    """One run of a program.

    Args:
        handlers: node class -> generator function of (machine, node, scope).
        meter: what the run may use.
        scopes: node -> scope, found before.
    """

    def __init__(
        self,
        handlers: dict[type[ast.AST], Callable[[Machine, Any, Env], Run]],
        meter: Meter,
        scopes: dict[ast.AST, Scope],
    ) -> None:
        self.handlers, self.meter, self.scopes = handlers, meter, scopes
        self.built_in: dict[str, Any] = dict(NATIVES)
        self.depth = 0

    def run(self, first: Run) -> Any:
        """Return the value of a piece of evaluation.

        Raises:
            Raised, Undecided: of the program.
            Exception: what Python's own operators raise on the program's values.
        """
        stack: list[Run] = [first]
        owners: list[Lazy | None] = [None]
        value: Any = None
        while stack:
            try:
                request = stack[-1].send(value)
            except StopIteration as end:
                stack.pop()
                owner = owners.pop()
                if owner is not None:
                    owner.busy, owner.done = False, True
                value = end.value
                continue
            kind = type(request)
            if kind is tuple:
                node, env = request
                value, run = self._entered(node, env)
                if run is not None:
                    stack.append(run)
                    owners.append(None)
            elif kind is Produced:
                stack.pop()
                owner = owners.pop()
                if owner is not None:
                    owner.busy = False
                value = request.value
            elif kind is Lazy:
                value = STOP
                if request.busy:
                    raise ValueError
                if not request.done:
                    self.meter.charge(1)
                    request.busy, value = True, None
                    stack.append(request.run)
                    owners.append(request)
            else:
                value = None
                stack.append(request)
                owners.append(None)
        return value

    def _entered(self, node: ast.AST, env: Env) -> tuple[Any, Run | None]:
        self.meter.charge(1)
        kind = type(node)
        if kind is ast.Constant:
            return node.value, None  # type: ignore[attr-defined]
        if kind is ast.Name:
            return env.look_up(node.id, self.built_in), None  # type: ignore[attr-defined]
        handler = self.handlers.get(kind)
        if handler is None:
            raise Undecided(kind.__name__)
        return None, handler(self, node, env)

    def iterator(self, value: Any) -> Any:
        """Return an iterator over a value of the program: a lazy one, or Python's own over a plain value."""
        return value if type(value) is Lazy else host_iterator(value, self.meter)

    def step(self, iterator: Any) -> Run:
        """Return the next element of an iterator, or STOP."""
        if type(iterator) is Lazy:
            return (yield iterator)
        self.meter.charge(1)
        return next(iterator, STOP)

    def items(self, value: Any) -> Run:
        """Return all elements of a value, as a list that is not to be changed."""
        kind = type(value)
        if kind in (list, tuple):
            self.meter.charge(len(value) // READ_PER_STEP)
            return value
        if kind is range:
            # Not len(): the length of a range may be larger than it can tell.
            if value and (value[-1] - value[0]) // value.step >= ELEMENTS_MAX:
                raise Undecided("limit:elements")
            self.meter.room(len(value), MADE_PER_STEP)
            return list(value)
        if kind is Lazy:
            held: list[Any] = []
            while (each := (yield value)) is not STOP:
                held.append(each)
                if len(held) > ELEMENTS_MAX:
                    raise Undecided("limit:elements")
            return held
        iterator = host_iterator(value, self.meter)
        self.meter.room(len(value), MADE_PER_STEP)
        return list(iterator)

    def call(self, function: Any, arguments: Sequence[Any], named: dict[str, Any] | None = None) -> Run:
        """Return the value of a call."""
        kind = type(function)
        if kind is Function:
            return (yield from self._call_own(function, arguments, named or {}))
        if kind is Native:
            result = function.call(self, *arguments, **(named or {}))
        elif kind is Method:
            result = function.call(self, function.receiver, *arguments, **(named or {}))
        else:
            raise TypeError
        return (yield result) if type(result) is GeneratorType else result

    def _call_own(self, function: Function, arguments: Sequence[Any], named: dict[str, Any]) -> Run:
        if self.depth >= DEPTH_MAX:
            raise Undecided("limit:depth")
        env = Env(function.scope, function.env, bound(function, arguments, named))
        self.depth += 1
        if isinstance(function.body, ast.AST):
            value = yield function.body, env
        else:
            answer = yield self.block(function.body, env)
            value = answer.value if type(answer) is Returned else None
        self.depth -= 1
        return value

    def block(self, body: Sequence[ast.AST], env: Env) -> Run:
        """Carry out statements; return None, or what ends the loop or function around them."""
        for statement in body:
            answer = yield statement, env
            if answer is not None:
                return answer
        return None


def bound(function: Function, arguments: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
    """Return parameters' values.

    Raises:
        Raised: the call does not fit the signature.
    """
    signature: ast.arguments = function.parameters
    positional = [each.arg for each in (*signature.posonlyargs, *signature.args)]
    values = dict(zip(positional, arguments, strict=False))
    if len(arguments) > len(positional) and signature.vararg is None:
        raise Raised("TypeError")
    if signature.vararg is not None:
        values[signature.vararg.arg] = tuple(arguments[len(positional) :])
    by_name = {each.arg for each in (*signature.args, *signature.kwonlyargs)}
    rest: dict[str, Any] = {}
    for name, value in named.items():
        if name in by_name and name not in values:
            values[name] = value
        elif name in by_name or signature.kwarg is None:
            raise Raised("TypeError")
        else:
            rest[name] = value
    if signature.kwarg is not None:
        values[signature.kwarg.arg] = rest
    defaults = dict(zip(reversed(positional), reversed(function.defaults), strict=False)) | function.keyword_defaults
    for name in (*positional, *(each.arg for each in signature.kwonlyargs)):
        if name not in values:
            if name not in defaults:
                raise Raised("TypeError")
            values[name] = defaults[name]
    return values
