"""A shifted state does what a plain forward hook does, within the budget and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.check import Continuation, Edit, Needs, Text
from checks.errors import NotAskedFor
from checks.runtime import replay as replaying
from tests.checks.models import LAYERS, save
from tests.checks.runtime.reference import CAUSAL, TEXTS, WORDS, asked, headed, log_probability, needs_of
from tests.checks.runtime.test_loading import loaded

WIDTH = 16


def edit(row: int, layer: int, add: np.ndarray, words: tuple[str, ...] = WORDS) -> Edit:
    return Edit(site=f"resid.{layer}", row=f"t{row}", add=add, ask=tuple(f"t{row}{word}" for word in words))


def reading_at(reads: dict[int, int]) -> Needs:
    """Return needs in which some texts are read before their end."""
    texts = tuple(Text(id=f"t{number}", text=text, read_at=reads.get(number)) for number, text in enumerate(TEXTS))
    return needs_of(texts=TEXTS, replay=1000).__class__(**{**vars(needs_of(replay=1000)), "texts": texts})


@pytest.mark.parametrize("name", CAUSAL)
def test_a_batch_of_edits_equals_single_plain_hooks(name: str, tmp_path: Path) -> None:
    """Rows, layers, positions and shifts differ within the batch; several words are more than one token."""
    model = headed(name, save(name, tmp_path), tmp_path)
    here = loaded(tmp_path)
    reads = {0: len("thing1"), 3: len("red red red r")}
    given, _ = asked(here, reading_at(reads))
    positions = [0, 2, 0, 2, 2]
    draw = np.random.default_rng(0)
    edits = [edit(row, layer, draw.normal(size=WIDTH)) for row in range(len(TEXTS)) for layer in range(LAYERS)]
    moved = 0.0
    for one, found in zip(edits, given.replay(edits), strict=True):
        row = int(one.row[1:])
        shift = (int(one.site[-1]), positions[row], one.add)
        expected = [log_probability(model, here.tokenizer, TEXTS[row], word, shift=shift) for word in WORDS]
        np.testing.assert_allclose(found, expected, atol=5e-5)
        unedited = np.array([given.log_probabilities()[ask] for ask in one.ask])
        moved = max(moved, float(np.abs(found - unedited).max()))
    assert moved > 0.1, "the shifts must be large enough to tell a hook at the wrong place"


@pytest.mark.parametrize("name", CAUSAL)
def test_a_shift_of_nothing_changes_nothing(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    given, _ = asked(loaded(tmp_path), reading_at({0: len("thing1")}))
    edits = [edit(row, layer, np.zeros(WIDTH)) for row in range(len(TEXTS)) for layer in range(LAYERS)]
    for one, found in zip(edits, given.replay(edits), strict=True):
        np.testing.assert_allclose(found, [given.log_probabilities()[ask] for ask in one.ask], atol=1e-5)


def test_after_the_last_block_an_earlier_position_changes_nothing_at_all(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    given, _ = asked(loaded(tmp_path), reading_at({0: len("thing1"), 3: len("red red")}))
    add = np.full(WIDTH, 3.0)
    for row in (0, 3):
        ((*found,),) = given.replay([edit(row, LAYERS - 1, add)])
        assert found == [given.log_probabilities()[f"t{row}{word}"] for word in WORDS]
        ((*earlier,),) = given.replay([edit(row, LAYERS - 2, add)])
        assert all(one != other for one, other in zip(found, earlier, strict=True))
    ((*at_end,),) = given.replay([edit(1, LAYERS - 1, add)])
    assert at_end[0] != given.log_probabilities()["t1 red"]


def test_an_answer_does_not_depend_on_what_else_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("llama", tmp_path)
    given, _ = asked(loaded(tmp_path), reading_at({4: 1}))
    draw = np.random.default_rng(1)
    edits = [edit(row, layer, draw.normal(size=WIDTH)) for row in range(len(TEXTS)) for layer in range(LAYERS)]
    together = given.replay(edits)
    backwards = given.replay(edits[::-1])[::-1]
    monkeypatch.setattr(replaying, "BATCH_TEXTS", 4)
    in_fours = given.replay(edits)
    monkeypatch.setattr(replaying, "BATCH_SCORES", 1)
    alone = [given.replay([one])[0] for one in edits]
    for other in (backwards, in_fours, alone):
        np.testing.assert_allclose(np.stack(other), np.stack(together), atol=1e-5)


def test_rows_of_the_same_beginning_compute_it_once(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    here = loaded(tmp_path)
    given, _ = asked(here, needs_of(words=(" red",), replay=1000))
    shapes: list[tuple[int, int]] = []
    here.bridge.blocks[0].register_forward_pre_hook(
        lambda _module, given, **_: shapes.append(tuple(given[0].shape[:2]))
    )
    given.replay([edit(3, 1, np.ones(WIDTH) * number, (" red",)) for number in range(20)])
    assert shapes == [(1, 8), (20, 1)], "the nine words' first eight once, then the last one twenty times"


def test_answers_keep_the_order_of_edits_and_of_what_they_ask(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    given, _ = asked(loaded(tmp_path), needs_of(replay=10))
    zero = np.zeros(WIDTH)
    words = (WORDS[2], WORDS[0], WORDS[2])
    found = given.replay([edit(3, 0, zero, words), edit(0, 2, zero, ()), edit(2, 1, zero, (WORDS[1],))])
    assert [len(one) for one in found] == [3, 0, 1]
    known = given.log_probabilities()
    np.testing.assert_allclose(found[0], [known[f"t3{word}"] for word in words], atol=1e-5)
    np.testing.assert_allclose(found[2], [known[f"t2{WORDS[1]}"]], atol=1e-5)
    assert given.replay([]) == []


def test_more_edits_than_declared_are_not_run(tmp_path: Path) -> None:
    """The budget is the run's: what a control replays is taken from it too, and what is refused is not."""
    save("gpt2", tmp_path)
    given, _ = asked(loaded(tmp_path), needs_of(replay=3))
    one = edit(0, 0, np.zeros(WIDTH))
    given.replay([one, one])
    spoiled = given.replacing(activations={"resid.0": np.zeros((len(TEXTS), WIDTH))})
    with pytest.raises(NotAskedFor, match="2 edits, and 1 are left"):
        spoiled.replay([one, one])
    given.replay([one])
    with pytest.raises(NotAskedFor, match="0 are left"):
        given.replay([one])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"site": "resid.7"}, "resid.7"),
        ({"site": "resid.1"}, "resid.1"),
        ({"row": "t9"}, "t9"),
        ({"ask": ("t0 red", "c")}, "'c'"),
        ({"ask": ("t1 red",)}, "after another text"),
        ({"add": np.zeros(WIDTH + 1)}, "wide"),
    ],
)
def test_an_edit_of_what_was_not_asked_for_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    given, _ = asked(loaded(tmp_path), needs_of(sites=("resid.0", "resid.2"), replay=3))
    good: dict[str, Any] = {"site": "resid.0", "row": "t0", "add": np.zeros(WIDTH), "ask": ("t0 red",)}
    with pytest.raises(NotAskedFor, match=told):
        given.replay([Edit(**(good | change))])
    assert len(given.replay([Edit(**good)] * 3)) == 3, "a refused edit costs nothing"


