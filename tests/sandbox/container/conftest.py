"""A fake engine on disk, and cells that use it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.container import ContainerCell, ContainerSettings

IMAGE = "registry.example/assay/cell@sha256:" + "ab" * 32
FAKE = Path(__file__).with_name("fake_engine.py")


@dataclass
class Fake:
    """The engine's folder, and what it was asked."""

    home: Path
    program: Path
    runsc: Path

    def behave(self, **changes: Any) -> None:
        path = self.home / "behaviour.json"
        held = json.loads(path.read_text()) if path.exists() else {"info": self.docker()}
        path.write_text(json.dumps({**held, **changes}))

    def docker(self, **changes: Any) -> dict[str, Any]:
        return {
            "ServerVersion": "28.2.2",
            "MemoryLimit": True,
            "SwapLimit": True,
            "PidsLimit": True,
            "CpuCfsQuota": True,
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
            "Runtimes": {"runsc": {"path": str(self.runsc)}, "runc": {"path": str(self.runsc)}},
        } | changes

    def podman(self, **changes: Any) -> dict[str, Any]:
        host = {
            "ociRuntime": {"name": "crun", "version": "crun version 1.21\ncommit: 0"},
            "security": {"rootless": False, "seccompEnabled": True},
            "cgroupVersion": "v2",
            "cgroupControllers": ["cpu", "memory", "pids"],
        } | changes
        return {"version": {"Version": "5.4.0"}, "host": host}

    @property
    def calls(self) -> list[list[str]]:
        path = self.home / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def verbs(self) -> list[str]:
        return [one[0] for one in self.calls]

    @property
    def left(self) -> list[Path]:
        """Containers that are still there."""
        return [one for one in self.home.glob("*.json") if len(one.stem) == 64]

    def settings(self, **changes: Any) -> ContainerSettings:
        values: dict[str, Any] = {
            "engine": "docker", "program": self.program, "runtime": "runsc", "image": IMAGE, "cpus": 2, "start_s": 20.0,
            "environment": {"FAKE_ENGINE": str(self.home)}, "work_dir": self.home.parent / "work",
        }  # fmt: skip
        return ContainerSettings(**{**values, **changes})

    def cell(self, **changes: Any) -> ContainerCell:
        return ContainerCell(self.settings(**changes))


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    home = tmp_path / "engine"
    home.mkdir()
    (tmp_path / "work").mkdir()
    program = tmp_path / "fake-docker"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S -B "{FAKE}" "$@"\n')
    runsc = tmp_path / "fake-runsc"
    runsc.write_text("#!/bin/sh\necho 'runsc version release-20250601.0'\necho 'spec: 1.1.0'\n")
    for one in (program, runsc):
        one.chmod(0o755)
    made = Fake(home=home, program=program, runsc=runsc)
    made.behave()
    return made
