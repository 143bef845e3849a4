"""Built-in functions of the interpreted subset that iterate, and what built-ins need of the machine.

Specification: contamination, section 6.7. Each is a generator: it asks the machine for elements and calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from checks.contamination import interpreter_operators as operators
from checks.contamination.interpreter_limits import Meter, Raised, Undecided
from checks.contamination.interpreter_values import STOP, Lazy, Produced, Run


class Calls(Protocol):
    """What built-ins need of the machine."""

    meter: Meter

    def iterator(self, value: Any) -> Any:
        """Return an iterator over a value of the program."""

    def step(self, iterator: Any) -> Run:
        """Return the next element of an iterator, or STOP."""

    def items(self, value: Any) -> Run:
        """Return all elements, as a list that is not to be changed."""

    def call(self, function: Any, arguments: Sequence[Any], named: dict[str, Any] | None = None) -> Run:
        """Return the value of a call."""


def _all(m: Calls, values: Any, /) -> Run:
    iterator = m.iterator(values)
    while (value := (yield from m.step(iterator))) is not STOP:
        if not value:
            return False
    return True


def _any(m: Calls, values: Any, /) -> Run:
    iterator = m.iterator(values)
    while (value := (yield from m.step(iterator))) is not STOP:
        if value:
            return True
    return False


def _enumerate(m: Calls, iterable: Any, start: Any = 0) -> Run:
    if type(start) not in (int, bool):
        raise TypeError
    iterator = m.iterator(iterable)

    def run() -> Run:
        number = start
        while (value := (yield from m.step(iterator))) is not STOP:
            yield Produced((number, value))
            number += 1
        return STOP

    return Lazy(run())
    yield


def _filter(m: Calls, function: Any, values: Any, /) -> Run:
    iterator = m.iterator(values)

    def run() -> Run:
        while (value := (yield from m.step(iterator))) is not STOP:
            kept = value if function is None else (yield from m.call(function, (value,)))
            if kept:
                yield Produced(value)
        return STOP

    return Lazy(run())
    yield


def _iter(m: Calls, values: Any, /) -> Run:
    iterator = m.iterator(values)

    def run() -> Run:
        while (value := (yield from m.step(iterator))) is not STOP:
            yield Produced(value)
        return STOP

    return iterator if type(iterator) is Lazy else Lazy(run())
    yield


def _map(m: Calls, function: Any, *values: Any) -> Run:
    if not values:
        raise TypeError
    iterators = [m.iterator(each) for each in values]

    def run() -> Run:
        while True:
            row = []
            for iterator in iterators:
                value = yield from m.step(iterator)
                if value is STOP:
                    return STOP
                row.append(value)
            yield Produced((yield from m.call(function, row)))

    return Lazy(run())
    yield


def _extreme(comparison: str) -> Any:
    def call(m: Calls, *values: Any, key: Any = None, default: Any = STOP) -> Run:
        if not values:
            raise TypeError
        if len(values) > 1 and default is not STOP:
            raise TypeError
        iterator = m.iterator(values[0] if len(values) == 1 else values)
        best = best_key = STOP
        while (value := (yield from m.step(iterator))) is not STOP:
            own = value if key is None else (yield from m.call(key, (value,)))
            if best is STOP or operators.compare(m.meter, comparison, own, best_key):
                best, best_key = value, own
        if best is STOP and default is STOP:
            raise ValueError
        return default if best is STOP else best

    return call


def _next(m: Calls, iterator: Any, default: Any = STOP, /) -> Run:
    if type(iterator) is not Lazy:
        raise TypeError
    value = yield from m.step(iterator)
    if value is STOP and default is STOP:
        raise Raised("StopIteration")
    return default if value is STOP else value


def _reversed(m: Calls, values: Any, /) -> Run:
    if type(values) not in (list, tuple, str, range, dict):
        raise TypeError
    return (yield from _iter(m, list(reversed((yield from m.items(values))))))


def _sorted(m: Calls, values: Any, /, *, key: Any = None, reverse: Any = False) -> Run:
    held = yield from m.items(values)
    return (yield from sorting(m, held, key, reverse))


def sorting(m: Calls, held: Sequence[Any], key: Any, reverse: Any) -> Run:
    """Return elements sorted, as Python's stable sort does."""
    keys = held
    if key is not None:
        keys = []
        for value in held:
            keys.append((yield from m.call(key, (value,))))
    m.meter.room(len(held))
    # n log2 n comparisons, each of which may read a whole key.
    m.meter.weigh(list(keys), len(keys).bit_length())
    order = sorted(range(len(held)), key=keys.__getitem__, reverse=bool(reverse))
    return [held[number] for number in order]


def _sum(m: Calls, iterable: Any, /, start: Any = 0) -> Run:
    if type(start) is str:
        raise TypeError
    iterator = m.iterator(iterable)
    total = start
    while (value := (yield from m.step(iterator))) is not STOP:
        total = operators.binary(m.meter, "Add", total, value)
    return total


def _zip(m: Calls, *values: Any, strict: Any = False) -> Run:
    iterators = [m.iterator(each) for each in values]
    if strict:
        raise Undecided("zip_strict")

    def run() -> Run:
        while iterators:
            row = []
            for iterator in iterators:
                value = yield from m.step(iterator)
                if value is STOP:
                    return STOP
                row.append(value)
            yield Produced(tuple(row))
        return STOP

    return Lazy(run())
    yield


ITERATING: dict[str, Any] = {
    "all": _all,
    "any": _any,
    "enumerate": _enumerate,
    "filter": _filter,
    "iter": _iter,
    "map": _map,
    "max": _extreme("Gt"),
    "min": _extreme("Lt"),
    "next": _next,
    "reversed": _reversed,
    "sorted": _sorted,
    "sum": _sum,
    "zip": _zip,
}
"""Name -> built-in."""
