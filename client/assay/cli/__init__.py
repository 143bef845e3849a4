"""The `assay` command. Each command imports what it needs when it runs: verifying a report loads no gRPC."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from assay.cli.run import run

    sys.exit(run(sys.argv[1:]))
