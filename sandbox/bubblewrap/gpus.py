"""What a GPU cell needs of the host: the nodes of its devices, made beforehand, and nobody who could make more."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from sandbox.bubblewrap.profile import Mount
from sandbox.errors import CellRefused

_MODPROBE = ("nvidia-modprobe", "bin/nvidia-modprobe", "sbin/nvidia-modprobe")


def check_nodes(mounts: Sequence[Mount]) -> None:
    """Refuse when a planned node is no device, or when a setuid `nvidia-modprobe` could be seen from the cell.

    Raises:
        CellRefused: gpu_nodes_missing, modprobe_present.
    """
    for mount in mounts:
        if mount.sort == "device" and not _is(mount.source, stat.S_IFCHR):
            raise CellRefused("gpu_nodes_missing", mount.source)
        if mount.sort == "ro" and mount.staged:
            for name in _MODPROBE:
                if _is(f"{mount.source}/{name}", stat.S_ISUID):
                    raise CellRefused("modprobe_present", f"{mount.target}/{name}")


def _is(path: str, bits: int) -> bool:
    try:
        return os.stat(path).st_mode & bits == bits
    except OSError:
        return False
