"""What an attempt is charged: all that may have left while it ran or after it."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select

from service.store import budget
from service.store.tables import output_charge
from tests.service.worker.scripted import OK, House
from tests.service.worker.test_attempt import record


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


WEIGHTS = {"config.json": b"{}", "a.safetensors": b"one", "b.safetensors": b"two"}


def test_a_licence_beside_the_same_weights_gives_no_fresh_caps(place: House) -> None:
    renamed = {"config.json": b'{"a":1}', "LICENSE": b"mine", "1.safetensors": b"two", "2.safetensors": b"one"}
    twice = {**WEIGHTS, "c.safetensors": b"one"}
    for n, files in enumerate((WEIGHTS, renamed, twice)):
        place.attempt(place.submit(n, files=files))
    with place.store.read() as connection:
        charges = connection.execute(select(output_charge.c.model_sha256, output_charge.c.bytes)).all()
        [model] = {one.model_sha256 for one in charges}
        spent = sum(one.bytes for one in charges)
        assert budget.lifetime(connection, principal="p", model_sha256=model).bytes == spent
    with place.store.begin() as connection:
        budget.lower(connection, model_sha256=model, cap=spent)
    withheld = place.submit(3, files={**WEIGHTS, "LICENSE": b"other"})
    place.attempt(withheld)
    assert [one["reason"] for one in record(place, withheld)["answers"]] == ["output_budget"]


def test_other_weights_have_caps_of_their_own(place: House) -> None:
    for n, files in enumerate((WEIGHTS, {**WEIGHTS, "b.safetensors": b"three"})):
        place.attempt(place.submit(n, files=files))
    with place.store.read() as connection:
        assert len(set(connection.execute(select(output_charge.c.model_sha256)).scalars())) == 2
