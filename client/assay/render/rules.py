"""What was registered beside the questions: which waivers, and what the policy looks at.

A verdict that verification recomputed tells all of it. Where it could not, the files are read by the digests that were
registered, so that a page never says "none" of what it could not see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assay import request
from assay.errors import CouldNotTell, Malformed
from assay.verify.case import Case
from assay.verify.directory import ReportFiles

if TYPE_CHECKING:
    from assay.policy.verdict import Decision, Verdict
    from assay.policy.waivers import Waiver

UNDECIDED = "undecided"
"""State of a waiver under a verdict that nobody recomputed."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Policy and waivers as a page tells them; plain values only."""

    waivers: tuple[Mapping[str, Any], ...] | None = None
    """Each with `state`, `count`, and `on`: the entries and labels that it names here. None where no waiver file was
    registered."""
    waivers_unread: str | None = None
    """Why nobody can see here which waivers were registered, or whether any were."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """What each entry of the policy asks, by its id."""
    estimate_only: tuple[str, ...] = ()
    """Ids of the entries that look at the estimate alone."""
    policy_unread: str | None = None
    """Why nobody can see here what the policy looks at."""


def read(case: Case, told: Mapping[str, Any]) -> Rules:
    """Return policy and waivers of a case whose steps were run.

    Args:
        case: as verification left it.
        told: the statement, perhaps of bytes that nobody verified.
    """
    if case.decided is not None:
        return _decided(case.decided[1], with_waivers=case.request.get("waivers_sha256") is not None)
    try:
        asked = case.request or _request(case.files, told)
    except (CouldNotTell, Malformed) as error:
        why = f"the registered request is not at hand: {error}"
        return Rules(waivers_unread=why, policy_unread=why if told["predicate"].get("policy") else None)
    policy_sha256, waivers_sha256 = asked.get("policy_sha256"), asked.get("waivers_sha256")
    return Rules(
        **({} if policy_sha256 is None else _policy(case.files, policy_sha256)),
        **({} if waivers_sha256 is None else _waivers(case.files, waivers_sha256)),
    )


def _policy(files: ReportFiles, digest: str) -> dict[str, Any]:
    """Return what the registered policy looks at, without holding anything against it."""
    from assay.policy import registered

    try:
        policy = registered.read_policy(_file(files, registered.POLICY_FILE, digest, registered.BYTES_MAX))
    except (CouldNotTell, Malformed) as error:
        return {"policy_unread": str(error)}
    bounds = (*policy.assertions, *policy.compare)
    return {"estimate_only": tuple(one.id for one in bounds if one.bound == "estimate")}


def _waivers(files: ReportFiles, digest: str) -> dict[str, Any]:
    """Return the registered waivers, without a word on what became of them."""
    from assay.policy import registered

    try:
        held = registered.read_waivers(_file(files, registered.WAIVERS_FILE, digest, registered.BYTES_MAX))
    except (CouldNotTell, Malformed) as error:
        return {"waivers_unread": str(error)}
    return {"waivers": tuple(_row(one, UNDECIDED, 0, []) for one in held)}


def _decided(verdict: Verdict, *, with_waivers: bool) -> Rules:
    from assay.gate import wording

    rows = [_row(use.waiver, use.state, use.count, _named(use.waiver, verdict)) for use in verdict.waivers]
    return Rules(
        waivers=tuple(rows) if with_waivers else None,
        asked={one.id: wording.subject(one) for one in verdict.decisions},
        estimate_only=verdict.estimate_only,
    )


def _row(waiver: Waiver, state: str, count: int, named: list[str]) -> dict[str, Any]:
    return {**waiver.to_json(), "state": state, "count": count, "on": named}


def _named(waiver: Waiver, verdict: Verdict) -> list[str]:
    """Return what a fingerprint stands for in this report, e.g. "truth_probe/low layer 5"."""
    named = [
        _place(decision, instance.labels)
        for decision in verdict.decisions
        for instance in decision.instances
        if instance.fingerprint == waiver.fingerprint
    ]
    return list(dict.fromkeys(named))


def _place(decision: Decision, labels: tuple[tuple[str, str], ...]) -> str:
    from assay.gate import wording

    return " ".join([wording.full_name(decision), *(f"{key} {value}" for key, value in labels)])


def _request(files: ReportFiles, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that the statement names, for a report that verification did not get that far with."""
    owed = told["predicate"]["registration"]["request_sha256"]
    return request.parse(_file(files, request.FILE_NAME, owed, request.BYTES_MAX))


def _file(files: ReportFiles, name: str, digest: str, cap: int) -> bytes:
    data = files.read(name, cap)
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise CouldNotTell(f"{name} has digest {found[:16]}…, registered was {digest[:16]}…")
    return data
