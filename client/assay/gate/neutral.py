"""Text of others, made harmless for the place where it is printed.

A metric's name can hold a workflow command, an escape sequence, a closing code span or a right-to-left override; a
console, a Markdown page and an XML reader each obey different ones.
"""

from __future__ import annotations

import re

LIMIT = 400
"""Characters of one piece of text: a name has at most 128 and a detail of ours about 200."""

_XML_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Everything outside the production Char of XML 1.0, section 2.2."""

_MARKDOWN = str.maketrans({"`": "'", "|": "\u00a6", "<": "\u2039", ">": "\u203a"})
"""No character that ends a code span, a table cell or starts a tag; what is shown still looks alike."""


def line(text: object, limit: int = LIMIT) -> str:
    """Return one printable line: controls, escapes and direction overrides replaced, old workflow commands broken."""
    plain = "".join(letter if letter.isprintable() else "\ufffd" for letter in str(text)[: limit + 1])
    plain = plain if len(plain) <= limit else plain[: limit - 1] + "…"
    return plain.replace("##[", "## [")


def behind_bar(text: object) -> str:
    """Return a line for the console, behind a bar: a workflow command stands at the start of a line only."""
    return f"  | {line(text)}"


def xml(text: object) -> str:
    """Return text without what XML 1.0 forbids; escaping is the writer's."""
    return _XML_ILLEGAL.sub("\ufffd", line(text))


def code(text: object) -> str:
    """Return a Markdown code span that fits a table cell."""
    inner = line(text).replace("<=", "\u2264").replace(">=", "\u2265").translate(_MARKDOWN).strip()
    return f"`{inner or '-'}`"


def annotation(text: object) -> str:
    """Return the message of a workflow command."""
    return line(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def annotation_property(text: object) -> str:
    """Return a property of a workflow command."""
    return annotation(text).replace(":", "%3A").replace(",", "%2C")
