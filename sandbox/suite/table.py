"""The cases that are tried from inside a cell, and the ids of those that are tried on what a cell leaves or needs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sandbox.suite.case import ABSENT, Case, Killer

_READ = frozenset({"ENOENT", "EACCES"})
_CHANGE = frozenset({"EROFS", "EACCES"})
_NOT = frozenset({"EPERM"})
_NOT_IN_INGEST = frozenset({"EPERM", "ENOENT"})
_ROUTES = ABSENT | {"ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL"}

MIB = 2**20
PROCESSES = 16
MEMORY_BYTES, HELD_BYTES = 256 * MIB, 320 * MIB
SCRATCH_BYTES, SHM_BYTES, SLOT_BYTES = 4 * MIB, MIB, 64 * 1024
SPIN_S = 4.0
OUTLASTS_S = 1.2

_SLEEP = Killer(probe="sleep", limits={"wall_s": 1}, outlasts_s=OUTLASTS_S)
_STOP = Killer(probe="stop", limits={"wall_s": 1}, outlasts_s=OUTLASTS_S, kinds=("check",))
_SPIN = Killer(probe="spin", limits={"cpu_s": 1, "wall_s": 20}, outlasts_s=OUTLASTS_S, kinds=("check",))
_MEMORY = Killer(probe="memory", limits={"memory_bytes": MEMORY_BYTES, "wall_s": 20})

CASES: tuple[Case, ...] = (
    Case(
        id="S01", attack="read a host file around corners", probes=("canary",), shown="bare reads it",
        expected="denied ENOENT/EACCES; its bytes are in no result, slot or log", denied=_READ, ingest=_NOT_IN_INGEST,
    ),
    Case(
        id="S02", attack="list homes, read keys and tokens", probes=("homes",), shown="bare lists a planted tree",
        expected="denied ENOENT/EACCES", denied=_READ, ingest=_NOT_IN_INGEST,
        privileged=frozenset({"list_/home", "list_/etc", "list_/var"}),
    ),
    Case(
        id="S03", attack="change every read-only mount", probes=("readonly",), shown="bare changes a copy",
        expected="denied EROFS/EACCES; digests unchanged", denied=_CHANGE | {"EBUSY"}, ingest=_NOT,
    ),
    Case(
        id="S04", attack="links to a host file in scratch, then copy-out", probes=("symlinks",), in_prove=False,
        shown="bare: a naive copy follows", expected="denied; slots hold no canary",
        landlock=frozenset({"absolute", "relative"}), denied=_READ | {"EROFS", "EBUSY", "EXDEV"}, ingest=_NOT_IN_INGEST,
    ),
    Case(
        id="S05", attack="hard link from scratch to an input, to the canary", probes=("hard_links",),
        shown="bare links", expected="denied EXDEV/ENOENT/EACCES", denied=_READ | {"EXDEV"}, ingest=_NOT_IN_INGEST,
    ),
    Case(
        id="S06", attack="a slot becomes something else", probes=("slots",), shown="bare makes each", in_prove=False,
        expected="denied; EFBIG; holes are zeros", denied=_CHANGE | {"EFBIG", "EBUSY", "EPERM"}, ingest=_NOT_IN_INGEST,
    ),
    Case(
        id="S07", attack="odd names beside a slot", probes=("names",), shown="bare makes each", in_prove=False,
        expected="denied EROFS/EACCES", denied=_CHANGE, ingest=_NOT_IN_INGEST,
    ),
    Case(
        id="S08", attack="make nodes of disk and memory", probes=("devices",), controls=("root",),
        shown="root makes each", expected="denied EPERM", denied=_NOT, ingest=_NOT,
        privileged=frozenset({"disk", "memory", "port"}),
    ),
    Case(
        id="S09", attack="mount, remount, move the root", probes=("mounts",), controls=("caps", "bare"), effect=False,
        shown="reached with capabilities", expected="denied EPERM", denied=_NOT,
    ),
    Case(
        id="S10", attack="write an input through a shared mapping", probes=("shared_mapping",),
        shown="bare changes a copy", expected="denied; digest unchanged",
        denied=_CHANGE | {"own copy", "EIO", "EFAULT"}, ingest=_NOT_IN_INGEST,
    ),
    Case(
        id="S12", attack="reach the network", probes=("internet",), controls=("bare", "caps"),
        shown="bare reaches the listeners, caps makes raw sockets", expected="denied EPERM; listeners saw 0",
        denied=_NOT, absent=_ROUTES,
    ),
    Case(
        id="S13", attack="DNS as a channel", probes=("dns",), shown="bare: the resolver sees the query", in_prove=False,
        expected="denied EPERM; 0 queries", denied=_NOT,
    ),
    Case(
        id="S14", attack="sockets of other families", probes=("families",), controls=("bare", "caps"),
        shown="bare or caps makes each", expected="denied EPERM", denied=_NOT,
        privileged=frozenset({"key", "bluetooth", "alg"}),
    ),
    Case(
        id="S15", attack="a host's socket by path", probes=("unix_path",), shown="bare connects", in_prove=False,
        expected="denied EPERM", denied=_NOT,
    ),
    Case(
        id="S16", attack="a host's abstract socket", probes=("abstract",), shown="bare connects",
        expected="denied EPERM", denied=_NOT,
    ),
    Case(
        id="S17", attack="io_uring", probes=("io_uring",), shown="bare reaches each", effect=False,
        expected="denied ENOSYS", denied=frozenset({"ENOSYS"}), privileged=frozenset({"setup", "enter", "register"}),
    ),
    Case(
        id="S18", attack="bpf, counters, page faults, keys, kernels, modules", probes=("doors",), effect=False,
        controls=("bare", "caps"), shown="bare or caps reaches each", expected="denied EPERM", denied=_NOT,
        privileged=frozenset(
            {"kexec_load", "finit_module", "open_by_handle_at", "syslog", "fanotify_init", "bpf", "perf_event_open",
             "userfaultfd", "add_key", "request_key", "keyctl"}
        ),
    ),
    Case(
        id="S19", attack="make, enter or share namespaces", probes=("namespaces",), shown="bare makes or shares each",
        expected="denied EPERM/ENOSYS; all seven differ", denied=_NOT | {"ENOSYS", "other"}, ingest=_NOT_IN_INGEST,
        effect=False,
    ),
    Case(
        id="S20", attack="32-bit gate and x32 numbers", probes=("gate32",), shown="bare: the gate answers",
        expected="the caller dies of SIGSYS", denied=frozenset({"SIGSYS"}), ingest=_NOT, good="killed",
    ),
    Case(
        id="S21", attack="trace the launcher, a sibling, process 1", probes=("trace",), effect=False,
        shown="bare traces its own child", expected="denied EPERM", denied=_NOT,
        privileged=frozenset({"launcher", "init", "sibling", "traceme"}),
    ),
    Case(
        id="S22", attack="signal the host's processes, or others by a file that they share",
        probes=("signals", "shared_files"), shown="bare stops a test process; locks, leases and watches a file",
        expected="denied ESRCH/EPERM; the process runs on", denied=frozenset({"ESRCH", "EPERM", "own", "own number"}),
    ),
    Case(
        id="S23", attack="open the kernel's settings", probes=("knobs",), controls=("root", "bare"),
        shown="root opens each", expected="denied EACCES/EROFS/ENOENT", denied=_READ | {"EROFS"}, ingest=_NOT,
        privileged=frozenset(
            {"core_pattern", "modprobe", "sysrq", "uevent_helper", "kcore", "keys", "kallsyms", "all_of_kernel",
             "timer_list", "mount"}
        ),
        absent=ABSENT | {"ENOENT"},
    ),
    Case(
        id="S24", attack="look into the host's processes", probes=("others",), shown="bare reads the launcher's",
        expected="denied; only the cell's own", denied=_READ | {"own", "own number"},
    ),
    Case(
        id="S25", attack="gain a uid, a capability, a program", probes=("privileges",), controls=("bare", "caps"),
        shown="bare or caps is allowed each", expected="denied EPERM; no_new_privs", effect=False,
        denied=_NOT | {"no such uid"},
        privileged=frozenset({"may_gain", "setgroups", "memfd"}),
    ),
    Case(
        id="S26", attack="outlive the cell", probes=("orphan",), shown="bare survives", kinds=("check",),
        expected="gone when the run is over", denied=frozenset({"gone"}), good="contained",
    ),
    Case(
        id="S27", attack="stray descriptors; a directory of the host", probes=("descriptors",),
        shown="bare has both", expected="exactly 0 to 4, /", denied=frozenset({"0 to 4", "root"}),
    ),
    Case(
        id="S28", attack="hooks of the interpreter, variables of the launcher", probes=("hooks",),
        shown="bare: each is seen", expected="environment equals the table; no hook ran",
        denied=frozenset({"equal", "absent"}),
    ),
    Case(
        id="S29", attack="fork and thread bombs beside a second cell", probes=("forks", "threads"),
        shown="bare exceeds the limit", expected="EAGAIN below the limit; the second cell finishes",
        denied=frozenset({"EAGAIN", "finished"}), ingest=_NOT, good="contained",
    ),
    Case(
        id="S30", attack="exhaust memory, scratch, shared memory, a file; hold memory of no process",
        probes=("space", "file_size", "unmapped"), killers=(_MEMORY,), shown="bare exceeds each limit, makes each",
        expected="killed memory; ENOSPC; EFBIG; EPERM", denied=frozenset({"ENOSPC", "EFBIG", "EPERM", "memory"}),
        ingest=_NOT_IN_INGEST, good="contained",
    ),
    Case(
        id="S31", attack="spin, sleep, stop oneself, run before others", probes=("priority",),
        killers=(_SLEEP, _STOP, _SPIN), shown="bare outlasts the limit", expected="killed wall/cpu; EPERM",
        denied=frozenset({"wall", "cpu", "EPERM", "EACCES"}), good="killed", privileged=frozenset({"nice"}),
    ),
    Case(
        id="S32", attack="exhaust a GPU", shown="GPU only", expected="killed; the next cell runs", kinds=("check_gpu",),
        denied=frozenset(),
    ),
    Case(
        id="S33", attack="open devices of other GPUs", probes=("gpu_nodes",), shown="bare opens them", in_prove=False,
        expected="denied ENOENT/EPERM", denied=_READ | {"EPERM"}, absent=ABSENT | {"ENOENT", "ENXIO"},
    ),
    Case(
        id="S39", attack="have a core file", probes=("core",), shown="bare may", in_prove=False,
        expected="the limit is final", denied=_NOT, privileged=frozenset({"allowed", "limit"}),
    ),
)  # fmt: skip
"""Tried from inside a cell. P cases are those with `in_prove`."""

ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "S11": "uploads with links at mount points; a plan that mounts beneath them",
        "S34": "malformed result documents",
        "S35": "results that claim what only the host may say",
        "S36": "a result of another run",
        "S37": "markup, terminal codes, formulas and lines in names and messages",
        "S38": "weights in low bits, list lengths, slots",
        "S40": "checks of third parties outside a cell",
        "S41": "hosts that lack a layer",
        "S42": "empty, unknown and mistyped profiles",
        "S43": "the launcher is killed",
        "S44": "reach the service's own sockets and queue",
        "S45": "two cells at once",
    }
)
"""Tried on what a cell leaves or needs: they need the service, or more than one launch. Run by the tests."""
