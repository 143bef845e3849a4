"""The Models service: manifests of files that the caller has sent."""

# ruff: noqa: N802 (method names are those of the protos)
from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from assay.api.v1 import models_pb2, models_pb2_grpc
from sqlalchemy import Connection

from service.api.backing import Backing
from service.api.guard import current_call
from service.api.render import model_message
from service.rules import names, pages
from service.rules.errors import Missing, Violation, not_permitted, refuse_fields
from service.rules.limits import require_files
from service.rules.pages import Position
from service.store import models, uploads
from service.store.intake import sent_manifest
from service.store.models import ModelView


class Models(models_pb2_grpc.ModelsServicer):
    """See `protos/assay/api/v1/models.proto` for every method's contract."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def CreateModel(self, request: models_pb2.CreateModelRequest, context: Any) -> models_pb2.Model:
        """Make the model of an uploaded manifest known."""
        if not names.is_sha256(request.manifest_sha256):
            raise refuse_fields([Violation("manifest_sha256", "is not 64 lower-case hex digits", "BAD_DIGEST")])
        return await asyncio.to_thread(self._create, current_call().caller.tenant, request.manifest_sha256)

    def _create(self, tenant: str, digest: str) -> models_pb2.Model:
        manifest = sent_manifest(self._backing.store, self._backing.blobs, tenant, digest)
        if manifest is None:
            raise uploads.missing_blobs([Missing(digest, None)])
        require_files(len(manifest.files), self._backing.limits.quotas)
        with self._backing.store.read() as connection:
            known = models.find_model(connection, tenant, digest)
        if known is None or known.deleted_at is not None:
            with self._backing.store.begin() as connection:
                models.put_model(connection, tenant, manifest)
                known = models.find_model(connection, tenant, digest)
        assert known is not None  # it was just put
        return model_message(known, manifest)

    async def GetModel(self, request: models_pb2.GetModelRequest, context: Any) -> models_pb2.Model:
        """Read one model with its files."""
        digest = names.model(request.name)
        tenant = current_call().caller.tenant

        def read() -> models_pb2.Model:
            with self._backing.store.read() as connection:
                known = models.find_model(connection, tenant, digest)
            if known is None:
                raise not_permitted()
            return model_message(known, sent_manifest(self._backing.store, self._backing.blobs, tenant, digest))

        return await asyncio.to_thread(read)

    async def DeleteModel(self, request: models_pb2.DeleteModelRequest, context: Any) -> models_pb2.Model:
        """Hide a model; its weights go after 30 days, its reports stay."""
        return await self._change(models.delete_model, request.name, request.etag)

    async def UndeleteModel(self, request: models_pb2.UndeleteModelRequest, context: Any) -> models_pb2.Model:
        """Take a deletion back while the weights are there."""
        return await self._change(models.undelete_model, request.name, request.etag)

    async def _change(
        self, change: Callable[[Connection, str, str, str], ModelView], name: str, etag: str
    ) -> models_pb2.Model:
        digest, tenant = names.model(name), current_call().caller.tenant

        def commit() -> models_pb2.Model:
            with self._backing.store.begin() as connection:
                known = change(connection, tenant, digest, etag)
            return model_message(known, None)

        return await asyncio.to_thread(commit)

    async def ListModels(self, request: models_pb2.ListModelsRequest, context: Any) -> models_pb2.ListModelsResponse:
        """List models without their files, newest first."""
        caller = current_call().caller
        size = pages.page_size(request.page_size)
        question = (caller.principal, "ListModels", str(request.show_deleted))
        key = self._backing.settings.page_key
        after = pages.unseal(key, question, request.page_token)

        def read() -> tuple[ModelView, ...]:
            with self._backing.store.read() as connection:
                return models.model_page(connection, caller.tenant, after, size + 1, deleted=request.show_deleted)

        found = await asyncio.to_thread(read)
        reply = models_pb2.ListModelsResponse(models=[model_message(one, None) for one in found[:size]])
        if len(found) > size:
            last = found[size - 1]
            reply.next_page_token = pages.seal(key, question, Position(last.created_at, last.manifest_sha256))
        return reply
