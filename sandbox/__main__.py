"""The black-box door: `python -m sandbox prove | run | ingest | read-result | report | profile`.

Exit 0 yes, 1 no, 2 refused, 3 usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, get_args

from sandbox import CellRefused, SandboxError, commands
from sandbox.bubblewrap import BubblewrapCell, BubblewrapSettings, profile
from sandbox.cell import Kind, Proof


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(commands.USAGE_ERROR, f"{self.prog}: {message}\n")


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
    choices = parser.add_subparsers(required=True, parser_class=_Parser)
    made: dict[str, argparse.ArgumentParser] = {}
    for name, command, text in (
        ("prove", _prove, "run the self-check"),
        *commands.COMMANDS,
        ("report", _report, "print the attack matrix"),
        ("profile", _profile, "print the canonical profile and its digest"),
    ):
        made[name] = choices.add_parser(name, help=text)
        made[name].set_defaults(command=command)
        made[name].add_argument("--json", action="store_true")
        made[name].add_argument("--bwrap", type=Path, help="absolute path of bubblewrap")
    commands.add_arguments(made)
    made["report"].add_argument("--here-only", action="store_true", help="only as the present user")
    for name, default in (("prove", None), ("run", "check"), ("profile", "check")):
        made[name].add_argument("--kind", choices=get_args(Kind), default=default)
    return parser


def _prove(cell: BubblewrapCell, given: argparse.Namespace) -> int:
    proof = cell.prove() if given.kind is None else _prove_kind(cell, given.kind)
    if given.json:
        sys.stdout.write(proof.document().decode() + "\n")
    else:
        for case in proof.cases:
            sys.stdout.write(f"{case.id:16} {case.word}: {case.got}\n")
        sys.stdout.write(f"self-check {proof.sha256}\n")
    return 0


def _prove_kind(cell: BubblewrapCell, kind: Kind) -> Proof:
    """Run the cases of one kind of cell; what a worker puts into its seals is the proof of all kinds.

    Raises:
        CellRefused: as a self-check; gpu_nodes_missing, where no case of a GPU cell could be tried.
    """
    from sandbox import selfcheck

    bare = BubblewrapCell(replace(cell.settings, site_packages=()))
    try:
        rows = selfcheck.check(bare, selfcheck.host_of(bare), kinds=(kind,))
    finally:
        bare.close()
    if all(row.word == "not_applicable" for row in rows):
        raise CellRefused("gpu_nodes_missing", f"{rows[0].observed}: nothing was proven")
    return selfcheck.proof(rows, version=cell.version(kind), profiles={kind: profile.digest(kind)})


def _report(cell: BubblewrapCell, given: argparse.Namespace) -> int:
    from sandbox.matrix import report

    return report(cell, here_only=given.here_only, as_json=given.json)


def _profile(_cell: BubblewrapCell, given: argparse.Namespace) -> int:
    digest, document = profile.digest(given.kind), profile.document(given.kind)
    if given.json:
        _print({"kind": given.kind, "sha256": digest, "profile": json.loads(document)})
    else:
        sys.stdout.write(f"{document.decode()}\n{digest}\n")
    return 0


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    sys.exit(main())
