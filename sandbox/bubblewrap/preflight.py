"""What must be true of the host before a cell is tried; decided by behaviour, never by a version string."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

from sandbox.bubblewrap.plan import Plan
from sandbox.errors import CellRefused

_HELP_S = 10.0


def check_bwrap(bwrap: Path, options: set[str]) -> str:
    """Return bubblewrap's version as it tells it.

    Args:
        bwrap: absolute path.
        options: every option that will be used.

    Raises:
        CellRefused: bwrap_missing, bwrap_setuid, bwrap_option_missing, userns_disabled.
    """
    if not bwrap.is_absolute():
        raise CellRefused("bwrap_missing", f"{bwrap} is not absolute")
    try:
        mode = bwrap.stat().st_mode
        privileged = bool(mode & (stat.S_ISUID | stat.S_ISGID)) or "security.capability" in os.listxattr(bwrap)
    except OSError:
        raise CellRefused("bwrap_missing", str(bwrap)) from None
    if privileged:
        raise CellRefused("bwrap_setuid", str(bwrap))
    offered = set(re.findall(r"--[a-z0-9-]+", _say(bwrap, "--help")))
    missing = sorted(options - offered)
    if missing:
        raise CellRefused("bwrap_option_missing", " ".join(missing))
    if _knob("user/max_user_namespaces") == 0 or _knob("kernel/unprivileged_userns_clone") == 0:
        raise CellRefused("userns_disabled")
    return _say(bwrap, "--version").strip().removeprefix("bubblewrap ")


def check_sources(plan: Plan) -> None:
    """Refuse when this user, who will be the cell's, cannot reach a source.

    Raises:
        CellRefused: prefix_unreadable.
    """
    for mount in plan.mounts:
        if mount.sort in ("ro", "rw") and not os.access(mount.source, os.R_OK) and mount.staged:
            raise CellRefused("prefix_unreadable", mount.source)


def explain(log: str) -> CellRefused:
    """Return the refusal that bubblewrap's or the staging step's last words mean."""
    line = log.strip().rpartition("\n")[2][:300]
    if found := re.search(r"stage: unreadable (.*)", log):
        return CellRefused("prefix_unreadable", found[1])
    if found := re.search(r"stage: group (.*)", log):
        return CellRefused("cgroup_unusable", found[1])
    if re.search(r"seccomp", log, re.IGNORECASE):
        return CellRefused("seccomp_unsupported", line)
    if "mount proc" in log:
        return CellRefused("proc_mount_denied", line)
    if re.search(r"creat\w* new (user )?namespace|setting up uid map|clone failed|No permissions", log, re.IGNORECASE):
        apparmor = _knob("kernel/apparmor_restrict_unprivileged_userns") == 1
        return CellRefused("userns_apparmor" if apparmor else "userns_disabled", line)
    if re.search(r"Can't (find|bind|open).*(Permission denied|No such file)", log):
        return CellRefused("prefix_unreadable", line)
    return CellRefused("not_armed", f"launch: {line}")


def _say(bwrap: Path, option: str) -> str:
    try:
        done = subprocess.run(
            [str(bwrap), option], capture_output=True, text=True, timeout=_HELP_S, env={}, check=False
        )
    except (OSError, subprocess.SubprocessError):
        raise CellRefused("bwrap_missing", f"{bwrap} does not run") from None
    return done.stdout + done.stderr


def _knob(name: str) -> int | None:
    try:
        return int(Path(f"/proc/sys/{name}").read_text())
    except (OSError, ValueError):
        return None
