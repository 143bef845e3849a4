"""A planted report and policies for it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from assay.catalogue import CheckEntry
from assay.policy import language, loader
from assay.policy.decide import decide
from assay.policy.evidence import Compared, Differences, Evidence
from assay.policy.language import Policy
from assay.policy.verdict import Instance, Verdict
from assay.testing import forged_entry

ENTRY = forged_entry()
TODAY = date(2026, 3, 1)
SHA = "ab" * 32
T8 = json.loads((Path(__file__).parents[2] / "data" / "vectors.json").read_bytes())["T8"]


def entry(**change: Any) -> CheckEntry:
    return forged_entry(**change)


def metric(layer: str, low: str, value: str, high: str, **change: Any) -> dict[str, Any]:
    return {
        "name": "accuracy",
        "labels": {"layer": layer},
        "value": value,
        "step": "0.001",
        "unit": "fraction",
        "n": 800,
        "interval": {"low": low, "high": high, "level": "0.95", "method": "wilson"},
        "p": None,
        "multiplicity": {"family": "layers", "m": 2, "corrected": "none"},
        "determinism": "statistical",
        **change,
    }


def control(name: str, value: str, low: str, high: str) -> dict[str, Any]:
    return {"name": name, "metric": "accuracy", "value": value, "band": {"low": low, "high": high}, "held": True}


def finding(severity: str = "note", **change: Any) -> dict[str, Any]:
    told = {"code": "readable", "word": "detected", "severity": severity, "claim": "x", "labels": {"layer": "1"}}
    return {**told, "rests_on": [{"name": "accuracy", "labels": {"layer": "1"}}], **change}


def cell(backend: str = "bubblewrap", **change: Any) -> dict[str, Any]:
    open_one = backend == "process"
    told = (
        {"network": "host", "statements": ["nothing_isolated"]} if open_one else {"network": "none", "statements": []}
    )
    return {"stage": "check", "backend": backend, **told, **change}


def answer(**change: Any) -> dict[str, Any]:
    told = {
        "check": "forged_probe",
        "version": "1.0",
        "catalogue_sha256": ENTRY.sha256,
        "outcome": "measured",
        "valid": True,
        "reason": None,
        "measured": {
            "coverage": {"layer": ["0", "1"]},
            "metrics": [metric("0", "0.4", "0.45", "0.5"), metric("1", "0.45", "0.5", "0.55")],
            "skipped": [],
        },
        "controls": [control("ShuffledLabels", "0.5", "0.45", "0.55"), control("PlantedTruth", "0.97", "0.9", "1")],
        "findings": [finding()],
        "skipped": [],
        "power": [{"metric": "accuracy", "effect": "e", "value": "1", "low": "0.806", "high": "1", "n_planted": 16}],
    }
    return copy.deepcopy({**told, **change})


def predicate(*answers: dict[str, Any], **change: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "model": {"manifest_sha256": SHA},
        "access": {"derived": ["weights", "activations"]},
        "registration": {"seed_mode": "derived"},
        "sandbox": {"cells": [cell()]},
        "attempts": [
            {"job": "whole", "n": 1, "exit_class": "CELL_CRASHED", "result_sha256": None},
            {"job": "whole", "n": 2, "exit_class": "OK", "result_sha256": SHA},
        ],
        "answers": [*answers] if answers else [answer()],
    }
    return copy.deepcopy({**told, **change})


def given(told: dict[str, Any], **change: Any) -> Evidence:
    arguments: dict[str, Any] = {"asked": {"forged_probe": 1}, "entries": {ENTRY.sha256: ENTRY}, "age_s": 0}
    return Evidence(**{"predicate": told, "today": TODAY, **arguments, **change})


def differences(low: Any, high: Any, layers: Iterable[str] = "01") -> Differences:
    """Return one difference for accuracy at each layer."""
    return {("forged_probe", "accuracy", (("layer", layer),)): Compared(low=low, high=high) for layer in layers}


def policy(text: str = "", **change: str) -> Policy:
    """Return a policy of one assertion on accuracy, with fields replaced, or a policy of YAML text."""
    fields = {"id": "low", "check": "forged_probe", "metric": "accuracy", "op": '"<="', "value": "0.6", **change}
    body = text or "assertions: [{" + ", ".join(f"{key}: {value}" for key, value in fields.items()) + "}]"
    return language.parse(loader.read(f"schema: assay-policy/v1\nname: p\n{body}\n".encode(), "p.yaml"))


def verdict(told: dict[str, Any], asked: Policy | None = None, **change: Any) -> Verdict:
    return decide(asked or policy(), given(told, **change))


def first(told: Verdict) -> tuple[str, str, str]:
    """Return the verdict, and outcome and reason of its first entry."""
    return told.outcome, told.decisions[0].outcome, told.decisions[0].reason


def instances(told: Verdict) -> tuple[Instance, ...]:
    return told.decisions[0].instances
