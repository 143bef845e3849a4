"""Functions taken from a document: from the document itself where it is Python, or from its fenced blocks.

Specification: contamination, section 6.7. Methods of classes and other languages come later. Nothing is executed.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from checks.contamination.code_canonical import Canonical, canonical
from checks.contamination.code_parsing import BYTES_MAX, Fault, parsed
from checks.contamination.interpreter_scopes import bindings

LINE_END = re.compile(rb"\r\n|\r|\n")
"""As Python counts lines."""

FENCE = re.compile(rb"[ \t]{0,3}(`{3,}|~{3,})[ \t]*([A-Za-z0-9_+.{}-]{0,32})[^\r\n]*")
"""The line that opens or closes a fenced block (CommonMark 0.31, section 4.5)."""

PYTHON_TAGS = (b"", b"python", b"py", b"python3", b"python2", b"{python}", b"{.python}")
"""Tags of a fenced block that may hold Python; a block without a tag is tried."""

WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
"""Words of a name, in either habit: max_item, maxItem."""

EXAMPLES = ("example", "for example", "e.g", ">>>", "...", "assert ", "input:", "output:")
"""Beginnings of lines that show examples: left out of descriptions (section 6.7). Own list."""


@dataclass(frozen=True)
class Function:
    """A function of a document, and what it is compared by."""

    name: str
    """As it is called; never to be reported."""
    source: str
    """Source that the interpreter can run: the function, and the imports, values and functions it names."""
    description: str
    """Its name in words, the comments above it and its docstring, without examples."""
    tokens: tuple[str, ...]
    """Tokens without comments, docstrings and blank space; equal for exact copies."""
    canonical: Canonical
    begin: int
    """First byte in the document's UTF-8."""
    end: int
    """One past its last byte."""


@dataclass(frozen=True)
class Extraction:
    """What a document gave."""

    functions: tuple[Function, ...]
    faults: tuple[Fault, ...]
    """Why blocks, or the document where it has none, gave nothing."""


def functions(document: str) -> Extraction:
    """Return the top-level functions of a document; never raises on any text.

    Args:
        document: a whole document: Python, or text with fenced blocks.
    """
    data = document.encode("utf-8", "replace")
    if b"def " not in data and b"def\t" not in data:
        return Extraction((), ())
    whole = parsed(document) if len(data) <= BYTES_MAX else "too_long"
    if isinstance(whole, ast.Module):
        return Extraction(tuple(_taken(whole, data, 0)), ())
    found: list[Function] = []
    faults: list[Fault] = []
    blocks = 0
    for begin, end in fenced(data):
        blocks += 1
        text = data[begin:end].decode("utf-8", "replace")
        tree = parsed(text)
        if isinstance(tree, ast.Module):
            found += _taken(tree, data[begin:end], begin)
        else:
            faults.append(tree)
    return Extraction(tuple(found), tuple(faults) if blocks else (whole,))


