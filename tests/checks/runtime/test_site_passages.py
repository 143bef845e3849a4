"""Passages become tokens once: cut where they are too long, marked where they are read, refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing

from checks.check import Needs
from checks.errors import NotAskedFor
from checks.memory import model_facts
from checks.passages import Contrast, Passage
from checks.runtime.loading import read_tokenizer
from checks.runtime.plan import check_needs
from checks.runtime.site_passages import Tokenised, tokenise_passages
from tests.checks.models import VOCABULARY, files_of, save

FACTS = model_facts(layers=2, vocabulary=VOCABULARY, context=6, architecture="gpt2")


@pytest.fixture(name="tokenizer", scope="module")
def _tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("model")
    save("gpt2", folder)
    return read_tokenizer(files_of(folder))


def made(tokenizer: Tokenizer, *passages: Passage, contrasts: tuple[Contrast, ...] = ()) -> Tokenised:
    return tokenise_passages(tokenizer, Needs(passages=passages, contrasts=contrasts), FACTS)


SEVEN = (3, 4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("passage", "read", "lost"),
    [
        (Passage(id="p", text="red blue NOT"), [2], None),
        (Passage(id="p", text="red blue NOT", read=8), [1], None),
        (Passage(id="p", text="red blue NOT", read=7), [0], None),
        (Passage(id="p", text="red blue NOT", read=2), [], "no_token_before_read_at"),
        (Passage(id="p", text="red blue NOT", read=13), [], "read_at_outside_text"),
        (Passage(id="p", text="red blue NOT", read=(2, 5)), [0, 1], None),
        (Passage(id="p", text="red blue NOT", read=(3, 4)), [], "no_token_before_read_at"),
        (Passage(id="p", text="red blue NOT", read=(3, 99)), [], "read_at_outside_text"),
        (Passage(id="p", tokens=SEVEN), [], "too_long"),
        (Passage(id="p", tokens=SEVEN, read=3), [2], None),
        (Passage(id="p", tokens=SEVEN, read=0), [], "no_token_before_read_at"),
        (Passage(id="p", tokens=SEVEN, read=7), [], "too_long"),
        (Passage(id="p", tokens=SEVEN, read=(4, 7)), [4, 5], None),
        (Passage(id="p", tokens=SEVEN, read=(6, 7)), [], "too_long"),
    ],
)
def test_a_passage_is_read_where_it_asks(tokenizer: Tokenizer, passage: Passage, read: Any, lost: Any) -> None:
    tokenised = made(tokenizer, passage)
    assert tokenised.read.nonzero()[0].tolist() == read
    assert tokenised.lost.get("p") == lost
    assert tokenised.cut == (passage.tokens is not None)


def test_the_last_token_of_a_cut_passage_is_not_the_one_at_the_cut(tokenizer: Tokenizer) -> None:
    # A row that is labelled by its whole text was read in the middle of it.
    words = "red blue NOT red blue NOT"
    tokenised = made(
        tokenizer,
        Passage(id="whole", text=words),
        Passage(id="cut", text=f"{words} red"),
        Passage(id="six", tokens=(3,) * 6),
    )
    assert tokenised.lost == {"cut": "too_long"}
    assert tokenised.read.nonzero()[0].tolist() == [5, 17]
    # It still runs as far as it goes: a corpus is streamed, not read at a place.
    assert tokenised.starts.tolist() == [0, 6, 12, 18]
    assert tokenised.cut == 1


def test_tokens_that_the_tokenizer_adds_at_the_end_do_not_cut_what_is_read(tokenizer: Tokenizer) -> None:
    ending = Tokenizer.from_str(tokenizer.to_str())
    ending.add_special_tokens([AddedToken("[END]", special=True)])
    number = ending.get_vocab_size() - 1
    assert ending.id_to_token(number) == "[END]"
    ending.post_processor = TemplateProcessing(single="$A [END]", special_tokens=[("[END]", number)])
    facts = model_facts(layers=2, vocabulary=number + 1, context=6, architecture="gpt2")
    needs = Needs(passages=(Passage(id="p", text="red blue NOT red blue NOT"),))
    tokenised = tokenise_passages(ending, needs, facts)
    assert (tokenised.cut, tokenised.lost) == (1, {})
    assert tokenised.read.nonzero()[0].tolist() == [5]


def test_special_tokens_are_those_that_the_tokenizer_declares(tokenizer: Tokenizer) -> None:
    declared = Tokenizer.from_str(tokenizer.to_str())
    declared.add_special_tokens([AddedToken("red", special=True)])
    declared.add_tokens([AddedToken("blue", special=False)])
    special = made(declared, Passage(id="p", text="red blue")).special
    assert special[declared.token_to_id("red")]
    assert not special[declared.token_to_id("blue")]


def test_answers_share_their_first_tokens_with_the_prompt(tokenizer: Tokenizer) -> None:
    contrasts = (
        Contrast(id="k", prompt="thing1", target=" NOT red", foil=" NOT blue"),
        Contrast(id="same", prompt="thing1", target=" NOT", foil=" NOT red"),
        Contrast(id="none", prompt="thing1", target="", foil=" red"),
        Contrast(id="merged", prompt="thing", target="1 red", foil="2 red"),
        Contrast(id="bare", prompt="", target="red", foil="blue"),
        Contrast(id="long", prompt="red " * 7, target="red", foil="blue"),
    )
    tokenised = made(tokenizer, Passage(id="p", tokens=(3,)), contrasts=contrasts)
    ids = {word: tokenizer.token_to_id(word) for word in ("thing1", "NOT", "red", "blue")}
    begin, end = tokenised.starts[1:3]
    assert tokenised.tokens[begin:end].tolist() == [ids["thing1"], ids["NOT"]]
    assert tokenised.answers == {1: (ids["red"], ids["blue"])}
    assert tokenised.read[begin:end].tolist() == [False, True]
    assert tokenised.lost == {
        "same": "foil_shared",
        "none": "continuation_empty",
        "merged": "continuation_merges",
        "bare": "no_token_before_read_at",
        "long": "too_long",
    }


GOOD: dict[str, Any] = {
    "passages": (Passage(id="a", text="x"),),
    "contrasts": (Contrast(id="k", prompt="x", target="y", foil="z"),),
    "passage_sites": ("resid.1", "embed", "mlp_out.0", "attn_z.1"),
    "passage_tokens": 5,
    "gradients": True,
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"passage_sites": ("resid.2",)}, r"resid\.2"),
        ({"passage_sites": ("embed.0",)}, r"embed\.0"),
        ({"passage_sites": ("mlp.0",)}, r"mlp\.0"),
        ({"passage_sites": ()}, "passage_sites"),
        ({"passage_sites": (), "passages": (), "contrasts": ()}, "gradients need"),
        ({"passages": (Passage(id="a"),)}, "'a' has neither"),
        ({"passages": (Passage(id="a", text="x", tokens=(1,)),)}, "'a' has neither text nor tokens, or both"),
        ({"passages": (Passage(id="k", text="x"),)}, "share an id"),
        ({"passages": (Passage(id="a", text="x", read=-1),)}, "read nowhere"),
        ({"passages": (Passage(id="a", text="x", read=(2, 2)),)}, "read nowhere"),
        ({"passage_tokens": -1}, "-1 tokens"),
        ({"passage_models": ("shuffled",)}, "submitted"),
    ],
)
def test_passages_that_this_model_cannot_answer_are_refused(change: dict[str, Any], told: str) -> None:
    check_needs(Needs(**GOOD), FACTS)
    with pytest.raises(NotAskedFor, match=told):
        check_needs(Needs(**(GOOD | change)), FACTS)


def test_contrasts_need_a_model_that_says_what_follows(tmp_path: Path) -> None:
    with pytest.raises(NotAskedFor, match="causal"):
        check_needs(Needs(**GOOD), model_facts(layers=2, causal=False))
