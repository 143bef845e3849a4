r"""Steps 1 and 2 of the normaliser `n1`: entities, escapes, folding, tags, Markdown, LaTeX (contamination, 6.2).

Each step names letters without which it changes nothing, so that clean text passes at the speed of a search. One list
of steps serves both paths, with and without a map to the original's bytes. No pattern repeats a repetition, and what
may be long is bounded, so that no text is slow.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from checks.contamination.normaliser_letters import fold
from checks.contamination.normaliser_mapped import Mapped

BLOCK_TAGS = (
    "address|article|aside|blockquote|body|caption|center|dd|div|dl|dt|figcaption|figure|footer|form|h1|h2|h3|h4|h5|h6"
    "|head|header|hr|html|li|main|nav|ol|option|p|pre|script|section|select|style|table|tbody|td|textarea|tfoot|th"
    "|thead|title|tr|ul"
)
"""HTML names that begin a paragraph (HTML standard: flow content that breaks a line)."""

INLINE_TAGS = (
    "a|abbr|b|big|button|cite|code|del|dfn|em|font|i|img|input|ins|kbd|label|link|mark|math|meta|q|s|samp|small|span"
    "|strike|strong|sub|sup|svg|tt|u|var|wbr"
)
"""HTML names inside a line: their tags vanish without a space."""

_LATEX_NRT = frozenset(
    [
        f"n{rest}"
        for rest in [
            "abla",
            "e",
            "eq",
            "eg",
            "eq",
            "newcommand",
            "exists",
            "ot",
            "otin",
            "u",
            "ewline",
            "ewcommand",
            "oindent",
            "mid",
            "parallel",
        ]
    ]
    + [
        f"r{rest}"
        for rest in [
            "ho",
            "ight",
            "rightarrow",
            "ightarrow",
            "ightharpoonup",
            "angle",
            "floor",
            "ceil",
            "m",
            "ef",
            "ule",
            "oot",
            "vert",
        ]
    ]
    + [
        f"t{rest}"
        for rest in [
            "imes",
            "ext",
            "extbf",
            "extit",
            "extrm",
            "exttt",
            "frac",
            "heta",
            "au",
            "an",
            "anh",
            "o",
            "op",
            "ilde",
            "itle",
            "binom",
            "riangle",
        ]
    ]
)
r"""LaTeX commands that begin like the JSON escapes \n, \r and \t; any other such word is an escape and a word."""

LONGEST = 2000
"""Characters of a tag, comment or link target that are taken for one; longer is text (our choice: keeps it linear)."""

Made = Callable[[re.Match[str]], str]


@dataclass(frozen=True)
class Step:
    """One edit: what must occur for it to matter, what it finds, what it puts there."""

    needs: tuple[str, ...]
    pattern: re.Pattern[str]
    made: Made
    put: str | Made
    """What `made` gives, as a template where it is one: then the search calls no Python for a match."""


Groups = tuple[tuple[str, tuple[Step, ...]], ...]


def _entity(found: re.Match[str]) -> str:
    return html.unescape(found.group())


def _unicode_escape(found: re.Match[str]) -> str:
    units = found.group()[2:].split("\\u")
    return (
        "".join(chr(int(unit, 16)) for unit in units)
        .encode("utf-16-le", "surrogatepass")
        .decode("utf-16-le", "replace")
    )


def _line_escape(found: re.Match[str]) -> str:
    if found.group(1) + found.group(2) in _LATEX_NRT:
        return found.group()
    return ("\t" if found.group(1) == "t" else "\n") + found.group(2)


def _steps(*rows: tuple[str, str, str | Made]) -> tuple[Step, ...]:
    return tuple(Step(tuple(needs.split("|")), re.compile(pattern), _made(put), put) for needs, pattern, put in rows)


def _made(put: str | Made) -> Made:
    """Return a template, of letters and groups, as a function of the match."""
    if isinstance(put, str):
        return lambda found: found.expand(put)
    return put


CASED = _steps(
    ("&", r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});", _entity),
    ("\\u", r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}", _unicode_escape),
    ('\\"|\\/', r'\\(["/])', r"\1"),
    ("\\n|\\r|\\t", r"\\([nrt])([a-z]*)", _line_escape),
    # NFKC opens 1\u00bd to 11/2, which is another number: the whole and its fraction are kept apart.
    (
        "\u00bc|\u00bd|\u00be|\u2153|\u2154|\u215b|\u215c|\u215d|\u215e",
        r"(?<=[0-9])(?=[\u00bc-\u00be\u2150-\u215e])",
        " ",
    ),
)
"""Before folding: entities and JSON escapes once; casing tells `\\nHow` from a LaTeX command."""

FOLDED = _steps(
    ("\r", r"\r\n?", "\n"),
    ("<!--", rf"<!--[^>]{{0,{LONGEST}}}-->", " "),
    ("<", rf"</?(?:{BLOCK_TAGS})(?:[\s/][^<>]{{0,{LONGEST}}})?>", "\n\n"),
    ("<br", rf"<br(?:[\s/][^<>]{{0,{LONGEST}}})?>", "\n"),
    ("<", rf"</?(?:{INLINE_TAGS})(?:[\s/][^<>]{{0,{LONGEST}}})?>", ""),
    ("```", r"(?m)^[ \t]{0,8}```[^\n`]*$", ""),
    ("~~~", r"(?m)^[ \t]{0,8}~~~[^\n`]*$", ""),
    # Pandoc's rule for mathematics: no space inside the marks, no digit behind the closing one.
    ("$", r"\$(?<!\\\$)\$?(?=\S)([^$\n]{1,300})(?<=[^\s\\])\$\$?(?![0-9])", r"\1"),
    ("\\", r"\\[dt]?frac\{([^{}]{1,60})\}\{([^{}]{1,60})\}", r"\1/\2"),
    ("\\", rf"\\(?:text|textbf|textit|textrm|mathrm|mathbf|boxed)\{{([^{{}}]{{0,{LONGEST}}})\}}", r"\1"),
    ("\\", r"\\(?:times|cdot)(?![a-z])", "*"),
    ("\\", r"\\([$%])", r"\1"),
    ("](", rf"\]\([^\s()]{{0,{LONGEST}}}\)", "]"),
    ("\n>|\n >|\n  >", r"\n[ \t]{0,3}>[> ]{0,9}", "\n"),
    ("\n#|\n #|\n  #", r"\n[ \t]{0,3}#{1,6}[ \t]+", "\n\n"),
    # Up to three marks at a word's edge go: where a word or a sign begins behind them and none ends before them, or
    # the other way round. Marks in a word or alone stay. The mark comes first in the pattern, what stands before it is
    # asked behind it: a search for a mark is fast, one for a place is not.
    (
        "*|_|`",
        r"[*_`](?:(?<![\w*`][*_`])[*_`]{0,2}(?=[^\s*_`])|(?<=[^\s*_`][*_`])[*_`]{0,2}(?![\w*`]))",
        "",
    ),
    (".", r"\.(?=[0-9])(?<=[ \n$(]\.)", "0."),
)
"""After folding. Patterns begin with a letter that must occur, which is what makes a search fast. A leading
point gets its zero here, because reading numbers looks at no letter before a number."""


def _grouped(steps: tuple[Step, ...]) -> Groups:
    """Return neighbouring steps with the one letter without which none of them matters, or no letter."""
    groups: list[tuple[str, list[Step]]] = []
    for step in steps:
        shared = set.intersection(*(set(one) for one in step.needs))
        guard = min(shared - {"\n", " "}, default="")
        if groups and guard and groups[-1][0] == guard:
            groups[-1][1].append(step)
        else:
            groups.append((guard, [step]))
    return tuple((guard, tuple(group)) for guard, group in groups)


_CASED, _FOLDED = _grouped(CASED), _grouped(FOLDED)


def _needed(step: Step, text: str) -> bool:
    # Asked of every text and step: a generator would cost more than the search.
    for one in step.needs:  # noqa: SIM110
        if one in text:
            return True
    return False


def clean(text: str) -> str:
    """Return text after steps 1 and 2; its lines stand as they were."""
    return _applied(_FOLDED, fold(_applied(_CASED, text)))


def clean_mapped(text: str) -> Mapped:
    """Return what `clean` returns, with the bytes that each character came from."""
    return _applied_mapped(_FOLDED, _applied_mapped(_CASED, Mapped.of(text)).folded())


def _applied(groups: Groups, text: str) -> str:
    for guard, steps in groups:
        if guard in text:
            for step in steps:
                if _needed(step, text):
                    text = step.pattern.sub(step.put, text)
    return text


def _applied_mapped(groups: Groups, mapped: Mapped) -> Mapped:
    for guard, steps in groups:
        if guard in mapped.text:
            for step in steps:
                if _needed(step, mapped.text):
                    mapped = mapped.sub(step.pattern, step.made)
    return mapped
