"""Controls of the model side: organisms that read their items, their twins, a fresh twin and swapped labels (10).

Each goes through the same code as the audit: an organism's control puts its items in the place of the benchmark and
its token scores in the place of the model's. A control gates its own tests alone (`model_findings`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from assay.result import Measured, Metric

from checks.check import Control, Evidence, Expected, Needs, PromisedBand, TokenScores
from checks.contamination.items import read_benchmark
from checks.contamination.model_findings import (
    LABEL_SWAP,
    OPTIONS_ORGANISM,
    OPTIONS_TWIN,
    ORDER_ORGANISM,
    ORDER_TWIN,
    RANDOM_WEIGHTS,
)
from checks.contamination.model_measure import Joined, only
from checks.contamination.model_texts import DECLARED, OPTIONS, ORDER, SURPRISE, ModelAsked, needs
from checks.memory import InMemoryEvidence, model_facts
from checks.organisms import contamination_stored as store

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

FOUND = 1e-6
"""Largest p of an organism that read its items as published (section 10)."""

NOT_FOUND = 0.00100001
"""Smallest p of what read nothing in that order: above .001 (section 10)."""

ITEMS = 60
"""Choice items that an organism is asked, of the 200 that it read: p lies below 1e-12 still."""

NOTHING_ASKED = PromisedBand(metric="tests_asked", low=0.0, high=0.0)
"""What a control states where no test of it is asked."""

AT_ONCE = 128
"""Sequences in a pass of an organism: at its 128 tokens and 321 words, 21 MB of logits."""


def asked_of(check: Any) -> ModelAsked:
    """Return the parameters of the model side of a check; a check of the other side asks no test.

    Args:
        check: has the fields of section 3 by name.
    """
    declares = {name: told if isinstance(told, Mapping) else told.model_dump() for name, told in check.declares.items()}
    return ModelAsked(
        tests=tuple(check.tests) if check.side == "model" else (),
        alpha=float(check.alpha),
        order_span=check.order_span,
        shuffles=check.shuffles,
        option_orders=check.option_orders,
        k_percent=float(check.k_percent),
        blind_max=float(check.blind_max),
        max_items=check.max_items,
        declares=declares,
    )


@dataclass(frozen=True)
class Organism:
    """A stored organism in the place of the model, its items in the place of the benchmark."""

    name: str
    kind: Literal["positive", "negative"]
    test: str
    """order or options."""
    stored: str
    """Name of the stored organism."""

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the band of its test's p, and that of a run in which nothing is asked."""
        low, high = self._band
        return (PromisedBand(metric=f"{self.test}.p", low=low, high=high), NOTHING_ASKED)

    @property
    def _band(self) -> tuple[float, float]:
        return (0.0, FOUND) if self.kind == "positive" else (NOT_FOUND, 1.0)

    def spoil(self, check: Any, seen: Evidence) -> Evidence:
        """Return the organism's evidence; nothing is asked where no benchmark of the audit is asked this test."""
        asked = only(asked_of(check), self.test)
        declared = any(asked.declared(name, self.test) for name in _benchmarks(seen, asked)) if asked.tests else False
        if not declared:
            return Joined(seen, self.name, replace(asked, tests=()))
        assert isinstance(seen, InMemoryEvidence)
        told, held = _organism(self.stored, asked.order_span, asked.shuffles, asked.option_orders)
        own = InMemoryEvidence(**held, check=seen.check, seed=seen.seed, kept=seen.kept)
        return Joined(own, self.name, told)

    def bands(self, check: Any, measured: Measured) -> Sequence[Expected]:
        """Return that the organism's order is found, or its twin's is not."""
        low, high = self._band
        return [_expected(one, low, high) for one in measured.named(f"{self.test}.p")] or _nothing_asked(measured)


@dataclass(frozen=True)
class RandomWeights:
    """The same architecture with fresh weights, asked a part of what the model is asked."""

    name: str = RANDOM_WEIGHTS
    kind: Literal["null"] = "null"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the band of each test's p, and that of a run in which nothing is asked."""
        return (*(_unfound(f"{test}.p") for test in (ORDER, OPTIONS, SURPRISE)), NOTHING_ASKED)

    def spoil(self, check: Any, seen: Evidence) -> Evidence:
        """Return what the fresh twin makes of the texts; where it scored none, there is nothing."""
        asked = only(asked_of(check), ORDER, OPTIONS, SURPRISE)
        assert isinstance(seen, InMemoryEvidence)
        twin = seen.twin().token_scores() if seen.token_scores() else {}
        return Joined(seen.replacing(token_scores=twin), self.name, asked)

    def bands(self, check: Any, measured: Measured) -> Sequence[Expected]:
        """Return that no test finds anything in it."""
        found = [one for test in (ORDER, OPTIONS, SURPRISE) for one in measured.named(f"{test}.p")]
        return [_expected(one, NOT_FOUND, 1.0) for one in found] or _nothing_asked(measured)


