"""The commands that run one cell or read what one left: `run`, `ingest`, `read-result`."""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandbox import CodeMount, Input, Order, Outcome, ResultRejected, Slot, ingest
from sandbox.cell import Cell, Filled, canonical
from sandbox.reader import names
from sandbox.reader.digest import file_sha256
from sandbox.reader.error import shown
from sandbox.result import read_result, take_result

SHOWN_SLOT_MAX = 64 * 2**10
"""Larger slots are told by size and digest only."""

ARCHITECTURES = Path(__file__).parents[1] / "checks" / ingest.ARCHITECTURES
"""Where a checkout and an installed release keep the table of architectures."""

FORMS = {
    "assay-cell-result/v1": (("schema", "nonce", "answers", "ingest", "facts"), 2**20),
    ingest.RESULT_SCHEMA: (("schema", "nonce", "refused", "decisions", "more"), ingest.RESULT_CAP),
}
"""Keys and most bytes of each document that a cell writes."""

USAGE_ERROR = 3


def add_arguments(parsers: dict[str, argparse.ArgumentParser]) -> None:
    """Add the arguments of this module's commands."""
    run, reading, result = parsers["run"], parsers["ingest"], parsers["read-result"]
    run.add_argument("--program", type=Path, required=True)
    run.add_argument("--input", action="append", default=[], metavar="NAME=PATH")
    run.add_argument("--slot", action="append", default=[], metavar="NAME=BYTES")
    run.add_argument("--limit", action="append", default=[], metavar="NAME=N")
    run.add_argument("--gpu", action="append", default=[], type=int, metavar="INDEX", help="of a check_gpu cell")
    reading.add_argument("directory", type=Path, metavar="DIR")
    reading.add_argument("--architectures", type=Path, default=ARCHITECTURES, help="table of each architecture's keys")
    result.add_argument("file", type=Path, metavar="FILE")
    result.add_argument("--nonce", required=True)
    result.add_argument("--schema", choices=sorted(FORMS), default="assay-cell-result/v1")


def run(cell: Cell, given: argparse.Namespace) -> int:
    """Run a program in the production profile; 0 when it exited with 0, else 1."""
    try:
        order = _program_order(given)
    except (OSError, ValueError) as error:
        return usage(f"run: {error}")
    outcome = cell.run(order)
    if given.json:
        _print(outcome_json(outcome))
    else:
        sys.stdout.write(f"{outcome.ended} {outcome.status} {outcome.why or ''}\n")
        for slot in outcome.slots:
            sys.stdout.write(f"slot {slot.name} {slot.size} {_refusal(slot) or slot.sha256}\n")
        sys.stdout.write(outcome.log_tail)
    return int(outcome.ended != "exited" or outcome.status != 0)


