"""Control groups: where they are found on every kind of host, what is written there, and what is left of them.

Version 2 on a made-up tree; version 1, and the kill that a host with both has, on this host, beneath a group that the
test makes under its own and removes again.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import BubblewrapCell, BubblewrapSettings, cgroups
from sandbox.cgroups import group as groups
from sandbox.cgroups.mounts import hierarchies
from sandbox.errors import CellFailed, CellRefused

from .conftest import MakeOrder

MIB = 2**20
LIMITS = {"memory_bytes": 64 * MIB, "processes": 12, "cpu_s": 120, "wall_s": 60}

V2_FILES = ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max", "cgroup.procs", "cgroup.kill")


class FakeV2:
    """A tree of version 2 in a folder, in which a new group is born with the kernel's files."""

    def __init__(self, root: Path, own: str = "/", controllers: str = "cpu memory pids") -> None:
        self.mount = root / "cg roup"
        self.controllers = controllers
        (self.mount / own.strip("/")).mkdir(parents=True)
        self.mountinfo = root / "mountinfo"
        shown = str(self.mount).replace(" ", "\\040")
        self.mountinfo.write_text(
            f"22 27 0:21 / /proc rw - proc proc rw\n31 23 0:28 / {shown} rw shared:9 - cgroup2 c rw\n"
        )
        self.membership = root / "membership"
        self.membership.write_text(f"0::{own}\n")

    def group(self, name: str) -> Path:
        path = self.mount / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "cgroup.controllers").write_text(self.controllers + "\n")
        (path / "cgroup.subtree_control").write_text(self.controllers + "\n")
        return path

    def mkdir(self, path: Path) -> None:
        path.mkdir()
        for name in V2_FILES:
            (path / name).touch()
        (path / "memory.events").write_text("low 0\noom 2\noom_kill 1\noom_group_kill 1\n")
        (path / "memory.peak").write_text("4096\n")
        (path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")

    def open(self, name: str) -> cgroups.Parent:
        return cgroups.open_parent(name, mountinfo=self.mountinfo, membership=self.membership)


@pytest.fixture
def plain_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up group holds files, which the kernel's do not."""

    def removed(folder: Path) -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return True

    monkeypatch.setattr(groups, "_removed", removed)


def refusal(fake: FakeV2, name: str) -> CellRefused:
    with pytest.raises(CellRefused) as caught:
        fake.open(name)
    assert caught.value.code == "cgroup_unusable"
    return caught.value


@pytest.mark.usefixtures("plain_removal")
def test_version_2_gets_every_limit_and_tells_what_happened(tmp_path: Path) -> None:
    fake = FakeV2(tmp_path)
    fake.group("assay")
    parent = fake.open("assay")
    made = cgroups.make(parent, "ab12", LIMITS, mkdir=fake.mkdir)
    folder = fake.mount / "assay" / "assay-ab12"
    written = {name: (folder / name).read_text() for name in V2_FILES if (folder / name).read_text()}
    assert written == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "14",
        "cpu.max": "200000 100000",
    }
    assert (made.version, made.swap_limited) == ("v2", True)
    assert made.procs == (folder / "cgroup.procs",)
    assert (made.out_of_memory(), made.cpu_s(), made.peak_bytes()) == (True, 2.5, 4096)
    assert made.kill()
    assert (folder / "cgroup.kill").read_text() == "1"
    made.close()
    assert not folder.exists()


