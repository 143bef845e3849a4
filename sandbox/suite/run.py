"""Runs cases in real cells of each kind, several cells at a time, beside their controls."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sandbox.cell import Cell, Kind
from sandbox.ground import Ground, marked
from sandbox.suite.attacks.words import THROUGH, Found
from sandbox.suite.case import CELLS, Case, Killer, Row, judge
from sandbox.suite.sides import Answers, Side, inside, outside, with_capabilities
from sandbox.suite.table import CASES

_AT_ONCE = 10
"""Cells and controls that run side by side; most of them wait."""
_ALONE = frozenset({"orphan", "forks", "threads", "gate32"})
_WITHOUT_PROCESSES = frozenset({"gate32"})
"""Probes that kill the whole cell where it can have no child."""
_NOT_WITHOUT_FILES = frozenset({"space"})
"""Probes of what a cell for ingestion does not have at all."""

_LISTENERS: Mapping[str, tuple[str, ...]] = {
    "tcp": ("S12", "S13"), "tcp6": ("S12",), "udp": ("S12",), "dns": ("S13",), "path": ("S15",), "abstract": ("S16",),
}  # fmt: skip
"""Whose case a caller of a listener is."""


@dataclass(frozen=True)
class _Runs:
    """Everything that was started, by what it answers."""

    batch: dict[Kind, Future[Side]] = field(default_factory=dict)
    alone: dict[tuple[Kind, str], Future[Side]] = field(default_factory=dict)
    controls: dict[str, Future[Answers]] = field(default_factory=dict)
    killers: dict[str, Future[Found]] = field(default_factory=dict)
    orphan: dict[str, Future[Found]] = field(default_factory=dict)


def run_cases(
    cell: Cell, *, kinds: Sequence[Kind] = CELLS, only: Collection[str] = (), ground: Ground, proving: bool = False
) -> list[Row]:
    """Run the cases of the table beside their controls.

    Args:
        cell: what is attacked, any backend.
        kinds: of cells; each case runs in those that it is for.
        only: ids of the cases to run, all of them when it is empty.
        ground: what was planted.
        proving: only the cases of the self-check.

    Raises:
        CellRefused: a layer could not be armed.
        CellFailed: the machine failed.
    """
    cases = [one for one in CASES if (not only or one.id in only) and (one.in_prove or not proving)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        runs = _start(pool.submit, cell, ground, kinds, cases)
        return [_row(case, kind, runs, ground) for case in cases for kind in _kinds(case, kinds)]


def _kinds(case: Case, kinds: Sequence[Kind]) -> list[Kind]:
    """A case of GPUs alone has one row however many kinds there are."""
    return [kind for kind in kinds if kind in case.kinds] or (["check_gpu"] if "check_gpu" in case.kinds else [])


def _start(
    submit: Callable[..., Future[Any]], cell: Cell, ground: Ground, kinds: Sequence[Kind], cases: Sequence[Case]
) -> _Runs:
    runs = _Runs()
    killers = {one.probe: one for case in cases for one in case.killers}
    for kind in kinds:
        for one in (one for one in killers.values() if kind in one.kinds):
            runs.alone[kind, one.probe] = submit(inside, cell, ground, kind, [one.probe], one.limits)
        wanted = [probe for case in cases if kind in case.kinds for probe in case.probes]
        _start_alone(submit, cell, ground, kind, wanted, runs)
        batch = [one for one in wanted if one not in _apart(kind)]
        if batch:
            runs.batch[kind] = submit(inside, cell, ground, kind, batch, {})
    for one in killers.values():
        runs.killers[one.probe] = submit(_outlasts, ground, one)
    probes = [probe for case in cases for probe in case.probes]
    if "orphan" in probes:
        runs.orphan["bare"] = submit(_orphan_outside, ground)
        probes.remove("orphan")
    capable = [probe for case in cases if "caps" in case.controls for probe in case.probes]
    for name, run, names in (("bare", outside, probes), ("caps", with_capabilities, capable)):
        if names:
            runs.controls[name] = submit(run, ground, names)
    return runs


def _apart(kind: Kind) -> frozenset[str]:
    return _WITHOUT_PROCESSES | _NOT_WITHOUT_FILES if kind == "ingest" else _ALONE


def _start_alone(
    submit: Callable[..., Future[Any]], cell: Cell, ground: Ground, kind: Kind, wanted: Sequence[str], runs: _Runs
) -> None:
    """Start the probes that get a cell of their own because of what they do to it, or what it must not do to others."""
    if kind == "ingest":
        if "gate32" in wanted:
            runs.alone[kind, "gate32"] = submit(inside, cell, ground, kind, ["gate32_here"], {})
        return
    for probe in sorted(_ALONE.intersection(wanted) - {"orphan"}):
        runs.alone[kind, probe] = submit(inside, cell, ground, kind, [probe], {})
    if "orphan" in wanted:
        runs.orphan[kind] = submit(_orphan_inside, cell, ground, kind)


def _orphan_inside(cell: Cell, ground: Ground, kind: Kind) -> Found:
    marker = secrets.token_hex(8)
    side = inside(cell, ground, kind, ["orphan"], {}, marker)
    if "orphan" not in side.answers:
        return {}
    return {"left": THROUGH if marked(marker) else "gone"}


def _orphan_outside(ground: Ground) -> Found:
    marker = secrets.token_hex(8)
    outside(ground, ["orphan"], marker=marker)
    found = marked(marker)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return {"left": THROUGH if found else "gone"}


def _outlasts(ground: Ground, killer: Killer) -> Found:
    """Run a killer's control: it must still run after its time, or say that it got through."""
    try:
        said = outside(ground, [killer.probe], limit_s=killer.outlasts_s or 20.0).get(killer.probe, {})
    except subprocess.TimeoutExpired:
        return {killer.probe: THROUGH if killer.outlasts_s else "too late"}
    word = next(iter(said.values()), "no answer")
    return {killer.probe: "ended early" if killer.outlasts_s else word}


