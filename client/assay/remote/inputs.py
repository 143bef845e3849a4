"""What an audit reads, on its way to the service: models, data files, documents."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from assay.api.v1 import blobs_pb2, models_pb2
from assay.preflight import HashedModel, check_data, hash_model, shipped_types
from assay.remote import values, wire
from assay.remote.calls import Calls
from assay.remote.memory import UploadMemory
from assay.remote.upload import Blob, Progress, Uploader


class Inputs:
    """The part of a client that sends bytes.

    Args:
        calls: the service.
        memory: which uploads were under way.
    """

    def __init__(self, calls: Calls, memory: UploadMemory) -> None:
        self._calls = calls
        self._memory = memory

    def lacks(self, digests: Sequence[values.Digest]) -> tuple[values.Digest, ...]:
        """Return those of the bytes that the caller's tenant has not sent to the service yet.

        Raises:
            ServerRefused, Unreachable, TimedOut.
        """
        request = blobs_pb2.FindMissingBlobsRequest()
        for one in digests:
            request.digests.add(sha256=one.sha256, size=one.size)
        answer = self._calls.unary(self._calls.blobs.FindMissingBlobs, request, patient=True)
        absent = {one.sha256 for one in answer.missing}
        return tuple(one for one in digests if one.sha256 in absent)

    def upload_model(
        self,
        directory: Path,
        *,
        progress: Progress | None = None,
        preflight: bool = True,
        hashed: HashedModel | None = None,
    ) -> values.Uploaded:
        """Hash a model directory and send what the service lacks.

        A broken upload is taken up where the service has committed it, also by a later run.

        Args:
            directory: Hugging Face style model directory.
            progress: called with (bytes done, bytes to send).
            preflight: refuse on this machine what can never be audited.
            hashed: what `assay.preflight.hash_model` returned, if it was called before.

        Raises:
            LocalInputRefused, ServerRefused, Unreachable, TimedOut.
        """
        model = hashed or hash_model(directory, preflight=preflight)
        made = model.manifest
        blobs = [Blob(sha256=one.sha256, size=one.size, source=directory / one.path) for one in made.files]
        blobs.append(Blob(sha256=made.digest, size=len(made.data), source=made.data))
        uploader = Uploader(self._calls, self._memory, progress)
        uploader.send(blobs)
        return values.Uploaded(
            manifest_sha256=made.digest,
            files=tuple(values.ModelFile(path=one.path, sha256=one.sha256, size=one.size) for one in made.files),
            left_out=model.chosen.left_out,
            bytes_total=made.size + len(made.data),
            bytes_sent=uploader.sent,
        )

    def hash_data(self, role: str, path: Path, *, media_type: str | None = None) -> values.DataInput:
        """Check and hash one data file; nothing is sent.

        Args:
            role: what the file is sent as.
            path: the file.
            media_type: what the role takes; by default as this client's own catalogue says, else as the file looks.

        Raises:
            LocalInputRefused: naming file and line.
        """
        told = shipped_types().get(role, "") if media_type is None else media_type
        return wire.data_input(check_data(role, path, told))

    def upload_data(
        self, role: str, path: Path, *, media_type: str | None = None, progress: Progress | None = None
    ) -> values.DataInput:
        """Check one data file, as `hash_data`, and send it if the service lacks it; its bytes arrive as they are.

        Raises:
            LocalInputRefused, ServerRefused, Unreachable, TimedOut.
        """
        data = self.hash_data(role, path, media_type=media_type)
        Uploader(self._calls, self._memory, progress).send([Blob(sha256=data.sha256, size=data.size, source=path)])
        return data

    def upload_document(self, content: bytes) -> None:
        """Send a small document if the service lacks it: a policy, or waivers.

        Raises:
            ServerRefused, Unreachable, TimedOut.
        """
        blob = Blob(sha256=hashlib.sha256(content).hexdigest(), size=len(content), source=content)
        Uploader(self._calls, self._memory, None).send([blob])

    def create_model(self, manifest_sha256: str) -> values.Model:
        """Make an uploaded manifest a model; the same digest returns the same model.

        Raises:
            ServerRefused: BAD_MANIFEST or MISSING_BLOBS, among others.
        """
        request = models_pb2.CreateModelRequest(manifest_sha256=manifest_sha256)
        return wire.model(self._calls.unary(self._calls.models.CreateModel, request, patient=True))
