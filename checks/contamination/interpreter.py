"""Behaviour of a function from source that nobody trusts, without executing anything.

Specification: contamination, section 6.7. Corpus code is hostile: it is parsed to a tree and walked by an interpreter
of our own for a subset of Python (numbers, texts, lists, tuples, dictionaries, sets, slices, comprehensions, loops,
conditions, functions, recursion, lambdas, f-strings, and built-ins, methods and functions of `math` from an
allow-list). Nothing of it reaches exec, eval or a compiler. What is outside the subset, or over a limit, is
`undecided`, with a name of ours.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from checks.contamination.code_parsing import parsed
from checks.contamination.interpreter_expressions import EXPRESSIONS
from checks.contamination.interpreter_limits import (
    BITS_MAX,
    DEPTH_MAX,
    ELEMENTS_MAX,
    STEPS_MAX,
    Meter,
    Raised,
    Undecided,
)
from checks.contamination.interpreter_machine import Machine
from checks.contamination.interpreter_scopes import (
    COMPREHENSIONS,
    Env,
    Scope,
    comprehension_scope,
    function_scope,
)
from checks.contamination.interpreter_statements import STATEMENTS
from checks.contamination.interpreter_values import Function, Missing, Run, plain

HANDLERS = EXPRESSIONS | STATEMENTS

RAISED = (ArithmeticError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError)
"""What Python's own operators raise on a program's values; a container that changes under its loop is one of them."""


@dataclass(frozen=True)
class Outcome:
    """What a call came to: exactly one of a value, an error and `undecided`."""

    value: Any = None
    """Plain Python value; meaningful where the other two are None."""
    error: str | None = None
    """Name of the built-in exception that the program raised."""
    undecided: str | None = None
    """Class of the node, or limit, that the interpreter stopped at; never a name from the program."""
    steps: int = 0
    """Steps used."""

    @property
    def word(self) -> Literal["value", "error", "undecided"]:
        """Return which of the three it is."""
        if self.undecided is not None:
            return "undecided"
        return "value" if self.error is None else "error"


@dataclass(frozen=True)
class Program:
    """Parsed source, and the scopes of its functions."""

    tree: ast.Module
    scopes: dict[ast.AST, Scope]


def program(source: str) -> Program | str:
    """Return a program that can be run many times, or why the source is none; never raises on any source."""
    tree = parsed(source)
    if isinstance(tree, str):
        return tree
    scopes: dict[ast.AST, Scope] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            scopes[node] = function_scope(node)
        elif isinstance(node, COMPREHENSIONS):
            scopes[node] = comprehension_scope(node.generators)
        elif isinstance(node, ast.Constant) and (fault := _constant_fault(node.value)):
            return fault
    return Program(tree, scopes)


def _constant_fault(value: object) -> str | None:
    if type(value) is int and value.bit_length() > BITS_MAX:
        return "limit:bits"
    if type(value) is str and len(value) > ELEMENTS_MAX:
        return "limit:elements"
    return None if value is None or type(value) in (int, float, bool, str) or value is ... else type(value).__name__


def interpret(source: str | Program, entry: str, args: Sequence[Any], steps: int = STEPS_MAX) -> Outcome:
    """Return what `entry(*args)` comes to, after the module's statements.

    Args:
        source: Python source of any origin, or a program made of it.
        entry: name of the function.
        args: plain values: None, bool, int, float, str, list, tuple, dict, set; copied, never changed.
        steps: at most so many.

    Raises:
        ValueError: an argument is not a plain value or is over a limit ("argument:2:not_plain"): the caller's fault.
    """
    copies = [_copied(number, value) for number, value in enumerate(args)]
    held = program(source) if isinstance(source, str) else source
    if isinstance(held, str):
        return Outcome(undecided=held)
    meter = Meter(steps)
    machine = Machine(HANDLERS, meter, held.scopes)
    try:
        return Outcome(machine.run(_main(machine, held.tree, entry, copies)), steps=steps - meter.left)
    except Undecided as outside:
        return Outcome(undecided=outside.name, steps=steps - meter.left)
    except (MemoryError, RecursionError):
        return Outcome(undecided="limit:depth", steps=steps - meter.left)
    except (Raised, *RAISED) as failed:
        name = failed.name if isinstance(failed, Raised) else type(failed).__name__
        return Outcome(error=name, steps=steps - meter.left)


def _main(machine: Machine, tree: ast.Module, entry: str, args: list[Any]) -> Run:
    module = Env(Scope(frozenset()), None, {"__name__": "module"})
    answer = yield machine.block(tree.body, module)
    if answer is not None:
        raise Undecided("Return")
    function = module.names.get(entry)
    if type(function) is Missing:
        raise Undecided(function.node)
    if type(function) is not Function:
        raise Undecided("entry")
    value = yield machine.call(function, args)
    return plain(value, machine.meter)


def _copied(number: int, value: Any, depth: int = 0) -> Any:
    """Return a copy of an argument, checked against the limits that hold for the program's own values."""
    kind = type(value)
    if value is None or kind in (bool, float):
        return value
    within = depth <= DEPTH_MAX and not (kind is int and value.bit_length() > BITS_MAX)
    if not within or (kind in (str, list, tuple, dict, set) and len(value) > ELEMENTS_MAX):
        raise ValueError(f"argument:{number + 1}:over_limit")
    if kind in (int, str):
        return value
    if kind in (list, tuple, set):
        return kind(_copied(number, each, depth + 1) for each in value)
    if kind is dict:
        return {_copied(number, key, depth + 1): _copied(number, each, depth + 1) for key, each in value.items()}
    raise ValueError(f"argument:{number + 1}:not_plain")
