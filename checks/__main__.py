"""`python -m checks`: the guest's entry (`run`), the catalogue, `run-local`, `rejudge`, and `contamination`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from checks.catalogue import CATALOGUE, CatalogueInvalid, catalogue_bytes, plugin_bytes
from checks.check import Check
from checks.documents import OrderedCheck, read_order, write_result
from checks.errors import ChecksError, OrderInvalid
from checks.local import WARNING, run_local
from checks.plugins import PluginRefused, check_names, load, read_list
from checks.rejudge import NOTE, document, exit_code, rejudge
from checks.run import Progress, carry_out
from checks.runtime.architectures import architectures_json

RESULT_DESCRIPTOR = 3
PROGRESS_DESCRIPTOR = 4
"""Where the cell's contract has the result and the progress lines."""
PLUGINS = Path("code/plugins")
"""Where the worker mounts third-party checks, if the operator allows any; relative as the inputs are."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 2 the order or the command is wrong.

    `rejudge` has its own 1, and `contamination` tells a wrong command line by 3.
    """
    told = sys.argv[1:] if arguments is None else list(arguments)
    if told[:1] == ["contamination"]:  # it has exit codes of its own, also for a wrong command line
        from checks.contamination.cli import main as contamination  # readers of corpora are no part of a cell's start

        return contamination(told[1:])
    parsed = _parser().parse_args(told)
    try:
        return int(parsed.command(parsed))
    except ChecksError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m checks", description="Checks of a model's weights and states.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="carry out the order in in/order.json; result on fd 3, progress on fd 4")
    # Relative: a real cell starts in `/`, its twin without a wall in a folder of its own.
    run.add_argument("--inputs", type=Path, default=Path("in"), help="folder of the inputs (default: in)")
    run.add_argument("--plugins", type=Path, default=PLUGINS, help=f"folder of third-party checks (default: {PLUGINS})")
    run.set_defaults(command=_run)
    catalogue = commands.add_parser("catalogue", help="write the catalogue of checks")
    out = catalogue.add_mutually_exclusive_group(required=True)
    out.add_argument("--out", type=Path, help="file to write, or - for standard output")
    # Loads third-party code, so it answers where only a cell has a channel.
    out.add_argument("--plugins", type=Path, help="in a cell: write the entries of this folder's checks on fd 3")
    catalogue.add_argument("--check", action="append", help="with --plugins: import this check's class only")
    catalogue.add_argument("--architectures", type=Path, help="also write the table of architectures here")
    catalogue.set_defaults(command=_catalogue)
    local = commands.add_parser("run-local", help="ask checks of a model directory, without sandbox and signature")
    local.add_argument("model", type=Path, metavar="MODEL_DIR")
    local.add_argument("--check", required=True, action="append", help="check to ask; may be given more than once")
    local.add_argument("--param", action="append", default=[], metavar="K=V", help="parameter, as K=V or CHECK.K=V")
    local.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="ROLE=PATH",
        help="file of a data role; a role that is read in shards may be given more than once",
    )
    local.add_argument(
        "--base", type=Path, metavar="DIR", help="directory of the base model, where a check asks for it"
    )
    local.add_argument("--artefacts", type=Path, metavar="DIR", help="folder for the files that checks hand out")
    local.add_argument("--seed", type=int, default=0)
    local.add_argument("--threads", type=int, default=1)
    local.set_defaults(command=_run_local)
    again = commands.add_parser("rejudge", help="form a report's findings again from its numbers; 0 same, 1 different")
    again.add_argument("report", type=Path, metavar="REPORT", help="a report's folder, or its report.sigstore.json")
    again.add_argument("--json", action="store_true", help="print one JSON document")
    again.set_defaults(command=_rejudge)
    # For the list of commands only: `main` hands it over before anything is parsed.
    commands.add_parser("contamination", help="look for a benchmark in a corpus: plan, scan, merge, conclude")
    return parser


