"""A page never denies a registered waiver, and says where a verdict looks at the estimate only."""

from __future__ import annotations

import ast
import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
from assay.predicate import field_names
from assay.render.page import render
from assay.render.source import Source, look
from assay.testing import Forge

from tests.client.render.planted import NOW, RULES, accepted, replicated
from tests.client.render.test_page import Reader

RENDER = Path(__file__).parents[3] / "client/assay/render"


def source_of(forge: Forge, place: Path, *, trusted: bool = True) -> Source:
    known = {"keys": [forge.key_file], "log_vkeys": [forge.logged.log.vkey.text]} if trusted else {"keys": []}
    _, source = look(place, now=NOW, **known)
    assert source is not None
    return source


def told(source: Source) -> dict[str, str]:
    """Return the page's visible text by section; the banner under "banner"."""
    page = render(source).decode()
    body = page.split("<body>")[1]
    parts = {"banner": Reader(body.split("</header>")[0] + "</header>").text}
    for part in body.split('<section aria-labelledby="')[1:]:
        plain = html.unescape(re.sub("<[^>]*>", " ", part.split(">", 1)[1]))
        parts[part.split('"')[0]] = " ".join(plain.split())
    return parts


@pytest.fixture
def place(forge: Forge) -> Path:
    return forge.report(rules=RULES, waivers=accepted())


def test_a_registered_waiver_is_not_denied(forge: Forge, place: Path) -> None:
    seen = told(source_of(forge, place))
    assert "PASS with 1 waiver" in seen["banner"]
    assert "2 registered, 1 used" in seen["banner"]
    for word in (
        "forged_probe/not-readable layer 1", "known, ticket 12", "release board", "2026-06-01", "used for 1 instance",
        "known, ticket 7", "ada", "2025-06-01", "not used: nothing here has its fingerprint with that outcome",
    ):  # fmt: skip
        assert word in seen["waivers"], word
    assert "No waiver" not in seen["waivers"]


def test_a_report_without_waivers_says_so(forge: Forge) -> None:
    seen = told(source_of(forge, forge.report(rules=RULES)))
    assert "No waiver was registered." in seen["waivers"]
    assert "Waivers none registered" in seen["banner"]
    assert "with 1 waiver" not in seen["banner"]
    bare = told(source_of(forge, forge.report()))
    assert "No waiver was registered." in bare["waivers"]


def test_an_expired_waiver_is_shown_as_not_used(forge: Forge) -> None:
    late = accepted().replace("created: 2026-01-01", "created: 2025-12-01").replace("2026-06-01", "2026-01-01")
    seen = told(source_of(forge, forge.report(rules=RULES, waivers=late)))
    assert "FAIL" in seen["banner"]
    assert "with 1 waiver" not in seen["banner"]
    assert "not used: expired before the report was signed" in seen["waivers"]


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(("data", "said"), [(None, "waivers.json is absent"), (b"{}", "registered was")])
def test_a_waiver_file_that_is_absent_or_another_is_told(
    forge: Forge, place: Path, data: bytes | None, said: str, trusted: bool
) -> None:
    file = place / "waivers.json"
    file.unlink() if data is None else file.write_bytes(data)
    seen = told(source_of(forge, place, trusted=trusted))
    assert "NOT ESTABLISHED. The report states: PASS with waivers" in seen["banner"]
    assert said in seen["waivers"]
    assert "No waiver was registered" not in seen["waivers"]


def test_waivers_of_a_report_that_nobody_verified_are_shown_as_not_decided(forge: Forge, place: Path) -> None:
    seen = told(source_of(forge, place, trusted=False))
    assert "The report states: PASS with 2 waivers registered" in seen["banner"]
    assert "known, ticket 12" in seen["waivers"]
    assert "not decided" in seen["waivers"]
    (place / "request.json").unlink()
    seen = told(source_of(forge, place, trusted=False))
    assert "the registered request is not at hand" in seen["waivers"]
    assert "No waiver was registered" not in seen["waivers"]
    assert "The report states: PASS with waivers" in seen["banner"]


