"""The byte path gives the tokens of the plain path, on any text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination import tokens as tokens_module
from checks.contamination import tokens_chains
from checks.contamination.normaliser import normalise
from checks.contamination.numbers_reading import NUMERIC
from checks.contamination.tokens import token_hash, tokens
from checks.contamination.tokens_chains import Memory

PIECES: list[str] = [
    *sorted(NUMERIC), *NUMERIC, "a", "an", "and", "of", "percent", "per", "don't", "n't", "can\u2019t", "'t", "n",
    "not",
    "0", "1", "2", "12", "007", "123", "456", "9" * 16, "9" * 41, "%", "$", "/", "//", ".", ",", "-", "--", " ", "  ",
    "\n", "\n\n", "\n ", " \n", "\t", "\r\n", "\x0b", "\x1c", "\u00a0", "\u2003", "\u2028", "(", ")", "#", "# ", "* ",
    "- ", "1. ", "> ", "*", "_", "`", "```", "<p>", "</b>", "<br>", "&amp;", "&#49;", "\\n", "\\frac{1}{2}", "\u00bd",
    "\u00e9", "e\u0301", "\u4f60", "\u0661", "\u200b", "\ufb01", "\U0001d7d9",
    "word", "Word", "$5$", ":", "\x00", " .5",
]  # fmt: skip
MADE = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
SPACED = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(["", " ", " ", " ", "-", "\n"])), max_size=30).map(
    lambda pairs: "".join(a + b for a, b in pairs)
)
ANY = st.one_of(st.text(max_size=60), st.text(alphabet=st.characters(max_codepoint=127), max_size=80), MADE, SPACED)


def _plain(text: str) -> list[int]:
    return [token_hash(token.text) for token in normalise(text).tokens]


@settings(max_examples=300, deadline=None)
@given(ANY)
def test_byte_path_gives_the_tokens_of_the_plain_path(text: str) -> None:
    assert tokens([text]).hashes.tolist() == _plain(text)


@settings(max_examples=60, deadline=None)
@given(st.lists(ANY, max_size=6))
def test_no_token_crosses_two_texts(texts: list[str]) -> None:
    found = tokens(texts)
    for place, text in enumerate(texts):
        assert found.hashes[found.text == place].tolist() == _plain(text)
    assert (np.diff(found.text) >= 0).all()


@settings(deadline=None)
@given(st.lists(ANY, max_size=4))
def test_memory_of_numbers_changes_nothing(texts: list[str]) -> None:
    memory = Memory()
    for text in texts:
        assert tokens([text], memory).hashes.tolist() == tokens([text]).hashes.tolist()


@pytest.mark.parametrize("mark", [". ", "\n\n", ", ", "\u3002", " "])
def test_pieces_and_parts_change_nothing(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    text = "She paid $1,234.50 for forty-five. Then 3. 5 and two and a half came. It isn't caf\u00e9. "
    text = (text * 30).replace(". ", mark)
    whole = tokens([text, "x", text]).hashes.tolist()
    monkeypatch.setattr(tokens_module, "PIECE", 100)
    monkeypatch.setattr(tokens_chains, "MEMORY", 2)
    assert tokens([text, "x", text]).hashes.tolist() == whole == _plain(text) + _plain("x") + _plain(text)


def test_hash_does_not_depend_on_the_place() -> None:
    found = tokens(["alpha " * 500 + "beta"]).hashes
    assert set(found[:-1].tolist()) == {token_hash("alpha")}
    assert found[-1] == token_hash("beta")


def test_hashes_of_short_words_do_not_meet() -> None:
    words = [f"{a}{b}{c}".strip() for a in "abcdefgh " for b in "xyzw0123" for c in "pqrstuvw"] + [
        str(n) for n in range(30_000)
    ]
    assert len({token_hash(word) for word in set(words)}) == len(set(words))


def test_no_text_and_no_texts() -> None:
    assert len(tokens([]).hashes) == 0
    assert len(tokens(["", "...", "\n"]).hashes) == 0
