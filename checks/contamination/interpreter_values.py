"""What the interpreter's variables may hold besides Python's plain values, and how values print and iterate."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from checks.contamination.interpreter_limits import CONTAINERS, FLAT, SCALARS, Meter, Undecided

Run = Generator[Any, Any, Any]
"""A piece of evaluation: it asks for what it needs, and returns its value."""

PLAIN = (int, float, bool, type(None), str)


class Function:
    """A function or lambda of the program."""

    __slots__ = ("body", "defaults", "env", "keyword_defaults", "parameters", "scope")

    def __init__(
        self, parameters: Any, body: Any, env: Any, scope: Any, defaults: Any, keyword_defaults: dict[str, Any]
    ) -> None:
        self.parameters, self.body, self.env, self.scope = parameters, body, env, scope
        self.defaults, self.keyword_defaults = defaults, keyword_defaults


class Native:
    """A built-in function or type, by our own code."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.name, self.call = name, call


class Method:
    """A method of a value, taken but not yet called."""

    __slots__ = ("call", "receiver")

    def __init__(self, receiver: Any, call: Callable[..., Any]) -> None:
        self.receiver, self.call = receiver, call


class Lazy:
    """An iterator of the program: a generator expression, map, filter, zip, enumerate, reversed or iter."""

    __slots__ = ("busy", "done", "run")

    def __init__(self, run: Run) -> None:
        self.run, self.busy, self.done = run, False, False


class Module:
    """The module `math`; the only one whose attributes can be read."""

    __slots__ = ("members",)

    def __init__(self, members: dict[str, Any]) -> None:
        self.members = members


class Missing:
    """A name that was bound to something outside the subset: harmless until it is used."""

    __slots__ = ("node",)

    def __init__(self, node: str) -> None:
        self.node = node


class Mark:
    """A constant of the machine that no program can hold."""

    __slots__ = ()


STOP = Mark()
"""The end of an iterator."""


class Produced:
    """An element that a lazy iterator hands on."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def ordered(value: Any, meter: Meter) -> list[Any]:
    """Return the elements of a set in an order that no process's hash seed decides.

    Sets of numbers keep Python's order, which is the same in each process. Others have none there: they are sorted.
    """
    meter.weigh(value)
    if all(type(each) in (int, float, bool) for each in value):
        return list(value)
    # Writing an element takes about as long as a step.
    meter.charge(len(value))
    texts = {each: f"{type(each).__name__} {representation(each, meter)}" for each in value}
    return sorted(value, key=texts.__getitem__)


def representation(value: Any, meter: Meter) -> str:
    """Return `repr(value)` as Python writes it."""
    meter.weigh(value, 4)
    text = _written(value, meter)
    meter.letters(len(text), not text.isascii())
    return text


def text_of(value: Any, meter: Meter) -> str:
    """Return `str(value)` as Python writes it."""
    return value if type(value) is str else representation(value, meter)


def _written(value: Any, meter: Meter) -> str:
    # Weighed before, so at most 100 deep.
    kind = type(value)
    if kind in PLAIN or kind is range:
        return repr(value)
    if kind is dict:
        return "{" + ", ".join(f"{_written(key, meter)}: {_written(held, meter)}" for key, held in value.items()) + "}"
    if kind is list:
        return "[" + ", ".join(_written(each, meter) for each in value) + "]"
    if kind is tuple:
        inner = ", ".join(_written(each, meter) for each in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if kind is set and value:
        return "{" + ", ".join(_written(each, meter) for each in ordered(value, meter)) + "}"
    if kind is set:
        return "set()"
    raise Undecided("repr")


def host_iterator(value: Any, meter: Meter) -> Iterator[Any]:
    """Return an iterator over a plain value.

    Raises:
        TypeError: the value is not iterable.
    """
    kind = type(value)
    if kind in (set, frozenset):
        return iter(ordered(value, meter))
    if kind in FLAT or kind in (str, dict, range):
        return iter(value)
    raise TypeError


def plain(value: Any, meter: Meter) -> Any:
    """Return a result as a value of Python's own, checked to its leaves.

    Raises:
        Undecided: a function, an iterator or a view: nothing that can be compared.
    """
    meter.weigh(value)
    stack = [value]
    while stack:
        held = stack.pop()
        kind = type(held)
        if kind in SCALARS or kind is str or kind is range:
            continue
        if kind not in CONTAINERS or kind.__name__.startswith("dict_"):
            raise Undecided("result")
        stack.extend(held)
        if kind is dict:
            stack.extend(held.values())
    return value
