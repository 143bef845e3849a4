"""A corpus with planted leaks: docstrings of the standard library, generated prose, and rewrites of a known share.

Specification: contamination, section 11. What is leaked is known exactly, and a rewrite that leaks is never the one
that the role `rewrites` gives the scan to plant. The same generator state gives equal bytes under one Python version,
since its library is what is read.
"""

from __future__ import annotations

import ast
import json
import sysconfig
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from checks.organisms.families import BENCHMARK, Drawn, draws
from checks.organisms.families_reading import Family

SMALL_ITEMS, SMALL_WORDS = 40, 8_000
"""Size that default tests can afford (section 11)."""

LARGE_ITEMS, LARGE_WORDS = 320, 200_000
"""Size of the slow tests (section 11)."""

SHARES = (0.0, 0.01, 0.05, 0.2)
"""Leak shares that are measured (section 11)."""

DOC_WORDS_MIN = 20
"""Words of the shortest docstring taken: the reader leaves the language of shorter texts undecided (section 6.3)."""

PROSE_SHARE = 0.4
"""Share of documents that are generated prose: a corpus of docstrings alone would hold no names and few numbers."""

SENTENCES = (3, 9)
"""Sentences of a generated paragraph, fewest and most."""

SKIPPED = ("test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo", "encodings", "__pycache__")
"""Folders of the library without prose worth reading, or with other owners."""

_SUBJECTS = (
    "the harbour master of Sulvik", "a clerk of the water board", "the younger of the two surveyors",
    "nobody in the reading room", "the widow Pellory", "a travelling tinker", "the night watch", "our schoolmaster",
    "the ferryman's daughter", "an apprentice from Ostby", "the council", "the old map maker",
)  # fmt: skip
_VERBS = (
    "had kept a record of", "could not explain", "wrote at length about", "was known to distrust", "often spoke of",
    "never forgot", "measured again", "sold for a small sum", "would rather mend", "had learned to read",
)  # fmt: skip
_OBJECTS = (
    "the tides behind the breakwater", "a letter that came too late", "the price of salt", "the broken weather vane",
    "the road over the moor", "those {n} crates of lamp glass", "the {n} names on the church wall", "a barrel of tar",
    "the winter of the long frost", "the light on the far shore", "an unpaid bill of {n} crowns", "the new survey",
)  # fmt: skip
_ENDINGS = (
    "", "before the snow came", "as far as anyone remembers", "although the ledger says otherwise",
    "while the mill was being repaired", "for the better part of {n} years", "to the surprise of the whole street",
    "until the bridge was closed",
)  # fmt: skip


@dataclass(frozen=True)
class Leak:
    """A rewrite in the corpus."""

    item: str
    """benchmark/item."""
    depth: int
    """2: light; 5: reworded."""
    document: str
    """Its `id`."""
    text: str


@dataclass(frozen=True)
class ContaminatedCorpus:
    """Everything an audit of the organism needs, and the truth."""

    shards: tuple[bytes, ...]
    """JSONL: `id`, `source`, `text`."""
    benchmark: tuple[dict[str, Any], ...]
    """Rows of the role `benchmark`."""
    rewrites: tuple[dict[str, Any], ...]
    """Rows of the role `rewrites`: for each item a rewording that is not in the corpus."""
    leaks: tuple[Leak, ...]
    words: int
    """Of the corpus, split at blank space."""


def contaminated_corpus(
    families: Sequence[Family],
    share: float,
    rng: np.random.Generator,
    items: int = SMALL_ITEMS,
    words: int = SMALL_WORDS,
    shards: int = 2,
) -> ContaminatedCorpus:
    """Return a corpus in which a share of the items stands rewritten, half of them lightly.

    Args:
        families: word problems are drawn from these in turn; other kinds are passed over.
        share: of the items that leak, rounded to a whole number of items.
        rng: all draws.
        items: of the benchmark.
        words: at least so many in the corpus, leaks not counted.
        shards: files it is cut into, in document order.

    Raises:
        ValueError: there is no word problem, the share is outside 0..1, or the library holds too few words.
    """
    told = [family for family in families if family.kind == "words"]
    if not told or not 0 <= share <= 1 or shards < 1 or items < 1:
        raise ValueError(f"{len(told)} families of word problems, share {share}, {items} items, {shards} shards")
    drawn = _items(told, items, rng)
    documents = list(_documents(words, rng))
    leaked = rng.permutation(items)[: round(share * items)]
    leaks, rewrites = [], []
    for number, one in enumerate(drawn):
        order = rng.permutation(len(one.rewordings))
        rewrites.append(_rewrite(one, one.rewordings[int(order[0])].text))
        if number in leaked:
            light = int(np.flatnonzero(leaked == number)[0]) % 2 == 0
            text = str(one.light) if light else one.rewordings[int(order[1])].text
            at = int(rng.integers(len(documents)))
            documents[at] = _with_leak(documents[at], text, rng)
            leaks.append(Leak(one.item.name, 2 if light else 5, documents[at]["id"], text))
    cuts = [round(len(documents) * part / shards) for part in range(shards + 1)]
    return ContaminatedCorpus(
        shards=tuple(_jsonl(documents[begin:end]) for begin, end in pairwise(cuts)),
        benchmark=tuple(_row(one) for one in drawn),
        rewrites=tuple(rewrites),
        leaks=tuple(leaks),
        words=sum(len(document["text"].split()) for document in documents),
    )


