"""Items of a benchmark and the rows of the roles `benchmark`, `placebo`, `rewrites` and `scores`, read strictly.

Specification: contamination, section 4. Nothing here looks at a corpus. No refusal repeats a row's text: it names
line, field and reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from checks.check import Refusal
from checks.role_rows import field_problems, is_flag, read_rows

Kind = Literal["prose", "choice", "code"]

KINDS = ("prose", "choice", "code")
"""What an item asks for; each kind has a verifier of its own (sections 6.6, 6.7)."""

ORIGINS = ("after_cutoff", "private", "generated")
"""Why a placebo is certainly unseen (section 4)."""

QUESTION_MAX = 20_000
"""Characters of the longest question (section 4): a longer one is a document, and no window holds it."""

MAX_ITEMS = 20_000
"""Default of `max_items` (section 3), the cap on questions that an auditor may put to a corpus (section 9.3)."""

BENCHMARKS_MAX = 30
"""Benchmarks of one audit: each comes with counts, controls and findings of its own (30 stay within the cap of a
result, 1 MiB), and each is one more question that may be put to a corpus (9.3)."""

BENCHMARK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,31}")
"""Benchmarks become labels of metrics and parts of finding codes: the name alphabet, and short."""

ITEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,94}")
"""Items become cells of tables: "benchmark/item" stays within the 128 characters of the name alphabet."""

LANGUAGE = re.compile(r"[A-Za-z][A-Za-z0-9+#-]{0,15}")
"""A language tag (en, zh-Hant) or the name of a programming language (python, c++)."""

REQUIRED = ("benchmark", "item", "kind", "question")
CODE_FIELDS = ("entry", "reference", "probes")
OPTIONAL = ("context", "choices", "answer", "template", "language", "position", *CODE_FIELDS)
TEXTS = ("benchmark", "item", "kind", "question", "context", "answer", "template", "language", "entry", "reference")

DEFAULT_LANGUAGE = {"prose": "en", "choice": "en", "code": "python"}
"""Read where a row names no language (sections 3, 6.7)."""


@dataclass(frozen=True)
class Item:
    """One question of a benchmark."""

    benchmark: str
    item: str
    """Unique within its benchmark."""
    kind: Kind
    question: str
    context: str | None = None
    """The passage that the question is about; searched apart (section 6.4)."""
    choices: tuple[str, ...] = ()
    answer: str | None = None
    template: str | None = None
    """The unit of resampling, where items were made from templates."""
    language: str = "en"
    position: int | None = None
    """Place in the published order; None: record order."""
    entry: str | None = None
    """Code: name of the function that is asked for."""
    reference: str | None = None
    """Code: Python source that defines `entry`."""
    probes: tuple[tuple[Any, ...], ...] = ()
    """Code: argument lists that the reference is run on; JSON values."""

    @property
    def name(self) -> str:
        """Return "benchmark/item", in the name alphabet, at most 128 characters."""
        return f"{self.benchmark}/{self.item}"


@dataclass(frozen=True)
class Placebo:
    """An item that no corpus can hold, matched to the benchmark in domain and length."""

    item: Item
    origin: str
    """One of `ORIGINS`."""


@dataclass(frozen=True)
class Rewrite:
    """An auditor's own paraphrase of an item; planted before all others (section 6.11)."""

    benchmark: str
    item: str
    text: str
    depth: int
    """0 verbatim .. 5 reworded by a person."""


@dataclass(frozen=True)
class Score:
    """Whether a model answered an item."""

    model: str
    """"target" or a reference model's name."""
    benchmark: str
    item: str
    correct: int
    """1 or 0."""


def read_benchmark(rows: Sequence[Mapping[str, Any]], max_items: int = MAX_ITEMS) -> tuple[Item, ...]:
    """Return the items of the role `benchmark`, in record order.

    Args:
        rows: as parsed; null counts as absent for optional fields, since Parquet fills its columns with it.
        max_items: most rows that are read.

    Raises:
        Refusal: `role_invalid`: the first twenty problems as "benchmark:line:field:reason", and their number; more
            than `max_items` rows; more than `BENCHMARKS_MAX` benchmarks; no row.
    """
    _check_count(rows, "benchmark", max_items)
    named = {name for row in rows if isinstance(name := row.get("benchmark"), str)}
    if len(named) > BENCHMARKS_MAX:
        raise Refusal("role_invalid", (f"benchmark:benchmarks:{len(named)}", f"benchmark:most:{BENCHMARKS_MAX}"))
    return read_rows(_stripped(rows), _item_problems, _item, names=_item_names, place="benchmark:")


def read_placebo(rows: Sequence[Mapping[str, Any]], max_items: int = MAX_ITEMS) -> tuple[Placebo, ...]:
    """Return the items of the role `placebo`, in record order.

    Raises:
        Refusal: as `read_benchmark`; also an origin that is none of `ORIGINS`.
    """
    _check_count(rows, "placebo", max_items)

    def made(row: Mapping[str, Any]) -> Placebo:
        return Placebo(item=_item(row), origin=row["origin"])

    return read_rows(_stripped(rows), _placebo_problems, made, names=_item_names, place="placebo:")


