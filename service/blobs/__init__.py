"""Bytes named by their SHA-256: one contract, a local folder, and an in-memory twin."""

from __future__ import annotations

from service.blobs.contract import (
    EMPTY_SHA256,
    BlobDamaged,
    BlobError,
    BlobFault,
    BlobMismatch,
    BlobMissing,
    BlobsAway,
    BlobStore,
    NoSpace,
    disk_errors,
)
from service.blobs.local import LocalBlobs
from service.blobs.memory import MemoryBlobs

__all__ = [
    "EMPTY_SHA256",
    "BlobDamaged",
    "BlobError",
    "BlobFault",
    "BlobMismatch",
    "BlobMissing",
    "BlobStore",
    "BlobsAway",
    "LocalBlobs",
    "MemoryBlobs",
    "NoSpace",
    "disk_errors",
]
