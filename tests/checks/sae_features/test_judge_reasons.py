from __future__ import annotations

import ast
from pathlib import Path

from checks.sae_features import reasons


def test_reasons_hold_every_refusal_of_the_family() -> None:
    from checks.sae_features.dictionary.formats import REASONS as OF_FILES

    assert set(OF_FILES) == set(reasons.FILES)
    for path in Path(reasons.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            first = node.args[0] if isinstance(node, ast.Call) and node.args else None
            if called in ("Refusal", "EditsRefused", "DiffRefused") and isinstance(first, ast.Constant):
                assert first.value in reasons.REASONS, (path.name, first.value)
            if called == "Skipped" and isinstance(node, ast.Call):
                told = [one.value for one in node.keywords if one.arg == "reason"]
                assert all(one.value in reasons.REASONS for one in told if isinstance(one, ast.Constant)), path.name


def test_every_reason_is_given_somewhere() -> None:
    sources = [
        path for path in Path(reasons.__file__).parent.rglob("*.py") if path.name not in ("reasons.py", "words.py")
    ]
    text = "".join(path.read_text("utf-8") for path in sources)
    assert [one for one in reasons.REASONS if f'"{one}"' not in text] == []