def prose(rng: np.random.Generator) -> str:
    """Return a paragraph of generated prose: grammatical, about nobody, with a number here and there."""
    return " ".join(_sentence(rng) for _ in range(int(rng.integers(SENTENCES[0], SENTENCES[1] + 1))))


def docstrings(file: str) -> tuple[str, ...]:
    """Return the docstrings of a library file that are long enough, in order; the file is parsed and never imported."""
    try:
        tree = ast.parse((_library() / file).read_bytes())
    except (SyntaxError, ValueError):
        return ()
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, holders)]
    return tuple(text for text in found if len(text.split()) >= DOC_WORDS_MIN)


@cache
def library_files() -> tuple[str, ...]:
    """Return the paths of the standard library's Python files, sorted, without its tests."""
    root = _library()
    paths = (path.relative_to(root) for path in root.rglob("*.py"))
    return tuple(sorted(path.as_posix() for path in paths if not set(path.parts).intersection(SKIPPED)))


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _items(families: Sequence[Family], count: int, rng: np.random.Generator) -> list[Drawn]:
    each = -(-count // len(families))
    held = [draws(family, rng, each) for family in families]
    return [drawn[turn] for turn in range(each) for drawn in held][:count]


def _documents(words: int, rng: np.random.Generator) -> Iterator[dict[str, str]]:
    """Yield documents until there are as many words as asked for."""
    files = library_files()
    library = (
        (files[int(at)], number, text)
        for at in rng.permutation(len(files))
        for number, text in enumerate(docstrings(files[int(at)]))
    )
    held = 0
    made = 0
    while held < words:
        made += 1
        if rng.random() < PROSE_SHARE:
            document = {"id": f"prose-{made}", "source": "prose", "text": prose(rng)}
        else:
            found = next(library, None)
            if found is None:
                raise ValueError(f"the library holds {held} words of docstrings and prose, {words} were asked for")
            document = {"id": f"{found[0]}#{found[1]}", "source": "docstring", "text": found[2]}
        held += len(document["text"].split())
        yield document


def _sentence(rng: np.random.Generator) -> str:
    parts = [held[int(rng.integers(len(held)))] for held in (_SUBJECTS, _VERBS, _OBJECTS, _ENDINGS)]
    text = " ".join(part for part in parts if part).replace("{n}", str(int(rng.integers(2, 90))))
    return text[0].upper() + text[1:] + "."


def _with_leak(document: dict[str, str], text: str, rng: np.random.Generator) -> dict[str, str]:
    """Return a document with a text as its own paragraph, in its prose, or wrapped, by equal chances."""
    way = int(rng.integers(3))
    paragraphs = document["text"].split("\n\n")
    at = int(rng.integers(len(paragraphs) + 1))
    if way == 1:
        paragraphs.insert(at, f"{_sentence(rng)} {text} {_sentence(rng)}")
    else:
        paragraphs.insert(at, text if way == 0 else textwrap.fill(text, width=60))
    return {**document, "text": "\n\n".join(paragraphs)}


def _row(one: Drawn) -> dict[str, Any]:
    item = one.item
    return {
        "benchmark": BENCHMARK,
        "item": item.item,
        "kind": item.kind,
        "question": item.question,
        "answer": item.answer,
        "template": item.template,
    }


def _rewrite(one: Drawn, text: str) -> dict[str, Any]:
    return {"benchmark": BENCHMARK, "item": one.item.item, "text": text, "depth": 5}


def _jsonl(documents: Sequence[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(one, ensure_ascii=False, sort_keys=True).encode() + b"\n" for one in documents)
