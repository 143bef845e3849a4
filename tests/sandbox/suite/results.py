"""Cases on what a cell leaves (S07, S34 to S38): documents that the result parser refuses, beside one that it takes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from assay import canonical

from sandbox.budget import charge_bits
from sandbox.cell import Kind, Order
from sandbox.channels import Ring
from sandbox.errors import ResultRejected
from sandbox.reader.names import check_path
from sandbox.suite.attacks.words import THROUGH, Found
from sandbox.suite.case import Case, Row, judge
from service.worker.hostile import RESULT_CAP, CellResult, parse_result
from service.worker.request import AskedCheck
from tests.service.worker.scripted import catalogue, document

NONCE, OTHER = "5a" * 32, "a5" * 32
KIND: Kind = "check"
_ASKED = (AskedCheck(name="scripted", version="1.0", params={"seeds": 3, "bold": True}),)
_DIGEST = "00" * 32

Json = dict[str, Any]


def rows() -> list[Row]:
    """Run them all."""
    return [names(), malformed(), claimed(), of_another_run(), text(), low_bits()]


def good(nonce: str = NONCE) -> Json:
    """Return a document that is accepted."""
    return document(Order(kind=KIND, module="checks", code=(), request=b"{}", nonce=nonce))


def parse(data: bytes) -> CellResult:
    """Parse as the worker does."""
    entry = catalogue().entry("scripted")
    assert entry is not None
    return parse_result(data, nonce=NONCE, asked=_ASKED, promises={"scripted": entry}, paths={"config.json"})


def _code(data: bytes) -> str:
    try:
        parse(data)
    except ResultRejected as error:
        return error.code
    return THROUGH


def _judged(case: Case, wanted: Mapping[str, tuple[bytes, str]], controls: Found | None = None) -> Row:
    """Parse each document: "refused" when the wanted code said so. The twin is the document without the attack."""
    found: Found = {}
    for name, (data, code) in wanted.items():
        got = _code(data)
        found[name] = "refused" if got == code else got if got == THROUGH else f"{got} in place of {code}"
    twin = THROUGH if _code(canonical.dumps(good())) == THROUGH else "refused"
    row = judge(case, KIND, found, [controls if controls is not None else dict.fromkeys(found, twin)], [])
    codes = ", ".join(sorted({code for _data, code in wanted.values()}))
    return replace(row, observed=f"{row.observed}: {codes}") if row.word == "denied" else row


def _case(number: str, attack: str, expected: str, shown: str = "the twin is accepted") -> Case:
    return Case(
        id=number, attack=attack, controls=("twin",), shown=shown, expected=expected,
        denied=frozenset({"refused", "escaped", "counted"}),
    )  # fmt: skip


def _changed(change: Callable[[Json], None]) -> bytes:
    value = good()
    change(value)
    return json.dumps(value).encode()


def _top(**changes: Any) -> bytes:
    return _changed(lambda value: value.update(changes))


def _answer(**changes: Any) -> bytes:
    return _changed(lambda value: value["answers"][0].update(changes))


def _metric(**changes: Any) -> bytes:
    return _changed(lambda value: value["answers"][0]["measured"]["metrics"][0].update(changes))


def _finding(**changes: Any) -> bytes:
    return _changed(lambda value: value["answers"][0]["findings"][0].update(changes))


def names() -> Row:
    """S07: names that were claimed in a result, or uploaded."""
    odd = {
        "nul": "config.json\0", "newline": "a\nb", "dots": "..", "long": "a" * 4096, "look_alike": "c\u043enfig.json",
        "escape": "\x1b[2J", "surrogate": "a\udcff",
    }  # fmt: skip
    case = _case("S07", "odd names: claimed in a result, uploaded", "name_charset; refused by the result's schema")
    found: Found = {}
    for name, path in odd.items():
        found[f"upload_{name}"] = "refused" if check_path(path) in ("name_charset", "name_depth") else THROUGH
        claimed = {"path": path, "decision": "accepted", "reason": None, "at": None}
        data = json.dumps(good() | {"ingest": {"decisions": [claimed]}}).encode()
        found[f"claim_{name}"] = THROUGH if _code(data) == THROUGH else "refused"
    twins = {"upload": check_path("config.json") is None, "claim": _code(canonical.dumps(good())) == THROUGH}
    control = {name: THROUGH if twins[name.partition("_")[0]] else "refused" for name in found}
    return judge(case, KIND, found, [control], [])


def malformed() -> Row:
    """S34: bytes that are no document, or too much of one."""
    plain = canonical.dumps(good())
    wanted: dict[str, tuple[bytes, str]] = {
        "over_cap": (b" " * (RESULT_CAP + 1), "result_over_cap"),
        "nothing": (b"", "result_missing"),
        "trailing": (plain + b"x", "result_trailing"),
        "two_documents": (plain + plain, "result_trailing"),
        "depth": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "result_too_deep"),
        "duplicate_key": (plain.replace(b'"facts":null', b'"facts":null,"facts":null'), "result_duplicate_key"),
        "surrogate": (plain.replace(b'"detected"', rb'"\ud800"'), "result_surrogate"),
        "bom": (b"\xef\xbb\xbf" + plain, "result_bom"),
        "bad_utf8": (plain.replace(b"detected", b"\xff"), "result_not_utf8"),
        "array": (b"[]", "result_schema"),
        "unknown_key": (_top(extra=1), "result_schema"),
    }
    for name, number in {"nan": b"NaN", "infinity": b"Infinity", "huge": b"1e999", "digits": b"9" * 9000}.items():
        wanted[name] = (plain.replace(b'"n":10', b'"n":' + number), "result_number")
    million = b'{"n":' + b"9" * 10**6 + b"}"
    wanted["million_digits"] = (million, "result_number")
    return _judged(_case("S34", "malformed result documents", "the code of section 9, each"), wanted)


def claimed() -> Row:
    """S35: what only the host may say."""
    said: dict[str, Any] = {"verdict": "pass", "seal": {}, "usage": {}, "seed": 1, "model": {}, "signature": ""}
    wanted = {f"top_{name}": (_top(**{name: value}), "host_field_claimed") for name, value in said.items()}
    wanted |= {
        f"answer_{name}": (_answer(**{name: _DIGEST}), "host_field_claimed")
        for name in ("verdict", "code_sha256", "catalogue_sha256", "seed")
    }
    differing: dict[str, Any] = {
        "check": "other",
        "version": "2.0",
        "params": {"seeds": 4, "bold": True},
        "valid": False,
    }
    wanted |= {name: (_answer(**{name: value}), "host_field_disagrees") for name, value in differing.items()}
    return _judged(
        _case("S35", "claims what only the host may say", "host_field_claimed, host_field_disagrees"), wanted
    )


def of_another_run() -> Row:
    """S36: the result of an older run, with another nonce, with none."""
    without = good()
    del without["nonce"]
    wanted = {
        "older": (canonical.dumps(good(OTHER)), "result_nonce"),
        "empty": (_top(nonce=""), "result_nonce"),
        "null": (_top(nonce=None), "result_nonce"),
        "absent": (canonical.dumps(without), "result_schema"),
    }
    return _judged(_case("S36", "a result of another run", "result_nonce; without one result_schema"), wanted)


def text() -> Row:
    """S37: markup, terminal codes, formulas, lines; a raw file shows each, and the operator's log escapes it."""
    hostile = {
        "html": "<script>alert(1)</script>", "ansi": "\x1b[31mred\x1b[0m", "formula": "=HYPERLINK(1)",
        "line": "x\nERROR: signed", "bidi": "\u202eabc",
    }  # fmt: skip
    found: Found = {}
    control: Found = {}
    for name, value in hostile.items():
        for place, data in (("name", _metric(name=value)), ("claim", _finding(claim=f"{value}\n"))):
            got = _code(data)
            found[f"{place}_{name}"] = "refused" if got == "free_text" else got
            control[f"{place}_{name}"] = THROUGH if value in _strings(json.loads(data)) else "not there"
        ring = Ring(1024)
        ring.add(value.encode())
        lines = ring.lines("out")
        fine = lines.isascii() and all(line.startswith("out| ") for line in lines.splitlines()) and "\x1b" not in lines
        found[f"log_{name}"] = "escaped" if fine else THROUGH
        control[f"log_{name}"] = THROUGH
    case = _case("S37", "markup, terminal codes, formulas, lines in names and logs", "free_text; logs escaped",
                 "the raw document and log show each")  # fmt: skip
    return judge(case, KIND, found, [control], [])


