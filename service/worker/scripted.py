"""Cells that do what a script says, for rehearsals of the service: `assay-server dev --cell script=FILE`.

The model is read as ever, in a cell of its own; the cell that would measure runs `scripted_guest.py` instead of the
checks. It measures nothing, so the best that it answers is a refusal: signed, verified and told like any other answer.
All of it runs in the sandbox's twin that isolates nothing, and every seal says so. Production keys never sign that.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from assay import canonical

from sandbox import CodeMount, ProcessCell
from sandbox.cell import Cancelled, OnStep, Order, Outcome, Proof, ignore, never
from sandbox.inputs import Held

GUEST = Path(__file__).with_name("scripted_guest.py")
LINES_MAX = 1000

VERBS: Mapping[str, bool] = {
    "ok": False,
    "refuse": False,
    "crash": True,
    "hang": False,
    "oom": False,
    "forks": True,
    "big": False,
    "garbage": False,
    "slow": True,
}
"""Verbs and whether each has a number (specs: service, section 20). ok: every check refuses with a reason of its
own · refuse: as if the model had been refused · crash n: die of signal n · hang: until killed · oom: ask for more
memory than there is · forks n: start n processes and wait · big: twice the result's cap · garbage: random bytes for a
result · slow s: `ok` after s seconds.
"""


class ScriptRefused(ValueError):
    """A script cannot be used; the message names the line."""


@dataclass(frozen=True)
class Line:
    """What one cell does."""

    verb: str
    number: float = 0.0


def read_script(path: Path) -> tuple[Line, ...]:
    """Read a script: a verb and its number in each line; `#` begins a comment.

    Raises:
        ScriptRefused: it cannot be read, is empty or too long, or a line is not of the table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptRefused(f"{path}: cannot be read: {error}") from error
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    found = tuple(_line(words, f"{path}:{number}") for number, words in enumerate(lines, 1) if words)
    if not 0 < len(found) <= LINES_MAX:
        raise ScriptRefused(f"{path}: {len(found)} lines of a script; 1 to {LINES_MAX} are one")
    return found


def _line(words: list[str], where: str) -> Line:
    numbered = VERBS.get(words[0])
    if numbered is None or len(words) != 1 + numbered:
        known = ", ".join(f"{verb} N" if number else verb for verb, number in VERBS.items())
        raise ScriptRefused(f"{where}: {' '.join(words)[:40]!r} is no line of a script; known are {known}")
    try:
        number = float(words[1]) if numbered else 0.0
    except ValueError:
        number = -1.0
    if not 0 <= number <= 3600 or (words[0] == "crash" and number not in range(1, 32)):
        raise ScriptRefused(f"{where}: {words[1][:20]!r} is no number for {words[0]}: signals are 1-31, seconds 0-3600")
    return Line(words[0], number)


class ScriptedCell:
    """A `Cell` whose measuring cells follow a script.

    An audit gets the same line at every attempt: it is chosen by the registered seed.

    Args:
        inner: the twin that runs all of it.
        script: what cells do.
        reasons: of each check the reason with which it refuses.
    """

    def __init__(self, inner: ProcessCell, script: tuple[Line, ...], reasons: Mapping[str, str]) -> None:
        self._inner = inner
        self._script = script
        self._reasons = dict(reasons)

    def prove(self) -> Proof:
        """See `ProcessCell.prove`: it claims nothing."""
        return self._inner.prove()

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        """Run one order; see `sandbox.cell.Cell.run`."""
        if order.kind != "ingest":
            order = self._rehearsed(order)
        outcome = self._inner.run(order, on_step=on_step, cancelled=cancelled, held=held)
        return replace(outcome, seal=replace(outcome.seal, version=f"scripted-{outcome.seal.version}"))

    @property
    def kill_bound_s(self) -> float:
        """The twin's."""
        return self._inner.kill_bound_s

    def close(self) -> None:
        """End the launching thread."""
        self._inner.close()

    def _rehearsed(self, order: Order) -> Order:
        line = self._script[_place(order, len(self._script))]
        told = {"parent": os.getpid(), "verb": line.verb, "number": str(line.number), "reasons": self._reasons}
        return replace(
            order,
            module=GUEST.stem,
            arguments=(canonical.dumps(told).decode(),),
            code=(CodeMount(name=GUEST.name, source=GUEST),),
        )


def _place(order: Order, lines: int) -> int:
    seed = json.loads(order.request)["seed"]
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4]) % lines
