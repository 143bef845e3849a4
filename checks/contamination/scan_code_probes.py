"""The code probes of a plan, arranged so that a function of the corpus meets only those that it may answer (6.7)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.contamination.code_behaviour import returned, tells_enough
from checks.contamination.code_canonical import CONTAINMENT_MIN, NODES_MIN, Canonical
from checks.contamination.functions import Function, entry_function
from checks.contamination.plan import Plan, PlanProbe

if TYPE_CHECKING:
    from jaxtyping import Int64, UInt64

LANGUAGE = "python"
"""The language whose functions are searched for (6.7)."""


def searchable(language: str, entry: str | None, source: str | None) -> bool:
    """Return whether a scan can find a code item: it is Python, and its reference holds the function it asks for."""
    if language.lower() != LANGUAGE or entry is None or source is None:
        return False
    return entry_function(source, entry) is not None


@dataclass(frozen=True)
class Expected:
    """Probes that ask for one behaviour or its neighbours: an item and its siblings share their argument lists."""

    probes: tuple[tuple[Any, ...], ...]
    outputs: dict[int, tuple[Any, ...]]
    """Probe id -> what its reference returns; without those of which that is not known."""
    telling: frozenset[int]
    """Probes of which equal outputs tell of equal behaviour. Of the rest, other outputs tell of another one: a sibling
    that always returns one value is compared like its item, and is never the same."""


class CodeProbes:
    """Exact, near and k-gram keys of a plan's code probes, O(probes) in memory; trees are not kept.

    Args:
        plan: roles in it are not read.
    """

    def __init__(self, plan: Plan) -> None:
        self._probes = plan.probes
        self.ids: list[int] = []
        """Probes that are searched for, ascending."""
        self._exact: dict[bytes, list[int]] = {}
        self._near: dict[str, list[int]] = {}
        self._groups: dict[str, list[int]] = {}
        self.group_of: dict[int, str] = {}
        """Probe id -> digest of its argument lists."""
        self._expected: dict[str, Expected] = {}
        counts: list[int] = []
        prints: list[int] = []
        for probe in plan.probes:
            held = self._function(probe)
            if held is None:
                continue
            self.ids.append(probe.id)
            self._exact.setdefault(token_digest(held.tokens), []).append(probe.id)
            if held.canonical.nodes >= NODES_MIN:
                self._near.setdefault(held.canonical.digest, []).append(probe.id)
            group = hashlib.sha256(repr(probe.probes).encode("utf-8", "surrogatepass")).hexdigest()
            self._groups.setdefault(group, []).append(probe.id)
            self.group_of[probe.id] = group
            counts.append(len(held.canonical.fingerprints))
            prints += held.canonical.fingerprints
        self._counts: Int64[np.ndarray, " probe"] = np.array(counts, dtype=np.int64)
        owners = np.repeat(np.arange(len(counts)), counts)
        found = np.array(prints, dtype=np.uint64)
        order = np.argsort(found, kind="stable")
        self._prints: UInt64[np.ndarray, " print"] = found[order]
        self._owners: Int64[np.ndarray, " print"] = owners[order]

    @staticmethod
    def _function(probe: PlanProbe) -> Function | None:
        if probe.kind != "code" or probe.language.lower() != LANGUAGE or not probe.entry or not probe.reference:
            return None
        return entry_function(probe.reference, probe.entry)

    def exact(self, tokens: Sequence[str]) -> Sequence[int]:
        """Return the probes whose reference has these very tokens."""
        return self._exact.get(token_digest(tokens), ()) if tokens else ()

    def near(self, held: Canonical) -> Sequence[int]:
        """Return the probes whose reference has the same canonical tree, of 25 nodes or more."""
        return self._near.get(held.digest, ())

    def alike(self, held: Canonical) -> dict[int, float]:
        """Return containment by probe, where at least .6 of the probe's fingerprints are the function's too."""
        if not held.fingerprints or not self.ids:
            return {}
        wanted = np.array(sorted(held.fingerprints), dtype=np.uint64)
        first, last = np.searchsorted(self._prints, wanted, "left"), np.searchsorted(self._prints, wanted, "right")
        met = [self._owners[begin:end] for begin, end in zip(first, last, strict=True) if end > begin]
        if not met:
            return {}
        shared = np.bincount(np.concatenate(met), minlength=len(self.ids))
        share = shared / np.maximum(self._counts, 1)
        return {self.ids[place]: float(share[place]) for place in np.flatnonzero(share >= CONTAINMENT_MIN).tolist()}

    def expected(self, group: str) -> Expected:
        """Return what the references of a group return; each is interpreted when it is first asked for."""
        if group not in self._expected:
            told = {probe: returned(self._probes[probe].item()) for probe in self._groups[group]}
            outputs = {probe: one for probe, one in told.items() if not isinstance(one, str)}
            telling = frozenset(probe for probe, one in outputs.items() if tells_enough(one))
            self._expected[group] = Expected(self._probes[self._groups[group][0]].probes, outputs, telling)
        return self._expected[group]


def token_digest(tokens: Sequence[str]) -> bytes:
    """Return 16 bytes of the SHA-256 of tokens."""
    return hashlib.sha256("\x1f".join(tokens).encode("utf-8", "surrogatepass")).digest()[:16]
