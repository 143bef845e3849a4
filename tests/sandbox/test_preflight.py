"""A host on which cells cannot be armed is refused with its own code, and nothing of the order runs.

No knob of this host is touched: namespaces of the test's own have their own knobs, and a filter of the test's own plays
a kernel that lacks something.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox import BubblewrapCell, BubblewrapSettings, CellRefused, landlock
from sandbox.bubblewrap import gate, grouping, preflight
from sandbox.bubblewrap.gate import Armed

from .conftest import MakeOrder
from .test_gate import FakeGroup
from .test_launch import refused

PACKAGE = Path(preflight.__file__).parents[1]
SYSTEM_PYTHON = Path("/usr/bin/python3")
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
NO_CAPABILITIES = ["setpriv", "--ambient-caps", "-all", "--inh-caps", "-all", "--bounding-set", "-all"]


@pytest.fixture(scope="module")
def everybodys() -> Iterator[Path]:
    """A copy of the package that any user may read, and a program."""
    missing = [one for one in ("setpriv", "unshare") if shutil.which(one) is None]
    if missing or not SYSTEM_PYTHON.exists():
        pytest.skip(f"not on this host: {missing or SYSTEM_PYTHON}")
    root = Path(tempfile.mkdtemp(prefix="assay-test-"))
    shutil.copytree(PACKAGE, root / "sandbox", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "program.py").write_text("print('it ran')")
    (root / "lacking.py").write_text(LACKING)
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield root
    shutil.rmtree(root)


def tried(root: Path, before: Sequence[str]) -> dict[str, Any]:
    """Run the program in a cell from within `before`, as an unprivileged user, and return what the tool prints."""
    nobody = NOBODY if os.geteuid() == 0 else []
    run = [
        str(SYSTEM_PYTHON),
        "-s",
        "-S",
        "-B",
        "-m",
        "sandbox",
        "run",
        "--json",
        "--program",
        str(root / "program.py"),
    ]
    done = subprocess.run(
        [*nobody, *before, *run], cwd=root, capture_output=True, text=True, timeout=60, env={"LANG": "C.UTF-8"} | PATHS,
        check=False,
    )  # fmt: skip
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert ("it ran" in done.stdout) == ("refused" not in answer)
    return answer


PATHS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def namespaced(*commands: str) -> list[str]:
    """Return the words that run a command in own namespaces, after shell commands with full capabilities there."""
    enter = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--keep-caps", "--mount"]
    return [*enter, "sh", "-ec", "\n".join([*commands, 'exec "$@"']), "sh", *NO_CAPABILITIES]


def test_a_namespace_without_restrictions_runs_cells(everybodys: Path) -> None:
    """The twin of the refusals below: the same way of starting, nothing taken away."""
    assert tried(everybodys, namespaced())["status"] == 0


def test_user_namespaces_off_are_refused_by_the_knob(everybodys: Path) -> None:
    answer = tried(everybodys, namespaced("echo 0 > /proc/sys/user/max_user_namespaces"))
    assert (answer["refused"], answer["item"]) == ("userns_disabled", "")
    assert "max_user_namespaces" in answer["message"]


def test_user_namespaces_off_are_refused_by_behaviour(everybodys: Path) -> None:
    """The knob of this namespace says yes, the one above it says no: bubblewrap's last words tell."""
    answer = tried(everybodys, namespaced("echo 1 > /proc/sys/user/max_mnt_namespaces"))
    assert answer["refused"] == "userns_disabled"
    assert "bwrap" in answer["item"]


def test_masked_proc_is_refused(everybodys: Path) -> None:
    answer = tried(everybodys, namespaced("mount -t tmpfs none /proc/driver"))
    assert answer["refused"] == "proc_mount_denied"


LACKING = """
import ctypes, errno, os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from sandbox import inside
from sandbox.filters.assembler import assemble
from sandbox.filters.tables import Branch, Table, Test
plain, argued = {}, {}
if sys.argv[1] == "seccomp":
    plain["seccomp"] = errno.ENOSYS
    argued["prctl"] = (*(Branch((Test(0, "low", one),), errno.EINVAL) for one in (21, 22)), Branch((), 0))
else:
    plain["landlock_create_ruleset"] = errno.ENOSYS
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
inside._filter(inside._Kernel(), assemble(Table(plain=plain, argued=argued, default=0, gap=0)))
os.execv(sys.argv[2], sys.argv[2:])
"""


def lacking(root: Path, what: str) -> list[str]:
    return [str(SYSTEM_PYTHON), "-B", str(root / "lacking.py"), what]


def test_kernel_without_seccomp_is_refused(everybodys: Path) -> None:
    assert tried(everybodys, lacking(everybodys, "seccomp"))["refused"] == "seccomp_unsupported"


def test_kernel_without_landlock_is_stated(everybodys: Path) -> None:
    seal = tried(everybodys, lacking(everybodys, "landlock"))["seal"]
    assert seal["layers"]["landlock_abi"] == 0
    assert "landlock_absent" in seal["statements"]


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
@pytest.mark.parametrize(("what", "code"), [("seccomp", "seccomp_unsupported"), ("landlock", None)])
def test_what_a_kernel_lacks_is_noticed_by_a_root_worker_too(everybodys: Path, what: str, code: str | None) -> None:
    done = subprocess.run(
        [*lacking(everybodys, what), str(SYSTEM_PYTHON), "-s", "-S", "-B", "-m", "sandbox", "run", "--json",
         "--program", str(everybodys / "program.py")],
        cwd=everybodys, capture_output=True, text=True, timeout=60, env=PATHS, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout).get("refused") == code, done.stderr


