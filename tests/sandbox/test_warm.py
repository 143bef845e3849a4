"""A cell that was started before its order was known is walled like any other, and serves one order."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import BubblewrapCell, BubblewrapSettings, CellRefused, CodeMount, Order, Outcome, Slot, cgroups, procfs
from sandbox.bubblewrap import gate, profile
from sandbox.cell import Cancelled, OnStep, Proof, ignore, never
from sandbox.ground import planted
from sandbox.inputs import Held
from sandbox.selfcheck import host_of
from sandbox.statements import STATEMENTS
from sandbox.suite import run_cases
from sandbox.supervise import readable
from sandbox.warm import WarmCell
from sandbox.warm.spare import Spare

from .conftest import MakeOrder
from .test_cgroups import here

__all__ = ["here"]

GOLDEN = "80f976c1694ba2c7ccca8ae730978d5c15299bba0dc148b0a4a897da3dc52b7c"
"""Of the profile of a warm cell; changes only when what such a cell is changes."""

Make = Callable[..., WarmCell]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def make(work: Path) -> Iterator[Make]:
    """Make warm cells; at the end nothing of them may be left."""
    made: list[WarmCell] = []

    def one(preload: tuple[str, ...] = ("json",), **settings: Any) -> WarmCell:
        inner = BubblewrapCell(BubblewrapSettings(site_packages=(), work_dir=work, **settings))
        made.append(WarmCell(inner, spares=1, preload=preload))
        return made[-1]

    yield one
    for warm in made:
        warm.close()
    assert os.listdir(work) == []


def spare_of(warm: WarmCell) -> Spare:
    (spare,) = warm._spares
    return spare


def run_warm(warm: WarmCell, order: Order, **more: Any) -> Outcome:
    warm.expect(order)
    before = warm.started.warm
    outcome = warm.run(order, **more)
    assert warm.started.warm == before + 1, "it started cold"
    return outcome


def importing(order: Order, tmp_path: Path, text: str) -> Order:
    """Return the order with a module `early` that a spare may import."""
    path = tmp_path / "early.py"
    path.write_text(textwrap.dedent(text))
    return replace(order, code=(*order.code, CodeMount(name="early.py", source=path)))


class AlwaysWarm:
    """Starts every order of kind check warm, or fails."""

    def __init__(self, cell: BubblewrapCell) -> None:
        self.cell = cell
        self.count = 0

    def prove(self) -> Proof:
        raise NotImplementedError

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        warm = WarmCell(self.cell, spares=1, preload=("json", "ctypes"))
        try:
            self.count += order.kind == "check"
            return run_warm(warm, order) if order.kind == "check" else self.cell.run(order)
        finally:
            warm.discard()


def test_every_attack_of_the_self_check_ends_in_a_warm_cell_as_in_a_cold_one(
    cell: BubblewrapCell, tmp_path: Path
) -> None:
    warm = AlwaysWarm(cell)
    with planted(host_of(cell)) as ground:
        rows = run_cases(warm, kinds=("check",), ground=ground, proving=True)
        cold = run_cases(cell, kinds=("check",), ground=ground, proving=True)
    assert [row for row in rows if row.word in ("open", "void")] == []
    assert [(row.id, row.word, row.observed) for row in rows] == [(row.id, row.word, row.observed) for row in cold]
    assert (len(rows) > 20, warm.count > 5) == (True, True)


READS = """os.write(3, (open('/in/order.json').read() + open('/in/a').read() + str(sorted(os.listdir('/in')))
    + str('json' in sys.modules)).encode())"""


def test_a_warm_cell_runs_its_order_and_says_how_it_started(make: Make, order: MakeOrder) -> None:
    warm = make()
    asked = order(READS, inputs={"a": b"x"})
    outcome = run_warm(warm, asked)
    assert outcome.result == b"{\"hello\":\"cell\"}x['a', 'order.json']True", outcome.log_tail
    cold = warm._cell.run(asked)
    assert (cold.result is not None, outcome.seal.layers) == (True, cold.seal.layers)
    assert set(outcome.seal.statements) - set(cold.seal.statements) == {"started_warm"}
    assert "started_warm" in STATEMENTS
    assert outcome.seal.limits == cold.seal.limits
    assert outcome.seal.policy_sha256 == profile.digest("check", warm=True) != cold.seal.policy_sha256


def test_profile_of_a_warm_cell_is_golden() -> None:
    assert profile.digest("check", warm=True) == GOLDEN
    cold, warm = (json.loads(profile.document("check", warm=one)) for one in (False, True))
    assert warm.pop("start") == "warm"
    assert cold == warm, "same arguments, filters, rules, masks and limits"


def test_a_spare_serves_one_order(make: Make, order: MakeOrder) -> None:
    warm = make()
    asked = order(
        "import json\nfresh = not hasattr(json, 'mark') and os.listdir('/scratch') == []\n"
        "json.mark = 1\nopen('/scratch/x', 'w').write('x')\nos.write(3, str(fresh).encode())"
    )
    warm.expect(asked)
    pids = set()
    for _ in range(3):
        pids.add(spare_of(warm).pid)
        assert warm.run(asked).result == b"True"
    assert (len(pids), warm.started.warm) == (3, 3)


def test_inputs_put_in_later_are_read_only_and_not_the_hosts_to_change(make: Make, order: MakeOrder) -> None:
    program = """
    said = []
    for how in (lambda: open('/in/a', 'r+'), lambda: open('/in/new', 'w'), lambda: os.unlink('/in/a'),
                lambda: os.rename('/in/a', '/in/b'), lambda: os.chmod('/in/a', 0o777), lambda: os.rmdir('/in'),
                lambda: os.link('/in/a', '/scratch/a')):
        try:
            how(); said.append(0)
        except OSError as error:
            said.append(error.errno)
    os.write(3, str(said).encode())
    """
    outcome = run_warm(make(), order(program, inputs={"a": b"x"}))
    found = json.loads(outcome.result or b"[0]")
    assert set(found) <= {13, 30, 16, 18, 1}, found


def test_lower_limits_of_an_order_hold_in_a_spare_that_had_higher_ones(make: Make, order: MakeOrder) -> None:
    warm = make()
    warm.expect(order("pass"))
    code = order("import resource as r\nos.write(3, str([r.getrlimit(n)[0] for n in (r.RLIMIT_NPROC, r.RLIMIT_NOFILE, "
                 "r.RLIMIT_CPU, r.RLIMIT_AS, r.RLIMIT_FSIZE)]).encode())").code  # fmt: skip
    limits = {"processes": 7, "open_files": 99, "cpu_s": 5, "memory_bytes": 2**28, "wall_s": 20}
    asked = replace(order("pass"), code=code)
    warm.expect(asked)
    warm.discard()
    warm.expect(asked)
    outcome = warm.run(replace(asked, limits=limits))
    assert warm.started.warm == 1
    assert json.loads(outcome.result or b"") == [7, 99, 5, 2**28 + 4 * 2**30, 2**30], outcome.log_tail
    told = {one.name: one.value for one in outcome.seal.limits}
    assert {name: told[name] for name in limits} == limits


@pytest.mark.parametrize(
    ("program", "limits", "why"),
    [
        ("x = bytearray(2**29)", {"memory_bytes": 2**28}, "memory"),
        ("import time; time.sleep(60)", {"wall_s": 1}, "wall"),
        ("while True: pass", {"cpu_s": 1}, "cpu"),
        ("os.write(3, b'x' * 2000)", {"result_bytes": 1024}, "output_cap"),
        ("while True: os.write(2, b'x' * 65536)", {"log_bytes": 1024}, "log_flood"),
    ],
)
def test_a_warm_program_is_killed_at_its_limit(
    make: Make, order: MakeOrder, program: str, limits: dict[str, int], why: str
) -> None:
    warm = make()
    asked = order(program)
    warm.expect(asked)
    outcome = warm.run(replace(asked, limits={"wall_s": 20, **limits}))
    assert (outcome.ended, outcome.why, warm.started.warm) == ("killed", why, 1), outcome.log_tail


@pytest.mark.parametrize(
    "change", [{"limits": {"open_files": 2048}}, {"limits": {"scratch_bytes": 2**20}}, {"slots": ("x",)}, {"code": 1}]
)
def test_an_order_that_a_spare_does_not_fit_starts_cold(make: Make, order: MakeOrder, change: dict[str, Any]) -> None:
    warm = make()
    asked = order("os.write(3, b'1')")
    warm.expect(asked)
    slots = tuple(Slot(name=name, max_bytes=9, released=False) for name in change.get("slots", ()))
    more = order("os.write(3, b'1')").code if "code" in change else asked.code
    asked = replace(asked, limits=change.get("limits", asked.limits), slots=slots, code=more)
    assert (warm.run(asked).result, warm.started.cold) == (b"1", 1)
    assert (warm.run(asked).result, warm.started.warm) == (b"1", 1), "spares follow the last order"


def test_slots_of_a_warm_cell_come_out(make: Make, order: MakeOrder) -> None:
    slots = (Slot(name="s", max_bytes=9, released=False),)
    outcome = run_warm(make(), order("open('/out/s', 'w').write('abc'); os.write(3, b'1')", slots=slots))
    assert [one.content for one in outcome.slots] == [b"abc"]


def test_a_spare_that_imported_other_code_than_lies_on_the_disk_is_discarded(
    make: Make, order: MakeOrder, tmp_path: Path
) -> None:
    warm = make(("early",))
    asked = importing(order("import early; os.write(3, early.WORD)"), tmp_path, "WORD = b'old'")
    assert run_warm(warm, asked).result == b"old"
    old = spare_of(warm).pid
    (tmp_path / "early.py").write_text("WORD = b'new'")
    assert (warm.run(asked).result, warm.started.cold) == (b"new", 1)
    assert not Path(f"/proc/{old}").exists()


LEAVES = {
    "a descriptor": ("import os; kept = os.dup(1)", "descriptors"),
    "a child": ("import os, time\nif os.fork() == 0: time.sleep(60); os._exit(0)", "tasks"),
    "a mapped socket": ("import os; kept = os.pipe()", "descriptors"),
}


@pytest.mark.parametrize("what", LEAVES)
def test_the_gate_refuses_a_spare_in_which_an_import_left(
    make: Make, order: MakeOrder, tmp_path: Path, what: str
) -> None:
    text, layer = LEAVES[what]
    warm = make(("early",))
    asked = importing(order("os.write(3, b'1')"), tmp_path, text)
    warm.expect(asked)
    with pytest.raises(CellRefused) as caught:
        warm.run(asked)
    assert (caught.value.code, caught.value.item.partition(":")[0]) == ("not_armed", layer)


def test_the_gate_refuses_a_spare_with_more_in_its_folder_than_the_order_has(make: Make, order: MakeOrder) -> None:
    warm = make()
    asked = order("os.write(3, b'1')")
    warm.expect(asked)
    (spare_of(warm).ready.root / "in" / "strange").touch()
    with pytest.raises(CellRefused, match="strange"):
        warm.run(asked)


@pytest.mark.parametrize("layer", ["mounts", "descriptors", "rlimits", "seccomp", "uid", "capabilities", "landlock"])
def test_the_gate_looks_at_every_layer_again(
    make: Make, order: MakeOrder, monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    warm = make()
    asked = order("os.write(3, b'1')")
    warm.expect(asked)
    monkeypatch.setattr(gate, "ROWS", {**gate.ROWS, layer: lambda _armed: "as a test wants it"})
    with pytest.raises(CellRefused) as caught:
        warm.run(asked)
    assert caught.value.item.startswith(layer)


def test_rlimits_that_were_not_lowered_are_noticed(
    make: Make, order: MakeOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sandbox.warm import cell as module

    warm = make()
    asked = order("os.write(3, b'1')")
    warm.expect(asked)
    line = module._line
    monkeypatch.setattr(module, "_line", lambda order, _lower: line(order, {}))
    with pytest.raises(CellRefused) as caught:
        warm.run(asked)
    assert caught.value.item.startswith("rlimits")


@pytest.mark.parametrize("text", ["raise RuntimeError", "import os; os._exit(3)", "import nothing_like_it"])
def test_a_spare_that_cannot_import_is_replaced_by_a_cold_start(
    make: Make, order: MakeOrder, tmp_path: Path, text: str
) -> None:
    warm = make(("early",))
    asked = importing(order("os.write(3, b'1')"), tmp_path, text)
    warm.expect(asked)
    assert (warm.run(asked).result, warm.started.cold) == (b"1", 1)


def test_a_spare_that_was_killed_is_replaced_by_a_cold_start(make: Make, order: MakeOrder) -> None:
    warm = make()
    asked = order("os.write(3, b'1')")
    warm.expect(asked)
    pidfd = os.pidfd_open(spare_of(warm).pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert readable(pidfd, 5)
    os.close(pidfd)
    assert (warm.run(asked).result, warm.started.cold) == (b"1", 1)


def test_a_corrupt_input_is_refused_and_the_spare_is_gone(make: Make, order: MakeOrder, work: Path) -> None:
    warm = make()
    asked = order("os.write(3, b'1')", inputs={"a": b"x"})
    warm.expect(asked)
    pid = spare_of(warm).pid
    wrong = replace(asked.inputs[0], sha256=hashlib.sha256(b"y").hexdigest())
    with pytest.raises(CellRefused) as caught:
        warm.run(replace(asked, inputs=(wrong,)))
    assert (caught.value.code, Path(f"/proc/{pid}").exists()) == ("input_digest", False)


def test_an_order_that_nobody_wants_any_more_does_not_wait_for_an_import(
    make: Make, order: MakeOrder, tmp_path: Path
) -> None:
    warm = make(("early",))
    asked = importing(order("import time; time.sleep(60)"), tmp_path, "import time; time.sleep(60)")
    warm.expect(asked)
    assert warm.run(asked, cancelled=lambda: True).why == "cancelled"


def test_arguments_and_modules_of_any_length_arrive(make: Make, order: MakeOrder) -> None:
    for length in (0, 4096, 2**14, 2**16):
        asked = order("os.write(3, str(len(sys.argv[1])).encode())", arguments=("x" * length,))
        warm = make()
        warm.expect(asked)
        assert warm.run(asked).result == str(length).encode()
        assert warm.started.warm == (length < 2**15)
        warm.discard()


def test_spares_leave_nothing_behind(make: Make, order: MakeOrder, work: Path) -> None:
    warm = make()
    asked = order("os.write(3, b'1')")
    run_warm(warm, asked)
    warm.discard()
    before = (len(os.listdir("/proc/self/fd")), Path("/proc/self/mountinfo").read_text())
    for _ in range(5):
        run_warm(warm, asked)
    pid = spare_of(warm).pid
    assert len(procfs.tree(pid)) >= 1
    warm.discard()
    assert (len(os.listdir("/proc/self/fd")), Path("/proc/self/mountinfo").read_text()) == before
    assert (os.listdir(work), Path(f"/proc/{pid}").exists()) == ([], False)


def test_a_warm_cell_has_its_control_group_from_the_start(make: Make, order: MakeOrder, here: cgroups.Parent) -> None:
    warm = make(cgroup_parent=here.name)
    asked = order("os.write(3, b'1')")
    outcome = run_warm(warm, asked)
    assert outcome.seal.layers["cgroup"] == here.version
    assert "memory_per_process" not in outcome.seal.statements
    warm.expect(asked)
    assert warm.run(replace(asked, limits={"memory_bytes": 2**29})).result == b"1"
    assert warm.started.cold == 1, "a group's limit is not that of another order"
    warm.discard()
    assert [one for path in here.paths for one in path.iterdir() if one.is_dir()] == []


def test_spares_ended_at_any_moment_of_their_start_are_gone(make: Make, order: MakeOrder) -> None:
    """Killed before bubblewrap's process 1 asks to die with its parent, that process must not wait for ever."""
    warm = make()
    marker = "spare-ended-early"
    asked = order("pass", code=(CodeMount(name=marker, source=Path(__file__)),))
    for moment in range(20):
        warm.expect(asked)
        spare = spare_of(warm)
        while len(procfs.tree(spare.pid)) < moment % 3 + 1:
            continue
        warm.discard()
    paths = [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert [path for path in paths if marker.encode() in path.read_bytes()] == []
