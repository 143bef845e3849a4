"""Comparisons and replications as lines for a person. Text of a report is made printable here."""

from __future__ import annotations

from collections.abc import Iterator

from assay.compare.compare import Comparison, Labels, Row
from assay.compare.numbers import high_text, low_text, value_text
from assay.compare.replicate import Replication
from assay.errors import shown


def comparison(made: Comparison) -> Iterator[str]:
    """Yield the lines of a comparison."""
    for name, side in (("A", made.a), ("B", made.b)):
        told = side.to_json()
        yield f"{name}: {shown(told['audit'])} about model {told['model_sha256'][:16]}…"
    for row in made.rows:
        yield _row(row)
    for one in made.missing:
        yield f"not compared: {_named(one.check, one.metric, one.labels)}: {one.reason}"
    for note in made.notes:
        yield f"note: {note}"
    said = ", ".join(f"{count} {word}" for word, count in made.counts().items()) or "nothing compared"
    yield f"{said}; intervals of B - A hold for all {made.compared} tested metrics together"


def _row(row: Row) -> str:
    told, ends = row.difference, row.interval
    bounds = "" if ends is None else f" [{low_text(ends[0])}, {high_text(ends[1])}]"
    how = f"unpaired ({row.seen.unpaired_because})" if row.seen.unpaired_because else told.method
    why = f", {told.reason}" if told.reason else ""
    return (
        f"{row.word:<11} {_named(row.check, row.metric, row.labels)}: {row.value_a} to {row.value_b}, "
        f"B - A {value_text(told.d)}{bounds}, {how}{why}"
    )


def _named(check: str, metric: str | None, labels: Labels) -> str:
    at = ",".join(f"{shown(key)}={shown(value)}" for key, value in labels)
    return shown(check) + (f"/{shown(metric)}" if metric else "") + (f" {{{at}}}" if at else "")


def replication(made: Replication) -> Iterator[str]:
    """Yield the lines of a replication."""
    for row in made.rows:
        same = ", equal as written" if row.identical else ""
        yield (
            f"{row.word:<11} {_named(row.check, row.item, row.labels)}: {shown(row.first)} and {shown(row.second)}"
            f" ({row.rule}, {row.reason}{same})"
        )
    for change in made.environment:
        yield f"environment: {shown(change.field)}: {shown(change.first)} and {shown(change.second)}"
    for note in made.notes:
        yield f"note: {note}"
    yield made.outcome
