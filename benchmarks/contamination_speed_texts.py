"""Text that the machine carries, as documents of about 2.5 kB, and a benchmark to look for in it.

Debian's documentation and licences, and docstrings of the standard library; changelogs, which are lists of numbers, as
a part of their own. Equal machines give equal documents.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from checks.contamination.items import Item, read_benchmark
from checks.organisms import families
from checks.organisms.contamination_corpus import docstrings, library_files
from checks.organisms.families import draws

DOC = Path("/usr/share/doc")
SIZE = 2500
"""Letters of a document (section 13)."""
PER_FILE = 40
"""Documents of one file: none may be the corpus."""
LARGEST = 2_000_000
"""Stored bytes of a file that is read."""


def parts(size: int, seed: int = 0) -> dict[str, list[str]]:
    """Return about `size` bytes of documents of each kind, fewer where the machine carries fewer."""
    told: dict[str, list[str]] = {"docs": [], "licences": [], "docstrings": [], "changelogs": []}
    bytes_of = dict.fromkeys(told, 0)
    rng = np.random.default_rng(seed)
    files = sorted(path for path in DOC.rglob("*") if path.is_file() and not path.is_symlink())
    seen: set[int] = set()
    for at in rng.permutation(len(files)):
        kind = _kind(files[int(at)])
        if bytes_of[kind] < size:
            held = _cut(_read(files[int(at)]))
            new = [one for one in held[:PER_FILE] if hash(one) not in seen]
            seen.update(map(hash, new))
            told[kind] += new
            bytes_of[kind] += sum(len(one.encode()) for one in new)
    library = library_files()
    for at in rng.permutation(len(library)):
        if bytes_of["docstrings"] >= size:
            break
        new = _cut("\n\n".join(docstrings(library[int(at)])))
        told["docstrings"] += new
        bytes_of["docstrings"] += sum(len(one.encode()) for one in new)
    return told


def mixed(size: int, seed: int = 0) -> list[str]:
    """Return about `size` bytes of documentation, licences and docstrings, a third each where there is enough."""
    held = parts(size // 3, seed)
    every = [*held["docs"], *held["licences"], *held["docstrings"]]
    return [every[int(at)] for at in np.random.default_rng(seed).permutation(len(every))]


def stream(size: int, letters: int = SIZE) -> Iterator[str]:
    """Yield about `size` bytes of documents in the order of their files, which may repeat from file to file."""
    made = 0
    for path in sorted(DOC.rglob("*")):
        if path.is_file() and not path.is_symlink() and _kind(path) != "changelogs":
            for one in _cut(_read(path), letters):
                yield one
                made += len(one.encode())
                if made >= size:
                    return


def write(texts: Sequence[str] | Iterator[str], path: Path) -> int:
    """Write documents as JSONL; return how many."""
    count = 0
    with path.open("w", encoding="utf-8") as out:
        for text in texts:
            out.write(json.dumps({"text": text}) + "\n")
            count += 1
    return count


def benchmark(count: int) -> tuple[Item, ...]:
    """Return prose items drawn from the authored families, the test half among them: nothing is tuned here."""
    held = [one for one in (*families.dev(), *families.test()) if one.kind != "code"]
    each = -(-count // len(held)) + 8
    drawn: list[str] = []
    for family in held:
        rng = np.random.default_rng([17, *family.name.encode()])
        for wanted in (each, each // 2, families.DRAWS):
            try:
                drawn += [one.item.question for one in draws(family, rng, wanted)]
            except ValueError:
                continue  # its conditions leave fewer values
            break
    order = np.random.default_rng(17).permutation(len(drawn))[:count]
    return read_benchmark(
        [
            {"benchmark": "speed", "item": f"i{number}", "kind": "prose", "question": drawn[int(at)]}
            for number, at in enumerate(order)
        ]
    )


def _kind(path: Path) -> str:
    name = path.name.lower()
    if "changelog" in name or name.startswith("news"):
        return "changelogs"
    return "licences" if name == "copyright" else "docs"


def _read(path: Path) -> str:
    if path.stat().st_size > LARGEST:
        return ""
    stored = path.read_bytes()
    try:
        text = (gzip.decompress(stored) if path.suffix == ".gz" else stored).decode("utf-8")
    except (UnicodeDecodeError, OSError, EOFError):
        return ""
    return "" if "\x00" in text else text


def _cut(text: str, letters: int = SIZE) -> list[str]:
    """Return whole paragraphs together up to a size; a longer one is cut, and what is left of a file under half."""
    out: list[str] = []
    held = ""
    for paragraph in text.split("\n\n"):
        held += paragraph + "\n\n"
        while len(held) >= letters:
            out.append(held[:letters])
            held = held[letters:]
    return [*out, held] if len(held) > letters // 2 else out
