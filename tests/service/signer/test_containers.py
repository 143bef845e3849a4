"""The seal of a container cell: signed and verified only where it shows every layer, and never by leaving one out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from assay import isolation
from assay.predicate import Cell, Sandbox
from assay.testing import Forge
from assay.verify import verify

from sandbox import filters
from sandbox.container import gate, profile
from sandbox.filters import oci
from service.signer import record
from service.signer.refusal import Refused
from tests.sandbox.conftest import MakeOrder
from tests.sandbox.conftest import order as order
from tests.sandbox.container.conftest import Fake
from tests.sandbox.container.conftest import fake as fake
from tests.service.signer.test_sealing import refused
from tests.service.signer.test_walls import CELLS, READ, sealing

FILTERS = [filters.digest(oci.document("check")), filters.digest(profile.stacked("check"))]


def contained(*, layers: Mapping[str, Any] = {}, **changes: Any) -> dict[str, Any]:
    """Return the seal of a container of this release, fields replaced."""
    return {
        "stage": "check",
        "backend": "container",
        "version": "docker 28.2.2, runsc 20250601.0",
        "policy_sha256": profile.digest("docker", "runsc", "check"),
        "layers": {
            "namespaces": [],
            "no_new_privs": True,
            "cell_uid_is_root": False,
            "cgroup": "engine",
            "by": "gvisor",
            "by_sentry": ["namespaces", "seccomp", "capabilities", "no_new_privs", "filesystem"],
            "seccomp_sha256": FILTERS,
            "landlock_abi": 0,
            "image_sha256": "ab" * 32,
            **layers,
        },
        "limits": [
            {"name": name, "value": 256, "by": "engine", "aggregate": True} for name in ("memory_bytes", "processes")
        ],
        "statements": ["landlock_absent", "layers_by_sentry"],
        "selfcheck_sha256": "a" * 64,
        "network": "none",
        "output": {"bytes": 4096, "cap": 262144},
        **changes,
    }


HONEST = contained()
OTHERS: tuple[object, ...] = (None, True, False, 0, 1, "", "kernel", "none", "v2", "absent", [], ["x"])


def fallen() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield every seal that shows one layer less: what was dropped, the seal, and whose rule it breaks."""
    for name, held in HONEST["layers"].items():
        left = {key: value for key, value in HONEST["layers"].items() if key != name}
        yield f"{name} left out", {**HONEST, "layers": left}, "LAYER_MISSING"
        for other in OTHERS:
            if other != held or type(other) is not type(held):
                yield f"{name} {other!r}", contained(layers={name: other}), "LAYER_MISSING"
    for name in ("by_sentry", "seccomp_sha256"):
        held = HONEST["layers"][name]
        for index in range(len(held)):
            shorter = held[:index] + held[index + 1 :]
            yield f"{name} without {index}", contained(layers={name: shorter}), "LAYER_MISSING"
    for one in HONEST["statements"]:
        yield f"{one} unsaid", contained(statements=[x for x in HONEST["statements"] if x != one]), "LAYER_MISSING"
    yield "nothing stated", contained(statements=[]), "LAYER_MISSING"
    for more in ("nothing_isolated", "seccomp_absent", "memory_per_process", "started_warm"):
        yield more, contained(statements=[*HONEST["statements"], more]), "LAYER_MISSING"
    for index in (0, 1):
        limits = HONEST["limits"]
        yield f"limit {index} left out", contained(limits=limits[:index] + limits[index + 1 :]), "LAYER_MISSING"
        for change in ({"by": "rlimit"}, {"aggregate": False}, {"value": 0}):
            changed = [*limits[:index], {**limits[index], **change}, *limits[index + 1 :]]
            yield f"limit {index} {change}", contained(limits=changed), "LAYER_MISSING"
    yield "no limits", contained(limits=[]), "LAYER_MISSING"
    yield "no self-check", contained(selfcheck_sha256=None), "LAYER_MISSING"
    yield "a namespace that nobody saw", contained(layers={"namespaces": ["user", "net"]}), "LAYER_MISSING"
    yield "another layer", contained(layers={"more": True}), "LAYER_MISSING"
    for version in ("docker 28.2.2, runc 1.2.8", "podman 5.4.0, crun 1.21", "docker 28.2.2", "runsc 20250601.0", ""):
        yield f"version {version!r}", contained(version=version), "LAYER_MISSING"
    yield "a network", contained(network="host"), "BACKEND_REFUSED"
    yield "it read the model", contained(stage="ingest"), "BACKEND_REFUSED"
    yield "a GPU", contained(stage="check_gpu"), "BACKEND_REFUSED"
    yield "another backend", contained(backend="vm"), "BACKEND_REFUSED"
    yield "called bubblewrap", contained(backend="bubblewrap"), "LAYER_MISSING"


