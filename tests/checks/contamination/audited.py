"""A small benchmark of word problems with rewordings, a corpus of the standard library's docstrings, and an encoder
without weights: what end-to-end tests audit."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sysconfig
from collections.abc import Sequence
from functools import cache, reduce
from pathlib import Path
from typing import Any

import numpy as np

from checks.contamination.conclude import Conclusion, conclude
from checks.contamination.encoder import KNOWN_COSINES, KNOWN_TEXTS
from checks.contamination.items import Item, read_benchmark, read_placebo
from checks.contamination.plan import ScanParameters
from checks.contamination.planning import Asked, Prepared, Roles, prepare
from checks.contamination.rewrites import read_rewrites
from checks.contamination.scan import Scanner, scan
from checks.contamination.shards import shards, stored
from checks.contamination.sketch import Sketch, empty, merge

CANARY = "zqcanary"

TEMPLATES = (
    ("{n} runs a bakery and bakes {a} trays with {b} rolls on each tray. By noon {c} rolls are sold. "
     "How many rolls are left in the bakery?",
     "A bakery owned by {n} had {b} rolls per tray, {a} trays altogether, and parted with {c} of them before lunch. "
     "What number of rolls remains in the bakery?"),
    ("A library owns {a} shelves with {b} books on each shelf. {n} lends {c} books to a school. "
     "How many books stay on the shelves of the library?",
     "From a library with {b} books per shelf on {a} shelves, a school borrowed {c} books through {n}. "
     "What number of books do the library shelves keep?"),
    ("{n} plants {a} rows of tulips with {b} tulips in every row, but a storm destroys {c} tulips. "
     "How many tulips survive the storm?",
     "Once a storm had ruined {c} tulips planted by {n}, who had set {b} tulips to a row in {a} rows, "
     "some stood. Survivors of the storm, tulips: how many?"),
    ("A train has {a} wagons and every wagon carries {b} crates of pears. Workers unload {c} crates at the harbour. "
     "How many crates does {n} still have on the train?",
     "{n} drives a train; {c} crates of pears were unloaded by harbour workers. It began with {b} crates to a wagon, "
     "wagons {a}. What count of crates stays on the train?"),
    ("{n} saves {a} coins each week for {b} weeks and then spends {c} coins on a kite. "
     "How many coins does {n} have after buying the kite?",
     "A kite cost {n} {c} coins. Before that, {b} weeks of saving brought {a} coins a week. "
     "What sum of coins is held when the kite is paid?"),
)  # fmt: skip
NAMES = ("Mira", "Tomas", "Ines", "Jonas", "Petra", "Oskar", "Lena", "Viktor")


def benchmark_rows(count: int = 40, seed: int = 5) -> tuple[list[dict[str, Any]], list[str]]:
    """Return items of one benchmark, and a rewording of each."""
    rng = np.random.default_rng(seed)
    rows, rewordings = [], []
    for at in range(count):
        told = {"n": NAMES[int(rng.integers(len(NAMES)))]}
        told |= {key: str(int(rng.integers(low, high))) for key, low, high in _RANGES}
        asked, reworded = TEMPLATES[at % len(TEMPLATES)]
        row = {"benchmark": "demo", "item": f"q{at}", "kind": "prose", "question": asked.format(**told)}
        rows.append(row | {"answer": f"{7 * at + 3} units", "template": f"t{at % len(TEMPLATES)}"})
        rewordings.append(reworded.format(**told))
    return rows, rewordings


_RANGES = (("a", 12, 99), ("b", 12, 99), ("c", 101, 999))


@cache
def docstrings(words: int) -> tuple[str, ...]:
    """Return docstrings of the standard library, so many words in all, each with a canary."""
    found: list[str] = []
    total = 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node) or ""
                if len(text.split()) >= 60:
                    found.append(f"{text} {CANARY}")
                    total += len(text.split())
                    if total >= words:
                        return tuple(found)
    return tuple(found)


_EVERYWHERE = "with from that what have each many does then this when whic they them thei will"
EVERYWHERE = frozenset(_EVERYWHERE.split())


class WordEncoder:
    """Vectors of hashed stems: texts that share words lie near. No weights, no thread, the same on every machine."""

    def embed_alone(self, text: str) -> np.ndarray:
        vector = np.zeros(512, dtype=np.float32)
        if text in KNOWN_TEXTS:  # as the control KnownAnswer wants them
            known = (1.0, *KNOWN_COSINES)[KNOWN_TEXTS.index(text)]
            vector[0], vector[1] = known, np.sqrt(1 - known**2)
            return vector
        vector[0] = 1e-3  # a text without words has a direction too
        for word in {word[:4] for word in re.findall(r"[a-z]{4,}", text)} - EVERYWHERE:
            digest = hashlib.sha256(word.encode()).digest()
            vector[1 + int.from_bytes(digest[:2], "big") % 511] += 1 if digest[2] % 2 else -1
        return vector / np.linalg.norm(vector)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self.embed_alone(text) for text in texts])


def corpus_file(folder: Path, texts: Sequence[str], name: str = "corpus.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def inside(host: str, text: str) -> str:
    """Return a host document with a text as a paragraph of its own in the middle."""
    words = host.split(" ")
    return " ".join(words[: len(words) // 2]) + f"\n\n{text}\n\n" + " ".join(words[len(words) // 2 :])


def leaked(rows: Sequence[dict[str, Any]], rewordings: Sequence[str], verbatim: int, reworded: int) -> list[str]:
    """Return leaks of the first items word for word, and of the next ones reworded."""
    return [row["question"] for row in rows[:verbatim]] + list(rewordings[verbatim : verbatim + reworded])


def corpus(folder: Path, leaks: Sequence[str], words: int = 8000) -> Path:
    hosts = docstrings(words)
    step = max(1, len(hosts) // (len(leaks) + 1))
    texts = list(hosts)
    for at, leak in enumerate(leaks):
        texts[at * step] = inside(texts[at * step], leak)
    return corpus_file(folder, texts)


def prepared(
    path: Path,
    rows: Sequence[dict[str, Any]],
    rewrites: Sequence[dict[str, Any]] = (),
    placebo: Sequence[dict[str, Any]] = (),
    *,
    shard_bytes: int = 2**28,
    embed: str = "all",
    floor: int = 3_000,
    asked: Asked | None = None,
    seed: int = 11,
    authored: tuple[tuple[Item, str], ...] | None = (),
) -> Prepared:
    items = read_benchmark(rows)
    if authored == ():
        others, texts = benchmark_rows(20, seed=71)
        authored = tuple(zip(read_benchmark(others), texts, strict=True))
    # The real families need the real encoder; these are told apart by words alone.
    roles = Roles(items, read_placebo(placebo) if placebo else (), read_rewrites(rewrites, items), authored)
    # Words alone tell less than an encoder: a lower floor, at the end of its range.
    parameters = ScanParameters(embed=embed, cosine_floor=floor)  # type: ignore[arg-type]
    told = shards([stored(path)], shard_bytes)
    return prepare(roles, told, seed=seed, asked=asked, parameters=parameters, digests={"benchmark": "0" * 64})


def scanned(plan: Prepared, path: Path, encoder: Any = None) -> list[Sketch]:
    scanner = Scanner(plan.plan, encoder=encoder if plan.plan.parameters.embed != "off" else None)
    return [scan(one, plan.plan, scanner=scanner) for one in plan.plan.shards]


def merged(plan: Prepared, sketches: Sequence[Sketch]) -> Sketch:
    return reduce(merge, sketches, empty(plan.plan.plan_sha256, plan.plan.parameters.keep))


def rewrite_rows(rows: Sequence[dict[str, Any]], rewordings: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"benchmark": row["benchmark"], "item": row["item"], "text": text, "depth": 5}
        for row, text in zip(rows, rewordings, strict=True)
    ]


def audit(path: Path, plan: Prepared, encoder: Any = None) -> Conclusion:
    return conclude(merged(plan, scanned(plan, path, encoder)), plan, encoder=encoder)


def word(told: Conclusion, code: str) -> tuple[str, str | None]:
    (one,) = (one for one in told.findings if one.code == code)
    return one.word, one.labels.get("reason")
