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
_SAID: dict[tuple[Path, tuple[int, ...]], tuple[frozenset[str], str]] = {}
"""What bubblewrap said of itself (options, version), by the file that it was; the last one only."""
SYSCTL = Path("/proc/sys")


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
        status = bwrap.stat()
        privileged = bool(status.st_mode & (stat.S_ISUID | stat.S_ISGID))
        privileged |= "security.capability" in os.listxattr(bwrap)
    except OSError:
        raise CellRefused("bwrap_missing", str(bwrap)) from None
    if privileged:
        raise CellRefused("bwrap_setuid", str(bwrap))
    # ctime cannot be set back: a file that was exchanged or written has another, and is asked again.
    fingerprint = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_mode)
    if (bwrap, fingerprint) not in _SAID:
        offered = frozenset(re.findall(r"--[a-z0-9-]+", _say(bwrap, "--help")))
        version = _say(bwrap, "--version").strip().removeprefix("bubblewrap ")
        _SAID.clear()
        _SAID[bwrap, fingerprint] = offered, version
    offered, version = _SAID[bwrap, fingerprint]
    missing = sorted(options - offered)
    if missing:
        raise CellRefused("bwrap_option_missing", " ".join(missing))
    _check_namespaces()
    return version


def _check_namespaces() -> None:
    """Refuse when a knob of the kernel says that bubblewrap would fail."""
    if _knob("user/max_user_namespaces") == 0 or _knob("kernel/unprivileged_userns_clone") == 0:
        raise CellRefused("userns_disabled")


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
    if done.returncode != 0:
        raise CellRefused("bwrap_missing", f"{bwrap} does not run: {done.stderr.strip()[:200]}")
    return done.stdout + done.stderr


def _knob(name: str) -> int | None:
    try:
        return int((SYSCTL / name).read_text())
    except (OSError, ValueError):
        return None
