"""Names, pages and the table of reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules import access, names, pages
from service.rules.errors import REASONS, Refusal, Violation, not_permitted, refuse_fields
from service.rules.pages import AuditFilter, Position

HEX64 = "ab" * 32
UUID = "0b7a1f9c-9a2b-4c3d-8e4f-000000000001"
KEY = b"k" * 32


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (names.blob, f"blobs/sha256/{HEX64}/0"),
        (names.upload, f"uploads/{UUID}/blobs/sha256/{HEX64}/12"),
        (names.model, f"models/{HEX64}"),
        (names.audit, f"audits/{'0' * 32}"),
        (names.report, f"audits/{'0' * 32}/reports/r1"),
        (names.check, "checks/truth_probe"),
    ],
)
def test_a_name_with_anything_more_is_no_name(read: Callable[[str], Any], name: str) -> None:
    read(name)
    for wrong in (name + "\n", " " + name, name + "/", name.upper(), "", name + "\x00", "/" + name, "//" + name):
        with pytest.raises(Refusal) as caught:
            read(wrong)
        assert caught.value.reason == "BAD_RESOURCE_NAME"
        assert caught.value.message.isprintable()


@pytest.mark.parametrize("size", ["01", "-1", "+1", "1.0", "٣", str(2**53)])
def test_size_has_one_spelling_and_a_limit(size: str) -> None:
    with pytest.raises(Refusal):
        names.blob(f"blobs/sha256/{HEX64}/{size}")


@given(st.text())
def test_shown_text_is_ascii_printable_and_short(text: str) -> None:
    found = names.shown(text)
    assert found.isascii()
    assert found.isprintable() or not found
    assert len(found) <= 96


@given(st.integers(0, 2**53), st.text("0123456789abcdef", min_size=1), st.tuples(st.text(), st.text()))
def test_token_comes_back_for_its_own_question(at: int, identifier: str, question: tuple[str, str]) -> None:
    token = pages.seal(KEY, question, Position(at, identifier))
    assert pages.unseal(KEY, question, token) == Position(at, identifier)


QUESTION = ("ada", "ListAudits", "")
TOKEN = pages.seal(KEY, QUESTION, Position(5, "ab"))


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_one_changed_character_spoils_a_token(position: int, letter: str) -> None:
    changed = TOKEN[:position] + letter + TOKEN[position + 1 :]
    if changed != TOKEN:
        with pytest.raises(Refusal):
            pages.unseal(KEY, QUESTION, changed)


@given(st.text(min_size=1))
def test_no_invented_token_is_taken(token: str) -> None:
    with pytest.raises(Refusal) as caught:
        pages.unseal(KEY, QUESTION, token)
    assert caught.value.reason == "BAD_PAGE_TOKEN"


def test_token_of_another_key_or_question_is_refused() -> None:
    for key, question in ((b"x" * 32, QUESTION), (KEY, ("ben", *QUESTION[1:])), (KEY, ("ada", "ListAudits"))):
        with pytest.raises(Refusal):
            pages.unseal(key, question, TOKEN)
    # Joined texts must not collide: ("a", "b") is another question than ("ab",).
    with pytest.raises(Refusal):
        pages.unseal(KEY, ("adaL", "istAudits", ""), TOKEN)


def test_page_sizes() -> None:
    assert [pages.page_size(asked) for asked in (0, 1, 1000, 5000)] == [50, 1, 1000, 1000]


def test_filter_terms_are_read() -> None:
    text = f'state = "STATE_RUNNING" AND model=models/{HEX64} AND check = checks/truth_probe'
    assert pages.audit_filter(text) == AuditFilter(state="RUNNING", model=HEX64, check="truth_probe")
    assert pages.audit_filter("  ") == AuditFilter()


@given(st.text(max_size=200))
def test_invented_filter_is_refused_in_ascii(text: str) -> None:
    if text.strip():  # no text that Hypothesis invents is a whole term: it would need a field, "=" and a known value
        with pytest.raises(Refusal) as caught:
            pages.audit_filter(text)
        assert caught.value.reason == "BAD_FILTER"
        assert caught.value.message.isascii()


@given(st.text(min_size=1001, max_size=1100))
def test_long_filter_is_refused(text: str) -> None:
    if text.strip():
        with pytest.raises(Refusal):
            pages.audit_filter(text)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_each_reason_has_known_codes_and_one_next_move(reason: str) -> None:
    row = REASONS[reason]
    assert all(code in grpc.StatusCode.__members__ for code in row.codes)
    assert row.next_move.endswith(".")
    assert row.next_move[0].isupper()
    assert Refusal(reason, "Something.").message.endswith(row.next_move)
    retryable = {"UNAVAILABLE"} & set(row.codes)
    assert not retryable or row.retry_s is not None


def test_refusal_outside_the_table_cannot_be_spoken() -> None:
    with pytest.raises(KeyError):
        Refusal("NO_SUCH_REASON", "x")
    with pytest.raises(ValueError, match="not spoken"):
        Refusal("BAD_NONCE", "x", code="INTERNAL")


def test_fields_are_told_together() -> None:
    refusal = refuse_fields([Violation("a", "is bad", "BAD_NONCE"), Violation("b", "too", "BAD_LABEL")])
    assert refusal.reason == "BAD_NONCE"
    assert "1 more" in refusal.message
    assert len(refusal.violations) == 2


def test_no_row_means_no() -> None:
    caller = access.Caller(principal="ada", tenant="acme", role=access.Role.AUDITOR)
    with pytest.raises(Refusal) as caught:
        access.authorise(caller, "/assay.api.v1.Audits/Invented")
    assert caught.value.message == not_permitted().message
    assert access.without_row(["/x/Y", *access.ACCESS]) == ("/x/Y",)


def test_operator_has_no_way_to_results() -> None:
    for method, row in access.ACCESS.items():
        if any(word in method for word in ("Blobs/", "Reports/", "Models/", "SubmitAudit")):
            assert access.Role.OPERATOR not in row
