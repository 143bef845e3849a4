"""Which pairs are fitted on, which orient a direction, which are scored: decided by cluster, before any state is seen.

Specification: truth_probe, sections 3, 5.11 and 5.12.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from checks.check import Refusal
from checks.truth_probe.masks import LOST_MAX, NAMED_MAX, Masks, alike_pairs, masks, voters, without_lost
from checks.truth_probe.pairs import Pair, Split, digest, joined_clusters

__all__ = ["LOST_MAX", "Kind", "Masks", "Plan", "alike_pairs", "masks", "plans", "require_enough", "without_lost"]

Kind = Literal["main", "negated", "other"]
KINDS: tuple[Kind, ...] = ("main", "negated", "other")

TRAIN_PERCENT = 55
"""Share of the items left after anchors that go to train (section 3); whole, so that .55 x 200 is not above 110."""

TRAIN_PAIRS_MIN, TEST_ITEMS_MIN, TEST_CLUSTERS_MIN = 100, 100, 20
"""Fewer are refused (section 3)."""

ANCHORS_MIN = 16
"""Labelled anchor items at least: with fewer hardly any sign could be fixed (5.8)."""

ONE_SIDED = 0.95
"""More labels of one kind than this are refused: centring the branches would erase truth (section 3)."""


@dataclass(frozen=True)
class Plan:
    """The pairs of one data set that are swept, and what each is for."""

    set: str
    pairs: tuple[Pair, ...]
    """Every pair that is swept, in the order of their ids: no number hangs on their order in the file."""
    clusters: tuple[str, ...]
    """Cluster of each pair, after joining duplicates."""
    splits: tuple[Split, ...]
    """What each pair is for."""
    kinds: tuple[Kind, ...]
    """Main rows are fitted, oriented and scored; negated ones test 5.11 and serve ttpd; other ones test 5.12."""
    left_out: tuple[tuple[str, str], ...]
    """What was left out, counted, with the reason: (item, reason)."""
    seed: int = 0
    """By which rows of equal standing are ordered."""

    def take(self, rows: Sequence[int]) -> Plan:
        """Return the plan of some rows."""
        return replace(
            self,
            pairs=tuple(self.pairs[row] for row in rows),
            clusters=tuple(self.clusters[row] for row in rows),
            splits=tuple(self.splits[row] for row in rows),
            kinds=tuple(self.kinds[row] for row in rows),
        )


@dataclass(frozen=True)
class _Order:
    """How a set is to be split: the parameters that `plans` was called with."""

    max_items: int
    anchors_k: int
    seed: int
    fit_persona: str | None
    test_persona: str | None

    def kind(self, pair: Pair) -> tuple[Kind | None, str]:
        """Return what a pair is for; where it is for nothing, the reason."""
        held_out = self.test_persona is not None and pair.persona == self.test_persona
        negated = pair.polarity == "negated"
        if pair.persona == self.fit_persona or (self.fit_persona is None and not held_out):
            return ("negated" if negated else "main"), ""
        if held_out:
            return (None if negated else "other"), "other_persona_not_tested"
        return None, "persona_not_asked"


def plans(
    pairs: Sequence[Pair],
    *,
    max_items: int,
    anchors_k: int,
    seed: int,
    fit_persona: str | None = None,
    test_persona: str | None = None,
) -> dict[str, Plan | Refusal]:
    """Return what is swept of each data set and how it is split, or why that set alone cannot be.

    Main rows are not negated and spoken by `fit_persona`. Without a `fit_persona` anyone may speak, save a
    `test_persona`, who is never fitted on. Splits are decided by main rows: clusters in the order of their hash,
    anchors first, then 55 % train and 45 % test by item count; clusters of negated rows alone are shared out in the
    same way afterwards, those of `test_persona` alone are test. Negated rows go where their cluster goes, anchors' are
    left out; rows of `test_persona` are kept in test clusters alone.

    Args:
        pairs: rows of any number of sets; their order decides nothing.
        max_items: items kept of each kind, by the hash of their name.
        anchors_k: labelled items that only orient, half of them true; not applied where anchors are declared.
        seed: the check's.
        fit_persona: who is fitted on.
        test_persona: who is tested on.

    Returns:
        By name of the set, sorted. Refusals: `persona_absent`, naming who was asked for and who there is;
        `split_conflict`, naming the clusters that are declared to be in two splits, also where a shared text or item
        makes them one.
    """
    order = _Order(max_items, anchors_k, seed, fit_persona, test_persona)
    made: dict[str, Plan | Refusal] = {}
    for name in sorted({pair.set for pair in pairs}):
        try:
            made[name] = _plan(name, sorted((one for one in pairs if one.set == name), key=lambda one: one.id), order)
        except Refusal as why:
            made[name] = why
    return made


def _plan(name: str, pairs: Sequence[Pair], order: _Order) -> Plan:
    _require_personas(pairs, order)
    _declared(pairs, [pair.cluster for pair in pairs])
    chosen, kinds, left_out = _chosen(pairs, order)
    clusters = joined_clusters(chosen)
    split, surplus = _assigned(chosen, kinds, clusters, order)
    rows: list[int] = []
    gone: Counter[str] = Counter()
    for row, (pair, kind, cluster) in enumerate(zip(chosen, kinds, clusters, strict=True)):
        if kind == "main" and pair.item in surplus:
            continue
        if kind == "negated" and split[cluster] == "anchor":
            gone["negated_anchor"] += 1
        elif kind == "other" and split[cluster] != "test":
            gone["other_persona_not_tested"] += 1
        else:
            rows.append(row)
    left_out += [
        *_counted("items", len(surplus), "surplus_anchor"),
        *(one for reason, count in sorted(gone.items()) for one in _counted("pairs", count, reason)),
    ]
    splits = tuple(split[cluster] for cluster in clusters)
    return Plan(name, tuple(chosen), clusters, splits, tuple(kinds), tuple(left_out), order.seed).take(rows)


def _counted(what: str, count: int, reason: str) -> list[tuple[str, str]]:
    return [(f"{what}:{count}", reason)] if count else []


def _require_personas(pairs: Sequence[Pair], order: _Order) -> None:
    """Refuse where a persona that was asked for speaks nowhere."""
    there = sorted({pair.persona for pair in pairs if pair.persona is not None})
    asked = (("fit_persona", order.fit_persona), ("test_persona", order.test_persona))
    absent = [f"{who}:{persona}" for who, persona in asked if persona is not None and persona not in there]
    if absent:
        raise Refusal("persona_absent", (*absent, *(f"persona:{persona}" for persona in there[:NAMED_MAX])))


def _declared(pairs: Sequence[Pair], clusters: Sequence[str]) -> dict[str, Split]:
    """Return the splits that were declared, by cluster.

    Raises:
        Refusal: `split_conflict`, naming the caller's own clusters.
    """
    said: dict[str, set[Split]] = {}
    names: dict[str, set[str]] = {}
    for pair, cluster in zip(pairs, clusters, strict=True):
        if pair.split is not None:
            said.setdefault(cluster, set()).add(pair.split)
            names.setdefault(cluster, set()).add(pair.cluster)
    torn = sorted({name for cluster, splits in said.items() if len(splits) > 1 for name in names[cluster]})
    if torn:
        raise Refusal("split_conflict", (*(f"cluster:{name}" for name in torn[:NAMED_MAX]), f"total:{len(torn)}"))
    return {cluster: next(iter(splits)) for cluster, splits in said.items()}


def _chosen(pairs: Sequence[Pair], order: _Order) -> tuple[list[Pair], list[Kind], list[tuple[str, str]]]:
    """Return the pairs that are for something, of at most `max_items` items a kind, and what was left out."""
    of = [order.kind(pair) for pair in pairs]
    unused = Counter(reason for kind, reason in of if kind is None)
    left_out = [one for reason, count in sorted(unused.items()) for one in _counted("pairs", count, reason)]
    kept: set[tuple[Kind, str]] = set()
    for kind in KINDS:
        items = {pair.item for pair, (one, _) in zip(pairs, of, strict=True) if one == kind}
        in_order = sorted(items, key=lambda item: digest(item, order.seed))
        kept |= {(kind, item) for item in in_order[: order.max_items]}
        what = "items" if kind == "main" else f"{kind}_items"
        left_out += _counted(what, len(in_order[order.max_items :]), "over_max_items")
    both = [(pair, one) for pair, (one, _) in zip(pairs, of, strict=True) if one and (one, pair.item) in kept]
    return [pair for pair, _ in both], [one for _, one in both], left_out


def _assigned(
    pairs: Sequence[Pair], kinds: Sequence[Kind], clusters: Sequence[str], order: _Order
) -> tuple[Mapping[str, Split], set[str]]:
    """Return every cluster's split, and the anchor items beyond what anchors need."""
    split = _declared(pairs, clusters)
    main = _members(pairs, clusters, [kind == "main" for kind in kinds])
    both = zip(kinds, clusters, strict=True)
    beside = _members(pairs, clusters, [kind == "negated" and cluster not in main for kind, cluster in both])
    surplus: set[str] = set()
    if "anchor" not in split.values():
        anchors, surplus = _anchors(_free(main, split, order), main, order)
        split.update(dict.fromkeys(anchors, "anchor"))
    for members in (main, beside):
        free = _free(members, split, order)
        items = {cluster: len({pair.item for pair in members[cluster]}) for cluster in free}
        owed = TRAIN_PERCENT * sum(items.values())
        held = 0
        for cluster in free:
            split[cluster] = "train" if 100 * held < owed else "test"
            held += items[cluster]
    # What is left holds nobody but the persona that is tested.
    return {cluster: split.get(cluster, "test") for cluster in clusters}, surplus


