"""Bands of controls and spans of p-values, as a catalogue entry promises them.

Pure, over plain JSON, like `assay.promise`, whose part this is. An entry's control says in `bands` what it may state:
`metric`, and `labels` where only those instances are meant; `low` and `high`; `fixed` where every answer states exactly
these, else what depends on n or on the data lies within them; `always` where each run states at least one such number.
Of the bands of one metric the first whose labels an instance carries is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from assay.decimals import DECIMAL
from assay.errors import Malformed, shown

P_LEAST = Decimal("0.000000000001")
"""No p-value is told below this; `assay.result.P_LEAST`, whose schema library readers do not load."""

_ADDED: Mapping[str, frozenset[str]] = MappingProxyType(
    {"metrics": frozenset({"tolerance", "margin", "interval", "summary"}), "controls": frozenset({"bands"})}
)
"""What entries say since bands are promised; some said `interval` before. Summaries are no promise that an answer is
held to, and were mended with it: some said of a number that it has no interval, which it had."""

_SINCE = (("metrics", "tolerance"), ("metrics", "margin"), ("controls", "bands"))
"""By these an entry is told from one of before."""


def check_bands(control: Mapping[str, Any], told: Mapping[str, Any], at: str) -> None:
    """Refuse a control whose band is not what its entry promises.

    An entry of before bands were promised has no `bands`; nothing is held then.

    Args:
        control: of the answer.
        told: the control of that name in the entry.
        at: JSON pointer of the control.

    Raises:
        Malformed: free_text for a number that the entry does not name, result_schema for another band.
    """
    promised = told.get("bands")
    if promised is None:
        return
    name, metric = shown(control.get("name")), control.get("metric")
    band = next((one for one in promised if _means(one, control)), None)
    if band is None:
        raise Malformed(
            "free_text", f"{at}/metric", f"control {name}: the catalogue promises no band of {shown(metric)}"
        )
    stated = control.get("band")
    low, high = (stated.get("low"), stated.get("high")) if isinstance(stated, Mapping) else (None, None)
    if not _inside(low, high, band):
        how = "exactly" if band["fixed"] else "within"
        said = f"[{shown(low)}, {shown(high)}], the catalogue promises {how} [{band['low']}, {band['high']}]"
        raise Malformed("result_schema", f"{at}/band", f"control {name}: the band of {shown(metric)} is {said}")


def unstated(controls: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> str | None:
    """Return a metric of which a control that is there states no number, though each run of it states one."""
    own = [one for one in controls if one.get("name") == told["name"]]
    owed = (band for band in told.get("bands") or () if band["always"])
    return next((str(band["metric"]) for band in owed if own and not any(_means(band, one) for one in own)), None)


def is_p(value: object) -> bool:
    """Tell whether this is a p-value as reports tell it: from 10^-12 to 1."""
    number = _number(value)
    return number is not None and P_LEAST <= number <= 1


def states(entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry promises bands or tolerances; those from before they were promised do not."""
    return any(field in one for kind, field in _SINCE for one in entry[kind])


def bare(field: str, value: Any) -> Any:
    """Return a field of an entry as an entry of before bands would have it."""
    added = _ADDED.get(field)
    return value if added is None else [{key: one[key] for key in one if key not in added} for one in value]


def as_answered(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry that answers of before bands can be held to.

    Their checks stated the same bands, so these are held; tolerances and margins they did not all declare.
    """
    metrics = [{key: one[key] for key in one if key not in ("tolerance", "margin")} for one in entry["metrics"]]
    return {**entry, "metrics": metrics}


def check_form(bands: object, at: str) -> None:
    """Hold the bands of an entry's control against their form.

    Raises:
        Malformed: catalogue_form.
    """
    if not isinstance(bands, list) or not bands:
        raise Malformed("catalogue_form", at, "expected a list of bands, at least one")
    for index, band in enumerate(bands):
        fits = (
            isinstance(band, dict)
            and isinstance(band.get("metric"), str)
            and isinstance(band.get("fixed"), bool)
            and isinstance(band.get("always"), bool)
            and _are_labels(band.get("labels", {}))
            and _ordered(band.get("low"), band.get("high"))
        )
        if not fits:
            told = "a band has metric, low, high as decimals in this order, fixed and always, and labels or none"
            raise Malformed("catalogue_form", f"{at}/{index}", told)


def check_spread(metric: Mapping[str, Any], at: str) -> None:
    """Hold tolerance and margin of an entry's metric against their form; an older entry has neither.

    Raises:
        Malformed: catalogue_form.
    """
    tolerance, margin = metric.get("tolerance"), metric.get("margin")
    if tolerance is not None:
        sizes = [tolerance.get(part) for part in ("abs", "rel")] if isinstance(tolerance, dict) else [None]
        if len(tolerance) != len(sizes) or not all(_is_size(size) for size in sizes):
            raise Malformed("catalogue_form", f"{at}/tolerance", "expected null, or abs and rel as decimals from 0")
    if margin is not None and not _is_size(margin):
        raise Malformed("catalogue_form", f"{at}/margin", "expected null, or a decimal from 0")


def _means(band: Mapping[str, Any], control: Mapping[str, Any]) -> bool:
    labels = control.get("labels")
    labels = labels if isinstance(labels, Mapping) else {}
    wanted: Iterable[tuple[str, str]] = band.get("labels", {}).items()
    return bool(band["metric"] == control.get("metric")) and all(labels.get(key) == value for key, value in wanted)


def _inside(low: object, high: object, band: Mapping[str, Any]) -> bool:
    if band["fixed"]:
        return bool(low == band["low"] and high == band["high"])
    bottom, top = _number(low), _number(high)
    return bottom is not None and top is not None and Decimal(band["low"]) <= bottom and top <= Decimal(band["high"])


def _number(value: object) -> Decimal | None:
    return Decimal(value) if isinstance(value, str) and DECIMAL.fullmatch(value) else None


def _is_size(value: object) -> bool:
    number = _number(value)
    return number is not None and number >= 0


def _ordered(low: object, high: object) -> bool:
    bottom, top = _number(low), _number(high)
    return bottom is not None and top is not None and bottom <= top


def _are_labels(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
