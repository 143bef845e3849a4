from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]


def constants(body: list[ast.stmt], name: str) -> Iterator[str]:
    """Yield assignments of numbers without a docstring below them, or below a run of assignments on adjoining lines."""
    for at, step in enumerate(body):
        # A class whose docstring names the section of the specification has told where its defaults come from.
        if isinstance(step, ast.ClassDef) and "section" not in (ast.get_docstring(step) or "").lower():
            yield from constants(step.body, f"{name}:{step.name}")
        if not isinstance(step, (ast.Assign, ast.AnnAssign)) or step.value is None or not numeric(step.value):
            continue
        follows, end = at + 1, step.end_lineno or 0
        while follows < len(body) and isinstance(body[follows], (ast.Assign, ast.AnnAssign)):
            if body[follows].lineno != end + 1:
                break
            end = body[follows].end_lineno or 0
            follows += 1
        told = follows < len(body) and isinstance(body[follows], ast.Expr)
        if not (told and isinstance(getattr(body[follows].value, "value", None), str)):  # type: ignore[attr-defined]
            yield f"{name}:{step.lineno}"


def numeric(value: ast.expr) -> bool:
    if isinstance(value, ast.Constant):
        return type(value.value) in (int, float)
    if isinstance(value, (ast.UnaryOp, ast.BinOp)):
        return all(numeric(part) for part in ast.iter_child_nodes(value) if isinstance(part, ast.expr))
    if isinstance(value, (ast.Tuple, ast.List, ast.Set)):
        return bool(value.elts) and all(numeric(one) for one in value.elts)
    return isinstance(value, ast.Dict) and bool(value.values) and all(numeric(one) for one in value.values)


def compared(tree: ast.AST, name: str) -> Iterator[str]:
    """Yield comparisons with a fraction that has no name: nobody can say where it comes from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for one in (node.left, *node.comparators):
                if isinstance(one, ast.Constant) and type(one.value) is float and one.value not in (0.0, 0.5, 1.0):
                    yield f"{name}:{node.lineno}"


def test_no_unexplained_threshold() -> None:
    flawed = ast.parse('A = 0.85\n\nB = (3, -0.1)\n"""Why."""\nclass C:\n    d: float = 0.1\n')
    assert list(constants(flawed.body, "x")) == ["x:1", "x:C:6"]
    assert list(compared(ast.parse("def f(x):\n    return x > 0.85\n"), "x")) == ["x:2"]
    found: list[str] = []
    for path in sorted((ROOT / "checks/contamination").glob("*.py")):
        tree = ast.parse(path.read_text())
        found += [*constants(tree.body, path.name), *compared(tree, path.name)]
    assert found == []
