"""Reports with what a page must show: plots of every kind, refused checks, a policy, waivers, a replication."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay.policy import fingerprint
from assay.render.page import render
from assay.render.source import Source, look
from assay.testing import Forge

NOW = datetime(2026, 2, 1, tzinfo=UTC)

RULES = (
    "schema: assay-policy/v1\nname: release\nassertions:\n"
    '  - {id: not-readable, check: forged_probe, metric: accuracy, op: "<=", value: 0.6}\n'
    '  - {id: on-average, check: forged_probe, metric: accuracy, op: "<=", value: 0.87, bound: estimate}\n'
)
"""Layer 1 has 0.861 [0.835, 0.883]: the first fails; of the second the estimate holds and the interval straddles."""

ACCEPTED = """schema: assay-waivers/v1
waivers:
  - {fingerprint: %s, outcome: fail, reason: "known, ticket 12", approver: release board, created: 2026-01-01,
     expires: 2026-06-01}
  - {fingerprint: %s, outcome: fail, reason: "known, ticket 7", approver: ada, created: 2025-01-01,
     expires: 2025-06-01}
"""


def accepted(reason: str = "known, ticket 12") -> str:
    """Return waivers: one for layer 1 of the first assertion, one that names nothing that fails."""
    marks = [fingerprint.of_metric("forged_probe", "not-readable", "accuracy", (("layer", at),)) for at in "10"]
    return (ACCEPTED % tuple(marks)).replace("known, ticket 12", reason)


def series(name: str, count: int, at: int = 0, *, interval: bool = True) -> dict[str, Any]:
    y = [((37 * i + 11 * at) % 101) / 100 for i in range(count)]
    return {
        "name": name,
        "x": [str(i) for i in range(count)],
        "y": [f"{one:g}" for one in y],
        "low": [f"{one - 0.125:g}" for one in y] if interval else None,
        "high": [f"{one + 0.125:g}" for one in y] if interval else None,
    }


def plot(kind: str, held: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "title": f"A {kind} of planted numbers",
        "kind": kind,
        "x": {"label": "layer, from 0", "unit": "count"},
        "y": {"label": "share told apart", "unit": "fraction"},
        "series": held,
        "marks": [{"axis": "y", "at": "0.5", "label": "chance"}],
        **more,
    }


def every_kind() -> list[dict[str, Any]]:
    return [
        plot("line", [series(f"method-{at}", 12, at, interval=at % 2 == 0) for at in range(12)]),
        plot("bar", [series("all", 6), series("half", 6, 3, interval=False)]),
        plot("scatter", [series("null", 1), series("draws", 30, 2)]),
        plot("histogram", [series("null", 24, interval=False)]),
        plot("heatmap", [series(f"r{at}", 14, at, interval=False) for at in range(10)], marks=[]),
    ]


def metric(name: str, labels: dict[str, str], value: str = "0.5", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "labels": labels,
        "value": value,
        "step": "0.001",
        "unit": "fraction",
        "n": 800,
        "interval": {"low": "0.47", "high": "0.53", "level": "0.95", "method": "wilson"},
        "null": None,
        "p": None,
        "multiplicity": None,
        "better": "none",
        "determinism": "statistical",
        "tolerance": None,
        "margin": None,
        "items_sha256": None,
        **more,
    }


def full(forge: Forge, plots: list[dict[str, Any]] | None = None) -> Path:
    """Return an honestly signed report that has something in every section."""
    place = forge.report(checks=3, rules=RULES, waivers=accepted())
    statement = forge.statement(place)
    predicate = statement["predicate"]
    first, second, third = predicate["answers"]
    first["measured"]["plots"] = every_kind() if plots is None else plots
    first["measured"]["metrics"] += [
        metric("grid_share", {"layer": str(layer), "method": method})
        for method in ("md", "lr", "vinc")
        for layer in (0, 1)
    ]
    first["measured"]["metrics"].append(metric("lonely", {}, "0.25", interval=None, determinism="exact"))
    first["power"] = [
        {
            "metric": "accuracy",
            "effect": "d-1",
            "value": "0.9",
            "low": "0.78",
            "high": "0.96",
            "n_planted": 40,
            "fpr": "0.05",
        }
    ]
    first["findings"].append(
        {
            **first["findings"][0],
            "code": "hidden",
            "word": "not_detected",
            "severity": "note",
            "claim": "Nothing was told apart.",
        }
    )
    second |= {
        "outcome": "refused",
        "valid": False,
        "reason": "too_few_items",
        "measured": None,
        "controls": [],
        "findings": [],
    }
    third["findings"] = []
    third["controls"][0] |= {"value": "0.7", "held": False}
    third["valid"] = False
    third["skipped"] = [{"item": f"layer:{at}", "reason": "dead_nodes"} for at in range(60)]
    predicate["verdict"] = {
        "outcome": "fail",
        "counts": {"fail": 1, "inconclusive": 0, "waived": 0, "pass": 1},
        "assertions": [
            {"id": "passes", "outcome": "pass", "reason": "holds", "selected": 2, "deciding": None},
            {
                "id": "not-readable",
                "outcome": "fail",
                "reason": "interval_above_limit",
                "selected": 2,
                "deciding": {"labels": {"layer": "1"}, "detail": "0.861 [0.835, 0.883] against <= 0.6"},
            },
        ],
    }
    return forge.reseal(place, statement)


def source_of(forge: Forge, place: Path, *, trusted: bool = True) -> Source:
    _, source = look(place, keys=[forge.key_file] if trusted else [], now=NOW)
    assert source is not None
    return source


def page_of(forge: Forge, place: Path, *, trusted: bool = True) -> str:
    return render(source_of(forge, place, trusted=trusted)).decode()


def replicated(count: int = 3) -> dict[str, Any]:
    """Return the predicate of a signed replication, as V14 leaves it."""
    words = ("agrees", "cannot_tell", "differs")
    row = {"check": "forged_probe", "rule": "statistical", "identical": False, "first": "0.8", "second": "0.861"}
    results = [
        {**row, "item": "accuracy", "labels": {"layer": str(at)}, "word": words[at % 3], "reason": "inside_margin"}
        for at in range(count)
    ]
    return {
        "first": {"statement_sha256": "7" * 64},
        "outcome": "not_replicated",
        "reason": None,
        "counts": {word: sum(one["word"] == word for one in results) for word in words},
        "results": results,
        "environment_differences": [{"field": "kernel"}],
        "notes": ["the machines differ"],
    }