FALLEN = list(fallen())


def judged(seal: dict[str, Any], profile: str = "production") -> None:
    """Hold a record's cells against the signer's rules, without a database around them."""
    cells = tuple(Cell.model_validate_json(_json(one)) for one in (READ, seal))
    values: dict[str, Any] = {"answers": (), "sandbox": Sandbox(cells=cells)}
    record.check_cells(record.HostRecord.model_construct(**values), profile)


def _json(value: object) -> bytes:
    from assay import canonical

    return canonical.dumps(value)


def test_what_was_isolated_by_a_sentry_is_signed_where_the_seal_says_so(tmp_path: Path) -> None:
    assert sealing(tmp_path / "docker", [READ, HONEST]).sealed()["key_id"]
    podman = contained(
        version="podman 5.4.0, runsc 20250601.0", policy_sha256=profile.digest("podman", "runsc", "check")
    )
    assert sealing(tmp_path / "podman", [READ, podman]).sealed()["key_id"]


@pytest.mark.parametrize("profile", ["development", "production"])
def test_no_seal_that_shows_a_layer_less_is_signed(profile: str) -> None:
    judged(HONEST, profile)
    for what, seal, code in FALLEN:
        with pytest.raises(Refused) as caught:
            judged(seal, profile)
        assert caught.value.code == code, what


def test_a_container_without_its_statement_is_refused_by_the_whole_signer(tmp_path: Path) -> None:
    unsaid = contained(statements=["landlock_absent"])
    assert refused(sealing(tmp_path, [READ, unsaid]).sealed) == "LAYER_MISSING"


def test_a_model_that_was_read_in_a_container_is_never_signed(tmp_path: Path) -> None:
    reading = contained(stage="ingest", policy_sha256=profile.digest("docker", "runsc", "ingest"))
    assert refused(sealing(tmp_path, [reading, HONEST]).sealed) == "BACKEND_REFUSED"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"policy_sha256": "0" * 64}, "CODE_DIFFERS"),
        ({"policy_sha256": profile.digest("podman", "runsc", "check")}, "CODE_DIFFERS"),
        ({"policy_sha256": profile.digest("docker", "runc", "check")}, "CODE_DIFFERS"),
        ({"policy_sha256": CELLS[1]["policy_sha256"]}, "CODE_DIFFERS"),
        ({"version": "docker 24.0.9, runsc 20250601.0"}, "LAYER_MISSING"),
        ({"version": "docker 28.2.2, runsc 20220101.0"}, "LAYER_MISSING"),
        ({"layers": {"seccomp_sha256": ["b" * 64, "c" * 64]}}, "LAYER_MISSING"),
        ({"layers": {"seccomp_sha256": FILTERS[::-1]}}, "LAYER_MISSING"),
        ({"layers": {"seccomp_sha256": CELLS[1]["layers"]["seccomp_sha256"]}}, "LAYER_MISSING"),
    ],
    ids=str,
)
def test_another_release_or_an_old_engine_is_not_signed(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as caught:
        judged(contained(**changes))
    assert caught.value.code == code


def test_the_seal_of_a_stand_ins_container_is_what_the_signer_asks_for(fake: Fake, order: MakeOrder) -> None:
    """What a cell writes and what the signer asks for come from two places; here they meet."""
    told = fake.cell().run(order("os.write(3, b'[]')")).seal.to_json()
    with pytest.raises(Refused, match="self-check"):
        judged(told)
    judged({**told, "selfcheck_sha256": "a" * 64})
    fake.behave(info=fake.docker())
    kernel = fake.cell(runtime="runc")
    assert (kernel.settings.is_sentry, isolation.SENTRY_LAYERS) == (False, gate.SENTRY_ROWS)


@pytest.mark.parametrize("profile", ["development", "production"])
def test_no_mutation_of_a_containers_seal_verifies(tmp_path: Path, profile: str) -> None:
    """A reader needs no release for it: the rule is the client's own, and holds whoever signed."""
    forge = Forge(tmp_path, seed=5)

    def outcome(seal: dict[str, Any]) -> tuple[str, list[str]]:
        report = forge.report(signer={"profile": profile}, sandbox={"cells": [READ, seal]})
        seen = verify(report, keys=[forge.key_file])
        return seen.outcome, [step.id for step in seen.steps if step.status == "wrong"]

    assert outcome(HONEST) == ("verified", [])
    every = [one for one in FALLEN if profile == "production" or one[1]["backend"] == "container"]
    for what, seal, _ in every if profile == "production" else every[:: max(1, len(every) // 12)]:
        assert outcome(seal) == ("wrong", ["V12"]), what
