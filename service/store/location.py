"""Where a database file lies: WAL needs shared memory, so a network file system is refused."""

from __future__ import annotations

from pathlib import Path

NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "afs", "ncpfs")
"""Types as /proc/self/mountinfo spells them; `fuse.` ones are looked up without the prefix, with sshfs added."""


def refuse_network_file_system(database: Path, error: type[Exception]) -> None:
    """Raise `error` when the database would lie on a network file system.

    Args:
        database: absolute path of the file; it need not exist.
        error: what to raise; its message names the mount.
    """
    kind, mount = file_system_of(database.parent, Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    if kind.removeprefix("fuse.") in (*NETWORK_FILE_SYSTEMS, "sshfs"):
        raise error(
            f"database {database} lies on the network file system {mount} ({kind}), where SQLite's locks do not hold: "
            "choose a local directory, or PostgreSQL"
        )


def file_system_of(folder: Path, mountinfo: str) -> tuple[str, str]:
    """Return (type, mount point) of the deepest mount above a folder; ("unknown", "/") if none is listed."""
    resolved = folder.resolve()
    best = ("unknown", "/")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < 5 or not kinds[0]:
            continue
        point = Path(fields[4].replace("\\040", " "))
        # A later line covers an earlier one at the same place.
        if resolved.is_relative_to(point) and len(point.parts) >= len(Path(best[1]).parts):
            best = (kinds[0], str(point))
    return best
