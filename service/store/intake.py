"""From a request to an audit that may be accepted: validate, look at what was sent, write `request.json`.

SubmitAudit and the fires of schedules stand on this one path, so what one of them refuses the other does too. It
blocks; call it in a thread.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from assay import moments
from assay.api.v1 import audits_pb2
from assay.catalogue import Catalogue
from assay.manifest import Manifest

from service.rules.access import Caller, may_ask_foreign
from service.rules.approvals import wanted_of
from service.rules.errors import Refusal, Violation, refuse_fields
from service.rules.limits import QUOTAS, Quotas, require_files
from service.rules.manifest import BYTES_MAX, read_manifest
from service.rules.names import BlobName
from service.rules.policies import check_policy, check_waivers
from service.rules.repeats import check_first
from service.rules.states import AuditState
from service.rules.submission import Submission, read_submission
from service.store import models, uploads, wholeness
from service.store.consent import Asking, ground, unknown_model
from service.store.engine import Store, now_ms
from service.store.models import ModelView
from service.store.submissions import NewAudit
from service.store.wholeness import Known


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A request that may be accepted now."""

    submission: Submission
    manifests: tuple[Manifest, ...]
    """Of models that the tenant has no row of yet."""
    asking: Asking | None = None
    """Set where the model is not the tenant's own: what an approval of its owner must allow."""
    known: tuple[Known, ...] = ()
    """Models that have a row already; whether their bytes are there, the accepting transaction looks."""


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What every submission is held against."""

    store: Store
    blobs: uploads.Bytes
    catalogue: Catalogue
    quotas: Quotas = QUOTAS
    """Of each tenant."""

    def check(self, caller: Caller, asked: audits_pb2.Audit, *, may_wait: bool = False) -> Checked:
        """Hold a request against catalogue and store; nothing is written.

        Args:
            caller: who asks.
            asked: the input fields.
            may_wait: wait for an approval of a foreign model rather than be refused.

        Raises:
            Refusal: every violation at once, UNKNOWN_MODEL, BAD_MANIFEST, MODEL_DELETED, MISSING_BLOBS, BAD_POLICY,
                BAD_SEED, BAD_FIRST, APPROVAL_SPENT, APPROVAL_MISMATCH.
        """
        submission = self._repeated(caller, read_submission(asked, self.catalogue))
        with self.store.read() as connection:
            known = models.find_model(connection, caller.tenant, submission.model_sha256)
        asking = None if known is not None else self._asking(caller, submission, may_wait)
        if asking is None and submission.approvals:
            text = "the model is the caller's own tenant's and runs under no approval: name none"
            raise refuse_fields([Violation("audit.approvals", text, "APPROVAL_MISMATCH")])
        own = submission.models if asking is None else submission.models[1:]
        manifests = self._require_inputs(caller, submission, own, known)
        sent = {manifest.digest for manifest in manifests}
        there = [wholeness.known(self.store, self.blobs, digest) for digest in own if digest not in sent]
        if asking is not None and self._may_read(asking):
            there.append(wholeness.known(self.store, self.blobs, submission.model_sha256, foreign=True))
        return Checked(submission=submission, manifests=manifests, asking=asking, known=tuple(there))

    def _may_read(self, asking: Asking) -> bool:
        """Tell whether an approval allows a foreign model now; while none does, nothing about it may be told.

        Raises:
            Refusal: see `ground`.
        """
        with self.store.read() as connection:
            return ground(connection, asking).state is AuditState.QUEUED

    def _repeated(self, caller: Caller, asked: Submission) -> Submission:
        """Return the submission with what its first report is; that report was sent before, and is read as hostile.

        Raises:
            Refusal: MISSING_BLOBS, BAD_FIRST, BAD_SEED.
        """
        repeat = asked.repeat
        if repeat is None or repeat.first is None:
            return asked
        with self.store.read() as connection:
            uploads.require_granted(connection, caller.tenant, (repeat.first,))
        first, wrong = check_first(self._small(repeat.first), asked)
        if first is None:
            raise refuse_fields(wrong)
        with self.store.read() as connection:
            uploads.require_granted(connection, caller.tenant, first.items)
        return replace(asked, repeat=replace(repeat, statement_sha256=first.statement_sha256, items=first.items))

    def _asking(self, caller: Caller, asked: Submission, may_wait: bool) -> Asking | None:
        """Return what an approval must allow of a model that the caller's tenant does not know; None if it sent it."""
        with self.store.read() as connection:
            if uploads.size_granted(connection, caller.tenant, asked.model_sha256) is not None:
                return None
        return Asking(
            wanted=wanted_of(asked, caller.tenant, self.catalogue),
            named=asked.approvals,
            may_wait=may_wait,
            may_ask=may_ask_foreign(caller),
        )

    def prepare(self, caller: Caller, checked: Checked) -> NewAudit:
        """Fix the audit's id and moment, and with them `request.json`; nothing is written."""
        with self.store.read() as connection:
            submitted_at = now_ms(connection)
        audit_id = secrets.token_hex(16)
        data = checked.submission.request_json(audit_id, moments.from_ms(submitted_at))
        return NewAudit(
            id=audit_id,
            tenant=caller.tenant,
            submission=checked.submission,
            manifests=checked.manifests,
            request=BlobName(hashlib.sha256(data).hexdigest(), len(data)),
            request_json=data,
            accepted=checked.submission.to_proto().SerializeToString(deterministic=True),
            submitted_at=submitted_at,
            asking=checked.asking,
            known=checked.known,
            quotas=self.quotas,
        )

    def _require_inputs(
        self, caller: Caller, asked: Submission, own: Sequence[str], known: ModelView | None
    ) -> tuple[Manifest, ...]:
        """Return the manifests of own models that are not known yet: of the audited one, and of its base.

        Both are looked for in the caller's tenant alone, by the same rules.
        """
        found = [self._unknown(caller, digest, asked, known) for digest in own]
        manifests = tuple(manifest for manifest in found if manifest is not None)
        for manifest in manifests:
            require_files(len(manifest.files), self.quotas)
        if manifests or asked.blobs:
            with self.store.read() as connection:
                for manifest in manifests:
                    models.require_files(connection, caller.tenant, manifest)
                uploads.require_granted(connection, caller.tenant, asked.blobs)
        self._check_policy(asked)
        return manifests

    def _check_policy(self, asked: Submission) -> None:
        """Hold the content of policy and waivers, which were sent before, against form and catalogue."""
        wrong: list[Violation] = []
        if asked.policy is not None:
            wrong += check_policy(self._small(asked.policy), self.catalogue)
        if asked.waivers is not None:
            wrong += check_waivers(self._small(asked.waivers))
        if wrong:
            raise refuse_fields(wrong)

    def _small(self, named: BlobName) -> bytes:
        return uploads.read_sent(self.store, self.blobs, named)

    def _unknown(self, caller: Caller, digest: str, asked: Submission, known: ModelView | None) -> Manifest | None:
        """Return the manifest that was sent of a model that is not known yet; None if the model is known.

        Args:
            caller: who asks.
            digest: of the model or of its base.
            asked: the request.
            known: the audited model, if the caller's tenant knows it.
        """
        if digest != asked.model_sha256:
            with self.store.read() as connection:
                known = models.find_model(connection, caller.tenant, digest)
        if known is not None and known.purged_at is None:
            models.refuse_deleted(known)
            return None
        manifest = sent_manifest(self.store, self.blobs, caller.tenant, digest)
        if manifest is None:
            raise unknown_model("base_model" if digest == asked.base_sha256 else "model")
        return manifest


def sent_manifest(store: Store, blobs: uploads.Bytes, tenant: str, digest: str) -> Manifest | None:
    """Return the manifest that the tenant has sent under this digest, None if it has sent none, or it is lost.

    Raises:
        Refusal: BAD_MANIFEST: those bytes are no manifest that may become a model.
    """
    with store.read() as connection:
        size = uploads.size_granted(connection, tenant, digest)
    if size is None:
        return None
    if size > BYTES_MAX:
        told = {"size": str(size), "limit": str(BYTES_MAX)}
        raise Refusal("BAD_MANIFEST", f"The manifest has {size} bytes, the limit is {BYTES_MAX}.", metadata=told)
    try:
        return read_manifest(uploads.read_sent(store, blobs, BlobName(digest, size)))
    except uploads.BytesLost:
        return None
