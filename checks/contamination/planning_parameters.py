"""The parameters of the corpus side by their names and ranges, as a caller gives them (contamination, 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from checks.contamination.items import MAX_ITEMS
from checks.contamination.languages import LANGUAGES
from checks.contamination.plan import PARTS, ScanParameters
from checks.contamination.planning import Asked

Read = Callable[[Any], Any]

SHARES: Mapping[str, tuple[float, float]] = {
    "q": (0.001, 0.2),
    "near_lcs": (0.5, 1),
    "near_overlap": (0.5, 1),
    "cosine_floor": (0.3, 0.95),
    "template_cosine": (0.3, 0.95),
    "sample_fraction": (1 / PARTS, 1),
    "plant_share": (0, 0.2),
    "max_bad_share": (0, 0.05),
    "near_power": (0, 1),
    "semantic_power": (0, 1),
}
"""Shares and their ranges (section 3); a plan holds them in parts of 10 000, the smallest of which is not 0."""

COUNTS: Mapping[str, tuple[int, int]] = {
    "seed_ngram": (4, 13),
    "keep": (4, 64),
    "reveal_chars": (0, 2000),
    "max_items": (1, 200_000),
    "siblings": (1, 100),
}
"""Counts and their ranges (section 3)."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "embed": ("all", "sample", "off"),
    "coarse": ("fp32", "bf16"),
    "evidence": ("none", "commit", "reveal"),
}
"""Words that are one of a few (section 3)."""

GATING = ("exact", "near", "semantic", "template")
"""Tiers that may give `detected`: any but `related` (section 3)."""

BIN_RANGE = (8, 512)
"""Words of a window: a shorter one holds no item that is told by name (9.3), and of a longer one the encoder would not
read the second half (6.5: 256 word pieces)."""

BINS_MAX = 8
"""Bins at most: each embeds the whole corpus once more (6.5)."""

NAMES_MAX, NAME_MAX = 64, 128
"""Names in a list, and characters of a name or of a dotted path."""


@dataclass(frozen=True)
class Parameters:
    """Parameters as a plan holds them."""

    asked: Asked
    scan: ScanParameters
    max_items: int = MAX_ITEMS


def read_parameters(told: Mapping[str, Any]) -> Parameters:
    """Return parameters from their names of section 3; what is not named has its default.

    Args:
        told: JSON values by name: `q`, `siblings` (a count or "auto"), `near_power` and `semantic_power` (`min_power`
            of either tier) ...

    Raises:
        ValueError: a name is unknown, or a value outside its range; the message says which, and no value that is text.
    """
    asked: dict[str, Any] = {}
    scan: dict[str, Any] = {}
    most = MAX_ITEMS
    for name, value in told.items():
        if name not in _READ:
            raise ValueError(f"{name[:NAME_MAX]} is no parameter of the corpus side")
        read = _READ[name](value)
        if name == "max_items":
            most = read
        else:
            (asked if name in Asked.__dataclass_fields__ else scan)[name] = read
    return Parameters(Asked(**asked), ScanParameters(**scan), most)


def _share(name: str) -> Read:
    low, high = SHARES[name]

    def read(value: Any) -> int:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
        if not number or not low <= value <= high:
            raise ValueError(f"{name} is outside {low:g}..{high:g}")
        parts: int = round(value * PARTS)
        return parts

    return read


def _count(name: str) -> Read:
    low, high = COUNTS[name]

    def read(value: Any) -> int:
        if name == "siblings" and value == "auto":
            return 0
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} is outside {low}..{high}")
        return int(value)

    return read


def _choice(name: str) -> Read:
    def read(value: Any) -> str:
        if value not in CHOICES[name]:
            raise ValueError(f"{name} is none of {', '.join(CHOICES[name])}")
        return str(value)

    return read


def _tiers(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value or not {*map(str, value)} <= {*GATING}:
        raise ValueError(f"gating_tiers are none of {', '.join(GATING)}")
    return tuple(tier for tier in GATING if tier in value)


def _bins(value: Any) -> tuple[int, ...]:
    low, high = BIN_RANGE
    fits = isinstance(value, (list, tuple)) and 0 < len(value) <= BINS_MAX
    if not fits or not all(type(one) is int and low <= one <= high for one in value):
        raise ValueError(f"windows are no list of 1..{BINS_MAX} lengths of {low}..{high} words")
    return tuple(sorted(set(value)))


def _names(name: str) -> Read:
    def read(value: Any) -> tuple[str, ...]:
        fits = isinstance(value, (list, tuple)) and len(value) <= NAMES_MAX
        if not fits or not all(isinstance(one, str) and 0 < len(one) <= NAME_MAX for one in value):
            raise ValueError(f"{name} is no list of at most {NAMES_MAX} names")
        return tuple(value)

    return read


def _languages(value: Any) -> tuple[str, ...]:
    listed = _names("languages")(value)
    if not {*listed} <= {*LANGUAGES}:
        raise ValueError(f"languages holds one without a detector: there are {' and '.join(LANGUAGES)}")
    return tuple(listed)


def _field(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= NAME_MAX or not all(value.split(".")):
        raise ValueError("text_field is no dotted path")
    return value


_READ: Mapping[str, Read] = {
    **{name: _share(name) for name in SHARES},
    **{name: _count(name) for name in COUNTS},
    **{name: _choice(name) for name in CHOICES},
    "gating_tiers": _tiers,
    "windows": _bins,
    "always_embed": _names("always_embed"),
    "languages": _languages,
    "text_field": _field,
}

PARAMETERS = tuple(_READ)
"""Names of the parameters that are read here."""
