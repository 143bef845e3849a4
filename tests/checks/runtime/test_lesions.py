"""Trials under lesions do what plain pre-hooks of transformers do: one text at a time, no padding, all blocks."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checks.check import TokenTrial, TrialScores
from checks.errors import NotAskedFor
from checks.runtime import forward, lesion_passes
from checks.runtime.lesions import TokenLesions
from checks.runtime.loading import Loaded
from checks.runtime.tokens import Placed
from tests.checks.models import LAYERS, save
from tests.checks.runtime.reference import CAUSAL, blocks_of, headed
from tests.checks.runtime.test_loading import loaded

HEADS = 2
SITES = tuple(f"{kind}.{layer}" for kind in ("mlp", "heads") for layer in range(LAYERS))

TRIALS = tuple(
    TokenTrial(id=f"r{number}", group=group, text=text, target=target)
    for number, (group, text, target) in enumerate(
        (
            ("a", "thing1 IS red ?", " red"),
            ("a", "thing2 NOT blue", " ?"),
            ("a", "thing3", "NOT round"),
            ("b", "red red red red blue NOT round thing7 thing8", "blue IS red"),
            ("b", "? ? thing9", "red"),
            ("c", "thing1 IS red ?", "thing4"),
        )
    )
)


def kept_in(block: Any, kind: str) -> Any:
    """Return the module that reads the units: the MLP's last matrix, or W_O."""
    if kind == "mlp":
        names = ("c_proj", "down_proj", "dense_4h_to_h")
        return next(getattr(block.mlp, name) for name in names if hasattr(block.mlp, name))
    attention = next(getattr(block, name) for name in ("attn", "self_attn", "attention") if hasattr(block, name))
    return next(getattr(attention, name) for name in ("c_proj", "o_proj", "dense") if hasattr(attention, name))


class Plain:
    """The model by itself: means, spreads and scores, from forward pre-hooks."""

    def __init__(self, model: Any, here: Loaded, trials: Sequence[TokenTrial] = TRIALS) -> None:
        self.model = model
        encode = here.tokenizer.encode
        self.tokens = [(encode(one.text).ids, encode(one.target).ids) for one in trials]
        count = Counter(one.group for one in trials)
        weights = [1 / count[one.group] / len(count) for one in trials]
        self.mean: dict[str, np.ndarray] = {}
        self.square: dict[str, np.ndarray] = {}
        for site in SITES:
            seen = [self._inputs(site, [*text, *target][:-1]) for text, target in self.tokens]
            of_token = np.concatenate([np.full(len(one), w / len(one)) for one, w in zip(seen, weights, strict=True)])
            whole = np.concatenate(seen)
            self.mean[site] = of_token @ whole
            self.square[site] = of_token @ (whole - self.mean[site]) ** 2

    def module(self, site: str) -> Any:
        kind, layer = site.split(".")
        return kept_in(blocks_of(self.model)[int(layer)], kind)

    def _inputs(self, site: str, ids: Sequence[int]) -> np.ndarray:
        seen: list[np.ndarray] = []

        def keep(state: torch.Tensor) -> torch.Tensor:
            seen.append(state[0].double().numpy())
            return state

        with hooked(self.module(site), keep), torch.no_grad():
            self.model(torch.tensor([ids]))
        return seen[0]

    def sd(self, site: str) -> np.ndarray:
        square = self.square[site]
        return np.asarray(np.sqrt(square if site.startswith("mlp") else square.reshape(HEADS, -1).sum(axis=1)))

    def scores(self, lesion: Mapping[str, Any]) -> tuple[list[bool], list[float]]:
        with ExitStack() as stack:
            for site, units in lesion.items():
                stack.enter_context(hooked(self.module(site), self.holding(site, units)))
            answers = [self.trial(*one) for one in self.tokens]
        return [right for right, _ in answers], [loss for _, loss in answers]

    def holding(self, site: str, units: Any) -> Any:
        width = 1 if site.startswith("mlp") else len(self.mean[site]) // HEADS
        columns = [int(unit) * width + inner for unit in units for inner in range(width)]
        mean = torch.tensor(self.mean[site][columns], dtype=torch.float32)

        def hold(state: torch.Tensor) -> torch.Tensor:
            state = state.clone()
            state[..., columns] = mean
            return state

        return hold

    def trial(self, text: Sequence[int], target: Sequence[int]) -> tuple[bool, float]:
        """Each token of the target in a pass of its own."""
        given, right, loss = list(text), True, 0.0
        for token in target:
            with torch.no_grad():
                logits = self.model(torch.tensor([given])).logits[0, -1].double()
            right &= int(logits.argmax()) == token
            loss -= float(torch.log(torch.softmax(logits, dim=0))[token]) / len(target)
            given.append(token)
        return right, loss


