"""Results item by item, so that two audits of the same items can be paired: artefacts of format `assay-items/v1`.

One document is one metric at one set of labels; a file holds one document, or several on a line each (a check with many
layers hands out one file a metric). Every document is canonical JSON. Source: report specification, section 15.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from assay import canonical
from assay.catalogue import ARTEFACT_MAX
from assay.errors import Malformed
from assay.result import INTEGER_MAX, NAME, canonical_decimal
from assay.shape import COUNT, LABELS, SHA256, TEXT, Kind, Maybe, check, exactly

FORMAT = "assay-items/v1"

MEDIA_TYPE = "application/jsonl"
"""Of a file with a document on each line."""

Reducer = Literal["mean", "auc", "influence"]

DOCUMENTS_MAX = 10_000
"""Documents of one file: 100 layers with 100 methods."""

_FIELDS = frozenset(
    {"format", "check", "metric", "labels", "reducer", "ids_sha256", "step", "scores", "targets", "clusters"}
)
_WHOLE = Kind("a list of whole numbers", lambda value: isinstance(value, list) and set(map(type, value)) <= {int})
_SHAPE = {
    "format": exactly(FORMAT),
    "check": TEXT,
    "metric": TEXT,
    "labels": LABELS,
    "reducer": Kind("mean, auc or influence", lambda value: value in get_args(Reducer)),
    "ids_sha256": SHA256,
    "step": TEXT,
    "scores": _WHOLE,
    "targets": Maybe(_WHOLE),
    "clusters": Maybe(_WHOLE),
}


@dataclass(frozen=True, kw_only=True)
class Items:
    """What one metric rests on, item by item, in the order of SHA-256(id)."""

    check: str
    metric: str
    labels: tuple[tuple[str, str], ...]
    """Sorted by key."""
    reducer: Reducer
    """How scores become the metric: their mean, the area under the curve of scores against targets, or, where the
    scores are influence values themselves, the check's own way."""
    ids_sha256: str
    step: str
    """A power of ten: a value is score * step."""
    scores: tuple[int, ...]
    targets: tuple[int, ...] | None = None
    """Classes 0 and 1, for `auc` alone."""
    clusters: tuple[int, ...] | None = None
    """Which items belong together, for the standard error."""

    @cached_property
    def groups(self) -> tuple[Sequence[int], int] | None:
        """Clusters as numbers below the number of items, and how many there are; None where every item stands alone."""
        if self.clusters is None:
            return None
        names = set(self.clusters)
        if max(names) < len(self.clusters):
            return self.clusters, len(names)
        numbers = {name: number for number, name in enumerate(sorted(names))}
        return [numbers[name] for name in self.clusters], len(names)

    @property
    def scale(self) -> float:
        """The step as a number."""
        return float(self.step)


def in_order(ids: Sequence[str]) -> tuple[tuple[int, ...], str]:
    """Return the places of items in their order by SHA-256(id), and `ids_sha256` of that order.

    Raises:
        Malformed: code `items_ids`: no id, an id twice, or one with a line break.
    """
    if not ids or len(set(ids)) != len(ids) or any("\n" in one for one in ids):
        raise Malformed("items_ids", "/ids_sha256", "items have ids of one line, each its own")
    order = sorted(range(len(ids)), key=lambda at: hashlib.sha256(ids[at].encode()).digest())
    return tuple(order), hashlib.sha256("\n".join(ids[at] for at in order).encode()).hexdigest()


def write(items: Items) -> bytes:
    """Return the canonical bytes of one document, without a final newline.

    Raises:
        Malformed: the values do not make a document that `read` takes.
    """
    data = canonical.dumps(_raw(items))
    read(data)
    return data


def write_all(documents: Sequence[Items]) -> bytes:
    """Return a file of documents, one on each line."""
    return b"".join(write(one) + b"\n" for one in documents)


