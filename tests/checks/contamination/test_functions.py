from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination.code_canonical import Canonical, containment, fingerprints, near
from checks.contamination.functions import (
    Function,
    described,
    entry_function,
    fenced,
    functions,
    item_description,
    tokens,
)
from checks.contamination.interpreter import interpret

MAIN = '''
import math
import os
from typing import List

LIMIT = 3
print("demonstration")

def helper(x):
    return x + LIMIT

# Adds up what is large.
# Twice.
def addUpLarge(values: List[int]) -> int:
    """Return the sum of large values.

    >>> addUpLarge([1, 9])
    12

    Negative values count too.
    Example: addUpLarge([]) is 0
    """
    total = 0
    for value in values:
        if value > 2:
            total += helper(value)
    return math.floor(total)

def unused():
    return os.getcwd()

addUpLarge([1])
'''


def one(source: str) -> Function:
    (found,) = functions(source).functions
    return found


@pytest.mark.parametrize(
    "text", ["", "def ", "```", "```python\ndef f(", "~~~\ndef", "def f(:\n\0", "\ud800 def f", "`" * 9999 + "def "]
)
def test_bad_text_gives_nothing_and_raises_nothing(text: str) -> None:
    assert functions(text).functions == ()


def test_faults_say_why() -> None:
    assert functions("```\ndef f(:\n```").faults == ("not_python",)
    assert functions("def f(): return " + "-" * 500 + "1").faults == ("too_deep",)
    assert functions("def f(): pass\n" + "# x\n" * 60_000).faults == ("too_long",)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.text("`~\n dfe():py1#'\"\\{", max_size=80))
def test_any_text_is_read(text: str) -> None:
    for found in functions(f"def \n{text}").functions:
        assert found.begin < found.end


def test_a_function_comes_with_what_it_needs_and_no_more() -> None:
    found = {each.name: each for each in functions(MAIN).functions}
    assert list(found) == ["helper", "addUpLarge", "unused"]
    source = found["addUpLarge"].source
    assert "LIMIT = 3" in source
    assert "helper" in source
    assert "demonstration" not in source
    assert "os" not in source.split()
    assert interpret(source, "addUpLarge", [[1, 9, 4]]).value == 19


def test_a_chain_of_functions_is_not_written_out_for_each() -> None:
    source = "".join(f"def f{i}(a):\n    return f{i + 1}(a)\n" for i in range(1000))
    found = functions(source).functions
    assert len(found) == 1000
    assert sum(len(each.source) for each in found) < 40 * len(source)
    assert found[0].source.count("def ") == 1
    assert found[980].source.count("def ") == 20


def test_another_definition_of_the_same_name_is_another_function() -> None:
    first, second = functions("def f(a):\n    return f(a) if a else 1\ndef f(a):\n    return 2\n").functions
    assert (interpret(first.source, "f", [0]).value, interpret(second.source, "f", [0]).value) == (1, 2)
    assert first.source.count("def ") == second.source.count("def ") == 1


def test_spans_are_those_of_the_document() -> None:
    text = f"Café:\n\n```python\n{MAIN}```\n\nand more"
    data = text.encode()
    for each in functions(text).functions:
        assert data[each.begin : each.end].decode().startswith(f"def {each.name}")
        ast.parse(data[each.begin : each.end])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_do_not_move_spans(end: str) -> None:
    text = end.join(["x = 'é'", "def f(a):", "    return a", "", "def g(a):", "    return f(a) + 1", ""])
    found = functions(text).functions
    assert [each.name for each in found] == ["f", "g"]
    assert text.encode()[found[1].begin : found[1].end].decode().startswith("def g")
    assert interpret(found[1].source, "g", [1]).value == 2


def test_a_description_has_no_examples() -> None:
    found = {each.name: each for each in functions(MAIN).functions}["addUpLarge"]
    assert found.description == (
        "add up large Adds up what is large. Twice. Return the sum of large values. Negative values count too."
    )
    assert described("Do it.\nassert f(1) == 2\nInput: 3", "maxItem_of2") == "max item of 2 Do it."


def test_fences_of_other_languages_are_left_alone() -> None:
    text = b"```java\ndef f\n```\n~~~py\ndef g(): pass\n```\n~~~\n````\ndef h\n```\n````\n"
    assert [text[begin:end] for begin, end in fenced(text)] == [b"def g(): pass\n```\n", b"def h\n```\n"]


def test_a_fence_that_is_never_closed_ends_with_the_text() -> None:
    assert one("text\n```python\ndef f(a):\n    return a").name == "f"


def test_a_block_behind_the_rest_of_a_cut_one_is_found() -> None:
    block = "```python\ndef f(a):\n    return a\n```\n"
    for text in (f"rest of one\n```\n\ntext\n\n{block}", f"```python\ndef g(\n\ntext\n\n{block}"):
        assert one(text).name == "f"


def test_the_paragraph_above_a_block_tells_what_it_does_where_nothing_else_does() -> None:
    text = "Chat.\n\nAdd one\nto a.\n\n```python\ndef f(a):\n{}    return a + 1\n```\n"
    assert one(text.format("")).description == "f Add one to a."
    assert one(text.format("    # Say it.\n")).description == "f Say it."
    assert one(text.format("    'Do it.'\n")).description == "f Do it."
    assert one("```\n```\n```python\ndef f(a): return a\n```").description == "f"


def test_an_item_published_as_a_stub_is_described_by_its_docstring() -> None:
    stub = 'import math\n\n\ndef add_one(a: int) -> int:\n    """ Add one.\n    >>> add_one(1)\n    2\n    """\n'
    assert item_description(stub, "add_one") == "add one Add one."
    assert item_description("def add_one(a):\n    # Add one.", "add_one") == "add one Add one."
    assert item_description("Add one.\nadd_one(1) == 2", "add_one") == "add one Add one."
    assert entry_function(stub, "other") is None


