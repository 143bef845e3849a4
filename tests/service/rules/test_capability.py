from __future__ import annotations

import pytest

from service.rules import capability
from service.rules.capability import (
    CAPABILITIES,
    GIB,
    choose,
    gpu_class,
    needed_bytes,
    queue_of,
    read_served,
    wanted_of,
)


@pytest.mark.parametrize("words", [(), ("cpu", "cpu"), ("tpu",), ("cpu", "gpu-24g"), ("gpu-24g", "gpu-80g")])
def test_a_worker_serves_known_queues_and_none_above_its_own(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="capability"):
        read_served(words)


def test_a_large_worker_takes_lesser_jobs_only_where_it_is_told() -> None:
    assert read_served(("gpu-80g",)) == ("gpu-80g",)
    assert read_served(("gpu-80g", "cpu", "gpu-24g")) == ("gpu-80g", "gpu-24g", "cpu")


def test_a_check_without_need_of_a_gpu_never_waits_for_one() -> None:
    assert choose(["cpu", "cpu"], 10**15) == "cpu"
    assert choose([], 0) == "cpu"


def test_the_class_follows_from_the_weights() -> None:
    assert choose(["cpu", "gpu"], 2 * 1_000_000_000) == "gpu-24g"  # 1e9 parameters of 16 bits
    assert choose(["gpu"], 2 * 7_000_000_000) == "gpu-80g"
    assert choose(["gpu"], 2 * 70_000_000_000) is None
    assert queue_of("gpu", 2 * 70_000_000_000) == "gpu-80g", "ends by its memory limit; it never waits for ever"


def test_checks_of_one_audit_share_the_largest_need() -> None:
    assert wanted_of(["cpu", "gpu"]) == "gpu"
    assert wanted_of(["gpu-24g", "gpu", "cpu"]) == "gpu-24g"
    assert wanted_of(["gpu-24g", "gpu-80g"]) == "gpu-80g"
    assert wanted_of([]) == "cpu"


def test_an_entry_may_ask_for_more_than_the_model_needs_and_never_gets_less() -> None:
    assert choose(["gpu-80g"], 1000) == "gpu-80g"
    assert choose(["gpu-24g"], 2 * 7_000_000_000) == "gpu-80g"
    assert choose(["gpu-24g", "gpu-80g", "cpu"], 1000) == "gpu-80g"


def test_the_edge_of_a_class_belongs_to_it() -> None:
    most = (24 * GIB - capability.RUNTIME_BYTES) * 100 // capability.WEIGHTS_FACTOR_PERCENT
    assert needed_bytes(most) <= 24 * GIB < needed_bytes(most + 1)
    assert (gpu_class(most), gpu_class(most + 1)) == ("gpu-24g", "gpu-80g")


def test_no_word_is_made_up() -> None:
    with pytest.raises(ValueError, match="tpu"):
        choose(["tpu"], 0)
    with pytest.raises(ValueError, match="-1"):
        needed_bytes(-1)
    assert all(len(word) <= 16 for word in CAPABILITIES), "job.capability has 16 characters"
