"""What an attempt is charged: all that may have left while it ran or after it."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select

from service.store.tables import output_charge
from tests.service.worker.scripted import OK, House


def test_the_progress_of_a_cell_that_dies_is_charged(place: House) -> None:
    """It was watched while the cell ran; the charge is the plan's, whatever was told."""
    place.cell.script = lambda order, on_step, cancelled: replace(OK, status=1)
    key = place.submit(attempts_max=1)
    place.attempt(key)
    with place.store.read() as connection:
        assert connection.execute(select(output_charge.c.bytes)).scalars().all() == [16]


def test_the_progress_of_a_cell_that_answers_is_charged_with_its_answer(place: House) -> None:
    key = place.submit()
    place.attempt(key)
    [order], [reading] = place.cell.orders, place.cell.readings
    assert (len(order.steps), len(reading.steps)) == (6, 0)
    with place.store.read() as connection:
        assert connection.execute(select(output_charge.c.bytes)).scalar_one() > 16
