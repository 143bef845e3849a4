"""Each layer is taken away on purpose: the gate refuses the cell, or a case that was denied gets through."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sandbox import BubblewrapCell, CellRefused, Order, SandboxError, selfcheck
from sandbox.ground import Ground, planted
from sandbox.suite import CASES, launches, run_cases
from sandbox.suite.case import Row

from .conftest import MakeOrder
from .suite.walls.without import LAYERS, NO_DEATH_SIGNAL, Layer, without

FEW = ("outer filter", "Landlock", "limit of processes", "cleared environment", "masks of /proc")
"""Those of the default run: two that the gate sees, one that limits, two that cases alone notice."""
HELD = frozenset({"denied", "contained", "killed", "not_applicable"})


@dataclass(frozen=True)
class Noticed:
    """Who noticed that a layer is missing."""

    gate: str
    cases: tuple[str, ...]

    def line(self, layer: Layer) -> str:
        """Return a line of the table."""
        return f"{layer.name:26} gate: {self.gate or '-':70} cases: {', '.join(self.cases) or '-'}"


@pytest.fixture(scope="module")
def ground(cell: BubblewrapCell) -> Iterator[Ground]:
    with planted(selfcheck.host_of(cell)) as there:
        yield there


def gate_says(cell: BubblewrapCell, layer: Layer, order: Order) -> str:
    """Return the refusal of a cell without a layer, "" when it was started."""
    with without(layer):
        try:
            outcome = cell.run(order)
        except CellRefused as refused:
            return refused.item if refused.code == "not_armed" else refused.code
    assert outcome.status == 0
    return ""


def opened(cell: BubblewrapCell, layer: Layer, ground: Ground, only: tuple[str, ...]) -> tuple[str, ...]:
    """Return the cases that are open without a layer, behind a gate that sees nothing."""
    if not only:
        return ()
    with without(layer, blind=True):
        try:
            rows: list[Row] = run_cases(cell, ground=ground, only=only)
        except SandboxError:  # what the layer is for is needed to start at all
            return ()
    assert not [row for row in rows if row.word == "void"], rows
    return tuple(f"{row.id} {row.kind}" for row in rows if row.word not in HELD)


def expect(layer: Layer, noticed: Noticed) -> None:
    assert noticed.gate.startswith(layer.gate), noticed
    assert bool(noticed.gate) == bool(layer.gate), noticed
    assert set(layer.cases) <= {one.split()[0] for one in noticed.cases}, noticed
    assert noticed.gate or noticed.cases


def test_every_layer_has_somebody_who_notices() -> None:
    assert len(LAYERS) >= 16
    assert all(layer.gate or layer.cases for layer in LAYERS)
    assert set(FEW) < {layer.name for layer in LAYERS}


@pytest.mark.parametrize("name", FEW)
def test_a_layer_taken_away_is_noticed(cell: BubblewrapCell, ground: Ground, order: MakeOrder, name: str) -> None:
    layer = next(one for one in LAYERS if one.name == name)
    noticed = Noticed(gate_says(cell, layer, order("pass")), opened(cell, layer, ground, layer.cases))
    print(noticed.line(layer))
    expect(layer, noticed)


def test_with_every_layer_on_the_same_cases_hold(cell: BubblewrapCell, ground: Ground, order: MakeOrder) -> None:
    """The control of this file: what is noticed is the missing layer."""
    few = {case for layer in LAYERS if layer.name in FEW for case in layer.cases}
    rows = run_cases(cell, ground=ground, only=few)
    assert {row.word for row in rows} <= HELD
    assert cell.run(order("pass")).status == 0


@pytest.mark.slow  # two minutes: every case against every layer
def test_each_layer_taken_away_in_turn_is_noticed(
    cell: BubblewrapCell, ground: Ground, order: MakeOrder, capsys: pytest.CaptureFixture[str]
) -> None:
    killers = {"S30", "S31"}  # seconds each; run for the layers that they are about
    every = tuple(case.id for case in CASES if case.id not in killers)
    table: dict[str, Noticed] = {}
    for layer in LAYERS:
        if layer.root_only and os.geteuid() != 0:
            continue
        only = tuple({*every, *layer.cases})
        table[layer.name] = Noticed(gate_says(cell, layer, order("pass")), opened(cell, layer, ground, only))
    with capsys.disabled():
        print("\nlayer taken away           who notices")
        for layer in LAYERS:
            if layer.name in table:
                print(table[layer.name].line(layer))
    for layer in LAYERS:
        if layer.name in table:
            expect(layer, table[layer.name])
    assert len(table) >= 16


@pytest.mark.slow  # a launcher of its own
def test_without_its_death_signal_a_cell_outlives_its_launcher(ground: Ground) -> None:
    assert launches.launcher_killed(ground).word == "contained"
    assert launches.launcher_killed(ground, NO_DEATH_SIGNAL).word == "open"
