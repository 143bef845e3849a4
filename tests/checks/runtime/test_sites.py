"""Sites of passages say what plain transformers say: one passage at a time, nothing padded, sums in float64 loops."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checks.check import Needs, Refusal
from checks.errors import NotAskedFor
from checks.passages import Contrast, Passage, States
from checks.runtime import loading, site_batches, site_models
from checks.runtime.architectures import architectures_json
from checks.runtime.facts import model_facts_of
from checks.runtime.plan import check_needs
from checks.runtime.site_models import Models, Source
from checks.runtime.site_passages import tokenise_passages
from checks.runtime.sites import Sites
from sandbox.reader.model import read_model
from tests.checks.models import LAYERS, files_of, save
from tests.checks.runtime.reference import blocks_of
from tests.checks.runtime.test_lesions import kept_in

PASSAGES = (
    Passage(id="a", text="thing1 IS red ?"),
    Passage(id="b", tokens=(3, 4, 5, 6, 7, 8, 9)),
    Passage(id="c", text="red blue", read=3),
    Passage(id="d", tokens=(5,)),
)
CONTRASTS = (
    Contrast(id="k", prompt="thing1 IS", target=" red", foil=" blue"),
    Contrast(id="m", prompt="thing2", target=" NOT round", foil=" NOT red"),
    Contrast(id="same", prompt="thing2", target=" NOT", foil=" NOT"),
)
SITES = ("embed", *(f"{kind}.{layer}" for kind in ("resid", "mlp_out", "attn_z") for layer in range(LAYERS)))
SOME = ("embed", "resid.0", f"resid.{LAYERS - 1}", "mlp_out.1", "attn_z.1")
STEP = {"gpt2": (1e-5, 1e-3), "gpt_neox": (1e-5, 1e-3), "llama-tied": (3e-3, 5e-3), "qwen2": (3e-3, 5e-3)}
"""Step of a finite difference, and how near it comes: a norm of the latter two is float32 in any model of theirs."""
CAUSAL = ("gpt2", "gpt_neox", "llama-tied", "qwen2")
SOON = [name if name in ("gpt2", "llama-tied") else pytest.param(name, marks=pytest.mark.slow) for name in CAUSAL]
"""One of either norm in every run, all in the slow one."""
EVERYTHING: dict[str, Any] = {
    "passages": PASSAGES,
    "contrasts": CONTRASTS,
    "passage_sites": SITES,
    "passage_models": ("submitted", "shuffled"),
    "passage_tokens": 10_000,
    "gradients": True,
}


def sites_of(folder: Path, **more: Any) -> Sites:
    files = files_of(folder)
    reading = read_model(files, architectures_json())
    facts = model_facts_of(reading.config, reading.tensors)
    needs = Needs(**(EVERYTHING | more))
    check_needs(needs, facts)
    models = Models(Source(reading=reading, files=files, facts=facts), None, seed=7)
    return Sites(models, tokenise_passages(models.tokenizer, needs, facts), needs, facts)


@contextmanager
def at(model: Any, site: str, take: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Call `take` with the states at a site of a plain model, and put in place what it returns."""
    kind, _, layer = site.partition(".")
    stack = model.bert.encoder.layer if hasattr(model, "bert") else blocks_of(model)
    block = stack[int(layer or 0)]

    def before(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (take(inputs[0]), *inputs[1:])

    def after(_module: Any, _inputs: Any, output: Any) -> Any:
        return (take(output[0]), *output[1:]) if isinstance(output, tuple) else take(output)

    if kind == "embed":
        handle = block.register_forward_pre_hook(before)
    elif kind == "attn_z":
        module = block.attention.output.dense if hasattr(model, "bert") else kept_in(block, "heads")
        handle = module.register_forward_pre_hook(before)
    elif kind == "mlp_out":
        handle = (block.output.dense if hasattr(model, "bert") else block.mlp).register_forward_hook(after)
    else:
        handle = block.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def plain_states(model: Any, site: str, tokens: Sequence[int]) -> np.ndarray:
    seen: list[np.ndarray] = []

    def keep(state: torch.Tensor) -> torch.Tensor:
        seen.append(state[0].detach().numpy().copy())
        return state

    with at(model, site, keep), torch.no_grad():
        model(torch.tensor([tokens]))
    return seen[0]


def plain_logits(model: Any, site: str, tokens: Sequence[int], change: Callable[[Any], Any] | None) -> torch.Tensor:
    def put(state: torch.Tensor) -> torch.Tensor:
        return state if change is None else change(state)

    with at(model, site, put):
        found: torch.Tensor = model(torch.tensor([tokens])).logits[0].double()
    return found


def tokens_of(sites: Sites, name: str) -> list[int]:
    tokenised = sites.tokenised
    number = tokenised.numbers[name]
    found: list[int] = tokenised.tokens[tokenised.starts[number] : tokenised.starts[number + 1]].tolist()
    return found


def times(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda state: state * factor


def scaled(factor: float) -> Callable[[States], np.ndarray]:
    return lambda given: given.vectors * np.float32(factor)


def test_what_was_not_named_is_refused(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    sites = sites_of(tmp_path, passage_sites=("resid.1",), passage_models=("submitted",), gradients=False)
    site = sites("resid.1", "submitted")
    for asks, told in (
        (lambda: sites("resid.0", "submitted"), r"resid\.0"),
        (lambda: sites("resid.1", "shuffled"), "shuffled"),
        (lambda: site.states(["a", "zz"]), "zz"),
        (lambda: site.splice(["zz"], []), "zz"),
        (lambda: site.margins(["a"], []), "'a'"),
        (lambda: site.margin_gradients(["k"]), "gradients"),
        (lambda: site.divergence_gradients(["a"], scaled(1)), "gradients"),
    ):
        with pytest.raises(NotAskedFor, match=told):
            asks()


@pytest.mark.parametrize(
    ("passages", "items"),
    [
        ((Passage(id="e", text=""),), ("e:passage_empty",)),
        ((Passage(id="e", tokens=()), PASSAGES[0]), ("e:passage_empty",)),
        ((Passage(id="v", tokens=(3, 28)),), ("v:token_outside_vocabulary",)),
        (
            (Passage(id="v", tokens=(3, -1)), Passage(id="e", tokens=())),
            ("v:token_outside_vocabulary", "e:passage_empty"),
        ),
    ],
)
def test_passages_that_cannot_run_refuse_the_check_by_name(passages: Any, items: Any, tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    with pytest.raises(Refusal) as caught:
        sites_of(tmp_path, passages=passages)
    assert (caught.value.reason, caught.value.items) == ("passage_invalid", items)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda given: given.vectors[:-1], r"change 1 returned shape \(3, 16\)"),
        (lambda given: given.vectors[:, :1], r"change 1 returned shape \(4, 1\)"),
        (lambda given: given.vectors * np.float32("nan"), "change 1 returned numbers that are not finite"),
    ],
)
def test_a_change_that_returns_no_states_is_named(returned: Any, told: str, tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    site = sites_of(tmp_path)("resid.0", "submitted")
    with pytest.raises(NotAskedFor, match=told):
        next(site.splice(["a"], [scaled(1), returned]))


def test_tokens_are_charged_as_they_run_and_never_more(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    lengths = {"a": 4, "b": 7, "k": 2}
    sites = sites_of(tmp_path, passage_tokens=4 + 3 * 7 + 2 * 2 + 3 * 2 + 3 * 4 + 5)
    site, twin = sites("resid.0", "submitted"), sites("mlp_out.1", "shuffled")
    spent = []
    list(site.states(["a"]))
    spent.append(sites.budget.spent)
    list(twin.splice(["b"], [scaled(1), scaled(2)]))
    spent.append(sites.budget.spent)
    site.margins(["k", "same"], [scaled(1)])
    spent.append(sites.budget.spent)
    list(site.margin_gradients(["k"]))
    spent.append(sites.budget.spent)
    list(twin.divergence_gradients(["a"], scaled(2)))
    spent.append(sites.budget.spent)
    assert np.diff([0, *spent]).tolist() == [4, 3 * lengths["b"], 2 * lengths["k"], 3 * lengths["k"], 3 * lengths["a"]]
    with pytest.raises(NotAskedFor, match=r"6 tokens of passages, and 5 are left of 52"):
        list(twin.states(["a", "k"]))
    assert sites.budget.spent == spent[-1]
    assert sites.ran.sum() == 3


@pytest.mark.parametrize("name", [*CAUSAL, "bert"])
def test_states_are_those_of_plain_transformers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several batches, so that padding, order and numbering are seen."""
    monkeypatch.setattr(site_batches, "BATCH_TOKENS", 14)
    model = save(name, tmp_path)
    more = {"contrasts": (), "gradients": False} if name == "bert" else {}
    sites = sites_of(tmp_path, **more)
    ids = ["a", "b", "d", "c", "a"]
    for place in SITES:
        site = sites(place, "submitted")
        parts = list(site.states(ids))
        assert len(parts) > 1
        passage = np.concatenate([one.passage for one in parts])
        vectors = np.concatenate([one.vectors for one in parts])
        assert vectors.shape[1] == site.width
        assert (np.diff(passage) >= 0).all()
        for number, one in enumerate(ids):
            own = plain_states(model, place, tokens_of(sites, one))
            np.testing.assert_allclose(vectors[passage == number], own, atol=2e-5, err_msg=f"{place} {one}")


@pytest.mark.parametrize("name", SOON)
def test_spliced_outputs_are_those_of_a_plain_loop(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path)
    sites = sites_of(tmp_path)
    for place in SOME:
        held_against_a_loop(model, sites, place)


def held_against_a_loop(model: Any, sites: Sites, place: str) -> None:
    ids, factors = ["a", "b", "d"], (0.0, 0.5, 1.0)
    (found,) = sites(place, "submitted").splice(ids, [scaled(factor) for factor in factors])
    column = 0
    for number, one in enumerate(ids):
        tokens = tokens_of(sites, one)
        with torch.no_grad():
            own = plain_logits(model, place, tokens, None)
            edited = [plain_logits(model, place, tokens, times(by)) for by in factors]
        for position in range(len(tokens) - 1):
            assert (found.passage[column], found.position[column]) == (number, position)
            p = torch.softmax(own[position], dim=0)
            for row, logits in enumerate([own, *edited]):
                q = torch.softmax(logits[position], dim=0)
                loss = -math.log(float(q[tokens[position + 1]]))
                divergence = sum(
                    float(a) * (math.log(float(a)) - math.log(float(b))) for a, b in zip(p, q, strict=True)
                )
                variation = sum(abs(float(a) - float(b)) for a, b in zip(p, q, strict=True)) / 2
                assert found.cross_entropy[row, column] == pytest.approx(loss, abs=1e-5)
                assert found.divergence[row, column] == pytest.approx(divergence, abs=1e-5)
                assert found.variation[row, column] == pytest.approx(variation, abs=1e-5)
                assert found.same_top[row, column] == (int(p.argmax()) == int(q.argmax()))
            column += 1
    assert column == found.cross_entropy.shape[1]
    assert (found.divergence[[0, 3]] == 0).all()
    assert (found.variation[[0, 3]] == 0).all()
    assert (found.cross_entropy[3] == found.cross_entropy[0]).all()
    assert found.divergence[1].max() > 1e-5


def test_a_part_of_the_tokens_that_is_edited_leaves_other_passages_alone(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    site = sites_of(tmp_path)("resid.0", "submitted")

    def first_alone(given: States) -> np.ndarray:
        given.vectors[given.passage == 0] = 0  # its own copy
        return given.vectors

    (found,) = site.splice(["a", "b"], [first_alone, scaled(1)])
    assert found.divergence[1][found.passage == 0].max() > 1e-3
    assert found.divergence[1][found.passage == 1].max() < 1e-12
    assert (found.divergence[2] == 0).all()


@pytest.mark.parametrize("name", SOON)
def test_margins_and_their_gradients_are_those_of_differences(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path).double()
    sites = sites_of(tmp_path)
    size, near = STEP[name]
    ids = ["m", "same", "k"]
    answers = {"m": ("round", "red"), "k": ("red", "blue")}
    for place in SOME:
        site = sites(place, "submitted")
        found = site.margins(ids, [scaled(0.5)])
        assert np.isnan(found[:, 1]).all()
        for change, row in ((None, 0), (scaled(0.5), 1)):
            (gradients,) = site.margin_gradients(ids, change)
            np.testing.assert_allclose(gradients.value, found[row], atol=1e-5)
            for number in (0, 2):
                tokens = tokens_of(sites, ids[number])
                target, foil = (sites.models.tokenizer.token_to_id(word) for word in answers[ids[number]])
                own = plain_states(model, place, tokens) * (0.5 if row else 1)
                mine = gradients.states.passage == number

                def margin(
                    states: np.ndarray, place: str = place, tokens: Any = tokens, pair: Any = (target, foil)
                ) -> float:
                    put = torch.tensor(states[None])
                    with torch.no_grad():
                        logits = plain_logits(model, place, tokens, lambda state: put.reshape(state.shape))[-1]
                    return float(logits[pair[0]] - logits[pair[1]])

                assert found[row, number] == pytest.approx(margin(own), abs=1e-5)
                step = np.random.default_rng(number).normal(size=own.shape)
                slope = (margin(own + size * step) - margin(own - size * step)) / (2 * size)
                assert float((gradients.gradient[mine] * step).sum()) == pytest.approx(slope, rel=near, abs=near / 5)


@pytest.mark.parametrize("name", SOON)
def test_the_gradient_of_divergence_is_that_of_differences(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path).double()
    sites = sites_of(tmp_path)
    size, near = STEP[name]
    moved = np.random.default_rng(0).normal(size=64)

    def change(given: States) -> np.ndarray:
        return (given.vectors * 0.6 + 0.3 * moved[: given.vectors.shape[1]]).astype(np.float32)

    for place in SOME:
        (found,) = sites(place, "submitted").divergence_gradients(["b", "a"], change)
        for number, one in enumerate(("b", "a")):
            tokens = tokens_of(sites, one)
            with torch.no_grad():
                p = torch.log_softmax(plain_logits(model, place, tokens, None)[:-1], dim=-1)
            own = plain_states(model, place, tokens)
            edited = own * 0.6 + 0.3 * moved[: own.shape[1]]

            def divergence(states: np.ndarray, place: str = place, tokens: Any = tokens, p: torch.Tensor = p) -> float:
                put = torch.tensor(states[None])
                with torch.no_grad():
                    logits = plain_logits(model, place, tokens, lambda state: put.reshape(state.shape))[:-1]
                return float((p.exp() * (p - torch.log_softmax(logits, dim=-1))).sum())

            assert found.value[number] == pytest.approx(divergence(edited), rel=1e-4, abs=1e-6)
            step = np.random.default_rng(number).normal(size=own.shape)
            slope = (divergence(edited + size * step) - divergence(edited - size * step)) / (2 * size)
            mine = found.states.passage == number
            np.testing.assert_allclose(found.states.vectors[mine], own, atol=2e-5)
            assert float((found.gradient[mine] * step).sum()) == pytest.approx(slope, rel=near, abs=near / 5)
        (still,) = sites(place, "submitted").divergence_gradients(["b"], scaled(1))
        assert (still.value == 0).all()
        assert not still.gradient.any()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_logit_weights_move_the_logits_of_the_last_layer(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path)
    weights = sites_of(tmp_path)("resid.2", "submitted").logit_weights()
    gain = model.transformer.ln_f.weight if name == "gpt2" else model.model.norm.weight
    own = (model.lm_head.weight.double() * gain.double()).detach().numpy()
    np.testing.assert_allclose(weights, own - own.mean(axis=0), atol=1e-6)
    assert weights.dtype == np.float32


@pytest.mark.parametrize("name", ["llama", "llama-tied", pytest.param("bert", marks=pytest.mark.slow)])
def test_the_shuffled_twin_keeps_values_and_norms_and_loses_their_order(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path)
    files = files_of(tmp_path)
    reading = read_model(files, architectures_json())
    facts = model_facts_of(reading.config, reading.tensors)
    models = Models(Source(reading=reading, files=files, facts=facts), None, seed=3)
    tied = name in ("gpt2", "llama-tied")

    def parameters() -> dict[str, np.ndarray]:
        bridge = models.use("shuffled").bridge
        assert not any(one.requires_grad for one in bridge.parameters())
        embed, head = bridge.embed.original_component.weight, bridge.unembed.original_component.weight
        if name != "bert":
            assert torch.equal(embed, head) == tied
        return {"embed": embed.numpy().copy(), "out": bridge.blocks[1].mlp.out.original_component.weight.numpy().copy()}

    twin = parameters()
    plain = dict(model.state_dict())
    (embedding,) = [
        one
        for key, one in plain.items()
        if key.endswith(("wte.weight", "embed_tokens.weight", "word_embeddings.weight"))
    ]
    own = embedding.numpy()
    assert not np.array_equal(twin["embed"], own)
    np.testing.assert_array_equal(np.sort(twin["embed"], axis=None), np.sort(own, axis=None))
    (last,) = [one.numpy() for key, one in plain.items() if key == facts.mlp_out[1]]
    np.testing.assert_array_equal(np.sort(twin["out"], axis=None), np.sort(last, axis=None))
    assert np.abs(np.sort(twin["out"][0]) - np.sort(last[0])).max() > 0.01
    models.use("submitted")
    again = parameters()
    assert models.loads == 3
    assert all(np.array_equal(twin[key], again[key]) for key in twin)
    models._seed = 4
    models.drop()
    assert not np.array_equal(parameters()["out"], twin["out"])


def test_one_model_is_in_memory_however_often_they_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("gpt2", tmp_path)
    monkeypatch.setattr(site_batches, "BATCH_TOKENS", 7)
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []
    whole = loading.load

    def load(*args: Any, **more: Any) -> Any:
        alive.append(sum(one() is not None for one in made))
        loaded = whole(*args, **more)
        made.append(weakref.ref(loaded.bridge))
        return loaded

    monkeypatch.setattr(site_models, "load", load)
    sites = sites_of(tmp_path)
    lent = sites.models.lent()
    own, twin = (sites("resid.1", which).states(["a", "b"]) for which in ("submitted", "shuffled"))
    vectors = [next(part).vectors for part in (own, twin, own, twin)]
    assert alive == [0, 0, 0, 0]
    assert not np.array_equal(vectors[0], vectors[1])
    again = [part.vectors for part in sites("resid.1", "submitted").states(["a", "b"])]
    assert all(np.array_equal(one, other) for one, other in zip(vectors[::2], again, strict=True))
    assert lent.bridge.blocks[0] is sites.models.use("submitted").bridge.blocks[0], "who keeps it has the one in memory"


def test_lengths_and_cuts_are_told_without_a_pass(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    sites = sites_of(tmp_path, passages=(*PASSAGES, Passage(id="long", tokens=(3,) * 20)), passage_tokens=0)
    site = sites("resid.1", "submitted")
    assert site.lengths(["long", "b", "d"]).tolist() == [16, 7, 1]
    assert (site.cut(), sites.budget.spent, sites.models.loads) == (1, 0, 0)
