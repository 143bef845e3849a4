"""What can go wrong around a cell, as three kinds that are never mixed.

SandboxError
├── CellRefused(code, item)     isolation could not be armed; nothing untrusted ran
├── CellFailed(code)            the machine failed; the run may be retried
└── ResultRejected(code, at)    what came out of the cell is not acceptable
"""

from __future__ import annotations

REFUSED = {
    "bwrap_missing": "bubblewrap was not found at the configured path; install it or set its absolute path",
    "bwrap_setuid": "bubblewrap is setuid or carries file capabilities; install a plain copy and configure that one",
    "bwrap_option_missing": "this bubblewrap lacks an option that the profile needs; install a newer one",
    "userns_disabled": "user namespaces are off; set user.max_user_namespaces above 0",
    "userns_apparmor": "AppArmor forbids user namespaces to this program; give bubblewrap a profile with `userns`",
    "proc_mount_denied": "a fresh /proc cannot be mounted here; run the worker outside of a masked container",
    "seccomp_unsupported": "the kernel filters no system calls; run a kernel built with CONFIG_SECCOMP_FILTER, "
    "outside of a container that hides it",
    "landlock_partial": "a Landlock rule could not be applied in full; check that the named path exists and "
    "can be read by the cell's user",
    "cgroup_unusable": "the configured cgroup parent cannot carry this controller; make and delegate it in "
    "every hierarchy, or remove cgroup_parent",
    "cgroup_required_for_gpu": "GPU cells need a memory cgroup; configure a cgroup parent",
    "host_uid_root": "the worker is root and no cell uid is configured; set cell_uid to an account nothing else uses",
    "prefix_unreadable": "the cell's user cannot reach this path; move it to where it is readable, or run as root",
    "arch_unsupported": "this machine's architecture has no filter table; run workers on x86_64",
    "profile_invalid": "the order or the profile is malformed; correct the named item",
    "limit_invalid": "unknown limit, or value out of range; see the table of limits",
    "mount_beneath_untrusted": "a mount point lies beneath one that untrusted code may write; move the named path",
    "mount_shadowed": "a later mount would cover an earlier one; give each its own place",
    "mount_forbidden_source": "a root, home, runtime or temporary directory, or a socket, is never mounted; move "
    "the named path out of it",
    "input_digest": "the input is not the file that the order names; send it again",
    "not_armed": "a layer was not seen armed from outside, so nothing untrusted was started; `python "
    "-m sandbox prove` tells more",
    "selfcheck_open": "a probe got through the wall on this host, so no cell is started; report it as "
    "SECURITY.md says, with `make sandbox-report`",
    "selfcheck_void": "a control of the self-check failed, so its probe proves nothing on this host; `make "
    "sandbox-report` shows which",
    "gpu_nodes_missing": "the GPU's device nodes do not exist; create them at boot (nvidia-persistenced, "
    "nvidia-modprobe -c 0 -u)",
    "modprobe_present": "a setuid nvidia-modprobe is in view; remove its setuid bit",
    "driver_below_minimum": "the GPU driver is older than the minimum; upgrade it",
    "engine_missing": "the container engine does not run; name the absolute path of its command, start its service, "
    "and make its runtime known to it",
    "engine_below_minimum": "the engine or its runtime is older than the oldest version that is taken, or its version "
    "cannot be read; upgrade it",
    "runtime_not_sentry": "containers share the host's kernel and user namespace unless gVisor answers their system "
    'calls, so that the mandatory layers cannot all be shown; install gVisor and set runtime = "runsc"',
    "image_unusable": "the image does not tell its interpreter and packages from inside a cell; build it as the guide "
    "says, and name its interpreter and python_path",
    "image_not_by_digest": "an image's name can mean another image tomorrow; name the operator's own by its digest, "
    "NAME@sha256:DIGEST, and pull it before the worker starts",
}
"""Closed list of refusal codes, each with what to do next."""

FAILED = {
    "spawn_failed": "the cell's process could not be started",
    "no_space": "the work directory is full; free space and retry",
    "cell_unkillable": "processes of the cell were still there when the time for killing it was over; look at the host",
    "cgroup_busy": "the cell's group could not be removed",
    "host_lost": "the host lost the cell",
}
"""Closed list of machine failures."""


class SandboxError(Exception):
    """Root of everything this package raises."""


class CellRefused(SandboxError):
    """Isolation could not be armed; nothing untrusted ran.

    Attributes:
        code: one of `REFUSED`.
        item: what it was about (a path, a limit, a layer), for the operator.
    """

    def __init__(self, code: str, item: str = "") -> None:
        super().__init__(f"{code}{f' ({item})' if item else ''}: {REFUSED[code]}")
        self.code = code
        self.item = item


class CellFailed(SandboxError):
    """The machine failed; the same order may be tried again.

    Attributes:
        code: one of `FAILED`.
        item: detail for the operator.
    """

    def __init__(self, code: str, item: str = "") -> None:
        super().__init__(f"{code}{f' ({item})' if item else ''}: {FAILED[code]}")
        self.code = code
        self.item = item


class ResultRejected(SandboxError):
    """What came out of a cell is not acceptable as a result.

    Attributes:
        code: a code of the result channel, e.g. "result_missing".
        at: where, in the name alphabet.
    """

    def __init__(self, code: str, at: str = "") -> None:
        super().__init__(f"{code}{f' at {at}' if at else ''}")
        self.code = code
        self.at = at
