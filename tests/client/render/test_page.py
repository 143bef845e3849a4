"""The page of a report: complete, escaped, without scripts or addresses, and the same bytes everywhere."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from assay.render import markup
from assay.render.page import NOT_CLAIMED, render
from assay.render.source import look
from assay.testing import Forge

from tests.client.render.planted import NOW, every_kind, full, metric, page_of, plot, series, source_of

ROOT = Path(__file__).parents[3]

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202eevil\x1b[31m"


class Reader(HTMLParser):
    """Collects elements, attributes and visible text; raises nothing on odd markup, so tests look at all of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "an element is not closed where it was opened"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.said.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


def test_every_section_is_there_in_the_order_of_the_specification(forge: Forge) -> None:
    page = Reader(page_of(forge, full(forge)))
    assert page.headings == [
        "Not answered, refused, left out",
        "Verdict",
        "Checks",
        "Attempts",
        "Waivers",
        "Comparison",
        "Access",
        "Data",
        "Environment",
        "Sandbox and output bytes",
        "What this report does not claim",
        "How to verify",
    ]
    assert page.open == []
    for sentence in NOT_CLAIMED:
        assert sentence in page.text
    assert "This page is a rendering and proves nothing: run assay verify ." in page.text


def test_what_decides_is_said_in_words(forge: Forge) -> None:
    place = full(forge)
    text = Reader(page_of(forge, place)).text
    digest = hashlib.sha256((place / "report.sigstore.json").read_bytes()).hexdigest()
    for told in (
        "FAIL",
        digest,
        forge.manifest.digest,
        "too_few_items",
        "power 0.9 [0.78, 0.96] at n 40",
        "INCONCLUSIVE: what follows supports no claim.",
        "MISSED",
        "CELL_CRASHED",
        "known, ticket 12",
        "nothing isolated",
        "4,096 of at most 262,144",
        "Signed under a development key",
        "0.861 [0.835, 0.883]",
        "left out 60",
        "and 20 more",
    ):
        assert told in text, told


def test_a_report_without_policy_says_so(forge: Forge) -> None:
    text = Reader(page_of(forge, forge.report())).text
    assert "NO VERDICT" in text
    assert "No policy was registered" in text
    assert "PASS" not in text


@pytest.mark.parametrize("outcome", ["passed", "PASS", "waived"])
def test_unknown_verdict_reads_as_inconclusive(forge: Forge, outcome: Any) -> None:
    place = full(forge)
    statement = forge.statement(place)
    statement["predicate"]["verdict"]["outcome"] = outcome
    banner = page_of(forge, forge.reseal(place, statement)).split("</header>")[0]
    assert ">INCONCLUSIVE<" in banner or "NOT ESTABLISHED" in banner
    assert ">PASS<" not in banner


@pytest.mark.parametrize("outcome", [None, 3])
def test_a_verdict_that_is_no_word_makes_no_page(forge: Forge, outcome: Any) -> None:
    place = full(forge)
    statement = forge.statement(place)
    statement["predicate"]["verdict"]["outcome"] = outcome
    seen, source = look(forge.reseal(place, statement), keys=[forge.key_file], now=NOW)
    assert (seen.outcome, source) == ("wrong", None)


def test_unverified_report_is_never_shown_without_a_warning(forge: Forge) -> None:
    place = forge.report()
    assert "NOT ESTABLISHED" not in page_of(forge, place)
    warned = page_of(forge, place, trusted=False).split("</header>")[0]
    assert "NOT ESTABLISHED. The report states: " in warned
    # A policy that nobody registered is written into it: the page says so beside its word.
    assert "NOT ESTABLISHED. The report states: FAIL" in page_of(forge, full(forge)).split("</header>")[0]
    assert "not even who signed it" in warned
    assert "V03 unknown" in warned