def test_exact_ignores_comments_docstrings_and_blank_space_only() -> None:
    first = 'def f(a, b):\n    """Add."""\n    # sum\n    c = a+b\n\n    return (c)\n'
    second = "def f( a,b ):\n  c = a + b   # here\n  return (c)"
    assert tokens(first) == tokens(second) != ()
    assert tokens(first) != tokens(second.replace("c", "d"))
    assert tokens(first) != tokens(second.replace("(c)", "c"))
    assert tokens("def f(:\n 'a") == ()


def test_long_docstrings_are_read_in_linear_time() -> None:
    assert len(tokens("def f():\n    '''" + "x\n" * 90_000 + "'''\n    return 1\n")) < 20


NEAR = (
    (
        """\
def f(a, b):
    s = 0
    for i in range(a):
        if i > b:
            s += i * b
    return [s, a, b, len([a])]
""",
        """\
def total(n: int, limit: int) -> list:
    '''Doc.'''
    acc: int = 0
    k: int
    for x in range(n):
        pass
        if limit < x:
            acc = acc + x * limit
    return [acc, n, limit, len([n])]
""",
    ),
    (
        """\
def f(xs):
    def g(y):
        return y * 2 + 1
    return sorted([g(x) for x in xs if x >= 0], key=lambda q: -q)
""",
        """\
def h(v):
    def twice(z):
        return z * 2 + 1
    return sorted([twice(w) for w in v if 0 <= w], key=lambda w: -w)
""",
    ),
    (
        """\
def f(xs, n):
    if n == 0:
        return []
    xs[0] += n
    return f(xs[1:], n - 1) + [xs[0], n, n * n]
""",
        """\
@cache
def rec(a, b):
    if b == 0:
        return []
    a[0] = a[0] + b
    return rec(a[1:], b - 1) + [a[0], b, b * b]
""",
    ),
)


@pytest.mark.parametrize("number", range(len(NEAR)))
def test_a_renamed_copy_is_near(number: int) -> None:
    first, second = (one(source).canonical for source in NEAR[number])
    assert near(first, second)
    assert containment(first, second) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [("s += i * b", "s += i + b"), ("i > b", "i >= b"), ("i > b", "i < b"), ("s = 0", "s = 1"), ("len", "max"),
     ("range(a)", "range(b)"), ("[s, a, b", "[s, b, a"), ("s = 0", "s = 0.0")],
)  # fmt: skip
def test_another_function_is_not_near(old: str, new: str) -> None:
    source = NEAR[0][0]
    assert old in source
    assert not near(one(source).canonical, one(source.replace(old, new)).canonical)


def test_a_mixed_chain_is_not_turned() -> None:
    first, second = (
        "def f(a, b, c):\n return [a > b > c, 1, 2, 3, 4, 5, 6]\n",
        "def f(a, b, c):\n return [c < b < a, 1, 2, 3, 4, 5, 6]\n",
    )
    # The parameters' order of first use is the signature's, so only the comparison differs.
    assert one(first).canonical.digest == one(second).canonical.digest
    assert one(first.replace("> c", "< c")).canonical.digest != one(second.replace("c <", "c >")).canonical.digest


def test_a_small_function_is_never_near() -> None:
    small = one("def f(a, b):\n    return a + b\n").canonical
    assert small.nodes < 25
    assert not near(small, small)


def test_names_of_globals_and_keywords_stay() -> None:
    source = "def f(xs):\n    return sorted(xs, key=abs)\n"
    assert one(source).canonical.digest != one(source.replace("abs", "len")).canonical.digest
    assert one(source).canonical.digest != one(source.replace("key", "cmp")).canonical.digest


def test_a_name_of_an_inner_scope_is_another_name() -> None:
    first = "def f(x):\n    return [(lambda x: x)(1), x]\n"
    assert one(first).canonical.digest == one(first.replace("lambda x: x", "lambda y: y")).canonical.digest
    assert one(first).canonical.digest != one(first.replace("lambda x: x", "lambda y: x")).canonical.digest


def test_winnowing_keeps_a_fingerprint_of_every_shared_run_of_eight() -> None:
    shared = [f"s{i}" for i in range(8)]
    for before in range(6):
        one_side = [f"a{i}" for i in range(before)] + shared + ["x"] * 3
        other_side = ["y"] * 4 + shared + [f"b{i}" for i in range(before)]
        assert fingerprints(one_side) & fingerprints(other_side)
    assert fingerprints(["a"] * 4) == frozenset()
    assert len(fingerprints(["a"] * 5)) == 1


def test_fingerprints_agree_with_a_plain_loop() -> None:
    import hashlib

    labels = textwrap.dedent(NEAR[0][0]).split()
    hashes = [
        int.from_bytes(hashlib.blake2b("\x1f".join(labels[i : i + 5]).encode(), digest_size=8).digest(), "big")
        for i in range(len(labels) - 4)
    ]
    expected = set()
    for i in range(len(hashes) - 3):
        expected.add(sorted(hashes[i : i + 4])[0])
    assert fingerprints(labels) == expected


def test_no_containment_without_fingerprints() -> None:
    empty = one("def f(): pass\n").canonical
    assert not empty.fingerprints or containment(empty, empty) == 1
    assert containment(canonical_of_nothing(), one(NEAR[0][0]).canonical) == 0


def canonical_of_nothing() -> Canonical:
    return Canonical("", 0, frozenset())
