"""Files that checks hand out: declared, held against what was said of them, charged, and never lost unsaid."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from assay import canonical
from sqlalchemy import select

from checks.documents import slot_of
from sandbox.cell import Cancelled, Filled, OnStep, Order, Outcome
from sandbox.slots import Withheld
from service.rules.manifest import weights_sha256
from service.store import budget
from service.store.tables import attempt, output_charge
from service.worker.artefacts import promised_by
from service.worker.errors import HostFault
from service.worker.promises import Entry
from service.worker.request import AskedCheck
from tests.service.worker.scripted import OK, House, answer, catalogue, document, filled
from tests.service.worker.test_attempt import classes, record

CARDS = {"name": "cards.json", "media_type": "application/json", "max_bytes": 40_000, "summary": "Cards."}
TABLE = {"name": "table.bin", "media_type": "application/octet-stream", "max_bytes": 40_000, "summary": "A table."}
CATALOGUE = catalogue(artefacts=[CARDS, TABLE])
CONTENT = b'{"cards":[]}'


def told(place: str, content: bytes, **changes: Any) -> dict[str, Any]:
    check, _, name = place.partition(".")
    digest = hashlib.sha256(content).hexdigest()
    return {"check": check, "name": name, "slot": place, "sha256": digest, "size": len(content), **changes}


def handing(*files: tuple[str, bytes], say: Any = None, **changes: Any) -> Callable[..., Outcome]:
    """A cell that fills slots and tells of them."""

    def script(order: Order, _on_step: OnStep, _cancelled: Cancelled) -> Outcome:
        given = dict(files)
        slots = tuple(filled(slot.name, given.pop(slot.name, b"")) for slot in order.slots)
        said = [told(slot, content) for slot, content in files] if say is None else say
        more = {"artefacts": said} if said else {}
        result = canonical.dumps(document(order, **more, **changes))
        return replace(OK, result=result, slots=(*slots, *(filled(name, data) for name, data in given.items())))

    return script


def spent(place: House) -> int:
    with place.store.read() as connection:
        return int(connection.execute(select(output_charge.c.bytes)).scalar_one())


def test_what_is_handed_out_is_recorded_stored_and_charged(place: House) -> None:
    place.cell.script = handing()
    place.attempt(place.submit(0), catalogue=CATALOGUE)
    before = spent(place)
    place.cell.script = handing(("scripted.cards.json", CONTENT))
    key = place.submit(1)
    place.attempt(key, catalogue=CATALOGUE)
    assert classes(place, key) == ["OK"]
    [one] = record(place, key)["answers"]
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert one["artefacts"] == [
        {"name": "cards.json", "media_type": "application/json", "sha256": digest, "size": len(CONTENT)}
    ]
    assert place.blobs.open(digest).read() == CONTENT
    [order] = place.cell.orders[1:]
    assert [(slot.name, slot.max_bytes, slot.released) for slot in order.slots] == [
        ("scripted.cards.json", 40_000, True), ("scripted.table.bin", 40_000, True),
    ]  # fmt: skip
    with place.store.read() as connection:
        charges = connection.execute(select(output_charge.c.bytes).where(output_charge.c.audit == key)).scalar_one()
    assert len(CONTENT) <= charges - before <= len(CONTENT) + 8


def test_what_does_not_fit_is_left_out_and_the_answer_says_so(place: House) -> None:
    """The first fits, the second would go over; a smaller one after it is not punished for that."""
    big, small = b"x" * 3_000, b"y" * 100
    place.cell.script = handing(("scripted.cards.json", big), ("scripted.table.bin", small))
    key = place.submit(output_bytes=2_000)
    place.attempt(key, catalogue=CATALOGUE)
    [one] = record(place, key)["answers"]
    assert [file["name"] for file in one["artefacts"]] == ["table.bin"]
    assert one["skipped"] == [{"item": "artefact:cards.json", "reason": "output_budget"}]
    assert one["outcome"] == "measured"
    assert spent(place) < 2_000
    assert place.blobs.size(hashlib.sha256(big).hexdigest()) is None


def test_a_check_without_artefacts_has_no_slots(place: House) -> None:
    key = place.submit()
    place.attempt(key)
    assert [order.slots for order in place.cell.orders] == [()]
    assert "artefacts" not in record(place, key)["answers"][0]


REFUSED = [{**answer(), "outcome": "refused", "reason": "too_few_items", "valid": False, "measured": None,
            "controls": [], "findings": []}]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (
            handing(("scripted.cards.json", CONTENT), say=[told("scripted.cards.json", b"other")]),
            "host_field_disagrees",
        ),
        (
            handing(("scripted.cards.json", CONTENT), say=[told("scripted.cards.json", CONTENT, size=True)]),
            "host_field",
        ),
        (handing(say=[told("scripted.cards.json", CONTENT)]), "result_missing"),
        (handing(("scripted.cards.json", CONTENT), say=[]), "unknown_slot"),
        (handing(("scripted.other", CONTENT)), "unknown_slot"),
        (handing(say=[told("config.json", CONTENT)]), "unknown_slot"),
        (handing(say=[told("scripted.cards.json", CONTENT, slot=7)]), "unknown_slot"),
        (handing(("scripted.cards.json", CONTENT), say=[told("scripted.cards.json", CONTENT)] * 2), "unknown_slot"),
        (handing(("scripted.cards.json", b"x" * 40_001)), "slot_too_large"),
        (
            handing(("scripted.cards.json", CONTENT), say=[told("scripted.cards.json", CONTENT, name="a")]),
            "result_schema",
        ),
        (
            handing(("scripted.cards.json", CONTENT), say=[told("scripted.cards.json", CONTENT, check="b")]),
            "result_schema",
        ),
        (
            handing(("scripted.cards.json", CONTENT), say=[told("scripted.cards.json", CONTENT, more=1)]),
            "result_schema",
        ),
        (handing(say={"a": 1}), "result_schema"),
        (handing(say=[7]), "result_schema"),
        (handing(("scripted.cards.json", CONTENT), answers=REFUSED), "result_schema"),
    ],
)
def test_what_is_said_of_a_file_is_held_against_its_bytes(place: House, script: Any, code: str) -> None:
    place.cell.script = script
    key = place.submit()
    place.attempt(key, catalogue=CATALOGUE)
    assert classes(place, key) == ["RESULT_REJECTED"]
    with place.store.read() as connection:
        assert code in connection.execute(select(attempt.c.operator_note)).scalar_one()


def test_a_slot_that_was_withheld_rejects_the_whole(place: House) -> None:
    def script(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        outcome = handing(("scripted.cards.json", CONTENT))(order, on_step, cancelled)
        held: list[Filled] = [
            Withheld(name=one.name, size=one.size, sha256=one.sha256, content=b"", code="slot_not_regular")
            for one in outcome.slots
            if one.size
        ]
        return replace(outcome, slots=tuple(held))

    place.cell.script = script
    key = place.submit()
    place.attempt(key, catalogue=CATALOGUE)
    assert classes(place, key) == ["RESULT_REJECTED"]


def test_over_a_lifetime_cap_no_file_leaves(place: House) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    model = weights_sha256(place.put_model(files))
    with place.store.begin() as connection:
        budget.lower(connection, model_sha256=model, cap=500)
    place.cell.script = handing(("scripted.cards.json", b"x" * 3_000))
    key = place.submit(files=files)
    place.attempt(key, catalogue=CATALOGUE)
    [one] = record(place, key)["answers"]
    assert (one["reason"], "artefacts" in one) == ("output_budget", False)


def test_slots_are_named_as_the_cell_names_them() -> None:
    asked = [AskedCheck(name=name, version="1", params={}) for name in ("a", "b", "a")]
    promises = {name: Entry(raw={"artefacts": [CARDS]}, sha256="") for name in ("a", "b")}
    made = promised_by(asked, promises)
    assert [one.slot.name for one in made] == [
        slot_of("a", 1, "cards.json"), slot_of("b", 1, "cards.json"), slot_of("a", 2, "cards.json"),
    ]  # fmt: skip
    assert [one.answer for one in made] == [0, 1, 2]


def test_two_files_of_one_slot_are_refused_before_a_cell_starts() -> None:
    asked = [AskedCheck(name="a", version="1", params={})] * 2
    files = [{**CARDS, "name": "2.x"}, {**CARDS, "name": "x"}]
    with pytest.raises(HostFault, match="two audits"):
        promised_by(asked, {"a": Entry(raw={"artefacts": files}, sha256="")})
