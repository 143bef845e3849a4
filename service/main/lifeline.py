"""Start a program that dies with its parent: `python -m service.main.lifeline PARENT_PID PROGRAM [ARGUMENT...]`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that this process gets when the thread that started it ends; kept across exec."""


def main(arguments: list[str]) -> None:
    """Ask the kernel for SIGKILL at the parent's death, then become the program."""
    parent, program = int(arguments[0]), arguments[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 - an argument list, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
