"""What a worker measures in: cells of the backends that the configuration names, and the code that is mounted there."""

from __future__ import annotations

import importlib.util
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from service.main.config import ConfigError, Server

if TYPE_CHECKING:
    from assay.catalogue import Catalogue

    from sandbox import BubblewrapCell
    from sandbox.container import ContainerCell
    from sandbox.warm import WarmCell
    from service.main.config import Sandbox
    from service.worker.backends import ApartCells
    from service.worker.code import Guest
    from service.worker.scripted import ScriptedCell


def operator_catalogue(server: Server) -> Catalogue:
    """Return the checks that this service answers: the release's own, and those that the operator allows."""
    from service.worker import plugins

    return plugins.operator_catalogue(server.third_party)


def describe_third_party(server: Server) -> list[Path]:
    """Write the catalogue entry of every allowed third-party check, each loaded in a cell of its own.

    Raises:
        ThirdPartyRefused: the list names what cannot be used.
        SandboxError: no cell could be had.
    """
    import tempfile

    from service.worker.plugins import describe_all

    if server.third_party is None:
        return []
    guest = code_of_release()
    with (
        tempfile.TemporaryDirectory(prefix="assay-describe-") as folder,
        closing(_cold(server, Path(folder), guest)) as cell,
    ):
        return describe_all(server.third_party, guest, cell, Path(folder) / "third-party")


def folder_of_cells(server: Server) -> Path:
    """Return where workers of this configuration keep their cells' folders."""
    return server.work.parent / "cells"


PRELOAD = (
    "torch",
    "transformers",
    # Both libraries import their parts on first use, which the first audit would wait for.
    "transformers.models.auto.modeling_auto",
    "transformers.models.gpt2.modeling_gpt2",
    "transformer_lens.model_bridge",
    "safetensors.torch",
    "checks.catalogue",
    "checks.run",
)
"""What a spare cell imports while it waits: code of the release and its libraries, nothing of an audit."""


def _cold(server: Server, workplace: Path, guest: Guest) -> BubblewrapCell | ApartCells:
    """Return cells that start when their order has come, of the backends that the configuration names."""
    from service.worker.backends import ApartCells

    reading = _bubblewrap(server, workplace)
    if server.sandbox.backend == "bubblewrap":
        return reading
    code = next(one for one in guest.code if one.name == "sandbox")
    return ApartCells(reading, _container(server.sandbox, workplace), code)


def _container(chosen: Sandbox, workplace: Path) -> ContainerCell:
    from sandbox.container import ContainerCell, ContainerSettings
    from sandbox.container.engine import environment_of_engine

    return ContainerCell(
        ContainerSettings(
            engine=chosen.engine,
            program=chosen.program,
            runtime=cast("Any", chosen.runtime),  # any but gVisor's is refused by what uses it
            image=chosen.image,
            interpreter=chosen.interpreter,
            python_path=chosen.python_path,
            environment=environment_of_engine(),
            work_dir=workplace,
        )
    )


def _bubblewrap(server: Server, workplace: Path) -> BubblewrapCell:
    from sandbox import BubblewrapCell, BubblewrapSettings

    return BubblewrapCell(
        BubblewrapSettings(
            bwrap=server.bwrap,
            cell_uid=server.cell_uid,
            work_dir=workplace,
            cgroup_parent=server.cgroup_parent,
            kill_bound_s=server.kill_bound_s,
        )
    )


def open_cell(server: Server, workplace: Path, guest: Guest) -> BubblewrapCell | WarmCell | ApartCells | ScriptedCell:
    """Return what the worker starts cells with.

    Raises:
        ConfigError: the script of a rehearsal cannot be used.
    """
    from sandbox.warm import WarmCell

    if server.cell_script is not None:
        return _scripted(server, workplace)
    spares = server.warm_spares * server.slots
    if not spares:
        return _cold(server, workplace, guest)
    return WarmCell(_bubblewrap(server, workplace), spares=spares, preload=PRELOAD, code=guest.code)


def _scripted(server: Server, workplace: Path) -> ScriptedCell:
    from sandbox import ProcessCell
    from service.worker.scripted import ScriptedCell, ScriptRefused, read_script

    assert server.cell_script is not None
    try:
        script = read_script(server.cell_script)
    except ScriptRefused as error:
        raise ConfigError(str(error)) from error
    twin = ProcessCell(unsafe=True, work_dir=workplace, kill_bound_s=server.kill_bound_s)
    reasons = {one.name: str(one.raw["reasons"][0]) for one in operator_catalogue(server).checks}
    return ScriptedCell(twin, script, reasons)


def sweep(server: Server) -> int:
    """Remove folders and control groups that no living worker holds, and processes that have lost their launcher."""
    from sandbox import cgroups, leftovers, orphans
    from sandbox.bubblewrap.settings import CELL_UID

    uid = (server.cell_uid or CELL_UID) if os.geteuid() == 0 else os.geteuid()
    count = leftovers.sweep(folder_of_cells(server)) + orphans.end_orphans(frozenset({uid}))
    if server.cgroup_parent is not None:
        count += cgroups.sweep(cgroups.open_parent(server.cgroup_parent))
    return count


def code_of_release() -> Guest:
    """Return the three packages that a cell needs, mounted as they are installed here."""
    from sandbox import CodeMount
    from service.worker.code import Guest

    packages = ("checks", "sandbox", "assay")
    return Guest(code=tuple(CodeMount(name=name, source=package_folder(name)) for name in packages))


def package_folder(name: str) -> Path:
    """Return where a top-level package lies, without importing it.

    Raises:
        ConfigError: the package is not installed here.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"package {name!r} is not installed here; install the worker's dependencies: `make setup`")
    return Path(next(iter(spec.submodule_search_locations))).resolve()
