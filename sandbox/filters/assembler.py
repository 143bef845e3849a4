"""From a table to a program for the kernel's seccomp: classic BPF, eight bytes an instruction (linux/filter.h).

The program reads `struct seccomp_data`: the number at 0, the architecture at 4, six arguments of 64 bits from 16.
"""

from __future__ import annotations

import struct

from sandbox.filters.numbers import END, GAP, NUMBERS, X32
from sandbox.filters.tables import ALLOW, ENOSYS, Table, Test

AUDIT_ARCH_X86_64 = 0xC000003E
RET_KILL_PROCESS, RET_ERRNO, RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_LIMIT = 4096
"""Most instructions that the kernel takes."""

_Line = tuple[int, int, str, str]
"""Operation, constant, label when true and when false; an empty label is the next line."""


class _Program:
    """Lines with labels, of which the second pass makes distances. Jumps only go forward, at most 255 lines."""

    def __init__(self) -> None:
        self.lines: list[_Line] = []
        self.labels: dict[str, int] = {}

    def put(self, operation: int, constant: int, yes: str = "", no: str = "") -> None:
        self.lines.append((operation, constant, yes, no))

    def mark(self, label: str) -> None:
        assert label not in self.labels
        self.labels[label] = len(self.lines)

    def assembled(self) -> bytes:
        assert len(self.lines) <= _LIMIT
        out = bytearray()
        for index, (operation, constant, yes, no) in enumerate(self.lines):
            jumps = [self.labels[label] - index - 1 if label else 0 for label in (yes, no)]
            assert all(0 <= jump <= 255 for jump in jumps), "a jump is out of reach"
            out += struct.pack("<HBBI", operation, *jumps, constant)
        return bytes(out)


def assemble(table: Table) -> bytes:
    """Return the program of a table, as `struct sock_filter[]` of a little-endian machine."""
    program = _Program()
    program.put(_LOAD, _ARCH)
    program.put(_EQUAL, AUDIT_ARCH_X86_64, no="kill")
    program.put(_LOAD, _NUMBER)
    program.put(_AT_LEAST, X32, yes="kill")
    program.put(_AT_LEAST, END, yes=_label(ENOSYS))
    if table.gap != table.default:
        program.put(_AT_LEAST, GAP.stop, yes="known")
        program.put(_AT_LEAST, GAP.start, yes=_label(table.gap))
        program.mark("known")
    for name in sorted(table.argued, key=NUMBERS.__getitem__):
        program.put(_EQUAL, NUMBERS[name], yes=f"call {name}")
    for name in sorted(table.plain, key=NUMBERS.__getitem__):
        if table.plain[name] != table.default:
            program.put(_EQUAL, NUMBERS[name], yes=_label(table.plain[name]))
    program.put(_RETURN, _returned(table.default))
    for name in sorted(table.argued, key=NUMBERS.__getitem__):
        _branches(program, name, table)
    used = {table.default, table.gap, ENOSYS, *table.plain.values()}
    used |= {branch.answer for branches in table.argued.values() for branch in branches}
    for answer in sorted(used):
        program.mark(_label(answer))
        program.put(_RETURN, _returned(answer))
    program.mark("kill")
    program.put(_RETURN, RET_KILL_PROCESS)
    return program.assembled()


def _branches(program: _Program, name: str, table: Table) -> None:
    program.mark(f"call {name}")
    branches = table.argued[name]
    assert not branches[-1].tests
    for index, branch in enumerate(branches):
        after = f"{name} after {index}"
        for number, test in enumerate(branch.tests):
            _test(program, test, after, f"{name} {index} held {number}")
        program.put(_RETURN, _returned(branch.answer))
        program.mark(after)


def _test(program: _Program, test: Test, failed: str, held: str) -> None:
    low = _ARGUMENTS + 8 * test.argument
    program.put(_LOAD, low)
    if test.how == "low":
        program.put(_EQUAL, test.value, no=failed)
    elif test.how == "any_bit":
        program.put(_ANY_BIT, test.value, no=failed)
    else:
        program.put(_EQUAL, 0, no=held)
        program.put(_LOAD, low + 4)
        program.put(_EQUAL, 0, yes=failed)
    program.mark(held)


def _label(answer: int) -> str:
    return f"answer {answer}"


def _returned(answer: int) -> int:
    return RET_ALLOW if answer == ALLOW else RET_ERRNO | answer
