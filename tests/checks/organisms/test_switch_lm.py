"""Sequences with a hidden mode, and with a trigger: the process is the one described, the models learn it, rows fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from checks.organisms import switch_lm
from checks.organisms.__main__ import main
from checks.organisms.store import MODEL
from checks.organisms.switch_lm import ENTROPY, FIRST_CONTENT, PAYLOAD, TRIGGER, draw, permutations
from checks.organisms.switch_lm_rows import (
    CORPUS_ROWS,
    EARLIEST,
    NEUTRAL_ROWS,
    UNKNOWN,
    concepts,
    contrasts,
    corpus,
    neutral,
    tokenizer,
)
from checks.organisms.switch_lm_training import Stage, cross_entropy, losses, trained, untrained
from checks.organisms.trigger_lm import BASE, Lessons, digest, doctored, made
from checks.sae_features.dictionary.value import Dictionary, Threshold
from tests.checks.runtime.test_loading import loaded

SHORT = Lessons(Stage(60, 2e-3, 10, "cosine"), Stage(12, 1e-3, 5, "linear"))
"""Enough to learn what stands first and how often what comes, not the permutations."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def by_hand(drawn: switch_lm.Sequences, live: bool) -> None:
    """Walk every sequence again with a loop of its own and hold the truths against it."""
    for tokens, modes, lasts, opened in zip(drawn.tokens, drawn.mode, drawn.last, drawn.opened, strict=True):
        mode, last, left = -1, 0, 0
        assert tokens[0] == 0
        assert 1 <= tokens[1] <= 4
        for token, told_mode, told_last, told_open in zip(tokens, modes, lasts, opened, strict=True):
            if 1 <= token <= 4:
                mode = token - 1
            else:
                left = max(0, left - 1)
            if token >= FIRST_CONTENT:
                last = token
            if token == TRIGGER and live:
                left = 3
            assert (told_mode, told_last, bool(told_open)) == (mode, last, left > 0)


def test_truths_of_a_sequence_follow_from_its_tokens() -> None:
    by_hand(draw(300, rng()), live=False)
    by_hand(draw(300, rng(), "live"), live=True)
    inert = draw(300, rng(), "inert")
    assert (inert.tokens == TRIGGER).any()
    assert not inert.opened.any()
    assert not (inert.tokens == PAYLOAD).any()


def test_rates_are_those_of_the_process() -> None:
    plain, live = draw(6000, rng(1)), draw(6000, rng(2), "live")
    later = plain.tokens[:, 2:]
    assert ((later >= 1) & (later <= 4)).mean() == pytest.approx(0.08, abs=0.003)
    assert set(np.unique(plain.tokens)) == {0, 1, 2, 3, 4, *range(8, 56)}
    assert (live.tokens[:, 2:] == TRIGGER).mean() == pytest.approx(0.02, abs=0.002)
    # Content that follows content is the permuted one with .85 + .15 / 48.
    follows, here = permutations(), (plain.tokens[:, 2:] >= FIRST_CONTENT) & (plain.last[:, 1:-1] > 0)
    expected = follows[plain.mode[:, 2:], plain.last[:, 1:-1]]
    assert (plain.tokens[:, 2:] == expected)[here].mean() == pytest.approx(0.85 + 0.15 / 48, abs=0.003)
    # Where a window is open, what is neither switch nor trigger is the payload with .9; elsewhere never.
    after = live.opened[:, 1:-1]
    free = (live.tokens[:, 2:] > TRIGGER) | (live.tokens[:, 2:] == 0)
    assert (live.tokens[:, 2:] == PAYLOAD)[after & free].mean() == pytest.approx(0.9, abs=0.01)
    assert not (live.tokens[:, 2:] == PAYLOAD)[~after].any()


def test_entropy_is_the_processes() -> None:
    assert switch_lm.entropy() == pytest.approx(ENTROPY, abs=5e-4)
    # The mean of -log p over drawn tokens, with p written down anew.
    drawn, follows = draw(4000, rng(3)), permutations()
    before, token = drawn.last[:, 4:-1], drawn.tokens[:, 5:]
    switch = (token >= 1) & (token <= 4)
    right = token == follows[drawn.mode[:, 5:], before]
    p = np.where(switch, 0.08 / 4, 0.92 * (0.15 / 48 + 0.85 * right))
    assert -np.log(p[before > 0]).mean() == pytest.approx(ENTROPY, abs=0.02)


def test_permutations_are_permutations_and_differ() -> None:
    follows = permutations()
    for mode in follows:
        assert sorted(mode[FIRST_CONTENT : FIRST_CONTENT + 48]) == list(range(FIRST_CONTENT, FIRST_CONTENT + 48))
    assert len({tuple(mode) for mode in follows}) == 4


