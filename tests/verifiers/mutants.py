"""Mutants of a bundle, by class: what an attacker, a careless writer or a broken disk would make of it."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of the group of P-256 (SEC 2)."""

Document = dict[str, Any]
Mutate = Callable[[random.Random, Document], Document | bytes]


def _dump(document: Document) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _envelope(document: Document) -> Document:
    envelope: Document = document["dsseEnvelope"]
    return envelope


def _signature(change: Callable[[random.Random, bytes], bytes]) -> Mutate:
    def mutate(draw: random.Random, document: Document) -> Document:
        one = _envelope(document)["signatures"][0]
        one["sig"] = base64.b64encode(change(draw, base64.b64decode(one["sig"]))).decode()
        return document

    return mutate


def _pair(change: Callable[[int, int], tuple[int, int]]) -> Mutate:
    return _signature(lambda _, der: encode_dss_signature(*change(*decode_dss_signature(der))))


def _payload(change: Callable[[random.Random, bytes], bytes]) -> Mutate:
    def mutate(draw: random.Random, document: Document) -> Document:
        envelope = _envelope(document)
        envelope["payload"] = base64.b64encode(change(draw, base64.b64decode(envelope["payload"]))).decode()
        return document

    return mutate


def _text(where: str, change: Callable[[random.Random, str], str]) -> Mutate:
    """Change the base64 text of payload or signature."""

    def mutate(draw: random.Random, document: Document) -> Document:
        holder = _envelope(document) if where == "payload" else _envelope(document)["signatures"][0]
        holder[where] = change(draw, holder[where])
        return document

    return mutate


def _set(change: Callable[[Document], object]) -> Mutate:
    def mutate(_: random.Random, document: Document) -> Document:
        change(document)
        return document

    return mutate


def _raw(change: Callable[[random.Random, bytes], bytes]) -> Mutate:
    return lambda draw, document: change(draw, _dump(document))


def _flip(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def _cut(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data))]


def _insert(letter: str) -> Callable[[random.Random, str], str]:
    def change(draw: random.Random, text: str) -> str:
        at = draw.randrange(1, len(text) - 4)
        return text[:at] + letter + text[at:]

    return change


def _long_length(_: random.Random, der: bytes) -> bytes:
    """Write the sequence's length in two bytes, as BER allows and DER does not."""
    return der[:1] + b"\x81" + der[1:]


def _indefinite(_: random.Random, der: bytes) -> bytes:
    return der[:1] + b"\x80" + der[2:] + b"\x00\x00"


def _padded_integer(_: random.Random, der: bytes) -> bytes:
    """Put a needless zero before r."""
    size = der[3]
    return bytes([0x30, der[1] + 1, 2, size + 1, 0]) + der[4:]


