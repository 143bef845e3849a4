"""The outer table as a container runtime takes it: the seccomp part of an OCI configuration.

Such a profile names calls and compares arguments; it cannot name a number that has no name, and a call whose conditions
all fail gets the default. So the default is what an unknown call is owed, every known call is listed, and the
conditions of one call leave nothing out: an answer "otherwise" becomes the comparisons that hold exactly then.

Differs from the program in `sandbox.filters` in one thing: the numbers of the gap, which have no names, are answered
ENOSYS for an ingest cell too, where the program says EPERM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sandbox.cell import Kind, canonical
from sandbox.filters.numbers import NUMBERS
from sandbox.filters.tables import ALLOW, ENOSYS, OUTER, WHOLE, Branch, Table

_BITS = tuple(1 << position for position in range(32))
Cube = tuple[int, int]
"""(mask, value): the 64 bits of an argument under the mask equal the value."""


def render(kind: Kind) -> dict[str, Any]:
    """Return the profile of a kind, as plain JSON values; `linux.seccomp` of the OCI runtime specification 1.1."""
    table = OUTER[kind]
    by_answer: dict[int, list[str]] = {}
    for name in NUMBERS:
        if name not in table.argued:
            by_answer.setdefault(table.plain.get(name, table.default), []).append(name)
    calls = [_call(sorted(names), answer) for answer, names in sorted(by_answer.items())]
    for name in sorted(table.argued):
        calls += [_call([name], answer, _compared(index, cube)) for answer, index, cube in _cubes(name, table)]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": calls,
    }


def document(kind: Kind) -> bytes:
    """Return the profile's canonical bytes."""
    return canonical(render(kind))


def _call(names: list[str], answer: int, args: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    action = {"action": "SCMP_ACT_ALLOW"} if answer == ALLOW else {"action": "SCMP_ACT_ERRNO", "errnoRet": answer}
    return {"names": names, **action, **({"args": args} if args else {})}


def _compared(index: int, cube: Cube) -> list[dict[str, Any]]:
    mask, value = cube
    if not mask:
        return []
    return [{"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}]


def _cubes(name: str, table: Table) -> Iterator[tuple[int, int, Cube]]:
    """Yield (answer, argument, comparison) such that each argument meets those of its own answer and no other."""
    branches: Sequence[Branch] = table.argued[name]
    arguments = {test.argument for branch in branches for test in branch.tests}
    assert len(arguments) <= 1, f"{name} compares more than one argument"
    argument = min(arguments, default=0)
    values: list[int] = []
    cleared = 0
    for branch in branches[:-1]:
        (test,) = branch.tests
        assert not cleared, f"{name} compares after a comparison of bits"
        if test.how == "low":
            values.append(test.value)
            yield branch.answer, argument, (WHOLE, test.value)
            continue
        assert test.how == "any_bit", f"{name} compares a pointer"
        assert not values, f"{name} compares bits after values"
        cleared |= test.value
        for bit in _BITS:
            if bit & test.value:
                yield branch.answer, argument, (bit, bit)
    for cube in _others(values, cleared, 0):
        yield branches[-1].answer, argument, cube


def _others(values: Sequence[int], mask: int, value: int) -> Iterator[Cube]:
    """Yield comparisons under which fall all 32-bit numbers but `values`, of those that have `value` under `mask`."""
    if not values:
        yield mask, value
        return
    agreed, held = mask, value
    for bit in _BITS:  # where all of them agree, a single different bit is enough
        if not bit & mask and len({one & bit for one in values}) == 1:
            yield mask | bit, value | (bit & ~values[0])
            agreed, held = agreed | bit, held | (bit & values[0])
    split = next((bit for bit in _BITS if len({one & bit for one in values}) == 2), 0)
    for side in (0, split) if split else ():
        yield from _others([one for one in values if one & split == side], agreed | split, held | side)
