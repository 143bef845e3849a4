"""Audits whose seed is fixed, to repeat another one: what is asked, held against the report that it is to repeat.

The first report is read as hostile. Nothing in it is believed but what its bytes are: its digests, and that it answers
the same question on the same data under the same seed. Whether its signature is good is its reader's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assay import bundle, canonical, statement
from assay.api.v1 import audits_pb2
from assay.compare import signed
from assay.errors import AssayError
from assay.request import base_sha256
from assay.verify.directory import ARTEFACT_MAX

from service.rules import names
from service.rules.errors import Violation
from service.rules.names import BlobName, shown

if TYPE_CHECKING:
    from service.rules.submission import Submission

SEED_MAX = 2**53 - 1
"""Seeds have 53 bits (specs: report, section 4); larger integers do not survive every JSON reader."""

ITEMS_MAX = 256
"""Files of per-item results that are read of a first report: 64 checks with four metrics each."""

BYTES_MAX = bundle.BYTES_MAX

_FIELD = "audit.first_report"


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """A fixed seed, and the report that is repeated with it."""

    seed: int
    first: BlobName | None = None
    """The report's bundle; None where no report is named."""
    statement_sha256: str | None = None
    """Of the bundle's signed bytes, once it was read."""
    items: tuple[BlobName, ...] = ()
    """Its per-item results that judging the replication reads, once it was read."""

    @property
    def blobs(self) -> tuple[BlobName, ...]:
        """What the caller must have sent."""
        return (*((self.first,) if self.first else ()), *self.items)

    def request_fields(self) -> dict[str, Any]:
        """Return the fields of `request.json`."""
        told: dict[str, Any] = {"seed_mode": "fixed", "seed": self.seed}
        if self.first is None:
            return told
        assert self.statement_sha256 is not None
        return {**told, "first": {"statement_sha256": self.statement_sha256, "bundle_sha256": self.first.sha256}}

    def add_to(self, message: audits_pb2.Audit) -> None:
        """Set the input fields of an audit."""
        message.seed_mode, message.seed = audits_pb2.Audit.SEED_MODE_FIXED, self.seed
        if self.first is not None:
            message.first_report.sha256, message.first_report.size = self.first.sha256, self.first.size


def read_repeat(asked: audits_pb2.Audit) -> tuple[Repeat | None, list[Violation]]:
    """Read where a request's seed comes from; None where it is derived."""
    modes = audits_pb2.Audit
    fixed = asked.seed_mode == modes.SEED_MODE_FIXED
    wrong = []
    if asked.seed_mode not in (modes.SEED_MODE_UNSPECIFIED, modes.SEED_MODE_DERIVED, modes.SEED_MODE_FIXED):
        wrong.append(Violation("audit.seed_mode", f"{asked.seed_mode} is no mode", "BAD_SEED"))
    elif not fixed and asked.seed:
        text = "a seed is given, and its mode is derived: nobody chooses a derived seed"
        wrong.append(Violation("audit.seed", text, "BAD_SEED"))
    elif not 0 <= asked.seed <= SEED_MAX:
        wrong.append(Violation("audit.seed", f"{asked.seed} is outside 0 to {SEED_MAX}", "BAD_SEED"))
    first = None
    if asked.HasField("first_report"):
        named = asked.first_report
        if not fixed:
            wrong.append(Violation("audit.seed_mode", "an audit that repeats a report has its seed, fixed", "BAD_SEED"))
        if not names.is_digest(named.sha256, named.size):
            wrong.append(Violation(_FIELD, "is not 64 lower-case hex digits and a size", "BAD_DIGEST"))
        elif not 0 < named.size <= BYTES_MAX:
            wrong.append(Violation(_FIELD, f"has {named.size} bytes, from 1 to {BYTES_MAX} are taken", "BAD_FIRST"))
        else:
            first = BlobName(named.sha256, named.size)
    return (Repeat(seed=asked.seed, first=first) if fixed and not wrong else None), wrong


@dataclass(frozen=True)
class FirstRead:
    """What a first report's bundle is."""

    statement_sha256: str
    items: tuple[BlobName, ...]
    """Per-item results that judging the replication reads; the caller must have sent them too."""


def check_first(data: bytes, asked: Submission) -> tuple[FirstRead | None, list[Violation]]:
    """Hold the bundle of a first report against the request that is to repeat it."""
    try:
        payload = bundle.read(data).payload
        told = statement.parse(payload)
        items = signed.items_of(told["predicate"])
    except AssayError as error:
        return None, [Violation(_FIELD, shown(str(error), 300), "BAD_FIRST")]
    except (KeyError, TypeError, AttributeError) as error:
        return None, [Violation(_FIELD, f"is no report: {type(error).__name__}", "BAD_FIRST")]
    wrong = [Violation(field, text, reason) for field, text, reason in _differences(told["predicate"], asked)]
    if len(items) > ITEMS_MAX or any(size > ARTEFACT_MAX for size in items.values()):
        text = f"names {len(items)} files of items; at most {ITEMS_MAX}, of {ARTEFACT_MAX} bytes each, are read"
        wrong.append(Violation(_FIELD, text, "BAD_FIRST"))
    if wrong:
        return None, wrong
    names_ = tuple(BlobName(sha256, size) for sha256, size in sorted(items.items()))
    return FirstRead(hashlib.sha256(payload).hexdigest(), names_), []


def _differences(told: dict[str, Any], asked: Submission) -> Iterator[tuple[str, str, str]]:
    """Yield field, text and reason of everything in which the request would not repeat the report."""
    assert asked.repeat is not None
    found = [(answer["check"], answer["version"]) for answer in told["answers"]]
    wanted = [(one.name, one.version) for one in asked.checks]
    if told["model"]["manifest_sha256"] != asked.model_sha256:
        text = f"the first report is about models/{told['model']['manifest_sha256']}"
        yield "audit.model", text, "BAD_FIRST"
    if base_sha256(told) != asked.base_sha256:
        yield "audit.base_model", f"the first report has {shown(str(base_sha256(told)), 80)}", "BAD_FIRST"
    if found != wanted:
        listed = ", ".join(f"{name} {version}" for name, version in found[:64])
        yield "audit.checks", f"the first report answers {shown(listed, 300)}, in this order", "BAD_FIRST"
    else:
        for position, (answer, one) in enumerate(zip(told["answers"], asked.checks, strict=True)):
            if canonical.dumps(answer["params"]) != canonical.dumps(dict(one.params)):
                field = f"audit.checks[{position}].parameters_json"
                yield field, f"the first report answers {one.name} with other parameters", "BAD_FIRST"
    # Of a role's files the order counts; of the roles it does not.
    data = sorted(((one["role"], one["sha256"]) for one in told["data"]), key=lambda one: one[0])
    if data != sorted(((one.role, one.blob.sha256) for one in asked.data), key=lambda one: one[0]):
        listed = ", ".join(f"{role} sha256:{sha256}" for role, sha256 in data[:16])
        yield "audit.data", f"the first report read {shown(listed, 300) or 'no data'}", "BAD_FIRST"
    if told["registration"]["seed"] != asked.repeat.seed:
        yield "audit.seed", f"the first report ran under seed {told['registration']['seed']}", "BAD_SEED"
