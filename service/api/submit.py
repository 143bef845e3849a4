"""Accepting an audit: read the request, refuse it whole, or store it whole. Runs in a thread; it blocks."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from assay import moments
from assay.api.v1 import audits_pb2
from assay.manifest import Manifest

from service.api.backing import Backing
from service.api.models import sent_manifest
from service.rules import names
from service.rules.access import Caller
from service.rules.errors import Refusal, Violation, refuse_fields
from service.rules.names import BlobName
from service.rules.policies import check_policy, check_waivers
from service.rules.submission import Submission, read_submission
from service.store import models, submissions, uploads, views
from service.store.engine import StoreConflict, now_ms
from service.store.submissions import NewAudit, Ticket
from service.store.views import AuditView


@dataclass(frozen=True)
class Submitter:
    """Turns a request into an accepted audit."""

    backing: Backing

    def validate(self, caller: Caller, request: audits_pb2.SubmitAuditRequest) -> audits_pb2.Audit:
        """Check everything, write nothing; return the request as it would be accepted.

        Raises:
            Refusal: as `submit`.
        """
        names.request_id(request.request_id)
        asked = read_submission(request.audit, self.backing.catalogue)
        self._require_inputs(caller, asked)
        return asked.to_proto()

    def submit(self, caller: Caller, request: audits_pb2.SubmitAuditRequest, expired: Callable[[], bool]) -> AuditView:
        """Store the audit, or find the one that this very call stored before; return its current state.

        Raises:
            Refusal: see `Audits.SubmitAudit` in the protos. Nothing was created.
        """
        ticket = _ticket(caller, request)
        with self.backing.store.read() as connection:
            audit_id = submissions.accepted_before(connection, ticket)
        if audit_id is None:
            audit_id = self._accept(caller, ticket, request, expired)
        with self.backing.store.read() as connection:
            found = views.view(connection, audit_id)
        assert found is not None  # it was just accepted, and audits are never deleted
        return found

    def _accept(
        self, caller: Caller, ticket: Ticket, request: audits_pb2.SubmitAuditRequest, expired: Callable[[], bool]
    ) -> str:
        asked = read_submission(request.audit, self.backing.catalogue)
        new = self._prepare(caller, asked, self._require_inputs(caller, asked))
        try:
            with self.backing.store.begin() as connection:
                return submissions.accept(connection, ticket, new, expired=expired)
        except StoreConflict:
            # Only where writers run side by side (PostgreSQL): the same call, repeated, was first.
            with self.backing.store.read() as connection:
                audit_id = submissions.accepted_before(connection, ticket)
            if audit_id is None:
                raise
            return audit_id

    def _require_inputs(self, caller: Caller, asked: Submission) -> tuple[Manifest, ...]:
        """Return the manifests of models that are not known yet: of the audited one, and of its base.

        Both are looked for in the caller's tenant alone, by the same rules.

        Raises:
            Refusal: UNKNOWN_MODEL, BAD_MANIFEST, MISSING_BLOBS, BAD_POLICY.
        """
        found = [self._unknown(caller, digest, asked) for digest in asked.models]
        manifests = tuple(manifest for manifest in found if manifest is not None)
        with self.backing.store.read() as connection:
            for manifest in manifests:
                models.require_files(connection, caller.tenant, manifest)
            uploads.require_granted(connection, caller.tenant, asked.blobs)
        self._check_policy(asked)
        return manifests

    def _check_policy(self, asked: Submission) -> None:
        """Hold the content of policy and waivers, which were sent before, against form and catalogue.

        Raises:
            Refusal: BAD_POLICY.
        """
        wrong: list[Violation] = []
        if asked.policy is not None:
            wrong += check_policy(self._small(asked.policy), self.backing.catalogue)
        if asked.waivers is not None:
            wrong += check_waivers(self._small(asked.waivers))
        if wrong:
            raise refuse_fields(wrong)

    def _small(self, named: BlobName) -> bytes:
        with self.backing.blobs.open(named.sha256) as file:
            return file.read(named.size)

    def _unknown(self, caller: Caller, digest: str, asked: Submission) -> Manifest | None:
        """Return the manifest that was sent of a model that is not known yet; None if the model is known."""
        with self.backing.store.read() as connection:
            known = models.find_model(connection, caller.tenant, digest)
        if known is not None:
            return None
        manifest = sent_manifest(self.backing, caller.tenant, digest)
        if manifest is None:
            field, which = ("base_model", "base model") if digest == asked.base_sha256 else ("model", "model")
            raise Refusal("UNKNOWN_MODEL", f"The {which} is not known here.", metadata={"field": f"audit.{field}"})
        return manifest

    def _prepare(self, caller: Caller, asked: Submission, manifests: tuple[Manifest, ...]) -> NewAudit:
        """Fix the audit's id and moment and write `request.json`; without its rows nothing refers to that blob."""
        with self.backing.store.read() as connection:
            submitted_at = now_ms(connection)
        audit_id = secrets.token_hex(16)
        data = asked.request_json(audit_id, moments.from_ms(submitted_at))
        digest = hashlib.sha256(data).hexdigest()
        self.backing.blobs.put(data, digest)
        return NewAudit(
            id=audit_id,
            tenant=caller.tenant,
            submission=asked,
            manifests=manifests,
            request=BlobName(digest, len(data)),
            submitted_at=submitted_at,
        )


def _ticket(caller: Caller, request: audits_pb2.SubmitAuditRequest) -> Ticket:
    content = audits_pb2.SubmitAuditRequest()
    content.CopyFrom(request)
    content.ClearField("request_id")
    return Ticket(
        principal=caller.principal,
        request_id=names.request_id(request.request_id),
        content_sha256=hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest(),
    )
