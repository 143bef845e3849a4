"""Planted pairs of the specification's section 19, and forged reports that hand out items."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from assay import manifest
from assay.catalogue import parse_entry
from assay.compare.items import MEDIA_TYPE, Items, Reducer, in_order, write_all
from assay.compare.sides import Side, load
from assay.result import canonical_decimal
from assay.testing import Forge, forged_entry
from assay.verify import verify

STEP = "0.000000000001"
FINE = 10**12

N = 400
X = [(7919 * i % 1009) / 1009 for i in range(N)]
W = [(104729 * i % 1013) / 1013 for i in range(N)]
P1 = ([int(37 * i % 100 < 70) for i in range(N)], [int((59 * i + 13) % 100 < 76) for i in range(N)])
LAYERS = (("layer", "0"),), (("layer", "1"),)
WORSE = [int(one and i % 5 > 0) for i, one in enumerate(P1[0])]
P2 = (X, [x + 0.02 + 0.1 * (w - 0.5) for x, w in zip(X, W, strict=True)])
C3 = [i // 8 for i in range(N)]
P3 = (X, [b + 0.1 * ((31 * c % 17) / 17) for b, c in zip(P2[1], C3, strict=True)])
Y4 = [i % 2 for i in range(N)]
P4 = (
    [0.6 * y + x for y, x in zip(Y4, X, strict=True)],
    [0.8 * y + 0.7 * x + 0.3 * w for y, x, w in zip(Y4, X, W, strict=True)],
)

IDS = in_order([f"item-{i}" for i in range(N)])[1]


def items(
    scores: Sequence[float],
    *,
    reducer: Reducer = "mean",
    step: str = STEP,
    targets: Sequence[int] | None = None,
    clusters: Sequence[int] | None = None,
    labels: tuple[tuple[str, str], ...] = (),
    ids: str = IDS,
) -> Items:
    """Items whose values are given as numbers."""
    return Items(
        check="forged_probe",
        metric="accuracy",
        labels=labels,
        reducer=reducer,
        ids_sha256=ids,
        step=step,
        scores=tuple(round(one / float(step)) for one in scores),
        targets=None if targets is None else tuple(targets),
        clusters=None if clusters is None else tuple(clusters),
    )


class Pair:
    """Two forges of one operator: the same key, question and data, other weights."""

    def __init__(self, directory: Path) -> None:
        self.forges = [Forge(directory / name, seed=1) for name in "ab"]
        (self.forges[1].model_dir / "model.safetensors").write_bytes(b"\x01" * 8)
        self.forges[1].manifest = manifest.build(self.forges[1].model_dir)
        offer = {"name": "items.accuracy.jsonl", "media_type": MEDIA_TYPE, "max_bytes": 1 << 20, "summary": "Items."}
        for forge in self.forges:
            forge.entry = forged_entry(artefacts=[offer])
        self.key = self.forges[0].key_file

    def report(
        self,
        which: int,
        alter: Callable[[dict[str, Any]], object] | None = None,
        *,
        held: Sequence[Items] = (),
        **ask: Any,
    ) -> Path:
        """A report of one side, its statement altered before it is signed; it hands out `held`."""
        forge = self.forges[which]
        made = forge.report(ask=ask or None)
        told = forge.statement(made)
        answer = told["predicate"]["answers"][0]
        if held:
            data = write_all(held)
            digest = hashlib.sha256(data).hexdigest()
            (made / "artefacts" / digest).write_bytes(data)
            answer["artefacts"] = [
                {"name": "items.accuracy.jsonl", "media_type": MEDIA_TYPE, "sha256": digest, "size": len(data)}
            ]
        if alter is not None:
            alter(told)
        self.promise(made, told, forge)
        return forge.reseal(made, told)

    def promise(self, made: Path, told: dict[str, Any], forge: Forge) -> None:
        """Give every answer a catalogue entry that promises what it says: other tests ask what readers do without."""
        for one in told["predicate"]["answers"]:
            metrics, raw = (one["measured"] or {"metrics": []})["metrics"], dict(forge.entry.raw)
            specs = {
                metric["name"]: {
                    "name": metric["name"],
                    "labels": sorted(metric["labels"]),
                    **{field: metric[field] for field in ("unit", "better", "determinism")},
                    "summary": "As told.",
                }
                for metric in metrics
            }
            words = {*raw["words"], *(finding["word"] for finding in one["findings"])}
            entry = parse_entry({**raw, "metrics": [*specs.values()] or raw["metrics"], "words": sorted(words)})
            one["catalogue_sha256"] = entry.sha256
            (made / "artefacts" / entry.sha256).write_bytes(entry.data)

    def side(self, report: Path) -> Side:
        """The verified side of a report."""
        return load(report, verify(report, keys=[self.key]))


def answer(told: dict[str, Any]) -> dict[str, Any]:
    """The only answer of a statement."""
    found: dict[str, Any] = told["predicate"]["answers"][0]
    return found


def metric(told: dict[str, Any], at: int = 0) -> dict[str, Any]:
    """A metric of its only answer."""
    found: dict[str, Any] = answer(told)["measured"]["metrics"][at]
    return found


def share(scores: Sequence[int], layer: str, better: str = "higher") -> dict[str, Any]:
    """A metric that is the share of ones among items."""
    value = sum(scores) / len(scores)
    low, high = (canonical_decimal(f"{value + side:.3f}") for side in (-0.05, 0.05))
    return {
        "name": "accuracy", "labels": {"layer": layer}, "value": canonical_decimal(f"{value:.3f}"), "step": "0.001",
        "unit": "fraction", "n": len(scores), "better": better, "determinism": "statistical",
        "interval": {"low": low, "high": high, "level": "0.95", "method": "wilson"},
    }  # fmt: skip


def with_shares(first: list[int], second: list[int]) -> Callable[[dict[str, Any]], None]:
    def alter(told: dict[str, Any]) -> None:
        answer(told)["measured"]["metrics"] = [share(first, "0"), share(second, "1")]

    return alter


def held(first: list[int], second: list[int]) -> list[Items]:
    return [items(one, step="1", labels=at) for one, at in zip((first, second), LAYERS, strict=True)]