@contextmanager
def hooked(module: Any, change: Any) -> Iterator[None]:
    handle = module.register_forward_pre_hook(lambda _module, given: (change(given[0]), *given[1:]))
    try:
        yield
    finally:
        handle.remove()


def drawn(rng: np.random.Generator, units: int) -> list[dict[str, np.ndarray]]:
    """Return lesions of every kind: one site, several, all of a site, all of all."""
    sizes = {site: units if site.startswith("mlp") else HEADS for site in SITES}
    single = [{site: rng.permutation(sizes[site])[: 1 + sizes[site] // 3]} for site in SITES]
    pairs = [{one: np.arange(sizes[one] // 2), two: np.array([1])} for one, two in zip(SITES, SITES[::-1], strict=True)]
    whole: list[dict[str, np.ndarray]] = [{site: np.arange(sizes[site]) for site in SITES}]
    return [{}, *single, *pairs, *whole, {"mlp.1": np.arange(sizes["mlp.1"])}]


def all_right(here: Loaded, model: Any, trials: Sequence[TokenTrial], many: int) -> list[TokenTrial]:
    """Return the trials with targets that the model itself gives: a lesion can then make them wrong."""
    found = []
    for one in trials:
        given = list(here.tokenizer.encode(one.text).ids)
        words = []
        for _ in range(many):
            with torch.no_grad():
                given.append(int(model(torch.tensor([given])).logits[0, -1].argmax()))
            words.append(str(here.tokenizer.id_to_token(given[-1])))
        found.append(TokenTrial(id=one.id, group=one.group, text=one.text, target=" ".join(words)))
    return found


@pytest.mark.parametrize("name", CAUSAL)
def test_every_lesion_equals_plain_pre_hooks(name: str, tmp_path: Path) -> None:
    """Sites, layers and their mixtures; rows of unequal length and groups of unequal size in one batch."""
    model = headed(name, save(name, tmp_path), tmp_path)
    here = loaded(tmp_path)
    trials = [*all_right(here, model, TRIALS[:4], 2), *TRIALS[4:]]
    found, plain = TokenLesions(here, trials, SITES, 100), Plain(model, here, trials)
    assert found.lost == {}
    for site in SITES:
        np.testing.assert_allclose(found.unit_sd[site], plain.sd(site), rtol=1e-5, atol=1e-6)
    lesions = drawn(np.random.default_rng(0), len(found.unit_sd["mlp.0"]))
    scores = found(lesions)
    expected = [plain.scores(lesion) for lesion in lesions]
    np.testing.assert_allclose(scores.loss, [loss for _, loss in expected], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(scores.correct, [right for right, _ in expected])
    assert scores.correct[0, :4].all(), "the model says its own words"
    assert not scores.correct[1:, :4].all(), "a lesion must be able to make a trial wrong"
    moved = np.abs(scores.loss[1:] - scores.loss[0]).max(axis=1)
    assert moved.min() > 1e-3, "each lesion must be large enough to tell a hook at the wrong place"


def test_a_means_weighs_tokens_trials_and_groups_as_declared(tmp_path: Path) -> None:
    """A long text, and a group of many trials, count no more than others: against a plain sum over tokens."""
    model = save("gpt2", tmp_path)
    here = loaded(tmp_path)
    found, plain = TokenLesions(here, TRIALS, SITES, 1), Plain(model, here)
    whole = np.concatenate([plain._inputs("mlp.1", [*text, *target][:-1]) for text, target in plain.tokens])
    np.testing.assert_allclose(found.unit_sd["mlp.1"], plain.sd("mlp.1"), rtol=1e-5)
    assert np.abs(found.unit_sd["mlp.1"] / whole.std(axis=0) - 1).max() > 0.05, "tokens pooled would be another answer"
    means = {place.hook: mean.numpy() for place, mean in found._means.items()}
    np.testing.assert_allclose(means["blocks.1.mlp.out.hook_in"], plain.mean["mlp.1"], rtol=1e-5, atol=1e-6)
    heads = means["blocks.2.attn.o.hook_in"]
    np.testing.assert_allclose(heads.ravel(), plain.mean["heads.2"], rtol=1e-5, atol=1e-6)


def essential(folder: Path, neuron: int) -> None:
    """Save a GPT-2 that says "blue" after any word but "?"; after that one neuron says "red", twice as loud."""
    model = save("gpt2", folder)
    red, blue, ask = (word_number(folder, word) for word in ("red", "blue", "?"))
    stream = torch.tensor([0.0, 1.0, 4.0] + [0.0] * 13)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        untied = torch.zeros_like(model.transformer.wte.weight)
        untied[red, 0] = untied[blue, 1] = 1.0
        model.lm_head.weight = torch.nn.Parameter(untied)
        model.transformer.ln_f.weight.fill_(1.0)
        model.transformer.wpe.weight[:, 1] = 1.0
        model.transformer.wte.weight[ask, 2] = 4.0
        block = model.transformer.h[1]
        block.ln_2.weight.fill_(1.0)
        block.mlp.c_fc.weight[2, neuron] = 3.0
        block.mlp.c_fc.bias[neuron] = -3.0
        active = block.mlp.act(block.mlp.c_fc(block.ln_2(stream)))[neuron]
        block.mlp.c_proj.weight[neuron, 0] = 2.0 / active
    save_untied(model, folder)


def save_untied(model: Any, folder: Path) -> None:
    model.config = copy.deepcopy(model.config)  # which all models of a test run share
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)


def word_number(folder: Path, word: str) -> int:
    from tokenizers import Tokenizer

    number = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(word)
    assert number is not None
    return number


def test_the_one_neuron_that_a_task_needs_is_the_one_whose_lesion_costs_it(tmp_path: Path) -> None:
    """Held at its mean, a quarter of what it says after "?" (half the tokens of half the groups), blue is louder."""
    neuron = 5
    essential(tmp_path, neuron)
    asks = [TokenTrial(id=f"q{n}", group="asks", text=f"thing{n} ?", target="red") for n in range(3)]
    tells = [TokenTrial(id=f"s{n}", group="tells", text=f"IS NOT round thing{n}", target="blue") for n in range(9)]
    found = TokenLesions(loaded(tmp_path), [*asks, *tells], ("mlp.1", "heads.0"), 10)
    rest = np.setdiff1d(np.arange(64), [neuron])
    lesions = [{}, {"mlp.1": np.array([neuron])}, {"mlp.1": rest}, {"heads.0": np.arange(2)}]
    right = found(lesions).correct
    np.testing.assert_array_equal(right[:, 3:], True)
    np.testing.assert_array_equal(right[:, :3], np.array([True, False, True, True])[:, None].repeat(3, axis=1))
    spread = found.unit_sd["mlp.1"]
    assert spread[neuron] > 1
    np.testing.assert_array_equal(spread[rest], 0.0)


def small(folder: Path, *trials: TokenTrial, budget: int = 100, name: str = "gpt2") -> TokenLesions:
    if not (folder / "config.json").exists():
        save(name, folder)
    return TokenLesions(loaded(folder), trials or TRIALS, SITES, budget)


def same(one: TrialScores, other: TrialScores) -> None:
    np.testing.assert_array_equal(one.correct, other.correct)
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5, atol=1e-5)


def test_held_twice_is_held_once_and_the_order_of_units_is_nothing(tmp_path: Path) -> None:
    found = small(tmp_path)
    units = np.array([7, 3, 11])
    once, twice, turned = ({"mlp.1": one} for one in (units, np.array([7, 3, 3, 11, 7]), units[::-1]))
    scores = found([once, twice, turned, {"heads.0": units[:0], **once}])
    for number in (1, 2, 3):
        np.testing.assert_array_equal(scores.loss[number], scores.loss[0])


def test_alike_lesions_run_once_and_one_of_nothing_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = small(tmp_path)
    ran: list[int] = []
    whole = lesion_passes.under_lesions

    def counted(here: Any, batch: Any, lesions: Any, means: Any) -> Any:
        ran.append(len(lesions))
        return whole(here, batch, lesions, means)

    monkeypatch.setattr("checks.runtime.lesions.under_lesions", counted)
    base = found([{}, {"mlp.0": np.array([], dtype=np.int64)}])
    assert ran == []
    np.testing.assert_array_equal(base.loss[0], base.loss[1])
    found([{"mlp.0": np.array([1])}, {}, {"mlp.0": np.array([1, 1])}, {"mlp.0": np.array([2])}])
    assert ran == [2]


def test_blocks_before_the_first_held_unit_run_once(tmp_path: Path) -> None:
    """Twenty lesions of the last block's heads: two blocks run for the trials alone, the third for all lesions."""
    found = small(tmp_path)
    ran: Counter[int] = Counter()
    for number, block in enumerate(found._loaded.bridge.blocks):
        block.original_component.register_forward_pre_hook(
            lambda _module, given, number=number, **_: ran.update({number: given[0].shape[0]}), with_kwargs=False
        )
    lesions = [{"heads.2": np.array([unit % 2]), "mlp.2": np.array([unit])} for unit in range(20)]
    found(lesions)
    assert ran == {0: 6, 1: 6, 2: 6 * 20}
    ran.clear()
    found([{"mlp.1": np.array([unit])} for unit in range(20)])
    assert ran == {0: 6, 1: 6, 2: 6 * 20}, "neurons are held without running their block again"
    ran.clear()
    found([{"mlp.2": np.array([unit])} for unit in range(20)])
    assert ran == {0: 6, 1: 6, 2: 6}


def test_the_model_is_as_it_was_after_a_lesion_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = small(tmp_path)
    lesion = {"mlp.1": np.array([3])}
    before = found([lesion])
    with monkeypatch.context() as broken:
        broken.setattr(forward, "grade", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            found([lesion])
    np.testing.assert_array_equal(found([lesion]).loss, before.loss)
    same(small(tmp_path)([{}]), found([{}]))


def test_an_answer_does_not_depend_on_what_else_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = small(tmp_path, name="llama")
    lesions = drawn(np.random.default_rng(1), 32)
    together = found(lesions)
    back = found(lesions[::-1])
    same(together, TrialScores(correct=back.correct[::-1], loss=back.loss[::-1]))
    monkeypatch.setattr(lesion_passes, "BATCH_TOKENS", 20)
    cut = small(tmp_path)
    assert len(cut._batches) > 1
    same(together, cut(lesions))
    alone = [cut([lesion]) for lesion in lesions]
    same(
        together,
        TrialScores(
            correct=np.concatenate([one.correct for one in alone]), loss=np.concatenate([one.loss for one in alone])
        ),
    )


def test_the_order_of_trials_is_nothing(tmp_path: Path) -> None:
    found = small(tmp_path)
    turned = small(tmp_path, *TRIALS[::-1])
    lesions = drawn(np.random.default_rng(2), 64)
    one, other = found(lesions), turned(lesions)
    same(one, TrialScores(correct=other.correct[:, ::-1], loss=other.loss[:, ::-1]))
    for site in SITES:
        np.testing.assert_array_equal(found.unit_sd[site], turned.unit_sd[site])


def test_trials_of_the_same_words_run_once_and_still_count_each(tmp_path: Path) -> None:
    """Twice the same trial in a group of three weighs two thirds of it."""
    pair = (TRIALS[0], TokenTrial(id="again", group="a", text=TRIALS[0].text, target=TRIALS[0].target), TRIALS[1])
    model = save("gpt2", tmp_path)
    found = small(tmp_path, *pair)
    assert (found.texts, found.tokens) == (2, 7)
    plain = Plain(model, loaded(tmp_path), pair)
    np.testing.assert_allclose(found.unit_sd["mlp.0"], plain.sd("mlp.0"), rtol=1e-5)
    loss = found([{"mlp.0": np.arange(9)}]).loss[0]
    assert loss[0] == loss[1] != loss[2]


def test_a_trial_that_cannot_run_is_lost_and_leaves_no_trace(tmp_path: Path) -> None:
    bad = (
        TokenTrial(id="long", group="a", text=" ".join(["red"] * 16), target="red blue"),
        TokenTrial(id="empty", group="alone", text="red", target=""),
        TokenTrial(id="nothing", group="b", text="", target="red"),
    )
    fits = TokenTrial(id="fits", group="a", text=" ".join(["red"] * 16), target="red")
    clean, mixed = small(tmp_path, *TRIALS, fits), small(tmp_path, *bad, *TRIALS, fits)
    assert mixed.lost == {
        "long": "too_long",
        "empty": "continuation_empty",
        "nothing": "no_token_before_read_at",
    }
    assert clean.lost == {}
    lesions = drawn(np.random.default_rng(3), 64)
    one, other = clean(lesions), mixed(lesions)
    assert not other.correct[:, :3].any()
    assert np.isnan(other.loss[:, :3]).all()
    same(one, TrialScores(correct=other.correct[:, 3:], loss=other.loss[:, 3:]))
    for site in SITES:
        np.testing.assert_array_equal(clean.unit_sd[site], mixed.unit_sd[site])


@pytest.mark.parametrize("name", ["bert", "bert-headless"])
def test_a_model_without_a_head_loses_every_trial(name: str, tmp_path: Path) -> None:
    found = small(tmp_path, name=name)
    assert found.lost == {one.id: "no_output_head" for one in TRIALS}
    scores = found([{}, {"mlp.1": np.array([0])}])
    assert scores.correct.shape == (2, len(TRIALS))
    assert not scores.correct.any()
    assert np.isnan(scores.loss).all()
    assert {site: len(sd) for site, sd in found.unit_sd.items()} == {
        site: 32 if site.startswith("mlp") else HEADS for site in SITES
    }
    assert np.isnan(found.unit_sd["mlp.0"]).all()


def test_numbers_that_are_none_lose_a_trial_and_no_other(tmp_path: Path) -> None:
    """A word whose embedding is infinite loses the trials that say it; the others' means never see it."""
    model = save("gpt2", tmp_path)
    with torch.no_grad():
        clone = model.transformer.wte.weight.clone()
        clone[word_number(tmp_path, "thing9")] = float("nan")
        model.lm_head.weight = torch.nn.Parameter(model.transformer.wte.weight.clone())
        model.transformer.wte.weight = torch.nn.Parameter(clone)
    save_untied(model, tmp_path)
    found = TokenLesions(loaded(tmp_path), TRIALS, SITES, 9)
    kept = tuple(one for one in TRIALS if one.id != "r4")
    clean = TokenLesions(loaded(tmp_path), kept, SITES, 9)
    assert found.lost == {"r4": "non_finite"}
    lesion = {"mlp.0": np.arange(5), "heads.1": np.array([1])}
    one, other = clean([{}, lesion]), found([{}, lesion])
    assert np.isnan(other.loss[:, 4]).all()
    assert not other.correct[:, 4].any()
    same(one, TrialScores(correct=np.delete(other.correct, 4, axis=1), loss=np.delete(other.loss, 4, axis=1)))
    np.testing.assert_allclose(clean.unit_sd["mlp.0"], found.unit_sd["mlp.0"], rtol=1e-5)


def test_a_lesion_that_makes_no_number_is_wrong_and_not_right(tmp_path: Path) -> None:
    """Logits that are none have a likeliest token all the same, to torch."""
    found = small(tmp_path)
    place = next(one for one in found._means if (one.kind, one.layer) == ("mlp", 2))
    found._means[place][3] = float("nan")
    scores = found([{"mlp.2": np.array([3])}, {"mlp.2": np.array([4])}])
    assert not scores.correct[0].any()
    assert np.isnan(scores.loss[0]).all()
    assert np.isfinite(scores.loss[1]).all()
    batch = lesion_passes.Batch.of([Placed(ids=(1, 2, 3), start=1), Placed(ids=(4, 0), start=1)])
    graded = np.array([-1.0, -2.0, np.nan, -1.0, -np.inf, -3.0])
    right, loss = lesion_passes.fold(batch, graded, np.ones(6, dtype=np.bool_))
    np.testing.assert_array_equal(right, [[True, False], [False, True]])
    np.testing.assert_array_equal(loss, [[1.5, np.nan], [np.nan, 3.0]])


def test_more_lesions_than_declared_do_not_run(tmp_path: Path) -> None:
    found = small(tmp_path, budget=3)
    lesion = {"mlp.0": np.array([0])}
    found([lesion, {}])
    with pytest.raises(NotAskedFor, match="2 lesions, and 1 are left"):
        found([lesion, lesion])
    found([lesion])
    with pytest.raises(NotAskedFor, match="0 are left"):
        found([{}])
    assert found([]).loss.shape == (0, len(TRIALS))


@pytest.mark.parametrize(
    ("lesion", "told"),
    [
        ({"mlp.3": np.array([0])}, r"mlp\.3"),
        ({"heads.1": np.array([0])}, r"heads\.1"),
        ({"resid.0": np.array([0])}, r"resid\.0"),
        ({"mlp.0": np.array([64])}, r"mlp\.0.*it has 64"),
        ({"mlp.0": np.array([-1])}, r"mlp\.0.*-1"),
        ({"heads.0": np.array([2])}, r"heads\.0.*it has 2"),
        ({"mlp.0": np.array([0.5])}, "whole numbers"),
        ({"mlp.0": np.array([True, False])}, "whole numbers"),
        ({"mlp.0": np.array([[0]])}, "whole numbers"),
    ],
)
def test_a_lesion_of_what_is_not_there_is_refused_and_costs_nothing(lesion: Any, told: str, tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    found = TokenLesions(loaded(tmp_path), TRIALS, ("mlp.0", "heads.0"), 1)
    with pytest.raises(NotAskedFor, match=told):
        found([lesion])
    assert len(found([{"mlp.0": np.array([0])}]).loss) == 1


def test_a_site_that_the_model_has_not_is_refused(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    with pytest.raises(NotAskedFor, match=r"heads\.3"):
        TokenLesions(loaded(tmp_path), TRIALS, ("heads.3",), 1)


def test_what_a_tokenizer_puts_before_a_text_runs_and_what_it_puts_around_a_target_does_not(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    model = save("gpt2", tmp_path)
    here = loaded(tmp_path)
    here.tokenizer.post_processor = TemplateProcessing(
        single="IS $A NOT",
        special_tokens=[(word, word_number(tmp_path, word)) for word in ("IS", "NOT")],
    )
    trial = TokenTrial(id="one", group="a", text="thing1 red", target="blue ?")
    found = TokenLesions(here, (trial,), ("mlp.0",), 1)
    text, target = ([word_number(tmp_path, word) for word in words.split()] for words in ("IS thing1 red", "blue ?"))
    plain = Plain(model, loaded(tmp_path))
    assert found([{}]).loss[0, 0] == pytest.approx(plain.trial(text, target)[1], abs=1e-5)
