"""`/metrics` of one process: its own counters, and in the scheduler the database's numbers, read at each scrape."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from service.main.config import ConfigError, Server
from service.rules.metrics import COUNTERS, METRICS, Counters, label_values
from service.store.engine import StoreError, open_store
from service.store.gauges import Gauges, read_gauges

log = logging.getLogger("assay.metrics")

SCRAPE_BUSY_MS = 1_000
"""A scrape never waits longer for the database's lock: the next one comes soon."""

STORED = "assay_database_up"
"""Told by whoever reads the database's numbers, and 0 where it cannot."""

Read = Callable[[], Gauges]


class ProcessCollector(Collector):
    """The process's own numbers.

    Args:
        role: tells only what its kind of process tells.
        counters: where they are.
        read: reads the database's numbers; None leaves them out.
    """

    def __init__(self, role: str, counters: Counters = COUNTERS, read: Read | None = None) -> None:
        self._role = role
        self._counters = counters
        self._read = read

    def collect(self) -> Iterable[Family]:
        """Yield every family of this process."""
        stored = None if self._read is None else _stored(self._read)
        for name, metric in METRICS.items():
            if self._role not in metric.roles:
                continue
            if stored is not None and name in stored:
                samples = stored[name]
            elif name in _DATABASE:
                continue  # unreadable now: an absent number is no zero
            else:
                samples = list(self._counters.samples(name))
            make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = make(name, metric.help, labels=tuple(metric.labels))
            for values, number in samples:
                family.add_metric(values, number)
            yield family


Samples = list[tuple[tuple[str, ...], float]]

_DATABASE = frozenset(
    {
        STORED, "assay_jobs", "assay_queue_oldest_seconds", "assay_audits", "assay_signing_oldest_seconds",
        "assay_outbox_rows", "assay_outbox_oldest_seconds", "assay_deliveries_pending", "assay_delivery_oldest_seconds",
    }
)  # fmt: skip
"""What is read from the database."""


def _stored(read: Read) -> dict[str, Samples]:
    try:
        found = read()
    except StoreError as error:
        log.warning("the database's numbers could not be read: %s", error)
        return {STORED: [((), 0.0)]}
    told: dict[str, Samples] = {
        STORED: [((), 1.0)],
        "assay_signing_oldest_seconds": [((), found.signing.oldest_s)],
        "assay_deliveries_pending": [((), float(found.deliveries.count))],
        "assay_delivery_oldest_seconds": [((), found.deliveries.oldest_s)],
    }
    for (capability, state), count in found.jobs.items():
        _add(told, "assay_jobs", count, capability=capability, state=state)
    for capability, waiting in found.queued.items():
        _add(told, "assay_queue_oldest_seconds", waiting.oldest_s, capability=capability)
    for state, count in found.audits.items():
        _add(told, "assay_audits", count, state=state)
    for effect, waiting in found.outbox.items():
        _add(told, "assay_outbox_rows", waiting.count, effect=effect)
        _add(told, "assay_outbox_oldest_seconds", waiting.oldest_s, effect=effect)
    return told | {name: [] for name in _DATABASE if name not in told}


def _add(told: dict[str, Samples], name: str, number: float, **labels: str) -> None:
    """Add a sample; what is counted as "other" may meet itself, and then the numbers are added."""
    values = label_values(name, labels)
    before = dict(told.get(name, []))
    before[values] = before.get(values, 0.0) + number
    told[name] = sorted(before.items())


@contextmanager
def serving(server: Server, role: str) -> Iterator[str | None]:
    """Answer GET /metrics while a role runs, if the configuration names an address; yield that address.

    Raises:
        ConfigError: the address is taken or none of this machine's.
    """
    if not server.metrics_address or role == "signer":  # the signer opens no port
        yield None
        return
    host, _, port = server.metrics_address.rpartition(":")
    store = open_store(server.database_url, busy_ms=SCRAPE_BUSY_MS) if role == "scheduler" else None

    def read() -> Gauges:
        assert store is not None
        with store.read() as connection:
            return read_gauges(connection)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(ProcessCollector(role, read=read if store else None))
    try:
        httpd, thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    except OSError as error:
        raise ConfigError(
            f"metrics_address {server.metrics_address}: {error.strerror}; each process needs one of its own, "
            f"`assay-server {role} --metrics HOST:PORT` gives it"
        ) from error
    try:
        yield f"{host}:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
        if store is not None:
            store.close()
