"""Built-in functions of the interpreted subset, written anew over the interpreter's values and limits.

Specification: contamination, section 6.7. Each is a generator: it asks the machine for elements and calls.
"""

from __future__ import annotations

from typing import Any

from checks.contamination import interpreter_operators as operators
from checks.contamination.interpreter_formats import formatted
from checks.contamination.interpreter_iterators import ITERATING, Calls
from checks.contamination.interpreter_limits import (
    BITS_MAX,
    CONTAINERS,
    MADE_PER_STEP,
    PRODUCT_PER_STEP,
    READ_PER_STEP,
    Undecided,
)
from checks.contamination.interpreter_values import (
    STOP,
    Function,
    Method,
    Native,
    Run,
    representation,
    text_of,
)


def _abs(m: Calls, value: Any, /) -> Run:
    if type(value) not in operators.NUMBERS:
        raise TypeError
    return abs(value)
    yield


def _based(shape: Any) -> Any:
    def call(m: Calls, value: Any, /) -> Run:
        if type(value) not in (int, bool):
            raise TypeError
        return shape(value)
        yield

    return call


def _bool(m: Calls, value: Any = False, /) -> Run:
    return bool(value)
    yield


def _callable(m: Calls, value: Any, /) -> Run:
    return isinstance(value, (Function, Native, Method))
    yield


def _chr(m: Calls, value: Any, /) -> Run:
    return chr(value)
    yield


def _dict(m: Calls, values: Any = (), /, **named: Any) -> Run:
    made: dict[Any, Any] = {}
    yield from update(m, made, values, named)
    return made


def update(m: Calls, held: dict[Any, Any], values: Any, named: dict[str, Any]) -> Run:
    """Put pairs, or another dictionary, into a dictionary."""
    if type(values) is dict:
        m.meter.keys(values, len(held))
        held.update(values)
    else:
        iterator = m.iterator(values)
        while (pair := (yield from m.step(iterator))) is not STOP:
            parts = yield from m.items(pair)
            if len(parts) != 2:
                raise ValueError
            operators.set_item(m.meter, held, parts[0], parts[1])
    m.meter.room(len(held) + len(named), MADE_PER_STEP)
    held.update(named)


def _divmod(m: Calls, left: Any, right: Any, /) -> Run:
    return operators.binary(m.meter, "FloorDiv", left, right), operators.binary(m.meter, "Mod", left, right)
    yield


def _float(m: Calls, value: Any = 0.0, /) -> Run:
    if type(value) is str:
        m.meter.charge(len(value) // READ_PER_STEP)
    elif type(value) not in operators.NUMBERS:
        raise TypeError
    return float(value)
    yield


def _format(m: Calls, value: Any, spec: Any = "", /) -> Run:
    if type(spec) is not str:
        raise TypeError
    return formatted(m.meter, value, spec)
    yield


def _frozenset(m: Calls, values: Any = (), /) -> Run:
    return frozenset((yield from _set(m, values)))


def _int(m: Calls, value: Any = 0, /, base: Any = None) -> Run:
    if type(value) is str:
        number = base if type(base) is int and 2 <= base <= 36 else 10
        # Leading zeros and underscores apart, a text of n digits has over (n - 1) log2(base) bits.
        digits = len(value.strip().lstrip("+-").lstrip("0"))
        m.meter.charge(len(value) // READ_PER_STEP)
        if digits * (number.bit_length() - 1) > 2 * BITS_MAX:
            raise Undecided("limit:bits")
        if len(value) > BITS_MAX:
            raise Undecided("limit:digits")
        return m.meter.number(int(value) if base is None else int(value, base))
    if type(value) not in operators.NUMBERS or base is not None:
        raise TypeError
    return int(value)
    yield


def _isinstance(m: Calls, value: Any, kinds: Any, /) -> Run:
    for kind in kinds if type(kinds) is tuple else (kinds,):
        if not (type(kind) is Native and kind.name in TYPES):
            raise Undecided("isinstance")
        if isinstance(value, TYPES[kind.name]):
            return True
    return False
    yield


def _len(m: Calls, value: Any, /) -> Run:
    if type(value) not in CONTAINERS and type(value) not in (str, range):
        raise TypeError
    return len(value)
    yield


def _list(m: Calls, values: Any = (), /) -> Run:
    held = yield from m.items(values)
    m.meter.room(len(held))
    return list(held)


def _ord(m: Calls, value: Any, /) -> Run:
    if type(value) is not str:
        raise TypeError
    return ord(value)
    yield


def _pow(m: Calls, base: Any, exp: Any, mod: Any = None) -> Run:
    if mod is None:
        return operators.binary(m.meter, "Pow", base, exp)
    if any(type(each) not in (int, bool) for each in (base, exp, mod)):
        raise TypeError
    size = mod.bit_length()
    m.meter.charge(max(exp.bit_length(), size if exp < 0 else 0) * (2 * size * size // PRODUCT_PER_STEP + 1))
    return pow(base, exp, mod)
    yield


def _print(m: Calls, *values: Any, sep: Any = " ", end: Any = "\n") -> Run:
    # What is printed is no part of a function's value; it is written out nowhere.
    for value in values:
        text_of(value, m.meter)
    return None
    yield


def _range(m: Calls, *bounds: Any) -> Run:
    return range(*bounds)
    yield


def _repr(m: Calls, value: Any, /) -> Run:
    return representation(value, m.meter)
    yield


def _round(m: Calls, number: Any, ndigits: Any = None) -> Run:
    if type(number) not in operators.NUMBERS:
        raise TypeError
    if type(ndigits) in (int, bool) and abs(ndigits) > BITS_MAX // 4:
        # Rounding an integer to -n digits makes 10 ** n first.
        raise Undecided("limit:digits")
    return round(number) if ndigits is None else round(number, ndigits)
    yield


def _set(m: Calls, values: Any = (), /) -> Run:
    held = yield from m.items(values)
    m.meter.keys(held, 0)
    return set(held)


def _str(m: Calls, value: Any = "", /) -> Run:
    return text_of(value, m.meter)
    yield


def _tuple(m: Calls, values: Any = (), /) -> Run:
    held = yield from m.items(values)
    m.meter.room(len(held))
    return tuple(held)


def _type(m: Calls, value: Any, /, *bases: Any) -> Run:
    name = type(value).__name__
    if name not in TYPES or bases:
        raise Undecided("type")
    return NATIVES[name]
    yield


TYPES: dict[str, type] = {
    each.__name__: each for each in (bool, int, float, str, list, tuple, dict, set, frozenset, range)
}

NATIVES: dict[str, Native] = {
    name: Native(name, call)
    for name, call in {
        **ITERATING,
        "abs": _abs, "bin": _based(bin), "bool": _bool, "callable": _callable, "chr": _chr,
        "dict": _dict, "divmod": _divmod, "float": _float,
        "format": _format, "frozenset": _frozenset, "hex": _based(hex), "int": _int, "isinstance": _isinstance,
        "len": _len, "list": _list, "oct": _based(oct), "ord": _ord, "pow": _pow, "print": _print, "range": _range,
        "repr": _repr, "round": _round, "set": _set, "str": _str,
        "tuple": _tuple, "type": _type, }.items()
}  # fmt: skip
"""The allow-list: no other built-in exists for a program."""
