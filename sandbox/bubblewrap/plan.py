"""From an order to a mount table and an argument list: pure but for looking at what exists."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sandbox import landlock
from sandbox.bubblewrap import gpus, profile
from sandbox.bubblewrap.profile import Mount
from sandbox.bubblewrap.settings import BubblewrapSettings
from sandbox.cell import Kind, Order
from sandbox.errors import CellRefused
from sandbox.inputs import Prepared

_CANARY = Path(__file__).parent.with_name("canary.py")
_NEVER = ("/", "/root", "/home", "/run", "/var", "/var/run", "/tmp", "/var/tmp", "/dev", "/proc", "/sys", "/etc")  # noqa: S108
_SYSTEM_UIDS = range(1, 1000)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one launch will mount and say."""

    mounts: tuple[Mount, ...]
    environment: Mapping[str, str]
    python_path: tuple[str, ...]
    """Appended to the interpreter's own path, after /code in front."""
    rules: tuple[landlock.Rule, ...]


def make(order: Order, ready: Prepared, settings: BubblewrapSettings, caps: Mapping[str, int], shim: Path) -> Plan:
    """Return the plan of one run.

    Raises:
        CellRefused: mount_forbidden_source, mount_beneath_untrusted, mount_shadowed, prefix_unreadable;
            gpu_nodes_missing, modprobe_present.
    """
    sizes = str(caps["scratch_bytes"]), str(caps["shm_bytes"])
    indices = tuple(str(one) for one in order.gpus)
    mounts = [
        *_system(settings),
        Mount(sort="ro", target=profile.SHIM, source=str(shim)),
        Mount(sort="ro", target=profile.CANARY, source=str(_CANARY)),
        *(Mount(sort="ro", target=f"/code/{one.name}", source=_code(one.source)) for one in order.code),
        *_inputs(ready),
        *(
            Mount(sort="rw", target=f"/out/{slot.name}", source=str(ready.root / "out" / slot.name))
            for slot, _descriptor in ready.slots
        ),
        *profile.tail(order.kind, _masks(), *sizes, indices),
    ]
    check_table(mounts)
    if order.kind == "check_gpu":
        gpus.check_nodes(mounts)
    environment = environment_of(order.kind, settings, len(indices))
    return Plan(
        mounts=tuple(mounts),
        environment=environment,
        python_path=tuple(str(path) for path in settings.site_packages),
        rules=landlock.rules(order.kind, mounts),
    )


def environment_of(kind: Kind, settings: BubblewrapSettings, devices: int = 0) -> dict[str, str]:
    """Return the complete environment of a cell that has so many GPUs."""
    counted = ",".join(str(index) for index in range(devices))
    return {
        name: value.replace("{cpus}", str(settings.cpus)).replace("{gpus}", counted)
        for name, value in profile.ENVIRONMENT[kind].items()
    }


def check_table(mounts: list[Mount]) -> None:
    """Refuse a table in which a mount point lies beneath untrusted ground, or covers an earlier one.

    Raises:
        CellRefused: mount_beneath_untrusted, mount_shadowed, profile_invalid.
    """
    seen: dict[str, bool] = {}
    above: set[str] = set()  # every directory that some earlier mount point lies beneath
    for mount in (one for one in mounts if one.sort != "remount"):
        target = PurePosixPath(mount.target)
        if not target.is_absolute() or ".." in target.parts:
            raise CellRefused("profile_invalid", mount.target)
        parents = [str(parent) for parent in target.parents]
        # /dev/shm lies beneath /dev, which nobody inside can write.
        if any(seen.get(parent) for parent in parents):
            raise CellRefused("mount_beneath_untrusted", mount.target)
        if str(target) in seen or str(target) in above:
            raise CellRefused("mount_shadowed", mount.target)
        seen[str(target)] = mount.sort in ("rw", "tmpfs") or f"{target}/".startswith("/in/")
        above.update(parents)


def check_source(source: Path) -> str:
    """Return the real path of something that may be mounted.

    Raises:
        CellRefused: mount_forbidden_source, prefix_unreadable.
    """
    try:
        real = source.resolve(strict=True)
        mode = real.stat().st_mode
    except OSError:
        raise CellRefused("prefix_unreadable", str(source)) from None
    homes = {one.pw_dir for one in pwd.getpwall() if one.pw_uid not in _SYSTEM_UIDS}
    if str(real) in _NEVER or str(real) in homes or not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise CellRefused("mount_forbidden_source", str(source))
    return str(real)


def _inputs(ready: Prepared) -> list[Mount]:
    """One folder, however many inputs lie in it: a mount for each would let a model of many files cost the start."""
    return [Mount(sort="ro", target="/in", source=str(ready.root / "in"))]


def _system(settings: BubblewrapSettings) -> list[Mount]:
    """Interpreter, libraries and packages, each at its own path."""
    mounts: list[Mount] = []
    if settings.prefix is not None:
        mounts.append(_own_place(settings.prefix))
    if settings.prefix is None or settings.prefix not in settings.interpreter.parents:
        mounts.append(_own_place(settings.interpreter))
    for library in settings.libraries:
        if library.is_symlink():
            mounts.append(Mount(sort="symlink", target=str(library), source=os.readlink(library)))
        elif library.is_dir():
            mounts.append(_own_place(library))
    trees = [Path(one.target) for one in mounts if one.sort == "ro"]
    for packages in settings.site_packages:
        if not any(tree in packages.parents for tree in trees):
            mounts.append(_own_place(packages))
    return mounts


def _own_place(path: Path) -> Mount:
    if str(check_source(path)) != str(path):
        # A link on the way would put it elsewhere inside; the operator names the real path.
        raise CellRefused("profile_invalid", f"{path} is not a real path")
    return Mount(sort="ro", target=str(path), source=str(path))


def _code(source: Path) -> str:
    """Return the real path of trusted code, which must hold no socket: one works through a read-only mount."""
    real = check_source(source)
    for folder, _names, files in os.walk(real):
        for name in files:
            if stat.S_ISSOCK(os.lstat(os.path.join(folder, name)).st_mode):
                raise CellRefused("mount_forbidden_source", f"{folder}/{name}")
    return real


def _masks() -> list[str]:
    return [name for name in profile.MASKS if os.path.exists(f"/proc/{name}")]
