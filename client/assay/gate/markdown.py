"""The job summary: Markdown in at most 64 KiB, with all text of others in code spans."""

from __future__ import annotations

from collections.abc import Iterator

from assay.gate import neutral, wording
from assay.gate.gate import GateResult
from assay.policy.verdict import WORST_FIRST, Decision

BYTES_MAX = 64 * 1024
"""Cap of a summary (specification, section 12); the platform refuses one over 1 MiB, and nobody reads that much."""

_ROOM_FOR_THE_END = 512
"""Bytes kept free for the line that says what was left out."""

_HEAD = "| outcome | level | assertion | asked | deciding | n | power | reason |\n|---|---|---|---|---|---|---|---|"


def render(result: GateResult) -> str:
    """Return the summary. What does not fit is counted at the end, worst entries first in the table."""
    text, left_out = "", 0
    for part in _parts(result):
        if len((text + part).encode()) + _ROOM_FOR_THE_END > BYTES_MAX:
            left_out += 1
        else:
            text += part + "\n"
    return text + (f"\n{left_out} more lines are left out here; the JSON output has all.\n" if left_out else "")


def _parts(result: GateResult) -> Iterator[str]:
    yield f"## {wording.headline(result)}\n"
    policy = result.asked.policy
    yield f"Policy {neutral.code(policy.name)} {neutral.code(policy.sha256)}  "
    yield (
        "  \n".join(f"{name.replace('_', ' ')} {neutral.code(value)}" for name, value in wording.about(result).items())
        + "\n"
    )
    yield from (f"- {neutral.code(one.code)} {neutral.code(one.detail)}" for one in result.problems)
    if result.decisions:
        yield f"\n{_HEAD}"
        ranked = sorted(result.decisions, key=lambda one: (one.level != "gate", WORST_FIRST.index(one.outcome)))
        yield from map(_row, ranked)
    if result.waived:
        yield "\n### Waived\n"
    for decision, instance in result.waived:
        waiver = instance.waiver
        who = f" by {neutral.code(waiver.approver)}: {neutral.code(waiver.reason)}" if waiver else ""
        yield f"- {neutral.code(wording.full_name(decision))} {neutral.code(wording.told(instance))}{who}"
    if result.warnings:
        yield "\n### Warnings\n"
    yield from (f"- {neutral.code(one)}" for one in result.warnings)


def _row(decision: Decision) -> str:
    deciding = decision.deciding
    seen, n, power = "", "", ""
    if deciding is not None:
        interval = f" [{deciding.low}, {deciding.high}]" if deciding.low is not None else ""
        seen = f"{wording.labels(deciding)} {deciding.value or ''}{interval}"
        n, power = "" if deciding.n is None else str(deciding.n), deciding.power or ""
    cells = (
        decision.outcome,
        decision.level,
        wording.full_name(decision),
        wording.subject(decision),
        seen,
        n,
        power,
        " ".join((decision.reason, wording.judged(deciding), deciding.detail) if deciding else (decision.reason,)),
    )
    return "| " + " | ".join(map(neutral.code, cells)) + " |"
