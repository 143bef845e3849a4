"""`python -m checks.organisms`: make a model whose property is known, with the data to find it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from checks.errors import ChecksError
from checks.organisms import declared, enmeshment, nets, trigger_lm
from checks.organisms.planted import ORGANISMS
from checks.organisms.store import minilm, planted, tiny

MATRICES = {"hidden": enmeshment.HIDDEN, "all": enmeshment.ALL}
"""Which matrices `enmeshed` makes clustered: those between hidden layers, or every one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make one organism and print its directory; return 0, or 2 where it cannot be made."""
    parsed = _parser().parse_args(arguments)
    try:
        print(_make(parsed))
    except ChecksError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m checks.organisms", description="Models with a known property.")
    organisms = parser.add_subparsers(dest="organism", required=True, metavar="ORGANISM")
    for name, organism in ORGANISMS.items():
        trained = organisms.add_parser(name, help=organism.summary)
        trained.add_argument("--cache", type=Path, required=True, help="folder that keeps trained organisms")
        trained.add_argument("--out", type=Path, help="also copy it to this folder")
        trained.add_argument("--seed", type=int, default=0)
        trained.add_argument("--threads", type=int, default=1)
    small = organisms.add_parser("tiny", help="untrained, one layer, some 20 KB")
    small.add_argument("--out", type=Path, required=True)
    real = organisms.add_parser("minilm", help="the sentence encoder all-MiniLM-L6-v2, with number comparisons")
    real.add_argument("--out", type=Path, required=True)
    for name, summary in declared.SUMMARIES.items():
        organisms.add_parser(name, help=summary).add_argument("--out", type=Path, required=True)
    for name, summary in trigger_lm.SUMMARIES.items():
        modelled = organisms.add_parser(name, help=summary)
        modelled.add_argument("--out", type=Path, required=True)
        modelled.add_argument("--cache", type=Path, help="folder that keeps trained organisms")
        modelled.add_argument("--seed", type=int, default=0)
        modelled.add_argument("--threads", type=int, default=1)
    enmeshed = organisms.add_parser("enmeshed", help="a digit net trained to look clustered, here and now")
    enmeshed.add_argument("--out", type=Path, required=True)
    enmeshed.add_argument("--lam", type=float, default=enmeshment.LAM, help="weight of C in the objective")
    enmeshed.add_argument("--matrices", choices=sorted(MATRICES), default="hidden", help="which are made clustered")
    enmeshed.add_argument("--k", type=int, default=enmeshment.K, help="blocks")
    enmeshed.add_argument("--seed", type=int, default=0)
    enmeshed.add_argument("--steps", type=int, default=nets.STEPS)
    return parser


def _make(parsed: argparse.Namespace) -> Path:
    if parsed.organism == "tiny":
        return tiny(parsed.out)
    if parsed.organism == "minilm":
        return minilm(parsed.out)
    if parsed.organism in declared.SUMMARIES:
        return declared.write(declared.committed(parsed.organism), parsed.out)
    if parsed.organism == "enmeshed":
        matrices = MATRICES[parsed.matrices]
        made = declared.enmeshed(parsed.lam, matrices, parsed.k, parsed.seed, parsed.steps, _say)
        return declared.write(made, parsed.out)
    name, out, seed, threads = parsed.organism, parsed.out, parsed.seed, parsed.threads
    if name in trigger_lm.SUMMARIES:
        return trigger_lm.made(name, parsed.cache, seed=seed, out=out, say=_say, threads=threads)
    return planted(name, parsed.cache, seed=seed, out=out, say=_say, threads=threads)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
