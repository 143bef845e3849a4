"""Markup, wrapping and writing do not change tokens, and every token knows its bytes."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination.normaliser import normalise
from checks.contamination.normaliser_letters import fold
from checks.contamination.normaliser_mapped import Mapped
from checks.contamination.normaliser_markup import clean, clean_mapped
from checks.contamination.normaliser_prose import reflow

PLAIN = "Natalia sold clips to 48 of her friends. How many clips did she sell?"


@pytest.mark.parametrize(
    "written",
    [
        "NATALIA sold clips to forty-eight of her friends. How many clips did she sell?",
        "Natalia sold\nclips to 48 of\nher friends. How many\nclips did she sell?",
        "<p>Natalia <b>sold</b> clips to <i class='x y'>48</i> of her friends.<br/>How many clips did she sell?</p>",
        "**Natalia** sold _clips_ to `48` of her friends. How many [clips](https://x.org/a_b) did she sell?",
        "> Natalia sold clips to 48\n> of her friends. How many clips did she sell?",
        "# Natalia\nsold clips to $48$ of her friends. How many clips did she sell?",
        "Natalia sold clips to \\text{48} of her friends. How many clips did she sell?",
        "Natalia sold clips to 48 of her friends.\\nHow many clips did she sell?",
        'Natalia sold clips to 48 of her friends.\\nhow many \\"clips\\" did she sell?',
        "Natalia&nbsp;sold clips to &#52;8 of her friends. How many clips did she sell?",
        "Nata\u00adlia sold \ufb01ve clips".replace("\ufb01ve ", "")
        + " to \uff14\uff18 of her friends. How many clips did she sell?",
        "```python\nNatalia sold clips to 48 of her friends. How many clips did she sell?\n```",
        "Natalia<!-- a note --> sold clips to 48 of her friends. How many clips did she sell?",
    ],
)
def test_markup_and_wrapping_do_not_change_tokens(written: str) -> None:
    assert normalise(written).words == normalise(PLAIN).words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't can't n't isn\u2019t", "do not ca not n t is not"),
        ("Janet's ducks", "janet s ducks"),
        ("a_b-c/d 5$ & < ~", "a b c / d 5 $"),
        ("\u4f60\u597d world", "\u4f60 \u597d world"),
        ("16eggs x2", "16 eggs x 2"),
        ("caf\u00e9 cafe\u0301", "caf\u00e9 caf\u00e9"),
        ("\u0928\u092e\u0938\u094d\u0924\u0947", "\u0928\u092e\u0938\u094d\u0924\u0947"),
        ("Stra\u00dfe", "strasse"),
        ("&amp;lt;b&gt;", "lt b"),
        ("x < y > z <notatag>", "x y z notatag"),
        ("costs $5 and $6 \\times 2", "costs $ 5 and $ 6 2"),
        ("\\neq \\theta \\rho", "neq theta rho"),
        ("", ""),
    ],
)
def test_tokens_are_as_specified(text: str, words: str) -> None:
    assert " ".join(normalise(text).words) == words


def test_tokens_know_their_bytes() -> None:
    text = "Caf\u00e9 <b>don\u2019t</b> pay $1,234.50 \u2014 forty\u2010five &eacute;"
    whole = text.encode()
    shown = [whole[token.begin : token.end].decode() for token in normalise(text).tokens]
    assert shown == ["Caf\u00e9", "do", "n\u2019t", "pay", "$", "1,234.50", "forty\u2010five", "&eacute;"]


@settings(deadline=None)
@given(st.text(max_size=80))
def test_spans_are_in_order_and_on_character_bounds(text: str) -> None:
    seen = normalise(text)
    whole = text.encode("utf-8", "replace")
    last = 0
    for token, (first, after) in zip(seen.tokens, seen.places, strict=True):
        assert last <= token.begin < token.end <= len(whole)
        whole[token.begin : token.end].decode()
        assert seen.window_text[first:after]
        last = token.begin
    for ranges in (seen.sentences, seen.paragraphs):
        assert [n for a, b in ranges for n in range(a, b)] == list(range(len(seen.tokens)))


MARKED = st.lists(
    st.sampled_from(
        [
            *"<>/&;*_`#$%\\\r\n \"'.,-()[]{}|~0123456789aent",
            "<p>",
            "&amp;",
            "```",
            "\\n",
            "\u00e9",
            "\u2019",
            "\u0301",
            "\u00bd",
        ]
    ),
    max_size=60,
).map("".join)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=80), MARKED))
def test_both_paths_clean_alike(text: str) -> None:
    assert clean_mapped(text).text == clean(text)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_folding_in_pieces_is_folding_the_whole(text: str) -> None:
    assert Mapped.of(text).folded().text == fold(text)
    assert not any(unicodedata.category(letter) in ("Cf", "Pd") and letter != "-" for letter in fold(text))


def test_sentences_end_at_stops_and_not_at_abbreviations() -> None:
    seen = normalise("Mr. Smith has 3.5 kg, e.g. flour. He bakes! J. R. does (not). Why?\n\nNext one")
    told = [" ".join(seen.words[a:b]) for a, b in seen.sentences]
    assert told == ["mr smith has 7/2 kg e g flour", "he bakes", "j r does not", "why", "next 1"]
    assert len(seen.paragraphs) == 2


def test_lists_and_indents_keep_their_lines() -> None:
    assert reflow("a\nb\n- c\n  d\n\n\ne\n1. f") == "a b\n- c\nd\n\ne\n1. f"


@pytest.mark.parametrize(
    "text",
    ["<" * 20_000, "<p " * 7_000, "<!--" * 5_000, "$x" * 10_000, "\\frac{" * 4_000, "&a" * 10_000, "](" * 10_000,
     "> " * 10_000, "*" * 20_000, "a*" * 10_000, " \n" * 10_000, "`" * 20_000, "\\n" * 10_000, "e\u0301" * 5_000,
     "\u0301" * 5_000, "\u1100\u1161" * 5_000],
    ids=range(16),
)  # fmt: skip
@pytest.mark.timeout(60)  # what grew with the square of the length would take an hour
def test_no_text_is_slow(text: str) -> None:
    assert normalise(text * 3).window_text is not None


def test_lone_surrogate_is_no_crash() -> None:
    assert normalise("five \ud800 apples").words == ("5", "apples")