@pytest.mark.usefixtures("plain_removal")
@pytest.mark.parametrize("file", ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"])
def test_a_limit_that_reads_back_differently_refuses_and_leaves_no_group(tmp_path: Path, file: str) -> None:
    """A kernel that takes a write and holds something else must not be believed."""
    fake = FakeV2(tmp_path)
    folder = fake.group("assay") / "assay-ab12"

    def mkdir(path: Path) -> None:
        fake.mkdir(path)
        (path / file).unlink()
        (path / file).symlink_to("/dev/null")

    with pytest.raises(CellRefused, match=rf"cgroup_unusable .*{file.split('.')[0]}: .*{file}"):
        cgroups.make(fake.open("assay"), "ab12", LIMITS, mkdir=mkdir)
    assert not folder.exists()


@pytest.mark.parametrize("missing", ["memory", "pids", "cpu"])
@pytest.mark.parametrize("file", ["cgroup.controllers", "cgroup.subtree_control"])
def test_a_controller_that_is_not_handed_on_refuses_by_name(tmp_path: Path, missing: str, file: str) -> None:
    fake = FakeV2(tmp_path)
    path = fake.group("assay")
    (path / file).write_text(" ".join({"memory", "pids", "cpu"} - {missing}))
    assert refusal(fake, "assay").item.startswith(f"{missing}: ")


@pytest.mark.parametrize("name", ["", "/", "..", "../x", "a/../..", "a//b", "a\nb", "/.."])
def test_a_name_that_is_no_path_beneath_refuses(tmp_path: Path, name: str) -> None:
    fake = FakeV2(tmp_path)
    fake.group("assay")
    assert refusal(fake, name).code == "cgroup_unusable"


def test_a_group_that_does_not_exist_is_never_made(tmp_path: Path) -> None:
    fake = FakeV2(tmp_path)
    assert "does not exist" in refusal(fake, "assay").item
    assert not (fake.mount / "assay").exists()


def test_a_group_above_or_away_from_the_workers_own_refuses(tmp_path: Path) -> None:
    """There a cell would escape from what somebody set on the worker."""
    fake = FakeV2(tmp_path, own="/system.slice/assay.service/worker")
    for name in ("system.slice", "system.slice/assay.service", "other.slice", "system.slice/assay.service/worker"):
        fake.group(name)
        assert "own group" in refusal(fake, f"/{name}").item, name


def test_beside_the_worker_only_while_its_own_group_has_no_limit(tmp_path: Path) -> None:
    """How systemd delegates: the service's group holds one for the worker and one for the cells."""
    fake = FakeV2(tmp_path, own="/system.slice/assay.service/worker")
    path = fake.group("system.slice/assay.service/cells")
    assert fake.open("/system.slice/assay.service/cells").paths == (path,)
    own = fake.mount / "system.slice/assay.service/worker"
    for name, text in (("memory.max", "1073741824"), ("pids.max", "64"), ("cpu.max", "100000 100000")):
        (own / name).write_text("max")
        assert fake.open("/system.slice/assay.service/cells").paths == (path,)
        (own / name).write_text(text)
        assert "own group" in refusal(fake, "/system.slice/assay.service/cells").item
        (own / name).unlink()


def test_hybrid_and_version_1_tables_are_told_apart(tmp_path: Path) -> None:
    """Limits by version 1 and the kill by version 2, as no single file would tell."""
    mounts, members = tmp_path / "mountinfo", tmp_path / "members"
    lines, number = [], 40
    for name in ("memory", "pids", "cpu,cpuacct", "unified"):
        (tmp_path / name / "own" / "assay").mkdir(parents=True)
        number += 1
        kind = "cgroup2 c rw" if name == "unified" else f"cgroup c rw,{name}"
        lines.append(f"{number} 31 0:{number} / {tmp_path / name} rw - {kind}")
    mounts.write_text("\n".join(lines))
    members.write_text("5:cpu,cpuacct:/own\n4:memory:/own\n3:pids:/own\n2:name=systemd:/\n0::/own\n")
    parent = cgroups.open_parent("assay", mountinfo=mounts, membership=members)
    assert parent.version == "hybrid"
    assert {name: place.version for name, place in parent.places.items()} == {"memory": 1, "pids": 1, "cpu": 1}
    assert len(parent.paths) == 4
    (tmp_path / "unified/own/assay").rmdir()
    without = cgroups.open_parent("assay", mountinfo=mounts, membership=members)
    assert (without.version, set(without.places)) == ("v1", {"memory", "pids", "cpu", "cpuacct"})
    assert len(without.paths) == 3
    (tmp_path / "pids/own/assay").rmdir()
    with pytest.raises(CellRefused, match=r"pids: .* does not exist"):
        cgroups.open_parent("assay", mountinfo=mounts, membership=members)


def test_a_mount_that_shows_a_part_of_the_hierarchy_is_followed(tmp_path: Path) -> None:
    """In a container the mount's root is the container's group; what lies out of view is left out."""
    mounts, members = tmp_path / "mountinfo", tmp_path / "members"
    mounts.write_text(f"1 0 0:1 /docker/ab {tmp_path} rw - cgroup c rw,memory\n")
    for own, expected in (("/docker/ab", tmp_path), ("/docker/ab/x", tmp_path / "x")):
        members.write_text(f"4:memory:{own}\n")
        assert [one.own for one in hierarchies(mounts, members)] == [expected]
    for own in ("/docker/abc", "/", "/docker/ab/../../x"):
        members.write_text(f"4:memory:{own}\n")
        assert hierarchies(mounts, members) == ()


def test_a_group_of_a_living_worker_is_not_swept(tmp_path: Path, plain_removal: None) -> None:
    fake = FakeV2(tmp_path)
    folder = fake.group("assay")
    parent = fake.open("assay")
    held = cgroups.make(parent, "aa", LIMITS, mkdir=fake.mkdir)
    for nonce in ("bb", "cc"):
        fake.mkdir(folder / f"assay-{nonce}")
    fake.mkdir(folder / "somebody-elses")
    assert cgroups.sweep(parent, live=("cc",)) == 1
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"assay-aa", "assay-cc", "somebody-elses"}
    held.close()
    assert cgroups.sweep(parent) == 1


