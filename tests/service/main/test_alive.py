"""The file that a probe looks at."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from service.main.alive import beating


def test_file_is_there_from_ready_to_the_end_and_touched_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, touched, touch = tmp_path / "alive", threading.Semaphore(0), Path.touch

    def noted(path: Path, mode: int = 0o666, exist_ok: bool = True) -> None:
        touch(path, mode, exist_ok)
        touched.release()

    monkeypatch.setattr(Path, "touch", noted)
    with beating(file, every_s=0.001) as begin:
        assert not file.exists()  # a role that does not serve yet is not alive
        begin()
        os.utime(file, (1, 1))
        for _ in range(3):
            assert touched.acquire(timeout=10)
        assert file.stat().st_mtime > 1
        assert file.stat().st_mode & 0o077 == 0
    assert not file.exists()


def test_role_that_fails_leaves_no_sign_of_life(tmp_path: Path) -> None:
    def serve() -> None:
        with beating(tmp_path / "alive") as begin:
            begin()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        serve()
    assert not (tmp_path / "alive").exists()
