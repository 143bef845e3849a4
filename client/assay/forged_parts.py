"""Parts of forged reports (`assay.testing`)."""

from __future__ import annotations

import hashlib
from typing import Any

from assay import canonical


def metric(layer: str, value: str, low: str, high: str) -> dict[str, Any]:
    """Return an accuracy of one layer."""
    return {
        "name": "accuracy",
        "labels": {"layer": layer},
        "value": value,
        "step": "0.001",
        "unit": "fraction",
        "n": 800,
        "interval": {"low": low, "high": high, "level": "0.95", "method": "wilson"},
        "null": None,
        "p": None,
        "multiplicity": {"family": "layers", "m": 2, "corrected": "none"},
        "better": "none",
        "determinism": "statistical",
        "tolerance": None,
        "margin": "0.03",
        "items_sha256": None,
    }


def control(name: str, kind: str, value: str, low: str, high: str) -> dict[str, Any]:
    """Return a control that held."""
    return {
        "name": name,
        "kind": kind,
        "metric": "accuracy",
        "labels": {"layer": "1"},
        "value": value,
        "band": {"low": low, "high": high},
        "held": True,
    }


def band(low: str, high: str) -> dict[str, Any]:
    """Return the band that a forged control promises."""
    return {"metric": "accuracy", "low": low, "high": high, "fixed": True, "always": True}


def environment() -> dict[str, Any]:
    """Return where a forged report ran."""
    packages = {"numpy": "2.4.6", "torch": "2.13.0"}
    return {
        "python": "3.11.9",
        "packages": packages,
        "lock_sha256": canonical.sha256(packages),
        "cpu": "forged",
        "kernel": "forged",
        "dtype": "float32",
        "batch_size": 8,
        "deterministic_flags": {"use_deterministic_algorithms": True},
    }


def cell() -> dict[str, Any]:
    """Return the seal of a cell that isolates nothing."""
    return {
        "stage": "check",
        "backend": "process",
        "version": "1",
        "policy_sha256": hashlib.sha256(b"no policy").hexdigest(),
        "layers": {"namespaces": [], "seccomp": "absent"},
        "limits": [{"name": "wall_s", "value": 600, "by": "watchdog", "aggregate": True}],
        "statements": ["nothing_isolated"],
        "selfcheck_sha256": None,
        "network": "host",
        "output": {"bytes": 4096, "cap": 262144},
    }
