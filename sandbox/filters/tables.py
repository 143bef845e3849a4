"""What a cell may ask of the kernel, as data: two tables for each kind of cell.

The outer table is loaded by bubblewrap before the first program of the cell; the inner one is stacked on it by the
shim, which is the last that may execute anything. Of two filters the kernel takes the stricter answer.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from sandbox.cell import Kind
from sandbox.filters.numbers import NUMBERS

ALLOW = 0
"""The answer of a call that may pass; every other answer is the errno that the caller gets."""
EPERM, ENOSYS, ENOTTY = errno.EPERM, errno.ENOSYS, errno.ENOTTY


@dataclass(frozen=True)
class Test:
    """One comparison of an argument.

    `low` compares the lower 32 bits, which are all that the kernel reads of an `int`: a comparison of 64 bits is got
    around by setting a bit that nobody reads (CVE-2019-10063). `any_bit` asks for one of the bits in the lower 32.
    `set` asks whether all 64 bits together are not zero: a pointer that is given.
    """

    argument: int
    how: Literal["low", "any_bit", "set"]
    value: int = 0


@dataclass(frozen=True)
class Branch:
    """The answer when every test holds."""

    tests: tuple[Test, ...]
    answer: int


@dataclass(frozen=True, kw_only=True)
class Table:
    """The answers of one filter, apart from those that hold in all of them (architecture, unknown numbers)."""

    plain: Mapping[str, int]
    """Answer by call, whatever its arguments."""
    argued: Mapping[str, tuple[Branch, ...]]
    """By call, branches in order; the last has no test."""
    default: int
    """Of the known calls that are named nowhere."""
    gap: int
    """Of the numbers that are not in use."""


AF_UNIX = 1
CLONE_NEW = 0x7E020000
"""NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; `clone` cannot ask for a time namespace."""
F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
F_GETLK, F_SETLK, F_SETLKW, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 5, 6, 7, 36, 37, 38
F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY = 8, 10, 15, 1024, 1026
PR_SET_SECCOMP = 22
RLIMIT_CORE = 4
TCGETS, TIOCSTI, TIOCLINUX = 0x5401, 0x5412, 0x541C
WHOLE = 0xFFFFFFFF

MISSING = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register")
"""Answered as an old kernel would: runtimes fall back. A filter cannot look into the structures that these take."""

_INGEST_CALLS = """
    read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64 access mremap
    madvise getpid execve exit wait4 uname fsync ftruncate getcwd readlink gettimeofday getrusage sysinfo getuid
    getgid geteuid getegid getppid sigaltstack prctl arch_prctl gettid futex sched_getaffinity getdents64
    set_tid_address clock_gettime clock_nanosleep exit_group openat newfstatat readlinkat ppoll set_robust_list
    prlimit64 seccomp getrandom statx rseq faccessat2 landlock_create_ruleset landlock_add_rule landlock_restrict_self
    setrlimit dup2 capget
"""
INGEST = tuple(_INGEST_CALLS.split())
"""All that reading files and writing slots takes; `wait4` is for bubblewrap's own pid 1, under the same filter."""

_DENIED_CALLS = """
    unshare setns mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr
    statmount listmount
    ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_open pidfd_getfd pidfd_send_signal
    bpf perf_event_open userfaultfd
    add_key request_key keyctl
    open_by_handle_at name_to_handle_at
    kexec_load kexec_file_load init_module finit_module delete_module
    syslog quotactl quotactl_fd acct swapon swapoff reboot vhangup
    modify_ldt iopl ioperm
    settimeofday clock_settime adjtimex clock_adjtime
    mknod mknodat
    mbind move_pages migrate_pages
    fanotify_init memfd_secret
    sync syncfs
    shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semtimedop semctl
"""
DENIED = tuple(_DENIED_CALLS.split())
"""What a check never needs, and what has let programs out of walls.

`sync` writes out every disk of the host. Memory and queues of System V belong to the namespace and to no process: the
watchdog would not see them.
"""