def read(data: bytes) -> Items:
    """Read one document; nothing is repaired or ignored.

    Raises:
        Malformed: not canonical JSON (codes of `canonical.loads_canonical`), code `shape`, or
            `items_fields`, `items_name`, `items_step`, `items_number`, `items_length`, `items_targets`.
    """
    value = canonical.loads_canonical(data, ARTEFACT_MAX)
    check(value, _SHAPE)
    if stray := sorted(value.keys() ^ _FIELDS):
        raise Malformed("items_fields", f"/{stray[0]}"[:NAME_CAP], "exactly the fields of assay-items/v1 are allowed")
    return _checked(value)


def read_all(data: bytes) -> tuple[Items, ...]:
    """Read a file: one document, or one on each line; no two of the same metric and labels.

    Raises:
        Malformed: as `read`, at `line:N…`; codes `size_cap` and `items_twice`.
    """
    if len(data) > ARTEFACT_MAX:
        raise Malformed("size_cap", "", f"the file has {len(data)} bytes, the limit is {ARTEFACT_MAX}")
    lines = data.removesuffix(b"\n").split(b"\n")
    if len(lines) > DOCUMENTS_MAX:
        raise Malformed("size_cap", "", f"the file has {len(lines)} documents, the limit is {DOCUMENTS_MAX}")
    told: dict[tuple[str, str, tuple[tuple[str, str], ...]], Items] = {}
    for number, line in enumerate(lines, 1):
        try:
            one = read(line)
        except Malformed as error:
            raise Malformed(error.code, f"line:{number}{error.at}"[:NAME_CAP], error.message) from None
        key = (one.check, one.metric, one.labels)
        if key in told:
            raise Malformed("items_twice", f"line:{number}", "two documents of one metric and labels")
        told[key] = one
    return tuple(told.values())


NAME_CAP = 128
"""Longest name of an item or place (`assay.result.NAME`)."""


def _raw(items: Items) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "check": items.check,
        "metric": items.metric,
        "labels": dict(items.labels),
        "reducer": items.reducer,
        "ids_sha256": items.ids_sha256,
        "step": items.step,
        "scores": list(items.scores),
        "targets": None if items.targets is None else list(items.targets),
        "clusters": None if items.clusters is None else list(items.clusters),
    }


def _checked(value: Mapping[str, Any]) -> Items:
    labels = value["labels"]
    for field, name in (("check", value["check"]), ("metric", value["metric"]), *(("labels", k) for k in labels)):
        if not NAME.fullmatch(name):
            raise Malformed("items_name", f"/{field}", "a name lies outside its alphabet")
    if not all(NAME.fullmatch(one) for one in labels.values()):
        raise Malformed("items_name", "/labels", "a label lies outside its alphabet")
    _check_step(value["step"])
    scores, targets, clusters = value["scores"], value["targets"], value["clusters"]
    if not scores:
        raise Malformed("items_length", "/scores", "there is no item")
    for field, numbers in (("targets", targets), ("clusters", clusters)):
        if numbers is not None and len(numbers) != len(scores):
            raise Malformed("items_length", f"/{field}", f"{len(numbers)} numbers for {len(scores)} scores")
    if clusters is not None:
        check(clusters, [COUNT], "/clusters")
    # A canonical document holds none beyond; the sums of n such numbers stay exact, as Python's integers do.
    assert all(-INTEGER_MAX <= one <= INTEGER_MAX for one in (min(scores), max(scores)))
    if (value["reducer"] == "auc") != (targets is not None):
        raise Malformed("items_targets", "/targets", "the reducer auc has targets, and no other has")
    if targets is not None and set(targets) != {0, 1}:
        raise Malformed("items_targets", "/targets", "targets are 0 and 1, and both occur")
    return Items(
        check=value["check"],
        metric=value["metric"],
        labels=tuple(sorted(labels.items())),
        reducer=value["reducer"],
        ids_sha256=value["ids_sha256"],
        step=value["step"],
        scores=tuple(scores),
        targets=None if targets is None else tuple(targets),
        clusters=None if clusters is None else tuple(clusters),
    )


def _check_step(text: str) -> None:
    try:
        fits = canonical_decimal(text) == text and text.replace(".", "").strip("0") == "1"
    except ValueError:
        fits = False
    if not fits:
        raise Malformed("items_step", "/step", "the step is a power of ten as a canonical decimal")
