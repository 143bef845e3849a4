"""The case under verification: what was asked, and what the steps have established so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.bundle import Bundle
from assay.catalogue import Catalogue, CheckEntry
from assay.errors import VerifyError
from assay.keys import TrustedKey
from assay.manifest import Manifest
from assay.tlog.leaves import Leaf
from assay.tlog.notes import Vkey
from assay.trust.chain import TrustRoot
from assay.trust.memory import Memory
from assay.verify.directory import ReportFiles

if TYPE_CHECKING:
    from assay.policy.language import Policy
    from assay.policy.verdict import Verdict


class NotAsked(VerifyError):
    """The caller did not ask for this step, or reports of this schema have nothing to check in it."""


@dataclass(kw_only=True)
class Case:
    """One report; each step reads what earlier steps wrote, and a step whose input is missing is not run."""

    files: ReportFiles
    keys: tuple[TrustedKey, ...]
    """Report keys that the user pinned one by one."""
    model_dir: Path | None
    now: datetime
    shipped: Catalogue | None
    """The catalogue of this client, with what the reader added; None if the installation has none."""

    vkeys: tuple[Vkey, ...] = ()
    """Log keys that the user pinned beside them."""
    pinned_root: bytes | None = None
    """The trust root that the user chose, instead of single keys."""
    later_roots: tuple[bytes, ...] = ()
    memory: Memory | None = None
    """What this client remembers of operators and logs; None remembers nothing."""
    receipt: tuple[bytes, bytes] | None = None
    """request.json and request.tlog-proof as the reader got them when the audit was submitted."""
    log_dir: Path | None = None
    """The reader's copy of the log."""
    first: ReportFiles | None = None
    """The reader's copy of the report that this one repeats."""

    bundle: Bundle | None = None
    trust: TrustRoot | None = None
    """Whom the reader trusts, once V02 has followed the chain."""
    leaf: Leaf | None = None
    """The report's leaf, once V05 has proven it."""
    signed_by: str | None = None
    statement: Mapping[str, Any] = field(default_factory=dict)
    """The parsed statement, from the verified bytes only."""
    request: Mapping[str, Any] = field(default_factory=dict)
    manifest: Manifest | None = None
    entries: dict[str, CheckEntry] = field(default_factory=dict)
    """Catalogue entries by digest, where the report carries them or this client ships them."""
    unshipped: list[str] = field(default_factory=list)
    """Checks, each with its version, whose promises are known from the report alone: its entry may be a weaker one."""
    decided: tuple[Policy, Verdict] | None = None
    """The registered policy and its verdict, once V13 has recomputed it."""
    replication: str | None = None
    """What the signed replication beside the report came to, once V14 has checked it."""
    replicated: Mapping[str, Any] | None = None
    """Predicate of that replication, parsed from its verified bytes."""
    open_questions: list[str] = field(default_factory=list)
    """What stays unchecked although its step is ok."""

    @property
    def predicate(self) -> Mapping[str, Any]:
        """The report itself."""
        predicate: Mapping[str, Any] = self.statement["predicate"]
        return predicate
