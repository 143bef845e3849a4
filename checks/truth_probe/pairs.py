"""The role `pairs`: rows of contrasting texts, read strictly, and their split by cluster.

Specification: truth_probe, section 3. Nothing here looks at a state.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from checks.check import Refusal, Text

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int

Split = Literal["train", "anchor", "test"]

TOLD_MAX = 20
"""Lines named of a role that is refused; the rest are counted (section 3)."""

TRAIN_SHARE = 0.55
"""Share of the items left after anchors that go to train (section 3)."""

SPLIT_DOMAIN = b"assay-truth-split/v1\n"
"""Separates the order of clusters and items from every other use of SHA-256."""

SHARED = {"id": str, "item": str, "cluster": str, "set": str, "template": str, "form": str, "polarity": str}
BY_FORM = {"answer": ("prompt", "answer_pos", "answer_neg"), "statement": ("pos", "neg")}
OPTIONAL = {"answer": (), "statement": ("yes", "no")}
ALWAYS_OPTIONAL = ("read_at", "split", "persona", "features")
POLARITIES = ("affirmative", "negated", "mixed")
SPLITS = ("train", "anchor", "test")


@dataclass(frozen=True)
class Pair:
    """Two texts of one item, of which exactly one is true."""

    id: str
    item: str
    cluster: str
    """The unit of splitting and of resampling."""
    set: str
    template: str
    pos: str
    neg: str
    label: int | None
    """1 where `pos` is the true text, 0 where `neg` is, None where nobody said."""
    polarity: str
    read_at: tuple[int | None, int | None]
    """Character before which each text's state is read; None reads the last token."""
    split: Split | None
    """As declared; None leaves it to the hash of the cluster."""

    def texts(self) -> tuple[Text, Text]:
        """Return the two texts to sweep, + first."""
        return (
            Text(id=f"{self.id}/pos", text=self.pos, read_at=self.read_at[0]),
            Text(id=f"{self.id}/neg", text=self.neg, read_at=self.read_at[1]),
        )


@dataclass(frozen=True)
class PairActivations:
    """States of pairs at one site; row i of both arrays is pair i."""

    pos: Float[np.ndarray, "pair width"]
    neg: Float[np.ndarray, "pair width"]
    template: Int[np.ndarray, " pair"]
    """Template of each pair, as a number."""
    cluster: Int[np.ndarray, " pair"]
    """Cluster of each pair, as a number."""

    def take(self, rows: np.ndarray) -> PairActivations:
        """Return the pairs at some rows (indices or a mask)."""
        return PairActivations(self.pos[rows], self.neg[rows], self.template[rows], self.cluster[rows])

    def __len__(self) -> int:
        return len(self.pos)


def read_pairs(rows: Sequence[Mapping[str, Any]]) -> tuple[Pair, ...]:
    """Return the pairs of a role, in file order.

    Raises:
        Refusal: `role_invalid`, naming line, field and reason of the first twenty problems and the total count.
    """
    problems: list[str] = []
    pairs: list[Pair] = []
    seen: set[str] = set()
    for line, row in enumerate(rows, start=1):
        wrong = [f"line:{line}:{what}" for what in _problems(row)]
        if not wrong and row["id"] in seen:
            wrong = [f"line:{line}:id:duplicate"]
        problems += wrong
        if not wrong:
            seen.add(row["id"])
            pairs.append(_pair(row))
    if problems:
        raise Refusal("role_invalid", (*problems[:TOLD_MAX], f"total:{len(problems)}"))
    return tuple(pairs)


def _problems(row: Mapping[str, Any]) -> Iterable[str]:
    form = row.get("form")
    if form not in BY_FORM:
        yield "form:not_answer_or_statement" if "form" in row else "form:missing"
        return
    texts = BY_FORM[form]
    required = (*SHARED, *texts, "label")
    allowed = {*required, *OPTIONAL[form], *ALWAYS_OPTIONAL}
    # A caller's own field name may hold anything: only its alphabet is repeated.
    yield from (f"{_safe(name)}:unknown" for name in sorted(row) if name not in allowed)
    yield from (f"{name}:missing" for name in required if name not in row)
    strings = (*SHARED, *texts, *(name for name in OPTIONAL[form] if name in row))
    yield from (f"{name}:not_text" for name in strings if name in row and not _is_text(row[name]))
    if "label" in row and (row["label"] not in (0, 1, None) or isinstance(row["label"], (bool, float))):
        yield "label:not_1_0_null"
    if row.get("polarity", "mixed") not in POLARITIES:
        yield "polarity:unknown_word"
    if row.get("split") is not None and row["split"] not in SPLITS:
        yield "split:unknown_word"
    if row.get("persona") is not None and not _is_text(row["persona"]):
        yield "persona:not_text"
    yield from _features(row.get("features"))
    yield from _read_at(row, form)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _safe(name: object) -> str:
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in str(name)
    )
    return kept[:40] or "_"


def _features(features: object) -> Iterable[str]:
    if features is None:
        return
    flags = features.values() if isinstance(features, Mapping) else (None,)
    if not all(flag in (0, 1) and type(flag) is int for flag in flags):
        yield "features:not_0_or_1"


def _read_at(row: Mapping[str, Any], form: str) -> Iterable[str]:
    read_at = row.get("read_at", "last")
    if read_at == "last":
        return
    positions = [read_at, read_at] if type(read_at) is int else read_at
    if not isinstance(positions, (list, tuple)) or len(positions) != 2 or any(type(at) is not int for at in positions):
        yield "read_at:not_last_or_integers"
        return
    texts = [row.get(name) for name in BY_FORM[form]]
    if all(isinstance(text, str) for text in texts):
        for text, at in zip(_pair_texts(row), positions, strict=True):
            if not 0 < at <= len(text):
                yield "read_at:outside_the_text"


def _pair_texts(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["form"] == "answer":
        return row["prompt"] + row["answer_pos"], row["prompt"] + row["answer_neg"]
    return row["pos"], row["neg"]


def _pair(row: Mapping[str, Any]) -> Pair:
    pos, neg = _pair_texts(row)
    read_at = row.get("read_at", "last")
    positions = (
        (None, None) if read_at == "last" else (read_at, read_at) if isinstance(read_at, int) else tuple(read_at)
    )
    return Pair(
        id=row["id"],
        item=row["item"],
        cluster=row["cluster"],
        set=row["set"],
        template=row["template"],
        pos=pos,
        neg=neg,
        label=row["label"],
        polarity=row["polarity"],
        read_at=(positions[0], positions[1]),
        split=row.get("split"),
    )


def digest(text: str) -> bytes:
    """Return the number by which clusters and items are ordered: never their place in the file, never chance."""
    return hashlib.sha256(SPLIT_DOMAIN + text.encode()).digest()


def joined_clusters(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Return each pair's cluster after clusters that share a text were made one.

    Texts are the same after NFKC, case folding and white-space collapse. The joined cluster carries the name that
    sorts first.
    """
    parent: dict[str, str] = {pair.cluster: pair.cluster for pair in pairs}

    def root(cluster: str) -> str:
        while parent[cluster] != cluster:
            parent[cluster] = parent[parent[cluster]]
            cluster = parent[cluster]
        return cluster

    owner: dict[str, str] = {}
    for pair in pairs:
        for text in (pair.pos, pair.neg):
            first = owner.setdefault(folded(text), pair.cluster)
            low, high = sorted((root(first), root(pair.cluster)))
            parent[high] = low
    return tuple(root(pair.cluster) for pair in pairs)


def folded(text: str) -> str:
    """Return a text in the form in which duplicates are equal."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