def _program_order(given: argparse.Namespace) -> Order:
    if not given.program.is_file():
        raise OSError(f"{given.program} is not a file")
    return Order(
        kind=given.kind,
        module="program",
        arguments=(),
        code=(CodeMount(name="program.py", source=given.program),),
        inputs=tuple(_input(name, Path(path)) for name, path in map(_pair, given.input)),
        slots=tuple(Slot(name=name, max_bytes=room, released=False) for name, room in _numbers("--slot", given.slot)),
        request=b"{}",
        nonce=secrets.token_hex(32),
        limits=dict(_numbers("--limit", given.limit)),
        gpus=tuple(given.gpu),
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not NAME=VALUE")
    return name, value


def _numbers(option: str, given: Sequence[str]) -> list[tuple[str, int]]:
    made = []
    for name, value in map(_pair, given):
        try:
            made.append((name, int(value)))
        except ValueError:
            raise ValueError(f"{option} {name}: {value!r} is not a whole number") from None
    return made


def _input(name: str, source: Path) -> Input:
    if not stat.S_ISREG(source.lstat().st_mode):  # before it is opened: a device never ends, and a pipe waits
        raise OSError(f"{source} is not a regular file")
    return Input(name=name, source=source, sha256=file_sha256(source), size=source.stat().st_size)


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as plain JSON values; what a slot holds only where it is small."""
    return {
        "ended": outcome.ended,
        "status": outcome.status,
        "why": outcome.why,
        "result_b64": None if outcome.result is None else base64.b64encode(outcome.result).decode(),
        "slots": [_slot_json(one) for one in outcome.slots],
        "usage": outcome.usage.to_json(),
        "seal": outcome.seal.to_json(),
        "log_tail": outcome.log_tail,
    }


def _slot_json(slot: Filled) -> dict[str, Any]:
    refused = _refusal(slot)
    small = refused is None and slot.size <= SHOWN_SLOT_MAX
    content = base64.b64encode(slot.content).decode() if small else None
    return {"name": slot.name, "size": slot.size, "sha256": slot.sha256, "content_b64": content, "refused": refused}


def _refusal(slot: Filled) -> str | None:
    try:
        slot.open().close()
    except ResultRejected as error:
        return error.code
    return None


def read_model(cell: Cell, given: argparse.Namespace) -> int:
    """Read a model's directory in an ingest cell and print what became of each file; 0 accepted, 1 refused."""
    try:
        files, refused = _listed(given.directory)
        table = _input(ingest.ARCHITECTURES, given.architectures)
    except OSError as error:
        return usage(f"ingest: {error}")
    if refused:  # names and sizes: the host says so, and no cell is started
        return _tell({"refused": True, "decisions": refused, "more": 0, "seal": None}, given.json)
    order = _ingest_order(files, table)
    outcome = cell.run(order)
    fields, cap = FORMS[ingest.RESULT_SCHEMA]
    try:
        said = read_result(take_result(outcome), schema=ingest.RESULT_SCHEMA, nonce=order.nonce, fields=fields, cap=cap)
    except ResultRejected as error:
        return _tell_rejected(error, given.json, outcome.log_tail)
    kept = {key: said[key] for key in ("refused", "decisions", "more")}
    return _tell({**kept, "seal": outcome.seal.to_json()}, given.json)


def _listed(root: Path) -> tuple[dict[str, Path], list[dict[str, Any]]]:
    """Return a directory's files by path, and the refusals that need no reading; nothing is followed or opened."""
    files: dict[str, Path] = {}
    refused = []
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no directory")
    for folder, below, plain in os.walk(root):
        links = [name for name in below if Path(folder, name).is_symlink()]
        for name in [*plain, *links]:
            source = Path(folder, name)
            path = source.relative_to(root).as_posix()
            files[path] = source
            status = source.lstat()
            code = names.file_rule(path)
            if code is None and not stat.S_ISREG(status.st_mode):
                code = "not_regular"
            cap = names.file_cap(path)
            if code is None and cap is not None and status.st_size > cap:
                code = "size_cap"
            if code is not None:
                refused.append(_refused(path, code))
    told = {one["path"] for one in refused}
    refused += [_refused(path, code) for path, code in names.check_paths(sorted(files)) if shown(path) not in told]
    return files, sorted(refused, key=lambda one: str(one["path"]))


def _refused(path: str, code: str) -> dict[str, Any]:
    return {"path": shown(path), "decision": "refused", "reason": code, "at": None}


def _ingest_order(files: dict[str, Path], table: Input) -> Order:
    nonce = secrets.token_hex(32)
    given = {
        path: _input(f"model.{number}", source)
        for number, (path, source) in enumerate(sorted(files.items()))
        if names.is_read(path)
    }
    named = [{"path": path, "input": one.name, "sha256": one.sha256, "size": one.size} for path, one in given.items()]
    named += [{"path": path} for path in sorted(files.keys() - given.keys())]
    return Order(
        kind="ingest",
        module="sandbox.ingest",
        arguments=(),
        code=(CodeMount(name="sandbox", source=Path(__file__).parent),),
        inputs=(*given.values(), table),
        slots=tuple(Slot(name=name, max_bytes=cap, released=False) for name, cap in ingest.SLOTS.items()),
        request=canonical({"schema": ingest.REQUEST_SCHEMA, "nonce": nonce, "files": named}),
        nonce=nonce,
    )


def _tell(said: dict[str, Any], as_json: bool) -> int:
    if as_json:
        _print(said)
    else:
        for one in said["decisions"]:
            at = " ".join(f"{key}:{value}" for key, value in (one["at"] or {}).items())
            line = f"{one['decision']:9}{one['path'] or '(model)'} {one['reason'] or ''} {at}"
            sys.stdout.write(line.rstrip() + "\n")
        if said["more"]:
            sys.stdout.write(f"and {said['more']} more\n")
    return int(said["refused"])


def check_result(_cell: Cell, given: argparse.Namespace) -> int:
    """Read a result document from a file; 0 accepted, 1 rejected."""
    fields, cap = FORMS[given.schema]
    try:
        with given.file.open("rb") as stream:
            data = stream.read(cap + 1)
    except OSError as error:
        return usage(f"read-result: {error}")
    try:
        read_result(data, schema=given.schema, nonce=given.nonce, fields=fields, cap=cap)
    except ResultRejected as error:
        return _tell_rejected(error, given.json)
    if given.json:
        _print({"accepted": True, "bytes": len(data)})
    else:
        sys.stdout.write(f"accepted, {len(data)} bytes\n")
    return 0


def _tell_rejected(error: ResultRejected, as_json: bool, log_tail: str = "") -> int:
    if as_json:
        _print({"rejected": error.code, "at": error.at, "log_tail": log_tail})
    else:
        sys.stdout.write(f"rejected: {error}\n{log_tail}")
    return 1


def usage(message: str) -> int:
    """Say what was wrong with the call, and return the exit code for it."""
    sys.stderr.write(f"sandbox {message}\n")
    return USAGE_ERROR


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


COMMANDS: Sequence[tuple[str, Any, str]] = (
    ("run", run, "run a program in the production profile"),
    ("ingest", read_model, "read a model's directory in an ingest cell"),
    ("read-result", check_result, "read a cell's result as hostile"),
)
