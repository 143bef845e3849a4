"""Run the named probes and write {probe: {attempt: word}} to the descriptor or file that the parameters name.

Arguments: names of probes separated by commas, one JSON object of parameters, a marker that shows in the command line.
"""

from __future__ import annotations

import errno
import json
import sys

from . import files, kernel, limits, network, processes
from .words import Found, Probe

PROBES: dict[str, Probe] = {
    **files.PROBES, **network.PROBES, **kernel.PROBES, **processes.PROBES, **limits.PROBES,
}  # fmt: skip


def main() -> None:
    """Run them one after the other; one that fails as a whole is told by its error."""
    parameters = json.loads(sys.argv[2])
    found: dict[str, Found] = {}
    for name in sys.argv[1].split(","):
        try:
            found[name] = PROBES[name](parameters)
        except OSError as error:
            found[name] = {"all": errno.errorcode.get(error.errno or 0, "OSError")}
    with open(parameters["out"], "wb") as stream:
        stream.write(json.dumps(found).encode())


if __name__ == "__main__":
    main()
