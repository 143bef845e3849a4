"""Run every fuzzer for a while: `python -m tests.sandbox.fuzz --seconds 60 --seed 1 [--only NAME]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from pathlib import Path

from .fuzzers import FUZZERS
from .loop import fuzz, line


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.sandbox.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each fuzzer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=list(FUZZERS))
    given = parser.parse_args()
    found = 0
    for name in given.only or FUZZERS:
        with tempfile.TemporaryDirectory(prefix="assay-fuzz-") as folder:
            try:
                print(line(fuzz(name, Path(folder), seed=given.seed, seconds=given.seconds)), flush=True)
            except Exception:  # whatever a reader raises is what is looked for; the next fuzzer still runs
                found += 1
                traceback.print_exc()
    print(f"{found} fuzzers found something")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
