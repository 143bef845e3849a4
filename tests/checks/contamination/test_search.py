"""What is in a text is found, however it is written, and what scores it agrees with plain computations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import LCSseq

from checks.contamination.languages import COMMONEST, FUNCTION_WORDS, examined, is_code, is_english
from checks.contamination.normaliser import normalise
from checks.contamination.search import Stretch, search
from checks.contamination.seeds import make_seeds, rolled
from checks.contamination.tokens import token_hash, tokens
from checks.contamination.verifier_text import Wording, text_match

LONG = "Natalia sold clips to 48 of her friends in April and then she sold half as many clips in May"
SHORT = "Who wrote the green book"
FILLER = "The committee discussed budgets for roads while rain fell outside on empty tennis courts. "


def _found(texts: Sequence[str], needles: Sequence[str], size: int = 5) -> list[Stretch]:
    return search(tokens(texts), make_seeds([normalise(needle).words for needle in needles], size))


def _told(texts: Sequence[str], needles: Sequence[str]) -> list[tuple[int, int, str]]:
    words = [normalise(text).words for text in texts]
    return [(s.text, s.needle, " ".join(words[s.text][s.begin : s.end])) for s in _found(texts, needles)]


@pytest.mark.parametrize("needle", [LONG, SHORT])
def test_whole_needle_is_found_where_it_stands(needle: str) -> None:
    whole = " ".join(normalise(needle).words)
    text = FILLER * 3 + needle + ". " + FILLER * 3 + needle.upper() + "! " + FILLER
    assert [told for told in _told(["x", text], [needle]) if told[2] == whole] == [(1, 0, whole)] * 2
    assert _told([FILLER * 20], [needle]) == []


def test_needle_that_is_cut_is_not_whole() -> None:
    assert _told(["Who wrote the green", "book"], [SHORT]) == []
    whole = " ".join(normalise(LONG).words)
    assert all(told[2] != whole for told in _told([LONG[:30], LONG[30:]], [LONG]))


def test_changed_copy_is_found_around_its_seeds() -> None:
    changed = LONG.replace("48", "72").replace("friends", "pals")
    ((text, needle, told),) = _told([FILLER + changed + ". " + FILLER], [LONG])
    assert (text, needle) == (0, 0)
    assert told == " ".join(normalise(changed).words)


def test_seeds_of_function_words_alone_are_not_looked_for() -> None:
    empty = "it is what it is and that is that as it was before"
    assert all(word in FUNCTION_WORDS for word in normalise(empty).words)
    seeds = make_seeds([normalise(empty).words])
    assert not seeds.grams.counts.any()
    assert [stretch for stretch in _found([f"so {empty} so"], [empty]) if stretch.end - stretch.begin == 13]


def test_two_benchmarks_share_an_ngram() -> None:
    """One hash of a shared n-gram leads to both items: a table with one item a hash lets the last one win."""
    items = [
        "How many red apples does Tom have after lunch on Monday",
        "How many red apples does Ann sell to her two uncles",
    ]
    for order in (items, items[::-1]):
        for item in items:
            found = {told[1] for told in _told([FILLER + item + "? " + FILLER], order)}
            assert order.index(item) in found
    shorts = ["who wrote the green book", "who wrote the green book"]
    assert {told[1] for told in _told([SHORT], shorts)} == {0, 1}


def test_stretch_is_at_most_twice_its_needle() -> None:
    words = normalise(LONG).words
    rng = np.random.default_rng(5)
    for _ in range(30):
        order = rng.permutation(len(words) - 4)[:6]
        text = " ".join(" ".join(words[at : at + 5]) + " " + " ".join(["zq"] * int(rng.integers(12))) for at in order)
        for stretch in _found([text], [LONG]):
            assert 0 < stretch.end - stretch.begin <= 2 * len(words)


def _plain_search(text: Sequence[str], needle: Sequence[str]) -> bool:
    """Say whether two distinct 5-grams of the needle, not of function words alone, lie within 2 x its length."""
    grams = {tuple(needle[at : at + 5]) for at in range(len(needle) - 4)}
    grams = {gram for gram in grams if any(word not in FUNCTION_WORDS for word in gram)}
    hits = [(at, tuple(text[at : at + 5])) for at in range(len(text) - 4) if tuple(text[at : at + 5]) in grams]
    return any(a[1] != b[1] and abs(a[0] - b[0]) + 5 <= 2 * len(needle) for a in hits for b in hits)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.sampled_from(["red", "the", "cat", "sat", "mat", "of", "dog"]), min_size=13, max_size=16),
    st.lists(st.sampled_from(["red", "the", "cat", "sat", "mat", "of", "dog"]), max_size=60),
)
def test_search_agrees_with_a_plain_one(needle: list[str], text: list[str]) -> None:
    found = search(tokens([" ".join(text)]), make_seeds([needle]))
    whole = [at for at in range(len(text) - len(needle) + 1) if text[at : at + len(needle)] == needle]
    assert {(at, at + len(needle)) for at in whole} <= {(one.begin, one.end) for one in found}
    if not _plain_search(text, needle):
        assert len(found) == len(whole)
    elif not found:
        # Distinct seeds that would put the needle more than half its length apart are no copy of it.
        assert not whole


@given(st.lists(st.sampled_from("abcdef"), max_size=25), st.lists(st.sampled_from("abcdef"), max_size=40))
def test_lcs_agrees_with_a_plain_dynamic_programme(a: list[str], b: list[str]) -> None:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert LCSseq.similarity(a, b) == table[-1][-1]
    if a and b and len(b) <= 2 * len(a):
        match = text_match(Wording(tuple(a)), Wording(tuple(b)))
        # A text with no word and no 5-gram in common is not aligned.
        assert match.lcs == (2 * 10_000 * table[-1][-1] + len(a)) // (2 * len(a))


@given(st.lists(st.sampled_from("abc"), max_size=20))
def test_rolling_hash_is_a_function_of_its_tokens(words: list[str]) -> None:
    hashes = np.array([token_hash(word) for word in words], dtype=np.uint64)
    for length, values in rolled(hashes, {1, 3, 5, 12}).items():
        grams = [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]
        assert len(values) == len(grams)
        for gram, value in zip(grams, values.tolist(), strict=True):
            alone = np.array([token_hash(word) for word in gram], dtype=np.uint64)
            assert rolled(alone, {length})[length].tolist() == [value]


@pytest.mark.parametrize(
    ("text", "english"),
    [
        (FILLER * 2, True),
        (
            "Der Hund lief schnell durch den Wald und sah dabei viele kleine Tiere, die sich vor ihm versteckten. " * 2,
            False,
        ),
        (
            "Le chien court vite dans la for\u00eat et voit beaucoup de petits animaux qui se cachent devant lui. " * 2,
            False,
        ),
        ("\u4f60\u597d\u4e16\u754c" * 20, False),
        ("the of and to a", False),
        ("```\nx = y\n```\n" + "zq = qz\n" * 20, True),
        ("int main() {\nreturn x;\n}\n" * 10, True),
    ],
)
def test_language_is_told_by_its_common_words(text: str, english: bool) -> None:
    words = normalise(text).words
    assert is_english(text, len(words), sum(word in COMMONEST for word in words)) is english
    assert examined(text, words, ["en"]) is english
    assert examined(text, words, ["en", "any"])
    assert not examined(text, words, ["de"])


def test_prose_is_no_code() -> None:
    assert not is_code(FILLER * 5)
    assert len(COMMONEST) == 25
    assert 190 <= len(FUNCTION_WORDS) <= 250
