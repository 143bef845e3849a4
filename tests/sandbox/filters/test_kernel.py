"""The filters in the kernel: the answers that the interpreter promises, asked for by a program in a real cell."""

from __future__ import annotations

import errno
import json
import signal

from sandbox import BubblewrapCell
from tests.sandbox.conftest import MakeOrder

CALLS = """
    import ctypes, json, mmap, threading
    libc = ctypes.CDLL(None, use_errno=True)
    long, pair = ctypes.c_ulong, ctypes.c_ulong * 2
    def call(*arguments):
        ctypes.set_errno(0)
        return ctypes.get_errno() if libc.syscall(*arguments) < 0 else 0
    zero = ctypes.byref(pair(0, 0))
    got = {
        "unshare": call(272, 0x10000000), "clone": call(56, long(0x10000011), 0, 0, 0, 0), "clone3": call(435, None, 0),
        "io_uring_setup": call(425, 1, None), "mount": call(165, None, None, None, 0, None),
        "ptrace": call(101, 0, 0, 0, 0), "bpf": call(321, 0, None, 0), "socket": call(41, 2, 1, 0),
        "execve": call(59, None, None, None), "ioctl": call(16, 0, long(0x5412), None),
        "ioctl high": call(16, 0, long(0x5412 | 1 << 33), None), "prctl": call(157, 22, 2, None),
        "prlimit64 core": call(302, 0, 4, zero, None), "setrlimit core": call(160, 4, zero),
        "personality": call(135, long(0x40000)), "after the table": call(464), "gap": call(400),
        "lease": call(72, 0, 1024, 0), "notify": call(72, 0, 1026, 0), "lock": call(72, 0, 37, zero),
        "owner": call(72, 0, 8, 1), "flock": call(73, 0, 1), "inotify": call(294, 0), "sync": call(162),
        "shmget": call(29, 0, 4096, 0x3ff), "memfd_create": call(319, b"a", 0), "fcntl flags": call(72, 0, 3),
        "personality asked": call(135, long(0xffffffff)), "getpid": 0 if libc.syscall(39) > 0 else 1,
    }
    threads = []
    thread = threading.Thread(target=lambda: threads.append(call(59, None, None, None)))
    thread.start(); thread.join()
    got["execve in a thread"] = threads[0]
    os.write(3, json.dumps(got).encode())
"""
GATES = """
    import ctypes, json, mmap
    def run(code):
        pid = os.fork()
        if pid == 0:
            page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            page.write(bytes.fromhex(code))
            ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # mov eax, number; int 0x80 or syscall; ret: getpid by the 32-bit gate, by x32's number, and the ordinary way.
    os.write(3, json.dumps([run(one) for one in ("b814000000cd80c3", "b8270000400f05c3", "b8270000000f05c3")]).encode())
"""


def test_the_kernel_answers_as_the_tables_say(cell: BubblewrapCell, order: MakeOrder) -> None:
    outcome = cell.run(order(CALLS))
    assert outcome.result, outcome.log_tail
    got = json.loads(outcome.result)
    missing = {"clone3", "io_uring_setup", "after the table", "gap"}
    through = {"personality asked", "getpid", "fcntl flags"}
    expected = {name: errno.ENOSYS if name in missing else 0 if name in through else errno.EPERM for name in got}
    assert got == expected


def test_foreign_gates_kill(cell: BubblewrapCell, order: MakeOrder) -> None:
    outcome = cell.run(order(GATES))
    assert outcome.result, outcome.log_tail
    assert json.loads(outcome.result) == [-signal.SIGSYS, -signal.SIGSYS, 0]