def test_text_of_others_is_escaped_everywhere(forge: Forge) -> None:
    place = full(forge)
    statement = forge.statement(place)

    def poison(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {(name if key != "labels" else f"{name}<i>"): poison(one, name) for name, one in value.items()}
        if isinstance(value, list):
            return [poison(one, key) for one in value]
        free = key not in ("outcome", "kind", "axis") and not key.endswith(("_at", "sha256"))
        return HOSTILE if isinstance(value, str) and free and not re.fullmatch(r"[-0-9.]+", value) else value

    poisoned = source_of(forge, place)
    predicate = poison(statement["predicate"])
    page = render(replace(poisoned, statement={**statement, "predicate": predicate})).decode()
    read = Reader(page)
    assert {tag for tag, _ in read.elements}.isdisjoint({"script", "img", "i", "iframe", "details", "a:href"})
    assert not any(name.startswith("on") for _, held in read.elements for name in held)
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page


def test_no_script_no_style_attribute_no_address(forge: Forge) -> None:
    page = page_of(forge, full(forge))
    read = Reader(page)
    ids = [held["id"] for _, held in read.elements if "id" in held]
    assert len(ids) == len(set(ids))
    for tag, held in read.elements:
        assert tag not in ("script", "details", "link", "img", "iframe", "object", "form")
        assert "style" not in held
        if "href" in held:
            assert (held["href"] or "").removeprefix("#") in ids
        assert "src" not in held
    assert "url(" not in page
    assert "://" not in page


def test_policy_is_exact_and_fits_the_style_sheet(forge: Forge) -> None:
    page = page_of(forge, forge.report())
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    assert '<meta name="referrer" content="no-referrer">' in page


@pytest.mark.parametrize("trusted", [True, False])
def test_forbidden_words_are_not_in_our_own_text(forge: Forge, trusted: bool) -> None:
    text = Reader(page_of(forge, full(forge), trusted=trusted)).text.lower()
    for word in (r"\bclean\b", r"\bsafe\b", r"free of", r"no evidence of", r"verified", "[\u2713\u2714\u2705\u2611]"):
        assert not re.search(word, text), word


_ONCE = """
import locale, sys
from datetime import UTC, datetime
from pathlib import Path
from assay.render.page import render
from assay.render.source import look
locale.setlocale(locale.LC_ALL, "")
_, source = look(Path(sys.argv[1]), keys=[Path(sys.argv[2])], now=datetime(int(sys.argv[3]), 2, 1, tzinfo=UTC))
sys.stdout.buffer.write(render(source))
"""


def test_bytes_follow_from_the_report_alone(forge: Forge, tmp_path: Path) -> None:
    place = full(forge)
    moved = tmp_path / "elsewhere"
    place.rename(moved)
    seen = set()
    for seed, tongue, zone, year in (("0", "C", "UTC", "2026"), ("1", "C.UTF-8", "Asia/Tokyo", "2027")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": tongue, "TZ": zone}
        environment["PYTHONPATH"] = str(ROOT / "client")
        command = [sys.executable, "-c", _ONCE, str(moved), str(forge.key_file), year]
        seen.add(subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True).stdout)
        moved = moved.rename(tmp_path / f"moved-{seed}")
    assert len(seen) == 1


def test_sixty_four_heavy_plots_stay_under_a_mebibyte(forge: Forge) -> None:
    kinds = ("line", "scatter", "bar", "histogram")
    lines = [series(f"s{at}", 1000, at) for at in range(2)]
    plots = [plot(kinds[at % 4], lines, title=f"Plot {at}") for at in range(64)]
    source = source_of(forge, full(forge))
    statement = forge.statement(forge.report())
    statement["predicate"]["answers"][0]["measured"]["plots"] = plots
    page = render(replace(source, statement=statement)).decode()
    assert len(page.encode()) <= 1024 * 1024
    assert page.count('role="img"') == 64
    assert page.count("Drawn ") == 64


def test_plot_that_is_none_is_named_and_the_page_goes_on(forge: Forge) -> None:
    good = every_kind()[0]
    broken = [
        {**good, "kind": "pie"},
        {**good, "series": [{"name": "x", "x": ["1"], "y": ["NaN"]}]},
        {"title": "empty"},
    ]
    text = Reader(page_of(forge, full(forge, [*broken, good]))).text
    assert text.count("is not drawn") == 3
    assert "How to verify" in text


def test_metrics_share_what_their_rows_have_in_common(forge: Forge) -> None:
    page = page_of(forge, full(forge))
    assert page.count("interval at level 0.95, wilson") == 3  # accuracy of two answers, grid_share; in no row
    assert 'scope="col">method md<' in page or 'scope="col">layer 0<' in page


def test_what_is_left_out_is_counted_once(forge: Forge) -> None:
    place = full(forge)
    statement = forge.statement(place)
    answer = statement["predicate"]["answers"][0]
    answer["skipped"] = [{"item": "layer:7", "reason": "too_large"}]
    answer["measured"]["skipped"] = [{"item": "layer:7", "reason": "too_large"}]
    text = Reader(page_of(forge, forge.reseal(place, statement))).text
    assert re.search(r"left out 1, reason too_large : layer:7", text)


def test_long_rows_stand_across_the_page(forge: Forge) -> None:
    place = full(forge)
    statement = forge.statement(place)
    names = ["encoder.layer.0.intermediate.dense.weight", "encoder.layer.1.intermediate.dense.weight"]
    held = [
        metric(
            "long", {"matrix": name}, null={"kind": f"kind-{at}", "mean": "0.1", "sd": "0.02", "n": 999, "p95": "0.3"}
        )
        for at, name in enumerate(names)
    ]
    statement["predicate"]["answers"][0]["measured"]["metrics"] += held
    page = page_of(forge, forge.reseal(place, statement))
    assert page.count('class="spread"') == 1


def test_hundreds_of_metrics_of_one_name_are_each_shown(forge: Forge) -> None:
    place = full(forge)
    statement = forge.statement(place)
    held = statement["predicate"]["answers"][0]["measured"]["metrics"]
    values = [f"0.{at:03d}1" for at in range(300)]
    held += [metric("many", {"layer": str(at)}, value, p=f"0.{at + 1:03d}") for at, value in enumerate(values)]
    page = page_of(forge, forge.reseal(place, statement))
    assert all(f">{value}<" in page for value in values)


@pytest.mark.parametrize("attributes", [{"style": "x"}, {"onclick": "x"}, {"href": "https://a.example"}, {"src": "x"}])
def test_markup_that_the_policy_blocks_cannot_be_written(attributes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="report page"):
        markup.element("a", "x", **attributes)
    with pytest.raises(ValueError, match="report page"):
        markup.element("script", "x")
