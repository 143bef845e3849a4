"""The sweep gives what a plain forward pass gives, once for all who ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from checks.check import Needs, Text
from checks.errors import NotAskedFor
from checks.runtime.batches import in_batches
from checks.runtime.plan import check_needs, plan, reads_of
from checks.runtime.sweep import evidence, sweep
from checks.runtime.tokens import Row, tokenise
from tests.checks.models import LAYERS, MODELS, save
from tests.checks.runtime.test_loading import loaded

TEXTS = (
    "thing1 IS red ?",
    "thing2 NOT blue",
    "thing3",
    "red red red red blue NOT round thing7 thing8",
    "? ? thing9",
)


def needs_of(texts: tuple[str, ...], layers: range = range(LAYERS)) -> Needs:
    return Needs(
        sites=tuple(f"resid.{layer}" for layer in layers),
        texts=tuple(Text(id=f"t{number}", text=text) for number, text in enumerate(texts)),
    )


def reference(model: Any, tokenizer: Any, text: str) -> list[np.ndarray]:
    """Return the state of one text, alone and without padding, after each block, by plain forward hooks."""
    stack = getattr(model, "transformer", None) or getattr(model, "bert", None) or getattr(model, "gpt_neox", None)
    stack = stack or getattr(model, "model", None) or model
    blocks = getattr(stack, "h", None) or getattr(stack, "layers", None) or stack.encoder.layer
    states: list[np.ndarray] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        states.append((output[0] if isinstance(output, tuple) else output)[0, -1].numpy().copy())

    hooks = [block.register_forward_hook(keep) for block in blocks]
    with torch.no_grad():
        model(torch.tensor([tokenizer.encode(text).ids]))
    for hook in hooks:
        hook.remove()
    return states


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_padded_sweep_equals_single_plain_runs(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path)
    here = loaded(tmp_path)
    merged = plan([needs_of(TEXTS)], here.facts)
    swept = sweep(here, merged)
    assert swept.passes == 1
    for read in merged.reads:
        expected = reference(model, here.tokenizer, read.text)
        for layer in range(LAYERS):
            got = swept.states[layer][swept.places[read]]
            np.testing.assert_allclose(got, expected[layer], atol=1e-4, rtol=1e-4)


def test_a_model_split_over_files_is_the_same_model(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    whole = loaded(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"one.safetensors": names[:20], "two.safetensors": names[20:]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, tmp_path / file)
    index = {"metadata": {}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    merged = plan([needs_of(TEXTS)], whole.facts)
    first, second = sweep(whole, merged), sweep(loaded(tmp_path), merged)
    for layer in range(LAYERS):
        np.testing.assert_array_equal(first.states[layer], second.states[layer])


def test_needs_of_all_checks_are_swept_once(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    here = loaded(tmp_path)
    first, second = needs_of(TEXTS[:4], range(1)), needs_of(TEXTS[2:], range(2))
    merged = plan([first, second], here.facts)
    assert len(merged.reads) == len(TEXTS)
    seen: dict[int, int] = {}

    def count(layer: int) -> Any:
        return lambda *_: seen.update({layer: seen.get(layer, 0) + 1})

    for layer, block in enumerate(here.bridge.blocks):
        block.register_forward_pre_hook(count(layer))
    swept = sweep(here, merged)
    assert seen == {0: 1, 1: 1}, "one pass, and none beyond the deepest layer asked for"
    assert (swept.passes, swept.texts) == (1, len(TEXTS))
    given = evidence(here.facts, check="b", seed=0, needs=second, swept=swept, weights={}, rows={})
    alone = sweep(here, plan([second], here.facts))
    for number, read in enumerate(reads_of(second)):
        np.testing.assert_allclose(given.activations("resid.1")[number], alone.states[1][alone.places[read]], atol=1e-5)
    with pytest.raises(NotAskedFor):
        evidence(here.facts, check="a", seed=0, needs=first, swept=swept, weights={}, rows={}).activations("resid.1")


def test_states_are_read_at_the_word_that_was_asked_for(tmp_path: Path) -> None:
    """Causal: the state at the second word is the last state of the text cut there."""
    save("llama", tmp_path)
    here = loaded(tmp_path)
    text = "thing1 IS red ?"
    cut = Needs(
        sites=("resid.2",),
        texts=(Text(id="whole", text=text, read_at=len("thing1 IS r")), Text(id="cut", text="thing1 IS")),
    )
    swept = sweep(here, plan([cut], here.facts))
    given = evidence(here.facts, check="a", seed=0, needs=cut, swept=swept, weights={}, rows={})
    at_word, at_end = given.activations("resid.2")
    np.testing.assert_allclose(at_word, at_end, atol=1e-5)


def test_what_cannot_be_read_is_named_with_its_reason(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    here = loaded(tmp_path)
    needs = Needs(
        sites=("resid.0",),
        texts=(
            Text(id="long", text=" ".join(["red"] * 17)),
            Text(id="fits", text=" ".join(["red"] * 16)),
            Text(id="nothing", text="thing1 IS", read_at=3),
            Text(id="outside", text="thing1", read_at=7),
            Text(id="empty", text="   "),
        ),
    )
    swept = sweep(here, plan([needs], here.facts))
    given = evidence(here.facts, check="a", seed=0, needs=needs, swept=swept, weights={}, rows={})
    assert given.lost() == {
        "long": "too_long",
        "nothing": "no_token_before_read_at",
        "outside": "read_at_outside_text",
        "empty": "no_token_before_read_at",
    }
    states = given.activations("resid.0")
    assert np.isnan(states[[0, 2, 3, 4]]).all()
    assert np.isfinite(states[1]).all()


def test_tokens_beyond_the_embedding_do_not_crash_the_sweep(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    here = loaded(tmp_path)
    facts = here.facts.__class__(**{**vars(here.facts), "vocabulary": 3})
    _rows, lost = tokenise(here.tokenizer, plan([needs_of(("thing1",))], facts).reads, facts)
    assert set(lost.values()) == {"token_outside_vocabulary"}


def test_states_that_are_not_finite_are_named(tmp_path: Path) -> None:
    """A NaN in one block spoils the layers from there on; a NaN in a word's embedding spoils that word's texts."""
    save("gpt2", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["transformer.h.1.mlp.c_fc.weight"][0, 0] = float("nan")
    here_id = loaded(tmp_path).tokenizer.token_to_id("thing9")
    tensors["transformer.wte.weight"][here_id] = float("inf")
    save_file(tensors, tmp_path / "model.safetensors")
    here = loaded(tmp_path)
    needs = needs_of(TEXTS)
    swept = sweep(here, plan([needs], here.facts))
    given = evidence(here.facts, check="a", seed=0, needs=needs, swept=swept, weights={}, rows={})
    assert given.lost() == {"t4": "non_finite"}
    assert np.isfinite(given.activations("resid.0")[:4]).all()
    assert not np.isfinite(given.activations("resid.1")).any(axis=1).all()


def test_batches_hold_neighbours_and_lose_nothing() -> None:
    rows = [Row(ids=tuple(range(length)), reads=()) for length in (1, 900, 2, 5000, 3, *[4] * 100)]
    batches = list(in_batches(rows))
    assert sorted(len(row.ids) for batch in batches for row in batch) == sorted(len(row.ids) for row in rows)
    assert all(len(batch) == 1 or len(batch) * len(batch[-1].ids) <= 8192 for batch in batches)
    assert max(len(batch) for batch in batches) <= 64


def test_needs_that_the_model_cannot_meet_are_refused(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    facts = loaded(tmp_path).facts
    for needs in (
        Needs(sites=("resid.3",)),
        Needs(sites=("blocks.0",)),
        Needs(weights=("nothing",)),
        Needs(texts=(Text(id="a", text="x"), Text(id="a", text="y"))),
        Needs(gradients=True),
    ):
        with pytest.raises(NotAskedFor):
            check_needs(needs, facts)
