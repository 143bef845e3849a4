"""What is scored after a text is what plain transformers score, and what cannot be scored is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors

from checks.check import Continuation, Needs, Text
from checks.errors import NotAskedFor
from checks.runtime import batches
from checks.runtime.plan import Score, check_needs, plan
from checks.runtime.sweep import sweep
from checks.runtime.tokens import LOST_REASONS, place, share
from tests.checks.models import save
from tests.checks.runtime.reference import CAUSAL, TEXTS, WORDS, asked, headed, log_probability, needs_of
from tests.checks.runtime.test_loading import loaded


@pytest.mark.parametrize("name", CAUSAL)
def test_scores_of_a_padded_batch_equal_single_plain_runs(name: str, tmp_path: Path) -> None:
    model = headed(name, save(name, tmp_path), tmp_path)
    here = loaded(tmp_path)
    given, swept = asked(here, needs_of())
    assert swept.passes == 1
    found = given.log_probabilities()
    assert set(found) == {f"t{number}{word}" for number in range(len(TEXTS)) for word in WORDS}
    for number, text in enumerate(TEXTS):
        for word in WORDS:
            expected = log_probability(model, here.tokenizer, text, word)
            assert found[f"t{number}{word}"] == pytest.approx(expected, abs=2e-5)


def test_the_words_after_a_text_share_its_pass(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    here = loaded(tmp_path)
    _, swept = asked(here, needs_of(words=(" red", " blue")))
    assert (swept.passes, swept.texts) == (1, len(TEXTS)), "one token after a text: its own row scores it"
    _, swept = asked(here, needs_of(("thing1", "thing1 IS red ?"), words=(" IS red",)))
    assert swept.texts == 3, "thing1 IS is the beginning of the second text; the third row is thing1 IS red ? IS"


def test_a_batch_is_not_larger_for_all_the_words_that_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save("llama", tmp_path)
    here = loaded(tmp_path)
    monkeypatch.setattr(batches, "BATCH_SCORES", 3)
    given, swept = asked(here, needs_of())
    assert swept.passes > len(TEXTS)
    expected = log_probability(model, here.tokenizer, TEXTS[3], WORDS[3])
    assert given.log_probabilities()[f"t3{WORDS[3]}"] == pytest.approx(expected, abs=2e-5)


def test_texts_that_score_nothing_stop_at_the_deepest_layer(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    here = loaded(tmp_path)
    seen: list[int] = []
    here.bridge.blocks[2].register_forward_pre_hook(lambda _module, given, **_: seen.append(len(given[0])))
    one = Continuation(id="c", after=TEXTS[0], text=" red")
    given, swept = asked(here, needs_of(sites=("resid.0",), continuations=(one,)))
    assert swept.passes == 2
    assert seen == [1]
    assert np.isfinite(given.activations("resid.0")).all()


def test_a_check_that_asks_for_words_alone_is_swept(tmp_path: Path) -> None:
    model = save("qwen2", tmp_path)
    here = loaded(tmp_path)
    needs = Needs(continuations=(Continuation(id="c", after="thing1 IS", text=" red"),))
    merged = plan([needs], here.facts)
    assert merged.sweeps
    given, swept = asked(here, needs)
    assert (swept.passes, swept.texts, swept.tokens) == (1, 1, 2)
    assert given.log_probabilities()["c"] == pytest.approx(
        log_probability(model, here.tokenizer, "thing1 IS", " red"), abs=2e-5
    )
    assert given.runs() == {}
    assert needs.access() == ("activations",)


def test_states_are_the_same_whether_or_not_words_are_scored(tmp_path: Path) -> None:
    save("gpt_neox", tmp_path)
    here = loaded(tmp_path)
    with_words, _ = asked(here, needs_of())
    without, _ = asked(here, needs_of(continuations=()))
    for layer in range(3):
        np.testing.assert_allclose(
            with_words.activations(f"resid.{layer}"), without.activations(f"resid.{layer}"), atol=2e-5
        )


@pytest.mark.parametrize("name", ["bert", "bert-headless"])
def test_a_model_without_a_head_of_its_own_scores_nothing(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    given, _ = asked(loaded(tmp_path), needs_of(TEXTS[:1], words=(" red",)))
    assert given.log_probabilities() == {}
    assert given.lost() == {"t0 red": "no_output_head"}
    assert np.isfinite(given.activations("resid.2")).all()


def test_what_cannot_be_scored_is_named_with_its_reason(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    here = loaded(tmp_path)
    reds = " ".join(["red"] * 16)
    asks = {
        "merges": ("thing1", "2"),
        "empty": ("thing1 IS", "  "),
        "bare": ("", "red"),
        "fits": (reds, " red"),
        "long": (reds, " red red"),
        "good": ("thing1 IS", " red"),
    }
    needs = Needs(continuations=tuple(Continuation(id=i, after=a, text=t) for i, (a, t) in asks.items()))
    given, _ = asked(here, needs)
    assert given.lost() == {
        "merges": "continuation_merges",
        "empty": "continuation_empty",
        "bare": "no_token_before_read_at",
        "long": "too_long",
    }
    assert set(given.log_probabilities()) == {"fits", "good"}
    assert set(given.lost().values()) <= set(LOST_REASONS)
    few = here.facts.__class__(**{**vars(here.facts), "vocabulary": 3})
    _, lost = place(here.tokenizer, (Score(after="thing1", text=" red"),), few)
    assert set(lost.values()) == {"token_outside_vocabulary"}


def test_a_probability_that_is_no_number_is_named(tmp_path: Path) -> None:
    save("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"][5, 0] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    given, _ = asked(loaded(tmp_path), needs_of(TEXTS[:2], words=(" red",)))
    assert given.log_probabilities() == {}
    assert given.lost() == {"t0 red": "non_finite", "t1 red": "non_finite"}


def test_a_token_that_ends_every_text_does_not_stand_before_its_continuation(tmp_path: Path) -> None:
    """A tokenizer may put a token at both ends; what follows a text follows its last word, not the end."""
    model = save("gpt2", tmp_path)
    bare = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ends = bare.from_str(bare.to_str())
    ends.post_processor = processors.TemplateProcessing(
        single="? $A NOT", special_tokens=[("?", bare.token_to_id("?")), ("NOT", bare.token_to_id("NOT"))]
    )
    ends.save(str(tmp_path / "tokenizer.json"))
    given, swept = asked(loaded(tmp_path), needs_of(TEXTS[:1], words=(" blue",)))
    assert swept.texts == 1, "the text's own row, which goes on with its end, begins with all that must run"
    expected = log_probability(model, bare, f"? {TEXTS[0]}", " blue")
    assert given.log_probabilities()["t0 blue"] == pytest.approx(expected, abs=2e-5)


def test_texts_of_the_same_tokens_run_once(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    here = loaded(tmp_path)
    texts = ("thing1  IS red", "thing1 IS red", "thing1 IS blue", "zebra", "giraffe", " ".join(["red"] * 17))
    needs, other = needs_of(texts, words=()), needs_of(("NOT", "thing1 IS blue"), words=())
    given, swept = asked(here, needs, other)
    assert swept.texts == 4
    assert given.runs() == {"t0": 0, "t1": 0, "t2": 1, "t3": 2, "t4": 2}, "numbered along this check's texts"
    states = given.activations("resid.1")
    np.testing.assert_array_equal(states[0], states[1])
    np.testing.assert_array_equal(states[3], states[4])
    assert given.lost() == {"t5": "too_long"}


def test_two_reads_of_one_text_are_one_run(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    text = "thing1 IS red ?"
    reads = (Text(id="end", text=text), Text(id="word", text=text, read_at=9))
    given, swept = asked(loaded(tmp_path), Needs(sites=("resid.0",), texts=reads))
    assert (swept.texts, given.runs()) == (1, {"end": 0, "word": 0})


def test_a_text_whose_states_are_no_numbers_did_not_run(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["transformer.wte.weight"][loaded(tmp_path).tokenizer.token_to_id("thing9")] = float("inf")
    save_file(tensors, tmp_path / "model.safetensors")
    given, _ = asked(loaded(tmp_path), needs_of(words=()))
    assert set(given.runs()) == {"t0", "t1", "t2", "t3"}


def test_stems_go_onto_rows_that_begin_with_them() -> None:
    from checks.runtime.tokens import Placed, Row

    rows = (Row(ids=(1, 2, 3), reads=()), Row(ids=(9,), reads=()))
    asks = {"same": (1, 2, 3, 7), "part": (1, 2, 5), "short": (4, 5), "longer": (4, 6, 7), "alone": (9, 1, 1)}
    placed = {Score(after="", text=name): Placed(ids=ids, start=len(ids) - 1) for name, ids in asks.items()}
    shared = share(rows, placed)
    told = {row.ids: sorted(score.text for score, _ in row.scores) for row in shared}
    assert told == {(1, 2, 3): ["part", "same"], (9,): [], (4, 6): ["longer", "short"], (9, 1): ["alone"]}
    for row in shared:
        assert all(row.ids[: len(one.stem)] == one.stem for _, one in row.scores)


def test_needs_of_words_that_cannot_be_met_are_refused(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    facts = loaded(tmp_path).facts
    one = Continuation(id="a", after="thing1", text=" red")
    texts = (Text(id="t", text="thing1"),)
    bad: tuple[dict[str, Any], ...] = (
        {"continuations": (one, one)},
        {"continuations": (one,), "texts": (Text(id="a", text="x"),)},
        {"replay": 3, "texts": texts},
        {"replay": 3, "sites": ("resid.0",)},
        {"replay": -1, "texts": texts, "sites": ("resid.0",)},
        {"twin": ("t",), "texts": texts},
        {"twin": ("u",), "texts": texts, "sites": ("resid.0",)},
    )
    for fields in bad:
        with pytest.raises(NotAskedFor):
            check_needs(Needs(**fields), facts)
    check_needs(Needs(texts=texts, sites=("resid.0",), replay=3, twin=("t",), continuations=(one,)), facts)


def test_an_untied_head_is_used_and_not_the_embedding(tmp_path: Path) -> None:
    """A file with a head of its own is scored by that head, though its config may tie another's."""
    model = save("gpt2", tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": False}))
    tensors = load_file(tmp_path / "model.safetensors")
    head = torch.randn_like(tensors["transformer.wte.weight"])
    save_file(tensors | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    here = loaded(tmp_path)
    given, _ = asked(here, needs_of(TEXTS[:1], words=(" red",)))
    ids = here.tokenizer.encode(TEXTS[0]).ids
    with torch.no_grad():
        logits = head @ model.transformer(torch.tensor([ids])).last_hidden_state[0, -1]
    expected = torch.log_softmax(logits.double(), dim=0)[here.tokenizer.token_to_id("red")]
    assert given.log_probabilities()["t0 red"] == pytest.approx(float(expected), abs=2e-5)


def test_the_sweep_of_words_tells_its_batches(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    here = loaded(tmp_path)
    told: list[tuple[int, int]] = []
    one = Continuation(id="c", after=TEXTS[0], text=" red")
    sweep(here, plan([needs_of(continuations=(one,))], here.facts), on_batch=lambda *step: told.append(step))
    assert told == [(1, 2), (2, 2)]
