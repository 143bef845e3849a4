"""Which pairs are fitted on, which orient a direction, which are scored: decided by cluster, before any state is seen.

Specification: truth_probe, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from checks.check import Refusal
from checks.truth_probe.pairs import TRAIN_SHARE, Pair, Split, digest, folded, joined_clusters

TRAIN_PAIRS_MIN, TEST_ITEMS_MIN, TEST_CLUSTERS_MIN = 100, 100, 20
"""Fewer are refused (section 3)."""

ONE_SIDED = 0.95
"""More labels of one kind than this are refused: centring the branches would erase truth (section 3)."""

LOST_MAX = 0.02
"""Share of items that may be left out before the answer is refused (section 3)."""


@dataclass(frozen=True)
class Plan:
    """The pairs of one data set that are swept, and what each is for."""

    set: str
    pairs: tuple[Pair, ...]
    """Train, anchor and test pairs, in file order."""
    clusters: tuple[str, ...]
    """Cluster of each pair, after joining duplicates."""
    splits: tuple[Split, ...]
    """What each pair is for."""
    left_out: tuple[tuple[str, str], ...]
    """What was left out, counted, with the reason: (item, reason)."""


def plan(pairs: Sequence[Pair], *, max_items: int, anchors_k: int) -> Plan:
    """Return what is swept and how it is split.

    Raises:
        Refusal: several data sets, a cluster in two declared splits, or more than 2 % of the items unusable.
    """
    names = sorted({pair.set for pair in pairs})
    if len(names) != 1:
        raise Refusal("many_sets" if names else "too_few_items", tuple(f"set:{name}" for name in names[:20]))
    usable = [pair for pair in pairs if pair.polarity != "negated"]
    left_out = _counted("negated_pairs", len(pairs) - len(usable), "negated_not_fitted")
    alike = {pair.item for pair in usable if folded(pair.pos) == folded(pair.neg)}
    items = sorted({pair.item for pair in usable}, key=digest)
    if len(alike) > LOST_MAX * len(items):
        raise Refusal("branches_alike", tuple(sorted(alike)[:20]))
    left_out += [(f"item:{item}", "branches_alike") for item in sorted(alike)]
    kept = set([item for item in items if item not in alike][:max_items])
    left_out += _counted("items", len(items) - len(alike) - len(kept), "over_max_items")
    chosen = [pair for pair in usable if pair.item in kept]
    clusters = joined_clusters(chosen)
    of_cluster, surplus = _assigned(chosen, clusters, anchors_k)
    splits = [of_cluster[cluster] for cluster in clusters]
    rows = [row for row, pair in enumerate(chosen) if pair.item not in surplus]
    left_out += _counted("items", len(surplus), "surplus_anchor")
    return Plan(
        names[0],
        tuple(chosen[row] for row in rows),
        tuple(clusters[row] for row in rows),
        tuple(splits[row] for row in rows),
        tuple(left_out),
    )


def _counted(what: str, count: int, reason: str) -> list[tuple[str, str]]:
    return [(f"{what}:{count}", reason)] if count else []


def _assigned(pairs: Sequence[Pair], clusters: Sequence[str], anchors_k: int) -> tuple[Mapping[str, Split], set[str]]:
    """Return every cluster's split, and the anchor items beyond what anchors need."""
    members: dict[str, list[Pair]] = {}
    for pair, cluster in zip(pairs, clusters, strict=True):
        members.setdefault(cluster, []).append(pair)
    split: dict[str, Split] = {}
    for cluster, of_cluster in members.items():
        declared = {pair.split for pair in of_cluster if pair.split is not None}
        if len(declared) > 1:
            raise Refusal("split_conflict", (f"cluster:{cluster}",))
        if declared:
            split[cluster] = next(iter(declared))
    free = sorted((cluster for cluster in members if cluster not in split), key=digest)
    declared_anchors = any(kind == "anchor" for kind in split.values())
    surplus: set[str] = set()
    if not declared_anchors:
        anchors, surplus = _anchors(free, members, anchors_k)
        split.update(dict.fromkeys(anchors, "anchor"))
        free = [cluster for cluster in free if cluster not in anchors]
    owed = TRAIN_SHARE * sum(len({pair.item for pair in members[cluster]}) for cluster in free)
    held = 0
    for cluster in free:
        split[cluster] = "train" if held < owed else "test"
        held += len({pair.item for pair in members[cluster]})
    return split, surplus


def _anchors(free: Sequence[str], members: Mapping[str, Sequence[Pair]], anchors_k: int) -> tuple[set[str], set[str]]:
    """Return the clusters that hold the anchors, and their items that no half of the anchors needed."""
    room = {0: anchors_k // 2, 1: anchors_k // 2}
    anchors: set[str] = set()
    surplus: set[str] = set()
    for cluster in free:
        if not any(room.values()):
            break
        items: dict[str, int | None] = {}
        for pair in members[cluster]:
            items.setdefault(pair.item, pair.label)
        if not any(label is not None and room[label] for label in items.values()):
            continue
        anchors.add(cluster)
        for item, label in items.items():
            if label is not None and room[label]:
                room[label] -= 1
            else:
                surplus.add(item)
    return anchors, surplus


def require_enough(drawn: Plan) -> None:
    """Refuse a plan whose splits cannot carry a measurement.

    Raises:
        Refusal: `too_few_items`, `unlabelled` or `one_sided_labels`, with the counts.
    """
    of: dict[str, list[Pair]] = {"train": [], "anchor": [], "test": []}
    for pair, split in zip(drawn.pairs, drawn.splits, strict=True):
        of[split].append(pair)
    test_clusters = {c for c, split in zip(drawn.clusters, drawn.splits, strict=True) if split == "test"}
    items = {pair.item for pair in of["test"]}
    if len(of["train"]) < TRAIN_PAIRS_MIN or len(items) < TEST_ITEMS_MIN or len(test_clusters) < TEST_CLUSTERS_MIN:
        raise Refusal(
            "too_few_items",
            (
                f"train_pairs:{len(of['train'])}:least:{TRAIN_PAIRS_MIN}",
                f"test_items:{len(items)}:least:{TEST_ITEMS_MIN}",
                f"test_clusters:{len(test_clusters)}:least:{TEST_CLUSTERS_MIN}",
            ),
        )
    for split in ("train", "test"):
        labels = [pair.label for pair in of[split] if pair.label is not None]
        if not labels:
            raise Refusal("unlabelled", (f"{split}:labelled:0",))
        share = sum(labels) / len(labels)
        if max(share, 1 - share) > ONE_SIDED:
            raise Refusal("one_sided_labels", (f"{split}:true:{sum(labels)}:of:{len(labels)}",))
