"""Parsing of source that somebody else wrote, within limits, to a tree and never to code.

Specification: contamination, section 6.7. `ast.parse` is the only thing that source text ever reaches. The limit of one
second per text is kept by what is read, not by a clock: a clock would make a sketch depend on the machine. Measured on
one thread of a 2-core x86-64 CPU: the slowest text found that passes the guards takes .5 s.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Literal

BYTES_MAX = 200_000
"""Longest text that is parsed (section 6.7)."""

NODES_MAX = 20_000
"""Largest tree that is looked at (section 6.7)."""

DEPTH_MAX = 100
"""Deepest tree: the depth that section 6.7 gives the interpreter, so that no walk over a tree meets Python's own
recursion limit. Deeper trees are left alone."""

WORDS_MAX = 3 * NODES_MAX
"""Most words and signs of a text: a tree of 20 000 nodes has at most about three tokens a node, and the parser takes
.8 to 1.3 s for the 200 000 tokens that fit into 200 kB (measured)."""

BRACES_MAX = 5_000
"""Most opening braces: Python 3.11 takes quadratic time over the fields of one f-string (8 s for 66 000, measured)."""

WORD = re.compile(r"\w+|[^\w\s]")

Fault = Literal["too_long", "too_large", "too_deep", "not_python"]


def parsed(source: str) -> ast.Module | Fault:
    """Return the tree of a text, or why there is none; never raises on any text.

    Args:
        source: of any origin.
    """
    if len(source) > BYTES_MAX or len(source.encode("utf-8", "replace")) > BYTES_MAX:
        return "too_long"
    if source.count("{") > BRACES_MAX or sum(1 for _ in WORD.finditer(source)) > WORDS_MAX:
        return "too_large"
    try:
        with warnings.catch_warnings():
            # Hostile escapes such as "\d" warn; a warning is no reason to refuse a text, nor to print it.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return "not_python"
    except (MemoryError, RecursionError):
        # The parser's own guards against nesting (6000 levels, and the recursion limit).
        return "too_deep"
    return measured(tree) or tree


def measured(tree: ast.AST) -> Fault | None:
    """Return what is too much of a tree, or None; iterative, so that it cannot be nested to death."""
    level: list[ast.AST] = [tree]
    nodes = 0
    for _ in range(DEPTH_MAX + 1):
        nodes += len(level)
        if nodes > NODES_MAX:
            return "too_large"
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return None
    return "too_deep"
