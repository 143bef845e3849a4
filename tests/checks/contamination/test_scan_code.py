"""Code items in whole scans: exact, renamed and rewritten functions, what only looks alike, and hostile documents."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import pickle
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.contamination.code_behaviour import behaviours
from checks.contamination.code_mutations import code_siblings
from checks.contamination.functions import functions
from checks.contamination.interpreter import program
from checks.contamination.items import Item, read_benchmark
from checks.contamination.plan import Plan, ScanParameters, make_plan
from checks.contamination.scan import Scanner, scan
from checks.contamination.shards import shards, stored
from checks.contamination.sketch import Entry, Sketch, empty, merge
from tests.checks.contamination.audited import WordEncoder

CANARY = "zqcanary"
PROSE = f"The committee {CANARY} discussed budgets for roads while rain fell outside on empty tennis courts.\n\n" * 4

REFERENCE = '''\
def steps_above(values, limit):
    """Return how many neighbours in the list differ by more than the limit."""
    count = 0
    for left, right in zip(values, values[1:]):
        if abs(right - left) > limit:
            count += 1
    return count
'''
RENAMED = """\
# Neighbours differ.
def jumps(numbers, most):
    found = 0
    for a, b in zip(numbers, numbers[1:]):
        if most < abs(b - a):
            found = found + 1
    return found
