"""`AuditClient`: submit audits to a service, watch them, fetch their reports.

    with AuditClient.from_config() as client:
        model = client.upload_model(Path("model"))
        audit = client.submit(model.manifest_sha256, checks=[("clusterability", {})])
        for event in client.watch(audit.name):
            print(event)
        client.report(audit.name, Path("report"))

Everything returned is a frozen plain value; everything raised descends from `AssayError`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from assay import config as configuration
from assay.api.v1 import audits_pb2, capabilities_pb2, checks_pb2
from assay.catalogue import CheckEntry
from assay.config import ClientConfig
from assay.remote import download, values, wire
from assay.remote.approvals import Approvals
from assay.remote.calls import Calls
from assay.remote.inputs import Inputs
from assay.remote.memory import UploadMemory, local_secret, state_folder
from assay.remote.schedules import Schedules
from assay.remote.submission import to_audit
from assay.remote.watch import watch
from assay.remote.webhooks import Webhooks

TIMEOUT_S = 30.0
"""Deadline of one unary call, as the service's own default."""

PATIENCE_S = 120.0
"""How long uploads and watches go on after a break without progress: a restart with recovery takes seconds."""

PAGE = 100


class AuditClient(Inputs):
    """A connection to one Assay service. Use it as a context manager, or call `close`.

    Args:
        config: which service, and who the caller is.
        timeout_s: deadline of each unary call, in seconds.
        patience_s: how long uploads, watches and repeatable calls go on after a break without progress.
        state: folder that remembers uploads under way; by default the user's state folder.

    Raises:
        NoConfig: a certificate or key file cannot be read.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        state: Path | None = None,
    ) -> None:
        calls = Calls(config, timeout_s=timeout_s, patience_s=patience_s)
        folder = state or state_folder(os.environ)
        self._secret = calls.secret or local_secret(folder)
        super().__init__(calls, UploadMemory(folder, config.address))
        self.approvals = Approvals(self._calls)
        """Consents of model owners."""
        self.webhooks = Webhooks(self._calls)
        """Who is told of audits, and how telling went."""
        self.schedules = Schedules(self._calls)
        """Audits that are submitted again and again, by a calendar."""

    def nonce(self, request_id: str) -> bytes:
        """Return the nonce that a submission with this request id has by default."""
        return hmac.digest(self._secret, b"assay-nonce/v1\n" + request_id.lower().encode(), hashlib.sha256)

    @classmethod
    def from_config(cls, path: Path | str | None = None, **options: Any) -> Self:
        """Connect as a configuration file says, by default the one that `assay.config` finds.

        Raises:
            NoConfig: there is none, or it is unusable.
        """
        return cls(configuration.find(Path(path) if path is not None else None), **options)

    @classmethod
    def connect(cls, address: str, *, ca: Path, certificate: Path, key: Path, **options: Any) -> Self:
        """Connect to an address with these PEM files."""
        return cls(ClientConfig(address=address, ca=ca, certificate=certificate, key=key), **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; audits go on."""
        self._calls.close()

    @property
    def address(self) -> str:
        """Address of the service."""
        return self._calls.address

    def capabilities(self) -> values.ServerCapabilities:
        """Return what the service can do and where its limits lie."""
        request = capabilities_pb2.GetCapabilitiesRequest()
        return wire.capabilities(self._calls.unary(self._calls.capabilities.GetCapabilities, request))

    def checks(self) -> tuple[values.Check, ...]:
        """Return every check that the service can ask."""
        answer = self._calls.unary(self._calls.checks.ListChecks, checks_pb2.ListChecksRequest())
        return tuple(wire.check(one) for one in answer.checks)

    def entries(self) -> tuple[CheckEntry, ...]:
        """Return the service's catalogue, whole: roles and their media types, metrics, controls, words.

        Raises:
            Malformed: an entry of it is none.
        """
        answer = self._calls.unary(self._calls.checks.ListChecks, checks_pb2.ListChecksRequest())
        return tuple(wire.entry(one) for one in answer.checks)

    def submit(
        self,
        model: str,
        checks: Sequence[tuple[str, Mapping[str, Any]]],
        *,
        data: Sequence[values.DataInput] = (),
        base: str | None = None,
        limits: values.Limits | None = None,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        nonce: bytes | None = None,
        policy: bytes | None = None,
        waivers: bytes | None = None,
        seed: int | None = None,
        first: bytes | None = None,
        approvals: Sequence[str] = (),
        await_approval: bool = False,
        validate_only: bool = False,
    ) -> values.Audit:
        """Submit an audit.

        Args:
            model: the model's digest, or `models/{digest}`.
            checks: (name, parameters); the same check may be asked twice.
            data: uploaded data, by role.
            base: a second model, uploaded before, that a check holds the first against: digest or `models/{digest}`.
            limits: what the audit may take.
            labels: at most 16; keys of [a-z0-9-].
            request_id: UUID4 text; the same id with the same content returns the same audit. By default a new one.
            nonce: 32 bytes that hide the request from readers of its digest; by default derived from request_id
                with the caller's private key, so that a repetition has the same content and nobody can guess it.
            policy: canonical bytes of the release policy to register with the request (`Policy.data` of
                `assay.policy.language`), sent before with `upload_document`; by default none.
            waivers: canonical bytes of the waivers to register with it (`waivers_data` of `assay.policy.registered`).
            seed: fixes the seed, to repeat an audit; by default it follows from the log, so that nobody can try seeds.
            first: bytes of report.sigstore.json of the report that is repeated, sent before with `upload_document`.
            approvals: names of approvals to run under, where the model is another tenant's; by default any that fits.
            await_approval: wait for an approval (state AWAITING_APPROVAL) rather than be refused.
            validate_only: only judge the request; nothing is created and the returned audit has no name.

        Raises:
            ServerRefused: with every violation; nothing was created.
            Unreachable, TimedOut: repeat with the same request_id.
        """
        wanted = request_id or str(uuid.uuid4())
        message = to_audit(
            wire.model_name(model),
            checks,
            data,
            limits or values.Limits(),
            labels or {},
            nonce or self.nonce(wanted),
            base=wire.model_name(base) if base else "",
            policy=policy,
            waivers=waivers,
            seed=seed,
            first=first,
        )
        message.approvals.extend(approvals)
        request = audits_pb2.SubmitAuditRequest(
            request_id=wanted, validate_only=validate_only, audit=message, await_approval=await_approval
        )
        return wire.audit(self._calls.unary(self._calls.audits.SubmitAudit, request, patient=True))

    def get(self, name: str) -> values.Audit:
        """Return an audit as it is now."""
        request = audits_pb2.GetAuditRequest(name=wire.audit_name(name))
        return wire.audit(self._calls.unary(self._calls.audits.GetAudit, request, patient=True))

    def audits(
        self, *, state: str | None = None, model: str | None = None, check: str | None = None
    ) -> Iterator[values.Audit]:
        """Yield audits, newest first, asking for pages as they are needed.

        Args:
            state: e.g. "RUNNING".
            model: `models/{digest}`.
            check: a check's name.
        """
        given = (("state", state), ("model", model), ("check", check))
        filters = " AND ".join(f"{field} = {value}" for field, value in given if value)
        token = ""
        while True:
            request = audits_pb2.ListAuditsRequest(page_size=PAGE, page_token=token, filter=filters)
            page = self._calls.unary(self._calls.audits.ListAudits, request, patient=True)
            yield from (wire.audit(one) for one in page.audits)
            token = page.next_page_token
            if not token:
                return

    def watch(self, name: str, after_sequence: int = 0, *, timeout_s: float | None = None) -> Iterator[values.Event]:
        """Yield an audit's events in order until it has ended.

        A broken connection is taken up after the last event seen; no event is missed or told twice.

        Args:
            name: the audit.
            after_sequence: skip events up to this one.
            timeout_s: how long one connection may last; None: as long as the audit.

        Raises:
            TimedOut: it lasted longer.
            Unreachable: nothing came for as long as patience lasts; its `last_sequence` is where to go on.
            ServerRefused: unknown audit, or SEQUENCE_AHEAD.
        """
        return watch(self._calls, wire.audit_name(name), after_sequence, timeout_s)

    def cancel(self, name: str) -> values.Audit:
        """Ask an audit to stop; cancelling twice is fine.

        Raises:
            ServerRefused: ALREADY_FINISHED.
        """
        request = audits_pb2.CancelAuditRequest(name=wire.audit_name(name))
        return wire.audit(self._calls.unary(self._calls.audits.CancelAudit, request, patient=True))

    def report(self, name: str, directory: Path) -> values.Report:
        """Download the newest report of an audit, or a named report; every file is hashed again.

        Args:
            name: `audits/{a}` or `audits/{a}/reports/r{n}`.
            directory: where to; must not hold anything else.

        Raises:
            ServerRefused: NOT_SIGNED_YET, among others.
            LocalInputRefused: the directory holds something else.
            Malformed: the service sent other bytes than it named.
        """
        if "/reports/" not in name:
            audit = self.get(name)
            name = audit.reports[-1] if audit.reports else f"{audit.name}/reports/r1"
        message, files = download.fetch(self._calls, name, directory)
        signed_at = wire.moment(message, "signed_at")
        return values.Report(
            name=name,
            directory=directory,
            files=files,
            signed_at=signed_at,
            key_id=message.key_id,
            withdrawn_at=wire.moment(message, "withdrawn_at"),
            withdrawal_reason=message.withdrawal_reason,
        )
