"""May this audit be accepted? A pure function from a request and the catalogue to a complete value, or to violations.

All violations are found at once, so that a caller corrects a request in one round.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from assay import canonical
from assay.api.v1 import audits_pb2
from assay.catalogue import Catalogue, CheckEntry

from service.rules import claims, names
from service.rules.capability import wanted_of
from service.rules.errors import Violation, refuse_fields
from service.rules.names import BlobName, shown
from service.rules.parameters import read_parameters
from service.rules.policies import read_named
from service.rules.repeats import Repeat, read_repeat
from service.rules.roles import AskedData, read_data

CHECKS_MAX = 64
"""Checks of one audit; the request must stay under the cap of `request.json`."""

PARAMETERS_MAX = 512 * 1024
"""Bytes of all checks' canonical parameters: half of what `request.json` may have."""

ATTEMPTS_DEFAULT, ATTEMPTS_MAX = 8, 20
OUTPUT_MAX = 65_536
"""Bytes of output that one audit may be granted, and the default (specs: service, section 14)."""
WALL_S_DEFAULT, WALL_S_MAX = 3_600, 86_400
LABELS_MAX, LABEL_VALUE_MAX = 16, 256
NONCE_BYTES = 32

_LABEL = re.compile(r"[a-z0-9-]{1,63}")


@dataclass(frozen=True, kw_only=True)
class AskedCheck:
    """One check with parameters that name every field."""

    name: str
    version: str
    params: Mapping[str, Any]
    """Plain canonical JSON values, defaults filled in."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """An audit that is well formed; whether its blobs are there is the store's business."""

    model_sha256: str
    base_sha256: str | None = None
    """A second model that the first is held against; None without one."""
    checks: tuple[AskedCheck, ...]
    data: tuple[AskedData, ...]
    attempts_max: int
    output_bytes: int
    wall_s: int
    nonce: bytes
    labels: Mapping[str, str]
    policy: BlobName | None = None
    """The release policy that is registered with the request; None where there is none."""
    waivers: BlobName | None = None
    """Waivers that are registered with the policy; None where there are none."""
    repeat: Repeat | None = None
    """The seed that is fixed, and what is repeated with it; None where the seed is derived."""
    access: tuple[str, ...] = ()
    """Levels of access that the audit claims: at least what its checks need."""
    approvals: tuple[str, ...] = ()
    """Ids of the approvals that the caller names, where the model is another tenant's; none means any that fits."""
    capability: str
    """What a worker must have, as the checks' entries say: "cpu", "gpu" of the size of the models, or a class."""

    @property
    def blobs(self) -> tuple[BlobName, ...]:
        """Everything beside the models that the caller must have sent: data, policy, waivers, the first report."""
        registered = [one for one in (self.policy, self.waivers) if one is not None]
        return (*(one.blob for one in self.data), *registered, *(self.repeat.blobs if self.repeat else ()))

    @property
    def models(self) -> tuple[str, ...]:
        """Digests of every model that the audit reads, the audited one first."""
        return (self.model_sha256, *([self.base_sha256] if self.base_sha256 else []))

    def request_json(self, audit_id: str, submitted_at: str) -> bytes:
        """Return the canonical bytes of `request.json`, what the signer registers."""
        return canonical.dumps(
            {
                "schema": "assay-request/v1",
                "audit": audit_id,
                "nonce": self.nonce.hex(),
                "model": {"manifest_sha256": self.model_sha256},
                **({"base": {"manifest_sha256": self.base_sha256}} if self.base_sha256 else {}),
                "checks": [
                    {"name": one.name, "version": one.version, "params": dict(one.params)} for one in self.checks
                ],
                "data": [{"role": one.role, "sha256": one.blob.sha256} for one in self.data],
                "policy_sha256": self.policy.sha256 if self.policy else None,
                "waivers_sha256": self.waivers.sha256 if self.waivers else None,
                "access": {"granted": list(self.access)},
                "limits": {
                    "attempts_max": self.attempts_max,
                    "output_bytes": self.output_bytes,
                    "wall_s": self.wall_s,
                },
                **(self.repeat.request_fields() if self.repeat else {"seed_mode": "derived"}),
                "submitted_at": submitted_at,
            }
        )

    def to_proto(self) -> audits_pb2.Audit:
        """Return the input fields as accepted: versions, defaults and canonical parameters filled in."""
        message = audits_pb2.Audit(model=f"models/{self.model_sha256}", nonce=self.nonce, labels=dict(self.labels))
        if self.base_sha256:
            message.base_model = f"models/{self.base_sha256}"
        for check in self.checks:
            text = canonical.dumps(dict(check.params)).decode()
            message.checks.add(check=f"checks/{check.name}", version=check.version, parameters_json=text)
        for data in self.data:
            added = message.data.add(role=data.role, media_type=data.media_type, rows=data.rows)
            added.blob.sha256, added.blob.size = data.blob.sha256, data.blob.size
        for field, named in (("policy", self.policy), ("waivers", self.waivers)):
            if named is not None:
                getattr(message, field).sha256, getattr(message, field).size = named.sha256, named.size
        if self.repeat is not None:
            self.repeat.add_to(message)
        message.approvals.extend(f"models/{self.model_sha256}/approvals/{one}" for one in self.approvals)
        message.access.extend(self.access)
        message.limits.attempts_max = self.attempts_max
        message.limits.output_bytes = self.output_bytes
        message.limits.wall_s = self.wall_s
        return message


