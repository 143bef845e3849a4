"""Limits that a caller meets: how often a principal may call, and how much a tenant may hold, run and compute.

Pure: clocks and counts are handed in. Every refusal names its quota and the number that was hit, because the caller
plans with both (specs: service, section 15).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service.rules.errors import Refusal

GIB = 1 << 30

MS_PER_DAY = 86_400_000
"""Milliseconds of a UTC day; quotas of a day start afresh at midnight UTC."""

BUCKETS_MAX = 10_000
"""Buckets kept before full ones are forgotten; a forgotten full bucket is a new full bucket, so nothing is granted."""

BLOB_LEAST = 4096
"""Bytes that a blob is charged at least: a file takes a block of the disk, however few it holds."""

ROUNDING = 1e-6
"""Part of a call that is forgiven: who waited just as long as RetryInfo said must not miss by a rounding."""

RETRY_MAX_S = 3600.0
"""Longest delay that RetryInfo names: an operator may have raised the quota meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """What one tenant may hold and run; the defaults are section 15's."""

    stored_bytes: int = 200 << 30
    """Bytes of blobs that the tenant has sent or is sending, each blob once and as `charged`."""
    unfinished_audits: int = 100
    """Audits that have neither completed, failed, nor been cancelled."""
    gpu_seconds_per_day: int = 86_400
    """Wall time of attempts on GPU capabilities that ended today (UTC), in seconds."""
    unfinished_uploads: int = 1000
    """Uploads that were begun and neither finished nor swept: each has a row and a file, whatever it has sent."""
    manifest_files: int = 10_000
    """Files of one model's manifest; never more than the ingest cell reads."""


QUOTAS = Quotas()
"""The defaults."""


@dataclass
class _Bucket:
    tokens: float
    at: float


class CallRates:
    """One token bucket per principal: `rate` calls a second in the long run, `burst` at once.

    Args:
        rate: calls per second.
        burst: calls that may come at once after a rest.
        clock: monotonic, in seconds.
    """

    def __init__(self, *, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, principal: str) -> None:
        """Count one call.

        Raises:
            Refusal: TOO_MANY_CALLS; RetryInfo says when the next call fits.
        """
        now = self._clock()
        bucket = self._buckets.get(principal)
        if bucket is None:
            self._forget(now)
            bucket = self._buckets[principal] = _Bucket(float(self._burst), now)
        bucket.tokens = min(float(self._burst), bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens < 1.0 - ROUNDING:
            wait_s = (1.0 - bucket.tokens) / self._rate
            raise _refusal(
                "TOO_MANY_CALLS",
                f"This principal may make {self._rate:g} calls a second, and {self._burst} at once.",
                "calls_per_principal",
                f"{self._rate:g}",
                retry_s=max(wait_s, 0.001),
                burst=str(self._burst),
            )
        bucket.tokens = max(0.0, bucket.tokens - 1.0)

    def _forget(self, now: float) -> None:
        if len(self._buckets) < BUCKETS_MAX:
            return
        full_after = self._burst / self._rate
        self._buckets = {name: one for name, one in self._buckets.items() if now - one.at < full_after}


def charged(size: int) -> int:
    """Return what a blob of `size` bytes counts as; the empty one, which everybody has, counts as nothing."""
    return max(size, BLOB_LEAST) if size else 0


def require_uploads(unfinished: int, quotas: Quotas) -> None:
    """Do nothing if a tenant may have so many unfinished uploads, the one that it begins included.

    Raises:
        Refusal: TOO_MANY_UPLOADS.
    """
    limit = quotas.unfinished_uploads
    if unfinished > limit:
        text = f"{limit} uploads of this tenant are not finished: finish some, or wait a day until they are swept."
        raise _refusal("TOO_MANY_UPLOADS", text, "unfinished_uploads", str(limit))


def require_bytes(held: int, quotas: Quotas) -> None:
    """Do nothing if a tenant may hold so many bytes, those on their way included.

    Raises:
        Refusal: TENANT_FULL.
    """
    if held > quotas.stored_bytes:
        limit = quotas.stored_bytes
        text = f"The tenant would hold {held} bytes, its quota stored_bytes is {limit}."
        raise _refusal("TENANT_FULL", text, "stored_bytes", str(limit), would_hold=str(held))


def require_audit(unfinished: int, quotas: Quotas) -> None:
    """Do nothing if a tenant with so many unfinished audits may submit one more.

    Raises:
        Refusal: TOO_MANY_AUDITS.
    """
    limit = quotas.unfinished_audits
    if unfinished >= limit:
        text = f"{unfinished} audits of this tenant have not ended, its quota unfinished_audits is {limit}."
        raise _refusal("TOO_MANY_AUDITS", text, "unfinished_audits", str(limit), held=str(unfinished))


def is_gpu(capability: str) -> bool:
    """Tell whether an attempt on this capability occupies a GPU ("gpu-24g", "gpu-80g")."""
    return capability == "gpu" or capability.startswith("gpu-")


def require_gpu(used_ms: int, now_ms: int, quotas: Quotas) -> None:
    """Do nothing if a tenant that used so much GPU time today may submit one more audit for a GPU.

    Args:
        used_ms: milliseconds of attempts on GPUs that ended today.
        now_ms: milliseconds since 1970 by the database's clock: tells how far the next day is.
        quotas: the tenant's.

    Raises:
        Refusal: GPU_TIME_SPENT.
    """
    limit = quotas.gpu_seconds_per_day
    if used_ms >= limit * 1000:
        left_s = (MS_PER_DAY - now_ms % MS_PER_DAY) / 1000
        used = str(used_ms // 1000)
        text = f"{used} GPU-seconds of this tenant ended today, its quota gpu_seconds_per_day is {limit}."
        wait_s = min(left_s, RETRY_MAX_S)
        raise _refusal("GPU_TIME_SPENT", text, "gpu_seconds_per_day", str(limit), retry_s=wait_s, used=used)


def disk_floor(total: int, configured: int | None, *, development: bool) -> int:
    """Return the free bytes of a disk that uploads and new leases leave alone (specs: service, section 15).

    Args:
        total: bytes of the whole disk.
        configured: what the operator says; None takes the default.
        development: a developer's disk is small and full, and 1 GiB keeps the database alive.
    """
    if configured is not None:
        return configured
    return GIB if development else max(total // 20, 10 * GIB)


def require_files(count: int, quotas: Quotas) -> None:
    """Do nothing if a model may have so many files.

    Raises:
        Refusal: TOO_MANY_FILES.
    """
    limit = quotas.manifest_files
    if count > limit:
        text = f"The manifest has {count} files, the quota manifest_files is {limit}."
        raise _refusal("TOO_MANY_FILES", text, "manifest_files", str(limit), count=str(count))


def _refusal(reason: str, text: str, quota: str, limit: str, *, retry_s: float | None = None, **told: str) -> Refusal:
    return Refusal(reason, text, metadata={"quota": quota, "limit": limit, **told}, quota=quota, retry_s=retry_s)
