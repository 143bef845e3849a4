"""The command line of `python -m checks contamination` as a parser (contamination, 6.8)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from checks.contamination.planning_parameters import CHOICES, PARAMETERS
from checks.contamination.shards import SHARD_BYTES

Command = Callable[[argparse.Namespace], int]

OPTIONS = (
    "siblings", "embed", "sample_fraction", "coarse", "q", "plant_share", "text_field", "evidence", "reveal_chars",
)  # fmt: skip
"""Parameters with an option of their own; `--param` gives any."""


class UsageError(Exception):
    """The command line is wrong; the message says how."""


class _Parser(argparse.ArgumentParser):
    """A parser that leaves the exit code to us: argparse's own, 2, means refused here."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")


def parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """Return the parser.

    Args:
        commands: what `plan`, `scan`, `merge` and `conclude` run.
    """
    made = _Parser(prog="python -m checks contamination", description="Looks for a benchmark's items in a corpus.")
    verbs = made.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _plan(verbs.add_parser("plan", help="fix what is looked for, before any of the corpus is read"))
    scan = verbs.add_parser("scan", help="scan shards of one file")
    scan.add_argument("--plan", type=Path, required=True)
    scan.add_argument("--corpus", type=Path, required=True)
    part = scan.add_mutually_exclusive_group()
    part.add_argument("--rows", metavar="A:B", help="row groups or record batches: the shards of the plan within them")
    part.add_argument("--bytes", metavar="A:B", help="bytes of a JSONL file: the shards of the plan within them")
    scan.add_argument("--out", type=Path, required=True)
    merged = verbs.add_parser("merge", help="join sketches; a shard that is in several counts once")
    merged.add_argument("--out", type=Path, required=True)
    merged.add_argument("sketches", type=Path, nargs="+", metavar="S")
    _conclude(verbs.add_parser("conclude", help="p-values, recall and findings of a merged sketch; unsigned"))
    for name, command in commands.items():
        verbs.choices[name].set_defaults(command=command)
    return made


def parameters(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters that a command line of `plan` gives, by name.

    Raises:
        UsageError: one is given twice, has no value, or a value that is no JSON.
    """
    told = {name: getattr(parsed, name) for name in OPTIONS if getattr(parsed, name) is not None}
    if told.get("siblings") == 0:  # by the number of items
        del told["siblings"]
    for one in parsed.param:
        name, found, text = one.partition("=")
        if not found:
            raise UsageError(f"--param {name[:128]} has no value: K=V")
        if name in told:
            raise UsageError(f"{name[:128]} is given twice")
        try:
            told[name] = json.loads(text)
        except (ValueError, RecursionError):
            raise UsageError(f"--param {name[:128]}: the value is no JSON") from None
    return told


def _plan(plan: argparse.ArgumentParser) -> None:
    plan.add_argument("--benchmark", type=Path, required=True, help="items, one JSON object a line")
    plan.add_argument("--corpus", type=Path, required=True, nargs="+", help="files of the corpus")
    plan.add_argument("--placebo", type=Path, help="items that no corpus can hold")
    plan.add_argument("--rewrites", type=Path, help="your own rewordings of items, to be planted")
    plan.add_argument("--out", type=Path, required=True)
    plan.add_argument("--seed", type=int, help="for tests: an audit takes no plan whose seed was chosen")
    plan.add_argument("--shard-bytes", type=int, default=SHARD_BYTES, help="stored bytes of a shard")
    plan.add_argument("--siblings", type=int, help="per item (default: by the number of items)")
    plan.add_argument("--embed", choices=CHOICES["embed"])
    plan.add_argument("--sample-fraction", type=float, help="of documents, with --embed sample")
    plan.add_argument("--coarse", choices=CHOICES["coarse"])
    plan.add_argument("--q", type=float, help="false discovery rate (default .05)")
    plan.add_argument("--plant-share", type=float)
    plan.add_argument("--text-field")
    plan.add_argument("--evidence", choices=CHOICES["evidence"], help="what is told of a match (default commit)")
    plan.add_argument("--reveal-chars", type=int, help="characters of a match, with --evidence reveal")
    plan.add_argument(
        "--param", action="append", default=[], metavar="K=V", help=f"V as JSON; K is one of {', '.join(PARAMETERS)}"
    )


def _conclude(concluded: argparse.ArgumentParser) -> None:
    concluded.add_argument("--plan", type=Path, required=True)
    concluded.add_argument("--sketch", type=Path, required=True)
    concluded.add_argument("--json", action="store_true", help="print one JSON document, with plots and tables")
    concluded.add_argument("--commitment-key", type=Path, help="32 bytes: commits to matches, with --corpus")
    concluded.add_argument("--corpus", type=Path, nargs="+", default=[], help="files to read committed spans from")
