"""Which layers the seal of a container cell must show: one rule, for the signer and for whoever verifies.

Behind gVisor's sentry the host sees no layer of a cell, so its seal says which are the sentry's, claims no namespace,
and states `layers_by_sentry`. Nothing here has a default: what a seal leaves out is missing, and what it claims beyond
the rule was not seen by anybody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

BACKEND = "container"
STAGES = ("check",)
"""What runs in containers: a model's files are read behind bubblewrap alone, where a cell has no process files."""
STATEMENTS = ("landlock_absent", "layers_by_sentry")
"""Exactly these: a weaker container is stated otherwise, and is none that this release knows."""
SENTRY_LAYERS = ("namespaces", "seccomp", "capabilities", "no_new_privs", "filesystem")
LIMITED = ("memory_bytes", "processes")
"""Limits that the engine's group holds for the cell as a whole."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"(docker|podman) ([^ ,]{1,64}), (runsc) ([^ ,]{1,64})")
"""Engine and runtime, each with its version."""

_EXACT: Mapping[str, Any] = MappingProxyType(
    {
        "namespaces": [],
        "no_new_privs": True,
        "cell_uid_is_root": False,
        "cgroup": "engine",
        "by": "gvisor",
        "by_sentry": list(SENTRY_LAYERS),
        "landlock_abi": 0,
    }
)
_LAYERS = frozenset({*_EXACT, "seccomp_sha256", "image_sha256"})


def missing_layer(cell: Mapping[str, Any]) -> str | None:
    """Return the first layer that the seal of a container cell does not show; None where it shows them all.

    Args:
        cell: the seal as plain JSON, of the schema's form (`assay.predicate.Cell`).
    """
    layers = cell["layers"]
    filters = layers.get("seccomp_sha256")
    rows = {
        "that it measured, and read no model": cell["stage"] in STAGES,
        "gVisor": VERSION.fullmatch(cell["version"]) is not None,
        "no network": cell["network"] == "none",
        **{name: name in layers and _same(layers[name], owed) for name, owed in _EXACT.items()},
        "two filters of system calls": isinstance(filters, list) and [*map(_is_digest, filters)] == [True, True],
        "the image's digest": _is_digest(layers.get("image_sha256")),
        "these layers and no others": set(layers) == _LAYERS,
        "layers_by_sentry": sorted(cell["statements"]) == sorted(STATEMENTS),
        **{f"a limit of {name}": _is_limited(cell["limits"], name) for name in LIMITED},
        "a self-check": _is_digest(cell["selfcheck_sha256"]),
    }
    return next((layer for layer, shown in rows.items() if not shown), None)


def claims_container(cell: Mapping[str, Any]) -> bool:
    """Say whether a seal tells of a sentry or an image, which only that of a container may."""
    return "layers_by_sentry" in cell["statements"] or bool({"by", "by_sentry", "image_sha256"} & set(cell["layers"]))


def _same(found: object, owed: object) -> bool:
    return type(found) is type(owed) and found == owed  # JSON's true is no 1


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _is_limited(limits: Sequence[Mapping[str, Any]], name: str) -> bool:
    found = [one for one in limits if one["name"] == name]
    return len(found) == 1 and found[0]["by"] == "engine" and found[0]["aggregate"] and found[0]["value"] > 0
