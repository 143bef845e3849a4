"""Limits by an injected clock: the bucket's arithmetic, and that every refusal names its quota and number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from service.rules import limits
from service.rules.errors import Refusal
from service.rules.limits import (
    CallRates,
    Quotas,
    charged,
    is_gpu,
    require_audit,
    require_bytes,
    require_files,
    require_gpu,
    require_uploads,
)  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call()
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert caught.value.quota == caught.value.metadata["quota"]
    assert caught.value.metadata["limit"] in caught.value.message
    return caught.value


def test_burst_then_rate_and_retry_tells_when() -> None:
    clock = Clock()
    rates = CallRates(rate=20.0, burst=100, clock=clock)
    for _ in range(100):
        rates.take("ada")
    refusal = refused(lambda: rates.take("ada"))
    assert (refusal.reason, refusal.quota) == ("TOO_MANY_CALLS", "calls_per_principal")
    assert refusal.retry_s == pytest.approx(0.05)
    rates.take("ben")  # another principal has its own
    clock.now += 0.05
    rates.take("ada")
    refused(lambda: rates.take("ada"))
    clock.now += 1.0
    for _ in range(20):
        rates.take("ada")
    refused(lambda: rates.take("ada"))


def test_refused_calls_cost_nothing_and_rest_fills_no_further_than_the_burst() -> None:
    clock = Clock()
    rates = CallRates(rate=1.0, burst=3, clock=clock)
    for _ in range(3):
        rates.take("ada")
    for _ in range(50):
        refused(lambda: rates.take("ada"))
    clock.now += 1.0
    rates.take("ada")
    clock.now += 10**6
    for _ in range(3):
        rates.take("ada")
    refused(lambda: rates.take("ada"))


def test_forgotten_buckets_grant_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUCKETS_MAX", 10)
    clock = Clock()
    rates = CallRates(rate=1.0, burst=2, clock=clock)
    for n in range(10):
        rates.take(f"p{n}")
    clock.now += 1.5
    rates.take("p0")
    rates.take("p0")
    clock.now += 1.0
    rates.take("new")  # forgets those at rest for two seconds, which are full
    rates.take("p0")
    refused(lambda: rates.take("p0"))


def test_each_quota_holds_at_its_edge() -> None:
    quotas = Quotas(stored_bytes=10, unfinished_audits=2, gpu_seconds_per_day=5, manifest_files=3)
    require_bytes(10, quotas)
    assert refused(lambda: require_bytes(11, quotas)).quota == "stored_bytes"
    require_uploads(4, replace(quotas, unfinished_uploads=4))
    assert refused(lambda: require_uploads(5, replace(quotas, unfinished_uploads=4))).quota == "unfinished_uploads"
    require_audit(1, quotas)
    assert refused(lambda: require_audit(2, quotas)).quota == "unfinished_audits"
    require_files(3, quotas)
    assert refused(lambda: require_files(4, quotas)).quota == "manifest_files"
    require_gpu(4999, 0, quotas)
    assert refused(lambda: require_gpu(5000, 0, quotas)).quota == "gpu_seconds_per_day"


def test_small_blobs_are_charged_what_their_files_take() -> None:
    assert [charged(size) for size in (0, 1, 4096, 4097)] == [0, 4096, 4096, 4097]


def test_gpu_time_comes_back_at_midnight_utc() -> None:
    quotas = Quotas(gpu_seconds_per_day=0)
    assert refused(lambda: require_gpu(0, 86_400_000 * 3 - 5_000, quotas)).retry_s == 5.0
    assert refused(lambda: require_gpu(0, 86_400_000 * 3, quotas)).retry_s == 3600.0


@pytest.mark.parametrize(("name", "gpu"), [("cpu", False), ("gpu-24g", True), ("gpu", True), ("gpux", False)])
def test_gpu_capabilities_are_told_by_name(name: str, gpu: bool) -> None:
    assert is_gpu(name) is gpu


def test_defaults_are_the_specification_s() -> None:
    assert Quotas() == Quotas(
        stored_bytes=200 * 2**30, unfinished_audits=100, gpu_seconds_per_day=86_400, manifest_files=10_000
    )
