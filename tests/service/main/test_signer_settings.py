"""The signer's own figures of the configuration reach it, and one out of its range is named with its limit."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from assay.manifest import HASH_THREADS, FileEntry

import service.signer.evidence
from service.main import config
from service.signer.evidence import Evidence, path_in
from service.signer.process import RATE_PER_MINUTE, SignerSettings
from tests.service.main.test_config import server
from tests.service.main.test_times import settings_of


def test_the_defaults_are_the_specifications(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: SignerSettings = settings_of("signer", server(tmp_path), monkeypatch)
    assert (told.rate_per_minute, told.hash_threads) == (RATE_PER_MINUTE, None)
    assert RATE_PER_MINUTE == 60


def test_rate_and_threads_reach_the_signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = server(tmp_path, signer_rate_per_minute=600, hash_threads=3)
    told: SignerSettings = settings_of("signer", asked, monkeypatch)
    assert (told.rate_per_minute, told.hash_threads) == (600, 3)


@pytest.mark.parametrize(("key", "least", "most"), [("signer_rate_per_minute", 1, 6_000), ("hash_threads", 1, 64)])
def test_a_figure_out_of_its_range_is_named_with_the_limit(tmp_path: Path, key: str, least: int, most: int) -> None:
    place = tmp_path / "server.toml"
    for right in (least, most):
        config.dump(server(tmp_path, **{key: right}), place)
        assert getattr(config.load(place), key) == right
    for wrong, limit in ((least - 1, least), (most + 1, most)):
        place.write_text(place.read_text().replace(f"{key} = {most}", f"{key} = {wrong}"))
        with pytest.raises(config.ConfigError, match=rf"(?s){key}.*{limit}"):
            config.load(place)
        place.write_text(place.read_text().replace(f"{key} = {wrong}", f"{key} = {most}"))


@pytest.mark.parametrize(("asked", "taken"), [(None, HASH_THREADS), (1, 1), (5, 5)])
def test_weights_are_hashed_in_as_many_threads_as_were_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, taken: int
) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    place = path_in(tmp_path, digest)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    seen: list[int] = []
    real = ThreadPoolExecutor

    def noted(count: int, **named: Any) -> Any:
        seen.append(count)
        return real(count, **named)

    monkeypatch.setattr(service.signer.evidence, "ThreadPoolExecutor", noted)
    Evidence(tmp_path, threads=asked).weigh([FileEntry(path="a", sha256=digest, size=7)], {})
    assert seen == [taken]
