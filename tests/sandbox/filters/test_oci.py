"""The container's profile means what the program means: number by number, and argument by argument."""

from __future__ import annotations

import ctypes
import errno
import json
import random
import tempfile
from typing import Any, get_args

import pytest

from sandbox import filters
from sandbox.cell import Kind
from sandbox.filters import oci
from sandbox.filters.numbers import GAP, NUMBERS
from sandbox.filters.tables import OUTER

from .interpreter import ALLOWED, ERRNO, run
from .test_filters import ARGUED, HIGH, X86_64

KINDS: tuple[Kind, ...] = get_args(Kind)
NAMES = {number: name for name, number in NUMBERS.items()}


def verdict(profile: dict[str, Any], number: int, arguments: tuple[int, ...]) -> int:
    """What a runtime's filter answers: rules of a call are alternatives, arguments of a rule hold together."""
    said = set()
    for rule in profile["syscalls"]:
        if NAMES.get(number) not in rule["names"]:
            continue
        held = True
        for one in rule.get("args", ()):
            assert one["op"] == "SCMP_CMP_MASKED_EQ"
            given = arguments[one["index"]] if one["index"] < len(arguments) else 0
            held = held and given & one["value"] == one["valueTwo"]
        if held:
            said.add(ALLOWED if rule["action"] == "SCMP_ACT_ALLOW" else ERRNO | rule["errnoRet"])
    assert len(said) <= 1, f"{NAMES.get(number)} has two answers"
    return said.pop() if said else ERRNO | profile["defaultErrnoRet"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_gets_the_programs_answer(kind: Kind) -> None:
    profile, program = oci.render(kind), filters.outer(kind)
    nameless = set(GAP) if kind == "ingest" else set()
    for number in range(464):
        owed = ERRNO | errno.ENOSYS if number in nameless else run(program, number, X86_64)
        assert verdict(profile, number, ()) == owed, number
    for number in range(464, 600):
        assert verdict(profile, number, ()) == ERRNO | errno.ENOSYS == run(program, number, X86_64)


def samples() -> list[int]:
    """Numbers around every constant of the tables, single bits, and some drawn with a fixed seed."""
    constants = {
        test.value for table in OUTER.values() for all_ in table.argued.values() for b in all_ for test in b.tests
    }
    bits = [1 << position for position in range(64)]
    near = {(one + step) % 2**64 for one in constants for step in (-1, 0, 1)}
    flipped = {one ^ bit for one in constants for bit in bits}
    draw = random.Random(0)
    drawn = {draw.getrandbits(64) for _ in range(200)} | {draw.getrandbits(32) for _ in range(200)}
    return sorted({0, 2**32 - 1, 2**64 - 1, *near, *flipped, *bits, *drawn, *(HIGH | one for one in constants)})


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_gets_the_programs_answer(kind: Kind) -> None:
    profile, program = oci.render(kind), filters.outer(kind)
    tried = 0
    for name in OUTER[kind].argued:
        for value in samples():
            arguments = (value, value)
            assert verdict(profile, NUMBERS[name], arguments) == run(program, NUMBERS[name], X86_64, arguments), value
            tried += 1
    assert tried > 500


@pytest.mark.parametrize(("kinds", "number", "arguments", "expected"), ARGUED)
def test_argument_rules(kinds: tuple[Kind, ...], number: int, arguments: tuple[int, ...], expected: int) -> None:
    for kind in kinds:
        owed = ERRNO | expected if expected else ALLOWED
        assert verdict(oci.render(kind), number, arguments) == owed, kind


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_allowed_by_being_unknown(kind: Kind) -> None:
    profile = json.loads(oci.document(kind))
    assert (profile["defaultAction"], profile["architectures"]) == ("SCMP_ACT_ERRNO", ["SCMP_ARCH_X86_64"])
    listed = [name for rule in profile["syscalls"] for name in rule["names"]]
    assert set(listed) == set(NUMBERS)
    assert len(listed) < 700, "short enough for the kernel's 4096 instructions"


class _Compared(ctypes.Structure):
    """struct scmp_arg_cmp of seccomp.h."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


MASKED_EQ, ACT_ALLOW, ACT_ERRNO, X86_64_NATIVE = 7, 0x7FFF0000, 0x00050000, 0
EXISTS = -errno.EEXIST


def assembled(profile: dict[str, Any]) -> tuple[bytes, set[str]]:
    """Return what libseccomp makes of a profile as a runtime hands it over, and the calls that it knows."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp.so.2 is not installed")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(ACT_ERRNO | profile["defaultErrnoRet"])))
    known = {name: library.seccomp_syscall_resolve_name(name.encode()) for name in NUMBERS}
    try:
        for rule in profile["syscalls"]:
            if rule.get("errnoRet") == profile["defaultErrnoRet"]:
                continue  # the default once more, which the library refuses and runtimes leave out
            action = ACT_ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else ACT_ERRNO | rule["errnoRet"]
            given = [_Compared(a["index"], MASKED_EQ, a["value"], a["valueTwo"]) for a in rule.get("args", ())]
            for name in rule["names"]:
                if known[name] >= 0:
                    array = (_Compared * len(given))(*given)
                    made = library.seccomp_rule_add_array(
                        context, ctypes.c_uint32(action), known[name], len(given), array
                    )
                    assert made in (0, EXISTS), (name, made)
        with tempfile.TemporaryFile() as stream:
            assert library.seccomp_export_bpf(context, stream.fileno()) == 0
            stream.seek(0)
            return stream.read(), {name for name, number in known.items() if number >= 0}
    finally:
        library.seccomp_release(context)


@pytest.mark.parametrize("kind", KINDS)
def test_what_libseccomp_makes_of_it_means_the_same(kind: Kind) -> None:
    """The library that runc and crun load it with; calls that it is too old to know get the default."""
    program, known = assembled(oci.render(kind))
    assert len(program) <= 8 * 4096, "more than the kernel takes"
    assert len(known) > 350
    ours = filters.outer(kind)
    for name, number in NUMBERS.items():
        values = samples() if name in OUTER[kind].argued else (0,)
        for value in values:
            owed = run(ours, number, X86_64, (value, value)) if name in known else ERRNO | errno.ENOSYS
            assert run(program, number, X86_64, (value, value)) == owed, (name, hex(value))
    for number in range(464, 600):
        assert run(program, number, X86_64) == ERRNO | errno.ENOSYS
