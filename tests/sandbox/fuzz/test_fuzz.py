"""Whatever strangers write is refused within the error root, or accepted and valid: a short run, and a long one."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from sandbox.reader import strict_json
from sandbox.reader.error import ReaderError

from . import fuzzers, mutations
from .fuzzers import FUZZERS
from .loop import fuzz, line

SEED = 20260101
HEADERS_LEAST = 10_000


@pytest.mark.parametrize("name", FUZZERS)
def test_a_second_finds_nothing(name: str, tmp_path: Path, told: list[str]) -> None:
    tried = fuzz(name, tmp_path, seed=SEED, seconds=1.0, least=20)
    told.append(line(tried))
    assert 0 < tried.accepted < tried.inputs, "both words were said, or nothing was shown"


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZERS)
def test_a_minute_finds_nothing(name: str, tmp_path: Path, told: list[str]) -> None:
    least = HEADERS_LEAST if name == "safetensors headers" else 1000
    tried = fuzz(name, tmp_path, seed=SEED + 1, seconds=60.0, least=least)
    told.append(line(tried))
    assert tried.inputs >= least


def test_equal_seeds_make_equal_inputs() -> None:
    def made(seed: int) -> list[bytes]:
        chance = Random(seed)
        return [mutations.document_of({"a": [1, {"b": "c"}]}, chance) for _ in range(200)]

    assert made(1) == made(1) != made(2)


def test_a_crash_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a reader with a flaw does not pass."""

    def flawed(*_given: object) -> object:
        raise KeyError("flaw")

    monkeypatch.setattr(fuzzers, "read_table", flawed)
    with pytest.raises(KeyError) as caught:
        fuzz("safetensors headers", tmp_path, seed=1, seconds=9)
    assert "input 0 of seed 1" in caught.value.__notes__[0]


def test_a_lenient_reader_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: one accept that the library does not share ends the run."""

    def lenient(*_given: object) -> tuple[()]:
        return ()

    monkeypatch.setattr(fuzzers, "read_table", lenient)
    with pytest.raises(AssertionError):
        fuzz("safetensors headers", tmp_path, seed=1, seconds=9)


def test_a_lenient_json_reader_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    def lenient(data: bytes, **_more: object) -> object:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise ReaderError("json_invalid") from None

    monkeypatch.setattr(strict_json, "loads", lenient)
    with pytest.raises((AssertionError, ValueError)):
        fuzz("strict JSON", tmp_path, seed=1, seconds=30)
