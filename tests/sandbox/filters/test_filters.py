"""Every number, every architecture, every argument rule of the filters, against the rules stated a second time.

The statements below are written from the specification and the kernel's table; nothing of them is imported.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import get_args

import pytest

from sandbox import CellRefused, filters
from sandbox.cell import Kind

from .interpreter import ALLOWED, ERRNO, KILL, falls_off, run

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
KINDS: tuple[Kind, ...] = get_args(Kind)
HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")

INGEST_NUMBERS = {
    0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 17, 21, 25, 28, 33, 39, 59, 60, 61, 63, 72, 74, 77, 79, 89, 96, 98, 99,
    102, 104, 107, 108, 110, 125, 131, 157, 158, 160, 186, 202, 204, 217, 218, 228, 230, 231, 257, 262, 267, 271, 273,
    302, 317, 318, 332, 334, 439, 444, 445, 446,
}  # fmt: skip
DENIED_NUMBERS = {
    272, 308, 165, 166, 155, 161, 428, 429, 430, 431, 432, 433, 442, 457, 458,  # namespaces and mounts
    101, 310, 311, 440, 312, 434, 438, 424,  # other processes
    321, 298, 323, 248, 249, 250, 304, 303, 246, 320, 175, 313, 176,  # bpf, perf, faults, keys, handles, kexec, modules
    103, 179, 443, 163, 167, 168, 169, 153, 154, 172, 173,  # the machine
    164, 227, 159, 305, 133, 259, 237, 279, 256, 300, 447,  # clocks, nodes, pages, fanotify, secret memory
    162, 306,  # every disk of the host at once
    29, 30, 31, 67, 68, 69, 70, 71, 64, 65, 66, 220,  # memory that belongs to a namespace and to no process
}  # fmt: skip
DENIED_WITHOUT_GPU_NUMBERS = {73, 253, 294, 254, 319}
"""flock, inotify by three calls, memfd_create."""
MISSING_NUMBERS = {435, 425, 426, 427}
INNER_NUMBERS = {59, 322, 317, 444, 445, 446}
CLONE, SOCKET, SOCKETPAIR, PERSONALITY, IOCTL, PRCTL, SETRLIMIT, PRLIMIT = 56, 41, 53, 135, 16, 157, 160, 302
FCNTL = 72
FCNTL_INGEST = (0, 1030, 1, 2, 3, 4)
"""Duplicate, and read or set the flags of a descriptor: fcntl.h."""
FCNTL_DENIED = (1024, 1026, 10, 8, 15, 5, 6, 7, 36, 37, 38)
"""Leases, watched folders, whom to signal and how, locks of both sorts: fcntl.h."""
HIGH = 0xDEADBEEF << 32
"""Bits that the kernel does not read of an int: a rule must not see them either."""


def answer(errno_: int) -> int:
    return ERRNO | errno_ if errno_ else ALLOWED


def outer_without_arguments(kind: Kind, number: int) -> int:
    """What the outer filter owes a call all of whose arguments are zero."""
    if number >= 464 or number in MISSING_NUMBERS:
        return answer(errno.ENOSYS)
    if kind == "ingest":
        if number == IOCTL:
            return answer(errno.ENOTTY)
        return answer(0 if number in INGEST_NUMBERS else errno.EPERM)
    if 335 <= number <= 423:
        return answer(errno.ENOSYS)
    if number in DENIED_NUMBERS or number in (SOCKET, SOCKETPAIR):  # family 0 is AF_UNSPEC
        return answer(errno.EPERM)
    if kind == "check" and number in DENIED_WITHOUT_GPU_NUMBERS:
        return answer(errno.EPERM)
    return answer(0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_gets_its_answer(kind: Kind) -> None:
    program = filters.outer(kind)
    wrong = [number for number in range(601) if run(program, number, X86_64) != outer_without_arguments(kind, number)]
    assert wrong == []


@pytest.mark.parametrize("kind", KINDS)
def test_inner_filter_closes_what_arming_needed(kind: Kind) -> None:
    program = filters.inner(kind)
    for number in range(464):
        expected = answer(errno.EPERM if number in INNER_NUMBERS else 0)
        assert run(program, number, X86_64) == expected, number


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", ["outer", "inner"])
def test_foreign_architectures_and_x32_kill(kind: Kind, layer: str) -> None:
    program = filters.outer(kind) if layer == "outer" else filters.inner(kind)
    for number in range(601):
        assert run(program, number, I386) == KILL
        assert run(program, number, AARCH64) == KILL
        assert run(program, 0x40000000 + number, X86_64) == KILL
    assert run(program, 0xFFFFFFFF, X86_64) == KILL
    assert run(program, 0x3FFFFFFF, X86_64) == answer(errno.ENOSYS)


EPERM, ENOTTY = errno.EPERM, errno.ENOTTY
ARGUED: list[tuple[tuple[str, ...], int, tuple[int, ...], int]] = [
    *((("check", "check_gpu"), CLONE, (flag,), EPERM) for flag in
      (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)),
    (("check", "check_gpu"), CLONE, (0x10000000 | 0x3D0F00,), EPERM),
    (("check", "check_gpu"), CLONE, (HIGH | 0x20000,), EPERM),
    (("check", "check_gpu"), CLONE, (0x3D0F00,), 0),  # what pthread_create asks for
    (("check", "check_gpu"), CLONE, (0x1200011,), 0),  # fork
    (("ingest",), CLONE, (0x3D0F00,), EPERM),
    *((("check",), SOCKET, (family, 1, 0), EPERM) for family in range(46)),
    *((("check_gpu",), SOCKET, (family, 1, 0), EPERM) for family in range(46) if family != 1),
    (("check_gpu",), SOCKET, (1, 5, 0), 0),
    (("check_gpu",), SOCKET, (HIGH | 2, 1, 0), EPERM),
    (("check_gpu",), SOCKET, (HIGH | 1, 1, 0), 0),  # the kernel sees AF_UNIX
    (("check", "check_gpu"), SOCKETPAIR, (1, 1, 0), 0),
    (("check", "check_gpu"), SOCKETPAIR, (HIGH | 1, 1, 0), 0),
    *((("check", "check_gpu"), SOCKETPAIR, (family, 1, 0), EPERM) for family in range(46) if family != 1),
    (("ingest",), SOCKET, (1, 1, 0), EPERM),
    (("ingest",), SOCKETPAIR, (1, 1, 0), EPERM),
    (("check", "check_gpu"), PERSONALITY, (0,), 0),
    (("check", "check_gpu"), PERSONALITY, (0xFFFFFFFF,), 0),
    (("check", "check_gpu"), PERSONALITY, (0xFFFFFFFFFFFFFFFF,), 0),
    (("check", "check_gpu"), PERSONALITY, (0x0040000,), EPERM),  # ADDR_NO_RANDOMIZE
    (("check", "check_gpu"), PERSONALITY, (HIGH | 0x0040000,), EPERM),
    (("check", "check_gpu"), PERSONALITY, (8,), EPERM),
    (("ingest",), PERSONALITY, (0,), EPERM),
    (("check", "check_gpu"), IOCTL, (0, 0x5412), EPERM),
    (("check", "check_gpu"), IOCTL, (0, HIGH | 0x5412), EPERM),
    (("check", "check_gpu"), IOCTL, (0, 1 << 32 | 0x541C), EPERM),
    (("check", "check_gpu"), IOCTL, (0, 0x5401), 0),
    (("check", "check_gpu"), IOCTL, (0x5412, 0x5401), 0),
    (("ingest",), IOCTL, (0, 0x5401), 0),
    (("ingest",), IOCTL, (0, HIGH | 0x5401), 0),
    *((("ingest",), FCNTL, (0, HIGH | command), 0) for command in FCNTL_INGEST),
    *((("ingest",), FCNTL, (0, HIGH | command), EPERM) for command in FCNTL_DENIED),
    (("ingest",), FCNTL, (5, 1 << 31), EPERM),
    *((("check", "check_gpu"), FCNTL, (0, HIGH | command), EPERM) for command in FCNTL_DENIED),
    (("check", "check_gpu"), FCNTL, (0, 1031), 0),  # the size of a pipe
    *((("ingest",), IOCTL, (0, request), ENOTTY) for request in (0x5412, HIGH | 0x5412, 0x541C, 0x5451, 0x40049409)),
]  # fmt: skip


@pytest.mark.parametrize(("kinds", "number", "arguments", "expected"), ARGUED)
def test_argument_rules(kinds: tuple[Kind, ...], number: int, arguments: tuple[int, ...], expected: int) -> None:
    for kind in kinds:
        assert run(filters.outer(kind), number, X86_64, arguments) == answer(expected), kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_of_fcntl_gets_its_answer(kind: Kind) -> None:
    """Leases and locks reach whoever has the same read-only file; an ingest cell needs six commands in all."""
    for command in (*range(1100), 1 << 31, 0xFFFFFFFF):
        allowed = command in FCNTL_INGEST if kind == "ingest" else command not in FCNTL_DENIED
        assert run(filters.outer(kind), FCNTL, X86_64, (6, command)) == answer(0 if allowed else EPERM), command


def test_ioctl_compared_in_32_bits() -> None:
    """A filter that compares 64 bits is got around by a bit that the kernel never reads (CVE-2019-10063)."""
    for kind in ("check", "check_gpu"):
        for bit in range(32, 64):
            assert run(filters.outer(kind), IOCTL, X86_64, (0, 1 << bit | 0x5412)) == answer(EPERM)


def test_af_unix_rule_differs_by_kind() -> None:
    answers = {kind: run(filters.outer(kind), SOCKET, X86_64, (1, 5, 0)) for kind in KINDS}
    assert answers == {"ingest": answer(EPERM), "check": answer(EPERM), "check_gpu": answer(0)}


INNER_ARGUED = [
    (PRCTL, (22, 2), EPERM), (PRCTL, (HIGH | 22, 2), EPERM), (PRCTL, (38, 1), 0), (PRCTL, (0, 22), 0),
    (SETRLIMIT, (4, 1), EPERM), (SETRLIMIT, (HIGH | 4, 1), EPERM), (SETRLIMIT, (7, 1), 0),
    (PRLIMIT, (0, 4, 0x7F00, 0), EPERM), (PRLIMIT, (0, HIGH | 4, 0x7F00, 0), EPERM),
    (PRLIMIT, (0, 4, 1 << 32, 0), EPERM),  # a pointer whose low half is zero
    (PRLIMIT, (0, 4, 0, 0x7F00), 0), (PRLIMIT, (0, 7, 0x7F00, 0), 0), (PRLIMIT, (4, 7, 0x7F00, 0), 0),
]  # fmt: skip


@pytest.mark.parametrize(("number", "arguments", "expected"), INNER_ARGUED)
def test_inner_argument_rules(number: int, arguments: tuple[int, ...], expected: int) -> None:
    for kind in KINDS:
        assert run(filters.inner(kind), number, X86_64, arguments) == answer(expected)


def test_programs_are_short_and_never_fall_off_the_end() -> None:
    for kind in KINDS:
        for program in (filters.outer(kind), filters.inner(kind)):
            assert len(program) <= 8 * 200  # a jump reaches 255
            assert not falls_off(program)


def test_ingest_is_an_allow_list() -> None:
    """No fork, thread, pipe, signal to others, socket or memory file, by name in the kernel's table."""
    for number in (56, 57, 58, 22, 293, 62, 200, 234, 129, 41, 53, 42, 49, 319, 16 + 1000):
        assert run(filters.outer("ingest"), number, X86_64) != answer(0)


