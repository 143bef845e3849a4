"""What a program in a cell can do to its host, and what its host says about it. Every run here is a real cell."""

from __future__ import annotations

import itertools
import json
import mmap
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import BubblewrapCell, CellRefused, Input, Outcome, Slot, procfs
from sandbox.bubblewrap import profile

from .conftest import MakeOrder

MIB = 2**20


def said(outcome: Outcome) -> Any:
    """Return the result as JSON; the log explains a failure."""
    assert outcome.result is not None, (outcome.ended, outcome.status, outcome.why, outcome.log_tail)
    return json.loads(outcome.result)


def test_result_request_inputs_and_arguments_cross_the_wall(cell: BubblewrapCell, order: MakeOrder) -> None:
    program = """
        import json
        got = [open("/in/order.json").read(), open("/in/model.0").read(), sys.argv[1:], __name__, os.getcwd()]
        os.write(3, json.dumps(got).encode())
        print("to the operator \\x1b[31m")
    """
    outcome = cell.run(order(program, inputs={"model.0": b"weights"}, arguments=("run", "--x")))
    assert said(outcome) == ['{"hello":"cell"}', "weights", ["run", "--x"], "__main__", "/"]
    assert (outcome.ended, outcome.status, outcome.why) == ("exited", 0, None)
    assert outcome.log_tail == "out| to the operator \\x1b[31m\n"
    assert outcome.usage.result_bytes == len(outcome.result or b"") == outcome.seal.output_bytes


def test_network_is_denied(cell: BubblewrapCell, order: MakeOrder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)
        port = listener.getsockname()[1]
        program = f"""
            import json, socket
            got = [line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]]
            try:
                socket.create_connection(("127.0.0.1", {port}), timeout=1)
                got.append("connected")
            except OSError as error:
                got.append(error.errno)
            os.write(3, json.dumps(got).encode())
        """
        interfaces, errno = said(cell.run(order(program)))
        assert interfaces == "lo"
        assert errno == 1  # EPERM: no socket at all
        with pytest.raises(TimeoutError):
            listener.accept()
        socket.create_connection(("127.0.0.1", port)).close()  # the control reaches it
        listener.accept()[0].close()


