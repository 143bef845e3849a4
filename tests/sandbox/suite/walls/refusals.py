"""Launches that must be refused, each with its own code and beside a twin that is accepted (S11, S15, S41, S42)."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import sandbox
from sandbox import BubblewrapCell, BubblewrapSettings, CellRefused, CodeMount, Input, Order, SandboxError, landlock
from sandbox import filters as filters_module
from sandbox.bubblewrap import plan, preflight
from sandbox.bubblewrap.profile import Mount
from sandbox.cell import Kind
from sandbox.ground import Ground
from sandbox.reader.digest import file_sha256
from sandbox.suite.attacks.words import THROUGH, Found
from sandbox.suite.case import Case, Row, judge

Launch = Callable[[], object]
REFUSED = frozenset({"refused"})
_SAID = "ran"


def _case(number: str, attack: str, expected: str) -> Case:
    return Case(
        id=number, attack=attack, controls=("twin",), shown="the twin is accepted", expected=expected, denied=REFUSED
    )


def rows(ground: Ground) -> list[Row]:
    """Run them all; one after the other, since some replace what every launch is composed of."""
    folder = ground.root / "refusals"
    folder.mkdir()
    folder.chmod(0o755)
    place = _Place(ground, folder)
    try:
        return [place.uploads(), place.sockets(), place.hosts(), place.profiles()]
    finally:
        place.cell.close()


class _Place:
    """Files to launch from, and a cell that accepts them."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        self.ground, self.folder = ground, folder
        self.program = folder / "program.py"
        self.program.write_text(f"import os\nos.write(3, b'{_SAID}')\n")
        self.program.chmod(0o644)
        self.settings = BubblewrapSettings(site_packages=(), work_dir=ground.root)
        self.cell = BubblewrapCell(self.settings)

    def order(self, **changes: Any) -> Order:
        values: dict[str, Any] = {
            "kind": "check", "module": "program", "arguments": (),
            "code": (CodeMount(name="program.py", source=self.program),), "request": b"{}",
            "nonce": secrets.token_hex(32), "limits": {"wall_s": 20, "scratch_bytes": 2**20, "shm_bytes": 2**20},
        }  # fmt: skip
        return Order(**{**values, **changes})

    def launched(self, order: Order, **settings: Any) -> Launch:
        """Return a launch with these settings."""

        def launch() -> object:
            cell = BubblewrapCell(replace(self.settings, **settings)) if settings else self.cell
            try:
                return cell.run(order)
            finally:
                if settings:
                    cell.close()

        return launch

    def twin(self, names: Mapping[str, object]) -> Found:
        """Run what is refused as it should be: it is accepted, and what it says comes out."""
        outcome = self.cell.run(self.order())
        return dict.fromkeys(names, THROUGH if outcome.result == _SAID.encode() else "refused")

    def judged(self, case: Case, wanted: Mapping[str, tuple[str, Launch]]) -> Row:
        """Make each launch; the word is "refused" when it was refused with the wanted code."""
        found = {name: _refusal(code, launch) for name, (code, launch) in wanted.items()}
        row = judge(case, "check", found, [self.twin(found)], [])
        codes = ", ".join(sorted({one for code, _launch in wanted.values() for one in code.split("|")}))
        return replace(row, observed=f"{row.observed}: {codes}") if row.word == "denied" else row

    def uploads(self) -> Row:
        """S11: an upload with links; a plan that mounts beneath ground that is not trusted."""
        link, real = self.folder / "link", self.folder / "real"
        real.write_bytes(b"x")
        link.symlink_to(real)
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        digest = file_sha256(real)
        inputs = {
            name: (
                "input_digest",
                self.launched(self.order(inputs=(Input(name="a", source=path, sha256=digest, size=1),))),
            )
            for name, path in (("link", link), ("fifo", fifo), ("absent", self.folder / "absent"))
        }
        tables = {
            "beneath_slot": ("mount_beneath_untrusted", [("rw", "/out/a"), ("ro", "/out/a/b")]),
            "beneath_input": ("mount_beneath_untrusted", [("ro", "/in/a"), ("ro", "/in/a/b")]),
            "beneath_scratch": ("mount_beneath_untrusted", [("tmpfs", "/scratch"), ("ro", "/scratch/x")]),
            "over_code": ("mount_shadowed", [("ro", "/code/a"), ("rw", "/code")]),
        }
        planned: dict[str, tuple[str, Launch]] = {
            name: (code, lambda made=made: plan.check_table([Mount(sort=s, target=t) for s, t in made]))  # type: ignore[misc]
            for name, (code, made) in tables.items()
        }
        case = _case("S11", "links at mount points; a plan that mounts beneath", "refused before anything starts")
        return self.judged(case, {**inputs, **planned})

    def sockets(self) -> Row:
        """S15: a socket in a tree that is mounted, a socket as an input, the directories where sockets are."""
        tree = self.folder / "tree"
        tree.mkdir()
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(str(tree / "s"))
            one = Input(name="s", source=tree / "s", sha256="0" * 64, size=0)
            wanted = {
                "in_tree": ("mount_forbidden_source", self.launched(self._code(tree))),
                "as_code": ("mount_forbidden_source", self.launched(self._code(tree / "s"))),
                "as_input": ("input_digest", self.launched(self.order(inputs=(one,)))),
            }
            for path in ("/run", "/tmp", "/", "/dev", "/proc", "/home", "/root"):
                if os.path.isdir(path) and os.path.realpath(path) == path:
                    wanted[path] = ("mount_forbidden_source", self.launched(self._code(Path(path))))
            return self.judged(_case("S15", "a host's socket inside what is mounted", "mount_forbidden_source"), wanted)
        finally:
            held.close()

    def _code(self, path: Path) -> Order:
        return self.order(code=(CodeMount(name="x", source=path),))

    def hosts(self) -> Row:
        """S41: hosts that lack a layer; those that cannot be had are made by replacing one function."""
        bwrap = self.settings.bwrap
        setuid, old = self.folder / "setuid", self.folder / "old"
        shutil.copy(bwrap, setuid)
        setuid.chmod(0o755 | stat.S_ISUID)
        old.write_text(f"#!/bin/sh\n{bwrap} \"$@\" | grep -v -- '--disable-userns'\n")
        old.chmod(0o755)
        plain = self.order()
        hidden = self.folder / "hidden.py"
        hidden.write_text("")
        hidden.chmod(0o600 if os.geteuid() == 0 else 0)
        wanted: dict[str, tuple[str, Launch]] = {
            "absent": ("bwrap_missing", self.launched(plain, bwrap=self.folder / "absent")),
            "relative": ("bwrap_missing", self.launched(plain, bwrap=Path("bwrap"))),
            "setuid": ("bwrap_setuid", self.launched(plain, bwrap=setuid)),
            "option": ("bwrap_option_missing", self.launched(plain, bwrap=old)),
            "no_userns": ("userns_disabled", self._without_user_namespaces),
            "apparmor": ("userns_apparmor", self._with_apparmor),
            "no_seccomp": ("seccomp_unsupported", self._with_bad_filter),
            "landlock": ("landlock_partial", self._with_absent_rule),
            "cgroup": ("cgroup_unusable", self.launched(plain, cgroup_parent="/assay-absent/parent")),
            "gpu": ("cgroup_required_for_gpu", self.launched(self.order(kind="check_gpu", gpus=(0,)))),
            "unreadable": ("prefix_unreadable", self.launched(self._code(hidden))),
            "no_prefix": ("prefix_unreadable", self.launched(plain, interpreter=Path("/opt/absent/python"))),
        }
        if os.geteuid() == 0:
            wanted["host_root"] = ("host_uid_root", self.launched(plain, cell_uid=None))
        return self.judged(_case("S41", "hosts that lack a layer", "refused, each with its own code"), wanted)

    def _without_user_namespaces(self) -> object:
        """Really without: a namespace whose own limit is 0; the host's stays as it is."""
        program = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from sandbox import CellRefused; from sandbox.bubblewrap import BubblewrapCell, BubblewrapSettings\n"
            "try:\n    BubblewrapCell(BubblewrapSettings(site_packages=())).version()\n"
            "except CellRefused as refused:\n    print(refused.code)\n"
        )
        shell = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -I -S -B -c "$1" "$2"'
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "sh", "-c", shell, sys.executable, program,
             str(Path(sandbox.__file__).parents[1])],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        raise CellRefused(done.stdout.strip() or "not_armed", done.stderr[-200:])

    def _with_apparmor(self) -> object:
        """bubblewrap's own words of a host with AppArmor's switch on; the switch is a file of ours."""
        (self.folder / "kernel").mkdir(exist_ok=True)
        (self.folder / "kernel" / "apparmor_restrict_unprivileged_userns").write_text("1\n")
        with mock.patch.object(preflight, "SYSCTL", self.folder):
            raise preflight.explain("bwrap: setting up uid map: Permission denied\n")

    def _with_bad_filter(self) -> object:
        """A filter that the kernel does not take."""
        outer = filters_module.outer

        def bad(kind: Kind) -> bytes:
            return outer(kind)[:8]

        with mock.patch.object(filters_module, "outer", bad):
            return self.cell.run(self.order())

    def _with_absent_rule(self) -> object:
        """A rule for a path that is not there: never skipped."""
        rules = landlock.rules

        def more(kind: Kind, mounts: Any) -> tuple[landlock.Rule, ...]:
            return (*rules(kind, mounts), landlock.Rule("/absent", "read"))

        with mock.patch.object(landlock, "rules", more):
            return self.cell.run(self.order())

    def profiles(self) -> Row:
        """S42: an empty list means nothing and never everything; what is unknown or of another type is refused."""
        orders: dict[str, dict[str, Any]] = {
            "no_code": {"code": ()}, "unknown_kind": {"kind": "anything"}, "empty_kind": {"kind": ""},
            "no_module": {"module": ""}, "repeated": {"code": (CodeMount(name="a", source=self.program),) * 2},
            "traversal": {"code": (CodeMount(name="../a", source=self.program),)}, "nonce": {"nonce": ""},
        }  # fmt: skip
        wanted: dict[str, tuple[str, Launch]] = {
            name: ("profile_invalid", self.launched(self.order(**change))) for name, change in orders.items()
        }
        limits = {
            "unknown_limit": {"anything": 1},
            "wrong_type": {"wall_s": "5"},
            "null": {"wall_s": None},
            "zero": {"wall_s": 0},
        }
        for name, change in limits.items():
            # Another type is refused as a malformed order, another value as a limit; either names it.
            wanted[name] = ("profile_invalid|limit_invalid", self.launched(self.order(limits=change)))
        wanted["relative_mount"] = ("profile_invalid", lambda: plan.check_table([Mount(sort="ro", target="etc")]))
        return self.judged(
            _case("S42", "empty, unknown and mistyped profiles", "profile_invalid, limit_invalid"), wanted
        )


def _refusal(code: str, launch: Launch) -> str:
    """Make a launch: "refused" with this code, another code, or through."""
    try:
        launch()
    except SandboxError as error:
        got = str(getattr(error, "code", "error"))
        return "refused" if got in code.split("|") else f"{got} in place of {code}"
    return THROUGH
