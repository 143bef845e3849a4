from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from assay.testing import Forge

if TYPE_CHECKING:
    from tests.client.fakes import Fake


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


Assay = Callable[..., Ran]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[object]:
    """A service in memory; see tests.client.fakes."""
    from tests.client.fakes import start

    folder = tmp_path / "fake"
    folder.mkdir()
    running = start(folder)
    yield running
    running.stop()


@pytest.fixture
def assay(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Assay:
    from assay.cli import options
    from assay.cli.run import run

    monkeypatch.setenv("ASSAY_CONFIG", str(fake.config))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(options, "PATIENCE_S", 1.0)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        code = run([str(one) for one in arguments])
        seen = capsys.readouterr()
        return Ran(code, seen.out, seen.err)

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from tests.client.planted import write_model

    return write_model(tmp_path / "model")


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path / "forge")
