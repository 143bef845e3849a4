from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event

from service.main import config, metrics
from service.rules.metrics import METRICS, Counters, label_values
from service.store.engine import StoreUnavailable
from service.store.gauges import read_gauges
from tests.service.main.test_config import server
from tests.service.store.planting import finished, leased, new_store, registered


def scrape(address: str) -> dict[str, dict[tuple[str, ...], float]]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


@pytest.mark.parametrize("hostile", ["tenant-a", 'x"} 1\nassay_forged 1', "BAD\x00", "a" * 10_000])
def test_no_callers_text_becomes_a_label(hostile: str) -> None:
    counters = Counters()
    counters.add("assay_refusals_total", reason=hostile)
    counters.add("assay_quota_refusals_total", quota=hostile)
    assert counters.samples("assay_refusals_total") == ((("other",), 1.0),)
    assert counters.samples("assay_quota_refusals_total") == ((("other",), 1.0),)


def test_labels_are_exactly_those_of_the_table() -> None:
    with pytest.raises(KeyError, match="tenant"):
        Counters().add("assay_refusals_total", tenant="a")
    with pytest.raises(KeyError):
        Counters().add("assay_made_up_total")
    for name, metric in METRICS.items():
        assert set(metric.labels) <= {"capability", "state", "effect", "exit_class", "reason", "quota"}, name
        assert all(len(values) < 100 for values in metric.labels.values()), f"{name} has labels without a bound"
        assert name.endswith("_total") == (metric.kind == "counter")
        assert metric.roles
        assert "signer" not in metric.roles, "the signer opens no port"


def test_every_reason_and_class_is_counted_under_its_own_name() -> None:
    for name, metric in METRICS.items():
        for key, values in metric.labels.items():
            others = {other: metric.labels[other][0] for other in metric.labels if other != key}
            for value in values:
                assert value in label_values(name, {**others, key: value})


def test_the_scheduler_tells_what_waits_and_the_api_does_not(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    registered(store, 1)
    registered(store, 2, capability="gpu-80g")
    finished(store, leased(store, registered(store, 3)))
    store.close()
    own = server(tmp_path, database_url=f"sqlite:///{tmp_path}/assay.db", metrics_address="127.0.0.1:0")
    with metrics.serving(own, "scheduler") as address:
        assert address is not None
        found = scrape(address)
    assert found["assay_database_up"] == {(): 1.0}
    assert found["assay_jobs"] == {("cpu", "QUEUED"): 1.0, ("gpu-80g", "QUEUED"): 1.0}
    assert found["assay_audits"] == {("QUEUED",): 2.0, ("SIGNING",): 1.0}
    assert found["assay_outbox_rows"][("sign",)] == 1.0
    assert found["assay_signing_oldest_seconds"][()] >= 0
    assert set(found["assay_queue_oldest_seconds"]) == {("cpu",), ("gpu-80g",)}
    assert "assay_upload_bytes_total" not in found
    with metrics.serving(own, "api") as address:
        assert address is not None
        found = scrape(address)
    assert "assay_jobs" not in found, "two processes would tell the same number twice"
    assert found["assay_upload_bytes_total"][()] >= 0.0


def test_an_unreadable_database_is_no_empty_queue() -> None:
    def away() -> object:
        raise StoreUnavailable("gone")

    collector = metrics.ProcessCollector("scheduler", Counters(), away)  # type: ignore[arg-type]
    found = {family.name: family.samples for family in collector.collect()}
    assert [sample.value for sample in found["assay_database_up"]] == [0.0]
    assert "assay_jobs" not in found
    assert "assay_lease_expiries" in found, "its own counters are told all the same"


def test_a_scrape_asks_a_fixed_number_of_questions(tmp_path: Path) -> None:
    asked: list[int] = []
    store = new_store(tmp_path)
    for count in (1, 20):
        for n in range(count):
            registered(store, 100 * count + n)
        statements: list[str] = []
        with store.read() as connection:
            event.listen(connection, "before_cursor_execute", lambda *a, seen=statements: seen.append(a[2]))
            read_gauges(connection)
        asked.append(len(statements))
    store.close()
    assert asked[0] == asked[1] == 8


def test_metrics_stay_on_loopback_unless_they_are_let_out(tmp_path: Path) -> None:
    for address in ("0.0.0.0:9464", "10.0.0.1:9464", "metrics.example:9464", "[::]:9464"):
        with pytest.raises(ValueError, match="loopback"):
            server(tmp_path, metrics_address=address)
        server(tmp_path, metrics_address=address, metrics_beyond_loopback=True)
    for address in ("127.0.0.1:9464", "[::1]:9464", "localhost:9464"):
        server(tmp_path, metrics_address=address)
    for address in ("9464", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            server(tmp_path, metrics_address=address)


def test_a_taken_port_stops_the_start_and_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        own = server(tmp_path, metrics_address=f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(config.ConfigError, match="--metrics"), metrics.serving(own, "worker"):
            pass


def test_nothing_listens_unless_asked_and_the_signer_never_does(tmp_path: Path) -> None:
    with metrics.serving(server(tmp_path), "api") as address:
        assert address is None
    with metrics.serving(server(tmp_path, metrics_address="127.0.0.1:0"), "signer") as address:
        assert address is None