def test_no_budget_is_no_replay(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    given, _ = asked(loaded(tmp_path), needs_of())
    with pytest.raises(NotAskedFor, match="named none"):
        given.replay([edit(0, 0, np.zeros(WIDTH))])


def test_what_was_lost_is_no_number_under_an_edit(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    texts = ("thing1 IS", " ".join(["red"] * 17))
    asks = (
        Continuation(id="good", after=texts[0], text=" red"),
        Continuation(id="merges", after=texts[0], text="2"),
        Continuation(id="long", after=texts[1], text=" red"),
    )
    needs = needs_of(texts, words=(), continuations=asks, replay=9)
    given, _ = asked(loaded(tmp_path), needs)
    add = np.ones(WIDTH)
    first, second = given.replay(
        [
            Edit(site="resid.0", row="t0", add=add, ask=("merges", "good")),
            Edit(site="resid.0", row="t1", add=add, ask=("long",)),
        ]
    )
    assert np.isnan(first).tolist() == [True, False]
    assert np.isnan(second).tolist() == [True]


def test_a_model_without_a_head_answers_no_number(tmp_path: Path) -> None:
    save("bert", tmp_path)
    given, _ = asked(loaded(tmp_path), needs_of(replay=9))
    (found,) = given.replay([edit(0, 0, np.ones(WIDTH))])
    assert np.isnan(found).all()


def test_a_text_as_long_as_the_context_is_replayed(tmp_path: Path) -> None:
    """Positions of padding must not run past the position table."""
    model = save("gpt2", tmp_path)
    here = loaded(tmp_path)
    texts = (" ".join(["red"] * 16), "thing1 IS blue", "thing2")
    needs = needs_of(texts, words=(" blue",), replay=9)
    given, _ = asked(here, needs)
    add = np.random.default_rng(3).normal(size=WIDTH)
    found = given.replay([edit(row, 0, add, (" blue",)) for row in range(3)])
    for row, position in ((0, 15), (1, 2), (2, 0)):
        expected = log_probability(model, here.tokenizer, texts[row], " blue", shift=(0, position, add))
        np.testing.assert_allclose(found[row], [expected], atol=5e-5)
