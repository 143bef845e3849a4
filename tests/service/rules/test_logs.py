from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from service.rules.logs import TEXT_MAX, JsonLines, log_to

FORGED = '{"level":"INFO","text":"forged"}'
HOSTILE = [
    f"a\n{FORGED}",
    f'a"}}\r\n{FORGED}',
    "a\x1b[2J\x1b[H",
    "a\x00b",
    "a\u2028b\u2029c\x85d",
    "a\x7f",
    "\ud800",
    "\u202ename",
]


def line(text: str, **fields: object) -> str:
    record = logging.LogRecord("assay.test", logging.WARNING, __file__, 1, "%s refused", (text,), None)
    for name, value in fields.items():
        setattr(record, name, value)
    return JsonLines().format(record)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_cannot_forge_a_line(name: str) -> None:
    for written in (line(name), line("x", job=name, audit=name), line("x", worker={"a": name})):
        assert written.isascii()
        assert all(" " <= character <= "~" for character in written), "no control character reaches a terminal"
        assert len(written.splitlines()) == 1
        assert json.loads(written)["level"] == "WARNING"


def test_a_trace_cannot_forge_a_line_either() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    try:
        raise ValueError(f"bad name\n{FORGED}\x1b[0m")
    except ValueError:
        record = logging.LogRecord("assay.test", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    handler.emit(record)
    (written,) = out.getvalue().splitlines()
    assert "forged" in json.loads(written)["trace"]
    assert "\x1b" not in written


def test_a_line_carries_audit_job_attempt_and_token_and_nothing_else_of_its_record() -> None:
    told = json.loads(line("x", audit="a", job="j", attempt=2, token=3, tenant="secret", password="secret"))
    assert {key: told[key] for key in ("audit", "job", "attempt", "token")} == {
        "audit": "a", "job": "j", "attempt": 2, "token": 3,
    }  # fmt: skip
    assert "secret" not in json.dumps(told)


def test_one_text_does_not_fill_the_disk() -> None:
    assert len(line("n" * 10_000_000)) < 2 * TEXT_MAX


def test_a_look_at_the_revision_leaves_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    root, chatty = logging.getLogger(), logging.getLogger("alembic.runtime.migration")
    monkeypatch.setattr(root, "handlers", [])
    levels, out = (root.level, chatty.level), io.StringIO()
    try:
        log_to(out)
        chatty.info("Context impl SQLiteImpl.")
        chatty.warning("a revision is gone")
        assert [json.loads(one)["text"] for one in out.getvalue().splitlines()] == ["a revision is gone"]
    finally:
        root.setLevel(levels[0])
        chatty.setLevel(levels[1])
        logging.captureWarnings(False)