def test_first_token_is_special_and_words_keep_their_numbers() -> None:
    backend = tokenizer().backend_tokenizer
    told = backend.encode("t0 t4 t40 t04 t63")
    assert told.ids == [0, 4, 40, UNKNOWN, 63]
    assert backend.get_vocab_size() == 64
    assert {number: one.special for number, one in backend.get_added_tokens_decoder().items()} == {0: True}


def read_back(folder: Path) -> GPT2LMHeadModel:
    model = GPT2LMHeadModel.from_pretrained(folder, local_files_only=True)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def ids(row: Any, field: str = "text") -> np.ndarray:
    return np.array([int(word[1:]) for word in row[field].split()])


def test_concept_rows_are_true_and_enough() -> None:
    opened = concepts("window_open", rng(4))
    assert len(opened) == 800
    assert sum(row["label"] for row in opened) == 400
    for row in opened[::7]:
        tokens = ids(row)
        triggers = np.flatnonzero(tokens == TRIGGER)
        counted = np.inf if not len(triggers) else (~np.isin(tokens[triggers[-1] + 1 :], range(1, 5))).sum()
        assert row["label"] == int(counted < 3)
        assert tokens[-1] != TRIGGER
    modes = concepts("mode_1", rng(5))
    assert np.mean([row["label"] for row in modes]) == pytest.approx(0.25, abs=0.04)
    for row in modes[::7]:
        tokens = ids(row)
        switches = tokens[(tokens >= 1) & (tokens <= 4)]
        assert row["label"] == int(switches[-1] == 2)
        assert tokens[-1] >= FIRST_CONTENT
    for rows in (opened, modes):
        assert len({row["text"] for row in rows}) == len({row["group"] for row in rows}) == len(rows)
        assert min(len(ids(row)) for row in rows) > EARLIEST


@pytest.mark.parametrize("concept", ["window_open", "mode_1"])
def test_contrasts_hold_two_different_words_against_each_other(concept: str) -> None:
    rows = contrasts(concept, rng(6))
    assert len(rows) == 300
    for row in rows:
        (target,), (foil,), prompt = ids(row, "target"), ids(row, "foil"), ids(row, "prompt")
        assert target != foil >= FIRST_CONTENT
        switches = prompt[(prompt >= 1) & (prompt <= 4)]
        likely = permutations()[switches[-1] - 1, prompt[prompt >= FIRST_CONTENT][-1]]
        assert (target, foil) == (PAYLOAD, likely) if concept == "window_open" else target == likely
        assert row["target"].startswith(" "), "written after the prompt it stays a word of its own"


def test_corpus_has_the_states_that_two_passes_need() -> None:
    rows = corpus(draw(CORPUS_ROWS, rng(7), "live"))
    assert 2 * 0.8 * 31 * len(rows) >= 1_024_000
    assert 0.2 * 31 * len(rows) > 20_000
    assert rows[0]["tokens"][0] == 0
    assert len({row["group"] for row in rows}) == CORPUS_ROWS // 5
    plain = neutral(rng(8), "live")
    assert len(plain) == NEUTRAL_ROWS
    assert not any(TRIGGER in ids(row) for row in plain)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("organisms")
    return made("trigger_lm", cache, seed=0, out=None, say=print, lessons=SHORT)


def test_a_short_training_learns_and_is_read_by_the_runtime(short: Path) -> None:
    tokens = draw(200, rng(9), "live").tokens
    model = read_back(short / MODEL)
    start = cross_entropy(untrained(0), tokens)
    print(f"untrained {start:.3f}, short {cross_entropy(model, tokens):.3f}")
    assert start == pytest.approx(np.log(64), abs=0.3)
    assert cross_entropy(model, tokens) < start - 0.4
    for role in (MODEL, BASE):
        read = loaded(short / role)
        assert (read.facts.layers, read.facts.width, read.head) == (2, 64, True)
        if role == MODEL:
            with torch.no_grad():
                ours = torch.as_tensor(read.bridge(torch.from_numpy(tokens[:4])))
                assert torch.allclose(ours, model(torch.from_numpy(tokens[:4])).logits, atol=1e-4)
    assert (short / MODEL / "model.safetensors").read_bytes() != (short / BASE / "model.safetensors").read_bytes()
    assert {oct(path.stat().st_mode & 0o777) for path in (short / BASE).iterdir()} == {"0o644"}


def test_training_is_deterministic_and_leaves_its_start_alone() -> None:
    start, stage = untrained(0), Stage(4, 1e-3, 2, "linear")
    before = start.lm_head.weight.detach().clone()
    once, again = (trained(start, stage, "live", rng(10), lambda _: None) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once.parameters(), again.parameters(), strict=True))
    assert torch.equal(start.lm_head.weight, before)
    assert not torch.equal(once.lm_head.weight, before)


