"""Peak memory of a scan does not grow with the corpus (contamination, 13): each scan in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCAN = """
import sys
from pathlib import Path
import numpy as np
from checks.contamination.items import Item
from checks.contamination.plan import ScanParameters, make_plan
from checks.contamination.scan import scan
from checks.contamination.shards import shards, stored
questions = Path(sys.argv[2]).read_text().splitlines()
items = [Item("demo", f"q{number}", "prose", text) for number, text in enumerate(questions)]
plan = make_plan(items, shards=shards([stored(Path(sys.argv[1]))], 2**40), parameters=ScanParameters(embed="off"),
                 window_key=bytes(32), rng=np.random.default_rng(0))
sketch = scan(plan.shards[0], plan)
(count,) = sketch.shards.values()
status = Path("/proc/self/status").read_text()
print(count.docs, len(sketch.best), int(status.partition("VmHWM:")[2].split()[0]) * 1024)
"""
"""The peak is this program's own: `ru_maxrss` begins with that of the process that started it."""

WORDS = 30_000
"""Distinct words of a corpus: what a scan remembers of numbers must not grow with them either."""


def _corpus(path: Path, size: int, questions: list[str]) -> None:
    """Write documents of random words and numbers; every thousandth holds a question."""
    rng = np.random.default_rng(1)
    letters = np.array(list("etaoinshrdlu"))
    words = np.array(["".join(letters[rng.integers(0, 12, n)]) for n in rng.integers(2, 9, WORDS)])
    with path.open("w", encoding="utf-8") as out:
        made = number = 0
        while made < size:
            told = words[rng.integers(0, WORDS, 380)]
            told[::9] = rng.integers(0, 10**7, len(told[::9])).astype(str)
            text = " ".join(told.tolist())
            if number % 1000 == 0:
                text += "\n\n" + questions[number // 1000 % len(questions)]
            made += out.write(json.dumps({"text": text}) + "\n")
            number += 1


def _peak(corpus: Path, questions: Path) -> tuple[int, int, int]:
    """Return documents, probes found, and peak bytes of a scan."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", SCAN, str(corpus), str(questions)],
        capture_output=True, text=True, check=True, env={**os.environ, **threads},
    )  # fmt: skip
    documents, found, peak = map(int, ended.stdout.split())
    return documents, found, peak


def _growth(folder: Path, sizes: tuple[int, int]) -> float:
    questions = [f"A baker fills {n} trays with {n + 7} rolls each. How many rolls lie on them?" for n in range(12, 40)]
    asked = folder / "questions"
    asked.write_text("\n".join(questions))
    peaks = []
    for size in sizes:
        corpus = folder / f"corpus-{size}.jsonl"
        _corpus(corpus, size, questions)
        documents, found, peak = _peak(corpus, asked)
        assert documents > size // 4000
        assert found  # the questions in it: the scan did look
        assert peak < 1_200_000_000 + 2000 * len(questions)
        peaks.append(peak)
    return peaks[1] / peaks[0]


def test_peak_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    # One batch is 8 MB: with three of them in the smaller corpus both reach what a batch takes.
    assert _growth(tmp_path, (20_000_000, 40_000_000)) < 1.10


@pytest.mark.slow
def test_peak_memory_does_not_grow_from_10_to_100_megabytes(tmp_path: Path) -> None:
    assert _growth(tmp_path, (20_000_000, 100_000_000)) < 1.10