def _row(case: Case, kind: Kind, runs: _Runs, ground: Ground) -> Row:
    if not case.probes and not case.killers:
        return _not_run(case, kind in runs.batch)
    found: Found = {}
    effects: list[str] = []
    for probe in case.probes:
        if probe == "orphan":
            found |= runs.orphan[kind].result()
        elif (kind, probe) in runs.alone:
            found |= _alone(runs.alone[kind, probe].result(), probe, effects)
        elif probe not in _apart(kind):
            side = runs.batch[kind].result()
            found |= side.answers.get(probe, {f"{probe}: no answer, {side.ended}": "open"})
            effects += _of_case(case, side)
    for killer in (one for one in case.killers if kind in one.kinds):
        side = runs.alone[kind, killer.probe].result()
        found[killer.probe] = side.ended
        effects += _of_case(case, side)
    if case.id in ("S29", "S30") and kind in runs.batch:
        ended = runs.batch[kind].result().ended
        effects += [] if ended == "exited" else [f"the second cell {ended}"]
    if ground.host.landlock_abi == 0:  # stated in every report
        found = {name: word for name, word in found.items() if name not in case.landlock}
    capable = "caps" not in runs.controls or bool(runs.controls["caps"].result())
    effects += _of_host(case, ground)
    return judge(case, kind, found, _controls(case, runs), effects, capable=capable)


def _alone(side: Side, probe: str, effects: list[str]) -> Found:
    """Return what a probe said that had a cell of its own; one that the cell died of, by how it died."""
    if probe in side.answers:
        effects += side.effects
        return side.answers[probe]
    return {
        "gate" if probe == "gate32" else probe: "SIGSYS" if side.ended == f"signalled {signal.SIGSYS}" else side.ended
    }


def _controls(case: Case, runs: _Runs) -> list[Found]:
    found: list[Found] = []
    for answers in (one.result() for one in runs.controls.values()):
        found.append({name: word for probe in case.probes for name, word in answers.get(probe, {}).items()})
    found += [runs.killers[one.probe].result() for one in case.killers]
    if "orphan" in case.probes:
        found.append(runs.orphan["bare"].result())
    return found


def _of_case(case: Case, side: Side) -> list[str]:
    """Which of the host's observations speak against this case."""
    table = {
        "canary": ("S01", "S02", "S04", "S16", "S24"),
        "input": ("S03", "S10"),
        "holes": ("S06",),
        "slot size": ("S06",),
    }
    return [one for one in side.effects if case.id in table[one]]


def _of_host(case: Case, ground: Ground) -> list[str]:
    if case.id == "S22" and ground.stopped():
        return ["the process does not run on"]
    called = [name for name in ground.callers if case.id in _LISTENERS[name]]
    return [f"the listener {name} was reached" for name in sorted(set(called))]


def _not_run(case: Case, gpu: bool) -> Row:
    reason = "it is not built" if gpu else "no GPU on this host"
    return Row(
        id=case.id, kind="check_gpu", word="not_applicable", attack=case.attack, control=case.shown,
        expected=case.expected, observed=f"not applicable, because: {reason}",
    )  # fmt: skip
