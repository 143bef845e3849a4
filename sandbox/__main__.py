"""The black-box door: `python -m sandbox prove | run | report | profile`. Exit 0 yes, 1 no, 2 refused, 3 usage."""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from sandbox import CodeMount, Input, Order, Outcome, SandboxError
from sandbox.bubblewrap import BubblewrapCell, BubblewrapSettings, profile
from sandbox.reader.digest import file_sha256


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(3, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = _parser().parse_args(arguments)
    settings = BubblewrapSettings()
    if given.bwrap:
        settings = replace(settings, bwrap=given.bwrap)
    cell = BubblewrapCell(settings)
    try:
        return int(given.command(cell, given))
    except SandboxError as error:
        code = getattr(error, "code", "failed")
        if given.json:
            _print({"refused": code, "item": getattr(error, "item", ""), "message": str(error)})
        else:
            sys.stderr.write(f"refused: {error}\n")
        return 2
    finally:
        cell.close()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sandbox", description=__doc__)
    commands = parser.add_subparsers(required=True, parser_class=_Parser)
    made = {}
    for name, command, text in (
        ("prove", _prove, "run the self-check"),
        ("run", _run, "run a program in the production profile"),
        ("report", _report, "print the attack matrix"),
        ("profile", _profile, "print the canonical profile and its digest"),
    ):
        made[name] = commands.add_parser(name, help=text)
        made[name].set_defaults(command=command)
        made[name].add_argument("--json", action="store_true")
        made[name].add_argument("--bwrap", type=Path, help="absolute path of bubblewrap")
    made["report"].add_argument("--here-only", action="store_true", help="only as the present user")
    made["run"].add_argument("--program", type=Path, required=True)
    made["run"].add_argument("--input", action="append", default=[], metavar="NAME=PATH")
    made["run"].add_argument("--limit", action="append", default=[], metavar="NAME=N")
    return parser


def _prove(cell: BubblewrapCell, given: argparse.Namespace) -> int:
    proof = cell.prove()
    if given.json:
        sys.stdout.write(proof.document().decode() + "\n")
    else:
        for case in proof.cases:
            sys.stdout.write(f"{case.id:16} {case.word}: {case.got}\n")
        sys.stdout.write(f"self-check {proof.sha256}\n")
    return 0


def _run(cell: BubblewrapCell, given: argparse.Namespace) -> int:
    try:
        order = _order(given)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"sandbox run: {error}\n")
        return 3
    outcome = cell.run(order)
    if given.json:
        _print(_outcome_json(outcome))
    else:
        sys.stdout.write(f"{outcome.ended} {outcome.status} {outcome.why or ''}\n{outcome.log_tail}")
    return int(outcome.ended != "exited" or outcome.status != 0)


def _order(given: argparse.Namespace) -> Order:
    inputs = []
    for one in given.input:
        name, _, path = one.partition("=")
        source = Path(path)
        inputs.append(Input(name=name, source=source, sha256=file_sha256(source), size=source.stat().st_size))
    return Order(
        kind="check",
        module="program",
        arguments=(),
        code=(CodeMount(name="program.py", source=given.program),),
        inputs=tuple(inputs),
        request=b"{}",
        nonce=secrets.token_hex(32),
        limits={name: int(value) for name, _, value in (one.partition("=") for one in given.limit)},
    )


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "ended": outcome.ended,
        "status": outcome.status,
        "why": outcome.why,
        "result_b64": None if outcome.result is None else base64.b64encode(outcome.result).decode(),
        "usage": outcome.usage.to_json(),
        "seal": outcome.seal.to_json(),
        "log_tail": outcome.log_tail,
    }


def _report(cell: BubblewrapCell, given: argparse.Namespace) -> int:
    from sandbox.matrix import report

    return report(cell, here_only=given.here_only, as_json=given.json)


def _profile(_cell: BubblewrapCell, given: argparse.Namespace) -> int:
    if given.json:
        _print({"sha256": profile.digest("check"), "profile": json.loads(profile.document("check"))})
    else:
        sys.stdout.write(f"{profile.document('check').decode()}\n{profile.digest('check')}\n")
    return 0


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    sys.exit(main())