@dataclass(frozen=True)
class LabelSwap:
    """Half of the placebos plays the items: the surprise test must find nothing."""

    name: str = LABEL_SWAP
    kind: Literal["null"] = "null"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the band of the halves' p, and that of a run in which nothing is asked."""
        return (_unfound("label_swap.p"), NOTHING_ASKED)

    def spoil(self, check: Any, seen: Evidence) -> Evidence:
        """Return the evidence, of which the placebos alone are looked at."""
        return Joined(seen, self.name, only(asked_of(check), SURPRISE))

    def bands(self, check: Any, measured: Measured) -> Sequence[Expected]:
        """Return that the halves do not differ."""
        return [_expected(one, NOT_FOUND, 1.0) for one in measured.named("label_swap.p")] or _nothing_asked(measured)


CONTROLS: tuple[Control, ...] = (
    Organism(ORDER_ORGANISM, "positive", ORDER, store.ORDER),
    Organism(ORDER_TWIN, "negative", ORDER, store.ORDER_TWIN),
    Organism(OPTIONS_ORGANISM, "positive", OPTIONS, store.OPTIONS_NAME),
    Organism(OPTIONS_TWIN, "negative", OPTIONS, store.OPTIONS_TWIN),
    RandomWeights(),
    LabelSwap(),
)
"""In the order of section 10."""


def organism_scores(model: GPT2LMHeadModel, wanted: Needs) -> dict[str, TokenScores]:
    """Return what an organism makes of the texts of needs; equal texts run once.

    Args:
        model: an organism, with the words of `checks.organisms.contamination_words`.
        wanted: the needs.
    """
    import torch

    from checks.contamination.encoder import one_thread
    from checks.organisms.contamination_words import tokenizer
    from checks.token_scoring import scores_of

    texts = list(dict.fromkeys(one.text for one in wanted.scored))
    ids = dict(zip(texts, (tuple(one.ids) for one in tokenizer().encode_batch(texts)), strict=True))
    rows = sorted({of for of in ids.values() if 1 < len(of) <= model.config.n_positions}, key=lambda of: (len(of), of))
    found: dict[tuple[int, ...], TokenScores] = {}
    with torch.inference_mode(), one_thread():
        for batch in _equal_lengths(rows):
            tokens = torch.tensor(batch)
            logits = model(input_ids=tokens[:, :-1]).logits
            told = scores_of(logits.flatten(0, 1), tokens[:, 1:].flatten())
            shape = (len(batch), -1)
            parts = (told.logp.reshape(shape), told.mean.reshape(shape), told.sd.reshape(shape))
            for row, logp, mean, sd in zip(batch, *parts, strict=True):
                found[row] = TokenScores(logp=logp, mean=mean, sd=sd)
    return {one.id: found[ids[one.text]] for one in wanted.scored if ids[one.text] in found}


@lru_cache(maxsize=8)
def _organism(name: str, span: int, shuffles: int, orders: int) -> tuple[ModelAsked, Mapping[str, Any]]:
    """Return what an organism is asked, and what evidence of it holds; some 2 MB, the same for every audit."""
    made = store.stored(name)
    choice = name in (store.OPTIONS_NAME, store.OPTIONS_TWIN)
    test, rows = (OPTIONS, made.rows[:ITEMS]) if choice else (ORDER, made.rows)
    told = ModelAsked(
        tests=(test,),
        order_span=span,
        shuffles=shuffles,
        option_orders=orders,
        declares={rows[0]["benchmark"]: {DECLARED[test]: "yes"}},
    )
    config = made.model.config
    facts = model_facts(vocabulary=config.vocab_size, context=config.n_positions, width=config.n_embd)
    given = {"benchmark": rows}
    scores = organism_scores(made.model, needs(told, given, facts))
    return told, {"facts": facts, "rows": given, "token_scores": scores}


def _equal_lengths(rows: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    batches: list[list[tuple[int, ...]]] = []
    for row in rows:
        if not batches or len(batches[-1]) == AT_ONCE or len(batches[-1][0]) != len(row):
            batches.append([])
        batches[-1].append(row)
    return batches


def _benchmarks(seen: Evidence, asked: ModelAsked) -> list[str]:
    return list(dict.fromkeys(item.benchmark for item in read_benchmark(seen.data("benchmark"), asked.max_items)))


def _nothing_asked(measured: Measured) -> list[Expected]:
    """Where no test of a control is asked it holds trivially, and says so: no word rests on it.

    Where one was asked and gave no number, the count of tests is not 0, and the control is missed.
    """
    of = NOTHING_ASKED
    return [_expected(one, of.low, of.high) for one in measured.named(of.metric)]


def _unfound(metric: str) -> PromisedBand:
    return PromisedBand(metric=metric, low=NOT_FOUND, high=1.0)


def _expected(metric: Metric, low: float, high: float) -> Expected:
    return Expected(metric=metric.name, value=float(metric.value), low=low, high=high, labels=metric.labels)
