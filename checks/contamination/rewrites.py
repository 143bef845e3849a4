"""The role `rewrites`: the auditor's own paraphrases, read strictly (contamination, 4, 6.11).

A rewrite that has its item's words, or those of another rewrite of the item, measures nothing new: twenty copies of
one question with blanks behind them are neither reworded nor twenty.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from checks.contamination.items import Item, Rewrite, name_problems
from checks.contamination.normaliser import normalise
from checks.role_rows import field_problems, read_rows

DEPTH_MAX = 5
"""Deepest rewrite: reworded by a person (section 6.11)."""

REWORDED_MIN = 2
"""Shallowest depth that changes words (section 6.11): 0 and 1 are layout alone."""


def read_rewrites(rows: Sequence[Mapping[str, Any]], items: Iterable[Item]) -> tuple[Rewrite, ...]:
    """Return the paraphrases of the role `rewrites`, in record order.

    Args:
        rows: as parsed.
        items: the benchmark; a rewrite of none of them is refused.

    Raises:
        Refusal: `role_invalid`, as `read_benchmark`.
    """
    known = {(item.benchmark, item.item): _words(item.question) for item in items}

    def problems(row: Mapping[str, Any]) -> Iterable[str]:
        fields = ("benchmark", "item", "text", "depth")
        yield from field_problems(row, fields, (), fields[:3])
        yield from name_problems(row, known)
        if isinstance(row.get("text"), str) and not row["text"].strip():
            yield "text:empty"
        if "depth" in row and not (type(row["depth"]) is int and 0 <= row["depth"] <= DEPTH_MAX):
            yield "depth:not_0_to_5"
        elif fits(row) and row["depth"] >= REWORDED_MIN and _words(row["text"]) == known[row["benchmark"], row["item"]]:
            yield "text:same_words"

    def fits(row: Mapping[str, Any]) -> bool:
        named = row.get("benchmark"), row.get("item")
        return type(row.get("depth")) is int and isinstance(row.get("text"), str) and named in known

    def made(row: Mapping[str, Any]) -> Rewrite:
        return Rewrite(benchmark=row["benchmark"], item=row["item"], text=row["text"], depth=row["depth"])

    def names(row: Mapping[str, Any]) -> Iterable[tuple[Hashable, ...]]:
        # Below, layout is what a depth changes.
        text = _words(row["text"]) if row["depth"] >= REWORDED_MIN else row["text"]
        yield row["benchmark"], row["item"], text

    return read_rows(rows, problems, made, names=names, place="rewrites:")


def _words(text: str) -> Hashable:
    return tuple(normalise(text).words) or text
