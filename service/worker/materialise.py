"""Inputs: copied by digest into a private, read-only folder while they are hashed again."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from assay.manifest import Manifest

from sandbox.cell import Input
from service.blobs import BlobDamaged, BlobError, BlobMissing, BlobStore
from service.worker.errors import BlobCorrupt, BlobLost, HostFault
from service.worker.request import Request

WEIGHTS = ".safetensors"
STEP = 2**20
"""Bytes copied at a time; hashing and writing both run at full speed there."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One file that a cell will see."""

    input: str
    """Flat name under /in."""
    sha256: str
    size: int | None
    """As the manifest says; None where nobody promised one."""


@dataclass(frozen=True, kw_only=True)
class Materialised:
    """One model's files as inputs of cells."""

    name: Literal["model", "base"]
    """How an order calls it, and how its inputs' names begin."""
    manifest: Manifest
    files: tuple[Input, ...]
    """In the manifest's order."""

    @property
    def by_path(self) -> dict[str, Input]:
        """The files by their paths in the manifest."""
        return dict(zip((file.path for file in self.manifest.files), self.files, strict=True))


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything a cell will see."""

    manifest: Manifest
    base_manifest: Manifest | None = None
    """Of the second model; None where the request names none."""
    files: tuple[Input, ...]
    """The model's files in the manifest's order, then its base's in that manifest's, then the data in the request's."""
    more: tuple[Input, ...] = ()
    """What else was wanted, in the order asked: of an audit in shards, its plan and its parts."""

    @property
    def models(self) -> tuple[Materialised, ...]:
        """The model, and its base where there is one."""
        first = len(self.manifest.files)
        found = [Materialised(name="model", manifest=self.manifest, files=self.files[:first])]
        if self.base_manifest is not None:
            files = self.files[first : first + len(self.base_manifest.files)]
            found.append(Materialised(name="base", manifest=self.base_manifest, files=files))
        return tuple(found)

    @property
    def data(self) -> tuple[Input, ...]:
        """The data sets, in the request's order."""
        return self.files[sum(len(one.files) for one in self.models) :]


@contextmanager
def private_folder(work: Path, name: str) -> Iterator[Path]:
    """Make a folder that only this user can enter, and remove it with all it holds."""
    folder = work / name
    try:
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise HostFault(f"work folder {folder} cannot be made: {error.strerror}") from error
    try:
        yield folder
    finally:
        remove(folder)


def remove_orphans(work: Path) -> int:
    """Remove what killed attempts left behind; call it before the first lease. Returns how many there were."""
    left = [path for path in work.glob("*") if path.is_dir()] if work.exists() else []
    for folder in left:
        remove(folder)
    return len(left)


def remove(folder: Path) -> None:
    """Remove a folder that may have been made read-only."""
    for directory, _, _ in os.walk(folder):
        Path(directory).chmod(0o700)
    shutil.rmtree(folder)


def materialise(
    blobs: BlobStore,
    manifest: Manifest,
    request: Request,
    folder: Path,
    *,
    on_file: Callable[[int, int], None],
    base: Manifest | None = None,
    more: Sequence[Wanted] = (),
) -> Inputs:
    """Copy the files of the model and its base, the data, and what else is wanted.

    Args:
        blobs: where the bytes are.
        manifest: the model's.
        request: names the data.
        folder: private and empty; read-only afterwards.
        on_file: told (done, owed) before each file and after the last; may raise to stop.
        base: the second model's manifest, where the request names one.
        more: further files.

    Raises:
        HostFault: a blob is absent, corrupt or of another size, or the disk failed.
    """
    wanted = [
        *_wanted("model", manifest),
        *(_wanted("base", base) if base is not None else ()),
        *wanted_data(request),
        *more,
    ]
    made = copy_all(blobs, wanted, folder, on_file=on_file)
    own = len(made) - len(more)
    return Inputs(manifest=manifest, base_manifest=base, files=made[:own], more=made[own:])


def wanted_data(request: Request) -> tuple[Wanted, ...]:
    """Return the data that came with an audit, in the request's order."""
    return tuple(Wanted(input=f"data.{n}", sha256=data.sha256, size=None) for n, data in enumerate(request.data))


def copy_all(
    blobs: BlobStore, wanted: Sequence[Wanted], folder: Path, *, on_file: Callable[[int, int], None]
) -> tuple[Input, ...]:
    """Copy files into a private and empty folder, which is read-only afterwards.

    Raises:
        HostFault: a blob is absent, corrupt or of another size, or the disk failed.
    """
    made = []
    for done, want in enumerate(wanted):
        on_file(done, len(wanted))
        made.append(_copy(blobs, want, folder / want.input))
    on_file(len(wanted), len(wanted))
    folder.chmod(0o500)
    return tuple(made)


def _wanted(name: str, manifest: Manifest) -> Iterator[Wanted]:
    for n, file in enumerate(manifest.files):
        yield Wanted(input=f"{name}.{n}{_ending(file.path)}", sha256=file.sha256, size=file.size)


def _ending(path: str) -> str:
    """Loaders of weights go by the end of the name; nothing else needs one."""
    return WEIGHTS if path.endswith(WEIGHTS) else ""


def _copy(blobs: BlobStore, want: Wanted, target: Path) -> Input:
    digest, size = hashlib.sha256(), 0
    try:
        with blobs.open(want.sha256) as source, _new_file(target) as out:
            while chunk := source.read(STEP):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
    except BlobDamaged as error:
        raise BlobCorrupt(f"{want.input}: {error}; restore it", want.sha256) from error
    except BlobMissing as error:
        raise BlobLost(f"{want.input}: {error}; restore it", want.sha256) from error
    except BlobError as error:
        raise HostFault(f"{want.input}: {error}") from error
    except OSError as error:
        raise HostFault(f"{want.input}: the disk failed while copying blob {want.sha256}: {error.strerror}") from error
    if digest.hexdigest() != want.sha256:
        text = f"{want.input}: blob {want.sha256} is corrupt: its bytes hash to something else; restore it"
        raise BlobCorrupt(text, want.sha256)
    if want.size not in (None, size):
        raise HostFault(f"{want.input}: blob {want.sha256} has {size} bytes, its manifest says {want.size}")
    return Input(name=want.input, source=target, sha256=want.sha256, size=size)


def _new_file(target: Path) -> BinaryIO:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
    # 0444 whatever the umask: the cell runs as another user and sees this one file, bound alone.
    os.fchmod(descriptor, 0o444)
    return os.fdopen(descriptor, "wb")
