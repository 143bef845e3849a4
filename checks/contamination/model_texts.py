"""What the model side asks of a model: texts whose tokens are scored, and the orders they stand in. Section 7.

The texts are drawn before the model is read and once more when it is measured, so the draws hang on nothing but the
rows: their seed is a digest of the benchmark. A lab that knows the benchmark could work the orders out; the test is
about models that were not trained against it. What needs no model (the guards, the declarations) is settled first, so
that nothing is run in vain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from checks.check import ModelFacts, Needs, ScoredText
from checks.contamination import reasons
from checks.contamination.items import MAX_ITEMS, Item, Placebo, read_benchmark, read_placebo
from checks.contamination.options_test import ITEMS_MIN, left_out, orders
from checks.contamination.order_test import STRETCHES_MIN, shuffles
from checks.contamination.order_test_guards import Structure, order_structured
from checks.contamination.surprise import TEXTS_MIN

ORDER, OPTIONS, SURPRISE, TRANSFER = "order", "options", "surprise", "transfer"
TESTS = (ORDER, OPTIONS, SURPRISE, TRANSFER)
"""Tests of the model side, in the order of their findings."""

DECLARED = {ORDER: "order_exchangeable", OPTIONS: "options_randomised"}
"""What the auditor must vouch for before a test is asked (7.1, 7.2)."""

DECLARATION, TOO_FEW, ROLE = "declaration", "too_few", "role"
"""Reasons of `not_asked`: nobody vouches for the condition; too few items or stretches; a data role is missing."""

SPAN_MIN = 4
"""Items of the shortest stretch: 24 orders. Of fewer, random orders are mostly the published one again."""

BYTES_PER_TOKEN = 3.5
"""Tokens are reckoned from bytes, since none is tokenised here: English prose has some 4.3 bytes a token of a large
vocabulary, sums and lists less. A stretch that is longer after all is lost, and counted."""

TWIN_STRETCHES, TWIN_ITEMS, TWIN_TEXTS = 16, 60, 400
"""Stretches, choice items, and items or placebos of each benchmark that the control RandomWeights asks of the fresh
twin: as many as section 11's organisms have, since its cost must not double the run."""

T = TypeVar("T")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SEED = b"assay-contamination-orders/v1\n"


@dataclass(frozen=True)
class ModelAsked:
    """Parameters of the model side (section 3)."""

    tests: tuple[str, ...] = (ORDER, OPTIONS, SURPRISE)
    alpha: float = 0.01
    order_span: int = 16
    shuffles: int = 31
    option_orders: int = 24
    k_percent: float = 20
    blind_max: float = 0.60
    max_items: int = MAX_ITEMS
    declares: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Benchmark -> what the auditor vouches for, "yes", "no" or "unknown"."""

    def declared(self, benchmark: str, test: str) -> bool:
        """Return whether a test's condition, where it has one, is declared to hold."""
        return test not in DECLARED or self.declares.get(benchmark, {}).get(DECLARED[test]) == "yes"


@dataclass(frozen=True)
class Stretch:
    """Neighbours in the published order, and the texts of their orders: the published one first."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    items: int


@dataclass(frozen=True)
class Choices:
    """A choice item's texts, one for each order of its options: the published one first."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class BenchmarkTexts:
    """All that is asked about one benchmark."""

    benchmark: str
    items: tuple[Item, ...]
    """In published order."""
    placebos: tuple[Placebo, ...]
    structure: Structure | None
    """None where the order test is not asked."""
    stretches: tuple[Stretch, ...] = ()
    short: int = 0
    """Items in no stretch: a passage of fewer than `SPAN_MIN` fits."""
    choices: tuple[Choices, ...] = ()
    placebo_choices: tuple[Choices, ...] = ()
    left_out: tuple[str, ...] = ()
    """Why choice items are not asked, one reason each."""
    surprise: tuple[ScoredText, ...] = ()
    """Of the items, then of the placebos."""
    not_asked: Mapping[str, str] = field(default_factory=dict)
    """Test -> reason."""

    def asks(self, test: str) -> bool:
        """Return whether a test is asked of this benchmark."""
        return test not in self.not_asked

    @property
    def structured(self) -> bool:
        """Whether the published order has structure of its own: then no stretch is asked."""
        return self.structure is not None and self.structure.structured


Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def needs(asked: ModelAsked, rows: Rows, facts: ModelFacts) -> Needs:
    """Return what the runtime must capture.

    Args:
        asked: parameters.
        rows: of the roles `benchmark` and, where it came, `placebo`, as parsed.
        facts: of the model.

    Raises:
        Refusal: `role_invalid`; see `checks.contamination.items`.
    """
    told = texts_of(asked, rows, facts.context)
    scored = [text for one in told for text in _scored(one)]
    twin = [name for one in told for name in _twin(one)]
    roles = ("benchmark", "placebo", "scores")
    return Needs(data_roles=roles, scored=tuple(scored), scored_twin=tuple(twin))


