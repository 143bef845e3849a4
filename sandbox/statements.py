"""Fixed sentences that a seal may make about what was not there. A report carries the id; the text stands here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

STATEMENTS: Mapping[str, str] = MappingProxyType(
    {
        "nothing_isolated": "The program ran as an ordinary process: nothing was isolated.",
        "seccomp_absent": "System calls were not filtered: the kernel's whole interface was within reach.",
        "landlock_absent": "No Landlock rules were applied; file access was limited by the mount table alone.",
        "memory_per_process": "Memory was limited per process and by a 100 ms watchdog, not by a cgroup: a shorter"
        " burst may exceed the limit; kernel objects such as empty files, and pages of shared memory that a process"
        " has let go of while the memory lives on, are not counted.",
        "swap_not_limited": "Memory of the cell may have been written to the host's swap.",
        "started_warm": "The cell was started, and the release's own code imported in it, before the order was known;"
        " every layer was looked at from outside when the order had come. It had seen no other audit. The self-check of"
        " the host attacked fresh cells.",
        "layers_by_sentry": "A kernel in user space (gVisor) answered the cell's system calls: its layers are as the"
        " engine was told to arm them, and were not looked at from outside.",
        "process_limit_per_namespace": "The number of processes was limited per user namespace, not by a cgroup.",
        "supplementary_groups": "The cell kept the worker's supplementary groups on the host, which only root can"
        " take away: a file that it was given and that such a group may read was open to it.",
    }
)

PROCESS = ("nothing_isolated",)
WARM = ("started_warm",)
SENTRY = ("layers_by_sentry",)
EARLIER = ("seccomp_absent",)
"""Made by reports of the first releases, and by none any more: a report is read for ever."""


def of_bubblewrap(
    landlock_abi: int,
    *,
    grouped: bool,
    swap_limited: bool = False,
    warm: bool = False,
    more_groups: bool = False,
) -> tuple[str, ...]:
    """Return what a bubblewrap cell has to say, by what was there.

    Args:
        landlock_abi: the version that was put on; 0 where the kernel has none.
        grouped: whether a control group held memory and processes.
        swap_limited: whether that group also kept the cell out of the swap space.
        warm: whether it was started before its order was known.
        more_groups: whether it was in other groups of the host than its own.
    """
    made = [] if landlock_abi else ["landlock_absent"]
    made += [] if grouped else ["memory_per_process", "process_limit_per_namespace"]
    made += [] if swap_limited else ["swap_not_limited"]
    made += WARM if warm else ()
    made += ["supplementary_groups"] if more_groups else []
    return tuple(sorted(made))


BUBBLEWRAP = of_bubblewrap(0, grouped=False, more_groups=True)
"""The most that a bubblewrap cell can lack."""
