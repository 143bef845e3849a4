"""Functions of `math` in the interpreted subset, with bounds on those that make large integers.

Specification: contamination, section 6.7.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from checks.contamination import interpreter_operators as operators
from checks.contamination.interpreter_iterators import Calls
from checks.contamination.interpreter_limits import STEPS_MAX, Undecided
from checks.contamination.interpreter_values import STOP, Native, Run

FLOATS = (
    "sqrt", "exp", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "atan2",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "degrees", "radians", "fabs", "fmod", "copysign", "isnan",
    "isinf", "isfinite", "isclose", "hypot", "floor", "ceil", "trunc", "pow", "cbrt", "gcd", "lcm", "isqrt", "erf",
    "gamma", "lgamma", "modf",
)  # fmt: skip
"""Of numbers to numbers, in bounded time; the integers among them are charged."""

CONSTANTS = ("pi", "e", "inf", "nan", "tau")

INTEGER_STEPS = 32
"""Steps of a greatest common divisor or integer root of 4096 bits (30 to 50 µs, measured)."""


def _number(name: str) -> Callable[..., Run]:
    real: Callable[..., Any] = getattr(math, name)

    def call(m: Calls, *values: Any, **named: Any) -> Run:
        if any(type(value) not in operators.NUMBERS for value in (*values, *named.values())):
            raise TypeError
        if name == "lcm":
            m.meter.bits(sum(value.bit_length() for value in values if type(value) is int))
        m.meter.charge(INTEGER_STEPS * sum(type(value) is int and value.bit_length() > 64 for value in values))
        result = real(*values, **named)
        return m.meter.number(result) if type(result) is int else result
        yield

    return call


def _factorial(m: Calls, n: Any, /) -> Run:
    if type(n) not in (int, bool):
        raise TypeError
    # n! has about (n log n - n) / log 2 bits; 10 000 is far beyond the limit and cheap to take the logarithm of.
    if n > 0:
        m.meter.bits(int(math.lgamma(min(n, 10_000) + 1) / math.log(2)) - 1)
    return m.meter.number(math.factorial(n))
    yield


def _choosing(name: str) -> Callable[..., Run]:
    real: Callable[..., int] = getattr(math, name)

    def call(m: Calls, n: Any, k: Any = None, /) -> Run:
        if name == "comb" and k is None:
            raise TypeError
        k = n if k is None else k
        if type(n) not in (int, bool) or type(k) not in (int, bool):
            raise TypeError
        if 0 <= k <= n:
            factors = min(k, n - k) if name == "comb" else k
            # Upper bounds of the result; a little over the limit is let through and refused afterwards.
            if min(factors * n.bit_length(), n if name == "comb" else STEPS_MAX) > 2 * 4096:
                raise Undecided("limit:bits")
            m.meter.charge(factors // 4)
        return m.meter.number(real(n, k))
        yield

    return call


def _product(m: Calls, values: Any, /, *, start: Any = 1) -> Run:
    iterator = m.iterator(values)
    total = start
    while (value := (yield from m.step(iterator))) is not STOP:
        total = operators.binary(m.meter, "Mult", total, value)
    return total


def _several(name: str, iterables: int) -> Callable[..., Run]:
    real: Callable[..., Any] = getattr(math, name)

    def call(m: Calls, *values: Any) -> Run:
        if len(values) != iterables:
            raise TypeError
        held = []
        for value in values:
            each = yield from m.items(value)
            if any(type(number) not in operators.NUMBERS for number in each):
                raise TypeError
            held.append(list(each))
        return real(*held)

    return call


MEMBERS: dict[str, Any] = {
    **{name: getattr(math, name) for name in CONSTANTS},
    **{name: Native(name, _number(name)) for name in FLOATS},
    "factorial": Native("factorial", _factorial),
    "comb": Native("comb", _choosing("comb")),
    "perm": Native("perm", _choosing("perm")),
    "prod": Native("prod", _product),
    "fsum": Native("fsum", _several("fsum", 1)),
    "dist": Native("dist", _several("dist", 2)),
}
"""What a program sees of `math`."""
