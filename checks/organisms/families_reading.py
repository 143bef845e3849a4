"""The authored files of families, read from `families/*.json`. Specification: contamination, section 11."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Kind = Literal["words", "facts", "code"]

FOLDER = Path(__file__).with_name("families")
"""Holds the authored files; each begins with the kind that it holds."""


@dataclass(frozen=True)
class Version:
    """A text of a family, or a function."""

    how: str
    """original, light, reworded; number, template, reworded_numbers; operator, negation, entity, reworded_entity,
    relation, statement; behaviour, constant."""
    text: str
    program: str | None = None
    """Words and facts: expression of the answer, None where the family does not hold it. Code: the source."""
    entry: str | None = None
    """Code: name of the function."""


@dataclass(frozen=True)
class Family:
    """What one entry of an authored file says."""

    name: str
    kind: Kind
    values: Mapping[str, tuple[int, int, int]]
    """Lowest, highest, step."""
    picks: Mapping[str, tuple[str, ...]]
    """Names and things; `pools` tells which come from a pool."""
    pools: Mapping[str, str]
    when: tuple[str, ...]
    """Conditions on values, as expressions."""
    derived: Mapping[str, str]
    """Values that are computed from the others."""
    original: Version
    rewordings: tuple[Version, ...]
    negatives: tuple[Version, ...]
    statement: str | None
    """Facts: the same said, not asked."""
    probes: tuple[tuple[Any, ...], ...]
    """Code: argument lists."""


@cache
def read_all() -> tuple[Family, ...]:
    """Return every family of the authored files; `families.dev` and `families.test` tell them apart.

    Raises:
        ValueError: two families have one name.
    """
    pools = json.loads((FOLDER / "pools.json").read_text(encoding="utf-8"))
    made = [
        _family(kind, entry, pools)
        for kind in ("words", "facts", "code")
        for path in sorted(FOLDER.glob(f"{kind}*.json"))
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]
    if len({family.name for family in made}) != len(made):
        raise ValueError("two families have one name")
    return tuple(made)


def _family(kind: Any, entry: Mapping[str, Any], pools: Mapping[str, Sequence[str]]) -> Family:
    def version(held: Any, how: str) -> Version:
        if isinstance(held, str):
            return Version(how, held)
        truth = held.get("program")
        source = "\n".join(truth) + "\n" if isinstance(truth, list) else truth
        return Version(held.get("kind", how), held["text"], source, held.get("entry", entry.get("entry")))

    original = version({"text": entry["original"], "program": entry["program"]}, "original")
    return Family(
        name=entry["name"],
        kind=kind,
        values={name: (held[0], held[1], held[2] if len(held) > 2 else 1) for name, held in entry["values"].items()},
        picks={name: tuple(pools[held] if isinstance(held, str) else held) for name, held in entry["picks"].items()},
        pools={name: held for name, held in entry["picks"].items() if isinstance(held, str)},
        when=tuple(entry.get("when", ())),
        derived=entry.get("derived", {}),
        original=original,
        rewordings=tuple(version(held, "reworded") for held in entry["rewordings"]),
        negatives=tuple(version(held, "") for held in entry["negatives"]),
        statement=entry.get("statement"),
        probes=tuple(tuple(one) for one in entry.get("probes", ())),
    )
