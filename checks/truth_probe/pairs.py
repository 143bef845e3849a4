"""The role `pairs`: rows of contrasting texts, read strictly, and which of their clusters are one.

Specification: truth_probe, section 3. Nothing here looks at a state.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from checks.ask import as_name
from checks.check import Continuation, Refusal, Text
from checks.role_rows import field_problems, is_flag, is_text, read_rows
from checks.truth_probe.roles import RESERVED_SETS

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int

Split = Literal["train", "anchor", "test"]
Branch = Literal["pos", "neg"]

SPLIT_DOMAIN = b"assay-truth-split/v2\n"
"""Separates the order of clusters and items from every other use of SHA-256."""

FEATURES_MAX = 8
"""Features of one row at most: each is one more number a set, layer and method."""

FEATURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A feature's name stands in the report as it is, so it keeps to the name alphabet."""

BATTERY_PREFIX = "battery"
"""Names of the built-in distractors begin so (5.10)."""

SHARED = ("id", "item", "cluster", "set", "template", "form", "polarity")
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
    form: str = "statement"
    prompt: str | None = None
    """What both texts begin with, in answer form."""
    answers: tuple[str, str] | None = None
    """What follows the prompt in each text, in answer form."""
    asks: tuple[str, str] | None = None
    """Yes and no, scored after each text, in statement form."""
    persona: str | None = None
    """Who is speaking (5.12)."""
    features: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Features of the item that must not be mistaken for truth (5.10)."""

    @property
    def key(self) -> str:
        """Name of the pair among all sets that are swept together."""
        return f"{self.set}/{self.id}"

    def truth(self, branch: Branch) -> int | None:
        """Return 1 where the text of a branch is the true one, 0 where the other is, None where nobody said."""
        return self.label if self.label is None or branch == "pos" else 1 - self.label

    def texts(self) -> tuple[Text, Text]:
        """Return the two texts to sweep, + first."""
        return (
            Text(id=f"{self.key}/pos", text=self.pos, read_at=self.read_at[0]),
            Text(id=f"{self.key}/neg", text=self.neg, read_at=self.read_at[1]),
        )

    def continuations(self) -> tuple[Continuation, ...]:
        """Return what is scored: both answers after the prompt, or yes and no after each text; perhaps nothing."""
        if self.answers is not None and self.prompt is not None:
            return tuple(
                Continuation(id=f"{self.key}/answer_{branch}", after=self.prompt, text=answer)
                for branch, answer in zip(("pos", "neg"), self.answers, strict=True)
            )
        return tuple(
            Continuation(id=f"{text.id}/{word}", after=text.text, text=asked)
            for text in self.texts()
            for word, asked in zip(("yes", "no"), self.asks or (), strict=False)
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
        Refusal: `role_invalid`, naming line, field and reason of the first twenty problems and the total count, or the
            sets that would bear one name in the report.
    """
    # Two sets may not spell one key between them either: "a/b" + "c" and "a" + "b/c".
    pairs = read_rows(
        rows, _problems, _pair, names=lambda row: (("id", row["id"]), ("key", f"{row['set']}/{row['id']}"))
    )
    told = Counter(as_name(name) for name in {pair.set for pair in pairs})
    alike = sorted(name for name, sets in told.items() if sets > 1)
    if alike:
        # The report has one alphabet: two sets of one name there would be read as one.
        raise Refusal(
            "role_invalid", (*(f"set:{name}:name_of_two"[:128] for name in alike[:20]), f"total:{len(alike)}")
        )
    return pairs


def _problems(row: Mapping[str, Any]) -> Iterable[str]:
    form = row.get("form")
    if not isinstance(form, str) or form not in BY_FORM:
        yield "form:not_answer_or_statement" if "form" in row else "form:missing"
        return
    required = (*SHARED, *BY_FORM[form], "label")
    optional = (*OPTIONAL[form], *ALWAYS_OPTIONAL)
    yield from field_problems(row, required, optional, (*SHARED, *BY_FORM[form], *OPTIONAL[form]))
    if row.get("label") is not None and not is_flag(row["label"]):
        yield "label:not_1_0_null"
    if row.get("polarity", "mixed") not in POLARITIES:
        yield "polarity:unknown_word"
    if row.get("split") is not None and row["split"] not in SPLITS:
        yield "split:unknown_word"
    if row.get("persona") is not None and not is_text(row["persona"]):
        yield "persona:not_text"
    if form == "statement" and ("yes" in row) != ("no" in row):
        yield "yes:without_no" if "yes" in row else "no:without_yes"
    yield from _reserved(row)
    yield from _features(row.get("features"))
    yield from _read_at(row, form)


def _reserved(row: Mapping[str, Any]) -> Iterable[str]:
    """Yield names whose texts would share an id with another role's, or with a distractor's variants."""
    if not (is_text(row.get("set")) and is_text(row.get("id"))):
        return
    if row["set"].partition("/")[0] in RESERVED_SETS:
        yield "set:reserved"
    if f"/{BATTERY_PREFIX}/" in f"{row['set']}/{row['id']}":
        yield "id:reserved"


def _features(features: object) -> Iterable[str]:
    if features is None:
        return
    if not isinstance(features, Mapping) or not all(map(is_flag, features.values())):
        yield "features:not_0_or_1"
        return
    if len(features) > FEATURES_MAX:
        yield "features:too_many"
    if not all(isinstance(name, str) and FEATURE.fullmatch(name) for name in features):
        yield "features:name_outside_alphabet"
    if any(str(name).startswith(BATTERY_PREFIX) for name in features):
        yield "features:name_reserved"


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
    answered = row["form"] == "answer"
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
        form=row["form"],
        prompt=row["prompt"] if answered else None,
        answers=(row["answer_pos"], row["answer_neg"]) if answered else None,
        asks=(row["yes"], row["no"]) if "yes" in row else None,
        persona=row.get("persona"),
        features=dict(row.get("features") or {}),
    )


def digest(text: str, seed: int) -> bytes:
    """Return the number by which clusters and items are ordered: never their place in the file, never chance.

    Args:
        text: name of a cluster, item or pair.
        seed: the check's, 0 <= seed < 2**64; another seed is another order.
    """
    return hashlib.sha256(SPLIT_DOMAIN + seed.to_bytes(8, "big") + text.encode()).digest()


def joined_clusters(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Return each pair's cluster after clusters that share a text or an item were made one.

    Texts are the same after NFKC, case folding and white-space collapse. The joined cluster carries the name that
    sorts first.
    """
    parent: dict[str, str] = {pair.cluster: pair.cluster for pair in pairs}

    def root(cluster: str) -> str:
        while parent[cluster] != cluster:
            parent[cluster] = parent[parent[cluster]]
            cluster = parent[cluster]
        return cluster

    owner: dict[tuple[str, str], str] = {}
    for pair in pairs:
        # An item in two clusters would stand on both sides of a split, so it joins them as a text does.
        for shared in (("text", folded(pair.pos)), ("text", folded(pair.neg)), ("item", pair.item)):
            first = owner.setdefault(shared, pair.cluster)
            low, high = sorted((root(first), root(pair.cluster)))
            parent[high] = low
    return tuple(root(pair.cluster) for pair in pairs)


def folded(text: str) -> str:
    """Return a text in the form in which duplicates are equal."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
