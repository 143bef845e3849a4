"""Attacks on the kernel: calls that have let programs out of walls, with arguments that do no harm."""

from __future__ import annotations

import os
import socket

from .words import Found, Parameters, Probe, each, held, in_child, joined, opened, syscall, tried

_BAD = -1
_GONE = 0x7FFFFFFF
_NEW = {
    "mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000,
    "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip
_NEW_USER = 0x10000000
_SIGCHLD = 17
_CLONE, _UNSHARE, _SETNS, _CLONE3 = 56, 272, 308, 435
_MMAP, _GETPID, _X32 = 9, 39, 0x40000000
_GETPID_32 = bytes.fromhex("b814000000cd80c3")
"""mov eax, 20; int 0x80; ret: getpid by the 32-bit gate."""
_O_PATH_CLONE = 1
_USER_MODE_ONLY = 1
_PR_GET_NO_NEW_PRIVS = 39
_KEXEC_FLAGS, _MODULE_FLAGS = 0xFFFF, 0xFFFF


def _calls(table: dict[str, tuple[int, ...]]) -> Found:
    return {name: tried(lambda given=given: syscall(*given)) for name, given in table.items()}  # type: ignore[misc]


def mounts(_parameters: Parameters) -> Found:
    """Mount, remount, move the root; by the old calls and the new ones."""
    return _calls(
        {
            "mount": (165, 0, 0, 0, 0, 0), "remount": (165, 0, 0, 0, 0x1020, 0), "umount2": (166, 0, 0),
            "pivot_root": (155, 0, 0), "chroot": (161, 0), "fsopen": (430, 0, 0), "fsconfig": (431, _BAD, 99, 0, 0, 0),
            "fsmount": (432, _BAD, 0, 0), "fspick": (433, _BAD, 0, 0), "open_tree": (428, _BAD, 0, _O_PATH_CLONE),
            "move_mount": (429, _BAD, 0, _BAD, 0, 0), "mount_setattr": (442, _BAD, 0, 0, 0, 0),
        }
    )  # fmt: skip


def io_uring(_parameters: Parameters) -> Found:
    """Reach the interface that makes other calls past every filter."""
    return _calls({"setup": (425, 1, 0), "enter": (426, _BAD, 0, 0, 0, 0, 0), "register": (427, _BAD, 0, 0, 0)})


def doors(_parameters: Parameters) -> Found:
    """Programs for the kernel, performance counters, page faults in user mode, keys, kernels, modules."""
    return _calls(
        {
            "bpf": (321, _BAD, 0, 0), "perf_event_open": (298, 0, 0, 0, _BAD, 0),
            "userfaultfd": (323, _USER_MODE_ONLY | 1 << 20), "keyctl": (250, 0, _GONE, 0, 0, 0),
            "add_key": (248, 0, 0, 0, 0, 0),
            "request_key": (249, 0, 0, 0, 0), "kexec_load": (246, 0, 0, 0, _KEXEC_FLAGS),
            "finit_module": (313, _BAD, 0, _MODULE_FLAGS), "open_by_handle_at": (304, _BAD, 0, 0),
            "syslog": (103, 10, 0, 0), "fanotify_init": (300, 1 << 30, 0), "modify_ldt": (154, 0, 0, 0),
            "syncfs": (306, _BAD),
        }
    )  # fmt: skip


def namespaces(parameters: Parameters) -> Found:
    """Make and enter namespaces; share one with the host."""
    found = {}
    for name, flag in _NEW.items():
        found[f"unshare_{name}"] = _alone(lambda flag=flag: syscall(_UNSHARE, flag | _NEW_USER))
    found["clone"] = tried(_clone)
    found |= _calls({"clone3": (_CLONE3, 0, 0), "setns": (_SETNS, _BAD, 0)})
    return {**found, **_shared(parameters)}


def _alone(call: object) -> str:
    """Make an attempt in a child; where there can be none, here."""
    assert callable(call)
    word = in_child(call)
    return word if word != "EPERM" else joined([word, tried(call)])


def _clone() -> None:
    pid = syscall(_CLONE, _NEW_USER | _SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _shared(parameters: Parameters) -> Found:
    """Compare with the host; a cell without a process file system cannot tell, and nor can its attacker."""
    found = {}
    for name, link in parameters["namespaces"].items():
        try:
            found[f"shares_{name}"] = held(os.readlink(f"/proc/self/ns/{name}") != link, "other")
        except OSError:
            found[f"shares_{name}"] = "ENOENT"
    try:
        others = [name for _index, name in socket.if_nameindex() if name != "lo"]
        found["interfaces"] = held(not others, "other")
    except OSError:
        found["interfaces"] = "EPERM"
    return found


def gate32(_parameters: Parameters) -> Found:
    """Call by the 32-bit gate and by x32 numbers, each in a child that may die of it."""
    return {"gate": in_child(_by_gate), "x32": in_child(lambda: syscall(_X32 | _GETPID))}


def gate32_here(_parameters: Parameters) -> Found:
    """Call by the 32-bit gate without a child: for a cell that may have none."""
    return {"gate": tried(_by_gate)}


def _by_gate() -> None:
    import ctypes
    import mmap

    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_GETPID_32)
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


def knobs(_parameters: Parameters) -> Found:
    """Open settings of the kernel for writing, and what tells of its memory for reading. Nothing is written."""
    read, write = os.O_RDONLY | os.O_NONBLOCK, os.O_WRONLY
    found = each(
        {
            "core_pattern": opened("/proc/sys/kernel/core_pattern", write),
            "modprobe": opened("/proc/sys/kernel/modprobe", write),
            "sysrq": opened("/proc/sysrq-trigger", write),
            "uevent_helper": opened("/sys/kernel/uevent_helper", write),
            "kcore": opened("/proc/kcore", read), "keys": opened("/proc/keys", read),
            "kallsyms": opened("/proc/kallsyms", read), "timer_list": opened("/proc/timer_list", read),
        }
    )  # fmt: skip
    words = [
        tried(opened(os.path.join(folder, name), write))
        for folder, _names, files in os.walk("/proc/sys/kernel")
        for name in files
    ]
    try:
        found["mount"] = held(bool(os.statvfs("/proc/sys").f_flag & os.ST_RDONLY), "EROFS")
    except OSError:
        found["mount"] = "ENOENT"
    return {**found, "all_of_kernel": joined(words) or "ENOENT"}


def privileges(_parameters: Parameters) -> Found:
    """Gain what the program was not given: another uid, a capability, a new program with either."""
    found = _calls(
        {
            "execve": (59, 0, 0, 0), "execveat": (322, _BAD, 0, 0, 0, 0), "setuid": (105, 0),
            "sethostname": (170, 0, 1), "setgroups": (116, 1 << 30, 0),
        }
    )  # fmt: skip
    if found["setuid"] == "EINVAL":  # the number of root is nobody's here
        found["setuid"] = "no such uid"
    found["memfd"] = _alone(_memfd)
    try:
        found["may_gain"] = held(syscall(157, _PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "EPERM")
    except OSError:
        found["may_gain"] = "EPERM"
    return found


def _memfd() -> None:
    """Execute what lies in memory only: an empty file there is ENOEXEC to whoever may execute at all."""
    number = syscall(319, b"assay", 1)
    try:
        syscall(322, number, b"", 0, 0, 0x1000)
    finally:
        os.close(number)


PROBES: dict[str, Probe] = {
    "mounts": mounts, "io_uring": io_uring, "doors": doors, "namespaces": namespaces, "gate32": gate32,
    "gate32_here": gate32_here, "knobs": knobs, "privileges": privileges,
}  # fmt: skip
