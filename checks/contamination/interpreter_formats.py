"""Formatting of values: `%`, `format`, `str.format` and f-strings, widths checked before anything is padded.

Specification: contamination, section 6.7.
"""

from __future__ import annotations

import re
import string
from typing import Any

from checks.contamination.interpreter_limits import Meter, Undecided
from checks.contamination.interpreter_values import representation, text_of

SPEC = re.compile(r"(?:.?[<>=^])?[-+ ]?z?#?0?(\d{0,9})[,_]?(?:\.(\d{1,9}))?[bcdeEfFgGosxX%]?", re.DOTALL)
"""Format specifications of numbers and texts; `n` depends on a locale and is left out."""

PERCENT = re.compile(r"%(?:\((\w{1,99})\))?([-+ 0#]{0,5})(\d{0,9})(?:\.(\d{0,9}))?([diouxXeEfFgGcrs%])")
"""Conversions of the `%` operator; `*` for a width is left out."""

NUMBER_TYPES = (int, float, bool)


def formatted(meter: Meter, value: Any, spec: str) -> str:
    """Return `format(value, spec)`.

    Raises:
        ValueError, TypeError: as Python does.
        Undecided: a specification outside the subset, or a width over the limit.
    """
    if not spec:
        return text_of(value, meter)
    found = SPEC.fullmatch(spec)
    if found is None:
        raise Undecided("format_spec")
    width, precision = (int(part or 0) for part in found.groups())
    if type(value) is not str and type(value) not in NUMBER_TYPES:
        raise TypeError
    # Without a width, a number's length is bounded by the limit on its bits.
    meter.letters(max(width, len(value) if type(value) is str else 0), True)
    meter.letters(precision, True)
    return format(value, spec)


def percent(meter: Meter, template: str, values: Any) -> str:
    """Return `template % values`."""
    held = values if type(values) is tuple else (values,)
    parts: list[str] = []
    at = used = length = 0
    while (begin := template.find("%", at)) >= 0:
        found = PERCENT.match(template, begin)
        if found is None:
            raise Undecided("percent_format")
        name, flags, width, precision, kind = found.groups()
        piece = "%"
        if kind != "%":
            if name is not None:
                value = _named(values, name)
            elif used == len(held):
                raise TypeError
            else:
                value, used = held[used], used + 1
            piece = _converted(meter, value, f"%{flags}{width}", precision, kind, int(width or 0))
        parts += (template[at:begin], piece)
        length += len(parts[-1]) + len(parts[-2])
        meter.letters(length, True)
        at = found.end()
    if used < len(held) and type(values) is not dict:
        raise TypeError
    return "".join((*parts, template[at:]))


def _named(values: Any, name: str) -> Any:
    if type(values) is not dict:
        raise TypeError
    return values[name]


def _converted(meter: Meter, value: Any, head: str, precision: str | None, kind: str, width: int) -> str:
    meter.letters(max(width, int(precision or 0)), True)
    tail = kind if precision is None else f".{precision}{kind}"
    if kind in "rs":
        shown = text_of(value, meter) if kind == "s" else representation(value, meter)
        return (head + tail.replace("r", "s")) % (shown,)
    if type(value) not in NUMBER_TYPES and not (kind == "c" and type(value) is str):
        raise TypeError
    return (head + tail) % (value,)


def filled(meter: Meter, template: str, values: tuple[Any, ...], named: dict[str, Any]) -> str:
    """Return `template.format(*values, **named)`; fields that read attributes or items are outside the subset."""
    parts: list[str] = []
    automatic = length = 0
    numbered = False
    for literal, field, spec, conversion in string.Formatter().parse(template):
        parts.append(literal)
        if field is not None:
            if not (field == "" or field.isidentifier() or (field.isascii() and field.isdigit() and len(field) < 7)):
                raise Undecided("format_field")
            if spec and ("{" in spec or "}" in spec):
                raise Undecided("format_field")
            numbered |= field.isdigit()
            if field == "":
                value, automatic = values[automatic], automatic + 1
            else:
                value = values[int(field)] if field.isdigit() else named[field]
            if numbered and automatic:
                raise ValueError
            parts.append(formatted(meter, shown(meter, value, conversion), spec or ""))
            length += len(parts[-1])
        length += len(literal)
        meter.letters(length, True)
    return "".join(parts)


def shown(meter: Meter, value: Any, conversion: str | None) -> Any:
    """Return a value after `!r` or `!s`."""
    if conversion is None:
        return value
    if conversion == "s":
        return text_of(value, meter)
    if conversion == "r":
        return representation(value, meter)
    raise Undecided("format_conversion")
