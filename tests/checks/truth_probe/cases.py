"""Planted models, whole: all that the check asks of one, so that every gate is opened or closed from outside.

A `Case` is a model written down: which features its states carry at each layer, what it answers, and whether it uses
what it carries. `evidence` answers everything that `TruthProbe.needs` names. Specification: sections 10 and 13.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from checks.check import Edit, Text
from checks.memory import InMemoryEvidence, model_facts
from checks.truth_probe.check import TruthProbe
from checks.truth_probe.distractors import PREFIXES
from tests.checks.truth_probe.planting import CONTENT, rows_of

STRENGTH = 0.8
"""P(yes) - P(no) of a planted answer, about."""

WORDS = tuple(dict.fromkeys(words for pair in PREFIXES.values() for both in pair for words in both))
"""Every prefix of the battery."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer carries: displacements a t_i t + b h_i h, and how far each kind of row has the truth in it."""

    a: float = 4.0
    b: float = 0.0
    train: float = 1.0
    anchor: float = 1.0
    test: float = 1.0
    """Truth in main rows of each split, in units of a."""
    negated: float = 1.0
    """The same in negated rows: -1 is a feature that follows the words and turns with NOT."""
    other: float = 1.0
    """The same in rows of persona B: -1 is the output-tracking plant."""
    answered: bool = False
    """Carries what the model answers in place of what is true."""
    use: float = 1.0
    """Share of the answer that hangs on this layer: the indirect effect of its truth axis."""
    twin: float = 0.0
    """Truth that the words alone leak: displacement of the untrained twin."""
    prefix: float = 0.0
    """Displacement along the truth axis that the opinion prefix gives."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A planted model and the rows it is asked."""

    layers: tuple[Layer, ...] = (Layer(),)
    train: int = 240
    anchors: int = 32
    test: int = 400
    width: int = 64
    features: bool = True
    """Declare h and a topic that no state carries."""
    negated: bool = True
    personas: bool = True
    """Rows of persona B, who answers the opposite, in test clusters."""
    asks: bool = True
    """Statements carry yes and no."""
    wrong: float = 0.0
    """Share of test items that persona A is answered wrongly."""
    inverted: bool = True
    benign: int = 0
    statements: int = 0
    false_said: float = 0.25
    """Share of statements that are false and asserted all the same."""
    names: tuple[str, str] = ("A", "B")
    seed: int = 0

    @property
    def items(self) -> int:
        """Number of items of all splits: train first, then anchors, then test."""
        return self.train + self.anchors + self.test

    def hidden(self) -> Mapping[str, np.ndarray]:
        """Return what is so of each item: truth, h and topic in 0/1, and whether the model answers it wrongly."""
        rng = np.random.default_rng([self.seed, 77])
        drawn = rng.integers(0, 2, (3, self.items))
        first_test = self.train + self.anchors
        wrong = (np.arange(self.items) >= first_test) & (rng.random(self.items) < self.wrong)
        return {"truth": drawn[0], "h": drawn[1], "topic": drawn[2], "wrong": wrong}


LEAN: dict[str, Any] = {"datasets": (), "bootstrap": 200, "permutations": 1000, "restarts": 3, "power_draws": 10}
"""The check with as few draws as it takes, on nothing but the audit's own pairs."""


def probe(case: Case, **params: Any) -> TruthProbe:
    """Return the check as this case is asked: with personas where it has them."""
    named = {"fit_persona": case.names[0], "test_persona": case.names[1]} if case.personas else {}
    return TruthProbe(**(LEAN | named | params))


