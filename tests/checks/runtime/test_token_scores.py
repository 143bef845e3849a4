"""Every token of a text is scored as plain transformers score it; what cannot be scored, or is too much, is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, processors

from checks.check import Needs, Refusal, ScoredText, Text, TokenScores
from checks.errors import NotAskedFor
from checks.memory import InMemoryEvidence, model_facts
from checks.runtime import token_scores
from checks.runtime.plan import NO_HEAD, check_needs, plan
from checks.runtime.tokens import NON_FINITE, NOTHING_BEFORE, TOO_LONG
from checks.token_scoring import scores_of
from tests.checks.models import VOCABULARY, save
from tests.checks.runtime.reference import CAUSAL, TEXTS, headed
from tests.checks.runtime.test_look import given, looked

LONG = " ".join(["red"] * 17)


def needs_of(texts: Sequence[str], twin: Sequence[int] = (), **more: Any) -> Needs:
    scored = tuple(ScoredText(id=f"s{number}", text=text) for number, text in enumerate(texts))
    return Needs(scored=scored, scored_twin=tuple(f"s{number}" for number in twin), **more)


def slowly(logits: torch.Tensor, ids: Sequence[int]) -> list[tuple[float, float, float]]:
    """Return (logp, mean, sd) of every token but the first, by a float64 loop."""
    told = []
    for position, token in enumerate(ids[1:]):
        raw = [float(value) for value in logits[position]]
        top = max(raw)
        whole = top + np.log(sum(np.exp(value - top) for value in raw))
        logp = [value - whole for value in raw]
        mean = sum(np.exp(one) * one for one in logp)
        told.append((logp[token], mean, sum(np.exp(one) * (one - mean) ** 2 for one in logp) ** 0.5))
    return told


def bad(needs: Needs, match: str, **facts: Any) -> None:
    with pytest.raises(NotAskedFor, match=match):
        check_needs(needs, model_facts(**facts))


def test_needs_that_make_no_sense_are_told() -> None:
    bad(Needs(scored=(ScoredText(id="a", text="x"),) * 2), "share an id")
    bad(Needs(scored=(ScoredText(id="a", text="x"),), texts=(Text(id="a", text="y"),)), "share an id")
    bad(Needs(scored_twin=("a",)), "twin")


@pytest.mark.parametrize("facts", [{"causal": False}, {"architecture": "bert", "causal": False}])
def test_a_model_without_an_output_head_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match=NO_HEAD):
        check_needs(needs_of(TEXTS), model_facts(**facts))


def test_scores_of_unequal_lengths_are_no_scores() -> None:
    short = TokenScores(logp=np.zeros(2), mean=np.zeros(2), sd=np.zeros(1))
    with pytest.raises(ValueError, match="s0"):
        InMemoryEvidence(facts=model_facts(), token_scores={"s0": short})
    with pytest.raises(ValueError, match="positions"):
        scores_of(torch.zeros(3, 5), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("name", CAUSAL)
def test_scores_of_a_padded_batch_are_those_of_single_plain_runs(name: str, tmp_path: Path) -> None:
    model = headed(name, save(name, tmp_path), tmp_path)
    texts = [text for text in TEXTS if len(text.split()) > 1]
    needs = needs_of(texts)
    seen, facts = looked(tmp_path, needs)
    assert (seen.swept.scored.passes, seen.swept.texts) == (1, len(texts))
    found = given(seen, facts, needs).token_scores()
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for number, text in enumerate(texts):
        ids = tokenizer.encode(text).ids
        with torch.no_grad():
            plain = model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids]))
        told = found[f"s{number}"]
        expected = np.array(slowly(plain.logits[0], ids))
        np.testing.assert_allclose(np.stack([told.logp, told.mean, told.sd], axis=1), expected, atol=3e-5)
        assert -told.logp.mean() == pytest.approx(float(plain.loss), abs=3e-5), "transformers' own loss"
        assert told.logp.dtype == told.mean.dtype == told.sd.dtype == np.float64


def test_a_model_built_by_hand_is_scored_as_it_was_built(tmp_path: Path) -> None:
    """The last norm hands on its bias alone, so every position has the same known logits."""
    model = save("gpt2", tmp_path)
    logits = torch.linspace(-3.0, 3.0, VOCABULARY)
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.zero_()[0] = 2.0
        model.transformer.wte.weight[:, 0] = logits / 2
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    needs = needs_of(["red thing3 blue", "? ? ? NOT"])
    seen, facts = looked(tmp_path, needs)
    share = np.exp(logits.double().numpy())
    share /= share.sum()
    told = given(seen, facts, needs).token_scores()["s0"]
    ids = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("red thing3 blue").ids
    mean = float(share @ np.log(share))
    np.testing.assert_allclose(told.logp, np.log(share[ids[1:]]), atol=1e-6)
    np.testing.assert_allclose(told.mean, mean, atol=1e-6)
    np.testing.assert_allclose(told.sd, np.sqrt(share @ (np.log(share) - mean) ** 2), atol=1e-6)


def test_impossible_and_certain_tokens_have_finite_spread() -> None:
    certain = torch.full((2, 4), float("-inf"))
    certain[:, 1] = 0.0
    told = scores_of(certain, torch.tensor([1, 1]))
    assert told.logp.tolist() == told.mean.tolist() == told.sd.tolist() == [0.0, 0.0]
    assert scores_of(certain, torch.tensor([0, 0])).logp.tolist() == [-np.inf, -np.inf]
    uniform = scores_of(torch.zeros(1, 4), torch.tensor([2]))
    assert float(uniform.sd[0]) == pytest.approx(0.0, abs=1e-12)
    assert float(uniform.mean[0]) == pytest.approx(-np.log(4))


def test_scores_do_not_depend_on_how_many_are_reduced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, ids = torch.randn(37, 11, generator=torch.Generator().manual_seed(0)), torch.arange(37) % 11
    whole = scores_of(logits, ids)
    monkeypatch.setattr("checks.token_scoring.NUMBERS_AT_ONCE", 22)
    parts = scores_of(logits, ids)
    for one, other in ((whole.logp, parts.logp), (whole.mean, parts.mean), (whole.sd, parts.sd)):
        np.testing.assert_allclose(one, other, rtol=1e-14)


def test_equal_texts_run_once_and_no_check_sees_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("llama", tmp_path)
    first, second = needs_of(["red blue", "NOT red ?", "red  blue"]), needs_of(["red blue", "round round"])
    monkeypatch.setattr(token_scores, "LOGITS_IN_A_BATCH", 1)
    told: list[Any] = []
    seen, facts = looked(tmp_path, first, second, told=told)
    assert (seen.swept.scored.texts, seen.swept.scored.passes, seen.swept.scored.tokens) == (3, 3, 7)
    assert [one for one in told if one[0] == "sweep"] == [("sweep", done, 3) for done in (1, 2, 3)]
    one, other = (given(seen, facts, needs).token_scores() for needs in (first, second))
    assert set(one) == {"s0", "s1", "s2"}
    assert set(other) == {"s0", "s1"}
    assert np.array_equal(one["s0"].logp, other["s0"].logp)
    assert np.array_equal(one["s0"].logp, one["s2"].logp)
    assert plan([first, second], facts).sweeps
    assert first.access() == ("activations",)


def test_what_cannot_be_scored_is_lost_with_its_reason(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    needs = needs_of([LONG, "red", "", "red blue"])
    seen, facts = looked(tmp_path, needs)
    evidence = given(seen, facts, needs)
    assert set(evidence.token_scores()) == {"s3"}
    assert evidence.lost() == {"s0": TOO_LONG, "s1": NOTHING_BEFORE, "s2": NOTHING_BEFORE}


def test_a_text_of_numbers_that_are_none_is_lost(tmp_path: Path) -> None:
    model = save("gpt2", tmp_path)
    with torch.no_grad():
        model.transformer.wte.weight[:] = torch.nan
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    needs = needs_of(["red blue"])
    seen, facts = looked(tmp_path, needs)
    assert given(seen, facts, needs).lost() == {"s0": NON_FINITE}


def test_a_beginning_that_the_tokenizer_adds_is_before_the_first_token(tmp_path: Path) -> None:
    model = save("gpt2", tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    start, red, blue = (int(tokenizer.token_to_id(word) or 0) for word in ("round", "red", "blue"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="round $A ?", special_tokens=[("round", start), ("?", tokenizer.token_to_id("?"))]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    needs = needs_of(["red blue"])
    seen, facts = looked(tmp_path, needs)
    ids = [start, red, blue]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    told = given(seen, facts, needs).token_scores()["s0"]
    assert len(told.logp) == 2, "both words, and not the end that the tokenizer adds"
    np.testing.assert_allclose(told.logp, [one[0] for one in slowly(logits, ids)], atol=3e-5)


def test_the_twin_scores_the_texts_that_it_is_asked(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    needs = needs_of(["red blue", "NOT red ?", LONG], twin=[1, 2])
    seen, facts = looked(tmp_path, needs)
    evidence = given(seen, facts, needs)
    twin = evidence.twin().token_scores()
    assert set(twin) == {"s1"}
    assert not np.allclose(twin["s1"].logp, evidence.token_scores()["s1"].logp, atol=0.05)
    again, _ = looked(tmp_path, needs)
    assert np.array_equal(given(again, facts, needs).twin().token_scores()["s1"].logp, twin["s1"].logp)
    with pytest.raises(NotAskedFor, match="twin"):
        given(seen, facts, needs_of(["red blue"])).twin()


def test_a_check_that_asks_too_much_is_refused_and_the_other_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("gpt2", tmp_path)
    monkeypatch.setattr(token_scores, "SCORED_TOKENS_MAX", 6)
    greedy, modest = needs_of(["red blue red", "blue red blue red"]), needs_of(["red blue red", "red blue red "])
    seen, facts = looked(tmp_path, greedy, modest)
    refusal = seen.scored.refusal_of(greedy)
    assert refusal is not None
    assert (refusal.reason, refusal.items) == ("scored_tokens", ("tokens:7", "tokens_max:6"))
    assert seen.scored.refusal_of(modest) is None
    assert seen.swept.scored.texts == 1
    assert set(given(seen, facts, modest).token_scores()) == {"s0", "s1"}


def test_replaced_scores_are_those_alone() -> None:
    scores = TokenScores(logp=np.array([-1.0]), mean=np.array([-2.0]), sd=np.array([0.5]))
    seen = InMemoryEvidence(facts=model_facts(), token_scores={"a": scores}, twin_token_scores={"b": scores})
    assert set(seen.replacing(token_scores={"c": scores}).token_scores()) == {"c"}
    assert set(seen.replacing(lost={}).token_scores()) == {"a"}
    assert set(seen.twin().token_scores()) == {"b"}
    with pytest.raises(ValueError, match="read-only"):
        seen.token_scores()["a"].logp[0] = 0.0


def test_states_and_scores_are_one_run(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    text = Text(id="t", text="red ?")
    needs = Needs(scored=(ScoredText(id="s", text="red blue"),), texts=(text,), sites=("resid.0",))
    seen, facts = looked(tmp_path, needs)
    assert (seen.swept.texts, seen.swept.tokens) == (2, 4)
    assert np.isfinite(given(seen, facts, needs).activations("resid.0")).all()
    assert set(given(seen, facts, needs).token_scores()) == {"s"}