def texts_of(asked: ModelAsked, rows: Rows, context: int) -> tuple[BenchmarkTexts, ...]:
    """Return the texts of every benchmark, in the order in which they first occur; equal for equal rows."""
    items = read_benchmark(rows["benchmark"], asked.max_items)
    placebos = read_placebo(rows["placebo"], asked.max_items) if rows.get("placebo") else ()
    names = dict.fromkeys(item.benchmark for item in items)
    return tuple(_texts(name, asked, items, placebos, context) for name in names)


def stream(benchmark: str, items: Sequence[Item], label: str) -> np.random.Generator:
    """Return the generator of a label: PCG64 seeded by SHA-256 over the benchmark's name, its questions and options."""
    body = json.dumps([benchmark, label, [[one.item, one.question, list(one.choices)] for one in items]])
    return np.random.Generator(
        np.random.PCG64(int.from_bytes(hashlib.sha256(_SEED + body.encode("utf-8", "replace")).digest(), "big"))
    )


def rendered(item: Item, order: Sequence[int] | None = None) -> str:
    """Return question and lettered options, each on its line; without the answer, which placebos may not have."""
    places = range(len(item.choices)) if order is None else order
    letters = [LETTERS[at] if at < len(LETTERS) else str(at + 1) for at in range(len(item.choices))]
    options = [f"{letter}. {item.choices[place]}" for letter, place in zip(letters, places, strict=True)]
    return "\n".join([item.question, *options])


def reckoned(text: str) -> int:
    """Return about how many tokens a text has: never fewer than its words."""
    return max(len(text.split()), int(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN))


def _texts(
    name: str, asked: ModelAsked, every: Sequence[Item], placebos: Sequence[Placebo], context: int
) -> BenchmarkTexts:
    items = [item for item in every if item.benchmark == name]
    items.sort(key=lambda item: item.position if item.position is not None else -1)  # stable: else record order
    own = tuple(one for one in placebos if one.item.benchmark == name)
    reasons_of = _conditions(name, asked, items, own)
    structure: Structure | None = None
    stretches: tuple[Stretch, ...] = ()
    short = 0
    if ORDER not in reasons_of:
        stretches, short = _stretches(name, items, asked, context)
        if len(stretches) < STRETCHES_MIN:
            reasons_of[ORDER] = TOO_FEW
        else:
            questions, answers = [item.question for item in items], [item.answer for item in items]
            structure = order_structured(questions, answers, stream(name, items, "guards"))
    choices: tuple[Choices, ...] = ()
    placebo_choices: tuple[Choices, ...] = ()
    why: tuple[str, ...] = ()
    if OPTIONS not in reasons_of:
        choices, why = _choices(f"{name}|options", items, stream(name, items, "options"), asked)
        rng = stream(name, items, "placebos")
        placebo_choices, _ = _choices(f"{name}|placebo-options", [one.item for one in own], rng, asked)
        if len(choices) < ITEMS_MIN:
            reasons_of[OPTIONS] = TOO_FEW
            choices = placebo_choices = ()
    return BenchmarkTexts(
        benchmark=name,
        items=tuple(items),
        placebos=own,
        structure=structure,
        stretches=() if structure is None or structure.structured else stretches,
        short=short,
        choices=choices,
        placebo_choices=placebo_choices,
        left_out=why,
        surprise=() if SURPRISE in reasons_of else _surprise(name, items, own),
        not_asked=reasons_of,
    )