def test_a_group_swept_between_making_and_locking_is_made_again(tmp_path: Path, plain_removal: None) -> None:
    fake = FakeV2(tmp_path)
    fake.group("assay")
    parent = fake.open("assay")
    raced: list[Path] = []

    def mkdir(path: Path) -> None:
        fake.mkdir(path)
        if not raced:
            raced.append(path)
            assert cgroups.sweep(parent) == 1

    made = cgroups.make(parent, "ab12", LIMITS, mkdir=mkdir)
    assert (raced[0] / "pids.max").read_text() == "14"
    made.close()


# -- on this host


@pytest.fixture
def here() -> Iterator[cgroups.Parent]:
    """A group under the test's own in every hierarchy of this host; gone afterwards, or the test fails."""
    if os.geteuid() != 0:
        pytest.skip("not root: no control group is ours to make")
    seen = hierarchies()
    used = [one for one in seen if one.version == 2 or one.controllers & {"memory", "pids", "cpu", "cpuacct"}]
    if {"memory", "pids", "cpu"} - {name for one in used for name in one.controllers}:
        pytest.skip("version 1 is not mounted here, and version 2 hands nothing on below a group with processes")
    name = f"assay-test-{secrets.token_hex(4)}"
    made = [one.own / name for one in used]
    try:
        for path in made:
            path.mkdir()
    except OSError as error:
        for path in made:
            if path.is_dir():
                path.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield cgroups.open_parent(name)
    finally:
        left = [str(child) for path in made for child in path.iterdir() if child.is_dir()]
        cgroups.sweep(cgroups.open_parent(name))
        for path in made:
            path.rmdir()
        assert left == []


def inside(made: cgroups.Group, program: str) -> subprocess.Popen[str]:
    """Start a program that enters the group before anything else."""
    enter = f"import os\nfor p in {[str(path) for path in made.procs]!r}:\n    open(p, 'w').write(str(os.getpid()))\n"
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", enter + program],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_limits_are_the_kernels_own_on_this_host(here: cgroups.Parent) -> None:
    made = cgroups.make(here, "ab", LIMITS)
    try:
        path = here.places["memory"].path / "assay-ab"
        assert (path / "memory.limit_in_bytes").read_text().strip() == str(64 * MIB)
        assert (here.places["pids"].path / "assay-ab" / "pids.max").read_text().strip() == "14"
        assert (here.places["cpu"].path / "assay-ab" / "cpu.cfs_quota_us").read_text().strip() == "200000"
        assert made.swap_limited is False
    finally:
        made.close()


def test_the_sum_over_processes_is_limited_and_told(here: cgroups.Parent) -> None:
    """Three processes of 40 MiB each: none is over the limit alone."""
    made = cgroups.make(here, "ab", LIMITS)
    try:
        assert not made.out_of_memory()
        program = """
kids = []
for _ in range(3):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = bytearray(b"x") * (40 * 2**20)
        os.close(1)
        os.write(write, b"1")
        import signal
        signal.pause()
    os.close(write)
    os.read(read, 1)
"""
        child = inside(made, program)
        child.communicate(timeout=30)
        assert made.out_of_memory()
        assert 32 * MIB < made.peak_bytes() <= 64 * MIB
        assert made.cpu_s() > 0
    finally:
        made.close()


def test_forks_stop_at_the_limit(here: cgroups.Parent) -> None:
    made = cgroups.make(here, "ab", LIMITS)
    try:
        program = """
count = 0
try:
    while count < 40:
        if os.fork() == 0:
            os.close(1)
            import signal
            signal.pause()
        count += 1
except OSError:
    pass
print(count, flush=True)
"""
        child = inside(made, program)
        said, _ = child.communicate(timeout=30)
        assert said is not None
        assert int(said) == LIMITS["processes"] + groups.BUBBLEWRAPS_OWN - 1
    finally:
        made.close()  # the pausing children too


