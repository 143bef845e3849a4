"""HTML from plain values: whatever is not markup already is escaped, and what the page must not hold cannot be made."""

from __future__ import annotations

import html
import re
from functools import cache, lru_cache

from assay.errors import shown

TEXT_MAX = 512
"""Longest text of others shown: what a signer accepts (specification, section 3)."""

SHORT = 64
"""Letters up to which an escaped text is remembered: names, labels and numbers stand on a page many times."""

ATTRIBUTE_MAX = 4 * 1024 * 1024
"""Longest attribute: paths are made of our own numbers, and a page has a cap of its own."""

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*", re.ASCII)
_VOID = frozenset({"meta", "br", "hr"})
_FORBIDDEN = frozenset({"script", "style", "details", "iframe", "object", "embed", "link", "base", "form", "img"})
"""Elements that the page has no use for; the one style sheet is written by the page itself."""


_PLAIN = re.compile(r"[][A-Za-z0-9 .,:;()_/@+#=%|-]*", re.ASCII)
"""Text that needs no escape: nearly all of a page, so it is looked at once."""

_ADDRESSES = frozenset({"href", "src", "action", "xlink:href", "srcset", "data", "poster", "formaction"})
_FRAGMENT = re.compile(r"#[a-z][a-z0-9-]*", re.ASCII)


class Html(str):
    """Text that is markup already; only this module and the drawing of plots make it from text."""

    __slots__ = ()


def text(value: object, limit: int = TEXT_MAX) -> Html:
    """Return a text, perhaps of others, printable, shortened and escaped."""
    if isinstance(value, Html):
        return value
    plain = value if isinstance(value, str) else "?" if value is None else str(value)
    return _escaped(plain, limit) if len(plain) <= SHORT else _escape(plain, limit)


def _escape(plain: str, limit: int) -> Html:
    if len(plain) <= limit and _PLAIN.fullmatch(plain):
        return Html(plain)
    if len(plain) > limit or not plain.isprintable():
        plain = shown(plain, limit)
    return Html(html.escape(plain, quote=True))


_escaped = lru_cache(maxsize=4096)(_escape)


def join(*parts: object, by: str = "") -> Html:
    """Return the parts, escaped where they are no markup, one after another."""
    written = [part if type(part) is Html else text(part) for part in parts]
    return Html((text(by) if by else "").join(written))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """Return an element. `class_` and `for_` lose the underscore at the end, other underscores become hyphens.

    Raises:
        ValueError: an element or attribute that the page's policy blocks: scripts, handlers, styles, addresses.
    """
    written = [_attribute(name, value) for name, value in attributes.items() if value is not None]
    opened = "".join([_tag(tag), *written])
    return Html(f"<{opened}>" if tag in _VOID else f"<{opened}>{join(*children)}</{tag}>")


@cache
def _tag(tag: str) -> str:
    if tag in _FORBIDDEN or not _NAME.fullmatch(tag):
        raise ValueError(f"no such element on a report page: {tag[:40]!r}")
    return tag


@cache
def _attribute_name(name: str) -> str:
    name = name.rstrip("_").replace("_", "-")
    if name == "style" or name.startswith("on") or not _NAME.fullmatch(name):
        raise ValueError(f"no such attribute on a report page: {name[:40]!r}")
    return name


def _attribute(name: str, value: object) -> str:
    name, written = _attribute_name(name), text(value, ATTRIBUTE_MAX)
    if name in _ADDRESSES and not _FRAGMENT.fullmatch(written):
        raise ValueError("a report page links to its own parts only")
    return f' {name}="{written}"'
