"""Run checks on a model directory, here and now: for developing a check. Nothing is isolated, nothing is signed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checks.ask import Given, Told, unheard
from checks.check import Check
from checks.documents import Order, OrderedCheck, OrderedData, OrderedFile, OrderedModel, Result
from checks.errors import OrderInvalid
from checks.run import carry_out
from sandbox.reader.digest import file_sha256
from sandbox.reader.names import file_rule

WARNING = "nothing is isolated or signed: this is no audit, and the model's files were parsed in this process"


def run_local(
    model: Path,
    checks: Sequence[OrderedCheck],
    catalogue: Mapping[str, type[Check]],
    *,
    data: Mapping[str, Path | Sequence[Path]] | None = None,
    seed: int = 0,
    threads: int = 1,
    on_step: Told = unheard,
    base: Path | None = None,
    artefacts: Path | None = None,
) -> Result:
    """Ask checks of a model directory by the same functions that run inside a cell.

    Args:
        model: the directory; files that no manifest may name are left out, as a submission would.
        checks: what to ask, with parameters.
        catalogue: the checks that may be asked.
        data: file of each data role; several of one that is read in shards.
        seed: seed of every draw.
        threads: CPU threads.
        on_step: told (step, done, owed).
        base: directory of the base model, for checks that ask for one.
        artefacts: folder that takes the files that checks hand out; without one they are asked for none.

    Raises:
        OrderInvalid: a directory or a data file is not there.
    """
    inputs: dict[str, Path] = {}
    ordered = _model(model, "model", inputs)
    ordered_base = None if base is None else _model(base, "base", inputs)
    given = []
    pairs = [(role, path) for role, paths in sorted((data or {}).items()) for path in _several(paths)]
    many = {
        role.name
        for check in checks
        if check.name in catalogue
        for role in catalogue[check.name].data_roles
        if role.many
    }
    for number, (role, path) in enumerate(pairs):
        if role not in many and sum(one == role for one, _ in pairs) > 1:
            raise OrderInvalid(f"data role {role}: is given more than once")
        if not path.is_file():
            raise OrderInvalid(f"data role {role}: there is no file {path}")
        inputs[f"data.{number}"] = path.resolve()
        given.append(OrderedData(role=role, input=f"data.{number}", sha256=file_sha256(path), size=path.stat().st_size))
    order = Order(
        schema="assay-cell-order/v1",
        nonce="0" * 64,
        seed=seed,
        model=ordered,
        base=ordered_base,
        data=tuple(given),
        checks=tuple(checks),
        threads=threads,
    )
    return carry_out(
        order, inputs, catalogue, on_step=on_step, on_artefact=None if artefacts is None else _into(artefacts)
    )


def _several(paths: Path | Sequence[Path]) -> Sequence[Path]:
    return (paths,) if isinstance(paths, Path) else paths


def _into(folder: Path) -> Given:
    """Return what writes each file into a folder, under the name of its slot."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(slot: str, content: bytes) -> None:
        (folder / slot).write_bytes(content)

    return write


def _model(folder: Path, prefix: str, inputs: dict[str, Path]) -> OrderedModel:
    """Return a directory as an ordered model, and add its files to the inputs."""
    if not folder.is_dir():
        raise OrderInvalid(f"{folder} is not a directory: name the folder that holds config.json or architecture.json")
    files = []
    for number, path in enumerate(sorted(one for one in folder.rglob("*") if one.is_file())):
        relative = path.relative_to(folder).as_posix()
        if file_rule(relative) is None:
            inputs[f"{prefix}.{number}"] = path.resolve()
            files.append(_file(relative, f"{prefix}.{number}", path))
    manifest = {"files": [one.model_dump(exclude={"input"}) for one in files], "format": "assay-manifest/v1"}
    return OrderedModel(manifest_sha256=_digest(manifest), files=tuple(files))


def _file(relative: str, name: str, path: Path) -> OrderedFile:
    return OrderedFile(path=relative, input=name, sha256=file_sha256(path), size=path.stat().st_size)


def _digest(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
