"""Hostile result documents, each with its one code; and the valid neighbour of all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

SCHEMA = "assay-cell-result/v1"
NONCE = "5a" * 32
FIELDS = ("schema", "nonce", "answers", "ingest", "facts")
CAP = 2**18

Json = dict[str, Any]


def good() -> Json:
    """Return a document that is accepted."""
    return {"schema": SCHEMA, "nonce": NONCE, "answers": [{"n": 10, "word": "detected"}], "ingest": {}, "facts": None}


_GOOD = json.dumps(good()).encode()
_DEEP: Any = "x"
for _ in range(40):
    _DEEP = [_DEEP]


def _n(text: bytes) -> bytes:
    return _GOOD.replace(b"10", text)


BYTES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "result_missing"),
    "cap + 1": (b" " * (CAP + 1), "result_over_cap"),
    "bad UTF-8": (_GOOD.replace(b"detected", b"\xff"), "result_not_utf8"),
    "raw surrogate": (_GOOD.replace(b"detected", b"\xed\xa0\x80"), "result_not_utf8"),
    "BOM": (b"\xef\xbb\xbf" + _GOOD, "result_bom"),
    "UTF-16": (_GOOD.decode().encode("utf-16"), "result_bom"),
    "trailing bytes": (_GOOD + b"x", "result_trailing"),
    "trailing NUL": (_GOOD + b"\0", "result_trailing"),
    "two documents": (_GOOD + _GOOD, "result_trailing"),
    "two lines": (_GOOD + b"\n" + _GOOD, "result_trailing"),
    "duplicate key": (_GOOD.replace(b'"facts": null', b'"facts": null, "facts": null'), "result_duplicate_key"),
    "duplicate by escape": (_GOOD.replace(b'"n": 10', b'"n": 10, "\\u006e": 11'), "result_duplicate_key"),
    "duplicate nonce": (_GOOD.replace(b'"nonce"', b'"nonce": "00", "nonce"'), "result_duplicate_key"),
    "25 levels": (b"[" * 25 + b"]" * 25, "result_too_deep"),
    "10^5 levels": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "result_too_deep"),
    "40 levels within": (json.dumps(good() | {"facts": _DEEP}).encode(), "result_too_deep"),
    "NaN": (_n(b"NaN"), "result_number"),
    "Infinity": (_n(b"-Infinity"), "result_number"),
    "1e999": (_n(b"1e999"), "result_number"),
    "fraction": (_n(b"0.5"), "result_number"),
    "exponent": (_n(b"1e3"), "result_number"),
    "minus zero": (_n(b"-0"), "result_number"),
    "2^53": (_n(b"9007199254740992"), "result_number"),
    "200 000 digits": (_n(b"9" * 200_000), "result_number"),
    "lone surrogate": (_GOOD.replace(b"detected", rb"\ud800"), "result_surrogate"),
    "lone surrogate in a key": (_GOOD.replace(b'"word"', rb'"\udfff"'), "result_surrogate"),
    "NUL by escape": (_GOOD.replace(b"detected", rb"\u0000"), "result_schema"),
    "not JSON": (b"{", "result_schema"),
    "Python": (repr(good()).encode(), "result_schema"),
    "pickle": (b"\x80\x04}.", "result_not_utf8"),
    "a list": (b"[]", "result_schema"),
    "null": (b"null", "result_schema"),
    "a string": (b'"result"', "result_schema"),
}
"""What is no document at all."""


def _top(**changes: Any) -> Callable[[Json], None]:
    return lambda value: value.update(changes)


def _answer(**changes: Any) -> Callable[[Json], None]:
    return lambda value: value["answers"][0].update(changes)


CHANGES: dict[str, tuple[Callable[[Json], Any], str]] = {
    "another run's nonce": (_top(nonce="00" * 32), "result_nonce"),
    "nonce in capitals": (_top(nonce=NONCE.upper()), "result_nonce"),
    "nonce a list": (_top(nonce=[NONCE]), "result_nonce"),
    "no nonce": (lambda value: value.pop("nonce"), "result_schema"),
    "another schema": (_top(schema="assay-cell-result/v2"), "result_schema"),
    "the other cell's schema": (_top(schema="assay-ingest/v1"), "result_schema"),
    "schema null": (_top(schema=None), "result_schema"),
    "no answers": (lambda value: value.pop("answers"), "result_schema"),
    "unknown key": (_top(extra=1), "result_schema"),
    "key of markup": (_top(**{"<script>": 1}), "result_schema"),
    "verdict": (_top(verdict="pass"), "host_field_claimed"),
    "seal": (_top(seal={}), "host_field_claimed"),
    "usage": (_top(usage={}), "host_field_claimed"),
    "another model": (_top(model={"manifest_sha256": "00" * 32}), "host_field_claimed"),
    "another seed": (_top(seed=7), "host_field_claimed"),
    "attempt": (_top(attempt=2), "host_field_claimed"),
    "signature": (_top(signature="00"), "host_field_claimed"),
    "verdict of one answer": (_answer(verdict="pass"), "host_field_claimed"),
    "times of one answer": (_answer(started_at="2026-01-01T00:00:00Z"), "host_field_claimed"),
    "seal deep within": (_answer(x=[{"y": {"seal": {}}}]), "host_field_claimed"),
}
"""What is a document, and says what is not so. The vocabulary's own lies are with `service.worker.hostile`."""
