"""Who may call what, and on whose objects: one row per RPC, and no row means no (specs: service, section 14).

Roles come from the database, never from a claim. A row says of each role how far it reaches and what it is shown;
`Caller` carries what single objects are held against. A foreign object and an absent one read the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from service.rules.errors import not_permitted


class Role(StrEnum):
    """What a principal is."""

    AUDITOR = "auditor"
    """Uploads, submits and reads everything of its own tenant."""
    OWNER = "owner"
    """Answers for its tenant's models: approves and deletes, and sees every audit of them, whoever asked."""
    OPERATOR = "operator"
    """Keeps the service running: sees every audit's state and attempts, can cancel; never results or reports."""
    GATE = "gate"
    """A release pipeline: reads state and reports of those audits of its tenant that carry its labels."""
    LOG_MONITOR = "log-monitor"
    """Looks after the log, which is read without this API; here it may ask what the service can do."""


class Reach(StrEnum):
    """Whose objects a role may touch through one method."""

    ANY = "any"
    OWN = "own"
    """Those of the caller's tenant; of approvals those that grant it something."""
    OWN_OR_APPROVED = "own_or_approved"
    """Those of the caller's tenant, and foreign models by approval of their owner."""
    OWN_MODELS = "own_models"
    """The models of the caller's tenant, and what was made about them, whoever asked."""
    LABELLED = "labelled"
    """Audits of the caller's tenant that carry every label of the caller's selector."""


class Shown(StrEnum):
    """How much of an audit a role is shown."""

    ALL = "all"
    STATE_AND_ATTEMPTS = "state_and_attempts"
    """Neither what was asked nor what came out."""
    STATE = "state"
    """Nor the attempts; but the names of reports, which are read by their own methods."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who is calling, as the database says."""

    principal: str
    tenant: str
    role: Role
    selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that an audit must carry for a gate to see it; none means that it sees no audit."""
    issuer: str = ""
    """Whose tokens speak for it; empty: it is known by its certificate alone."""


Row = Mapping[Role, Reach]

_ALL: Row = dict.fromkeys(Role, Reach.ANY)
_READERS: Row = {role: Reach.ANY for role in Role if role is not Role.LOG_MONITOR}
_SENDERS: Row = {Role.AUDITOR: Reach.OWN, Role.OWNER: Reach.OWN}
_ASKERS: Row = {Role.AUDITOR: Reach.OWN, Role.OWNER: Reach.OWN_MODELS}
_SUBMITTERS: Row = {Role.AUDITOR: Reach.OWN_OR_APPROVED, Role.OWNER: Reach.OWN_MODELS}
_CANCELLERS: Row = {**_ASKERS, Role.OPERATOR: Reach.ANY}
_ONLOOKERS: Row = {**_CANCELLERS, Role.GATE: Reach.LABELLED}
_REPORT_READERS: Row = {**_ASKERS, Role.GATE: Reach.LABELLED}
_OWNERS: Row = {Role.OWNER: Reach.OWN_MODELS}

ACCESS: Mapping[str, Row] = {
    f"/{service}/{method}": row
    for service, methods, row in (
        ("assay.api.v1.Capabilities", "GetCapabilities", _ALL),
        ("assay.api.v1.Checks", "ListChecks GetCheck", _READERS),
        ("assay.api.v1.Blobs", "FindMissingBlobs BatchUpdateBlobs Write QueryWriteStatus", _SENDERS),
        ("assay.api.v1.Blobs", "Read", _REPORT_READERS),
        ("assay.api.v1.Models", "CreateModel GetModel ListModels", _SENDERS),
        ("assay.api.v1.Models", "DeleteModel UndeleteModel", _OWNERS),
        ("assay.api.v1.Audits", "SubmitAudit", _SUBMITTERS),
        ("assay.api.v1.Audits", "GetAudit ListAudits WatchAudit", _ONLOOKERS),
        ("assay.api.v1.Audits", "CancelAudit", _CANCELLERS),
        ("assay.api.v1.Reports", "GetReport ListReports", _REPORT_READERS),
        ("assay.api.v1.Approvals", "GetApproval ListApprovals", _ASKERS),
        ("assay.api.v1.Approvals", "CreateApproval RevokeApproval", _OWNERS),
        ("assay.api.v1.Schedules", "CreateSchedule UpdateSchedule RunSchedule", _SUBMITTERS),
        ("assay.api.v1.Schedules", "GetSchedule ListSchedules DeleteSchedule", _ASKERS),
        ("assay.api.v1.Schedules", "PauseSchedule ResumeSchedule ListFires", _ASKERS),
        ("assay.api.v1.Webhooks", "CreateWebhook GetWebhook ListWebhooks DeleteWebhook", _ASKERS),
        ("assay.api.v1.Webhooks", "RotateSecret ListDeliveries Redeliver", _ASKERS),
        ("grpc.health.v1.Health", "Check Watch List", _ALL),
        ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", _ALL),
    )
    for method in methods.split()
}
"""Full method name -> what each role may reach by it. A role that is not in a row may not call the method.

A webhook has no model: an owner's are its tenant's, as an auditor's are. But it tells of what its maker's role may see
by GetAudit, and its deliveries are listed and sent again by what the caller's role may see.
"""

_READING = ("Get", "List", "Watch", "Find", "Query", "Read")
"""How the names of methods begin that change nothing (AIP-131, 132, and the byte stream's own)."""

MUTATIONS = frozenset(
    method
    for method in ACCESS
    if method.startswith("/assay.api.") and not method.rpartition("/")[2].startswith(_READING)
)
"""Methods that change something: each leaves a row in the log of access, and an unbound token serves one of them."""

READS = frozenset(method for method in ACCESS if method.startswith("/assay.api.") and method not in MUTATIONS)
"""Methods that change nothing: alike calls of a minute share a row in the log of access."""

SHOWN: Mapping[Role, Shown] = {
    Role.AUDITOR: Shown.ALL,
    Role.OWNER: Shown.ALL,
    Role.OPERATOR: Shown.STATE_AND_ATTEMPTS,
    Role.GATE: Shown.STATE,
}
"""What an audit that a role may reach looks like to it."""


def authorise(caller: Caller, method: str) -> Reach:
    """Return how far the caller reaches by this method.

    Raises:
        Refusal: NOT_PERMITTED: the method has no row, or the row has no such role.
    """
    reach = ACCESS.get(method, {}).get(caller.role)
    if reach is None:
        raise not_permitted()
    return reach


def may_ask_foreign(caller: Caller) -> bool:
    """Tell whether a caller's role lets it audit models of other tenants at all, by their owners' approval."""
    return ACCESS["/assay.api.v1.Audits/SubmitAudit"].get(caller.role) is Reach.OWN_OR_APPROVED


def without_row(methods: Iterable[str]) -> tuple[str, ...]:
    """Return the methods that the table forgot: a server that serves one of them must not start."""
    return tuple(sorted(set(methods) - ACCESS.keys()))


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which objects one call may touch: what every read of one and every list is held against."""

    reach: Reach
    tenant: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """With LABELLED: all of these must be on the audit; none means no audit."""


def scope_of(caller: Caller, reach: Reach) -> Scope:
    """Return what a caller's call may touch."""
    return Scope(reach=reach, tenant=caller.tenant, labels=caller.selector)
