"""Who may call what: one row per RPC, and no row means no. Roles come from the database, never from a claim.

Rules about single objects (own, foreign, absent) are applied where the object is read, by `Caller.may_see`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from service.rules.errors import not_permitted


class Role(StrEnum):
    """What a principal is."""

    AUDITOR = "auditor"
    """Uploads, submits and reads everything of its own tenant."""
    OPERATOR = "operator"
    """Keeps the service running: sees every audit's state and attempts, can cancel; never results or reports."""


class Reach(StrEnum):
    """Whose objects a role may touch through one method."""

    ANY = "any"
    OWN = "own"
    """Those of the caller's tenant."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who is calling, as the database says."""

    principal: str
    tenant: str
    role: Role


Row = Mapping[Role, Reach]

_EVERYONE: Row = {Role.AUDITOR: Reach.ANY, Role.OPERATOR: Reach.ANY}
_OWN: Row = {Role.AUDITOR: Reach.OWN}
_OWN_OR_OPERATOR: Row = {Role.AUDITOR: Reach.OWN, Role.OPERATOR: Reach.ANY}

ACCESS: Mapping[str, Row] = {
    "/assay.api.v1.Capabilities/GetCapabilities": _EVERYONE,
    "/assay.api.v1.Checks/ListChecks": _EVERYONE,
    "/assay.api.v1.Checks/GetCheck": _EVERYONE,
    "/assay.api.v1.Blobs/FindMissingBlobs": _OWN,
    "/assay.api.v1.Blobs/BatchUpdateBlobs": _OWN,
    "/assay.api.v1.Blobs/Write": _OWN,
    "/assay.api.v1.Blobs/QueryWriteStatus": _OWN,
    "/assay.api.v1.Blobs/Read": _OWN,
    "/assay.api.v1.Models/CreateModel": _OWN,
    "/assay.api.v1.Models/GetModel": _OWN,
    "/assay.api.v1.Models/ListModels": _OWN,
    "/assay.api.v1.Models/DeleteModel": _OWN,
    "/assay.api.v1.Models/UndeleteModel": _OWN,
    "/assay.api.v1.Audits/SubmitAudit": _OWN,
    "/assay.api.v1.Audits/GetAudit": _OWN_OR_OPERATOR,
    "/assay.api.v1.Audits/ListAudits": _OWN_OR_OPERATOR,
    "/assay.api.v1.Audits/CancelAudit": _OWN_OR_OPERATOR,
    "/assay.api.v1.Audits/WatchAudit": _OWN_OR_OPERATOR,
    "/assay.api.v1.Reports/GetReport": _OWN,
    "/assay.api.v1.Reports/ListReports": _OWN,
    "/grpc.health.v1.Health/Check": _EVERYONE,
    "/grpc.health.v1.Health/Watch": _EVERYONE,
    "/grpc.health.v1.Health/List": _EVERYONE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _EVERYONE,
}
"""Full method name -> what each role may reach by it. A role that is not in a row may not call the method."""


def authorise(caller: Caller, method: str) -> Reach:
    """Return how far the caller reaches by this method.

    Raises:
        Refusal: NOT_PERMITTED: the method has no row, or the row has no such role.
    """
    reach = ACCESS.get(method, {}).get(caller.role)
    if reach is None:
        raise not_permitted()
    return reach


def without_row(methods: Iterable[str]) -> tuple[str, ...]:
    """Return the methods that the table forgot: a server that serves one of them must not start."""
    return tuple(sorted(set(methods) - ACCESS.keys()))
