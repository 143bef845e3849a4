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
        " burst may exceed the limit; kernel objects such as empty files are not counted.",
        "swap_not_limited": "Memory of the cell may have been written to the host's swap.",
        "process_limit_per_namespace": "The number of processes was limited per user namespace, not by a cgroup.",
    }
)

BUBBLEWRAP = (
    "landlock_absent",
    "memory_per_process",
    "process_limit_per_namespace",
    "seccomp_absent",
    "swap_not_limited",
)
PROCESS = ("nothing_isolated",)