"""
REWRITTEN = '''\
def count_large_steps(threshold, series):
    """How many neighbours in a list differ by more than the limit?"""
    return sum(1 for at in range(1, len(series)) if abs(series[at] - series[at - 1]) > threshold)
'''
OTHER = '''\
def steps_below(values, limit):
    """Return how many neighbours in the list differ by less than the limit."""
    return sum(1 for at in range(1, len(values)) if abs(values[at] - values[at - 1]) < limit)
'''
UNDECIDED = '''\
import numpy

def steps_above(values, limit):
    """Return how many neighbours in the list differ by more than the limit."""
    return int((numpy.abs(numpy.diff(values)) > limit).sum())
'''
ARGUMENTS = [[[1, 9, 2], 3], [[1, 2, 3], 3], [[5, 1, 5, 1], 2], [[], 4], [[7, 7, 20], 10], [[0, 9, 0, 9, 0], 8]]


def _item(name: str = "steps", **changed: Any) -> Item:
    row = {
        "benchmark": "demo",
        "item": name,
        "kind": "code",
        "question": "Return how many neighbours in the list differ by more than the limit.",
        "entry": "steps_above",
        "reference": REFERENCE,
        "probes": ARGUMENTS,
        **changed,
    }
    return read_benchmark([row])[0]


def _plan(items: Sequence[Item] | None = None, siblings: int = 0, **changed: Any) -> Plan:
    held = items or [_item()]
    made = (
        [(item, one.probe) for item in held for one in code_siblings(item, siblings, np.random.default_rng(2))]
        if (siblings)
        else []
    )
    parameters = dataclasses.replace(ScanParameters(), **changed)
    return make_plan(held, siblings=made, parameters=parameters, window_key=b"k" * 32, rng=np.random.default_rng(3))


def _fenced(source: str, tag: str = "python") -> str:
    return f"{PROSE}```{tag}\n{source}```\n\n{PROSE}"


def _scanner(plan: Plan) -> Scanner:
    return Scanner(plan, encoder=None if plan.parameters.embed == "off" else WordEncoder())


def _scan(folder: Path, plan: Plan, texts: Sequence[str], size: int = 2**28) -> Sketch:
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    scanner = _scanner(plan)
    parts = [scan(shard, plan, scanner=scanner) for shard in shards([stored(path)], size)]
    return reduce(merge, parts, empty(plan.plan_sha256, plan.parameters.keep))


def _best(plan: Plan, sketch: Sketch, name: str = "steps") -> Entry | None:
    (probe,) = (one.probe for one in plan.owners if (one.item, one.role) == (name, "item"))
    return next(iter(sketch.best.get(probe, ())), None)


def _tier(folder: Path, text: str, **changed: Any) -> str | None:
    plan = _plan(**changed)
    best = _best(plan, _scan(folder, plan, [text]))
    return None if best is None else best.tier


@pytest.mark.parametrize("embed", ["all", "off"])
@pytest.mark.parametrize(
    "document",
    [
        _fenced(REFERENCE),
        _fenced(REFERENCE, ""),
        REFERENCE,
        _fenced(REFERENCE.replace("    count = 0\n", "    count=0  # none yet\n\n").replace("Return how", "Tell how")),
    ],
    ids=["fenced", "untagged", "module", "formatted"],
)
def test_a_copy_is_exact(tmp_path: Path, document: str, embed: str) -> None:
    assert _tier(tmp_path, document, embed=embed) == "exact"


@pytest.mark.parametrize("embed", ["all", "off"])
def test_a_renamed_copy_is_near(tmp_path: Path, embed: str) -> None:
    assert _tier(tmp_path, _fenced(RENAMED), embed=embed) == "near"
    # The same tree under another constant outside it is another function.
    other = RENAMED.replace("def jumps", "abs = lambda x: x\n\ndef jumps")
    assert _tier(tmp_path, _fenced(other), embed=embed) == "template"


def test_a_rewritten_function_is_found_by_what_it_does(tmp_path: Path) -> None:
    plan = _plan(siblings=6)
    sketch = _scan(tmp_path, plan, [_fenced(REWRITTEN)])
    best = _best(plan, sketch)
    assert best is not None
    assert (best.tier, best.answer_near) == ("semantic", "unknown")
    assert best.score >= 25_000
    siblings = {one.probe for one in plan.owners if one.role == "sibling"}
    assert len(siblings) == 6
    # Siblings keep the description, and do something else.
    assert all(entry.score < 20_000 for probe in siblings for entry in sketch.best.get(probe, ()))


def test_same_description_and_other_behaviour_is_not_semantic(tmp_path: Path) -> None:
    assert _tier(tmp_path, _fenced(OTHER)) in ("related", "template")
    plan = _plan()
    best = _best(plan, _scan(tmp_path, plan, [_fenced(UNDECIDED)]))
    assert best is not None
    assert best.tier == "related"
    assert 15_000 < best.score <= 20_000


def test_trees_make_candidates_where_nothing_is_embedded(tmp_path: Path) -> None:
    alike = REFERENCE.replace("steps_above", "f").replace("count = 0\n", "count = 0\n    seen = []\n")
    plan = _plan(embed="off")
    best = _best(plan, _scan(tmp_path, plan, [_fenced(alike)]))
    assert best is not None
    assert best.tier == "semantic"
    assert 26_000 <= best.score < 30_000
    assert _tier(tmp_path, _fenced(REWRITTEN), embed="off") is None


def test_what_stands_in_helpers_counts(tmp_path: Path) -> None:
    source = "LIMIT = 3\n\ndef above(step):\n    return abs(step) > LIMIT\n\n" + textwrap.dedent("""\
        def steps_above(values):
            count = 0
            for left, right in zip(values, values[1:]):
                if above(right - left):
                    count += 1
            return count
        """)
    item = _item(reference=source, probes=[[[1, 9, 2]], [[1, 2, 3]], [[5, 1, 5, 1]], [[]], [[7, 7, 20]]])
    assert _tier(tmp_path, _fenced("import re\n\n" + source), items=[item]) == "exact"
    assert _tier(tmp_path, _fenced(source.replace("LIMIT = 3", "LIMIT = 9")), items=[item]) == "template"


def test_places_are_bytes_and_copies_are_counted(tmp_path: Path) -> None:
    plan = _plan()
    text = "Über: " + _fenced(RENAMED)
    best = _best(plan, _scan(tmp_path, plan, [PROSE, text, text.replace("# Neighbours", "#   Neighbours")]))
    assert best is not None
    assert (best.doc, best.copies) == (1, 2)
    assert text.encode()[best.start : best.end].decode().startswith("def jumps")


def test_an_item_in_another_language_is_not_searched(tmp_path: Path) -> None:
    assert _tier(tmp_path, _fenced(REFERENCE), items=[_item(language="java")]) is None


def _corpus() -> list[str]:
    made = [_fenced(source) for source in (REFERENCE, RENAMED, REWRITTEN, OTHER, UNDECIDED, REWRITTEN)]
    return [text for one in made for text in (PROSE, one)] + ["import os\n\n" + RENAMED + REWRITTEN, PROSE]


@pytest.mark.parametrize("embed", ["all", "off"])
def test_one_shard_or_seven_give_the_same_entries(tmp_path: Path, embed: str) -> None:
    plan = _plan(siblings=4, embed=embed)
    whole = _scan(tmp_path, plan, _corpus())
    size = (tmp_path / "c.jsonl").stat().st_size // 7 + 1
    cut = _scan(tmp_path, plan, _corpus(), size)
    assert len(cut.shards) == 7

    def told(sketch: Sketch) -> dict[int, list[tuple[int, str, str, int]]]:
        return {probe: [entry[:4] for entry in entries] for probe, entries in sketch.best.items()}

    assert told(whole) == told(cut)
    assert (whole.tiers, whole.hist) == (cut.tiers, cut.hist)
    turned = _scan(tmp_path, plan, _corpus()[::-1])
    assert told(whole) == told(turned)


def test_no_text_of_code_is_in_the_sketch(tmp_path: Path) -> None:
    sketch = _scan(tmp_path, _plan(), [_fenced(REWRITTEN.replace("series", CANARY))])
    assert sketch.best
    assert CANARY.encode() not in sketch.to_bytes()


BOMBS = {
    "brackets": "def f():\n    return " + "(" * 99_000 + ")" * 99_000,
    "open_brackets": "def f():\n    return " + "(" * 199_000,
    "lists": "def f():\n    return " + "[" * 5_000 + "]" * 5_000,
    "minus": "def f():\n    return " + "-" * 190_000 + "1",
    "not": "def f():\n    return " + "not " * 40_000 + "1",
    "power": "def f():\n    return " + "**".join(["9"] * 60_000),
    "plus": "def f():\n    return " + "+".join(["1"] * 29_000),
    "attributes": "def f():\n    return a" + ".a" * 90_000,
    "calls": "def f():\n    return a" + "()" * 90_000,
    "lambdas": "def f():\n    return " + "lambda: " * 24_000 + "1",
    "integer": "def f():\n    return " + "9" * 190_000,
    "hexadecimal": "def f():\n    return 0x" + "f" * 190_000,
    "float": "def f():\n    return 1e" + "9" * 190_000,
    "string": "def f():\n    return '" + "x" * 190_000 + "'",
    "fields": "def f():\n    return f'" + "{a}" * 60_000 + "'",
    "nested_fields": "def f():\n    return f'" + "{a:" * 20_000 + "}" * 20_000 + "'",
    "indents": "def f():\n" + "".join(" " * at + "if 1:\n" for at in range(1, 600)),
    "nulls": "def f():\n\0\0\0    return 1",
    "escapes": "def f():\n    return '" + "\\N{x}" * 30_000 + "'",
    "decorators": "@a\n" * 60_000 + "def f(): pass",
    "targets": "def f():\n    " + "a = " * 45_000 + "1",
    "elifs": "def f():\n    if a: pass\n" + "    elif a: pass\n" * 12_000,
    "matches": "def f():\n    match a:\n        case " + "[" * 3_000 + "]" * 3_000 + ": pass",
    "functions": "".join(f"def f{at}(a):\n return f{at - 1}(a)\n" for at in range(6_000)),
    "continued": "def f():\n    return 1" + "\\\n+1" * 20_000,
    "fences": "```\ndef\n" * 20_000,
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_hostile_documents_are_contained(tmp_path: Path, name: str) -> None:
    plan = _plan(embed="off")
    bomb = BOMBS[name]
    for text in (bomb, f"```python\n{bomb}\n```\n"):
        best = _best(plan, _scan(tmp_path, plan, [text, REFERENCE]))
        assert best is not None
        assert (best.tier, best.doc) == ("exact", 1)


ENDLESS = '''\
def steps_above(values, limit):
    """Return how many neighbours in the list differ by more than the limit."""
    while True:
        limit = limit + 1
'''


def test_endless_functions_are_undecided_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from checks.contamination import scan_code

    monkeypatch.setattr(scan_code, "STEPS_FUNCTION", 20_000)
    items = [_item(f"i{at}", probes=[[[at], 1], *ARGUMENTS]) for at in range(4)]
    plan = _plan(items, siblings=3)
    used: list[int] = []

    def counted(*told: Any) -> Any:
        found = behaviours(*told)
        used.append(max(one.steps for one in found))
        return found

    monkeypatch.setattr(scan_code, "behaviours", counted)
    sketch = _scan(tmp_path, plan, [_fenced(ENDLESS)] * 5)
    best = _best(plan, sketch, "i0")
    assert best is not None
    assert best.tier == "related"
    # Four items with arguments of their own and five copies: the steps of one function, once.
    assert 20_000 <= sum(used) < 21_000


def test_a_function_is_parsed_and_run_once_for_its_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from checks.contamination import scan_code

    calls: list[str] = []
    runs: list[str] = []

    def read(text: str) -> Any:
        calls.append(text)
        return functions(text)

    def run(source: str) -> Any:
        runs.append(source)
        return program(source)

    monkeypatch.setattr(scan_code, "functions", read)
    monkeypatch.setattr(scan_code, "program", run)
    _scan(tmp_path, _plan(siblings=5), [_fenced(REWRITTEN), _fenced(REWRITTEN) + PROSE, PROSE])
    assert len(calls) == 3
    assert len(runs) == 1


def test_forgetting_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from checks.contamination import scan_code

    plan = _plan(siblings=3)
    before = _scan(tmp_path, plan, _corpus()).to_bytes()
    monkeypatch.setattr(scan_code, "REMEMBERED", 1)
    monkeypatch.setattr(scan_code, "HELD", 1)
    assert _scan(tmp_path, plan, _corpus()).to_bytes() == before


class Noisy(WordEncoder):
    """Coarse vectors off by as much as bf16's (6.5), another way on each call."""

    def __init__(self) -> None:
        self.calls = 0

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        exact = super().embed(texts)
        noise = np.random.default_rng(self.calls).standard_normal(exact.shape).astype(np.float32)
        return np.asarray(exact + 0.007 * noise / np.linalg.norm(noise, axis=1, keepdims=True))


