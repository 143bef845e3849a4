"""What can be measured of the running service, as data, and the counters that every floor may add to.

Labels have values from fixed sets: no tenant's text, no name and no digest ever becomes one. Whatever is not in its set
is counted as "other". How the numbers leave a process is `service.main.metrics`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from service.rules.capability import CAPABILITIES
from service.rules.errors import REASONS
from service.rules.states import AUDIT_ENDED, AuditState, ExitClass

OTHER = "other"
"""What a label's value is counted as where its set does not hold it."""

JOB_STATES = ("QUEUED", "LEASED", "WAITING")
"""Of jobs that live; the others only grow, and a query over them would grow with them."""

EFFECTS = ("register", "publish", "sign", "void", "withdraw")
"""Kinds of the outbox."""

QUOTAS = (
    "calls_per_principal", "disk", "blob_bytes", "stored_bytes", "manifest_files", "parallel_uploads", "watchers",
    "unfinished_audits", "gpu_seconds", "gpu_seconds_per_day", "schedules", "webhooks",
    "unfinished_uploads",
)  # fmt: skip
"""Subjects of refusals by quota, as `Refusal.quota` spells them."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One family of numbers."""

    kind: Literal["counter", "gauge"]
    """A counter lives in its process and begins at 0; a gauge of the database is read at every scrape."""
    help: str
    roles: tuple[str, ...]
    """Processes that tell it."""
    labels: Mapping[str, tuple[str, ...]]
    """Label -> every value that it may have, besides "other"."""


def _of(kind: Literal["counter", "gauge"], text: str, /, *roles: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(kind=kind, help=text, roles=roles, labels=labels)


_LIVE = tuple(state.value for state in AuditState if state not in AUDIT_ENDED)
_CLASSES = tuple(one.value for one in ExitClass)

METRICS: Mapping[str, Metric] = {
    # Read from the database at scrape time, by the scheduler alone: two processes would tell the same number twice.
    "assay_database_up": _of("gauge", "1 if the database answered this scrape.", "scheduler"),
    "assay_jobs": _of(
        "gauge", "Jobs that live, by what they need.", "scheduler", capability=CAPABILITIES, state=JOB_STATES
    ),
    "assay_queue_oldest_seconds": _of(
        "gauge",
        "Age of the oldest job that could be leased now, since its audit was submitted.",
        "scheduler",
        capability=CAPABILITIES,
    ),
    "assay_audits": _of("gauge", "Audits that have not ended.", "scheduler", state=_LIVE),
    "assay_signing_oldest_seconds": _of("gauge", "Age of the oldest result that is not signed.", "scheduler"),
    "assay_outbox_rows": _of("gauge", "Effects that are owed.", "scheduler", effect=EFFECTS),
    "assay_outbox_oldest_seconds": _of("gauge", "Age of the oldest effect that is owed.", "scheduler", effect=EFFECTS),
    "assay_deliveries_pending": _of("gauge", "Calls to receivers that are owed.", "scheduler"),
    "assay_delivery_oldest_seconds": _of("gauge", "Age of the oldest call to a receiver that is owed.", "scheduler"),
    # Counted in the process that tells them.
    "assay_lease_expiries_total": _of("counter", "Jobs taken from workers whose beats stopped.", "scheduler"),
    "assay_attempts_total": _of(
        "counter", "Attempts that ended, by class.", "worker", "scheduler", exit_class=_CLASSES
    ),
    "assay_fenced_writes_total": _of("counter", "Attempts whose lease was over before they ended.", "worker"),
    "assay_upload_bytes_total": _of("counter", "Bytes of blobs that callers sent.", "api"),
    "assay_copied_bytes_total": _of("counter", "Bytes of blobs that uploads copied from others.", "api"),
    "assay_watchers": _of("gauge", "Watches that are open.", "api"),
    "assay_refusals_total": _of("counter", "Calls that were refused, by reason.", "api", reason=tuple(REASONS)),
    "assay_quota_refusals_total": _of("counter", "Calls over a limit, by the limit.", "api", quota=QUOTAS),
}
"""Name -> what it is. The names are an interface: alerts are set on them (docs/operations.md)."""

Sample = tuple[tuple[str, ...], float]
"""Values of the labels, in the metric's own order, and the number."""


class Counters:
    """Numbers of one process. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, dict[tuple[str, ...], float]] = {}

    def add(self, name: str, amount: float = 1.0, /, **labels: str) -> None:
        """Add to a number; of a gauge also less than nothing.

        Raises:
            KeyError: there is no such metric, or it has not exactly these labels.
        """
        values = label_values(name, labels)
        with self._lock:
            of = self._found.setdefault(name, {})
            of[values] = of.get(values, 0.0) + amount

    def samples(self, name: str) -> tuple[Sample, ...]:
        """Return a metric's numbers; one without labels is told from its first moment on, as 0."""
        with self._lock:
            found = dict(self._found.get(name, {}))
        if not found and not METRICS[name].labels:
            found = {(): 0.0}
        return tuple(sorted(found.items()))


def label_values(name: str, labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return a metric's labels in their order, each from its set.

    Raises:
        KeyError: there is no such metric, or it has not exactly these labels.
    """
    allowed = METRICS[name].labels
    if set(labels) != set(allowed):
        raise KeyError(f"{name} has the labels {sorted(allowed)}, not {sorted(labels)}")
    return tuple(labels[key] if labels[key] in values else OTHER for key, values in allowed.items())


COUNTERS = Counters()
"""This process's numbers."""
