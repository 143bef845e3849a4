"""From numbers to places on the paper: ranges, ticks of 1, 2 or 5 times a power of ten, coordinates as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

WIDTH, HEIGHT = 640, 240
"""The view box (specification, section 13)."""

LEFT, RIGHT, TOP, BOTTOM = 66, 12, 26, 46
"""Room for tick texts and axis names; letters grow to 18 units on narrow screens, where the plot shrinks by half."""

TICKS_MAX = 6
"""Most ticks of one axis (section 13)."""

_MARGIN = 0.04
"""Free space at both ends of an axis, as a share of the range, so that no marker is cut."""

_EXACT = Context(prec=40)
"""Digits for ticks: 15 before and 18 after the point fit."""


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] to [begin, end] on the paper."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a number."""
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)

    def places(self, values: Sequence[float], at: Iterable[int]) -> list[float]:
        """Return the places of some of many numbers."""
        low, begin, slope = self.low, self.begin, (self.end - self.begin) / (self.high - self.low)
        return [begin + (values[one] - low) * slope for one in at]


def across(values: Iterable[float], *, room: float = _MARGIN) -> Scale:
    """Return the horizontal scale of values."""
    return Scale(*_range(values, room), LEFT, WIDTH - RIGHT)


def upwards(values: Iterable[float], *, room: float = _MARGIN) -> Scale:
    """Return the vertical scale of values; larger ones lie higher."""
    return Scale(*_range(values, room), HEIGHT - BOTTOM, TOP)


def _range(values: Iterable[float], room: float) -> tuple[float, float]:
    held = list(values)
    low, high = min(held), max(held)
    if not low < high:
        # A single value lies in the middle of a range of its own size.
        half = abs(low) / 2 or 0.5
        return low - half, high + half
    free = (high - low) * room
    return low - free, high + free


def ticks(scale: Scale, most: int = TICKS_MAX) -> list[tuple[float, str]]:
    """Return numbers and texts of at most `most` ticks, 1, 2 or 5 times a power of ten apart."""
    low, high = Decimal(repr(scale.low)), Decimal(repr(scale.high))
    # Nearly equal numbers of great size: a step below their own spacing on the paper would never move.
    power = Decimal(1).scaleb(((high - low) / most).adjusted())
    for factor in (1, 2, 5, 10, 20):
        step = _EXACT.multiply(power, Decimal(factor))
        first = (low / step).to_integral_value(ROUND_CEILING)
        last = (high / step).to_integral_value(ROUND_FLOOR)
        if last - first + 1 <= most:
            break
    found = [_EXACT.multiply(step, first + at) for at in range(int(last - first) + 1)]
    return [(float(one), number_text(one)) for one in found]


def number_text(value: Decimal) -> str:
    """Return a number without trailing zeros; as 2e-7 or 5e9 where the digits would not fit the margin."""
    plain = format(value.normalize(_EXACT) if value else Decimal(0), "f")
    if len(plain) <= 7:
        return plain
    digits = value.normalize(_EXACT).as_tuple()
    return f"{Decimal((digits.sign, digits.digits, -(len(digits.digits) - 1)))}e{value.adjusted()}"


def place(value: float) -> str:
    """Return a coordinate with at most two decimals, and no -0."""
    written = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if written in ("-0", "") else written