def fenced(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the byte spans of fenced blocks that may hold Python and a function; an open one ends with the text."""
    at, fence, begin, fits = 0, b"", 0, False
    while at < len(data):
        stop = LINE_END.search(data, at)
        line_end = stop.start() if stop else len(data)
        after = stop.end() if stop else len(data)
        found = FENCE.match(data, at, line_end)
        if found and not fence:
            fence, begin, fits = found.group(1), after, found.group(2).lower() in PYTHON_TAGS
        elif found and found.group(1).startswith(fence) and not found.group(2):
            if fits and b"def" in data[begin:at]:
                yield begin, at
            fence = b""
        at = after
    if fence and fits and b"def" in data[begin:]:
        yield begin, len(data)


def described(text: str, name: str) -> str:
    """Return a description without its examples, the name's words first.

    Args:
        text: docstring, comments, or the question of an item.
        name: of the function; lines that call it are examples.
    """
    kept: list[str] = []
    shown = False
    for line in text.splitlines():
        bare = line.strip().strip("#").strip()
        if not bare:
            shown = False
        elif bare.startswith(">>>"):
            shown = True
        if bare and not shown and not bare.lower().startswith(EXAMPLES) and f"{name}(" not in bare:
            kept.append(bare)
    return " ".join((*(word.lower() for word in WORDS.findall(name)), *kept))


def tokens(text: str) -> tuple[str, ...]:
    """Return the tokens of source without comments, docstrings and blank space; empty where there are none.

    Args:
        text: of a function that parses.
    """
    made: list[str] = []
    line: list[tokenize.TokenInfo] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
                continue
            if token.type in (tokenize.INDENT, tokenize.DEDENT):
                made.append("<in>" if token.type == tokenize.INDENT else "<out>")
            elif token.type == tokenize.NEWLINE:
                # A logical line of strings alone is a docstring, or does nothing either.
                if not all(each.type == tokenize.STRING for each in line):
                    made += (*(each.string for each in line), "<line>")
                line = []
            else:
                line.append(token)
    except (tokenize.TokenError, SyntaxError):
        return ()
    return tuple(made)


def _taken(tree: ast.Module, data: bytes, offset: int) -> Iterator[Function]:
    starts = [0, *(found.end() for found in LINE_END.finditer(data))]
    spans = [_span(node, starts) for node in tree.body]
    definers: dict[str, list[int]] = {}
    for number, node in enumerate(tree.body):
        for name in bindings([node])[0] if isinstance(node, NEEDED) else ():
            definers.setdefault(name, []).append(number)
    loaded = [_loaded(node) for node in tree.body]
    for number, node in enumerate(tree.body):
        if not isinstance(node, ast.FunctionDef):
            continue
        begin, end = spans[number]
        needed = _needed(number, definers, loaded)
        text = data[begin:end].decode("utf-8", "replace")
        above = _comments_above(data, begin)
        yield Function(
            name=node.name,
            source="\n".join(data[slice(*spans[each])].decode("utf-8", "replace") for each in needed) + "\n",
            description=described(f"{above}\n\n{ast.get_docstring(node) or ''}", node.name),
            tokens=tokens(text),
            canonical=canonical(node),
            begin=offset + begin,
            end=offset + end,
        )


def _span(node: ast.stmt, starts: list[int]) -> tuple[int, int]:
    first, column = node.lineno, node.col_offset
    for decorator in getattr(node, "decorator_list", ()):
        if decorator.lineno <= first:
            # The sign before it stands on the same line.
            first, column = decorator.lineno, 0
    return starts[first - 1] + column, starts[(node.end_lineno or first) - 1] + (node.end_col_offset or 0)


def _loaded(node: ast.stmt) -> frozenset[str]:
    return frozenset(each.id for each in ast.walk(node) if isinstance(each, ast.Name))


NEEDED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
"""Statements that a function may need around it; the rest of a document is demonstration."""


NEEDED_MAX = 40
"""Most statements that a function is taken with. One that needs more is no answer to a benchmark's question, and a
chain of a thousand functions would otherwise be written out a thousand times."""


def _needed(number: int, definers: Mapping[str, Sequence[int]], loaded: Sequence[frozenset[str]]) -> list[int]:
    """Return the statements that a function runs with, in document order; itself alone where they are too many."""
    needed = {number}
    stack = [number]
    while stack:
        for name in loaded[stack.pop()]:
            more = [each for each in definers.get(name, ()) if each not in needed]
            # A later definition of the function's own name is another function.
            if number in definers.get(name, ()) or not more:
                continue
            needed.update(more)
            stack += more
            if len(needed) > NEEDED_MAX:
                return [number]
    return sorted(needed)


def _comments_above(data: bytes, begin: int) -> str:
    lines: list[str] = []
    at = begin
    while at > 0:
        start = max(data.rfind(b"\n", 0, at - 1), data.rfind(b"\r", 0, at - 1)) + 1
        line = data[start:at].decode("utf-8", "replace").strip()
        if not line.startswith("#"):
            break
        lines.append(line)
        at = start
    return "\n".join(reversed(lines))
