"""The first code of a container: gives the shim its channels, where no descriptor can be passed, and becomes the shim.

An engine hands a container its standard streams and nothing else. So the shim's line goes out on standard output before
anything untrusted begins, go comes in on standard input, and the result goes into a file that the host made. Progress
has no channel here.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys

_HIGH = 200


def main() -> None:
    """Open what the plan names, set the environment to exactly the plan's, and run the shim."""
    plan = json.loads(sys.argv[1])
    null = os.open("/dev/null", os.O_RDWR)
    opened = {
        "status": fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _HIGH),
        "go": fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _HIGH),
        "progress": fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, _HIGH),
    }
    result = os.open(plan.pop("result"), os.O_WRONLY | os.O_NOFOLLOW)
    opened["result"] = fcntl.fcntl(result, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    os.close(result)
    os.dup2(null, 0)
    os.close(null)
    environment = plan.pop("environment")
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(plan.pop("folder"))
    shim = plan.pop("shim")
    sys.argv[:] = [shim, json.dumps({**plan, "fds": opened})]
    import runpy

    runpy.run_path(shim, run_name="__main__")


if __name__ == "__main__":
    main()
