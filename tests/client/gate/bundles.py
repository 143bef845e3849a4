"""A candidate and its baseline with everything that a report directory can hold: items, policy, waivers, companions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay import catalogue
from assay.compare.items import MEDIA_TYPE, Items, in_order, write_all
from assay.gate import established, gate
from assay.gate.gate import Asked, GateResult, Report
from assay.policy import language, loader
from assay.result import canonical_decimal
from assay.testing import Forge, forged_entry

NOW = datetime(2026, 1, 10, tzinfo=UTC)
ITEMS = 400
IDS = in_order([f"item-{n}" for n in range(ITEMS)])[1]
LABELS = (("layer", "0"),)
POLICY = """schema: assay-policy/v1
name: release
assertions: [{id: high, check: forged_probe, metric: accuracy, op: ">=", value: %s}]
compare: [{id: no-drop, check: forged_probe, metric: accuracy, op: ">=", value: %s}]
"""
WAIVERS = """schema: assay-waivers/v1
waivers: [{fingerprint: %s, outcome: fail, reason: known, approver: ann, created: 2026-01-01, expires: 2026-02-01}]
"""


def rules(least: str = "0.5", drop: str = "-0.02") -> str:
    """Return a policy: how low accuracy may be, and how far it may fall."""
    return POLICY % (least, drop)


def items(right: float, clusters: int | None = None) -> Items:
    """Return items of which a share is right, those first; `clusters` says how many groups they make."""
    return Items(
        check="forged_probe",
        metric="accuracy",
        labels=LABELS,
        reducer="mean",
        ids_sha256=IDS,
        step="1",
        scores=tuple(int(n < round(right * ITEMS)) for n in range(ITEMS)),
        clusters=None if clusters is None else tuple(n % clusters for n in range(ITEMS)),
    )


@dataclass
class Bundles:
    """Reports under one key and log, their items a sample of what the number rests on.

    So the number may stray from its items: paired they say something else than the intervals alone.
    """

    directory: Path

    def __post_init__(self) -> None:
        offer = {"name": "items.accuracy.jsonl", "media_type": MEDIA_TYPE, "max_bytes": 1 << 20, "summary": "Items."}
        metrics = [{**forged_entry().raw["metrics"][0], "better": "higher"}]
        self.forge = Forge(self.directory / "forge", seed=3)
        self.forge.entry = forged_entry(artefacts=[offer], metrics=metrics)

    def report(
        self,
        value: str,
        held: Items | None,
        policy: str | None = None,
        waivers: str | None = None,
        *,
        change: dict[str, Any] | None = None,
    ) -> Path:
        """Write a report whose accuracy is `value`, known to 0.002, with its items."""
        told = self.forge.answer({"layers": 2, "part": 0})
        metric = {**told["measured"]["metrics"][0], "value": value, "n": 100 * ITEMS, "better": "higher"}
        low, high = (canonical_decimal(f"{float(value) + side:.4f}") for side in (-0.002, 0.002))
        metric.update({"interval": {**metric["interval"], "low": low, "high": high}, **(change or {})})
        told["measured"].update(coverage={"layer": ["0"]}, metrics=[metric])
        told["findings"] = []
        told["controls"] = [{**one, "labels": {"layer": "0"}} for one in told["controls"]]
        data = b"" if held is None else write_all([held])
        digest = hashlib.sha256(data).hexdigest()
        if held is not None:
            told["artefacts"] = [
                {"name": "items.accuracy.jsonl", "media_type": MEDIA_TYPE, "sha256": digest, "size": len(data)}
            ]
        place = self.forge.report(rules=policy, waivers=waivers, answers=[told])
        if held is not None:
            (place / "artefacts" / digest).write_bytes(data)
        return place

    def items_file(self, report: Path) -> Path:
        """Return the file of a report's items."""
        (answer,) = self.forge.statement(report)["predicate"]["answers"]
        return report / "artefacts" / str(answer["artefacts"][0]["sha256"])

    def look(self, report: Path, **given: Any) -> Report:
        """Return what verification establishes of a report."""
        known: dict[str, Any] = {
            "keys": [self.forge.key_file],
            "log_vkeys": [self.forge.logged.log.vkey.text],
            "catalogue": catalogue.Catalogue((self.forge.entry,), ""),
        }
        return established.look(report, now=NOW, **{**known, **given})

    def decide(
        self, report: Path, baseline: Path, policy: str, *, older: Report | None = None, seen: Report | None = None
    ) -> GateResult:
        """Ask the gate about a report against a baseline; what was looked at already is not looked at again."""
        seen, older = seen or self.look(report), older or self.look(baseline)
        asked = Asked(
            policy=language.parse(loader.read(policy.encode(), "policy.yaml")),
            now=NOW,
            registered_policy_sha256=established.registered_policy(seen),
            baseline=established.against(report, seen, baseline, older),
        )
        return gate.decide(seen, asked)
