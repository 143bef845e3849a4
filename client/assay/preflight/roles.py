"""Which media type a role takes, as far as a catalogue at hand says."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from assay import catalogue
from assay.catalogue import CheckEntry
from assay.errors import MachineFailed


def media_types(entries: Iterable[CheckEntry]) -> dict[str, str]:
    """Return the media type of every role of some checks; empty where two of them disagree about one."""
    found: dict[str, str] = {}
    for entry in entries:
        for role in entry.raw["data_roles"]:
            told = str(role.get("media_type", ""))
            found[role["name"]] = told if found.get(role["name"], told) == told else ""
    return found


def shipped_types(checks: Collection[str] | None = None) -> dict[str, str]:
    """Return the roles of this client's own catalogue; nothing where the installation has none.

    Args:
        checks: names of the checks that are asked; None takes all.
    """
    try:
        entries = catalogue.load().checks
    except MachineFailed:
        return {}
    return media_types(one for one in entries if checks is None or one.name in checks)