def _conditions(name: str, asked: ModelAsked, items: Sequence[Item], placebos: Sequence[Placebo]) -> dict[str, str]:
    """Return why tests are not asked, as far as parameters and roles tell."""
    told = {test: reasons.PARAMETER for test in TESTS if test not in asked.tests}
    told |= {test: DECLARATION for test in DECLARED if test not in told and not asked.declared(name, test)}
    if SURPRISE not in told and not placebos:
        told[SURPRISE] = ROLE
    if SURPRISE not in told and min(len(items), len(placebos)) < TEXTS_MIN:
        told[SURPRISE] = TOO_FEW
    return told


def _stretches(name: str, items: Sequence[Item], asked: ModelAsked, context: int) -> tuple[tuple[Stretch, ...], int]:
    """Cut the published order: at `order_span` items, or where the next would not fit.

    Where a cut falls hangs on the items of a stretch and on the next one, and not on their order: so the published
    order stays one among others.
    """
    cuts: list[list[Item]] = [[]]
    held = 0
    for item in items:
        size = reckoned(rendered(item))
        if len(cuts[-1]) == asked.order_span or (cuts[-1] and held + size > context):
            cuts.append([])
            held = 0
        cuts[-1].append(item)
        held += size
    least = min(SPAN_MIN, asked.order_span)
    kept = [cut for cut in cuts if len(cut) >= least]
    rng = stream(name, items, "shuffles")
    told = []
    for number, cut in enumerate(kept):
        texts = [rendered(item) for item in cut]
        drawn = (np.arange(len(cut)), *shuffles(len(cut), asked.shuffles, rng))
        told.append(
            Stretch(
                ids=tuple(f"{name}|order|{number}|{at}" for at in range(len(drawn))),
                texts=tuple("\n\n".join(texts[place] for place in order) for order in drawn),
                items=len(cut),
            )
        )
    return tuple(told), len(items) - sum(map(len, kept))


def _choices(
    prefix: str, items: Sequence[Item], rng: np.random.Generator, asked: ModelAsked
) -> tuple[tuple[Choices, ...], tuple[str, ...]]:
    told, why = [], []
    for item in items:
        if item.kind != "choice" or not item.choices:
            continue
        if reason := left_out(item.choices):
            why.append(reason)
            continue
        drawn = orders(item.choices, asked.option_orders, rng)
        told.append(
            Choices(
                ids=tuple(f"{prefix}|{item.item}|{at}" for at in range(len(drawn))),
                texts=tuple(rendered(item, order) for order in drawn),
            )
        )
    return tuple(told), tuple(why)


def _surprise(name: str, items: Sequence[Item], placebos: Sequence[Placebo]) -> tuple[ScoredText, ...]:
    seen = [ScoredText(id=f"{name}|surprise|{item.item}", text=rendered(item)) for item in items]
    unseen = [ScoredText(id=f"{name}|placebo|{one.item.item}", text=rendered(one.item)) for one in placebos]
    return (*seen, *unseen)


def _scored(one: BenchmarkTexts) -> list[ScoredText]:
    parts: tuple[Stretch | Choices, ...] = (*one.stretches, *one.choices, *one.placebo_choices)
    told = [ScoredText(id=name, text=text) for part in parts for name, text in zip(part.ids, part.texts, strict=True)]
    return [*told, *one.surprise]


def _twin(one: BenchmarkTexts) -> list[str]:
    """Return the ids of the texts that the twin scores: a part of each test, evenly spread over the benchmark."""
    parts: tuple[Stretch | Choices, ...] = (*_spread(one.stretches, TWIN_STRETCHES), *_spread(one.choices, TWIN_ITEMS))
    told = [name for part in parts for name in part.ids]
    seen, unseen = one.surprise[: len(one.items)], one.surprise[len(one.items) :]
    return [*told, *(text.id for side in (seen, unseen) for text in _spread(side, TWIN_TEXTS))]


def _spread(parts: Sequence[T], most: int) -> list[T]:
    if len(parts) <= most:
        return list(parts)
    return [parts[at * len(parts) // most] for at in range(most)]
