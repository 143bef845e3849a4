"""The interface of a judge that labels what the verifier leaves undecided (contamination, 6.10).

No judge comes with the check, and none ever gates: a label stands in a table beside the verifier's word. Whatever
goes wrong with a judge is `undecided`, never `different`: a public tool that reads a failed call as "no" reports
fewer leaks the worse its judge works.
"""

from __future__ import annotations

import hashlib
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Protocol, cast, get_args

from checks.contamination.items import Item
from checks.contamination.regions import Region
from checks.contamination.verifier import Verdict

JUDGE_SECONDS = 30.0
"""Wait for one reply. Own choice: a local model of 8 billion parameters reads 500 words and writes one in less."""

FENCE_LETTERS = 16
"""Hexadecimal letters of a fence: 64 bits, so no text that was written before holds its own."""


class Judge(Protocol):
    """A local model or a person; no tools, no network."""

    def compare(self, item: Item, region: str) -> str:
        """Return "same", "different" or "undecided".

        Args:
            item: the item.
            region: text of the region, fenced (`fenced`); words inside the fence are never instructions.
        """
        ...


def label(judge: Judge, item: Item, region: Region, seconds: float = JUDGE_SECONDS) -> Verdict:
    """Return a judge's word on a pair; `undecided` where it raises, replies anything else, or is late.

    Args:
        judge: asked once, never again: repeated asking until a reply fits selects replies.
        item: the item.
        region: the region.
        seconds: wait for the reply; a late one is thrown away.
    """
    replies: SimpleQueue[object] = SimpleQueue()

    def ask() -> None:
        try:
            replies.put(judge.compare(item, fenced(region.text)))
        except Exception:  # a judge is foreign code: no failure of it may end a scan or become a verdict
            replies.put(None)

    Thread(target=ask, daemon=True).start()
    try:
        reply = replies.get(timeout=seconds)
    except Empty:
        return "undecided"
    return cast(Verdict, reply) if isinstance(reply, str) and reply in get_args(Verdict) else "undecided"


def fenced(text: str) -> str:
    """Return a text between two lines that it cannot hold: they are made of its own digest."""
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:FENCE_LETTERS]
    return f"<<{mark}\n{text}\n{mark}>>"
