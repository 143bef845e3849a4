"""`assay compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import codes, trust
from assay.cli.options import Config, Json
from assay.cli.screen import SCREEN, clean

if TYPE_CHECKING:
    from assay.verify import Verification

Baseline = Annotated[Path, typer.Argument(metavar="A", help="The baseline: a report directory, or its bundle.")]
Candidate = Annotated[Path, typer.Argument(metavar="B", help="The candidate, on the same data.")]
Margin = Annotated[
    list[str] | None,
    typer.Option("--margin", help="CHECK/METRIC=D: differences up to D do not matter; repeatable."),
]


def compare(
    a: Baseline,
    b: Candidate,
    margin: Margin = None,
    trust_root: trust.TrustRoot = None,
    key: trust.Keys = None,
    log_vkey: trust.LogVkeys = None,
    log: trust.Log = None,
    catalogue: trust.OwnCatalogue = None,
    now: trust.Now = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Verify two reports, then compare them metric by metric: B less A. Exit 0 whatever the words say.

    Every option holds for both reports.
    """
    from assay.compare import text
    from assay.compare.compare import compare as held_against
    from assay.compare.sides import load
    from assay.verify import verify

    margins = dict(map(_margin, margin or ()))
    trusted = trust.chosen(trust_root, key, log_vkey, config).arguments()
    known = {**trusted, "log_dir": log, "now": trust.moment(now), **trust.catalogue(catalogue)}
    seen = (verify(a, **known), verify(b, **known))
    failed = _worse(*seen)
    if failed is not None:
        return _not_verified(seen, failed, as_json)
    made = held_against(load(a, seen[0]), load(b, seen[1]), margins)
    if as_json:
        SCREEN.json(
            {
                **made.to_json(),
                "not_checked": {name: list(one.not_checked) for name, one in zip("ab", seen, strict=True)},
            }
        )
        return codes.YES
    for line in text.comparison(made):
        SCREEN.out(clean(line, 2000))
    for name, one in zip("AB", seen, strict=True):
        for item in one.not_checked:
            SCREEN.out(clean(f"{name} not checked: {item}", 2000))
    return codes.YES


def _worse(first: Verification, second: Verification) -> int | None:
    """Return the exit code of what was not verified; wrong outranks unknown. None if both were."""
    from assay.verify import exit_code

    found = [exit_code(one) for one in (first, second) if one.outcome != "verified"]
    return min(found) if found else None


def _not_verified(seen: tuple[Verification, Verification], code: int, as_json: bool) -> int:
    if as_json:
        told = [one.to_json() for one in seen]
        SCREEN.json({"schema": "assay-compare/v1", "outcome": "not_verified", "exit": code, "verify": told})
        return code
    for name, one in zip("AB", seen, strict=True):
        if one.outcome != "verified":
            SCREEN.out(f"{name} is not verified, so nothing was compared:")
            for line in one.render_text().splitlines():
                SCREEN.out(f"  {clean(line, 2000)}")
    return code


def _margin(text: str) -> tuple[tuple[str, str], float]:
    """Read CHECK/METRIC=D.

    Raises:
        Misused: it has another form, or D is no positive decimal.
    """
    from assay.errors import Misused, shown
    from assay.result import canonical_decimal

    named, _, number = text.rpartition("=")
    check, _, metric = named.partition("/")
    try:
        value = float(canonical_decimal(number))
    except ValueError:
        value = 0.0
    if not check or not metric or value <= 0.0:
        raise Misused(f"--margin {shown(text)}: write CHECK/METRIC=D with a decimal D above 0, e.g. 0.02")
    return (check, metric), value
