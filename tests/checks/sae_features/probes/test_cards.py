"""Feature cards: what is shown, how ties break, that nothing but numbers leaves, and what fits."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from assay.canonical import loads_canonical

from checks.quantise import decimal
from checks.sae_features.dictionary.value import Dictionary, Relu, Threshold
from checks.sae_features.held import Held
from checks.sae_features.probes.cards import CAP, SMALL, cards
from checks.sae_features.probes.cards_chosen import chosen
from checks.sae_features.probes.cards_contexts import BANDS, LEVELS
from tests.checks.sae_features.dictionary.drawn import drawn

M, VOCABULARY = 90, 200


def reading(m: int = M) -> Dictionary:
    """Return the dictionary whose latent i is coordinate i where that is above one half."""
    eye = torch.eye(m)
    return Dictionary(eye, torch.zeros(m), 2.0 * eye, torch.zeros(m), Threshold(torch.full((m,), 0.5)))


@cache
def held(seed: int = 0, passages: int = 60, each: int = 40) -> Held:
    """Return states where latent 0 is never on, 1 nearly always, 2 on token 9 alone, and others at rates of their own.

    A passage in three has lost a token in its middle; two passages are of one group.
    """
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.01, 0.09, M)
    rates[0], rates[1] = 0.0, 0.6
    parts = []
    for passage in range(passages):
        tokens = rng.integers(3, VOCABULARY, each)
        tokens[rng.random(each) < 0.05] = 9
        on = rng.random((each, M)) < rates
        on[:, 2] = tokens == 9
        x = np.where(on, np.round(rng.uniform(1, 3, (each, M)), 1), 0.0)
        keep = np.arange(each) != (20 if passage % 3 == 0 else -1)
        parts.append((x[keep], passage, np.arange(each)[keep], tokens[keep]))
    order = rng.permutation(sum(len(x) for x, *_ in parts))
    x = np.concatenate([one[0] for one in parts]).astype(np.float32)[order]
    numbers = np.concatenate([np.full(len(one[0]), one[1]) for one in parts])[order]
    positions, tokens = (np.concatenate([one[at] for one in parts])[order] for at in (2, 3))
    return Held(
        x=x,
        groups=tuple(f"g{number // 2:02}" for number in numbers),
        passages=tuple(f"row-{number:02}" for number in numbers),
        positions=positions,
        tokens=tokens,
    )


def weights(seed: int = 3) -> np.ndarray:
    drawn_weights = np.random.default_rng(seed).standard_normal((VOCABULARY, M)).astype(np.float32)
    return np.asarray(drawn_weights - drawn_weights.mean(0))


def written(
    cited: Mapping[int, str] | None = None, *, count: int = 64, export: bool = True, cap: int = CAP, seed: int = 0,
    dictionary: Dictionary | None = None, states: Held | None = None, other: Dictionary | None = None,
    logit_weights: np.ndarray | None = None,
) -> bytes:  # fmt: skip
    return cards(
        dictionary or reading(), states or held(), weights() if logit_weights is None else logit_weights, cited or {},
        other, count, export, np.random.default_rng(seed), cap=cap,
    )  # fmt: skip


def read(*given: Any, **more: Any) -> dict[str, Any]:
    document = loads_canonical(written(*given, **more), CAP)  # canonical, and no float anywhere
    assert isinstance(document, dict)
    return document


def card(document: dict[str, Any], index: int) -> dict[str, Any]:
    (found,) = [one for one in document["cards"] if one["index"] == index]
    assert isinstance(found, dict)
    return found


def test_bad_input_is_named() -> None:
    states = held()
    nothing = Held(x=states.x[:0], groups=(), passages=(), positions=states.positions[:0], tokens=states.tokens[:0])
    for match, given in (
        ("states of width 89", {"states": replace(states, x=states.x[:, 1:])}),
        ("other of width 16", {"other": drawn()}),
        ("logit_weights of width 5", {"logit_weights": np.zeros((4, 5), np.float32)}),
        ("no state is held", {"states": nothing}),
        ("no latent is on", {"states": replace(states, x=0 * states.x)}),
        ("not finite", {"states": replace(states, x=np.full_like(states.x, np.inf))}),
        ("cited latent 90 is outside 0..89", {"cited": {90: "concept"}}),
        ("2 cards", {"count": 2}),
        ("over the cap of 1000", {"cap": 1000}),
    ):
        with pytest.raises(ValueError, match=match):
            written(**given)


def test_cited_latents_never_stand_alone() -> None:
    cited = dict.fromkeys(range(80, 20, -1), "concept")
    for count, beside in ((64, 16), (48, 16), (9, 3), (3, 1)):
        document = read(cited, count=count)
        sources = Counter(one["from"] for one in document["cards"])
        assert sources == {"cited": count - 2 * beside, "uniform": beside, "stratified": beside}
        assert [one["index"] for one in document["cards"]][: count - 2 * beside] == list(cited)[: count - 2 * beside]
        assert len({one["index"] for one in document["cards"]}) == count
        assert document["header"]["cited_left_out"] == 60 - (count - 2 * beside)
    assert card(read({7: "causal"}), 7)["finding"] == "causal"
    assert len(read()["cards"]) == 32


def test_strata_cover_the_densities_and_dead_latents_are_not_drawn() -> None:
    hits = np.array([0] * 50 + list(range(1, 161)))
    for seed in range(20):
        picked = chosen(hits, {}, 64, np.random.default_rng(seed))
        ranks = sorted(int(hits[one.index]) for one in picked.cards if one.source == "stratified")
        assert all(hits[one.index] for one in picked.cards)
        assert all(abs(rank - (at + 0.5) * 10) < 25 for at, rank in enumerate(ranks))
    few = chosen(np.array([0, 3, 0, 9]), {2: "causal"}, 64, np.random.default_rng(0))
    assert [(one.index, one.source) for one in few.cards] == [(2, "cited"), (1, "uniform"), (3, "uniform")]


def test_every_latent_is_drawn_alike() -> None:
    seen = Counter(
        one.index
        for seed in range(600)
        for one in chosen(np.ones(64, int), {}, 64, np.random.default_rng(seed)).cards
        if one.source == "uniform"
    )
    assert len(seen) == 64
    assert max(abs(times - 150) for times in seen.values()) < 6 * (150 * 0.75) ** 0.5


def test_numbers_equal_a_loop() -> None:
    states, document = held(), read({0: "c", 1: "c", 2: "c", 5: "c"}, other=drawn("relu", d=M, m=30))
    other = drawn("relu", d=M, m=30).w_dec.double().numpy()
    scale = np.sqrt(((states.x - states.x.mean(0, dtype=np.float64)) ** 2).sum(1).mean())
    assert document["header"]["scale"] == decimal(float(scale), 3)
    for index in (1, 2, 5):
        told, g = card(document, index), 2.0 * states.x[:, index].astype(float) * (states.x[:, index] > 0.5)
        on = g > 0
        counts = Counter(states.tokens[on].tolist())
        shares = np.array(list(counts.values())) / on.sum()
        assert (told["hits"], told["rate"]) == (on.sum(), decimal(float(on.mean()), 3))
        assert (told["mean"], told["max"]) == (decimal(float(g[on].mean()), 3), decimal(float(g.max()), 3))
        assert told["entropy"] == decimal(float(-(shares * np.log2(shares)).sum()), 3)
        lifts = [(-(times / on.sum()) / (states.tokens == token).mean(), -times, token)
                 for token, times in counts.items() if times >= 5]  # fmt: skip
        assert told["lift"] == [[t, decimal(float(-lift), 3), -times] for lift, times, t in sorted(lifts)[:10]]
        logits = scale * weights()[:, index].astype(float)
        assert told["raised"] == [[int(t), decimal(float(logits[t]), 3)] for t in np.argsort(-logits)[:8]]
        assert told["lowered"] == [[int(t), decimal(float(logits[t]), 3)] for t in np.argsort(logits)[:8]]
        assert told["enc_dec"] == "1"
        assert told["nearest"] == [0, "0"]
        cosines = other[:, index] / np.linalg.norm(other, axis=1)
        assert told["other_seed"] == [int(cosines.argmax()), decimal(float(cosines.max()), 3)]
    dead = card(document, 0)
    assert (dead["mean"], dead["max"], dead["entropy"], dead["lift"], dead["top"]) == (None, None, None, [], [])
    assert read({5: "c"}, other=None)["cards"][0]["other_seed"] is None


def test_kinds() -> None:
    document = read({0: "c", 1: "c", 2: "c", 5: "c"})
    assert [card(document, index)["kind"] for index in (0, 1, 2, 5)] == ["dead", "dense", "token-like", "other"]


def test_frequent_token_alone_is_not_token_like() -> None:
    # A latent blind to tokens is mostly on at the token that is everywhere.
    states = held()
    common = replace(states, tokens=np.where(np.arange(len(states.x)) % 5 > 0, 4, states.tokens))
    assert card(read({5: "c"}, states=common), 5)["kind"] == "other"


def hits_of(states: Held, index: int) -> list[tuple[float, str, int, str]]:
    rows = zip(states.x[:, index], states.passages, states.positions.tolist(), states.groups, strict=True)
    return [(-float(value), row, at, group) for value, row, at, group in rows if value > 0.5]


def test_strongest_contexts_are_one_a_group_and_ties_go_by_row_and_position() -> None:
    states, document = held(), read({1: "c", 5: "c"})
    for index in (1, 5):  # values are rounded to tenths: ties are everywhere
        wanted, seen = [], set()
        for _, row, at, group in sorted(hits_of(states, index)):
            if group not in seen:
                wanted.append([row, at])
                seen.add(group)
        top = card(document, index)["top"]
        assert [[document["row_ids"][row], at] for row, at, *_ in top] == wanted[:10]


def test_contexts_show_what_stood_there() -> None:
    states, document = held(), read({1: "c", 5: "c"})
    missing = 0
    for index in (1, 5):
        told = card(document, index)
        for row, at, first, tokens, values, *_ in [*told["top"], *told["sampled"]]:
            assert len(tokens) == 24
            assert first <= at < first + 24
            largest = states.x[:, index].max()
            on = dict(zip(values[::2], values[1::2], strict=True))
            for offset, token in enumerate(tokens):
                here = [k for k, (name, position) in enumerate(zip(states.passages, states.positions, strict=True))
                        if name == document["row_ids"][row] and position == first + offset]  # fmt: skip
                assert token == (int(states.tokens[here[0]]) if here else -1)
                value = float(states.x[here[0], index]) if here else 0.0
                assert on.get(offset, 0) == (round(1000 * value / largest) if value > 0.5 else 0)
                missing += not here
            assert at - first in on
    assert missing


def test_sampled_contexts_come_from_bands_of_equal_mass() -> None:
    states = held()
    told = card(read({1: "c"}), 1)
    ascending = sorted((value, row, at) for value, row, at, _ in ((-v, r, a, g) for v, r, a, g in hits_of(states, 1)))
    total, running, band = sum(value for value, *_ in ascending), 0.0, {}
    for value, row, at in ascending:
        band[row, at] = min(4, int(BANDS * (running + value / 2) / total))
        running += value
    document = read({1: "c"})
    assert [one[5] for one in told["sampled"]] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for row, at, *_, number in told["sampled"]:
        assert abs(band[document["row_ids"][row], at] - number) == 0
    again = card(read({1: "c"}, seed=5), 1)
    assert again["sampled"] != told["sampled"]
    assert again["top"] != [] != told["top"]


def test_private_contexts_stay() -> None:
    document = read({5: "c"}, export=False)
    assert not document["header"]["contexts"]
    assert document["row_ids"] == []
    assert not any({"top", "sampled"} & set(one) for one in document["cards"])
    assert b"row-" not in written({5: "c"}, export=False)


def test_row_ids_that_could_be_text_are_digests() -> None:
    states = held()
    named = replace(states, passages=tuple(f"Dear Ms. {name}" for name in states.passages))
    document = read({5: "c"}, states=named)
    assert b"Dear" not in written({5: "c"}, states=named)
    assert all(name.startswith("sha256:") for name in document["row_ids"])
    assert f"sha256:{hashlib.sha256(b'Dear Ms. row-00').hexdigest()[:16]}" in document["row_ids"]


def test_header_names_the_rows_that_were_used() -> None:
    states = held()
    order = np.random.default_rng(1).permutation(len(states.x))
    turned = Held(
        x=states.x[order],
        groups=tuple(states.groups[at] for at in order),
        passages=tuple(states.passages[at] for at in order),
        positions=states.positions[order],
        tokens=states.tokens[order],
    )
    assert written({5: "c"}, states=turned) == written({5: "c"})
    other = replace(states, tokens=states.tokens + (np.arange(len(states.x)) == 3))
    header = read()["header"]
    assert read(states=other)["header"]["rows_sha256"] != header["rows_sha256"]
    assert (header["rows"], header["groups"], header["tokens"]) == (60, 30, len(states.x))
    assert header["live"] == M - 1
    assert header["dictionary"] == dict(reading().sha256)


def test_same_draws_give_the_same_bytes() -> None:
    assert written({5: "c"}) == written({5: "c"})
    assert written({5: "c"}, seed=1) != written({5: "c"})


def test_48_cards_fit_40_kib_and_tell_what_was_dropped() -> None:
    cited = dict.fromkeys(range(16), "concept")
    full = written(cited, count=48)
    states = held()
    small = written(cited, count=48, cap=SMALL)
    five_digits = written(cited, count=48, cap=SMALL, states=replace(states, tokens=states.tokens + 50_000))
    document = json.loads(small)
    level = document["header"]["level"]
    print(
        f"48 cards: {len(full)} bytes, {len(full) // 48} a card; level {level}: {len(small)}, {len(small) // 48} a card"
    )
    assert len(small) <= SMALL < len(full) < CAP
    assert json.loads(five_digits)["header"]["level"] < len(LEVELS) - 1
    assert 0 < level < len(LEVELS) - 1
    assert [len(one["sampled"]) for one in document["cards"] if one["hits"]].count(LEVELS[level].sampled) == 47
    assert [one["index"] for one in document["cards"]] == [one["index"] for one in json.loads(full)["cards"]]


def test_levels_drop_and_never_add() -> None:
    for more, less in pairwise(LEVELS):
        pairs = [
            (getattr(more, name), getattr(less, name)) for name in ("top", "sampled", "window", "lifts", "promoted")
        ]
        assert all(one >= other for one, other in pairs)
        assert more != less


def test_direction_of_no_length_has_a_card() -> None:
    eye = torch.eye(M)
    flat = Dictionary(eye, torch.zeros(M), eye * (torch.arange(M) != 5)[:, None], torch.zeros(M), Relu())
    told = card(read({5: "c"}, dictionary=flat), 5)
    assert told["max"] == "0"
    assert len(told["top"]) == 10