def _run(parsed: argparse.Namespace) -> int:
    order = read_order((parsed.inputs / "order.json").read_bytes())
    names = [file.input for file in order.model.files] + [data.input for data in order.data]
    names += [order.model.tensors.input] if order.model.tensors else []
    if order.base is not None:
        names += [file.input for file in order.base.files]
        names += [order.base.tensors.input] if order.base.tensors else []
    if order.shards is not None:
        staged = (order.shards.document, order.shards.carried, *order.shards.parts)
        names += [one.input for one in staged if one is not None]
    result = carry_out(
        order,
        {name: parsed.inputs / name for name in names},
        {**CATALOGUE, **_third_party(parsed.plugins, {one.name for one in order.checks})},
        on_step=Progress(PROGRESS_DESCRIPTOR),
        on_artefact=_fill,
    )
    with os.fdopen(RESULT_DESCRIPTOR, "wb") as channel:
        channel.write(write_result(result))
    return 0


def _fill(slot: str, content: bytes) -> None:
    """Write a file that a check hands out to its slot: the cell's, which is there already and cannot be made."""
    with Path("out", slot).open("r+b") as out:
        out.write(content)


def _third_party(folder: Path, asked: Collection[str] | None = None) -> Mapping[str, type[Check]]:
    """Return the allowed checks, of which only those that were asked for are imported."""
    allowed = read_list(folder)
    check_names(allowed, CATALOGUE)
    return load([one for one in allowed if asked is None or one.check in asked], folder)


def _catalogue(parsed: argparse.Namespace) -> int:
    if parsed.plugins is not None:
        return _plugin_entries(parsed.plugins, parsed.check)
    if str(parsed.out) == "-":
        sys.stdout.buffer.write(catalogue_bytes())
    else:
        parsed.out.write_bytes(catalogue_bytes())
    if parsed.architectures:
        table = json.dumps(architectures_json(), indent=1, sort_keys=True) + "\n"
        parsed.architectures.write_text(table, encoding="utf-8")
    return 0


def _plugin_entries(folder: Path, only: Collection[str] | None) -> int:
    """Tell the entries, or the code of the refusal, on the result channel; the reason in words is for the log."""
    nonce = json.loads(Path("in/order.json").read_bytes())["nonce"]
    try:
        told = plugin_bytes(_third_party(folder, only), nonce)
    except (PluginRefused, CatalogueInvalid) as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.code if isinstance(error, PluginRefused) else "entry_invalid"
        told = json.dumps({"schema": "assay-plugin-entries/v1", "nonce": nonce, "refused": code}).encode()
    with os.fdopen(RESULT_DESCRIPTOR, "wb") as channel:
        channel.write(told)
    return 0


def _run_local(parsed: argparse.Namespace) -> int:
    print(f"note: {WARNING}", file=sys.stderr)
    params = [_pair(text, "--param") for text in parsed.param]
    checks = []
    for name in parsed.check:
        if name not in CATALOGUE:
            raise OrderInvalid(f"no check {name!r}; there are: {', '.join(sorted(CATALOGUE)) or 'none'}")
        own = {key: _value(text) for key, text in params if "." not in key}
        own |= {key.removeprefix(f"{name}."): _value(text) for key, text in params if key.startswith(f"{name}.")}
        checks.append(OrderedCheck(name=name, version=CATALOGUE[name].version, params=own))
    data: dict[str, list[Path]] = {}
    for role, path in (_pair(text, "--data") for text in parsed.data):
        data.setdefault(role, []).append(Path(path))
    result = run_local(
        parsed.model,
        checks,
        CATALOGUE,
        data=data,
        seed=parsed.seed,
        threads=parsed.threads,
        on_step=_say,
        base=parsed.base,
        artefacts=parsed.artefacts,
    )
    told = {"note": WARNING, **result.to_json()}
    print(json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False))
    return 0


def _rejudge(parsed: argparse.Namespace) -> int:
    told = rejudge(parsed.report, CATALOGUE)
    if parsed.json:
        print(json.dumps(document(told), sort_keys=True))
    else:
        for one in told:
            print(one.said)
        print(f"note: {NOTE}")
    return exit_code(told)


def _pair(text: str, option: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise OrderInvalid(f"{option} {text!r} is not NAME=VALUE")
    return key, value


def _value(text: str) -> Any:
    """Return JSON where the text is JSON, but fractions as the decimal strings that checks take."""
    try:
        return json.loads(text, parse_float=str)
    except json.JSONDecodeError:
        return text


def _say(step: str, done: int, owed: int) -> None:
    print(f"{step} {done}/{owed}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