def read_submission(asked: audits_pb2.Audit, catalogue: Catalogue) -> Submission:
    """Validate the input fields of an audit against the catalogue; output fields are ignored.

    Raises:
        Refusal: every violation at once, or BAD_RESOURCE_NAME.
    """
    model_sha256 = names.model(asked.model)
    checks, wrong = _checks(asked, catalogue)
    entries = [entry for check in checks if (entry := catalogue.entry(check.name)) is not None]
    data, wrong_data = read_data(asked, entries, complete=len(checks) == len(asked.checks))
    base, wrong_base = _base(asked, model_sha256, entries, complete=len(checks) == len(asked.checks))
    policy, waivers, wrong_policy = read_named(asked)
    repeat, wrong_repeat = read_repeat(asked)
    approvals, wrong_approvals = claims.read_approvals(asked, model_sha256)
    access, wrong_access = claims.read_access(asked, entries, complete=len(checks) == len(asked.checks))
    wrong += [*wrong_base, *wrong_data, *wrong_policy, *wrong_repeat, *wrong_approvals, *wrong_access]
    wrong += [*_limits(asked.limits), *_nonce(asked.nonce), *_labels(asked.labels)]
    if wrong:
        raise refuse_fields(wrong)
    return Submission(
        model_sha256=model_sha256,
        base_sha256=base,
        checks=checks,
        data=data,
        attempts_max=asked.limits.attempts_max or ATTEMPTS_DEFAULT,
        output_bytes=asked.limits.output_bytes or OUTPUT_MAX,
        wall_s=asked.limits.wall_s or WALL_S_DEFAULT,
        nonce=asked.nonce,
        labels=dict(asked.labels),
        policy=policy,
        waivers=waivers,
        repeat=repeat,
        access=access,
        approvals=approvals,
        capability=_capability(entries),
    )


def _checks(asked: audits_pb2.Audit, catalogue: Catalogue) -> tuple[tuple[AskedCheck, ...], list[Violation]]:
    if not 1 <= len(asked.checks) <= CHECKS_MAX:
        return (), [Violation("audit.checks", f"{len(asked.checks)} checks are asked", "BAD_CHECKS")]
    checks, wrong = [], []
    for position, one in enumerate(asked.checks):
        field = f"audit.checks[{position}]"
        bare = names.bare_check(one.check)
        entry = catalogue.entry(bare) if bare else None
        if entry is None:
            text = f"no check {shown(one.check, 80)!r} here: neither built in, nor on the operator's list (third_party)"
            wrong.append(Violation(f"{field}.check", text, "UNKNOWN_CHECK"))
            continue
        if one.version not in ("", entry.version):
            text = f"{entry.name} has version {entry.version} here, not {shown(one.version, 32)!r}"
            wrong.append(Violation(f"{field}.version", text, "UNKNOWN_CHECK"))
        params, bad = read_parameters(one.parameters_json, entry.params)
        wrong += [Violation(f"{field}.parameters_json{path}", text, "BAD_PARAMETERS") for path, text in bad]
        checks.append(AskedCheck(name=entry.name, version=entry.version, params=params))
    entries = [entry for check in checks if (entry := catalogue.entry(check.name)) is not None]
    wrong += [*_strangers(entries), *_sharded(entries)]
    if not wrong and sum(len(canonical.dumps(dict(one.params))) for one in checks) > PARAMETERS_MAX:
        text = f"the parameters of all checks have more than {PARAMETERS_MAX} bytes"
        wrong.append(Violation("audit.checks", text, "BAD_PARAMETERS"))
    return tuple(checks), wrong


