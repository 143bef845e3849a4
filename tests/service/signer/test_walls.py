"""What a seal must show before it is signed: the cells of an attempt, every layer, and this release's own profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import BubblewrapCell, filters
from sandbox.bubblewrap import profile as policies
from sandbox.cell import Kind
from tests.sandbox.conftest import MakeOrder
from tests.sandbox.conftest import cell as cell
from tests.sandbox.conftest import order as order
from tests.service.signer.planting import World
from tests.service.signer.test_sealing import refused


def test_a_production_key_never_signs_what_was_not_isolated(tmp_path: Path) -> None:
    world = World(tmp_path, profile="production")
    world.register()
    world.finish()
    assert refused(world.sealed) == "BACKEND_REFUSED"
    other = World(tmp_path / "isolated", profile="production")
    other.register()
    other.finish(other.record(sandbox={"cells": CELLS}))
    assert other.sealed()["key_id"]


def armed(stage: Kind, *, warm: bool = False, layers: Mapping[str, Any] = {}, **changes: Any) -> dict[str, Any]:
    """Return the seal of a cell of this release, fields replaced."""
    return {
        "stage": stage,
        "backend": "bubblewrap",
        "version": "0.8.0",
        "policy_sha256": policies.digest(stage, warm=warm),
        "layers": {
            "namespaces": ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"],
            "no_new_privs": True,
            "cell_uid_is_root": False,
            "cgroup": "none",
            "seccomp_sha256": [filters.digest(filters.program(layer, stage)) for layer in ("outer", "inner")],
            "landlock_abi": 7,
            **layers,
        },
        "limits": [],
        "statements": ["memory_per_process", *(["started_warm"] if warm else [])],
        "selfcheck_sha256": "a" * 64,
        "network": "none",
        "output": {"bytes": 4096, "cap": 262144},
        **changes,
    }


READ, CHECKED = armed("ingest"), armed("check")
CELLS = [READ, CHECKED]


def sealing(folder: Path, cells: list[dict[str, Any]], profile: str = "production", **changes: Any) -> World:
    world = World(folder, profile=profile)
    world.register()
    world.finish(world.record(sandbox={"cells": cells}, **changes))
    return world


@pytest.mark.parametrize("profile", ["development", "production"])
@pytest.mark.parametrize(
    "layer",
    [
        {"namespaces": ["user", "mnt", "pid", "net", "ipc", "uts"]},
        {"no_new_privs": False},
        {"cell_uid_is_root": True},
        {"cell_uid_is_root": "no"},
        {"seccomp_sha256": CHECKED["layers"]["seccomp_sha256"][:1]},
        {"seccomp_sha256": CHECKED["layers"]["seccomp_sha256"][::-1]},
        {"seccomp_sha256": READ["layers"]["seccomp_sha256"]},
        {"seccomp_sha256": ["b" * 64, "c" * 64]},
        {"seccomp_sha256": "absent"},
        {"landlock_abi": 0},
        {"landlock_abi": True},
        {"landlock_abi": "7"},
        {"cgroup": None},
    ],
    ids=str,
)
def test_a_cell_that_does_not_show_every_layer_is_never_signed(
    tmp_path: Path, profile: str, layer: dict[str, Any]
) -> None:
    cell = armed("check", layers=layer)
    if "cgroup" in layer:
        cell["statements"] = []
    cells = [READ, cell]
    assert refused(sealing(tmp_path, cells, profile).sealed) == "LAYER_MISSING"


@pytest.mark.parametrize("statements", [[], ["memory_per_process", "nothing_isolated"]], ids=str)
def test_what_a_cell_has_to_state_is_held_against_its_layers(tmp_path: Path, statements: list[str]) -> None:
    cells = [READ, armed("check", statements=statements)]
    assert refused(sealing(tmp_path / "none", cells).sealed) == "LAYER_MISSING"
    grouped = [READ, armed("check", statements=[], layers={"cgroup": "v2"})]
    assert sealing(tmp_path / "grouped", grouped).sealed()["key_id"]


def test_a_kernel_without_landlock_is_signed_only_where_it_is_stated(tmp_path: Path) -> None:
    stated = ["landlock_absent", "memory_per_process"]
    without = [READ, armed("check", layers={"landlock_abi": 0}, statements=stated)]
    assert sealing(tmp_path, without).sealed()["key_id"]
    unproven = [READ, armed("check", selfcheck_sha256=None)]
    assert refused(sealing(tmp_path / "unproven", unproven).sealed) == "LAYER_MISSING"


@pytest.mark.parametrize("profile", ["development", "production"])
@pytest.mark.parametrize(
    "cells",
    [[CHECKED], [READ], [CHECKED, READ], [READ, CHECKED, CHECKED], [READ, READ], [READ, {**CHECKED, "stage": "other"}]],
    ids=lambda cells: " ".join(one["stage"] for one in cells),
)
def test_what_was_measured_came_out_of_two_cells(tmp_path: Path, profile: str, cells: list[dict[str, Any]]) -> None:
    assert refused(sealing(tmp_path, cells, profile).sealed) == "RECORD_REJECTED"


def test_a_model_that_the_first_cell_refused_is_signed_without_a_second(tmp_path: Path) -> None:
    answer = World(tmp_path / "forge").forge.answer({"part": 0})
    answer.update(outcome="refused", valid=False, reason="x", measured=None, controls=[], findings=[])
    assert sealing(tmp_path / "read", [READ], answers=[answer]).sealed()["key_id"]
    assert sealing(tmp_path / "both", CELLS, answers=[answer]).sealed()["key_id"]
    assert refused(sealing(tmp_path / "second", [CHECKED], answers=[answer]).sealed) == "RECORD_REJECTED"


@pytest.mark.parametrize("profile", ["development", "production"])
def test_a_cell_of_another_profile_is_never_signed(tmp_path: Path, profile: str) -> None:
    cold = CHECKED["policy_sha256"]
    for n, other in enumerate(
        (armed("check", policy_sha256="0" * 64), armed("check", policy_sha256=READ["policy_sha256"]),
         armed("check", warm=True, policy_sha256=cold))
    ):  # fmt: skip
        assert refused(sealing(tmp_path / str(n), [READ, other], profile).sealed) == "CODE_DIFFERS"
    assert sealing(tmp_path / "warm", [READ, armed("check", warm=True)], profile).sealed()["key_id"]
    assert sealing(tmp_path / "gpu", [READ, armed("check_gpu")], profile).sealed()["key_id"]


def test_seals_of_real_cells_are_signed(tmp_path: Path, cell: BubblewrapCell, order: MakeOrder) -> None:
    """What the gate writes and what the signer asks for come from two places; here they meet."""
    kinds: tuple[Kind, ...] = ("ingest", "check")
    seals = [cell.run(order("os.write(3, b'[]')", kind=kind)).seal for kind in kinds]
    told = [replace(seal, selfcheck_sha256="a" * 64).to_json() for seal in seals]
    assert sealing(tmp_path, told).sealed()["key_id"]
