"""Which code answers: the digest of what is mounted, measured here and compared with the catalogue's."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from sandbox.cell import CodeMount
from sandbox.reader.digest import file_sha256
from service.worker.errors import HostFault
from service.worker.promises import Promise

CHECKS_MODULE = "checks"


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What runs in the cell."""

    module: str = CHECKS_MODULE
    """Run by `runpy`. Anything but `checks` is a rehearsal: its digest is recorded as it is, and is no check's."""
    code: tuple[CodeMount, ...]
    """`checks`, `sandbox` and `assay`, for the module `checks`; `plugins` where the operator allows third parties'."""
    third_party: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Distribution by the name of its check; its files lie in the mounted `plugins`."""

    def part(self, name: str) -> Path:
        """Return where a package lies that every cell of an attempt needs: the one mounted, in a rehearsal ours.

        Raises:
            HostFault: it is not mounted, and this is no rehearsal; or it is not installed.
        """
        if self.module == CHECKS_MODULE or any(mount.name == name for mount in self.code):
            return self.folder(name)
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise HostFault(f"package {name!r} is not installed here")
        return Path(next(iter(spec.submodule_search_locations))).resolve()

    def folder(self, name: str) -> Path:
        """Return where a mounted package lies.

        Raises:
            HostFault: it is not mounted.
        """
        for mount in self.code:
            if mount.name == name:
                return mount.source
        raise HostFault(f"the worker mounts no code named {name!r}: its configuration is incomplete")


def measure_code(guest: Guest, check: str, promise: Promise) -> str:
    """Return the digest of the code that will answer for a check.

    Raises:
        HostFault: it cannot be read, or is not what the catalogue names.
    """
    try:
        if guest.module != CHECKS_MODULE:
            return _rehearsal_sha256(guest)
        found = code_sha256(guest, check, promise.raw.get("beside", ()))
    except OSError as error:
        raise HostFault(f"the code of {check} cannot be read: {error.strerror}") from error
    if found != promise.code_sha256:
        raise HostFault(
            f"the code of {check} has digest {found}, the catalogue names {promise.code_sha256}: "
            "run `make catalogue`, or install one release whole"
        )
    return found


def code_sha256(guest: Guest, check: str, beside: Sequence[str] = ()) -> str:
    """Return the digest of what decides a check's answer: its own code, the contract, the runtime and the readers.

    Args:
        guest: what is mounted.
        check: its name.
        beside: what else decides, as patterns below `checks/`: the catalogue names it.

    Raises:
        HostFault: a package is not mounted.
        OSError: a file cannot be read.
    """
    return digest_of(_files(guest, check, beside))


def digest_of(files: Mapping[str, Path]) -> str:
    """Return the digest of files by their names in the project, as `sandbox.reader.digest.tree_sha256` forms it.

    The files need not lie under one root: in an installation the client is a package of its own.
    """
    table = [[name, file_sha256(files[name])] for name in sorted(files, key=str.encode)]
    return hashlib.sha256(json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def _files(guest: Guest, check: str, beside: Sequence[str]) -> dict[str, Path]:
    checks, sandbox, client = (guest.folder(name) for name in ("checks", "sandbox", "assay"))
    files = {"client/assay/result.py": client / "result.py"}
    distribution = guest.third_party.get(check)
    own: tuple[str, Path, tuple[str, ...]]
    if distribution is None:
        own = (f"checks/{check}", checks / check, ("**/*.py", "**/*.json"))
    else:  # all of it: what is loaded with it decides, too
        own = (f"plugins/{distribution}", guest.folder("plugins") / distribution, ("**/*",))
    shared = (
        ("checks", checks, ("*.py", "architectures.json", *beside)),
        ("checks/runtime", checks / "runtime", ("*.py",)),
        ("sandbox", sandbox, ("ingest.py",)),
        ("sandbox/reader", sandbox / "reader", ("*.py",)),
    )
    for prefix, folder, patterns in (own, *shared):
        for pattern in patterns:
            found = (path for path in folder.glob(pattern) if not path.is_dir())
            files |= {f"{prefix}/{path.relative_to(folder).as_posix()}": path for path in found}
    return files


def _rehearsal_sha256(guest: Guest) -> str:
    files = {}
    for mount in guest.code:
        if mount.source.is_file():
            files[mount.name] = mount.source
        else:
            inside = (path for path in mount.source.rglob("*.py") if path.is_file())
            files |= {f"{mount.name}/{path.relative_to(mount.source).as_posix()}": path for path in inside}
    return digest_of(files)