def _sharded(entries: list[CheckEntry]) -> list[Violation]:
    """One plan is made for an audit, so one check at most reads its data in shards, and is asked once."""
    found = [entry.name for entry in entries if entry.shard_role is not None]
    if len(found) < 2:
        return []
    text = f"{' and '.join(found)} read their data in shards: ask each in an audit of its own"
    return [Violation("audit.checks", text, "BAD_CHECKS")]


def _strangers(entries: list[CheckEntry]) -> list[Violation]:
    """A third-party check shares its cell with nobody else's: it could falsify what runs beside it."""
    authors = {(entry.raw.get("distribution") or {}).get("name", "") for entry in entries}
    if len(authors) < 2:
        return []
    named = ", ".join(sorted(name for name in authors if name))
    text = f"checks of {named} run in a cell of their own: ask them in an audit without checks of anybody else"
    return [Violation("audit.checks", text, "BAD_CHECKS")]


def _base(
    asked: audits_pb2.Audit, model_sha256: str, entries: list[CheckEntry], *, complete: bool
) -> tuple[str | None, list[Violation]]:
    """Read the base model; that no check reads one is told only when all checks are known.

    Raises:
        Refusal: BAD_RESOURCE_NAME.
    """
    if not asked.base_model:
        return None, []
    digest = names.model(asked.base_model)
    wrong = ""
    if digest == model_sha256:
        wrong = "is the audited model itself"
    elif complete and not any(entry.base_model for entry in entries):
        named = ", ".join(sorted({entry.name for entry in entries}))
        wrong = f"no asked check can hold the model against a base: {named}"
    return digest, [Violation("audit.base_model", wrong, "BAD_BASE")] if wrong else []


def _limits(limits: audits_pb2.Limits) -> Iterator[Violation]:
    for field, highest in (("attempts_max", ATTEMPTS_MAX), ("output_bytes", OUTPUT_MAX), ("wall_s", WALL_S_MAX)):
        value = getattr(limits, field)
        if not 0 <= value <= highest:
            yield Violation(f"audit.limits.{field}", f"{value} is outside 1 to {highest}", "BAD_LIMITS")


def _nonce(nonce: bytes) -> Iterator[Violation]:
    if len(nonce) != NONCE_BYTES:
        yield Violation("audit.nonce", f"has {len(nonce)} bytes, not {NONCE_BYTES}", "BAD_NONCE")


def _labels(labels: Mapping[str, str]) -> Iterator[Violation]:
    if len(labels) > LABELS_MAX:
        yield Violation("audit.labels", f"{len(labels)} labels, at most {LABELS_MAX} are kept", "BAD_LABEL")
    for key in sorted(labels):
        if not _LABEL.fullmatch(key):
            yield Violation("audit.labels", f"key {shown(key, 64)!r} is not [a-z0-9-]{{1,63}}", "BAD_LABEL")
        elif len(labels[key]) > LABEL_VALUE_MAX or not labels[key].isprintable():
            text = f"the value of {key!r} is not at most {LABEL_VALUE_MAX} printable characters"
            yield Violation("audit.labels", text, "BAD_LABEL")


def _capability(entries: list[CheckEntry]) -> str:
    return wanted_of(str(entry.raw["capability"]) for entry in entries)
