"""What the client remembers between runs: which upload of which bytes to which service was under way."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.remote.reuse import KnownTensors


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's state folder of this client: `$XDG_STATE_HOME/assay` or `~/.local/state/assay`."""
    base = environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path(environ.get("HOME") or "~").expanduser() / ".local" / "state") / "assay"


def local_secret(folder: Path) -> bytes:
    """Return 32 secret bytes of this user, made at the first call: what nonces are derived from without a private key.

    Where the folder cannot be written they serve this run alone; then a submission that a later run repeats needs its
    nonce named.
    """
    file = folder / "nonce.key"
    fresh = secrets.token_bytes(32)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
            made.write(fresh)
    except FileExistsError:
        try:
            noted = file.read_bytes()
        except OSError:
            return fresh
        return noted if len(noted) == len(fresh) else fresh
    except OSError:
        return fresh
    return fresh


class UploadMemory:
    """Upload ids by service and digest, one small file each.

    It saves bytes and decides nothing: where the folder cannot be written, an upload simply cannot be taken up by
    another run. What a file says is a name only; how much arrived is always asked of the service.

    Args:
        folder: the client's state folder.
        server: address of the service.
    """

    def __init__(self, folder: Path, server: str) -> None:
        self._folder = folder / "uploads"
        self._server = server
        from assay.remote.reuse import KnownTensors  # a reader of reports asks this module for its folder alone

        self.tensors: KnownTensors = KnownTensors(folder, server)
        """Tensors of files that have arrived."""

    def recall(self, sha256: str) -> str:
        """Return the id of the upload of these bytes that was under way, or a new one, noted down."""
        try:
            noted = json.loads(self._file(sha256).read_bytes())["upload"]
            return str(uuid.UUID(noted, version=4))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Absent or damaged: begin anew.
            return self._note(sha256, str(uuid.uuid4()))

    def forget(self, sha256: str) -> None:
        """Remove the note: the bytes have arrived, or were refused."""
        try:
            self._file(sha256).unlink(missing_ok=True)
        except OSError:
            return  # a stale note costs one question to the service

    def _note(self, sha256: str, upload: str) -> str:
        file = self._file(sha256)
        part = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            part.write_text(json.dumps({"server": self._server, "sha256": sha256, "upload": upload}))
            part.replace(file)
        except OSError:
            return upload  # see the class: without a note only this run can resume
        return upload

    def _file(self, sha256: str) -> Path:
        key = hashlib.sha256(f"{self._server}\n{sha256}".encode()).hexdigest()[:32]
        return self._folder / f"{key}.json"
