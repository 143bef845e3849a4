"""Results item by item, for a comparison of two reports: which side of zero each test row fell on, and how it ranked.

Documents take turns until the bytes are spent: the audit's own sets before others, layers whose effect is measured
before others, and of each the ceiling's accuracy first. Source: report specification, sections 15 and 22.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from assay.result import Skipped

from checks.ask import as_name
from checks.check import ArtefactSpec
from checks.items import MEDIA_TYPE, Roll, document, file_name, roll
from checks.truth_probe.fitting import Method
from checks.truth_probe.gathering import Gathered, Held
from checks.truth_probe.probing import LayerNumbers
from checks.truth_probe.scores import sides

CHECK = "truth_probe"
"""Name of the check, as every document has it."""

KEPT = "items"
"""Where `measure` leaves the files for `hand_out`, in what the evidence keeps."""

BYTES_MAX = 48 * 1024
"""Most bytes of all files: of an audit's 64 KiB at least a quarter stays for the answer itself."""

ANSWER_BYTES, CELL_BYTES = 62 * 1024, 2450
"""What answer and files share of an audit's 64 KiB, and what one set at one layer takes of it: with every role 2050
bytes of numbers (measured at 12 layers), and its share of controls and findings. Answers come first; the rest of the
64 KiB is for what is told of the model's files."""

SAMPLES = (400, 200, 100)
"""Test rows that are kept of a set where all do not fit. Below 100 hardly any difference could be told."""

KINDS: tuple[tuple[str, Method], ...] = (
    ("accuracy", "lr"),
    ("accuracy", "md"),
    ("auroc", "md"),
    ("accuracy", "ccs"),
    ("auroc", "lr"),
)
"""Metrics that are handed out, in their turn: the ceiling, the primary method, what gate 1 asks of it, the rest."""

FILES = tuple(
    ArtefactSpec(
        name=file_name(metric),
        media_type=MEDIA_TYPE,
        max_bytes=BYTES_MAX,
        summary=summary,
    )
    for metric, summary in (
        ("accuracy", "Each test row's side of zero, right or wrong, by set, layer and method; never an id or a text."),
        ("auroc", "Each test row's rank by its score, and its label, by set, layer and method; never an id or a text."),
    )
)


@dataclass(frozen=True)
class _Rows:
    """Test rows of one set, or those of them that are kept."""

    name: str
    held: Held
    most: int | None

    @cached_property
    def roll(self) -> Roll:
        """Who stands in the documents."""
        plan, test = self.held.plan, np.flatnonzero(self.held.masks.test)
        # A row's id is its set and its own; a line break in it would look like two ids.
        ids = [plan.pairs[row].key.replace("\\", "\\\\").replace("\n", "\\n") for row in test]
        # Rows of one item lie in one cluster, so clusters alone tell what hangs together.
        return roll(ids, [int(self.held.masks.cluster[row]) for row in test], self._kept())

    def _kept(self) -> int | None:
        # Fewer rows than items, so that a reader of the report sees that the document holds a sample.
        items = len(set(self.held.masks.item[self.held.masks.test]))
        fewer = self.most is not None and self.most < min(items, int(self.held.masks.test.sum()))
        return self.most if fewer else None

    @property
    def left(self) -> int:
        """How many rows are left out."""
        return int(self.held.masks.test.sum()) - len(self.roll)

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels of all test rows."""
        return np.asarray(self.held.masks.labels[self.held.masks.test])

    @cached_property
    def told_apart(self) -> bool:
        """Whether the kept rows have both labels: without, there is no area under a curve."""
        return len(set(self.labels[list(self.roll.places)])) == 2

    def document(self, metric: str, method: Method, layer: int, scores: np.ndarray) -> bytes:
        """Return the document of a metric."""
        labels = {"set": as_name(self.name), "layer": str(layer), "method": method}
        if metric == "auroc":
            # Ranks among all test rows: an area hangs on nothing else, and they tell less than scores would.
            ranks = np.unique(scores, return_inverse=True)[1]
            return document(
                check=CHECK, metric=metric, labels=labels, items=self.roll, values=ranks.tolist(), step="1",
                reducer="auc", targets=self.labels.tolist(),
            )  # fmt: skip
        hits = sides(scores, self.labels)
        # A score of exactly zero is half right.
        step = "0.1" if (hits == 0.5).any() else "1"
        return document(
            check=CHECK, metric=metric, labels=labels, items=self.roll, values=hits.tolist(), step=step
        )  # fmt: skip

    def widest(self, metric: str, method: Method, layer: int) -> int:
        """Return the bytes of a document of so many different scores: whether it fits must not hang on the model."""
        return len(self.document(metric, method, layer, np.arange(1.0, len(self.labels) + 1.0)))


@dataclass(frozen=True)
class _Owed:
    """One document that may be handed out."""

    metric: str
    method: Method
    set: str
    layer: int
    scores: np.ndarray
    first: bool
    """Whether it is of the audit's own sets, or the first built-in one, at a layer whose effect is measured."""


