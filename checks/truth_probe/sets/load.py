"""The built-in sets as they are committed: read from this folder, held to their digests.

No generator and nothing beyond the standard library is imported, so this runs where the code is read-only.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from checks.errors import ChecksError

DEFAULT: tuple[str, ...] = ("world", "geography", "arithmetic", "comparison")
"""Sets that are fitted and judged unless the caller names others (section 2)."""

EXTRA: tuple[str, ...] = ("negation", "conjunction")
"""Sets that a direction fitted elsewhere is tested on (section 5.11)."""

BUILT_IN: tuple[str, ...] = DEFAULT + EXTRA
"""Every set of this folder."""

FOLDER = Path(__file__).parent

JOIN = "&"
"""Between the names of the two couples in a cluster of `conjunction`."""

INDEX = "sets.json"
"""What is committed of each set: digest, counts, licence, provenance."""


class SetDamaged(ChecksError):
    """A committed set is missing or not the one that the index describes; the message names the file."""


def rows(name: str) -> tuple[dict[str, Any], ...]:
    """Return the rows of a set, in file order; each call gives new ones, which the caller may change.

    Args:
        name: one of `BUILT_IN`.

    Raises:
        KeyError: no set has that name.
        SetDamaged: the file is missing or differs from its digest.
    """
    return tuple(json.loads(line) for line in _text(name).splitlines())


def digest(name: str) -> str:
    """Return the SHA-256 of a set's file, as 64 hexadecimal digits; it names the set in a report.

    Raises:
        KeyError: no set has that name.
        SetDamaged: the index is missing or unreadable.
    """
    if name not in BUILT_IN:
        raise KeyError(f"no built-in set {name!r}: there are {', '.join(BUILT_IN)}")
    try:
        return str(index()[name]["sha256"])
    except (KeyError, TypeError):
        raise SetDamaged(
            f"{FOLDER / INDEX}: no digest of {name}; run python -m checks.truth_probe.sets.generate"
        ) from None


@functools.cache
def index() -> Mapping[str, Mapping[str, Any]]:
    """Return what `sets.json` says of each set.

    Raises:
        SetDamaged: the index is missing or not JSON.
    """
    try:
        return MappingProxyType(json.loads((FOLDER / INDEX).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise SetDamaged(f"{FOLDER / INDEX}: {error}") from error


def parts(cluster: str) -> tuple[str, ...]:
    """Return the clusters of `geography` that a cluster of `conjunction` is made of; any other cluster is its own.

    A row of `conjunction` is unseen by a direction fitted on `geography` only where all of them are in its test split.
    """
    return tuple(cluster.split(JOIN))


@functools.cache
def _text(name: str) -> str:
    expected, path = digest(name), FOLDER / f"{name}.jsonl"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SetDamaged(f"{path}: {error.strerror or error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise SetDamaged(f"{path}: SHA-256 is {found}, {INDEX} says {expected}")
    return data.decode("utf-8")
