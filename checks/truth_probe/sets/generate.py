"""Write the built-in sets, or with `--check` say which committed file is not what would be written.

Run as `python -m checks.truth_probe.sets.generate [--check]`. The same code gives the same bytes anywhere: draws come
from PCG64 with a fixed seed a set, rows are canonical JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from checks.truth_probe.sets.arithmetic import arithmetic
from checks.truth_probe.sets.comparison import comparison
from checks.truth_probe.sets.conjunction import conjunction
from checks.truth_probe.sets.geography import geography
from checks.truth_probe.sets.load import BUILT_IN, FOLDER, INDEX
from checks.truth_probe.sets.negation import negation
from checks.truth_probe.sets.rows import Row
from checks.truth_probe.sets.world import world

VERSION = "1"
"""Goes up when a generator writes other rows under the same name."""

LICENCE = "CC0-1.0"

MAKERS: Mapping[str, tuple[Callable[[], list[Row]], str]] = {
    "world": (world, "Names, facts and wordings invented for this project; stories drawn by its generator."),
    "geography": (
        geography,
        "Cities, countries and continents written by hand for this project from common knowledge.",
    ),
    "arithmetic": (arithmetic, "Problems drawn by this project's generator; results computed."),
    "comparison": (comparison, "Pairs of numbers drawn by this project's generator."),
    "negation": (negation, "The items of this project's geography and comparison, negated by its generator."),
    "conjunction": (conjunction, "Statements of this project's geography joined in twos by its generator."),
}
"""How each set is made, and where it comes from."""


def files() -> dict[str, bytes]:
    """Return every file by name: the sets, then their index."""
    made = {name: numbered(name, MAKERS[name][0]()) for name in BUILT_IN}
    written = {name: encoded(rows) for name, rows in made.items()}
    told = {
        name: {
            "sha256": hashlib.sha256(written[name]).hexdigest(),
            "items": len({row["item"] for row in made[name]}),
            "rows": len(made[name]),
            "clusters": len({row["cluster"] for row in made[name]}),
            "licence": LICENCE,
            "provenance": MAKERS[name][1],
            "generator_version": VERSION,
        }
        for name in BUILT_IN
    }
    index = json.dumps(told, ensure_ascii=False, sort_keys=True, indent=2) + "\n"
    return {f"{name}.jsonl": data for name, data in written.items()} | {INDEX: index.encode()}


def numbered(name: str, rows: Sequence[Row]) -> list[Row]:
    """Return a file's rows with their ids, which are unique over all files."""
    return [{**row, "id": f"{name}-{number:04d}"} for number, row in enumerate(rows)]


def encoded(rows: Sequence[Row]) -> bytes:
    """Return rows as JSON lines: sorted keys, no white space, UTF-8."""
    lines = (json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n" for row in rows)
    return "".join(lines).encode()


def stale(folder: Path = FOLDER) -> tuple[str, ...]:
    """Return the names of committed files that are missing or differ from what would be written."""
    return tuple(
        name for name, data in files().items() if not (folder / name).is_file() or (folder / name).read_bytes() != data
    )


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Write the files, or check them; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m checks.truth_probe.sets.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a committed file differs")
    if parser.parse_args(arguments).check:
        wrong = stale(folder)
        for name in wrong:
            print(f"stale: {folder / name} (run: python -m checks.truth_probe.sets.generate)")
        return 1 if wrong else 0
    for name, data in files().items():
        (folder / name).write_bytes(data)
        print(f"wrote {folder / name}: {len(data)} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
