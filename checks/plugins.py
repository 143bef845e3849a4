"""Third-party checks: loaded by name from what the operator allowed, inside a cell, failing loudly.

Nothing joins by being installed: there are no entry points and no discovery. The worker mounts a folder that holds
`allowed.json` and, for each distribution, a folder of its verified files; `python -m checks run` imports the one class
that is named there, and only when the order asks for its check. No other program calls `load`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from assay.result import Name, Value
from pydantic import Field, ValidationError

from checks.check import Check
from checks.errors import ChecksError
from sandbox.reader.digest import tree_sha256

LIST = "allowed.json"
"""The operator's list, at the root of the mounted folder."""

CODES = (
    "list_invalid",
    "name_clash",
    "digest_mismatch",
    "import_failed",
    "foreign_module",
    "entry_missing",
    "not_a_check",
    "name_differs",
    "undeclared",
)
"""Why a third-party check is refused, in the order in which it is found out."""

DECLARED = ("name", "version", "source", "controls", "metrics", "words", "reasons")
"""What a check's class must declare; without metrics it could report nothing."""


class PluginRefused(ChecksError):
    """A third-party check cannot be used; the message names distribution, check and remedy.

    Attributes:
        code: one of `CODES`.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Allowed(Value):
    """One check that the operator allows."""

    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$")]
    """Name of the distribution, which is also its folder's."""
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.!+_-]{1,64}$")]
    """Version of the distribution, not of the check."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Digest of its files, as `sandbox.reader.digest.tree_sha256` forms it."""
    check: Name
    """Name under which the check is asked."""
    entry: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
    """Its class, as `module:Class`."""

    @property
    def said(self) -> str:
        """What an error calls it."""
        return f"check {self.check!r} of {self.distribution} {self.version} ({self.entry})"


class AllowList(Value):
    """The mounted list."""

    schema_: Literal["assay-third-party/v1"] = Field(default="assay-third-party/v1", alias="schema")
    allowed: tuple[Allowed, ...]


def read_list(folder: Path) -> tuple[Allowed, ...]:
    """Return what is allowed; nothing where the worker mounts no such folder.

    Raises:
        PluginRefused: list_invalid.
    """
    if not folder.exists():
        return ()
    try:
        return AllowList.model_validate_json((folder / LIST).read_bytes()).allowed
    except OSError as error:
        raise PluginRefused("list_invalid", f"{folder / LIST}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise PluginRefused("list_invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def check_names(allowed: Sequence[Allowed], built_in: Mapping[str, type[Check]]) -> None:
    """Refuse a name that two checks claim; nothing is imported for that.

    Raises:
        PluginRefused: name_clash, naming both.
    """
    claimed = {name: f"the built-in {name!r} ({_entry_of(kind)})" for name, kind in built_in.items()}
    for one in allowed:
        if one.check in claimed:
            raise PluginRefused("name_clash", f"{one.said} reuses the name of {claimed[one.check]}: remove one of them")
        claimed[one.check] = one.said


def load(allowed: Sequence[Allowed], folder: Path) -> Mapping[str, type[Check]]:
    """Import third-party checks. Their code runs in this process: call it inside a cell only.

    Args:
        allowed: what to load; names are held against each other by `check_names`, which comes first.
        folder: holds one folder for each distribution.

    Raises:
        PluginRefused: naming the distribution and what to do.
    """
    return {one.check: _loaded(one, (folder / one.distribution).resolve()) for one in allowed}


def _loaded(one: Allowed, home: Path) -> type[Check]:
    _check_digest(one, home)
    module_name, _, class_name = one.entry.partition(":")
    module = _imported(one, module_name, home)
    if not hasattr(module, class_name):
        raise PluginRefused("entry_missing", f"{one.said}: module {module_name} has no {class_name}")
    kind = getattr(module, class_name)
    if not (isinstance(kind, type) and issubclass(kind, Check)) or inspect.isabstract(kind):
        raise PluginRefused("not_a_check", f"{one.said} is not a class that implements checks.check.Check")
    absent = [name for name in DECLARED if not hasattr(kind, name)]
    absent += ["metrics"] if not absent and not kind.metrics else []
    if absent:
        raise PluginRefused("undeclared", f"{one.said} does not declare {', '.join(absent)}")
    if kind.name != one.check:
        raise PluginRefused("name_differs", f"{one.said} calls itself {str(kind.name)[:128]!r}: allow it by that name")
    return kind


def _check_digest(one: Allowed, home: Path) -> None:
    """The worker has verified these files; that what was mounted is what it verified costs one more look."""
    files = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_symlink() or not path.is_dir()]
    try:
        found = tree_sha256(home, files)
    except OSError as error:
        found = f"a file that cannot be read ({error.strerror})"
    if found != one.sha256:
        raise PluginRefused("digest_mismatch", f"{one.said}: its files have {found}, the operator allowed {one.sha256}")


def _imported(one: Allowed, name: str, home: Path) -> Any:
    # Last, so that it hides no module of ours; what is found in our place is refused below.
    if str(home) not in sys.path:
        sys.path.append(str(home))
    try:
        module = importlib.import_module(name)
    except MemoryError:  # the cell's limit: the host names it
        raise
    except (Exception, SystemExit) as error:
        traceback.print_exc(file=sys.stderr)
        raise PluginRefused("import_failed", f"{one.said}: {type(error).__name__} while it was imported") from None
    found = getattr(module, "__file__", None)
    if found is None or not Path(found).resolve().is_relative_to(home):
        raise PluginRefused(
            "foreign_module", f"{one.said}: module {name} is found at {found}, which is no file of the distribution"
        )
    return module


def _entry_of(kind: type[Check]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
