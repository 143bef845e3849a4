"""Nothing under `checks/` can unpickle: the source names no such call, in any spelling that an import allows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import checks

ROOT = Path(next(iter(checks.__path__)))

FORBIDDEN_MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {("torch", "load"), ("numpy", "load"), ("np", "load"), ("pickle", "load"), ("pickle", "loads")}
FORBIDDEN_NAMES = {"torch": {"load"}, "numpy": {"load"}, "pandas": {"read_pickle"}}


WORD = re.compile(r"pickle|\bload|dill|joblib|shelve|marshal|find_class|weights_only")
"""In a source without any of these nothing can be found; most files need no parsing."""


def offences(source: str) -> list[str]:
    found: list[str] = []
    if not WORD.search(source):
        return found
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {one.name for one in node.names}
            if node.module.split(".")[0] in FORBIDDEN_MODULES:
                found.append(node.module)
            found += sorted(names & FORBIDDEN_NAMES.get(node.module, set()))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in FORBIDDEN_CALLS or node.attr in ("read_pickle", "find_class"):
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            found.append(str(node.arg))
        elif isinstance(node, ast.Constant) and node.value in FORBIDDEN_MODULES:
            found.append(str(node.value))  # importlib.import_module("pickle")
    return found


def test_no_unpickler_is_reachable() -> None:
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 50
    found = {str(file.relative_to(ROOT)): offences(file.read_text()) for file in files}
    assert {file: told for file, told in found.items() if told} == {}


def test_the_search_sees_each_spelling() -> None:
    for source in (
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(f)",
        "import numpy as np\nnp.load(f)",
        "from torch import load",
        "import importlib\nimportlib.import_module('pickle')",
        "x(allow_pickle=True)",
    ):
        assert offences(source), source
    assert offences("import json\njson.load(f)") == []
