"""The interpreter against CPython on mutants of the authored programs: thousands of programs nobody wrote by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.contamination.code_mutations import applied, edits
from checks.contamination.interpreter import interpret

ROWS = json.loads(Path(__file__).with_name("interpreter_programs.json").read_text("utf-8"))


def mutants(source: str, pairs: int, rng: np.random.Generator) -> list[str]:
    """Return every single mutant, and some with two mutations."""
    made = [applied(source, edit) for edit in edits(source)]
    for _ in range(pairs if made else 0):
        once = made[int(rng.integers(len(made)))]
        second = edits(once)
        made += [applied(once, second[int(rng.integers(len(second)))])] if second else []
    return made


def real(source: str, args: list[Any]) -> tuple[str, str]:
    space: dict[str, Any] = {}
    try:
        exec(compile(source, "mutant", "exec"), space)
        return "value", repr(space["f"](*copy.deepcopy(args)))
    except Exception as failed:
        return "error", type(failed).__name__


def compared(rows: list[dict[str, Any]], pairs: int) -> int:
    rng = np.random.default_rng(5)
    count = 0
    for row in rows:
        source = "\n".join(row["source"]) + "\n"
        for mutant in mutants(source, pairs, rng) if "set(" not in source else ():
            for args in row["calls"]:
                mine = interpret(mutant, "f", args)
                # A mutant that never ends is undecided here, and is not run there.
                if mine.undecided is None:
                    assert (mine.word, mine.error or repr(mine.value)) == real(mutant, args), mutant
                    count += 1
    return count


@pytest.mark.filterwarnings("ignore")
def test_mutants_of_some_programs_behave_as_in_cpython() -> None:
    assert compared(ROWS[::6], pairs=1) > 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mutants_of_all_programs_behave_as_in_cpython() -> None:
    assert compared(ROWS, pairs=30) > 2000


def test_every_number_has_a_reason() -> None:
    import ast

    folder = Path(__file__).parents[3] / "checks/contamination"
    paths = [*folder.glob("interpreter*.py"), *folder.glob("code_*.py"), folder / "functions.py"]
    assert len(paths) > 15
    for path in paths:
        body = ast.parse(path.read_text("utf-8")).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.Assign) and any(
                isinstance(each, ast.Constant) and type(each.value) in (int, float) for each in ast.walk(node.value)
            ):
                assert isinstance(after, ast.Expr), f"{path.name}:{node.lineno}"
                assert isinstance(after.value, ast.Constant), f"{path.name}:{node.lineno}"
