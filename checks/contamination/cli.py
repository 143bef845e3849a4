"""`python -m checks contamination plan|scan|merge|conclude`: an audit of a corpus where the corpus lies (6.8).

The same functions as in the service, one process a shard, so that any batch system can run them; only sketches leave.
Progress goes to standard error. Exit code 0: done; 2: refused, or a shard failed; 3: the command line is wrong. What is
concluded here is not signed: nobody but the caller saw the corpus.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from checks.check import Refusal
from checks.contamination.cli_parser import UsageError, parameters, parser
from checks.contamination.items import read_benchmark, read_placebo
from checks.contamination.planning import SEED_BITS, Prepared, Roles, benchmark_digest, derived_seed, prepare
from checks.contamination.planning_file import read_prepared, to_bytes
from checks.contamination.planning_parameters import read_parameters
from checks.contamination.rewrites import read_rewrites
from checks.contamination.shards import Shard, ShardFailed, shards, stored
from checks.contamination.sketch import Sketch, empty, merge
from checks.contamination.sketch_reading import read_sketch
from sandbox.reader.error import ReaderError
from sandbox.reader.jsonl import rows

DONE, REFUSED, USAGE = 0, 2, 3
"""Exit codes (6.8)."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code."""
    try:
        commands = {"plan": _plan, "scan": _scan, "merge": _merge, "conclude": _conclude}
        parsed = parser(commands).parse_args(arguments)
        return int(parsed.command(parsed))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except Refusal as error:
        print(f"refused: {error}", file=sys.stderr)
    except ShardFailed as error:
        print(f"refused: shard_failed: {error}; nothing of this shard counts", file=sys.stderr)
    except ReaderError as error:
        print(f"refused: {error.code} at {error.at}", file=sys.stderr)
    except OSError as error:
        print(f"refused: file_unreadable: {error.__class__.__name__}", file=sys.stderr)
    return REFUSED


def _plan(parsed: argparse.Namespace) -> int:
    try:
        told = read_parameters(parameters(parsed))
    except ValueError as error:
        raise UsageError(str(error)) from None
    for name, value, low, high in (
        ("shard-bytes", parsed.shard_bytes, 1, 2**40),
        ("seed", 0 if parsed.seed is None else parsed.seed, 0, 2**SEED_BITS - 1),
    ):
        if not low <= value <= high:
            raise UsageError(f"--{name} {value} is outside {low}..{high}")
    items = read_benchmark(_rows(parsed.benchmark), told.max_items)
    roles = Roles(
        items,
        read_placebo(_rows(parsed.placebo), told.max_items) if parsed.placebo else (),
        read_rewrites(_rows(parsed.rewrites), items) if parsed.rewrites else (),
    )
    digests = {"benchmark": benchmark_digest(items)}
    if told.scan.embed != "off":
        digests["encoder"] = _encoder(told.scan.coarse).digest
    _say(f"hashing {len(parsed.corpus)} files")
    cut = shards([stored(path) for path in parsed.corpus], parsed.shard_bytes)
    made = prepare(
        roles,
        cut,
        seed=derived_seed(digests["benchmark"], cut) if parsed.seed is None else parsed.seed,
        asked=told.asked,
        parameters=told.scan,
        digests=digests,
    )
    parsed.out.write_bytes(to_bytes(made))
    plan = made.plan
    _say(
        f"plan {plan.plan_sha256[:16]}: {len(items)} items, {len(plan.probes)} probes, {len(plan.plants)} plants, "
        f"{len(plan.shards)} shards"
    )
    for names in plan.duplicates():
        _say(f"identical questions: {', '.join(names)}")
    return DONE


def _scan(parsed: argparse.Namespace) -> int:
    from checks.contamination.cli_progress import Progress
    from checks.contamination.scan import Scanner, scan

    prepared = read_prepared(parsed.plan.read_bytes())
    chosen = chosen_shards(prepared, parsed.corpus, parsed.rows or parsed.bytes, of_bytes=parsed.bytes is not None)
    parameters = prepared.plan.parameters
    encoder = None
    if parameters.embed != "off":
        encoder = _encoder(parameters.coarse)
        if encoder.digest != prepared.plan.digests.get("encoder"):
            raise Refusal("other_plan", ("encoder:other_digest",))
    _say(f"{len(chosen)} shards; reading the plan's probes")
    scanner = Scanner(prepared.plan, encoder=encoder)
    told = Progress(sum(one.end - one.begin for one in chosen), sys.stderr)
    whole = empty(prepared.plan.plan_sha256, parameters.keep)
    for one in chosen:
        sketch = scan(one, prepared.plan, origin="declared", scanner=scanner, progress=told.batch)
        told.shard(one.end - one.begin)
        whole = merge(whole, sketch)
    parsed.out.write_bytes(whole.to_bytes())
    return DONE