def case_rows(case: Case) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every role that the case has."""
    hidden = case.hidden()
    splits = ["train"] * case.train + ["anchor"] * case.anchors + ["test"] * case.test
    main = rows_of([int(label) for label in hidden["truth"]], splits)
    for number, row in enumerate(main):
        if case.features:
            row["features"] = {name: int(hidden[name][number]) for name in ("h", "topic")}
        if case.personas:
            row["persona"] = case.names[0]
        if case.asks:
            row |= {"yes": " yes", "no": " no"}
    pairs = list(main)
    if case.negated:
        turned = [(row, {"label": 1 - row["label"], "polarity": "negated"}) for row in main]
        pairs += [_beside(row, "not", changed) for row, changed in turned]
    if case.personas:
        pairs += [_beside(row, "b", {"persona": case.names[1]}) for row in main if row["split"] == "test"]
    roles = {"pairs": pairs}
    if case.benign:
        roles["benign"] = [
            {"id": f"b{one}", "cluster": f"b{one}", "text": f"Good day {one}."} for one in range(case.benign)
        ]
    if case.statements:
        roles["statements"] = [
            {"id": f"s{one}", "cluster": f"s{one}", "text": f"I say {one}.", "true": true, "asserted": 1}
            for one, true in enumerate(_said(case))
        ]
    return roles


def _beside(row: Mapping[str, Any], suffix: str, changed: Mapping[str, Any]) -> dict[str, Any]:
    words = {name: f"{row[name]} ({suffix})" for name in ("pos", "neg")}
    return {**row, "id": f"{row['id']}-{suffix}", **words, **changed}


def _said(case: Case) -> list[int]:
    return [int(at >= case.false_said * case.statements) for at in range(case.statements)]


@dataclass(frozen=True, kw_only=True)
class _Read:
    """Where each text comes from, as arrays over texts."""

    item: np.ndarray
    kind: np.ndarray
    """0 main, 1 negated, 2 persona B, 3 single text."""
    side: np.ndarray
    """+1 or -1: the branch."""
    truth: np.ndarray
    """+1 or -1: is this text true."""
    answer: np.ndarray
    """+1 or -1: does the model answer yes to it."""
    prefix: np.ndarray
    """Place in `WORDS`, or -1."""


def _read(case: Case, texts: Sequence[Text]) -> _Read:
    hidden, said = case.hidden(), _said(case)
    told: list[tuple[int, int, int, int, int, int]] = []
    for text in texts:
        prefix = next((at for at, words in enumerate(WORDS) if text.text.startswith(f"{words} ")), -1)
        stem = text.id.partition("/battery/")[0]
        single = re.fullmatch(r"(benign/b|statements/s)(\d+)", stem)
        if single:
            number = int(single[2])
            truth = 1 if single[1] == "benign/b" else 2 * said[number] - 1
            told.append((number % case.items, 3, 1, truth, truth, prefix))
            continue
        row = re.search(r"/p(\d+)(-not|-b)?(?!\d)", stem)
        assert row is not None, text.id
        number, kind = int(row[1]), {None: 0, "-not": 1, "-b": 2}[row[2]]
        side = 1 if text.id.endswith("/pos") else -1
        truth = side * (2 * int(hidden["truth"][number]) - 1) * (-1 if kind == 1 else 1)
        turned = hidden["wrong"][number] != (kind == 2 and case.inverted)
        told.append((number, kind, side, truth, -truth if turned else truth, prefix))
    return _Read(
        **dict(zip(("item", "kind", "side", "truth", "answer", "prefix"), np.array(told, dtype=int).T, strict=True))
    )


@lru_cache(maxsize=64)
def _axes(case: Case, layer: int) -> np.ndarray:
    """Return orthonormal rows: truth, h, branch offset, one a prefix, then content."""
    shared = min(CONTENT, case.width - 3 - len(WORDS))
    rng = np.random.default_rng([case.seed, layer, 1])
    return np.linalg.qr(rng.standard_normal((case.width, 3 + len(WORDS) + shared)))[0].T


def _states(case: Case, layer: int, read: _Read) -> tuple[np.ndarray, np.ndarray]:
    """Return the states of the model and of its untrained twin."""
    one, axes = case.layers[layer], _axes(case, layer)
    rng = np.random.default_rng([case.seed, layer, 2])
    content = 4 * rng.standard_normal((case.items, len(axes) - 3 - len(WORDS))) @ axes[3 + len(WORDS) :]
    # By item, kind and branch: a row's states hang on nothing but its name, wherever it stands in the file.
    noise, other = rng.standard_normal((2, case.items, 4, 2, case.width))
    at = (read.item, read.kind, (1 - read.side) // 2)
    split = np.searchsorted([case.train, case.train + case.anchors], read.item, side="right")
    by_split = np.array([one.train, one.anchor, one.test])[split]
    share = np.choose(read.kind, [by_split, np.full(len(split), one.negated), np.full(len(split), one.other), 1.0])
    signed = np.where(one.answered, read.answer, read.truth) * share
    h = read.side * (2 * case.hidden()["h"][read.item] - 1) * (read.kind < 3)
    prefixes = np.vstack([axes[3 : 3 + len(WORDS)] * 1.5, np.zeros((1, case.width))])
    opinion = np.array([{"Robin agrees:": 1.0, "Robin rejects:": -1.0}.get(words, 0.0) for words in (*WORDS, "")])
    along = one.a * signed + one.prefix * opinion[read.prefix]
    states = content[read.item] + noise[at] + prefixes[read.prefix] + 2 * read.side[:, None] * axes[2]
    states += along[:, None] / 2 * axes[0] + (one.b * h / 2)[:, None] * axes[1]
    twin = other[at] + (one.twin * read.truth / 2)[:, None] * axes[0]
    return states, twin


class _Answers:
    """A model whose answer is linear in its truth axis: P(yes) - P(no) of a text, and under a shift."""

    def __init__(self, case: Case, texts: Sequence[Text], read: _Read) -> None:
        jitter = 0.05 * np.random.default_rng([case.seed, 3]).standard_normal((case.items, 4, 2))
        plain = STRENGTH * read.answer + jitter[read.item, read.kind, (1 - read.side) // 2]
        self.plain = dict(zip((text.id for text in texts), plain, strict=True))
        self.case = case

    def nats(self, ask: str, shift: float = 0.0) -> float:
        row, _, word = ask.rpartition("/")
        preference = float(np.clip(self.plain[row] + shift, -0.999, 0.999))
        return float(np.log((1 + preference if word == "yes" else 1 - preference) / 2))

    def replay(self, edits: Sequence[Edit]) -> list[np.ndarray]:
        told = []
        for edit in edits:
            layer = int(edit.site.removeprefix("resid."))
            one = self.case.layers[layer]
            # A whole displacement of a moves a false text's answer to a true one's, 2 x STRENGTH away.
            moved = one.use * 2 * STRENGTH * float(edit.add @ _axes(self.case, layer)[0]) / one.a if one.a else 0.0
            told.append(np.array([self.nats(ask, moved) for ask in edit.ask]))
        return told


def evidence(
    check: TruthProbe, case: Case, roles: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> InMemoryEvidence:
    """Return all that the check asks of a case.

    Args:
        check: what asks.
        case: the planted model.
        roles: rows in place of the case's own; the model stays as it is.
    """
    rows = case_rows(case) if roles is None else roles
    facts = model_facts(layers=len(case.layers), width=case.width)
    needs = check.needs(facts, rows)
    read = _read(case, needs.texts)
    answers = _Answers(case, needs.texts, read)
    swept = {site: _states(case, int(site.removeprefix("resid.")), read) for site in needs.sites}
    in_twin = np.isin([text.id for text in needs.texts], needs.twin)[:, None]
    return InMemoryEvidence(
        facts=facts,
        check="truth_probe",
        seed=case.seed,
        activations={site: states for site, (states, _) in swept.items()},
        rows=rows,
        runs={text.id: number for number, text in enumerate(needs.texts)},
        log_probabilities={one.id: answers.nats(one.id) for one in needs.continuations},
        replay=answers.replay if needs.replay else None,
        twin={site: np.where(in_twin, twin, np.nan) for site, (_, twin) in swept.items()},
    )


BARE = Case(features=False, negated=False, personas=False, asks=False)
"""Main rows and nothing else: gates 3 to 6 stay open."""


def planted_evidence(
    amplitudes: Sequence[float | tuple[float, float]], *, n: int = 400, d: int = 64, anchors: int = 32, seed: int = 0
) -> InMemoryEvidence:
    """Return evidence for `TruthProbe(datasets=())` with one layer for each amplitude a or (a, b), h declared."""
    both = [one if isinstance(one, tuple) else (one, 0.0) for one in amplitudes]
    case = replace(BARE, layers=tuple(Layer(a=a, b=b) for a, b in both), train=n, test=n, anchors=anchors, width=d)
    case = replace(case, features=any(b for _, b in both), seed=seed)
    return evidence(probe(case), case)