def test_estimate_only_is_said_in_banner_and_verdict(forge: Forge, place: Path) -> None:
    seen = told(source_of(forge, place))
    assert "Estimate only: on-average" in seen["banner"]
    assert "accuracy <= 0.87 (estimate only)" in seen["verdict"]
    assert "accuracy <= 0.6 " in seen["verdict"]
    unsigned = told(source_of(forge, place, trusted=False))
    assert "Estimate only: on-average" in unsigned["banner"]
    (place / "policy.json").unlink()
    assert "cannot be told here: policy.json is absent" in told(source_of(forge, place))["verdict"]


def test_under_whose_consent_an_audit_ran_is_said(forge: Forge) -> None:
    approval = {"name": "models/m/approvals/a", "key_id": "4" * 64, "envelope_sha256": "6" * 64}
    parties = {"auditor": "north", "owner": "south", "approvals": [approval]}
    access = {"derived": ["weights"], "granted": ["weights"], "grant": "6" * 64}
    seen = told(source_of(forge, forge.report(parties=parties, access=access)))["access"]
    for word in ("Auditor north", "Owner south", "models/m/approvals/a, key " + "4" * 64, "6" * 64):
        assert word in seen, word


def test_hostile_text_of_a_waiver_is_escaped(forge: Forge) -> None:
    place = forge.report(rules=RULES, waivers=accepted("<script>alert(1)</script><b>x</b>"))
    page = render(source_of(forge, place)).decode()
    assert "&lt;script&gt;alert(1)" in page
    assert {tag for tag, _ in Reader(page).elements}.isdisjoint({"script", "b"})


def test_a_replication_is_the_comparison(forge: Forge, place: Path) -> None:
    source = source_of(forge, place)
    assert "A report holds no comparison" in told(source)["comparison"]
    repeats = replace(source, request={**source.request, "first": {"statement_sha256": "7" * 64}})
    assert "no signed replication of it was checked" in told(repeats)["comparison"]
    seen = told(replace(repeats, replicated=replicated(301)))["comparison"]
    assert "NOT replicated" in seen
    assert "101 more rows" in seen
    assert seen.index("differs") < seen.index("Lack of a difference")
    assert "forged_probe/ accuracy layer 2" in seen


def test_many_waivers_and_rows_stay_under_a_mebibyte(forge: Forge, place: Path) -> None:
    source = source_of(forge, place)
    assert source.rules.waivers is not None
    used, _ = sorted(source.rules.waivers, key=lambda one: str(one["state"]), reverse=True)
    spare = {**used, "reason": "r" * 60, "approver": "bob", "state": "unused", "count": 0}
    many = replace(source, rules=replace(source.rules, waivers=(*[spare] * 1699, used)), replicated=replicated(15_000))
    page = render(many)
    assert len(page) <= 1024 * 1024
    assert b"1200 more of them stand in waivers.json" in page
    assert b"used for 1 instance" in page, "what acted is never left out"


BESIDE = {
    "answers.py": {"summary"},  # catalogue entry
    "outcome.py": {"first", "statement_sha256", "state", "waived"},  # request; registered waivers; an outcome counted
    "verdict.py": {
        *("first", "statement_sha256", "results", "second", "rule", "environment_differences", "notes", "item"),
        *("fingerprint", "approver", "expires", "state", "count", "on"),
    },  # signed replication; registered waivers
    "source.py": {"predicate"},
    "rules.py": {"predicate", "request_sha256", "policy_sha256", "waivers_sha256"},  # request
}
"""Keys that the page reads from other documents than the predicate."""


def test_a_page_reads_no_field_that_the_schema_never_has() -> None:
    known = field_names()
    for file in sorted(RENDER.glob("*.py")):
        asked = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                asked |= {one.value for one in node.args[:1] if isinstance(one, ast.Constant)}
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                asked.add(node.slice.value)
        strange = {one for one in asked if isinstance(one, str)} - known - BESIDE.get(file.name, set())
        assert strange == set(), file.name
