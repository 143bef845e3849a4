"""The policy that was fixed before the run: as it is registered, as it travels, and what it says at signing.

Signer, verification and submission read it through here, so that all of them mean the same bytes. Source: sections 4, 5
and 11 of the report's specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay import canonical, moments
from assay.catalogue import CheckEntry
from assay.errors import Malformed
from assay.policy import language, loader, waivers
from assay.policy.decide import decide
from assay.policy.evidence import Evidence, asked_counts
from assay.policy.language import Policy
from assay.policy.verdict import Verdict
from assay.policy.waivers import Waiver

POLICY_FILE = "policy.json"
WAIVERS_FILE = "waivers.json"

BYTES_MAX = loader.BYTES_MAX
"""Cap of either file: what the reader of policies takes (specification, section 11)."""

_DETAIL_MAX = 512
"""Characters of a free text in a report (specification, section 3)."""


@dataclass(frozen=True)
class Registered:
    """A policy and its waivers, as the request names them."""

    policy: Policy
    waivers: tuple[Waiver, ...] = ()
    with_waivers: bool = False
    """Whether a waiver file was registered; one may be empty."""

    def files(self) -> dict[str, bytes]:
        """Return the files that travel in the report directory, by name."""
        found = {POLICY_FILE: self.policy.data}
        return found | ({WAIVERS_FILE: waivers_data(self.waivers)} if self.with_waivers else {})


def waivers_data(accepted: Sequence[Waiver]) -> bytes:
    """Return the canonical bytes of a waiver file, whose SHA-256 a request registers."""
    return canonical.dumps({"schema": waivers.SCHEMA, "waivers": [one.to_json() for one in accepted]})


def read_policy(data: bytes) -> Policy:
    """Read a registered policy.

    Raises:
        Malformed: it is no policy, or not in its normalised canonical form.
    """
    try:
        found = language.parse(loader.read(data, POLICY_FILE))
    except loader.Refused as error:
        raise Malformed("policy_form", POLICY_FILE, str(error)) from None
    if found.data != data:
        raise Malformed("policy_form", POLICY_FILE, "the policy is not in its normalised canonical form")
    return found


def read_waivers(data: bytes) -> tuple[Waiver, ...]:
    """Read a registered waiver file.

    Raises:
        Malformed: it is none, or not in canonical form.
    """
    try:
        found = waivers.parse(loader.read(data, WAIVERS_FILE))
    except loader.Refused as error:
        raise Malformed("policy_form", WAIVERS_FILE, str(error)) from None
    if waivers_data(found) != data:
        raise Malformed("policy_form", WAIVERS_FILE, "the waivers are not in their canonical form")
    return found


def digests(asked: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the digests of policy and waivers that a request registered; None where it registered none."""
    return asked.get("policy_sha256"), asked.get("waivers_sha256")


def decided(
    registered: Registered,
    predicate: Mapping[str, Any],
    asked: Mapping[str, Any],
    entries: Mapping[str, CheckEntry],
) -> Verdict:
    """Return what the registered policy says of a report at the moment of its signing.

    Args:
        registered: policy and waivers.
        predicate: the report; its `composed_at` is the day on which waivers are judged, and its age is 0.
        asked: the registered request.
        entries: catalogue entries by digest.

    Raises:
        Malformed: `composed_at` is no moment.
    """
    return decide(
        registered.policy,
        Evidence(
            predicate=predicate,
            asked=asked_counts(asked),
            entries=entries,
            age_s=0,
            today=moments.parse(predicate["audit"]["composed_at"]).date(),
            waivers=registered.waivers,
        ),
    )


def signed_form(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as a report carries it: details are texts of at most 512 printable characters."""
    form = verdict.to_json()
    for one in form["assertions"]:
        if one["deciding"] is not None:
            one["deciding"]["detail"] = shown_detail(one["deciding"]["detail"])
    return form


def shown_detail(text: str) -> str:
    """Return a detail that every reader of a report accepts as a text."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:_DETAIL_MAX]


def named(policy: Policy) -> dict[str, str]:
    """Return how a report names its policy."""
    return {"sha256": policy.sha256, "name": policy.name}
