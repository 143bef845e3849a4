"""How a container ended, in the engine's words, and the result that it left in a file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sandbox.cell import KILL_BOUND_S
from sandbox.container import engine
from sandbox.container.contained import Contained
from sandbox.errors import CellFailed, ResultRejected
from sandbox.slots import Opened, take_slots

_ENDED = ("exited", "stopped", "dead")
"""States of a container that has no process any more, by either engine."""


def _state(run: Contained) -> Mapping[str, Any]:
    state: Mapping[str, Any] = engine.inspect(run.settings, run.container)["State"]
    return state


def check_over(run: Contained) -> None:
    """The command has ended; so must the container have.

    Raises:
        CellFailed: host_lost.
    """
    if _state(run).get("Status") not in _ENDED:
        raise CellFailed("host_lost", f"{run.settings.engine} left container {run.container[:12]} alone")
    run.over = True


def settle(run: Contained) -> None:
    """Take the end from the engine, not from its command: the command's own status may be its own failure.

    Raises:
        CellFailed: cell_unkillable, when the container is still there five seconds after it was killed.
    """
    deadline = time.monotonic() + KILL_BOUND_S
    while (state := _state(run)).get("Status") not in _ENDED:
        if time.monotonic() > deadline:
            raise CellFailed("cell_unkillable", f"container {run.container[:12]} still runs")
        engine.kill(run.settings, run.container)
    run.status = int(state["ExitCode"])
    if state.get("OOMKilled") is True:
        run.spent = run.spent or "memory"


def fetch(run: Contained, result: Opened) -> None:
    """Take the result from its file; more than the cap is as if it had been written to a pipe.

    Raises:
        CellFailed: host_lost.
    """
    try:
        (filled,) = take_slots([result])
    except ResultRejected as error:
        if error.code == "slot_too_large":
            run.drain.why = run.drain.why or "output_cap"
        return
    except OSError as error:
        raise CellFailed("host_lost", f"result: {error}") from None
    run.drain.result += filled.content
