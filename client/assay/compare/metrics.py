"""One metric of two answers: its items where both handed them out, else its intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from assay.compare.agreement import Answer, Incomparable, must_agree
from assay.compare.differences import Difference, Told, paired, unpaired
from assay.compare.influence import influence
from assay.compare.items import Items, read_all
from assay.compare.sides import Side
from assay.errors import Malformed

Metric = Mapping[str, Any]

NO_ITEMS, ITEMS_ABSENT = "no_items", "items_absent"

SAMPLE_REACH = 5.0
"""Half-widths of the report's interval, scaled to the size of a sample, by which the sample's own number may lie
outside it: at the levels that checks use more than chance explains, and less than other items would differ."""

LEVEL_LEAST = 0.5
"""Intervals of a lower level tell no standard error: their half-width is near zero by definition."""


def file_names(metric: str) -> tuple[str, str]:
    """Return the names under which a check hands out the items of a metric: one document, or a line an instance."""
    return f"items.{metric}.json", f"items.{metric}.jsonl"


@dataclass(frozen=True)
class Seen:
    """A metric's difference, and why nothing paired it."""

    difference: Difference
    unpaired_because: str | None
    """None where items paired it."""
    absent: tuple[int, ...] = ()
    """Sides, 0 and 1, that signed items and do not carry them: then nothing is answered, see `Reader.difference`."""


@dataclass
class Reader:
    """Reads items of both sides; each file once."""

    a: Side
    b: Side
    _read: dict[tuple[int, str], tuple[Items, ...] | None] = field(default_factory=dict)

    def difference(self, answers: tuple[Answer, Answer], metrics: tuple[Metric, Metric]) -> Seen:
        """Return B less A of one metric.

        Where a report signed items and its file is gone, no difference is told: which numbers are compared by items
        and which by their intervals is what the reports signed, and whoever may delete a file must not choose it.

        Raises:
            Incomparable: units, items or their ids differ, or items do not give the metric.
        """
        at = f"answers/{answers[0]['check']}/{metrics[0]['name']}"
        must_agree(f"{at}/unit", metrics[0]["unit"], metrics[1]["unit"])
        must_agree(f"{at}/better", metrics[0].get("better"), metrics[1].get("better"))
        a, b = (self._items(side, answers[side], metrics[side], at) for side in (0, 1))
        if isinstance(a, Items) and isinstance(b, Items):
            for name in ("reducer", "ids_sha256", "targets", "clusters"):
                must_agree(f"{at}/items/{name}", getattr(a, name), getattr(b, name))
            return Seen(paired(a, b, *(float(metric["value"]) for metric in metrics)), None)
        told = unpaired(_told(metrics[0]), _told(metrics[1]))
        absent = tuple(side for side, found in enumerate((a, b)) if found == ITEMS_ABSENT)
        if absent:
            return Seen(Difference(d=told.d, method="none", reason=ITEMS_ABSENT), ITEMS_ABSENT, absent)
        return Seen(told, NO_ITEMS)

    def _items(self, side: int, answer: Answer, metric: Metric, at: str) -> Items | str:
        named = {one["name"]: one["sha256"] for one in answer.get("artefacts") or ()}
        one, many = file_names(metric["name"])
        digest = metric.get("items_sha256") or named.get(one) or named.get(many)
        if digest is None:
            return NO_ITEMS
        if (side, digest) not in self._read:
            self._read[side, digest] = self._parsed((self.a, self.b)[side], digest, at)
        documents = self._read[side, digest]
        if documents is None:
            return ITEMS_ABSENT
        key = (answer["check"], metric["name"], tuple(sorted(metric["labels"].items())))
        items = next((one for one in documents if (one.check, one.metric, one.labels) == key), None)
        if items is None:
            return NO_ITEMS
        _check_value(items, metric, at)
        return items

    def _parsed(self, side: Side, digest: str, at: str) -> tuple[Items, ...] | None:
        data = side.artefact(digest)
        try:
            return None if data is None else read_all(data)
        except Malformed as error:
            raise Incomparable(f"{at}/items{_place(error.at)}", f"no assay-items/v1 ({error})", "needed so") from None


def _place(at: str) -> str:
    return f"/{at.lstrip('/')}" if at else ""


def _told(metric: Metric) -> Told:
    interval = metric.get("interval")
    certain = metric["determinism"] == "exact"
    if interval is None:
        return Told(float(metric["value"]), certain=certain)
    low, high, level = (float(interval[name]) for name in ("low", "high", "level"))
    usable = level if LEVEL_LEAST <= level < 1.0 else None
    return Told(float(metric["value"]), low, high, usable, certain and low == high)


def _check_value(items: Items, metric: Metric, at: str) -> None:
    """Refuse items whose own metric lies outside what the report claims of it: they are of something else.

    Fewer items than the metric has are a sample of them, whose number strays the more the fewer they are.
    """
    theta = influence(items).theta
    if theta is None:
        return
    value, step, interval = float(metric["value"]), float(metric["step"]), metric.get("interval")
    low, high = (value, value) if interval is None else (float(interval["low"]), float(interval["high"]))
    slack, share = step, len(items.scores) / metric["n"] if metric["n"] else 1.0
    if share < 1.0:
        slack += SAMPLE_REACH * (high - low) / 2.0 / sqrt(share)
    if not low - slack <= theta <= high + slack:
        raise Incomparable(f"{at}/items/scores", f"{theta:.6g} by its items", f"{metric['value']} by the report")