@pytest.mark.parametrize("knob", ["user/max_user_namespaces", "kernel/unprivileged_userns_clone"])
def test_either_knob_refuses(order: MakeOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, knob: str) -> None:
    path = tmp_path / knob
    path.parent.mkdir()
    path.write_text("0\n")
    monkeypatch.setattr(preflight, "SYSCTL", tmp_path)
    assert refused(order("pass")).code == "userns_disabled"
    path.write_text("1\n")
    cell = BubblewrapCell(BubblewrapSettings(site_packages=()))
    assert cell.run(order("pass")).status == 0
    cell.close()


@pytest.fixture
def fake_bwrap() -> Iterator[Any]:
    """Make a bubblewrap that answers questions about itself and otherwise fails with given words."""
    root = Path("/var/tmp")  # a root worker covers /mnt before it executes anything
    fake = root / f"assay-fake-bwrap-{os.getpid()}"

    def make(words: str) -> Path:
        script = f'case "$1" in --help|--version) exec /usr/bin/bwrap "$@";; esac\necho "{words}" >&2\nexit 1\n'
        fake.write_text("#!/bin/sh\n" + script)
        fake.chmod(0o755)
        return fake

    yield make
    fake.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("words", "apparmor", "code"),
    [
        ("bwrap: setting up uid map: Permission denied", "1", "userns_apparmor"),
        ("bwrap: setting up uid map: Permission denied", "0", "userns_disabled"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "1", "userns_apparmor"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "1", "proc_mount_denied"),
        ("bwrap: something else", "1", "not_armed"),
    ],
)
def test_last_words_of_bubblewrap_are_explained(
    order: MakeOrder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fake_bwrap: Any,
    words: str,
    apparmor: str,
    code: str,
) -> None:
    """AppArmor's switch is not on this host, so its file is the test's own."""
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "apparmor_restrict_unprivileged_userns").write_text(apparmor)
    monkeypatch.setattr(preflight, "SYSCTL", tmp_path)
    found = refused(order("pass"), bwrap=fake_bwrap(words))
    assert found.code == code, found.item


def test_bwrap_is_asked_once_and_again_when_it_is_another_file(tmp_path: Path) -> None:
    count = tmp_path / "count"
    fake = tmp_path / "bwrap"
    text = f'#!/bin/sh\necho "$1" >> {count}\nexec /usr/bin/bwrap "$@"\n'
    fake.write_text(text)
    fake.chmod(0o755)
    cell = BubblewrapCell(BubblewrapSettings(site_packages=(), bwrap=fake))
    version = cell.version()
    assert [cell.version() for _ in range(3)] == [version] * 3
    assert count.read_text().split() == ["--help", "--version"]
    fake.write_text(text.replace('exec /usr/bin/bwrap "$@"', 'echo "bubblewrap 9.9"'))
    with pytest.raises(CellRefused) as caught:
        cell.version()
    assert caught.value.code == "bwrap_option_missing"
    fake.chmod(0o4755)
    with pytest.raises(CellRefused) as caught:
        cell.version()
    assert caught.value.code == "bwrap_setuid"


def test_bwrap_that_does_not_run_is_told_apart(tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho sorry >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(CellRefused) as caught:
        BubblewrapCell(BubblewrapSettings(bwrap=fake)).version()
    assert (caught.value.code, caught.value.item) == ("bwrap_missing", f"{fake} does not run: sorry")


@pytest.mark.parametrize("ends", ["exited", "killed"])
def test_cell_enters_its_group_before_bubblewrap_exists(
    order: MakeOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ends: str
) -> None:
    """The group is a double of the test: what is shown is who enters, when, and that it is closed and killed."""
    procs = tmp_path / "procs"
    procs.write_text("")
    group = FakeGroup(procs)
    monkeypatch.setattr(grouping, "cgroups", SimpleNamespace(open_parent=str, make=lambda *_given: group))
    parents: list[str] = []
    whole = gate.check

    def check(armed: Armed) -> Any:
        status = Path(f"/proc/{armed.init}/status").read_text()
        parents.append(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid")))
        procs.write_text(procs.read_text() + f"\n{armed.pid}\n{armed.init}")
        return whole(armed)

    monkeypatch.setattr(gate, "check", check)
    cell = BubblewrapCell(BubblewrapSettings(site_packages=(), cgroup_parent="parent"))
    outcome = cell.run(order("import time; time.sleep(9)" if ends == "killed" else "pass", limits={"wall_s": 1}))
    cell.close()
    assert outcome.ended == ends, outcome.log_tail
    assert procs.read_text().split()[0] == parents[0]  # bubblewrap itself, which the staging step became
    assert group.closed == 1
    assert group.killed > 0  # after a regular end, too: orphans of the program are in it
    assert outcome.seal.layers["cgroup"] == "v2"
    assert outcome.seal.statements == (() if landlock.abi() else ("landlock_absent",))
    assert {one.by for one in outcome.seal.limits if one.name in ("memory_bytes", "processes", "cpu_s")} == {"cgroup"}


def test_group_that_cannot_be_entered_is_refused(order: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    group = FakeGroup(Path("/absent/cgroup.procs"))
    monkeypatch.setattr(grouping, "cgroups", SimpleNamespace(open_parent=str, make=lambda *_given: group))
    found = refused(order("pass"), cgroup_parent="parent")
    assert found.code == "cgroup_unusable"
    assert found.item.startswith("/absent/cgroup.procs")


def test_landlock_version_of_this_kernel_is_read() -> None:
    assert landlock.abi() >= 0
    program = "from sandbox import landlock; print(landlock.abi())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=30, check=True
    )
    assert int(done.stdout) == landlock.abi()