def test_kill_empties_the_group_though_signals_are_ignored(here: cgroups.Parent) -> None:
    made = cgroups.make(here, "ab", LIMITS)
    program = """
import signal
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("up", flush=True)
        signal.pause()
print("up", flush=True)
signal.pause()
"""
    child = inside(made, program)
    assert child.stdout is not None
    for _ in range(4):
        assert child.stdout.readline() == "up\n"
    assert made.kill() is (here.unified is not None)
    made.close()
    assert child.wait(timeout=10) == -9
    child.stdout.close()


def test_what_a_killed_worker_left_is_swept_with_its_processes(here: cgroups.Parent) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(cgroups.__file__).parents[2])!r})
from sandbox import cgroups
made = cgroups.make(cgroups.open_parent({here.name!r}), "cd", {LIMITS!r})
if os.fork() == 0:
    for path in made.procs:
        path.write_text(str(os.getpid()))
    os.closerange(3, 256)
    print(os.getpid(), flush=True)
    import signal
    signal.pause()
os.wait()
"""
    worker = subprocess.Popen([sys.executable, "-I", "-S", "-c", program], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    orphan = int(worker.stdout.readline())
    assert cgroups.sweep(here) == 0  # its worker lives
    worker.kill()
    worker.wait()
    worker.stdout.close()
    assert cgroups.sweep(here) == 1
    assert not Path(f"/proc/{orphan}").exists() or "Z" in Path(f"/proc/{orphan}/stat").read_text().split()[2]
    assert cgroups.sweep(here) == 0


def test_a_group_that_stays_busy_is_said(here: cgroups.Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cgroups.make(here, "ab", LIMITS)
    child = inside(made, "print('in', flush=True)\nimport signal\nsignal.pause()\n")
    assert child.stdout is not None
    child.stdout.readline()
    monkeypatch.setattr(groups, "GONE_S", 0.0)
    monkeypatch.setattr(groups, "_kill_listed", lambda _folder: None)
    monkeypatch.setattr(cgroups.Group, "kill", lambda _self: True)
    with pytest.raises(CellFailed) as caught:
        made.close()
    assert caught.value.code == "cgroup_busy"
    monkeypatch.undo()
    child.kill()
    child.wait()
    child.stdout.close()
    assert cgroups.sweep(here) == 1


# -- what the host makes of a group's counters


def grouped_cell(here: cgroups.Parent) -> BubblewrapCell:
    return BubblewrapCell(BubblewrapSettings(site_packages=(), cgroup_parent=here.name))


def test_cpu_time_is_summed_over_processes(here: cgroups.Parent, order: MakeOrder) -> None:
    """Four spinners that each stay below: RLIMIT_CPU alone lets every one of them have the limit."""
    program = """
        import time
        for _ in range(4):
            if os.fork() == 0:
                while time.process_time() < 1.5: pass
                os._exit(0)
        for _ in range(4): os.wait()
        os.write(3, b"[]")
    """
    cell = grouped_cell(here)
    outcome = cell.run(order(program, limits={"cpu_s": 2}))
    cell.close()
    assert (outcome.ended, outcome.why, outcome.result) == ("killed", "cpu", None)
    assert 2 <= outcome.usage.cpu_s < 4


def test_pages_that_processes_share_are_counted_once(
    here: cgroups.Parent, order: MakeOrder, cell: BubblewrapCell
) -> None:
    """The watchdog adds a forked page up in each process; a group knows better, so there the watchdog gives way."""
    program = """
        import time
        held = b"x" * (100 * 2**20)
        for _ in range(3):
            if os.fork() == 0:
                time.sleep(0.6)
                os._exit(0)
        for _ in range(3): os.wait()
        os.write(3, b"[]")
    """
    limits = {"memory_bytes": 256 * MIB}
    assert cell.run(order(program, limits=limits)).why == "memory"  # without a group
    grouped = grouped_cell(here)
    outcome = grouped.run(order(program, limits=limits))
    grouped.close()
    assert (outcome.ended, outcome.why, outcome.result) == ("exited", None, b"[]"), outcome.log_tail


def test_a_child_out_of_memory_is_told_though_the_program_goes_on(here: cgroups.Parent, order: MakeOrder) -> None:
    """Version 1 kills one process only; the rest must not answer as if nothing had happened."""
    program = """
        pid = os.fork()
        if pid == 0:
            held = [b"x" * (50 * 2**20) for _ in range(20)]
            os._exit(0)
        os.waitpid(pid, 0)
        os.write(3, b"[]")
    """
    cell = grouped_cell(here)
    outcome = cell.run(order(program, limits={"memory_bytes": 256 * MIB}))
    cell.close()
    assert (outcome.ended, outcome.why, outcome.result) == ("killed", "memory", None)
    assert 200 * MIB < outcome.usage.peak_bytes <= 256 * MIB
