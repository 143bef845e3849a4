"""What the service never does, whatever a library offers (specs: service, sections 9 and 22)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODULES = frozenset({"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch"})
CELERY = frozenset({"chord", "group", "chain", "signature", "chunks"})
"""Celery's workflows: a member that dies leaves them waiting. Joins are rows of the store."""
WORDS = frozenset({"eta", "countdown", "terminate"})
"""Keywords of Celery's calls: messages that wait in a worker's memory, and a kill that says so before it has killed."""


def forbidden(source: str) -> list[str]:
    """Return what a module does that it must not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            room = node.module.partition(".")[0]
            found += [node.module] if room in MODULES else []
            found += [one.name for one in node.names if room == "celery" and one.name in CELERY]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "celery":
            found += [node.attr] if node.attr in CELERY else []
        elif isinstance(node, ast.Call):
            found += [str(one.arg) for one in node.keywords if one.arg in WORDS]
    return found


def test_no_pickle_chord_group_eta_or_torch_under_service() -> None:
    files = sorted((ROOT / "service").rglob("*.py"))
    assert len(files) > 100
    flaws = {str(file.relative_to(ROOT)): forbidden(file.read_text(encoding="utf-8")) for file in files}
    assert {file: found for file, found in flaws.items() if found} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from pickle import loads",
        "import torch.nn",
        "from celery import chord",
        "from celery.canvas import group",
        "import celery\ncelery.chain(a, b)",
        "task.apply_async(eta=soon)",
        "app.send_task('x', countdown=3)",
        "app.control.revoke(key, terminate=True)",
    ],
)
def test_each_of_them_is_seen(source: str) -> None:
    assert forbidden(source)
