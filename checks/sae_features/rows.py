"""Rows of the roles `corpus`, `concepts`, `contrast` and `neutral`, and the groups that they are split by.

Specification of `sae_features`, section 3. Nothing here looks at a state.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

from checks.check import Refusal
from checks.role_rows import TOLD_MAX, field_problems, is_flag, is_text, read_rows

Split = Literal["train", "val", "test"]
Read = Literal["last"] | int | tuple[int, int]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,31}")
"""Concepts and shifts become labels of metrics: the name alphabet, and short, since every label is charged."""

CONCEPTS_MAX = 16
"""Concepts of one check: each adds some sixty numbers to a report, and its tests are corrected together."""

TRAIN_SHARE = 0.8
"""Share of the corpus' groups that dictionaries are trained on (section 3)."""

TOKEN_MAX = 2**31 - 1
"""Largest token number that is read; the model's own vocabulary is held against it later."""


@dataclass(frozen=True, kw_only=True)
class CorpusRow:
    """One document of the training and fidelity stream; also of the role `neutral`."""

    id: str
    group: str
    """The unit of splitting and resampling; groups that share a text are one."""
    text: str | None
    tokens: tuple[int, ...] | None

    @property
    def longest(self) -> int:
        """Tokens that it may come to at most: a token holds at least one byte, and up to two are added around."""
        return len(self.tokens) if self.tokens is not None else len((self.text or "").encode()) + 2


@dataclass(frozen=True, kw_only=True)
class ConceptRow:
    """One place in a text at which a concept is there or not."""

    id: str
    group: str
    concept: str
    label: int
    """1 where it is there."""
    text: str
    read: Read
    split: Split | None
    shift: str | None
    """Names a change of paraphrase, format or language; such rows are tested on alone and told apart."""


@dataclass(frozen=True, kw_only=True)
class ContrastRow:
    """A prompt after which target is held against foil."""

    id: str
    group: str
    concept: str
    prompt: str
    target: str
    foil: str


@dataclass(frozen=True, kw_only=True)
class Rows:
    """All roles, read; groups that share a text merged."""

    corpus: tuple[CorpusRow, ...]
    concepts: tuple[ConceptRow, ...]
    contrast: tuple[ContrastRow, ...]
    neutral: tuple[CorpusRow, ...]

    def concept_names(self) -> tuple[str, ...]:
        """Return the concepts, in order of their first rows."""
        return tuple(dict.fromkeys(row.concept for row in self.concepts))


