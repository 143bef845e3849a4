"""The request as registered: read by digest, parsed strictly, never from the row that the api wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay import manifest, request
from assay.errors import AssayError
from assay.manifest import Manifest

from service.blobs import BlobDamaged, BlobError, BlobMissing, BlobStore
from service.worker.errors import BlobCorrupt, BlobLost, HostFault


@dataclass(frozen=True, kw_only=True)
class AskedCheck:
    """One check with complete parameters."""

    name: str
    version: str
    params: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class AskedData:
    """One data set."""

    role: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the worker needs of request.json."""

    model_sha256: str
    """Digest of the model's manifest."""
    base_sha256: str | None = None
    """The same of a second model that the first is held against; None without one."""
    checks: tuple[AskedCheck, ...]
    data: tuple[AskedData, ...]
    output_bytes: int
    """Most bytes of answers that may leave."""
    wall_s: int
    """Wall time of one attempt's cell, in seconds."""


def read_request(blobs: BlobStore, sha256: str, audit_id: str) -> Request:
    """Return the request of an audit.

    Raises:
        HostFault: its blob is absent, corrupt, or of another audit.
    """
    try:
        content = request.parse(read_blob(blobs, sha256, request.BYTES_MAX))
    except AssayError as error:
        raise HostFault(f"request.json {sha256} does not parse: {error}") from error
    if content["audit"] != audit_id:
        raise HostFault(f"request.json {sha256} is of audit {content['audit']}, not {audit_id}")
    return Request(
        model_sha256=content["model"]["manifest_sha256"],
        base_sha256=request.base_sha256(content),
        checks=tuple(AskedCheck(**one) for one in content["checks"]),
        data=tuple(AskedData(**one) for one in content["data"]),
        output_bytes=content["limits"]["output_bytes"],
        wall_s=content["limits"]["wall_s"],
    )


def read_manifest(blobs: BlobStore, sha256: str) -> Manifest:
    """Return a model's manifest.

    Raises:
        HostFault: its blob is absent, corrupt, or no manifest.
    """
    try:
        return manifest.parse(read_blob(blobs, sha256, manifest.BYTES_MAX))
    except AssayError as error:
        raise HostFault(f"manifest {sha256} does not parse: {error}") from error


def read_blob(blobs: BlobStore, sha256: str, cap: int) -> bytes:
    """Return a small blob's bytes, hashed again.

    Raises:
        HostFault: it is absent, larger than `cap`, or corrupt.
    """
    try:
        with blobs.open(sha256) as stream:
            data = stream.read(cap + 1)
    except BlobDamaged as error:
        raise BlobCorrupt(f"blob {sha256} is corrupt: {error}; restore it", sha256) from error
    except BlobMissing as error:
        raise BlobLost(f"blob {sha256} is lost: {error}; restore it", sha256) from error
    except (BlobError, OSError) as error:
        raise HostFault(f"blob {sha256} cannot be read: {error}") from error
    if len(data) > cap:
        raise HostFault(f"blob {sha256} has more than {cap} bytes")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BlobCorrupt(f"blob {sha256} is corrupt: its bytes hash to something else; restore it", sha256)
    return data
