"""Operators of the interpreted subset, each checked before it makes anything. Specification: contamination, 6.7."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from checks.contamination.interpreter_formats import percent
from checks.contamination.interpreter_limits import (
    BYTES_PER_STEP,
    CONTAINERS,
    PRODUCT_PER_STEP,
    READ_PER_STEP,
    SCALARS,
    VIEWS,
    Meter,
    Undecided,
)

NUMBERS = (int, float, bool)
SETS = (set, frozenset, VIEWS[0], VIEWS[2])
"""Types that combine as sets: views of keys and of items among them."""

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mult": operator.mul, "Div": operator.truediv,
    "FloorDiv": operator.floordiv, "Mod": operator.mod, "Pow": operator.pow, "LShift": operator.lshift,
    "RShift": operator.rshift, "BitOr": operator.or_, "BitXor": operator.xor, "BitAnd": operator.and_,
}  # fmt: skip

IN_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    "Sub": operator.isub, "BitOr": operator.ior, "BitXor": operator.ixor, "BitAnd": operator.iand,
}  # fmt: skip

UNARY: dict[str, Callable[[Any], Any]] = {
    "UAdd": operator.pos, "USub": operator.neg, "Invert": operator.invert, "Not": operator.not_,
}  # fmt: skip

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "Eq": operator.eq, "NotEq": operator.ne, "Lt": operator.lt, "LtE": operator.le, "Gt": operator.gt,
    "GtE": operator.ge,
}  # fmt: skip


def binary(meter: Meter, name: str, left: Any, right: Any) -> Any:
    """Return `left <op> right`.

    Args:
        meter: what is left.
        name: class of the operator's node.
        left: any value of the program.
        right: likewise.

    Raises:
        TypeError: as Python does; likewise other exceptions of arithmetic.
        Undecided: over a limit.
    """
    first, second = type(left), type(right)
    if first in NUMBERS and second in NUMBERS:
        return arithmetic(meter, name, left, right)
    if name == "Add" and first is second and first in (str, list, tuple):
        _room(meter, left, len(left) + len(right), first is str and not (left.isascii() and right.isascii()))
        return left + right
    if name == "Mult":
        return _repeated(meter, left, right) if first in (str, list, tuple) else _repeated(meter, right, left)
    if name == "Mod" and first is str:
        return percent(meter, left, right)
    if name in IN_PLACE and first in SETS and second in SETS:
        meter.keys(left, len(right))
        meter.keys(right, 0)
        return BINARY[name](left, right)
    if name == "BitOr" and first is dict and second is dict:
        meter.keys(left, len(right))
        meter.keys(right, 0)
        return left | right
    raise TypeError


def in_place(meter: Meter, name: str, left: Any, right: Any) -> Any:
    """Return `left` after `left <op>= right` where Python changes it in place; lists are extended elsewhere."""
    first, second = type(left), type(right)
    if name in IN_PLACE and first is set and second in SETS:
        meter.keys(right, len(left))
        return IN_PLACE[name](left, right)
    if name == "BitOr" and first is dict and second is dict:
        meter.keys(right, len(left))
        left.update(right)
        return left
    return binary(meter, name, left, right)


def arithmetic(meter: Meter, name: str, left: Any, right: Any) -> Any:
    """Return the value of an operator on two numbers."""
    if type(left) is float or type(right) is float:
        return meter.number(BINARY[name](left, right))
    first, second = left.bit_length(), right.bit_length()
    if name == "Mult":
        meter.bits(first + second - 1)
    elif name == "Pow" and right > 0 and first > 1:
        # A number of b bits has at least (b - 1) n + 1 bits when raised to the n.
        meter.bits((first - 1) * right + 1)
        meter.charge(first * first * right * right // PRODUCT_PER_STEP)
    elif name == "LShift" and left and right > 0:
        meter.bits(first + right)
    meter.charge(first * second // PRODUCT_PER_STEP)
    return meter.number(BINARY[name](left, right))


def unary(meter: Meter, name: str, value: Any) -> Any:
    """Return `<op> value`."""
    if name == "Not":
        return not truth(value)
    if type(value) not in NUMBERS:
        raise TypeError
    return meter.number(UNARY[name](value))


def truth(value: Any) -> bool:
    """Return `bool(value)`; our own objects are true, as functions and iterators are in Python."""
    return bool(value)


def compare(meter: Meter, name: str, left: Any, right: Any) -> bool:
    """Return `left <comparison> right`."""
    if name == "In":
        return contains(meter, left, right)
    if name == "NotIn":
        return not contains(meter, left, right)
    if name in ("Is", "IsNot"):
        return _is(left, right) is (name == "Is")
    if type(left) in CONTAINERS and type(right) in CONTAINERS:
        meter.weigh(left, 2)
        meter.weigh(right, 2)
        if type(left) in SETS or type(left) is dict:
            for key in left:
                meter.key(key, len(right))
    elif type(left) is str and type(right) is str:
        meter.charge(min(len(left), len(right)) // BYTES_PER_STEP)
    return COMPARE[name](left, right)


def _is(left: Any, right: Any) -> bool:
    # Whether equal numbers, texts or tuples are one object is the implementation's business, not the program's.
    loose = (int, float, str, tuple, frozenset, range)
    if type(left) in loose and type(left) is type(right):
        raise Undecided("Is")
    return left is right


def contains(meter: Meter, item: Any, held: Any) -> bool:
    """Return `item in held`."""
    kind = type(held)
    if kind is str:
        if type(item) is str:
            meter.search(len(held), len(item))
        return item in held
    if kind in (dict, set, frozenset, VIEWS[0]):
        meter.key(item, len(held))
    elif kind is range:
        if type(item) is float:
            return item.is_integer() and int(item) in held
        return type(item) in (int, bool) and item in held
    elif kind in CONTAINERS:
        if type(item) in SCALARS:
            meter.charge(len(held) // READ_PER_STEP)
        else:
            meter.weigh(held)
    else:
        raise (Undecided("In") if kind.__name__ == "Lazy" else TypeError())
    return item in held


def item_of(meter: Meter, held: Any, index: Any) -> Any:
    """Return `held[index]`, a slice included."""
    kind = type(held)
    if kind is dict:
        meter.key(index, len(held))
    elif kind is range:
        pass
    elif kind not in (list, tuple, str):
        raise TypeError
    elif type(index) is slice:
        length = len(range(*index.indices(len(held))))
        _room(meter, held, length, kind is str and not held.isascii())
    return held[index]


def set_item(meter: Meter, held: Any, index: Any, value: Any) -> None:
    """Carry out `held[index] = value`; the value of a slice is a list already."""
    kind = type(held)
    if kind is dict:
        meter.key(index, len(held))
        meter.room(len(held) + 1, len(held) + 2)
    elif kind is not list:
        raise TypeError
    elif type(index) is slice:
        meter.room(len(held) + len(value))
        meter.charge(len(held) // READ_PER_STEP)
    held[index] = value


def delete_item(meter: Meter, held: Any, index: Any) -> None:
    """Carry out `del held[index]`."""
    if type(held) is dict:
        meter.key(index, len(held))
    elif type(held) is not list:
        raise TypeError
    else:
        meter.charge(len(held) // READ_PER_STEP)
    del held[index]


def _room(meter: Meter, like: Any, length: int, wide: bool) -> None:
    if type(like) is str:
        meter.letters(length, wide)
    else:
        meter.room(length)


def _repeated(meter: Meter, held: Any, times: Any) -> Any:
    if type(held) not in (str, list, tuple) or type(times) not in (int, bool):
        raise TypeError
    _room(meter, held, len(held) * max(times, 0), type(held) is str and not held.isascii())
    return held * times
