"""A check's parameters: JSON text in; canonical, complete and valid parameters or violations out.

The canonical form has no fractions, so a fractional number becomes a decimal string, digit by digit from its text
and never through a float.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from assay import canonical
from assay.errors import Malformed
from assay.result import DECIMAL, canonical_decimal
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from service.rules.names import shown

TEXT_MAX = 64 * 1024
"""Bytes of parameters_json."""

DEPTH_MAX = 8
"""Nesting of parameters; those of our checks are flat."""

Wrong = tuple[str, str]
"""(path below parameters_json, "" for the whole; what is wrong with it)."""


def read_parameters(text: str, schema: Mapping[str, Any]) -> tuple[dict[str, Any], list[Wrong]]:
    """Parse, complete with the schema's defaults, and validate.

    Args:
        text: JSON object text, or "" for {}.
        schema: the check's JSON Schema.

    Returns:
        The complete parameters in plain canonical JSON types, and what is wrong; the former counts only if the
        latter is empty.
    """
    try:
        given = _parse(text)
    except Malformed as error:
        return {}, [("", error.message.rstrip("."))]
    properties: Mapping[str, Any] = schema.get("properties", {})
    wrong = [(f".{shown(name)}", _unknown(name, properties)) for name in given if name not in properties]
    known = {name: _as_decimal(value, properties[name]) for name, value in given.items() if name in properties}
    complete = {name: rule["default"] for name, rule in properties.items() if "default" in rule} | known
    wrong.extend(_invalid(complete, schema))
    if not wrong:
        try:
            canonical.dumps(complete)
        except Malformed as error:
            wrong.append((shown(error.at.replace("/", ".")), error.message))
    return complete, wrong


def _parse(text: str) -> dict[str, Any]:
    if len(text.encode()) > TEXT_MAX:
        raise Malformed("size_cap", "", f"the parameters have more than {TEXT_MAX} bytes")
    try:
        value = json.loads(
            text or "{}",
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise Malformed("json_invalid", "", f"not JSON at character {error.pos}: {error.msg}") from None
    except RecursionError:
        raise Malformed("json_too_deep", "", f"nested deeper than {DEPTH_MAX}") from None
    if not isinstance(value, dict):
        raise Malformed("json_invalid", "", "parameters are one JSON object")
    _walk(value, 0)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Malformed("json_duplicate_key", "", "a key appears twice in one object")
    return value


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > 2**53 - 1:
        raise Malformed("json_number", "", f"the integer {shown(text, 24)} lies beyond 2^53-1")
    return int(text)


def _fraction(text: str) -> str:
    """Return the decimal string of a number with a fraction or an exponent, exactly."""
    try:
        number = Decimal(text) if len(text) <= 40 else None
    except InvalidOperation:
        number = None
    # 18 digits after and 15 before the point are the grammar's; a larger exponent would only make a long text first.
    if number is None or not number.is_finite() or abs(number.adjusted()) > 18:
        raise Malformed("json_number", "", f"the number {shown(text, 24)} is outside the decimal grammar")
    plain = format(number, "f")
    if not DECIMAL.fullmatch(plain):
        raise Malformed("json_number", "", f"the number {shown(text, 24)} is outside the decimal grammar")
    return canonical_decimal(plain)


def _constant(text: str) -> NoReturn:
    raise Malformed("json_number", "", f"{text} is no number here")


def _walk(value: Any, level: int) -> None:
    if level > DEPTH_MAX:
        raise Malformed("json_too_deep", "", f"nested deeper than {DEPTH_MAX}")
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    texts = [value] if isinstance(value, str) else list(value) if isinstance(value, dict) else []
    if any(not text.isprintable() for text in texts):
        raise Malformed("json_invalid", "", "a text holds control characters or lone surrogates")
    for child in children:
        _walk(child, level + 1)


def _as_decimal(value: Any, rule: Mapping[str, Any]) -> Any:
    """Bring what is meant as a decimal into its one canonical spelling; let a whole number stand for one."""
    default = rule.get("default")
    looks_decimal = rule.get("type") == "string" and isinstance(default, str) and DECIMAL.fullmatch(default)
    if rule.get("format") != "decimal" and not looks_decimal:
        return value
    text = str(value) if type(value) is int else value
    return canonical_decimal(text) if isinstance(text, str) and DECIMAL.fullmatch(text) else value


def _unknown(name: str, properties: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name[:64], properties, n=1, cutoff=0.5)
    if near:
        return f"no parameter {shown(name, 48)!r}; did you mean {near[0]!r}?"
    return f"no parameter {shown(name, 48)!r}; there are {', '.join(sorted(properties)) or 'none'}"


def _invalid(parameters: dict[str, Any], schema: Mapping[str, Any]) -> Iterator[Wrong]:
    errors: list[ValidationError] = list(_VALIDATOR(dict(schema)).iter_errors(parameters))
    for error in sorted(errors, key=lambda one: [str(part) for part in one.absolute_path]):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{shown(part)}" for part in error.absolute_path)
        yield path, _sentence(error)


def _below(_validator: Any, limit: str, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and DECIMAL.fullmatch(value) and Decimal(value) < Decimal(limit):
        yield ValidationError(f"{value} is below the minimum {limit}")


def _above(_validator: Any, limit: str, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and DECIMAL.fullmatch(value) and Decimal(value) > Decimal(limit):
        yield ValidationError(f"{value} is above the maximum {limit}")


_VALIDATOR: Any = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"decimalMinimum": _below, "decimalMaximum": _above}
)
"""JSON Schema knows bounds of numbers only; a decimal string's stand in `decimalMinimum` and `decimalMaximum`."""


def _sentence(error: ValidationError) -> str:
    """Say what is wrong in one line; a value is shown short and printable."""
    value = shown(json.dumps(error.instance, default=str), 40)
    for keyword, words in _SENTENCES.items():
        if error.validator == keyword:
            return f"{value} {words(error.validator_value)}"
    return shown(error.message, 160)


_SENTENCES: Mapping[str, Callable[[Any], str]] = {
    "minimum": lambda limit: f"is below the minimum {limit}",
    "maximum": lambda limit: f"is above the maximum {limit}",
    "exclusiveMinimum": lambda limit: f"must be above {limit}",
    "exclusiveMaximum": lambda limit: f"must be below {limit}",
    "minItems": lambda limit: f"has fewer than {limit} items",
    "maxItems": lambda limit: f"has more than {limit} items",
    "maxLength": lambda limit: f"is longer than {limit} characters",
    "enum": lambda allowed: f"is none of {shown(json.dumps(allowed), 100)}",
    "const": lambda allowed: f"is not {shown(json.dumps(allowed), 60)}",
    "type": lambda wanted: f"is not of type {' or '.join(wanted) if isinstance(wanted, list) else wanted}",
    "pattern": lambda wanted: f"does not match {shown(wanted, 80)}",
}
