"""Asks a container engine, and believes only what it says in the form that is expected."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.container.settings import ContainerSettings, check_version
from sandbox.errors import CellFailed, CellRefused

_CONTROLLERS = ("cpu", "memory", "pids")
_ID = re.compile(r"[0-9a-f]{64}")
_SAID = 300


def ask(settings: ContainerSettings, arguments: Sequence[str]) -> str:
    """Run one command of the engine; return what it says.

    Raises:
        CellRefused: engine_missing, when it does not run at all.
        CellFailed: spawn_failed, when it fails or does not answer.
    """
    try:
        done = subprocess.run(
            [str(settings.program), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=settings.start_s,
            env=dict(settings.environment),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CellFailed("spawn_failed", f"{settings.engine} {arguments[0]} did not answer") from None
    except OSError as error:
        raise CellRefused("engine_missing", f"{settings.program}: {error.strerror}") from None
    if done.returncode != 0:
        raise CellFailed("spawn_failed", f"{settings.engine} {arguments[0]}: {done.stderr.strip()[-_SAID:]}")
    return done.stdout


def check_host(settings: ContainerSettings) -> tuple[str, bool]:
    """Return the versions of engine and runtime, and whether the engine is rootless.

    Raises:
        CellRefused: engine_missing, engine_below_minimum, cgroup_unusable, seccomp_unsupported.
    """
    try:
        info = json.loads(ask(settings, ["info", "--format={{json .}}"]))
        host = _docker(info, settings) if settings.engine == "docker" else _podman(info, settings)
        version, runtime, controllers, seccomp, rootless = host
    except CellFailed as error:
        raise CellRefused("engine_missing", str(error.item)) from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CellRefused("engine_missing", f"{settings.engine} info is not understood: {error!r}"[:_SAID]) from None
    engine = check_version(settings.engine, version)
    made = check_version(settings.runtime, runtime)
    if not seccomp:
        raise CellRefused("seccomp_unsupported", f"{settings.engine} loads no filters")
    for name in _CONTROLLERS:
        if name not in controllers:
            raise CellRefused("cgroup_unusable", name)
    if settings.is_sentry and rootless:
        # It ignores errors of control groups then, so that no limit is known to hold.
        raise CellRefused("cgroup_unusable", "runsc under a rootless engine")
    return f"{settings.engine} {engine}, {settings.runtime} {made}", rootless


_Host = tuple[str, str, set[str], bool, bool]


def _docker(info: Mapping[str, Any], settings: ContainerSettings) -> _Host:
    limited = {
        "memory": info["MemoryLimit"] and info["SwapLimit"],
        "pids": info["PidsLimit"],
        "cpu": info["CpuCfsQuota"],
    }
    options = [str(one) for one in info["SecurityOptions"]]
    if settings.runtime not in info["Runtimes"]:
        raise CellRefused("engine_missing", f"docker knows no runtime {settings.runtime}")
    return (
        str(info["ServerVersion"]),
        _runtime_version(info["Runtimes"][settings.runtime].get("path", settings.runtime), settings),
        {name for name, held in limited.items() if held is True},
        any("name=seccomp" in one for one in options),
        any("name=rootless" in one for one in options),
    )


def _podman(info: Mapping[str, Any], settings: ContainerSettings) -> _Host:
    host = info["host"]
    runtime = host["ociRuntime"]
    if runtime["name"] == settings.runtime:
        said = _version_in(str(runtime["version"]))
    else:
        said = _runtime_version(settings.runtime, settings)
    rootless = bool(host["security"]["rootless"])
    if rootless and host["cgroupVersion"] != "v2":
        raise CellRefused("cgroup_unusable", "a rootless podman needs cgroup v2")
    return (
        str(info["version"]["Version"]),
        said,
        {str(one) for one in host["cgroupControllers"]},
        host["security"]["seccompEnabled"] is True,
        rootless,
    )


def _runtime_version(program: str, settings: ContainerSettings) -> str:
    """Ask the runtime itself, which the engine finds among the system's programs."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=settings.start_s,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        raise CellRefused("engine_missing", f"{program} does not run") from None
    return _version_in(done.stdout)


