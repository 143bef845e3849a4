"""No shard takes longer than a worker may, no sketch outgrows what a cell may leave, and a plan says so before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from checks.check import Refusal
from checks.contamination.budget import PIECES_PER_BYTE, PIECES_S, SHARD_MIN, bins, check_probes, shard_bytes
from checks.contamination.check import Contamination
from checks.contamination.items import Item
from checks.contamination.plan import PARTS, ScanParameters
from checks.contamination.planning_parameters import read_parameters
from checks.contamination.shards import SHARD_BYTES, Format, Stored
from checks.sharding import PART_MAX

LONG = "How many of the rolls that were baked on the trays are left at noon " * 12
ITEMS = (Item("b", "one", "prose", "How many rolls are left?"), Item("b", "two", "prose", LONG))
"""Of two bins."""


def _corpus(size: int, form: Format = "jsonl") -> list[Stored]:
    return [Stored(Path("c"), "c", form, size, "0" * 64)]


def _auto(size: int = 10**6, items: tuple[Item, ...] = ITEMS, form: Format = "jsonl", **changed: Any) -> int:
    return shard_bytes("auto", _corpus(size, form), items, ScanParameters(**changed))


def test_a_shard_of_the_default_size_is_embedded_within_twenty_minutes() -> None:
    assert len(bins(ITEMS, (24, 48, 96, 192))) == 2
    size = _auto()
    seconds = size * 2 * PIECES_PER_BYTE / PIECES_S
    assert 1100 < seconds <= 1200
    assert SHARD_MIN < size < SHARD_BYTES / 50  # 256 MiB would take 38 hours
    assert _auto(items=ITEMS[:1]) == pytest.approx(2 * size, abs=2)
    assert _auto(embed="sample", sample_fraction=PARTS // 10) == pytest.approx(10 * size, abs=10)
    assert _auto(form="parquet") == pytest.approx(size / 4, abs=1)
    assert _auto(embed="off") == SHARD_BYTES
    assert _auto(embed="sample", sample_fraction=1) == SHARD_BYTES
    assert shard_bytes(70_000, _corpus(10**12), ITEMS, ScanParameters()) == 70_000


def test_a_corpus_that_no_512_shards_can_hold_is_refused_with_its_hours() -> None:
    with pytest.raises(Refusal) as told:
        _auto(100 * 10**9)
    hours = round(100e9 * 2 * PIECES_PER_BYTE / PIECES_S / 3600)
    assert told.value.reason == "shards_too_many"
    assert told.value.items[1] == "shards:most:512"
    assert int(told.value.items[2].removeprefix("hours:")) == pytest.approx(hours, abs=1)
    assert told.value.items[3:] == ("embed:sample_or_off", "or:command_line")
    assert _auto(100 * 10**9, embed="off") == SHARD_BYTES


def test_a_plan_whose_sketch_might_not_fit_is_refused_before_any_shard_is_read() -> None:
    fit = PART_MAX // (16 * 200)
    check_probes(fit, 16)
    with pytest.raises(Refusal) as told:
        check_probes(fit + 1, 16)
    assert (told.value.reason, told.value.items) == (
        "plan_too_large", (f"probes:{fit + 1}", f"probes:most:{fit}", "keep:16")
    )  # fmt: skip
    check_probes(fit + 1, 12)
    assert "plan_too_large" in Contamination.reasons


def test_a_language_without_a_detector_is_refused() -> None:
    assert Contamination(languages=("en", "any")).languages == ("en", "any")
    with pytest.raises(ValidationError, match="'de' has no detector; there are en and any"):
        Contamination(languages=("en", "de"))
    assert read_parameters({"languages": ["any"]}).scan.languages == ("any",)
    with pytest.raises(ValueError, match="without a detector: there are en and any"):
        read_parameters({"languages": ["de"]})


def test_the_size_of_shards_is_a_number_or_auto() -> None:
    assert Contamination().shard_bytes == "auto"
    assert Contamination(shard_bytes=2**16).shard_bytes == 2**16
    for wrong in (2**16 - 1, "large", 2.0**20):
        with pytest.raises(ValidationError):
            Contamination(shard_bytes=wrong)  # type: ignore[arg-type]