def handed_out(
    held: Gathered, layers: Mapping[str, Sequence[LayerNumbers]], most_bytes: int
) -> tuple[Mapping[str, bytes], tuple[Skipped, ...]]:
    """Return the files by name, and what they leave out.

    Args:
        held: all sets.
        layers: numbers of each measured set's layers.
        most_bytes: of all files; 0 for none, and then nothing is told of it.
    """
    room = min(most_bytes, ANSWER_BYTES - CELL_BYTES * sum(map(len, layers.values())))
    owed = _owed(held, layers)
    if most_bytes == 0 or not owed:
        return {}, ()
    rows = _fitting(held, owed, room)
    lines: dict[str, list[bytes]] = {}
    left: Counter[str] = Counter()
    for one in owed:
        of_set = rows[one.set]
        size = of_set.widest(one.metric, one.method, one.layer)
        if size > room or (one.metric == "auroc" and not of_set.told_apart):
            left[one.metric] += 1
            continue
        room -= size
        lines.setdefault(one.metric, []).append(of_set.document(one.metric, one.method, one.layer, one.scores))
    sampled = [(f"items:{name}:rows:{one.left}", "items_sampled") for name, one in rows.items() if one.left]
    dropped = [(f"items:{metric}:instances:{count}", "items_room") for metric, count in sorted(left.items())]
    skipped = tuple(Skipped(item=as_name(item), reason=reason) for item, reason in (*sampled, *dropped))
    return {file_name(metric): b"".join(told) for metric, told in lines.items()}, skipped


def _owed(held: Gathered, layers: Mapping[str, Sequence[LayerNumbers]]) -> list[_Owed]:
    """Return every document that could be handed out, the most wanted first."""
    primary, causal = held.asked.primary, held.asked.causal_layers
    told = [
        (
            (name not in primary, one.layer not in causal, turn),
            _Owed(metric, method, name, one.layer, one.scored[method].scores, name in primary and one.layer in causal),
        )
        for name, of_set in layers.items()
        for one in of_set
        for turn, (metric, method) in enumerate(KINDS)
        if method in one.scored
    ]
    return [one for _, one in sorted(told, key=lambda ranked: ranked[0])]


def _fitting(held: Gathered, owed: Sequence[_Owed], room: int) -> Mapping[str, _Rows]:
    """Return each set's rows: as many as leave room for the most wanted documents, and never fewer than the last."""
    names = dict.fromkeys(one.set for one in owed)
    wanted = [one for one in owed if one.first] or [one for one in owed if one.set == owed[0].set]
    rows: dict[str, _Rows] = {}
    for most in (None, *SAMPLES):
        rows = {name: _Rows(name, held.sets[name], most) for name in names}
        if sum(rows[one.set].widest(one.metric, one.method, one.layer) for one in wanted) <= room:
            break
    return rows
