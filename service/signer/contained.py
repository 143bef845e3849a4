"""What of a container cell's seal only this release's own tables can tell: filters, profile and oldest versions."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, cast

from assay import isolation

from sandbox import filters
from sandbox.cell import Kind
from sandbox.container import profile
from sandbox.container.settings import check_version
from sandbox.errors import CellRefused
from sandbox.filters import oci

if TYPE_CHECKING:
    from assay.predicate import Cell

    from sandbox.container.settings import Engine

_KINDS: dict[str, Kind] = {"check": "check"}


def missing_layer(cell: Cell) -> str | None:
    """Return the first layer that a container's seal does not show; None where it shows them all."""
    missing = isolation.missing_layer(cell.to_json())
    if missing is not None:
        return missing
    if cell.layers["seccomp_sha256"] != _filters(cell.stage):
        return "this release's filters of system calls"
    return _outdated(cell.version)


def policy(cell: Cell) -> str:
    """Return the digest of the installed profile for the engine that a seal names, which shows every layer."""
    engine, _, runtime, _ = _named(cell.version)
    return profile.digest(cast("Engine", engine), runtime, _KINDS[cell.stage])


def _outdated(version: str) -> str | None:
    engine, its, runtime, theirs = _named(version)
    try:
        check_version(engine, its)
        check_version(runtime, theirs)
    except CellRefused as error:
        return str(error.item)
    return None


def _named(version: str) -> tuple[str, str, str, str]:
    found = isolation.VERSION.fullmatch(version)
    assert found is not None, "a seal that shows every layer names them"
    engine, its, runtime, theirs = found.groups()
    return engine, its, runtime, theirs


@cache
def _filters(stage: str) -> tuple[str, ...]:
    """Return the digests of what the engine loads and of what the shim stacks on it."""
    return filters.digest(oci.document("check")), filters.digest(profile.stacked(_KINDS[stage]))