def _members(pairs: Sequence[Pair], clusters: Sequence[str], wanted: Sequence[bool]) -> dict[str, list[Pair]]:
    members: dict[str, list[Pair]] = {}
    for pair, cluster, asked in zip(pairs, clusters, wanted, strict=True):
        if asked:
            members.setdefault(cluster, []).append(pair)
    return members


def _free(members: Mapping[str, object], split: Mapping[str, Split], order: _Order) -> list[str]:
    """Return the clusters without a split, by hash."""
    return sorted((cluster for cluster in members if cluster not in split), key=lambda one: digest(one, order.seed))


def _anchors(free: Sequence[str], members: Mapping[str, Sequence[Pair]], order: _Order) -> tuple[set[str], set[str]]:
    """Return the clusters that hold the anchors, and their items that no half of the anchors needed."""
    room = {0: order.anchors_k // 2, 1: order.anchors_k // 2}
    anchors: set[str] = set()
    surplus: set[str] = set()
    for cluster in free:
        if not any(room.values()):
            break
        pairs = members[cluster]
        vote = {item: pairs[at].label for item, at in voters(pairs, range(len(pairs)), order.seed).items()}
        if not any(label is not None and room[label] for label in vote.values()):
            continue
        anchors.add(cluster)
        for item in sorted({pair.item for pair in pairs}, key=lambda one: digest(one, order.seed)):
            label = vote.get(item)
            if label is not None and room[label]:
                room[label] -= 1
            else:
                surplus.add(item)
    return anchors, surplus


def require_enough(plan: Plan) -> None:
    """Refuse a plan whose main rows cannot carry a measurement.

    Raises:
        Refusal: `too_few_items`, `too_few_anchors`, `unlabelled` or `one_sided_labels`, with the counts.
    """
    main = [at for at, kind in enumerate(plan.kinds) if kind == "main"]
    train = [at for at in main if plan.splits[at] == "train"]
    test = [at for at in main if plan.splits[at] == "test"]
    _require_counts("", plan, train, test)
    for split, rows in (("train", train), ("test", test)):
        labels = [label for at in rows if (label := plan.pairs[at].label) is not None]
        if not labels:
            raise Refusal("unlabelled", (f"{split}:labelled:0",))
        share = sum(labels) / len(labels)
        if max(share, 1 - share) > ONE_SIDED:
            raise Refusal("one_sided_labels", (f"{split}:true:{sum(labels)}:of:{len(labels)}",))
    voting = {plan.pairs[at].item for at in main if plan.splits[at] == "anchor" and plan.pairs[at].label is not None}
    if len(voting) < ANCHORS_MIN:
        raise Refusal("too_few_anchors", (f"anchors:{len(voting)}:least:{ANCHORS_MIN}",))
    # Only labelled rows are scored: the others must not make up the number.
    _require_counts("labelled_", plan, train, [at for at in test if plan.pairs[at].label is not None])


def _require_counts(what: str, plan: Plan, train: Sequence[int], test: Sequence[int]) -> None:
    items = len({plan.pairs[at].item for at in test})
    clusters = len({plan.clusters[at] for at in test})
    if len(train) < TRAIN_PAIRS_MIN or items < TEST_ITEMS_MIN or clusters < TEST_CLUSTERS_MIN:
        raise Refusal(
            "too_few_items",
            (
                f"train_pairs:{len(train)}:least:{TRAIN_PAIRS_MIN}",
                f"{what}test_items:{items}:least:{TEST_ITEMS_MIN}",
                f"{what}test_clusters:{clusters}:least:{TEST_CLUSTERS_MIN}",
            ),
        )