def test_numbers_are_the_kernels() -> None:
    if not HEADER.exists():
        pytest.skip(f"no {HEADER}: the kernel's headers are not installed")
    from sandbox.filters.numbers import END, NUMBERS

    header = {m[1]: int(m[2]) for m in re.finditer(r"#define __NR_(\w+) (\d+)", HEADER.read_text())}
    newest = max(header.values())
    assert {name: number for name, number in NUMBERS.items() if number <= newest} == {
        name: number for name, number in header.items() if number < END
    }
    assert sorted(NUMBERS.values())[-1] == END - 1


def test_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*here[:4], "aarch64")))
    for made in (filters.outer, filters.inner):
        with pytest.raises(CellRefused) as caught:
            made("check")
        assert (caught.value.code, caught.value.item) == ("arch_unsupported", "aarch64")


def test_an_empty_allow_list_means_deny() -> None:
    from sandbox.filters.assembler import assemble
    from sandbox.filters.tables import Table

    program = assemble(Table(plain={}, argued={}, default=EPERM, gap=EPERM))
    assert {run(program, number, X86_64) for number in range(464)} == {answer(EPERM)}


def test_agrees_with_libseccomp() -> None:
    """The deny table of a check and its masked arguments once more, named and assembled by another library."""
    seccomp = pytest.importorskip("seccomp", reason="libseccomp's python binding (python3-seccomp) is not installed")
    import tempfile

    from sandbox.filters.numbers import NUMBERS
    from sandbox.filters.tables import DENIED, DENIED_WITHOUT_GPU

    arch = seccomp.Arch()
    known = {name: seccomp.resolve_syscall(arch, name) for name in NUMBERS}
    # Negative: a call that this libseccomp is too old to know.
    assert {name: number for name, number in known.items() if 0 <= number != NUMBERS[name]} == {}
    made = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    refuse = seccomp.ERRNO(errno.EPERM)
    for name in (*DENIED, *DENIED_WITHOUT_GPU, "socket"):
        if known[name] >= 0:
            made.add_rule(refuse, known[name])
    for request in (0x5412, 0x541C):
        made.add_rule(refuse, known["ioctl"], seccomp.Arg(1, seccomp.MASKED_EQ, 0xFFFFFFFF, request))
    for command in FCNTL_DENIED:
        made.add_rule(refuse, known["fcntl"], seccomp.Arg(1, seccomp.MASKED_EQ, 0xFFFFFFFF, command))
    for bit in (17, 25, 26, 27, 28, 29, 30):
        made.add_rule(refuse, known["clone"], seccomp.Arg(0, seccomp.MASKED_EQ, 1 << bit, 1 << bit))
    with tempfile.TemporaryFile() as stream:
        made.export_bpf(stream)
        stream.seek(0)
        other = stream.read()
    samples = [(0, 0), (0, 0x5412), (0, HIGH | 0x5412), (0, 0x541C), (0x20000, 0), (HIGH | 0x40000000, 0x5401), (17, 1)]
    samples.append((0, 1024))
    judged = set(known.values()) - MISSING_NUMBERS - {SOCKETPAIR, PERSONALITY}
    for number in sorted(one for one in judged if one >= 0):
        for arguments in samples:
            ours = run(filters.outer("check"), number, X86_64, arguments)
            assert ours == run(other, number, X86_64, arguments), (number, arguments)
    assert len(judged) > 300