def test_canary_file_is_unreadable(cell: BubblewrapCell, order: MakeOrder, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("secret-of-the-host")
    canary.chmod(0o444)
    program = f"""
        for path in ({str(canary)!r}, "/proc/1/root{canary}", "/etc/passwd", "/root/.ssh", "/proc/kcore", "/proc/keys"):
            try:
                print(open(path).read())
            except OSError:
                pass
        os.write(3, b"[]")
    """
    outcome = cell.run(order(program))
    assert said(outcome) == []
    assert outcome.log_tail == ""


def test_environment_is_exact(cell: BubblewrapCell, order: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET_TOKEN", "PYTHONPATH", "LD_PRELOAD", "PYTHONSTARTUP"):
        monkeypatch.setenv(name, "/nowhere")
    program = "import json; os.write(3, json.dumps([dict(os.environ), open('/proc/self/environ').read()]).encode())"
    table, raw = said(cell.run(order(program)))
    cpus = str(cell.settings.cpus)
    expected = {name: value.replace("{cpus}", cpus) for name, value in profile.ENVIRONMENT["check"].items()}
    assert table == expected
    assert {line.partition("=")[0] for line in raw.split("\0") if line} == expected.keys()


def test_inputs_and_code_are_read_only(cell: BubblewrapCell, order: MakeOrder) -> None:
    program = """
        import json
        got = []
        for path in ("/in/data", "/in/order.json", "/code/program.py", "/shim/inside.py", sys.executable):
            for attempt in (lambda: open(path, "r+b"), lambda: os.chmod(path, 0o777), lambda: os.unlink(path)):
                try:
                    attempt()
                    got.append(path)
                except OSError:
                    pass
        for folder in ("/", "/in", "/code", "/out", "/dev", "/usr/lib"):
            try:
                open(folder + "/new", "w")
                got.append(folder)
            except OSError:
                pass
        os.write(3, json.dumps(got).encode())
    """
    ordered = order(program, inputs={"data": b"data"})
    assert said(cell.run(ordered)) == []
    assert ordered.inputs[0].source.read_bytes() == b"data"


def test_wall_clock_kills(cell: BubblewrapCell, order: MakeOrder) -> None:
    started = time.monotonic()
    outcome = cell.run(order("import time; os.write(3, b'{}'); time.sleep(60)", limits={"wall_s": 1}))
    assert (outcome.ended, outcome.why, outcome.result) == ("killed", "wall", None)
    assert time.monotonic() - started < 4
    assert 1 <= outcome.usage.wall_s < 3


def test_cpu_limit_kills_even_who_ignores_the_signal(cell: BubblewrapCell, order: MakeOrder) -> None:
    for ignore in ("", "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"):
        outcome = cell.run(order(ignore + "while True: pass", limits={"cpu_s": 1}))
        assert (outcome.ended, outcome.why) == ("killed", "cpu")
        assert outcome.usage.cpu_s >= 0.5  # the last sample, which a busy host may take late


def test_memory_watchdog_kills_the_sum_over_processes(cell: BubblewrapCell, order: MakeOrder) -> None:
    program = """
        import time
        for _ in range(3):
            if os.fork() == 0:
                held = bytearray(os.urandom(1)) * (120 * 2**20)
                time.sleep(30)
        time.sleep(30)
    """
    outcome = cell.run(order(program, limits={"memory_bytes": 256 * MIB}))
    assert (outcome.ended, outcome.why) == ("killed", "memory")
    assert outcome.usage.peak_bytes > 256 * MIB


def test_memory_of_a_program_whose_main_thread_has_ended_is_counted(cell: BubblewrapCell, order: MakeOrder) -> None:
    """A dead leader's status has no memory in it: the threads that live on hold as much as before."""
    program = """
        import ctypes, threading, time
        libc = ctypes.CDLL(None)
        def hold():
            time.sleep(0.3)
            with open("/scratch/x", "wb") as f:
                for _ in range(int(sys.argv[1])): f.write(b"\\1" * 2**20)
            held = bytearray(b"1") * (int(sys.argv[2]) * 2**20)
            time.sleep(30)
            os.write(3, b"[]")
        threading.Thread(target=hold).start()
        libc.syscall(60, 0)
    """
    limits = {"memory_bytes": 256 * MIB, "scratch_bytes": 512 * MIB}
    for files, held in ((0, 320), (320, 0)):
        outcome = cell.run(order(program, arguments=(str(files), str(held)), limits=limits))
        assert (outcome.ended, outcome.why) == ("killed", "memory"), outcome.log_tail
        assert outcome.usage.peak_bytes > 256 * MIB


def test_shared_memory_and_files_are_added_where_they_cannot_be_the_same(
    cell: BubblewrapCell, order: MakeOrder
) -> None:
    program = """
        import mmap, time
        size = 160 * 2**20
        with open("/scratch/x", "w+b") as f:
            for _ in range(160): f.write(b"\\1" * 2**20)
            f.flush()
            if sys.argv[1] == "same":
                page = mmap.mmap(f.fileno(), size)
            else:
                page = mmap.mmap(-1, size)
        for at in range(0, size, 4096): page[at] = 2
        time.sleep(float(sys.argv[2]))
        os.write(3, b"[]")
    """
    limits = {"memory_bytes": 256 * MIB, "scratch_bytes": 512 * MIB}
    outcome = cell.run(order(program, arguments=("other", "30"), limits=limits))
    assert (outcome.ended, outcome.why) == ("killed", "memory"), outcome.log_tail
    assert outcome.usage.peak_bytes > 256 * MIB
    outcome = cell.run(order(program, arguments=("same", "0.5"), limits=limits))
    assert (outcome.ended, outcome.why, outcome.result) == ("exited", None, b"[]"), outcome.log_tail


def test_mappings_that_are_not_told_count_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many mappings that nobody reads them, or none that may be read, must not hide what they hold."""
    with mmap.mmap(-1, 4 * MIB) as page:
        page.write(b"1" * 4 * MIB)
        own = procfs.unnamed_bytes([os.getpid()])
        assert own >= 4 * MIB
        monkeypatch.setattr(procfs, "_MAPPINGS", 100)
        assert procfs.unnamed_bytes([os.getpid()]) == procfs.sample([os.getpid()]).shared_bytes >= own
        monkeypatch.setattr(procfs, "_start", lambda *_given: "")
        assert procfs.unnamed_bytes([os.getpid()]) >= own


def test_scratch_counts_as_memory_and_is_bounded(cell: BubblewrapCell, order: MakeOrder) -> None:
    fill = """
        import time
        with open("/scratch/x", "wb") as f:
            for _ in range(300): f.write(b"\\1" * 2**20)
        time.sleep(30)
    """
    outcome = cell.run(order(fill, limits={"memory_bytes": 256 * MIB, "scratch_bytes": 512 * MIB}))
    assert outcome.why == "memory"
    bounded = cell.run(order(fill, limits={"scratch_bytes": 8 * MIB}))
    assert (bounded.ended, bounded.status) == ("exited", 1)
    assert "OSError" in bounded.log_tail


def test_uncaught_memory_error_is_reported_as_memory(cell: BubblewrapCell, order: MakeOrder) -> None:
    outcome = cell.run(order("bytearray(2**45)"))
    assert (outcome.ended, outcome.status, outcome.why) == ("exited", 75, "memory")


def test_process_limit_holds_in_two_cells_at_once(cell: BubblewrapCell, order: MakeOrder) -> None:
    program = """
        import time
        made = 0
        try:
            while made < 60:
                if os.fork() == 0:
                    time.sleep(30)
                made += 1
        except OSError:
            pass
        time.sleep(0.5)
        os.write(3, str(made).encode())
    """
    orders = [order(program, limits={"processes": 20}) for _ in range(2)]
    made: list[int] = []
    threads = [threading.Thread(target=lambda one=one: made.append(said(cell.run(one)))) for one in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    assert all(15 <= count < 20 for count in made), made


def test_output_cap_kills_at_one_byte_more(cell: BubblewrapCell, order: MakeOrder) -> None:
    program = "import time; os.write(3, b'x' * {}); time.sleep({})"
    full = cell.run(order(program.format(1024, 0), limits={"result_bytes": 1024}))
    assert full.result == b"x" * 1024
    over = cell.run(order(program.format(1025, 30), limits={"result_bytes": 1024}))
    assert (over.ended, over.why, over.result) == ("killed", "output_cap", None)


def test_log_flood_kills_and_the_ring_stays_small(cell: BubblewrapCell, order: MakeOrder) -> None:
    outcome = cell.run(order("while True: os.write(2, b'y' * 4095 + b'\\n')", limits={"log_bytes": 1024}))
    assert (outcome.ended, outcome.why) == ("killed", "log_flood")
    assert len(outcome.log_tail) < 1100


@pytest.mark.parametrize(
    ("program", "ended", "status"),
    [
        ("os.abort()", "signalled", signal.SIGABRT),
        ("os.kill(os.getpid(), 9)", "exited", 0),
        ("import ctypes; ctypes.string_at(0)", "signalled", signal.SIGSEGV),
        ("sys.exit(3)", "exited", 3),
        ("raise SystemError('x')", "exited", 1),
        ("os._exit(0)", "exited", 0),
    ],
)
def test_crashes_are_told_apart(cell: BubblewrapCell, order: MakeOrder, program: str, ended: str, status: int) -> None:
    if "kill" in program:
        ended, status = "signalled", signal.SIGKILL
    outcome = cell.run(order("os.write(3, b'{}')\n" + program))
    assert (outcome.ended, outcome.status, outcome.why) == (ended, status, None)
    assert (outcome.result is not None) == (status == 0)


def test_cancel_leaves_nothing_within_half_a_second(cell: BubblewrapCell, order: MakeOrder) -> None:
    asked: list[float] = []

    def cancelled() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 5

    outcome = cell.run(order("import time; time.sleep(30)"), cancelled=cancelled)
    assert (outcome.ended, outcome.why) == ("killed", "cancelled")
    assert time.monotonic() - asked[-1] < 0.5
    assert max(b - a for a, b in itertools.pairwise(asked)) < 0.3


def test_progress_is_parsed_as_hostile(cell: BubblewrapCell, order: MakeOrder) -> None:
    program = """
        import time
        for line in (b"0 1 2\\n", b"0 2 2\\n", b"9 1 1\\n", b"x\\n", b"-1 1 1\\n", b"1 1" + b"0" * 500 + b"\\n",
                     b"\\xff\\n", b"1 5 9\\n", b"1 1"):
            os.write(4, line)
        time.sleep(0.2)
    """
    steps: list[tuple[str, int, int]] = []
    cell.run(order(program, steps=("loading", "sweep")), on_step=lambda *step: steps.append(step))
    assert steps == [("loading", 50, 100), ("sweep", 55, 100)]


def test_slots_are_read_through_the_hosts_descriptor(cell: BubblewrapCell, order: MakeOrder) -> None:
    program = """
        open("/out/plot", "wb").write(b"numbers")
        os.chmod("/out/plot", 0o4777)
        for attempt in (lambda: os.unlink("/out/plot"), lambda: os.symlink("/etc/passwd", "/out/link")):
            try: attempt()
            except OSError: continue
            sys.exit(9)
        open("/out/big", "wb").write(b"x" * 11)
    """
    slots = (Slot(name="plot", max_bytes=100, released=True), Slot(name="big", max_bytes=10, released=False))
    outcome = cell.run(order(program, slots=slots))
    assert outcome.status == 0, outcome.log_tail
    plot, big = outcome.slots
    assert (plot.name, plot.size, plot.open().read()) == ("plot", 7, b"numbers")
    assert (big.size, big.content) == (11, b"")


def test_fork_leftovers_are_killed_and_the_result_stands(cell: BubblewrapCell, order: MakeOrder) -> None:
    marker = f"leftover-{os.getpid()}-{time.monotonic_ns()}"
    program = """
        import signal, time
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                time.sleep(60)
            os._exit(0)
        os.wait()
        os.write(3, b"[1]")
    """
    started = time.monotonic()
    assert said(cell.run(order(program, arguments=(marker,)))) == [1]
    assert time.monotonic() - started < 5
    assert _with(marker) == []


def _with(marker: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(str(path))
        except OSError:
            continue
    return found


def test_stray_fd_is_closed(cell: BubblewrapCell, order: MakeOrder) -> None:
    program = """
        import json
        held = []
        for number in range(1024):
            try: os.fstat(number)
            except OSError: continue
            held.append(number)
        os.write(3, json.dumps(held).encode())
    """
    strays = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    try:
        for stray in strays:
            os.set_inheritable(stray, True)
        assert said(cell.run(order(program))) == [0, 1, 2, 3, 4]
    finally:
        for stray in strays:
            os.close(stray)


def test_cell_outlives_its_submitting_thread(order: MakeOrder) -> None:
    """The first thread that asks starts the launcher and ends; a later cell must not die with it."""
    fresh = BubblewrapCell(BubblewrapCell().settings)
    outcomes: list[Outcome] = []
    program = "import time; time.sleep(0.6); os.write(3, b'[]')"
    threads = [threading.Thread(target=lambda: outcomes.append(fresh.run(order("os.write(3, b'[]')"))))]
    threads[0].start()
    threads[0].join()
    outcomes.append(fresh.run(order(program)))
    fresh.close()
    assert [(one.ended, one.result) for one in outcomes] == [("exited", b"[]")] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_root_launch_drops_uid_before_bwrap(cell: BubblewrapCell, order: MakeOrder) -> None:
    """Seen from outside while the program runs: nobody's uid, no capability; inside: core_pattern does not open."""
    seen: list[dict[str, str]] = []
    marker = f"uid-{time.monotonic_ns()}"

    def look() -> bool:
        for path in _with(marker):
            lines = (Path(path).parent / "status").read_text().splitlines()
            seen.append({key: value.strip() for key, _, value in (line.partition(":") for line in lines)})
        return False

    program = """
        import time
        time.sleep(0.3)
        try: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)
        except OSError as error: os.write(3, str(error.errno).encode())
    """
    outcome = cell.run(order(program, arguments=(marker,)), cancelled=look)
    assert said(outcome) in (13, 30)
    assert len(seen) > 0
    for status in seen:
        assert set(status["Uid"].split()) == {str(cell.settings.cell_uid)}
        assert int(status["CapBnd"], 16) == 0 or "bwrap" in status["Name"]
        assert status["NoNewPrivs"] == "1"


def test_prefix_mounted_in_place_loads_same_libpython(cell: BubblewrapCell, order: MakeOrder) -> None:
    program = """
        import json
        maps = open("/proc/self/maps").read()
        libraries = sorted({line.split()[-1] for line in maps.splitlines() if "libpython" in line})
        os.write(3, json.dumps([sys.version, libraries]).encode())
    """
    import sys

    version, libraries = said(cell.run(order(program)))
    assert version == sys.version
    here = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libpython" in line}
    assert set(libraries) == here


def test_input_digest_mismatch_is_refused_before_anything_starts(cell: BubblewrapCell, order: MakeOrder) -> None:
    good = order("pass", inputs={"data": b"data"})
    one = good.inputs[0]
    for bad in (
        Input(name="data", source=one.source, sha256="0" * 64, size=4),
        Input(name="data", source=one.source, sha256=one.sha256, size=5),
        Input(name="data", source=one.source.parent / "absent", sha256=one.sha256, size=4),
    ):
        with pytest.raises(CellRefused) as caught:
            cell.run(replace(good, inputs=(bad,)))
        assert caught.value.code == "input_digest"


def test_torch_imports_and_trains_in_a_cell(order: MakeOrder) -> None:
    """About 3 s: the real interpreter, the real packages, no network and no home, no locks and no memory files."""
    pytest.importorskip("torch")
    real = BubblewrapCell()
    program = """
        import io, torch
        torch.set_num_threads(2)
        weight = torch.zeros(4, 4, requires_grad=True)
        rate = torch.optim.SGD([weight], lr=1.0)
        (weight.sum() - torch.ones(4, 4).matmul(torch.ones(4, 4)).sum()).backward()
        rate.step()
        kept = io.BytesIO()
        torch.save(weight.detach(), kept)
        kept.seek(0)
        os.write(3, str(int(torch.load(kept).sum())).encode())
    """
    try:
        outcome = real.run(order(program))
    finally:
        real.close()
    assert said(outcome) == -16