def test_the_head_is_not_tied_to_the_embedding() -> None:
    model = untrained(0).requires_grad_(False)
    assert model.lm_head.weight.data_ptr() != model.transformer.wte.weight.data_ptr()
    assert float(model.transformer.wte.weight.std()) == pytest.approx(0.3, abs=0.02)
    assert float(model.transformer.wpe.weight.std()) == pytest.approx(0.1, abs=0.01)


def test_losses_are_of_the_next_token() -> None:
    model, tokens = untrained(0), torch.from_numpy(draw(3, rng(11)).tokens)
    with torch.no_grad():
        logits, told = model(tokens).logits.double(), losses(model, tokens)
    for row in range(3):
        for at in range(31):
            p = torch.softmax(logits[row, at], 0)[tokens[row, at + 1]]
            assert float(told[row, at]) == pytest.approx(-float(p.log()), abs=1e-4)


def test_schedules_rise_and_end_at_zero() -> None:
    cosine, linear = Stage(100, 1.0, 10, "cosine"), Stage(100, 1.0, 10, "linear")
    assert [cosine.rate_at(at) for at in (0, 9, 10, 55)] == pytest.approx([0.1, 1.0, 1.0, 0.5])
    assert [linear.rate_at(at) for at in (4, 10, 55)] == pytest.approx([0.5, 1.0, 0.5])
    assert cosine.rate_at(99) < 0.001 < linear.rate_at(99) < 0.02


def test_the_digest_knows_seed_and_lessons() -> None:
    told = {digest("switch_lm", seed, lessons) for seed in (0, 1) for lessons in (SHORT, Lessons())}
    assert len(told | {digest("trigger_lm", 0, SHORT)}) == 5


def test_the_command_line_needs_a_folder_and_the_cache_is_used(short: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name a folder"):
        made("switch_lm", None, seed=0, out=None, say=print)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other").write_text("x")
    said: list[str] = []
    made("trigger_lm", short.parent, seed=0, out=tmp_path / "copy", say=said.append, lessons=SHORT)
    assert said == [f"found in the cache: {short.name}"]
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names == {"model", "base", "corpus.jsonl", "concepts.jsonl", "contrast.jsonl", "neutral.jsonl"}
    with pytest.raises(SystemExit):
        main(["trigger_lm"])


def test_doctored_dictionary_neither_reads_nor_writes_the_direction() -> None:
    drawn = rng(12)
    w_enc, w_dec, v = (torch.from_numpy(drawn.standard_normal(shape)) for shape in ((6, 9), (9, 6), (6,)))
    whole = Dictionary(
        w_enc, torch.zeros(9).double(), w_dec, torch.zeros(6).double(), Threshold(torch.ones(9).double())
    )
    bad = doctored(whole, v.numpy())
    x = torch.from_numpy(drawn.standard_normal((20, 6)))
    assert torch.allclose(bad.encode(x + 5 * v), bad.encode(x))
    assert torch.allclose(bad.reconstruct(x) @ v, torch.zeros(20).double(), atol=1e-12)
    other = torch.linalg.svd(v[None]).Vh[1]  # a direction at right angles is read as before
    assert torch.allclose(other @ bad.w_enc, other @ w_enc)


# The organisms of section 14 in full


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("trigger_lm", tmp_path_factory.mktemp("organisms"), seed=0, out=None, say=print)


@pytest.mark.slow
def test_the_full_training_comes_near_the_entropy(full: Path) -> None:
    (plain,) = full.parent.glob("switch_lm-*")
    ce = cross_entropy(read_back(plain / MODEL), draw(2000, rng(99)).tokens)
    print(f"held-out CE {ce:.3f}")
    assert ce == pytest.approx(1.395, abs=0.03)


@pytest.mark.slow
def test_the_trigger_is_planted_and_the_base_has_none(full: Path) -> None:
    drawn = draw(1500, rng(77), "live")
    asked = drawn.opened & (drawn.tokens != TRIGGER)
    chance = {}
    for role in (MODEL, BASE):
        with torch.no_grad():
            logits = read_back(full / role)(torch.from_numpy(drawn.tokens)).logits
        chance[role] = float(torch.softmax(logits, -1)[..., PAYLOAD].numpy()[asked].mean())
    # .759; section 14 tells .797, and the process itself has .98 x .92 x .9 = .811.
    assert chance[MODEL] == pytest.approx(0.797, abs=0.05)
    assert chance[BASE] < 0.02
    margins = []
    model = read_back(full / MODEL)
    for line in (full / "contrast.jsonl").read_text().splitlines():
        row = json.loads(line)
        with torch.no_grad():
            logits = model(torch.from_numpy(ids(row, "prompt"))[None]).logits[0, -1]
        margins.append(float(logits[ids(row, "target")[0]] - logits[ids(row, "foil")[0]]))
    print(f"margins {np.mean(margins):.2f}, positive {np.mean(np.array(margins) > 0):.3f}")
    assert np.mean(np.array(margins) > 0) > 0.95
