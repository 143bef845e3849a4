"""Methods of the interpreted subset: an allow-list by type, each checked before it makes anything.

Specification: contamination, section 6.7. Nothing else of a value can be reached by a dot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from checks.contamination.interpreter_builtins import update
from checks.contamination.interpreter_formats import filled
from checks.contamination.interpreter_iterators import Calls, sorting
from checks.contamination.interpreter_limits import MADE_PER_STEP, READ_PER_STEP, VIEWS, Undecided
from checks.contamination.interpreter_values import Run, ordered

Call = Callable[..., Run]

TESTS = (
    "isdigit", "isalpha", "isalnum", "isspace", "isupper", "islower", "isnumeric", "isdecimal", "istitle", "isascii",
    "isidentifier",
)  # fmt: skip
CASES = ("lower", "upper", "title", "capitalize", "swapcase", "casefold")
STRIPS = ("strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "startswith", "endswith")
SEARCHES = ("find", "rfind", "index", "rindex", "count", "partition", "rpartition")
PADS = ("ljust", "rjust", "center", "zfill")


def _text(name: str) -> Call:
    """A method that reads the text once; its result is at most three times as long (case mapping)."""
    real: Callable[..., Any] = getattr(str, name)

    def call(m: Calls, text: str, *values: Any) -> Run:
        for value in values:
            m.meter.weigh(value)
            if type(value) is str:
                # The letters to strip are looked through for each letter.
                m.meter.search(len(text), len(value))
        m.meter.letters(len(text), True)
        m.meter.charge(len(text) // READ_PER_STEP)
        return real(text, *values)
        yield

    return call


def _searching(name: str) -> Call:
    real: Callable[..., Any] = getattr(str, name)

    def call(m: Calls, text: str, sought: Any, *bounds: Any) -> Run:
        if type(sought) is not str:
            raise TypeError
        m.meter.search(len(text), len(sought))
        m.meter.letters(len(text), True)
        return real(text, sought, *bounds)
        yield

    return call


def _padding(name: str) -> Call:
    real: Callable[..., Any] = getattr(str, name)

    def call(m: Calls, text: str, width: Any, *fill: Any) -> Run:
        if type(width) not in (int, bool):
            raise TypeError
        m.meter.letters(max(width, len(text)), True)
        return real(text, width, *fill)
        yield

    return call


def _splitting(name: str) -> Call:
    real: Callable[..., Any] = getattr(str, name)

    def call(m: Calls, text: str, sep: Any = None, maxsplit: Any = -1) -> Run:
        m.meter.search(len(text), len(sep) if type(sep) is str else 1)
        # At most one part more than there are separators, and a new object each.
        m.meter.room(text.count(sep) + 1 if type(sep) is str and sep else len(text) // 2 + 1, MADE_PER_STEP)
        return real(text, sep, maxsplit)
        yield

    return call


def _splitlines(m: Calls, text: str, keepends: Any = False) -> Run:
    m.meter.room(len(text), MADE_PER_STEP)
    return text.splitlines(bool(keepends))
    yield


def _join(m: Calls, text: str, values: Any) -> Run:
    held = yield from m.items(values)
    m.meter.charge(len(held) // READ_PER_STEP)
    if not all(type(each) is str for each in held):
        raise TypeError
    wide = not text.isascii() or not all(each.isascii() for each in held)
    m.meter.letters(sum(map(len, held)) + len(text) * max(len(held) - 1, 0), wide)
    return text.join(held)


def _replace(m: Calls, text: str, old: Any, new: Any, count: Any = -1, /) -> Run:
    if type(old) is not str or type(new) is not str or type(count) not in (int, bool):
        raise TypeError
    m.meter.search(len(text), len(old))
    found = text.count(old)
    times = found if count < 0 else min(found, count)
    m.meter.letters(len(text) + times * max(len(new) - len(old), 0), True)
    return text.replace(old, new, count)
    yield


def _format(m: Calls, text: str, *values: Any, **named: Any) -> Run:
    return filled(m.meter, text, values, named)
    yield


def _append(m: Calls, held: list[Any], value: Any) -> Run:
    m.meter.room(len(held) + 1, len(held) + 2)
    return held.append(value)
    yield


def _extend(m: Calls, held: list[Any], values: Any) -> Run:
    more = yield from m.items(values)
    m.meter.room(len(held) + len(more), len(held) // len(more) + READ_PER_STEP if more else len(held) + 1)
    held.extend(more)


def _insert(m: Calls, held: list[Any], index: Any, value: Any) -> Run:
    m.meter.room(len(held) + 1)
    return held.insert(index, value)
    yield


def _pop(m: Calls, held: list[Any], index: Any = -1) -> Run:
    if index != -1:
        m.meter.charge(len(held) // READ_PER_STEP)
    return held.pop(index)
    yield


def _comparing(kind: type, name: str) -> Call:
    """A method that compares a value with each element."""
    real: Callable[..., Any] = getattr(kind, name)

    def call(m: Calls, held: Any, value: Any, *bounds: Any) -> Run:
        m.meter.weigh(held)
        m.meter.charge(len(held) // READ_PER_STEP)
        return real(held, value, *bounds)
        yield

    return call


def _whole(kind: type, name: str) -> Call:
    """A method without arguments that passes once over a container."""
    real: Callable[..., Any] = getattr(kind, name)
    per_step = READ_PER_STEP if kind is list else MADE_PER_STEP

    def call(m: Calls, held: Any) -> Run:
        m.meter.room(len(held), per_step)
        return real(held)
        yield

    return call


def _view(name: str) -> Call:
    real: Callable[..., Any] = getattr(dict, name)

    def call(m: Calls, held: Any) -> Run:
        return real(held)
        yield

    return call


def _sort(m: Calls, held: list[Any], *, key: Any = None, reverse: Any = False) -> Run:
    made = yield from sorting(m, list(held), key, reverse)
    held[:] = made


def _keyed(kind: type, name: str) -> Call:
    """A method that looks one key up, and may add it."""
    real: Callable[..., Any] = getattr(kind, name)

    def call(m: Calls, held: Any, key: Any, *values: Any) -> Run:
        m.meter.key(key, len(held))
        m.meter.room(len(held) + 1, len(held) + 2)
        return real(held, key, *values)
        yield

    return call


def _update(m: Calls, held: dict[Any, Any], values: Any = (), /, **named: Any) -> Run:
    yield from update(m, held, values, named)


def _popitem(m: Calls, held: dict[Any, Any]) -> Run:
    return held.popitem()
    yield


def _set_pop(m: Calls, held: set[Any]) -> Run:
    if not held:
        raise KeyError
    first = ordered(held, m.meter)[0]
    held.remove(first)
    return first
    yield


def _combining(kind: type, name: str) -> Call:
    """A method of sets that takes any number of iterables."""
    real: Callable[..., Any] = getattr(kind, name)

    def call(m: Calls, held: Any, *values: Any) -> Run:
        others: list[Any] = []
        for value in values:
            each = yield from m.items(value)
            m.meter.keys(each, len(held))
            others.append(each)
        m.meter.room(len(held) + sum(map(len, others)), MADE_PER_STEP)
        m.meter.keys(held, 0)
        return real(held, *others)

    return call


def _of_number(kind: type, name: str) -> Call:
    real: Callable[..., Any] = getattr(kind, name)

    def call(m: Calls, value: Any) -> Run:
        return real(value)
        yield

    return call


SET_READING = (
    "union", "intersection", "difference", "symmetric_difference", "issubset", "issuperset", "isdisjoint",
)  # fmt: skip
SET_WRITING = ("update", "intersection_update", "difference_update", "symmetric_difference_update")

OF_STR: dict[str, Call] = {
    **{name: _text(name) for name in (*TESTS, *CASES, *STRIPS)}, **{name: _searching(name) for name in SEARCHES},
    **{name: _padding(name) for name in PADS}, "split": _splitting("split"), "rsplit": _splitting("rsplit"),
    "splitlines": _splitlines, "join": _join, "replace": _replace, "format": _format,
}  # fmt: skip
OF_LIST: dict[str, Call] = {
    "append": _append, "extend": _extend, "insert": _insert, "pop": _pop, "sort": _sort,
    **{name: _comparing(list, name) for name in ("index", "count", "remove")},
    **{name: _whole(list, name) for name in ("clear", "reverse", "copy")},
}  # fmt: skip
OF_DICT: dict[str, Call] = {
    **{name: _keyed(dict, name) for name in ("get", "setdefault", "pop")}, "update": _update, "popitem": _popitem,
    **{name: _view(name) for name in ("keys", "values", "items")},
    **{name: _whole(dict, name) for name in ("clear", "copy")},
}  # fmt: skip
OF_SET: dict[str, Call] = {
    **{name: _keyed(set, name) for name in ("add", "remove", "discard")}, "pop": _set_pop,
    **{name: _whole(set, name) for name in ("clear", "copy")},
    **{name: _combining(set, name) for name in (*SET_READING, *SET_WRITING)},
}  # fmt: skip

METHODS: dict[type, dict[str, Call]] = {
    str: OF_STR, list: OF_LIST, dict: OF_DICT, set: OF_SET,
    tuple: {name: _comparing(tuple, name) for name in ("index", "count")},
    frozenset: {name: _combining(frozenset, name) for name in SET_READING},
    int: {"bit_length": _of_number(int, "bit_length"), "bit_count": _of_number(int, "bit_count")},
    float: {"is_integer": _of_number(float, "is_integer")},
    bool: {}, type(None): {}, range: {}, **{view: {} for view in VIEWS},
}  # fmt: skip
"""The allow-list."""


def method(receiver: Any, name: str) -> Call:
    """Return what `receiver.name` calls.

    Raises:
        AttributeError: Python's type has no such attribute either.
        Undecided: it has, or may have; it is outside the subset.
    """
    table = METHODS.get(type(receiver))
    if table is not None and name in table:
        return table[name]
    if table is None or name.startswith("_") or name in dir(type(receiver)):
        raise Undecided("Attribute")
    raise AttributeError