def _raw_pair(_: random.Random, der: bytes) -> bytes:
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _trailing_bits(draw: random.Random, text: str) -> str:
    """Set a bit that padding leaves unused, if the length leaves any."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    bare = text.rstrip("=")
    return bare[:-1] + letters[letters.index(bare[-1]) | 1] + "=" * (len(text) - len(bare))


def _mixed(_: random.Random, text: str) -> str:
    """Write one of the two alphabets' own letters in the other's form, and leave the rest."""
    return text.replace("+", "-", 1) if text.count("+") > 1 else text.replace("/", "_", 1)


def _second_signature(good: bool) -> Callable[[Document], object]:
    def change(document: Document) -> None:
        [one] = _envelope(document)["signatures"]
        other = one if good else {**one, "sig": base64.b64encode(encode_dss_signature(1, 2)).decode()}
        _envelope(document)["signatures"].append(dict(other))

    return change


def _duplicate(field: str, value: str) -> Mutate:
    return _raw(lambda _, data: data.replace(f'"{field}":'.encode(), f'"{field}":{value},"{field}":'.encode(), 1))


def _keyid(document: Document) -> Document:
    found: Document = _envelope(document)["signatures"][0]
    return found


def _hint(document: Document) -> Document:
    found: Document = document["verificationMaterial"]["publicKey"]
    return found


CLASSES: Mapping[str, Mutate] = {
    "payload_bit": _payload(_flip),
    "payload_cut": _payload(_cut),
    "payload_empty": _payload(lambda *_: b""),
    "payload_trailing_byte": _payload(lambda _, data: data + b"\n"),
    "payload_crlf": _payload(lambda _, data: data + b"\r\n"),
    "payload_type_other": _set(lambda d: _envelope(d).update(payloadType="application/vnd.in-toto+xml")),
    "payload_type_empty": _set(lambda d: _envelope(d).update(payloadType="")),
    "payload_type_upper": _set(lambda d: _envelope(d).update(payloadType="application/vnd.in-toto+JSON")),
    "payload_type_parameter": _set(lambda d: _envelope(d).update(payloadType="application/vnd.in-toto+json;v=1")),
    "payload_absent": _set(lambda d: _envelope(d).pop("payload")),
    "payload_null": _set(lambda d: _envelope(d).update(payload=None)),
    "payload_url_safe": _text("payload", lambda _, text: text.replace("+", "-").replace("/", "_")),
    "payload_mixed_alphabets": _text("payload", _mixed),
    "payload_blank": _text("payload", _insert(" ")),
    "payload_line_break": _text("payload", _insert("\n")),
    "payload_junk": _text("payload", _insert("!")),
    "payload_no_padding": _text("payload", lambda _, text: text.rstrip("=")),
    "payload_more_padding": _text("payload", lambda _, text: text + "===="),
    "payload_trailing_bits": _text("payload", _trailing_bits),
    "signature_bit": _signature(_flip),
    "signature_cut": _signature(_cut),
    "signature_trailing_byte": _signature(lambda _, der: der + b"\x00"),
    "signature_long_length": _signature(_long_length),
    "signature_indefinite_length": _signature(_indefinite),
    "signature_padded_integer": _signature(_padded_integer),
    "signature_raw_pair": _signature(_raw_pair),
    "signature_n_minus_s": _pair(lambda r, s: (r, ORDER - s)),
    "signature_r_zero": _pair(lambda _, s: (0, s)),
    "signature_s_zero": _pair(lambda r, _: (r, 0)),
    "signature_r_over_n": _pair(lambda r, s: (r + ORDER, s)),
    "signature_s_over_n": _pair(lambda r, s: (r, s + ORDER)),
    "signature_swapped": _pair(lambda r, s: (s, r)),
    "signature_no_padding": _text("sig", lambda _, text: text.rstrip("=")),
    "signature_more_padding": _text("sig", lambda _, text: text + "===="),
    "signature_blank": _text("sig", _insert(" ")),
    "signature_junk": _text("sig", _insert("!")),
    "signature_trailing_bits": _text("sig", _trailing_bits),
    "signature_empty": _text("sig", lambda *_: ""),
    "signatures_none": _set(lambda d: _envelope(d)["signatures"].clear()),
    "signatures_two_good": _set(_second_signature(True)),
    "signatures_extra_bad": _set(_second_signature(False)),
    "keyid_other": _set(lambda d: _keyid(d).update(keyid="0" * 64)),
    "keyid_absent": _set(lambda d: _keyid(d).pop("keyid")),
    "keyid_upper": _set(lambda d: _keyid(d).update(keyid=_keyid(d)["keyid"].upper())),
    "hint_other": _set(lambda d: _hint(d).update(hint="0" * 64)),
    "hint_absent": _set(lambda d: _hint(d).pop("hint")),
    "media_type_0_1": _set(lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1")),
    "media_type_0_9": _set(lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle.v0.9+json")),
    "media_type_other": _set(lambda d: d.update(mediaType="application/json")),
    "tlog_entry": _set(lambda d: d["verificationMaterial"].update(tlogEntries=[{"logIndex": "1"}])),
    "certificate_beside_key": _set(lambda d: d["verificationMaterial"].update(certificate={"rawBytes": "AAAA"})),
    "message_signature": _set(lambda d: d.update(messageSignature={"signature": "AAAA"})),
    "unknown_field": _set(lambda d: d.update(note="unknown")),
    "unknown_field_inside": _set(lambda d: _keyid(d).update(note="unknown")),
    "duplicate_payload": _duplicate("payload", '"e30="'),
    "duplicate_media_type": _duplicate("mediaType", '"x"'),
    "byte_order_mark": _raw(lambda _, data: b"\xef\xbb\xbf" + data),
    "trailing_document": _raw(lambda _, data: data + b"{}"),
    "trailing_newline": _raw(lambda _, data: data + b"\n"),
    "leading_blank": _raw(lambda _, data: b" " + data),
    "utf_16": _raw(lambda _, data: data.decode().encode("utf-16")),
    "file_bit": _raw(_flip),
    "file_cut": _raw(_cut),
    "file_empty": _raw(lambda *_: b""),
}


def mutant(name: str, draw: random.Random, honest: bytes) -> bytes:
    """Return one mutant of a class; it may happen to equal the original."""
    made = CLASSES[name](draw, json.loads(honest))
    return made if isinstance(made, bytes) else _dump(made)
