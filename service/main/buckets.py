"""Which store holds the blobs: a local folder, or the bucket that `[s3]` names. Every role and command asks here."""

from __future__ import annotations

import configparser
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from service.main.config import ConfigError, Server
from service.main.sections import S3

if TYPE_CHECKING:
    from service.blobs import BlobStore
    from service.blobs.bucket import S3Settings
    from service.blobs.s3 import S3Blobs
    from service.blobs.signing import Credentials

log = logging.getLogger("assay.blobs")

ADMINISTRATION = "administration"
"""The folder of local commands; each role has one of its own name."""

CREDENTIALS_MAX = 16 * 1024
"""Bytes of a credentials file; one with a single profile has about 120."""

_KEYS = ("aws_access_key_id", "aws_secret_access_key")

LOOK_S = 5.0
"""Silence after which `assay-server status` gives the bucket up."""


def open_blobs(server: Server, place: str = ADMINISTRATION) -> BlobStore:
    """Return the blobs of a server.

    Args:
        server: the configuration.
        place: whose cache lies below `blobs`, where they are in a bucket.

    Raises:
        ConfigError: the bucket's credentials cannot be used.
    """
    from service.blobs import LocalBlobs

    return open_bucket(server, place) or LocalBlobs(server.blobs)


def open_bucket(server: Server, place: str) -> S3Blobs | None:
    """Return the bucket of a server that has one.

    Raises:
        ConfigError: its credentials cannot be used.
    """
    if server.s3 is None:
        return None
    from service.blobs.s3 import S3Blobs
    from service.rules.limits import disk_floor

    return S3Blobs(
        settings_of(server.s3),
        server.blobs / place,
        cache_bytes=server.s3.cache_bytes,
        floor=lambda total: disk_floor(
            total, server.limits.disk_floor_bytes, development=server.profile == "development"
        ),
    )


def settings_of(chosen: S3, *, timeout_s: float | None = None) -> S3Settings:
    """Return how a bucket is spoken to.

    Raises:
        ConfigError: its credentials cannot be used.
    """
    from service.blobs.bucket import S3Settings

    return S3Settings(
        endpoint=chosen.endpoint,
        bucket=chosen.bucket,
        prefix=chosen.prefix,
        credentials=read_credentials(chosen.credentials, chosen.region),
        ca=chosen.ca,
        timeout_s=timeout_s or chosen.timeout_s,
    )


def require_keys(server: Server) -> None:
    """Do nothing if a bucket's keys can be read, or if there is no bucket.

    Raises:
        ConfigError: they cannot.
    """
    if server.s3 is not None:
        settings_of(server.s3)


def read_credentials(path: Path, region: str) -> Credentials:
    """Read a file of the AWS tools' form; of its profiles, `[default]` alone.

    Raises:
        ConfigError: it cannot be read, others may read it, or it holds no lasting pair of keys. Nothing of what it
            holds is in the message.
    """
    from service.blobs.signing import Credentials

    parser = configparser.ConfigParser(interpolation=None, default_section="\n")
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(CREDENTIALS_MAX + 1)
    except OSError as error:
        raise ConfigError(f"s3.credentials: {path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(
            f"s3.credentials: {path} has mode {mode:04o}: others may read it; chmod 600, and make new keys"
        )
    try:
        parser.read_string(text[:CREDENTIALS_MAX].decode("utf-8"))
        held = dict(parser["default"])
    except (configparser.Error, UnicodeDecodeError, KeyError):
        held = {}
    if len(text) > CREDENTIALS_MAX or set(held) != set(_KEYS) or not all(held.values()):
        raise ConfigError(f"s3.credentials: {path} must have a section [default] with {' and '.join(_KEYS)} alone")
    return Credentials(access_key=held[_KEYS[0]], secret_key=held[_KEYS[1]], region=region)


def problem_of(server: Server) -> str | None:
    """Return why the bucket cannot be read now; None if it can, or if there is none. Writes nothing anywhere."""
    if server.s3 is None:
        return None
    from service.blobs import BlobError
    from service.blobs.bucket import Bucket

    try:
        chosen = settings_of(server.s3, timeout_s=LOOK_S)
        Bucket(chosen).call("HEAD", f"{chosen.prefix}sha256/", accept=(200, 404))
    except (ConfigError, BlobError, OSError) as error:
        return str(error)
    return None


class Reaches:
    """Says whether the store takes blobs now, so that nothing is leased that could not be stored.

    Args:
        blobs: the store.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._did = True

    def __call__(self) -> bool:
        """Look once; told to the log when it changes."""
        from service.blobs import BlobError

        try:
            self._blobs.probe()
            does, why = True, ""
        except BlobError as error:
            does, why = False, str(error)
        if does is not self._did:
            if does:
                log.info("the blob store takes blobs again: jobs are leased")
            else:
                log.error("nothing is leased until the blob store takes blobs: %s", why)
        self._did = does
        return does
