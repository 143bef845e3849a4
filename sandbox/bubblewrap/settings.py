"""What an operator sets for bubblewrap cells."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.cell import KILL_BOUND_S, check_kill_bound

CELL_UID = 65533
"""An id that no account of a usual system has: 65534 is nobody, which other services share."""


def _interpreter() -> Path:
    return Path(os.path.realpath(sys.executable))


def _prefix() -> Path | None:
    # The system's interpreter needs nothing but itself and /usr/lib: all of /usr would show the host's programs.
    return None if sys.base_prefix == "/usr" else Path(sys.base_prefix)


def _site_packages() -> tuple[Path, ...]:
    if sys.prefix == sys.base_prefix:
        return ()
    paths = sysconfig.get_paths()
    return tuple(dict.fromkeys(Path(paths[name]) for name in ("purelib", "platlib")))


@dataclass(frozen=True, kw_only=True)
class BubblewrapSettings:
    """Paths, ids and sizes; the defaults take over the running interpreter and its virtual environment."""

    bwrap: Path = Path("/usr/bin/bwrap")
    """Absolute; never looked up in PATH."""
    interpreter: Path = field(default_factory=_interpreter)
    prefix: Path | None = field(default_factory=_prefix)
    """The interpreter's own tree, mounted at its own path: elsewhere it may load another libpython. None for the
    system's interpreter, whose library is among the system's."""
    site_packages: tuple[Path, ...] = field(default_factory=_site_packages)
    libraries: tuple[Path, ...] = (Path("/usr/lib"), Path("/usr/lib64"), Path("/lib"), Path("/lib64"))
    """Those that exist are mounted, links are made as links."""
    cell_uid: int | None = CELL_UID
    """Who a cell is on the host when the worker is root; an account that nothing else uses."""
    work_dir: Path | None = None
    """Where private folders of runs are made; None means the system's temporary folder."""
    cgroup_parent: str | None = None
    """The control group beneath which each cell gets its own; None means rlimits and the watchdog, and says so."""
    cpus: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads that libraries in a cell may use."""
    kill_bound_s: float = KILL_BOUND_S
    """How long after a kill the last process may take to go; less than the default is for rehearsals."""

    def __post_init__(self) -> None:
        """Refuse a bound that cannot be promised."""
        check_kill_bound(self.kill_bound_s)
