"""`assay-server access-log export`: who did what is for the operator's eyes."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.main import config
from service.main.cli import main
from service.store.migrations import migrate
from tests.service.main.test_config import server


@pytest.mark.parametrize("was_there", [False, True])
def test_export_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, was_there: bool) -> None:
    url = f"sqlite:///{tmp_path / 'assay.db'}"
    migrate(url)
    config.dump(server(tmp_path, database_url=url), tmp_path / "server.toml")
    out = tmp_path / "access.jsonl"
    if was_there:
        out.write_text("old\n")
        out.chmod(0o644)
    assert main(["principals", "--config", str(tmp_path / "server.toml"), "add", "ada", "--tenant", "acme"]) == 0
    assert main(["access-log", "export", "--config", str(tmp_path / "server.toml"), "--out", str(out)]) == 0
    assert "principals/ada" in out.read_text()
    assert "old" not in out.read_text()
    assert out.stat().st_mode & 0o777 == 0o600


def test_export_to_where_it_cannot_be_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'assay.db'}"
    migrate(url)
    config.dump(server(tmp_path, database_url=url), tmp_path / "server.toml")
    arguments = ["access-log", "export", "--config", str(tmp_path / "server.toml"), "--out", str(tmp_path / "no" / "f")]
    assert main(arguments) == 3
    assert "no/f" in capsys.readouterr().err