def _version_in(said: str) -> str:
    """Return the word after "version"; runsc's is "release-20240401.0", a date, read as one number."""
    first = next((line for line in said.splitlines() if "version" in line), "")
    return first.rpartition("version")[2].strip().removeprefix("release-")


def create(settings: ContainerSettings, arguments: Sequence[str]) -> str:
    """Create a container; return its id.

    Raises:
        CellFailed: spawn_failed.
    """
    said = ask(settings, arguments).strip()
    if not _ID.fullmatch(said):
        raise CellFailed("spawn_failed", f"{settings.engine} create names no container")
    return said


def inspect(settings: ContainerSettings, container: str) -> Mapping[str, Any]:
    """Return what the engine holds a container to be.

    Raises:
        CellFailed: spawn_failed, host_lost.
    """
    try:
        (told,) = json.loads(ask(settings, ["container", "inspect", container]))
        if told["Id"] != container:
            raise ValueError("another container")
    except (ValueError, LookupError, TypeError) as error:
        raise CellFailed("host_lost", f"inspect: {error!r}"[:_SAID]) from None
    return dict(told)


def kill(settings: ContainerSettings, container: str) -> None:
    """Send SIGKILL to all of a container; one that has ended is no error, what is left is found by `remove`."""
    try:
        ask(settings, ["kill", "--signal=KILL", container])
    except CellFailed:
        return


def remove(settings: ContainerSettings, container: str) -> None:
    """Remove a container and make sure that it is gone.

    Raises:
        CellFailed: cell_unkillable.
    """
    said = ""
    try:
        ask(settings, ["rm", "--force", "--volumes", container])
    except CellFailed as error:
        said = error.item
    try:
        left = ask(settings, ["ps", "--all", "--quiet", "--no-trunc", f"--filter=id={container}"]).split()
    except CellFailed as error:
        left, said = [container], said or error.item
    if left:
        raise CellFailed("cell_unkillable", f"container {container[:12]}: {said}")


def sweep(settings: ContainerSettings, label: str, live: frozenset[str] = frozenset()) -> int:
    """Remove the containers that dead workers left; return how many there were.

    Args:
        settings: which engine.
        label: that every container of ours has.
        live: ids that somebody still uses.

    Raises:
        CellFailed: cell_unkillable, spawn_failed.
    """
    found = ask(settings, ["ps", "--all", "--quiet", "--no-trunc", f"--filter=label={label}=1"]).split()
    dead = [one for one in found if one not in live]
    for one in dead:
        remove(settings, one)
    return len(dead)


def sweep_orphans(settings: ContainerSettings, label: str, result: str, cells: Path) -> int:
    """Remove the containers whose result would go to a file beneath `cells` that is gone; return how many.

    Another worker of this host has its files as long as it lives, so that its containers are not touched.

    Raises:
        CellFailed: cell_unkillable, spawn_failed.
    """
    found = ask(settings, ["ps", "--all", "--quiet", "--no-trunc", f"--filter=label={label}=1"]).split()
    dead = [one for one in found if _is_orphan(settings, one, result, cells)]
    for one in dead:
        remove(settings, one)
    return len(dead)


def _is_orphan(settings: ContainerSettings, container: str, result: str, cells: Path) -> bool:
    try:
        mounts = inspect(settings, container)["Mounts"]
        (source,) = [Path(str(one["Source"])) for one in mounts if one["Destination"] == result]
    except (CellFailed, LookupError, TypeError, ValueError):
        return False  # ended meanwhile, or none of ours
    return source.is_relative_to(cells) and not source.exists()


def environment_of_engine() -> dict[str, str]:
    """Return what an engine's command usually needs of this process's environment."""
    return {name: os.environ[name] for name in ("HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST") if name in os.environ}