def _bytes(path: Path, plan: Plan, encoder: WordEncoder | None = None) -> bytes:
    scanner = Scanner(plan, encoder=encoder or WordEncoder())
    parts = [scan(shard, plan, scanner=scanner) for shard in shards([stored(path)], 2**28)]
    return reduce(merge, parts, empty(plan.plan_sha256, plan.parameters.keep)).to_bytes()


def _stored(folder: Path) -> Path:
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in _corpus()))
    return path


def test_a_coarse_pass_changes_no_byte(tmp_path: Path) -> None:
    path, plan = _stored(tmp_path), _plan(siblings=4)
    assert _bytes(path, plan, Noisy()) == _bytes(path, plan)


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    path, plan = _stored(tmp_path), _plan(siblings=4)
    told = tmp_path / "plan"
    told.write_bytes(pickle.dumps((path, plan)))
    code = (
        "import pickle, sys; from pathlib import Path; from tests.checks.contamination.test_scan_code import _bytes; "
        "sys.stdout.buffer.write(_bytes(*pickle.loads(Path(sys.argv[1]).read_bytes())))"
    )
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(told)],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
        cwd=Path(__file__).resolve().parents[3],
    )
    assert ran.stdout == _bytes(path, plan)


def test_memory_grows_with_probes_only(tmp_path: Path) -> None:
    scanner = _scanner(_plan(siblings=6, embed="off"))
    assert scanner.code is not None

    def read(first: int, count: int) -> int:
        # Each function another one: nothing of them but a bounded number of outcomes may stay.
        sources = (REFERENCE.replace("steps_above", f"f{at}") for at in range(first, first + count))
        for source in sources:
            list(scanner.everything([(_fenced(source), "")]))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("checks.contamination.scan_code.REMEMBERED", 16)
        tracemalloc.start()
        try:
            early = read(0, 20)
            late = read(20, 60)
        finally:
            tracemalloc.stop()
    assert late < early + 200_000
    assert len(scanner.code._known) == 16
