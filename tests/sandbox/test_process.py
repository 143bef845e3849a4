"""The twin behaves like a cell in everything but the wall, and never hides that there is none."""

from __future__ import annotations

import time

import pytest

from sandbox import CellFailed, CellRefused, ProcessCell, Slot
from sandbox.cell import KILL_BOUND_S
from sandbox.statements import BUBBLEWRAP, EARLIER, PROCESS, SENTRY, STATEMENTS, WARM

from .conftest import MakeOrder


@pytest.mark.parametrize("unsafe", [False, None, 1, "yes"])
def test_twin_without_unsafe_is_an_error(unsafe: object) -> None:
    with pytest.raises(ValueError, match="unsafe=True"):
        ProcessCell(unsafe=unsafe)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="isolates nothing"):
        ProcessCell()


def test_seal_says_that_nothing_was_isolated(twin: ProcessCell, order: MakeOrder) -> None:
    seal = twin.run(order("os.write(3, b'[]')")).seal.to_json()
    assert seal["backend"] == "process"
    assert seal["layers"] == {}
    assert seal["statements"] == ["nothing_isolated"]
    assert seal["network"] == "host"
    assert "processes" not in {one["name"] for one in seal["limits"]}


def test_every_statement_has_its_sentence() -> None:
    assert set(BUBBLEWRAP) | set(PROCESS) | set(EARLIER) | set(WARM) | set(SENTRY) == STATEMENTS.keys()


def test_result_inputs_steps_and_slots_work_alike(twin: ProcessCell, order: MakeOrder) -> None:
    program = """
        os.write(4, b"0 1 2\\n")
        open("out/plot", "w").write("n")
        os.write(3, open("in/order.json", "rb").read() + open("in/data", "rb").read())
    """
    steps: list[tuple[str, int, int]] = []
    slots = (Slot(name="plot", max_bytes=9, released=True),)
    ordered = order(program, inputs={"data": b"!"}, slots=slots, steps=("loading",))
    outcome = twin.run(ordered, on_step=lambda *step: steps.append(step))
    assert outcome.result == b'{"hello":"cell"}!'
    assert outcome.slots[0].content == b"n"
    assert steps == [("loading", 50, 100)]


@pytest.mark.parametrize(
    ("program", "limits", "why"),
    [
        ("import time; time.sleep(30)", {"wall_s": 1}, "wall"),
        ("import time; os.write(3, b'x' * 1025); time.sleep(30)", {"result_bytes": 1024}, "output_cap"),
        ("while True: os.write(1, b'y' * 4096)", {"log_bytes": 1024}, "log_flood"),
        ("x = b'1' * (300 * 2**20); import time; time.sleep(30)", {"memory_bytes": 2**28}, "memory"),
        ("bytearray(2**45)", {}, "memory"),
    ],
)
def test_limits_bite_alike(twin: ProcessCell, order: MakeOrder, program: str, limits: dict[str, int], why: str) -> None:
    assert twin.run(order(program, limits=limits)).why == why


def test_twin_cancels_and_reports_crashes(twin: ProcessCell, order: MakeOrder) -> None:
    assert twin.run(order("import time; time.sleep(30)"), cancelled=lambda: True).why == "cancelled"
    crashed = twin.run(order("os.abort()"))
    assert (crashed.ended, crashed.status) == ("signalled", 6)


def test_twin_refuses_bad_orders_alike(twin: ProcessCell, order: MakeOrder) -> None:
    with pytest.raises(CellRefused):
        twin.run(order("pass", limits={"wall_s": 0}))
    with pytest.raises(CellRefused):
        twin.run(order("pass", nonce=""))


def test_twin_proves_nothing(twin: ProcessCell) -> None:
    assert [one.word for one in twin.prove().cases] == ["void"]


def test_what_outlives_the_kill_is_told_within_the_bound_that_the_lease_counts_on(order: MakeOrder) -> None:
    escaped = """
        import time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(3)
            os._exit(0)
        os.wait()
        time.sleep(30)
    """
    cell = ProcessCell(unsafe=True, kill_bound_s=0.3)
    began = time.monotonic()
    try:
        with pytest.raises(CellFailed, match="cell_unkillable"):
            cell.run(order(escaped, limits={"wall_s": 1}))
    finally:
        cell.close()
    assert 1.3 <= time.monotonic() - began < KILL_BOUND_S / 2 + 1


@pytest.mark.parametrize("bound_s", [0.0, -1.0, KILL_BOUND_S + 0.1, float("nan")])
def test_a_kill_bound_is_never_longer_than_the_sandboxs_promise(bound_s: float) -> None:
    with pytest.raises(ValueError, match="kill_bound_s"):
        ProcessCell(unsafe=True, kill_bound_s=bound_s)
