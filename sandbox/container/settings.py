"""What an operator sets for cells in containers, and the oldest versions that are taken."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from sandbox.errors import CellRefused

Engine = Literal["podman", "docker"]

CELL_ID = 65532
"""uid and gid in the container; the image needs no account of that number."""

_BY_DIGEST = re.compile(r"[a-z0-9][a-z0-9._/:-]{0,254}@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ContainerSettings:
    """Engine, runtime and image."""

    engine: Engine
    program: Path
    """Absolute path of the engine's command; never looked up in PATH."""
    runtime: Literal["runc", "crun", "runsc"] = "runc"
    image: str
    """The operator's own, by digest: `name@sha256:…`. It must be on the host already, and holds an interpreter and
    the packages that checks need; never the release's own code, which is mounted as the order names it."""
    interpreter: str = "/usr/local/bin/python3"
    """In the image."""
    executable: tuple[str, ...] = ("/usr", "/lib", "/lib64")
    """Folders of the image that hold the interpreter, its libraries and packages; with Landlock nothing else of the
    image may be read. Those that are links in the image need no place here."""
    python_path: tuple[str, ...] = ()
    """Folders of the image that hold packages, appended to the interpreter's own path."""
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What the engine's command itself needs to find its store or socket (HOME, XDG_RUNTIME_DIR, DOCKER_HOST); nothing
    of it reaches the cell."""
    work_dir: Path | None = None
    cpus: int = field(default_factory=lambda: os.cpu_count() or 1)
    start_s: float = 60.0
    """How long the engine may take for one command, and the shim for arming itself."""

    @property
    def is_sentry(self) -> bool:
        """Whether a kernel in user space, not the host's, answers the cell's system calls."""
        return self.runtime == "runsc"


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """The oldest version that is taken, and why."""

    version: str
    reason: str


MINIMUM: Mapping[str, Minimum] = MappingProxyType(
    {
        "podman": Minimum(version="4.4.0", reason="`keep-id:uid=,gid=` and `--read-only-tmpfs`; unverified"),
        "docker": Minimum(version="25.0.0", reason="`errnoRet` of filters and `bind-propagation`; unverified"),
        "runc": Minimum(version="1.2.8", reason="CVE-2025-31133, CVE-2025-52565, CVE-2025-52881; unverified"),
        "crun": Minimum(version="1.20", reason="CVE-2025-24965; unverified"),
        "runsc": Minimum(version="20240401.0", reason="has nvproxy and a cgroup v2 driver; unverified"),
        "nvidia-container-toolkit": Minimum(version="1.17.8", reason="CVE-2025-23266; unverified"),
    }
)
"""One table; none of these versions was run by us (no engine on the machines that build this release)."""


def check_settings(settings: ContainerSettings) -> None:
    """Refuse settings that could mean another program or another image tomorrow.

    Raises:
        CellRefused: engine_missing, image_not_by_digest.
    """
    if not settings.program.is_absolute() or not os.access(settings.program, os.X_OK) or settings.program.is_dir():
        raise CellRefused("engine_missing", f"{settings.program}: name the absolute path of {settings.engine}")
    if not _BY_DIGEST.fullmatch(settings.image):
        raise CellRefused("image_not_by_digest", f"{settings.image!r}: name the image as NAME@sha256:DIGEST")


def check_version(program: str, said: str) -> str:
    """Return a version once it is known to be new enough.

    Raises:
        CellRefused: engine_below_minimum, also for a version that cannot be read.
    """
    found = _numbers(said)
    owed = MINIMUM[program]
    if not found or found < _numbers(owed.version):
        raise CellRefused("engine_below_minimum", f"{program} {said[:64]!r}, needs {owed.version}: {owed.reason}")
    return said.strip()[:64]


def _numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(one or 0) for one in found.groups()) if found else ()