def read_scores(rows: Sequence[Mapping[str, Any]]) -> tuple[Score, ...]:
    """Return the rows of the role `scores`, in record order.

    Items outside the audited benchmark are kept: `transfer` needs a reference benchmark (section 7.4).

    Raises:
        Refusal: `role_invalid`, as `read_benchmark`; also a model that is scored twice on an item.
    """

    def problems(row: Mapping[str, Any]) -> Iterable[str]:
        fields = ("model", "benchmark", "item", "correct")
        yield from field_problems(row, fields, (), fields[:3])
        yield from name_problems(row, None)
        if isinstance(row.get("model"), str) and row["model"] and not ITEM.fullmatch(row["model"]):
            yield "model:not_a_name"
        if "correct" in row and not is_flag(row["correct"]):
            yield "correct:not_0_or_1"

    def made(row: Mapping[str, Any]) -> Score:
        return Score(model=row["model"], benchmark=row["benchmark"], item=row["item"], correct=row["correct"])

    def names(row: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
        yield row["model"], row["benchmark"], row["item"]

    return read_rows(rows, problems, made, names=names, place="scores:")


def _check_count(rows: Sequence[Mapping[str, Any]], role: str, limit: int) -> None:
    if not rows:
        raise Refusal("role_invalid", (f"{role}:no_rows",))
    if len(rows) > limit:
        raise Refusal("role_invalid", (f"{role}:items:{len(rows)}", f"{role}:max_items:{limit}"))


def _stripped(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{field: value for field, value in row.items() if value is not None or field in REQUIRED} for row in rows]


def _item_problems(row: Mapping[str, Any]) -> Iterable[str]:
    yield from field_problems(row, REQUIRED, OPTIONAL, TEXTS)
    yield from name_problems(row, None)
    if isinstance(row.get("kind"), str) and row["kind"] and row["kind"] not in KINDS:
        yield "kind:not_prose_choice_code"
    question = row.get("question")
    if isinstance(question, str) and question and not question.strip():
        yield "question:empty"
    if isinstance(question, str) and len(question) > QUESTION_MAX:
        yield "question:too_long"
    if isinstance(row.get("language"), str) and row["language"] and not LANGUAGE.fullmatch(row["language"]):
        yield "language:not_a_tag"
    if "position" in row and not (type(row["position"]) is int and row["position"] >= 0):
        yield "position:not_a_count"
    yield from _choice_problems(row)
    yield from _code_problems(row)


def _choice_problems(row: Mapping[str, Any]) -> Iterable[str]:
    choices = row.get("choices")
    if "choices" in row and not (isinstance(choices, list) and all(isinstance(one, str) and one for one in choices)):
        yield "choices:not_texts"
    elif row.get("kind") == "choice" and len(choices or ()) < 2:
        yield "choices:fewer_than_2"


def _code_problems(row: Mapping[str, Any]) -> Iterable[str]:
    probes = row.get("probes")
    if "probes" in row and not (isinstance(probes, list) and all(isinstance(one, list) for one in probes)):
        yield "probes:not_lists"
    entry = row.get("entry")
    if isinstance(entry, str) and entry and not (entry.isascii() and entry.isidentifier()):
        yield "entry:not_an_identifier"
    # Code in other languages is read and answered `not asked (language)`; only Python is interpreted (6.7).
    if row.get("kind") == "code" and row.get("language", "python") == "python":
        yield from (f"{field}:missing" for field in CODE_FIELDS if field not in row)


def _placebo_problems(row: Mapping[str, Any]) -> Iterable[str]:
    yield from _item_problems({field: value for field, value in row.items() if field != "origin"})
    if "origin" not in row:
        yield "origin:missing"
    elif row["origin"] not in ORIGINS:
        yield "origin:not_after_cutoff_private_generated"


def name_problems(row: Mapping[str, Any], known: Collection[tuple[str, str]] | None) -> Iterable[str]:
    """Yield what is wrong with a row's names; of rows that belong to an item, also where there is none of its name."""
    benchmark, item = row.get("benchmark"), row.get("item")
    fits = True
    for field, value, pattern in (("benchmark", benchmark, BENCHMARK), ("item", item, ITEM)):
        if isinstance(value, str) and value and not pattern.fullmatch(value):
            yield f"{field}:not_a_name"
            fits = False
    named = fits and isinstance(benchmark, str) and isinstance(item, str)
    if named and known is not None and (benchmark, item) not in known:
        yield "item:not_in_benchmark"


def _item_names(row: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield row["benchmark"], row["item"]


def _item(row: Mapping[str, Any]) -> Item:
    return Item(
        benchmark=row["benchmark"],
        item=row["item"],
        kind=row["kind"],
        question=row["question"],
        context=row.get("context"),
        choices=tuple(row.get("choices", ())),
        answer=row.get("answer"),
        template=row.get("template"),
        language=row.get("language", DEFAULT_LANGUAGE[row["kind"]]),
        position=row.get("position"),
        entry=row.get("entry"),
        reference=row.get("reference"),
        probes=tuple(tuple(arguments) for arguments in row.get("probes", ())),
    )
