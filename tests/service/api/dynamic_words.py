"""Every word of a message that changes from call to call must stand in its metadata: machines read no message."""

from __future__ import annotations

import re
from collections.abc import Collection

from service.rules.errors import REASONS

DYNAMIC = re.compile(
    r"(?<!\w)'(?P<quoted>[^']*)'(?!\w)"
    r"|[\w/]*(?:\{[^}]*\}[\w/]*)+|64 lower-case hex digits"  # only look so: forms, and the length of a digest
    r"|(?P<name>\b(?:models|audits|blobs|checks|schedules|webhooks)/[\w./-]*\w)"
    r"|(?<![\w.^-])(?P<number>-?\d+(?:\.\d+)?)(?!\w)"
)
"""A quoted word, a resource's name, a number."""


def untold(reason: str, message: str, told: Collection[str]) -> list[str]:
    """Return the dynamic words of a message that no value of its metadata holds."""
    text = message.removesuffix(REASONS[reason].next_move)
    if text.endswith("..."):
        text = text.rpartition(" ")[0]  # it was cut, perhaps within a word
    found = ((one.lastgroup, one[one.lastgroup or 0]) for one in DYNAMIC.finditer(text))
    words = {_plain(word) for kind, word in found if kind is not None and word}
    return [word for word in sorted(words) if not any(_holds(_plain(value), word) for value in told)]


def _plain(text: str) -> str:
    """Undo what quoting does to a backslash."""
    return text.replace("\\\\", "\\")


def _holds(value: str, word: str) -> bool:
    """Tell whether a value of metadata is the word, or names it as the message does."""
    return value == word or re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", value) is not None
