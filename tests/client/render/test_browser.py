"""The page in a browser: nothing is fetched, nothing is blocked, nothing overflows, and everything is printed.

Needs Debian's `chromium` and the Python package `playwright` (its driver only; no browser is downloaded).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from assay.render.page import render
from assay.testing import Forge

from tests.client.render.planted import every_kind, full, replicated, source_of

PAGE_MAX = 1024 * 1024
"""Largest page (specification, section 14)."""

CHROMIUM = shutil.which("chromium")
AXE = Path(os.environ.get("ASSAY_AXE", Path(__file__).parents[2] / "node/node_modules/axe-core/axe.min.js"))

PHONE_PX = 360
"""Narrowest screen that the page promises to fit (specification, section 14)."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    driver = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e .[dev]")
    with driver.sync_playwright() as running:
        # A container has no user namespace to spare, and the page is our own.
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    forge = Forge(folder / "forge")
    file = folder / "report.html"
    source = replace(source_of(forge, full(forge)), replicated=replicated())
    file.write_bytes(render(source))
    return file


def test_report_needs_unsafe_eval(browser: Any, page_file: Path) -> None:
    """The strictest policy blocks nothing of the page: it fetches nothing, and the console stays empty."""
    page = browser.new_page()
    requests: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(page_file.as_uri())
    page.wait_for_load_state("networkidle")
    # The style sheet was let in by its digest: without it the banner has no border.
    assert page.evaluate("getComputedStyle(document.querySelector('.banner')).borderTopWidth") == "2px"
    page.close()
    assert requests == [page_file.as_uri()]
    assert said == []


def test_page_is_the_same_without_scripts(browser: Any, page_file: Path) -> None:
    shots = []
    for scripts in (True, False):
        context = browser.new_context(java_script_enabled=scripts, viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(page_file.as_uri())
        shots.append(page.screenshot(full_page=True))
        context.close()
    assert shots[0] == shots[1]


@pytest.mark.parametrize("width", [PHONE_PX, 768, 1280])
def test_page_does_not_scroll_sideways(browser: Any, page_file: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Names and numbers of a drawing stay inside it, at the letters of this width.
    cut = page.evaluate(
        """[...document.querySelectorAll('svg.plot text')].filter(text => {
            const inner = text.getBoundingClientRect(), outer = text.ownerSVGElement.getBoundingClientRect();
            return inner.left < outer.left - 1 || inner.right > outer.right + 1;
        }).map(text => text.textContent)"""
    )
    page.close()
    assert cut == []


def test_every_plot_is_seen_and_draws_something(browser: Any, page_file: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(page_file.as_uri())
    seen = page.evaluate(
        """[...document.querySelectorAll('svg.plot')].map(plot => {
            const box = plot.getBoundingClientRect(), style = getComputedStyle(plot);
            const drawn = [...plot.querySelectorAll('path, rect')].map(one => one.getBoundingClientRect());
            return {
                shown: style.visibility === 'visible' && style.display !== 'none' && style.opacity === '1',
                box: [box.left, box.right, box.width, box.height],
                marks: drawn.filter(one => one.width + one.height > 0).length,
                empty: plot.querySelectorAll('path:not([d]), path[d=""]').length,
            };
        })"""
    )
    page.close()
    assert len(seen) == len(every_kind())
    assert page_file.stat().st_size < PAGE_MAX
    for one in seen:
        left, right, width, height = one["box"]
        assert one["shown"]
        assert one["empty"] == 0
        assert one["marks"] >= 4, "a frame, a grid and a series at least"
        assert 0 <= left < right <= 1280
        assert min(width, height) > 100


def test_short_controls_fill_both_columns(browser: Any, page_file: Path) -> None:
    """A rule against breaks after a paragraph once held a whole list of one-line groups in the first column."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(page_file.as_uri())
    page.evaluate(
        """() => {
            const list = document.querySelector('.metrics'), one = list.querySelector('section.short');
            list.replaceChildren(...Array.from({length: 6}, () => one.cloneNode(true)));
        }"""
    )
    lefts = page.evaluate("[...document.querySelector('.metrics').children].map(one => one.offsetLeft)")
    page.close()
    assert len(set(lefts)) == 2


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_closed_details_not_printed(browser: Any, page_file: Path, paper: str, tmp_path: Path) -> None:
    """Whatever the page holds is on paper; a browser leaves out what is folded away."""
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext on this machine: apt-get install poppler-utils")
    page = browser.new_page()
    page.goto(page_file.as_uri())
    headings = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5')].map(one => one.textContent)")
    page.pdf(path=tmp_path / "page.pdf", format=paper)
    page.close()
    done = subprocess.run(["pdftotext", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True)
    printed = re.sub(r"\s+", "", done.stdout)
    assert len(headings) > 20
    assert [one for one in headings if re.sub(r"\s+", "", one) not in printed] == []


def test_accessibility_checker_finds_no_serious_issue(browser: Any, page_file: Path) -> None:
    if not AXE.is_file():
        pytest.skip("no axe-core: npm ci in tests/node")
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.add_script_tag(path=AXE)
    found = page.evaluate(
        "axe.run({resultTypes: ['violations']})"
    )  # all rules run; of the others only one node is told
    context.close()
    grave = [one["id"] for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert grave == [], [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]]
    assert len(found["passes"]) > 10
