"""Classic BPF as the kernel runs it for seccomp (linux/filter.h, kernel/seccomp.c), only what our filters may use."""

from __future__ import annotations

import struct

KILL, ERRNO, ALLOWED = 0x80000000, 0x00050000, 0x7FFF0000


def run(program: bytes, number: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """Return what the filter returns for one call; raise when it is not a program that the kernel would take."""
    data = struct.pack(
        "<iI7Q", number - (1 << 32) if number >= 1 << 31 else number, arch, 0, *arguments, *(0,) * (6 - len(arguments))
    )
    lines = list(struct.iter_unpack("<HBBI", program))
    assert 0 < len(lines) <= 4096
    accumulator = position = 0
    while True:
        operation, yes, no, constant = lines[position]
        position += 1
        if operation == 0x20:  # BPF_LD | BPF_W | BPF_ABS: aligned and inside struct seccomp_data
            assert constant % 4 == 0
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif operation == 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
            position += yes if accumulator == constant else no
        elif operation == 0x35:  # BPF_JMP | BPF_JGE | BPF_K
            position += yes if accumulator >= constant else no
        elif operation == 0x45:  # BPF_JMP | BPF_JSET | BPF_K
            position += yes if accumulator & constant else no
        elif operation == 0x25:  # BPF_JMP | BPF_JGT | BPF_K: libseccomp's, not ours
            position += yes if accumulator > constant else no
        elif operation == 0x54:  # BPF_ALU | BPF_AND | BPF_K: libseccomp's, not ours
            accumulator &= constant
        elif operation == 0x05:  # BPF_JMP | BPF_JA: libseccomp's, not ours
            position += constant
        elif operation == 0x06:  # BPF_RET | BPF_K
            return int(constant)
        else:
            raise AssertionError(f"operation {operation:#x}")


def falls_off(program: bytes) -> bool:
    """Tell whether some jump or the last line leads beyond the end: the kernel refuses such a program."""
    lines = list(struct.iter_unpack("<HBBI", program))
    for index, (operation, yes, no, _constant) in enumerate(lines):
        nexts = () if operation == 0x06 else (index + 1 + yes, index + 1 + no)
        if any(one >= len(lines) for one in nexts):
            return True
    return False