def _strings(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(_strings(one) for one in value.values())
    if isinstance(value, list):
        return " ".join(_strings(one) for one in value)
    return str(value)


def low_bits() -> Row:
    """S38: what numbers and lengths can carry: refused where it is not on the grid, counted where it is."""
    secret = bytes(range(256)) * 4
    numbers = [_with_low_bits(secret[at : at + 6]) for at in range(0, len(secret), 6)]
    recovered = b"".join(_low_bits(one) for one in numbers)[: len(secret)]
    case = _case("S38", "bytes in low bits, list lengths", "unquantised_number; else decoded bits <= charged bits",
                 "a decoder recovers 1 KiB from numbers as they are")  # fmt: skip
    through = THROUGH if recovered == secret else "nothing recovered"
    found = {"mantissa": "refused" if _code(_metric(value=repr(numbers[0]))) == "unquantised_number" else THROUGH}
    for name, value in {
        "fine_step": {"step": "0.000000001"},
        "zeros": {"value": "0.50"},
        "exponent": {"value": "5e-1"},
    }.items():
        found[name] = "refused" if _code(_metric(**value)) == "unquantised_number" else THROUGH
    words = {"a", "b"}
    found["grid"] = _counted(charge_bits("0.57", words), 101)
    found["choice"] = _counted(charge_bits("a", words), len(words))
    # Of a list whose items are known only the length is news: the lengths' charges must be those of a code (Kraft).
    lengths = sum(2.0 ** -charge_bits(["a"] * count, words) for count in range(64))
    found["length"] = "counted" if lengths <= 1 else THROUGH
    found["integer"] = _counted(charge_bits(123_456, words), 10**6)
    return judge(case, KIND, found, [dict.fromkeys(found, through)], [])


def _counted(charged: int, values: int) -> str:
    """Tell whether a value that was one of so many is charged for at least as many bits."""
    return "counted" if charged >= math.log2(values) else THROUGH


def _with_low_bits(piece: bytes) -> float:
    plain = struct.pack(">d", 0.5)
    return float(struct.unpack(">d", plain[:2] + piece.ljust(6, b"\0"))[0])


def _low_bits(number: float) -> bytes:
    return struct.pack(">d", number)[2:]
