"""`python -m service.main.reference`: docs/configuration.md, made from the configuration's own classes."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from service.main.config import Server

HEAD = """# The server's configuration

One TOML file for each role (`--config FILE`), read once at the start. An unknown key stops the start and is named
(status 3). Paths are absolute, times are seconds, sizes are bytes. Made from `service/main/config.py` by
`python -m service.main.reference > docs/configuration.md`; how to run the service is in [operations.md](operations.md).
"""


def text() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, section in sections(Server):
        heading = f"## [{title}]" if title else "## Keys outside of any section"
        about = inspect.getdoc(section) if title else None
        rows = [f"| `{name}` | {default} | {what} |" for name, default, what in keys(section)]
        table = ["| key | default | what |", "|---|---|---|", *rows]
        parts.append("\n".join([heading, "", *([about.replace("\n", " "), ""] if about else []), *table]) + "\n")
    return "\n".join(parts)


def sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield a model and every section beneath it, each with its path in the file."""
    yield path, model
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            yield from sections(inner, f"{path}.{name}".lstrip("."))


def keys(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """Yield name, default and meaning of each key of a section that is no section itself."""
    told = _docstrings(model)
    for name, field in model.model_fields.items():
        if _models(field.annotation):
            continue
        what = told.get(name, "")
        if bounds := _bounds(field.metadata):
            what = f"{what} ({bounds})" if what else bounds
        yield name, _default(field), what.replace("|", "\\|")


def _models(annotation: Any) -> list[type[BaseModel]]:
    found = [annotation, *(inner for one in get_args(annotation) for inner in (one, *get_args(one)))]
    return [one for one in found if isinstance(one, type) and issubclass(one, BaseModel)]


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list | frozenset):
        return f"`{[str(one) if isinstance(one, str) else one for one in value]}`"
    return f"`{value}`" if isinstance(value, int | float) else f'`"{value}"`'


def _bounds(metadata: list[Any]) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [(words[key], getattr(one, key)) for one in metadata for key in words if hasattr(one, key)]
    return ", ".join(f"{word} {int(limit) if limit == int(limit) else limit}" for word, limit in found)


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the text under each field of a class, as one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            found[field.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return found


if __name__ == "__main__":
    sys.stdout.write(text())
