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
from itertools import chain

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

ABOVE_MAX = 1_000
"""Bytes above a fenced block that are looked at for what it answers: the encoder reads some 250 words."""

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
    """Tokens of it and of what it needs but imports, without comments, docstrings and blank space; equal for exact
    copies."""
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
        return Extraction(tuple(_taken(whole, data, 0, "")), ())
    found: list[Function] = []
    faults: list[Fault] = []
    blocks = 0
    for begin, end in fenced(data):
        blocks += 1
        text = data[begin:end].decode("utf-8", "replace")
        tree = parsed(text)
        if isinstance(tree, ast.Module):
            found += _taken(tree, data[begin:end], begin, paragraph_above(data, begin))
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
        elif found and found.group(1).startswith(fence) and found.group(2).lower() in PYTHON_TAGS:
            if fits and b"def" in data[begin:at]:
                yield begin, at
            # Within a block a tagged fence is content by CommonMark; in documents that were cut it opens the next one.
            fence, begin, fits = (found.group(1), after, True) if found.group(2) else (b"", begin, False)
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


def item_description(question: str, entry: str) -> str:
    """Return what an item asks for in words, as `Function.description` tells it of a function.

    Args:
        question: prose, or the beginning of a function with its docstring, as some benchmarks publish it.
        entry: name of the function that is asked for.
    """
    if "def " in question:
        for text in (question, f"{question.rstrip()}\n    pass\n"):
            told = next((one for one in functions(text).functions if one.name == entry), None)
            if told is not None:
                return told.description
    return described(question, entry)


def entry_function(source: str, entry: str) -> Function | None:
    """Return the function of a name, the last of that name, as Python takes it; None where the source has none."""
    return next((one for one in reversed(functions(source).functions) if one.name == entry), None)


def paragraph_above(data: bytes, begin: int) -> str:
    """Return the paragraph that ends right above a fenced block; it asks for what the block answers.

    Args:
        data: of the document.
        begin: first byte behind the block's opening line.
    """
    above = data[max(0, begin - ABOVE_MAX) : begin].decode("utf-8", "replace").rstrip("\r\n")
    lines = above.splitlines()[:-1]  # the opening line itself
    while lines and not lines[-1].strip():
        lines.pop()
    kept: list[str] = []
    while lines and lines[-1].strip() and not lines[-1].lstrip().startswith(("```", "~~~")):
        kept.append(lines.pop())
    return "\n".join(reversed(kept))


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


def _taken(tree: ast.Module, data: bytes, offset: int, above: str) -> Iterator[Function]:
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
        text = {each: data[slice(*spans[each])].decode("utf-8", "replace") for each in needed}
        own = f"{_comments_above(data, begin)}\n\n{ast.get_docstring(node) or _comments_in(data, node, starts)}"
        yield Function(
            name=node.name,
            source="\n".join(text.values()) + "\n",
            description=described(own if own.strip() else above, node.name),
            tokens=tuple(chain.from_iterable(tokens(text[each]) for each in needed if not _imports(tree.body[each]))),
            canonical=canonical(node),
            begin=offset + begin,
            end=offset + end,
        )


def _imports(node: ast.stmt) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _comments_in(data: bytes, node: ast.FunctionDef, starts: list[int]) -> str:
    """Return the comments between a function's head and its first statement."""
    first = node.body[0].lineno
    if first <= node.lineno:
        return ""
    lines = data[starts[node.lineno - 1] : starts[first - 1]].decode("utf-8", "replace").splitlines()
    return "\n".join(line for line in map(str.strip, lines) if line.startswith("#"))


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
