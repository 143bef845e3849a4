"""The operations guide tells every word that an operator may meet."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from service.main import cli
from service.rules import approvals
from service.rules.capability import CAPABILITIES
from service.rules.metrics import METRICS
from service.rules.states import EXIT_RULES, POISONED, UNSIGNABLE, Then
from service.scheduler.errors import SchedulerError, SignerUnavailable
from service.signer.refusal import Code

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def told() -> set[str]:
    table = GUIDE.split("## What a state_reason means")[1].split("\n## ")[0]
    return set(re.findall(r"^\| ([A-Z][A-Z_]+) \|", table, re.MULTILINE))


def spoken_by_the_scheduler() -> set[str]:
    found = set()
    for path in (ROOT / "service" / "scheduler").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_refusal = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "SignerRefused"
            if is_refusal and isinstance(node.args[0], ast.Constant):  # type: ignore[attr-defined]
                found.add(str(node.args[0].value))  # type: ignore[attr-defined]
    return found


def reasons() -> set[str]:
    ends = {rule.reason for rule in EXIT_RULES.values() if rule.then in (Then.WAIT, Then.REQUEUE)}
    consent = {approvals.EXPIRED, approvals.REVOKED}
    scheduler = {SchedulerError.code, SignerUnavailable.code, *spoken_by_the_scheduler()}
    return {*get_args(Code), *UNSIGNABLE, *scheduler, *ends, *consent, POISONED}


def test_every_state_reason_has_a_row_and_no_row_is_of_none() -> None:
    assert "REPORT_NOT_STORED" in spoken_by_the_scheduler()
    assert told() == reasons()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`assay-server ([a-z-]+)", GUIDE))))
def test_every_named_command_of_the_server_exists(command: str) -> None:
    usage = cli._parser().format_help()
    assert re.search(rf"^    {command}\b", usage, re.MULTILINE), f"the guide names `assay-server {command}`"


def test_every_metric_has_a_row_and_no_row_is_of_none() -> None:
    table = GUIDE.split("## Metrics and alerts")[1].split("\n## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("| `assay_")]
    named = {
        name: (set(filter(None, labels.strip("{}").split(","))), row.split("|")[2])
        for row in rows
        for name, labels in re.findall(r"`(assay_[a-z_]+)(\{[a-z_,]+\})?`", row.split("|")[1])
    }
    assert set(named) == set(METRICS)
    for name, (labels, roles) in named.items():
        assert labels == set(METRICS[name].labels), name
        assert {word.strip() for word in roles.split(",")} == set(METRICS[name].roles), name


def test_every_queue_is_named() -> None:
    assert all(f"`{word}`" in GUIDE for word in CAPABILITIES)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert (ROOT / "docs" / target).exists(), target