DENIED_WITHOUT_GPU = ("flock", "inotify_init", "inotify_init1", "inotify_add_watch", "memfd_create")
"""Locks and watches reach whoever has the same read-only file: another cell, the host. A memory file that is not mapped
is memory of no process. Drivers of GPUs use some of these, so that a cell with a GPU keeps them."""

INNER = ("execve", "execveat", "seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
"""Closed once the shim has armed itself: nothing is executed any more, not even what lies in memory only."""


def _always(answer: int) -> Branch:
    return Branch((), answer)


def _each(argument: int, values: Sequence[int], answer: int, otherwise: int) -> tuple[Branch, ...]:
    return (*(Branch((Test(argument, "low", value),), answer) for value in values), _always(otherwise))


def _only(test: Test, otherwise: int) -> tuple[Branch, ...]:
    return (Branch((test,), ALLOW), _always(otherwise))


_CORE = Branch((Test(0, "low", RLIMIT_CORE),), EPERM)
_INNER = Table(
    plain=MappingProxyType(dict.fromkeys(INNER, EPERM)),
    argued=MappingProxyType(
        {
            "prctl": (Branch((Test(0, "low", PR_SET_SECCOMP),), EPERM), _always(ALLOW)),
            "setrlimit": (_CORE, _always(ALLOW)),
            "prlimit64": (Branch((Test(1, "low", RLIMIT_CORE), Test(2, "set")), EPERM), _always(ALLOW)),
        }
    ),
    default=ALLOW,
    gap=ALLOW,  # the outer filter has answered
)
_INGEST = Table(
    plain=MappingProxyType({**dict.fromkeys(INGEST, ALLOW), **dict.fromkeys(MISSING, ENOSYS)}),
    argued=MappingProxyType(
        {
            "ioctl": _only(Test(1, "low", TCGETS), ENOTTY),
            "fcntl": _each(1, (F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL), ALLOW, EPERM),
        }
    ),
    default=EPERM,
    gap=EPERM,
)


_LOCKS = (F_GETLK, F_SETLK, F_SETLKW, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW)
_FCNTL = _each(1, (*_LOCKS, F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY), EPERM, ALLOW)
"""Leases and locks are told to whoever has the same file, and a cell's inputs are the host's own files."""


def _check(socket: tuple[Branch, ...], denied: Sequence[str] = DENIED) -> Table:
    return Table(
        plain=MappingProxyType({**dict.fromkeys(denied, EPERM), **dict.fromkeys(MISSING, ENOSYS)}),
        argued=MappingProxyType(
            {
                "clone": (Branch((Test(0, "any_bit", CLONE_NEW),), EPERM), _always(ALLOW)),
                "socket": socket,
                "socketpair": _only(Test(0, "low", AF_UNIX), EPERM),
                "personality": (Branch((Test(0, "low", 0),), ALLOW), *_only(Test(0, "low", WHOLE), EPERM)),
                "ioctl": _each(1, (TIOCSTI, TIOCLINUX), EPERM, ALLOW),
                "fcntl": _FCNTL,
            }
        ),
        default=ALLOW,
        gap=ENOSYS,
    )


OUTER: Mapping[Kind, Table] = MappingProxyType(
    {
        "ingest": _INGEST,
        "check": _check((_always(EPERM),), (*DENIED, *DENIED_WITHOUT_GPU)),
        # CUDA talks to itself over an abstract socket; the network namespace and Landlock's scope keep it inside.
        "check_gpu": _check(_only(Test(0, "low", AF_UNIX), EPERM)),
    }
)
INNERS: Mapping[Kind, Table] = MappingProxyType({"ingest": _INNER, "check": _INNER, "check_gpu": _INNER})

assert all(name in NUMBERS for one in (*OUTER.values(), _INNER) for name in (*one.plain, *one.argued))
