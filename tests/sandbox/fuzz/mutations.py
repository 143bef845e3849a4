"""Ways to spoil a document: its bytes, or the tree of values in it."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

TOKENS = (
    b"null", b"true", b"false", b"NaN", b"Infinity", b"-0", b"1e999", b"0.5", b"-1", b"9007199254740992", b'""',
    b"[]", b"{}", b"[[[[", b"]]]]", b'{"a":', b'\\u0000', b'\\ud800', b"\\u0061", b"\xff", b"\xef\xbb\xbf", b"\0",
    b"\n", b'"a":1,"a":2', b",", b":", b'"', b"9" * 400, b"../", b"__class__", b"auto_map", b" ",
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, "", "0",
    "\0", "\n", "\ud800", "\u202e", "x" * 300, "x" * 5000, "../a", "__class__", "auto_map", "a b", "<b>", [], {}, [[]],
    [None], {"": None}, {"a": {}}, [0] * 70, [[[[[[[[[[]]]]]]]]]], {"type": []}, {"type": {}}, {"Regex": []},
)  # fmt: skip


def bytes_of(data: bytes, chance: Random) -> bytes:
    """Return the data with one to six places spoilt."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        place = chance.randrange(len(made) + 1)
        match chance.randrange(7):
            case 0 if place < len(made):
                made[place] = chance.randrange(256)
            case 1 if place < len(made):
                made[place] = chance.choice(b'0123456789{}[]",: \\-')
            case 2:
                del made[place : place + chance.choice((1, 1, 2, 8))]
            case 3:
                made[place:place] = bytes([chance.choice(b'0123456789{}[]",: \\-')])
            case 4:
                made[place:place] = chance.choice(TOKENS)
            case 5:
                other = chance.randrange(len(made) + 1)
                made[place:place] = made[other : other + chance.choice((1, 4, 16, 64))]
            case _:
                del made[place:]
    return bytes(made)


def tree_of(value: Any, chance: Random) -> Any:
    """Return a copy of the value with one to three of its parts replaced, taken away, doubled or renamed."""
    made = [copy.deepcopy(value)]
    for _ in range(chance.choice((1, 1, 2, 3))):
        holder, key = chance.choice(_places(made))
        match chance.randrange(5):
            case 0 | 1:
                holder[key] = copy.deepcopy(chance.choice(VALUES))
            case 2:
                other, place = chance.choice(_places(made))
                holder[key] = copy.deepcopy(other[place])
            case 3 if isinstance(holder, dict):
                holder[chance.choice(("", "auto_map", "verdict", "type", "x" * 300, *holder))] = holder.pop(key)
            case 4 if isinstance(holder, list) and holder is not made:
                holder.insert(key, copy.deepcopy(holder[key]))
            case _ if holder is not made:
                del holder[key]
    return made[0]


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    pending: list[Any] = [root]
    while pending:
        one = pending.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one))
        for key in keys:
            found.append((one, key))
            if isinstance(one[key], (dict, list)):
                pending.append(one[key])
    return found


def document_of(value: Any, chance: Random) -> bytes:
    """Return JSON of a spoilt tree, or the spoilt bytes of good JSON, or both."""
    if chance.randrange(3):
        value = tree_of(value, chance)
    data = json.dumps(value, ensure_ascii=bool(chance.randrange(2)), separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )
    return data if chance.randrange(3) else bytes_of(data, chance)