def read_roles(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Rows:
    """Return the rows of every role that came.

    Raises:
        Refusal: `role_invalid`, naming role, line, field and reason of the first twenty problems and their number;
            `too_many_concepts`.
    """
    corpus = read_rows(data.get("corpus", ()), _corpus_problems, _corpus_row, place="corpus:")
    concepts = read_rows(data.get("concepts", ()), _concept_problems, _concept_row, place="concepts:")
    contrast = read_rows(data.get("contrast", ()), _contrast_problems, _contrast_row, place="contrast:")
    neutral = read_rows(data.get("neutral", ()), _corpus_problems, _corpus_row, place="neutral:")
    grouped = _merged(concepts, lambda row: plain(row.text))
    rows = Rows(
        corpus=_merged(corpus, lambda row: row.tokens if row.text is None else plain(row.text)),
        concepts=_declared(grouped),
        contrast=_merged(contrast, lambda row: plain(row.prompt)),
        neutral=_merged(neutral, lambda row: row.tokens if row.text is None else plain(row.text)),
    )
    names = rows.concept_names()
    if len(names) > CONCEPTS_MAX:
        raise Refusal("too_many_concepts", (f"concepts:{len(names)}", f"limit:{CONCEPTS_MAX}"))
    return rows


def plain(text: str) -> str:
    """Return what makes two texts equal: NFKC, case folded, white space collapsed (section 3)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def in_training(group: str, seed: int) -> bool:
    """Return whether a group of the corpus is trained on: four fifths of them, by SHA-256 of seed and group."""
    drawn = hashlib.sha256(f"{seed}\0{group}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") / 2**64 < TRAIN_SHARE


V = TypeVar("V", CorpusRow, ConceptRow, ContrastRow)


def _merged(rows: tuple[V, ...], key: Any) -> tuple[V, ...]:
    """Return the rows with groups that share a text given one name, that of the first: else a text is on both sides."""
    leader: dict[str, str] = {}

    def first(group: str) -> str:
        while leader.setdefault(group, group) != group:
            leader[group] = leader[leader[group]]
            group = leader[group]
        return group

    seen: dict[Any, str] = {}
    for row in rows:
        held = seen.setdefault(key(row), row.group)
        one, other = first(held), first(row.group)
        if one != other:
            leader[other] = one
    return tuple(replace(row, group=first(row.group)) for row in rows)


def _declared(rows: Sequence[ConceptRow]) -> tuple[ConceptRow, ...]:
    """Return the rows with the split that their group declares, where it does: a group is whole, wherever it stands.

    Raises:
        Refusal: `role_invalid`, a group is in two declared splits: it would be trained on and tested.
    """
    declared: dict[tuple[str, str], Split] = {}
    wrong = []
    for line, row in enumerate(rows, start=1):
        if row.split is not None and declared.setdefault((row.concept, row.group), row.split) != row.split:
            wrong.append(f"concepts:line:{line}:group:in_two_splits")
    if wrong:
        raise Refusal("role_invalid", (*wrong[:TOLD_MAX], f"total:{len(wrong)}"))
    return tuple(replace(row, split=declared.get((row.concept, row.group))) for row in rows)


def _corpus_problems(row: Mapping[str, Any]) -> Iterable[str]:
    yield from field_problems(row, ("id", "group"), ("text", "tokens"), ("id", "group", "text"))
    if ("text" in row) == ("tokens" in row):
        yield "text:or_tokens_exactly_one"
    tokens = row.get("tokens", [0])
    if not isinstance(tokens, list) or not tokens or any(type(one) is not int for one in tokens):
        yield "tokens:not_a_list_of_integers"
    elif not 0 <= min(tokens) <= max(tokens) <= TOKEN_MAX:
        yield "tokens:out_of_range"


def _corpus_row(row: Mapping[str, Any]) -> CorpusRow:
    tokens = row.get("tokens")
    return CorpusRow(
        id=row["id"], group=row["group"], text=row.get("text"), tokens=None if tokens is None else tuple(tokens)
    )


def _concept_problems(row: Mapping[str, Any]) -> Iterable[str]:
    texts = ("id", "group", "concept", "text")
    yield from field_problems(row, (*texts, "label"), ("read_at", "split", "shift"), texts)
    yield from _named(row, "concept")
    if "label" in row and not is_flag(row["label"]):
        yield "label:not_0_or_1"
    if row.get("split") not in (None, "train", "val", "test"):
        yield "split:not_train_val_test_null"
    if row.get("shift") is not None:
        yield from _named(row, "shift")
    at, text = row.get("read_at", "last"), row.get("text")
    length = len(text) if is_text(text) and isinstance(text, str) else 0
    if isinstance(at, list):
        if len(at) != 2 or any(type(one) is not int for one in at) or not 0 <= at[0] < at[1] <= length:
            yield "read_at:not_a_span_of_the_text"
    elif at != "last" and (type(at) is not int or not 0 < at <= length):
        yield "read_at:outside_the_text"


def _concept_row(row: Mapping[str, Any]) -> ConceptRow:
    at = row.get("read_at", "last")
    return ConceptRow(
        id=row["id"],
        group=row["group"],
        concept=row["concept"],
        label=row["label"],
        text=row["text"],
        read=(at[0], at[1]) if isinstance(at, list) else at,
        split=cast("Split | None", row.get("split")),
        shift=row.get("shift"),
    )


def _contrast_problems(row: Mapping[str, Any]) -> Iterable[str]:
    fields = ("id", "group", "concept", "prompt", "target", "foil")
    yield from field_problems(row, fields, (), fields)
    yield from _named(row, "concept")
    if "target" in row and row.get("target") == row.get("foil"):
        yield "foil:is_the_target"


def _contrast_row(row: Mapping[str, Any]) -> ContrastRow:
    return ContrastRow(**{name: row[name] for name in ("id", "group", "concept", "prompt", "target", "foil")})


def _named(row: Mapping[str, Any], name: str) -> Iterable[str]:
    if isinstance(row.get(name), str) and row[name] and not NAME.fullmatch(row[name]):
        yield f"{name}:outside_the_name_alphabet"
