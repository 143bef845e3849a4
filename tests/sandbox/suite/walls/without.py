"""Takes one layer off every cell that this process starts, by replacing what production composes a launch from."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

from sandbox import bubblewrap, filters, landlock, launcher, limits, supervise
from sandbox.bubblewrap import profile
from sandbox.bubblewrap.profile import Mount

Patch = Callable[[ExitStack], None]
_SPACES = ("ipc", "pid", "net", "uts", "cgroup")
_STRAY = 1500
_LATE_S = 3.0


@dataclass(frozen=True)
class Layer:
    """A layer that can be taken away."""

    name: str
    take: Patch
    gate: str
    """The row of the gate that refuses; "" where the gate cannot see it."""
    cases: tuple[str, ...]
    """Ids of cases that become open behind a gate that sees nothing; none where another layer still holds."""
    root_only: bool = False


@contextmanager
def without(layer: Layer, *, blind: bool = False) -> Iterator[None]:
    """Start cells without a layer.

    Args:
        layer: what is taken away.
        blind: let the gate see nothing, as if it were broken too.
    """
    with ExitStack() as stack:
        layer.take(stack)
        if blind:
            _put(stack, bubblewrap.gate, "check", lambda _armed: {})
        yield


def _put(stack: ExitStack, where: Any, name: str, what: Any) -> None:
    stack.enter_context(mock.patch.object(where, name, what))


def _flags(change: Callable[[list[str]], list[str]]) -> Patch:
    return lambda stack: _put(stack, profile, "FLAGS", tuple(change(list(profile.FLAGS))))


def _share(name: str) -> Patch:
    """`--unshare-all` cannot be taken back but for the network, so all others are named one by one."""
    others = [f"--unshare-{one}" for one in _SPACES if one != name]
    return _flags(lambda flags: [part for one in flags for part in (others if one == "--unshare-all" else [one])])


def _instead(old: tuple[str, ...], new: tuple[str, ...]) -> Patch:
    def change(flags: list[str]) -> list[str]:
        at = flags.index(old[0])
        assert tuple(flags[at : at + len(old)]) == old
        return [*flags[:at], *new, *flags[at + len(old) :]]

    return _flags(change)


def _tail(change: Callable[[Mount], Mount | None]) -> Patch:
    def take(stack: ExitStack) -> None:
        whole = profile.tail

        def changed(*given: Any) -> tuple[Mount, ...]:
            made = (change(one) for one in whole(*given))
            return tuple(one for one in made if one is not None)

        _put(stack, profile, "tail", changed)

    return take


def _unmounted(sort: str, *targets: str) -> Patch:
    return _tail(lambda one: None if one.sort == sort and one.target in targets else one)


def _unsized(target: str) -> Patch:
    return _tail(lambda one: replace(one, size=str(2**30)) if one.target == target else one)


def _unlimited(*names: str) -> Patch:
    def take(stack: ExitStack) -> None:
        whole = limits.rlimits

        def fewer(caps: Mapping[str, int]) -> dict[str, tuple[int, int]]:
            return {name: pair for name, pair in whole(caps).items() if name not in names}

        _put(stack, limits, "rlimits", fewer)

    return take


def _stray(stack: ExitStack) -> None:
    start = launcher._start

    def leaking(arguments: Any, pipes: Any, cwd: Any, environment: Any) -> int:
        number = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
        pipes.child["stray"] = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _STRAY)  # above what the shim closes
        os.close(number)
        return start(arguments, pipes, cwd, environment)

    _put(stack, launcher, "_start", leaking)


def _host_root(stack: ExitStack) -> None:
    """bubblewrap is started by root itself, as by a worker that believes that it is somebody else."""
    someone = SimpleNamespace(**{**vars(os), "geteuid": lambda: 1})
    _put(stack, bubblewrap, "os", someone)


def _endless(stack: ExitStack) -> None:
    follow = supervise.Running.follow

    def patient(self: supervise.Running, _cancelled: Any) -> Any:
        self.limits = {**self.limits, "wall_s": 600}
        begun = time.monotonic()
        return follow(self, lambda: time.monotonic() > begun + _LATE_S)

    _put(stack, supervise.Running, "follow", patient)


def _visible(stack: ExitStack) -> None:
    import tempfile

    whole, place = profile.tail, tempfile.gettempdir()
    _put(stack, profile, "tail", lambda *given: (Mount(sort="ro", target=place, source=place), *whole(*given)))


def _both(*patches: Patch) -> Patch:
    def take(stack: ExitStack) -> None:
        for one in patches:
            one(stack)

    return take


def _filter(name: str) -> Patch:
    return lambda stack: _put(stack, filters, name, lambda _kind: b"")


_UTS = _both(_share("uts"), _instead(("--hostname", "cell"), ()))
_MASKS = _unmounted("ro", *(f"/proc/{name}" for name in profile.MASKS))
_KNOBS = _unmounted("ro", "/proc/sys")
_LEAK = _instead(("--clearenv",), ("--setenv", "ASSAY_PLANTED", "1"))

LAYERS: tuple[Layer, ...] = (
    *(Layer(f"namespace {name}", _share(name), "namespaces", ("S19",)) for name in ("ipc", "net", "cgroup")),
    Layer("namespace uts", _UTS, "namespaces", ("S19",)),
    Layer("namespace pid", _share("pid"), "0 processes before the start", ()),
    Layer("outer filter", _filter("outer"), "seccomp", ("S08", "S09", "S14", "S16", "S17", "S18", "S19", "S21")),
    Layer("inner filter", _filter("inner"), "seccomp", ("S25",)),
    Layer("Landlock", lambda stack: _put(stack, landlock, "planned", lambda *_given: None), "landlock", ("S04",)),
    Layer("limit of processes", _unlimited("NPROC"), "rlimits", ("S29",)),
    Layer("limit of a file", _unlimited("FSIZE"), "rlimits", ("S06", "S30")),
    Layer("limit of processor time", _unlimited("CPU"), "rlimits", ("S31",)),
    Layer("limit of address space", _unlimited("AS"), "rlimits", ()),
    Layer("limit of core files", _both(_unlimited("CORE"), _filter("inner")), "seccomp", ("S39",)),
    Layer("read-only root", _unmounted("remount", "/"), "mounts", ()),
    Layer("read-only /dev", _unmounted("remount", "/dev"), "mounts", ()),
    Layer("read-only /proc/sys", _KNOBS, "", ("S23",)),
    Layer("masks of /proc", _MASKS, "", ("S23",)),
    Layer("mount table", _visible, "", ("S01", "S02")),
    Layer("cleared environment", _LEAK, "", ("S28",)),
    Layer("closed descriptors", _stray, "descriptors", ("S27",)),
    Layer("new session", _instead(("--new-session",), ()), "", ("S22",)),
    Layer("dropped capabilities", _instead(("--cap-drop", "ALL"), ("--cap-add", "ALL")), "capabilities", ()),
    Layer("dropped uid", _host_root, "uid", ("S29",), root_only=True),
    Layer("dropped uid and masks", _both(_host_root, _KNOBS, _MASKS), "uid", ("S23",), root_only=True),
    Layer("size of scratch", _unsized("/scratch"), "", ("S30",)),
    Layer("size of shared memory", _unsized("/dev/shm"), "", ("S30",)),
    Layer("wall clock", _endless, "", ("S31",)),
    Layer("memory watchdog", lambda stack: _put(stack, supervise.Running, "look", lambda _self: None), "", ("S30",)),
)
"""Every layer that can be taken away alone. User and mount namespaces cannot: bubblewrap always makes them."""

NO_DEATH_SIGNAL = (
    "from sandbox.bubblewrap import profile\n"
    "profile.FLAGS = tuple(one for one in profile.FLAGS if one != '--die-with-parent')\n"
)
"""Prelude of a launcher whose cells outlive it (S43)."""
