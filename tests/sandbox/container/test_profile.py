"""What an engine is asked for, word by word, and the filter that the shim stacks in a container."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import get_args

import pytest

from sandbox import CellRefused, filters
from sandbox.cell import Kind
from sandbox.container import profile
from sandbox.container.profile import Created
from sandbox.container.settings import MINIMUM, ContainerSettings, Engine, check_version
from sandbox.limits import DEFAULTS
from tests.sandbox.filters.interpreter import ALLOWED, KILL, run
from tests.sandbox.filters.test_filters import ARGUED, I386, INNER_ARGUED, X86_64

IMAGE = "cell@sha256:" + "ab" * 32
GIB = 2**30
CREATED = Created(
    name="assay-cell-1",
    kind="check",
    mounts=(("/somewhere/in/x", "/in/x", False), ("/somewhere/out/a", "/out/a", True)),
    user="65532:65532",
    userns="keep-id:uid=65532,gid=65532",
    filter_file="/somewhere/filter.json",
    limits=DEFAULTS["check"],
    environment=MappingProxyType({"LANG": "C.UTF-8", "HOME": "/scratch"}),
    command=("-P", "/shim/prelude.py", "{}"),
)
COMMON = [
    "create", "--pull=never", "--interactive", "--name=assay-cell-1", "--label=assay.cell=1",
]  # fmt: skip
HARD = [
    "--user=65532:65532", "--cap-drop=ALL", "--security-opt=no-new-privileges",
    "--security-opt=seccomp=/somewhere/filter.json", "--read-only", "--network=none", "--cgroupns=private",
    "--hostname=cell", "--restart=no", "--log-driver=none", f"--memory={16 * GIB}", f"--memory-swap={16 * GIB}",
    "--pids-limit=256", "--cpus=2", "--workdir=/", "--no-healthcheck",
]  # fmt: skip
PODMAN = [
    "--read-only-tmpfs=false", "--http-proxy=false", "--no-hosts", "--unsetenv-all",
    "--userns=keep-id:uid=65532,gid=65532",
]  # fmt: skip
MEMORY = ["--ipc=private", f"--shm-size={2**28}", f"--tmpfs=/scratch:rw,nosuid,nodev,noexec,size={GIB},mode=1777"]
REST = [
    "--env=HOME=/scratch", "--env=LANG=C.UTF-8",
    "--mount=type=bind,source=/somewhere/in/x,target=/in/x,readonly,bind-propagation=rprivate",
    "--mount=type=bind,source=/somewhere/out/a,target=/out/a,bind-propagation=rprivate",
    "--entrypoint=/usr/local/bin/python3", IMAGE, "-P", "/shim/prelude.py", "{}",
]  # fmt: skip


def settings(engine: str, runtime: str) -> ContainerSettings:
    return ContainerSettings(
        engine=engine,  # type: ignore[arg-type]
        runtime=runtime,  # type: ignore[arg-type]
        program=Path("/usr/bin/engine"),
        image=IMAGE,
        cpus=2,
    )


@pytest.mark.parametrize("runtime", ["runc", "crun", "runsc"])
def test_golden_command_line_of_docker(runtime: str) -> None:
    made = profile.arguments(settings("docker", runtime), CREATED)
    assert made == [*COMMON, f"--runtime={runtime}", *HARD, *MEMORY, *REST]


def test_golden_command_line_of_podman() -> None:
    made = profile.arguments(settings("podman", "crun"), CREATED)
    assert made == [*COMMON, "--runtime=crun", *HARD, *PODMAN, *MEMORY, *REST]
    rootful = profile.arguments(settings("podman", "crun"), replace(CREATED, userns=""))
    assert rootful == [one for one in made if not one.startswith("--userns")]


def test_golden_command_line_of_an_ingest_cell() -> None:
    """No shared memory, no scratch."""
    made = profile.arguments(settings("docker", "runc"), replace(CREATED, limits=DEFAULTS["ingest"]))
    hard = [one.replace(str(16 * GIB), str(2 * GIB)).replace("limit=256", "limit=4") for one in HARD]
    assert made == [*COMMON, "--runtime=runc", *hard, "--ipc=none", *REST]


def test_nothing_in_a_command_line_opens_the_wall() -> None:
    for engine in ("docker", "podman"):
        for one in profile.arguments(settings(engine, "runc"), CREATED):
            assert not one.startswith(("--privileged", "--cap-add", "--device", "--publish", "--volume", "--pid="))
            assert "docker.sock" not in one
            assert one not in ("--network=host", "--ipc=host", "--userns=host")


GOLDEN: dict[tuple[Engine, str, Kind], str] = {
    ("docker", "runc", "check"): "12cf27f1e4359b7ee546f16eedb63a37c4e8bf34bf7ee3b53c964471e3556dcc",
    ("docker", "runsc", "ingest"): "d6be1ac7fe4a86dedf4a6fa9057c94487785790f7e1366e09a5daa8c6c25633e",
    ("podman", "crun", "check"): "609357c2165b692d785673cf127481d830909066b81a8b57d532e57183b9e141",
}


@pytest.mark.parametrize("which", GOLDEN)
def test_the_profile_digest_changes_only_on_purpose(which: tuple[Engine, str, Kind]) -> None:
    engine, runtime, kind = which
    assert profile.digest(engine, runtime, kind) == GOLDEN[which], "a profile changed: every later report says so"


def test_every_profile_has_a_digest_of_its_own() -> None:
    digests = {
        profile.digest(engine, runtime, kind)
        for engine in get_args(Engine)
        for runtime in ("runc", "crun", "runsc")
        for kind in profile.KINDS
    }
    assert len(digests) == 12
    told = json.loads(profile.document("docker", "runsc", "check"))
    assert told["landlock"] == []
    assert json.loads(profile.document("docker", "runc", "check"))["landlock"]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_stacked_filter_is_the_stricter_of_both(kind: Kind) -> None:
    program, outer, inner = profile.stacked(kind), filters.outer(kind), filters.inner(kind)
    assert len(program) <= 8 * 4096
    sampled = [(0,) * 6, *(one[2] for one in ARGUED), *(one[1] for one in INNER_ARGUED)]
    compared = {one[1] for one in ARGUED} | {one[0] for one in INNER_ARGUED}
    for number in range(600):
        for arguments in sampled if number in compared else sampled[:1]:
            both = [run(one, number, X86_64, arguments) for one in (outer, inner)]
            owed = next((one for one in both if one != ALLOWED), ALLOWED)
            assert run(program, number, X86_64, arguments) == owed, (number, arguments)
        assert run(program, number, I386) == KILL


def test_an_ingest_cell_keeps_its_allow_list_though_the_engine_loads_the_checks_table() -> None:
    assert run(profile.stacked("ingest"), 57, X86_64) != ALLOWED  # fork
    assert run(filters.outer("check"), 57, X86_64) == ALLOWED


def test_rules_leave_open_what_the_cell_needs_and_no_more() -> None:
    rules = profile.rules("ingest", ("/usr",), ("a",))
    assert [(one.path, one.right) for one in rules] == [
        ("/usr", "execute"), ("/shim/inside.py", "read"), ("/code", "read"), ("/in", "read"), ("/out/a", "slot"),
        ("/dev/null", "device"), ("/dev/urandom", "device"),
    ]  # fmt: skip


@pytest.mark.parametrize("program", MINIMUM)
def test_versions_below_the_minimum_are_refused(program: str) -> None:
    owed = MINIMUM[program]
    assert owed.reason
    assert check_version(program, owed.version) == owed.version
    first, _, rest = owed.version.partition(".")
    for said in (f"{int(first) - 1}.99.99", "", "unknown", "latest"):
        with pytest.raises(CellRefused, match="engine_below_minimum"):
            check_version(program, said)
    assert check_version(program, f"{int(first) + 1}.0.0-rc1")
    assert rest