def chosen_shards(prepared: Prepared, path: Path, span: str | None, *, of_bytes: bool) -> tuple[Shard, ...]:
    """Return the shards of a plan that lie in a file, or in a part of it.

    Args:
        prepared: the plan.
        path: file of the corpus, wherever it lies; it is known by its digest.
        span: "A:B"; None: the whole file.
        of_bytes: whether the span counts bytes, else row groups or record batches.

    Raises:
        UsageError: the span is none, or cuts a shard of the plan.
        Refusal: `shard_unknown`: the plan holds no shard of this file, or none within the span.
    """
    alike = [one for one in prepared.plan.shards if one.file.name == stored_name(path)]
    # The digest is taken of one file only where its size fits: hashing a corpus twice costs as much as reading it.
    format_ = alike[0].file.format if alike else None
    file = stored(path, form=format_)
    same = [one for one in prepared.plan.shards if one.file.sha256 == file.sha256]
    own = [one for one in same if one.file.name == file.name] or same
    if span is not None:
        begin, end = _span(span)
        if own and (own[0].file.format == "jsonl") != of_bytes:
            raise UsageError(f"--{'bytes' if of_bytes else 'rows'} does not count shards of {own[0].file.format}")
        edges = {one.begin for one in own} | {one.end for one in own}
        if own and not {begin, end} <= edges:
            raise UsageError(f"{span} cuts a shard: edges are {', '.join(map(str, sorted(edges)[:20]))}")
        own = [one for one in own if begin <= one.begin and one.end <= end]
    if not own:
        raise Refusal("shard_unknown", (f"corpus:{file.name}",))
    return tuple(replace(one, file=replace(one.file, path=path)) for one in own)


def stored_name(path: Path) -> str:
    """Return a file's name as plans tell it."""
    from checks.role_rows import safe

    return safe(path.name)


def _merge(parsed: argparse.Namespace) -> int:
    read: list[Sketch] = []
    for path in parsed.sketches:
        read.append(read_sketch(path.read_bytes()))
    # The widest first: a sketch that another one covers adds nothing, whatever the order of the names.
    read.sort(key=lambda one: -len(one.shards))
    whole = reduce(merge, read)
    parsed.out.write_bytes(whole.to_bytes())
    _say(f"{len(whole.shards)} shards of plan {whole.plan_sha256[:16]}")
    return DONE


def _conclude(parsed: argparse.Namespace) -> int:
    from checks.contamination.cli_table import document, table
    from checks.contamination.commitments import held, read_key
    from checks.contamination.conclude import conclude
    from checks.contamination.evidence_table import evidence_table

    prepared = read_prepared(parsed.plan.read_bytes())
    key = read_key(parsed.commitment_key) if parsed.commitment_key else None
    encoder = _encoder(prepared.plan.parameters.coarse) if prepared.plan.parameters.embed != "off" else None
    sketch = read_sketch(parsed.sketch.read_bytes())
    told = conclude(sketch, prepared, encoder=encoder)
    at_hand = [one for path in parsed.corpus for one in chosen_shards(prepared, path, None, of_bytes=False)]
    if prepared.asked.evidence == "none" or key is None:
        at_hand = []  # nothing of it would be told
    read = held(told.places(), at_hand, prepared.plan.parameters.text_field)
    evidence = evidence_table(
        told,
        prepared,
        {place: one.span for place, one in read.items()},
        key,
        {place: one.source for place, one in read.items()} if at_hand else None,
    )
    made: Callable[..., str] = document if parsed.json else table
    print(made(told, prepared, sketch, evidence))
    return DONE


def _encoder(coarse: Any) -> Any:
    from checks.contamination.encoder import Encoder

    return Encoder(coarse=coarse)


def _rows(path: Path) -> list[Mapping[str, Any]]:
    return [row for _, row in rows(path)]


def _span(text: str) -> tuple[int, int]:
    begin, found, end = text.partition(":")
    if not (found and begin.isdecimal() and end.isdecimal() and int(begin) < int(end)):
        raise UsageError(f"{text!r} is not A:B with A below B")
    return int(begin), int(end)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


__all__ = ["DONE", "REFUSED", "USAGE", "UsageError", "chosen_shards", "main"]
