from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from service.main import config, traces
from service.rules import tracing
from service.scheduler.effects import SignerEffects
from service.store.outbox import owed
from service.store.tables import job
from tests.service.main.test_config import server
from tests.service.store.planting import new_store, registration, submit
from tests.service.worker.conftest import place as _place
from tests.service.worker.scripted import House

place = _place

ABOVE = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.fixture
def spans() -> Iterator[Any]:
    pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed; nothing else needs it")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracing.install(traces.OtelTracer(provider))
    yield kept
    tracing.install(None)
    provider.shutdown()


def test_an_attempt_and_its_phases_are_of_the_trace_that_submitted(place: House, spans: Any) -> None:
    key = place.submit()
    with place.store.begin() as connection:
        connection.execute(update(job).where(job.c.id == key).values(traceparent=ABOVE))
    place.attempt(key)
    found = {one.name: one for one in spans.get_finished_spans()}
    assert {"attempt", "materialise", "cells", "store"} <= set(found)
    assert all(f"{one.context.trace_id:032x}" == "ab" * 16 for one in found.values())
    assert f"{found['attempt'].parent.span_id:016x}" == "cd" * 8
    for name in ("materialise", "cells", "store"):
        assert found[name].parent.span_id == found["attempt"].context.span_id
    assert found["attempt"].attributes["audit"] == key
    for one in found.values():
        assert set(one.attributes) <= tracing.ATTRIBUTES
        assert not one.events, "no exception's text leaves"


def test_what_is_submitted_under_a_span_is_signed_under_it(tmp_path: Path, spans: Any) -> None:
    class Signer:
        def ask(self, question: Any) -> dict[str, Any]:
            return {"ok": True, "registration": registration()}

    store = new_store(tmp_path)
    with tracing.span("submit"):
        here = tracing.current()
        with store.begin() as connection:
            key = submit(connection)
            connection.execute(update(job).where(job.c.id == key).values(traceparent=here))
    with store.read() as connection:
        (debt,) = owed(connection, ("register",))
        assert tracing.is_traceparent(connection.execute(select(job.c.traceparent)).scalar_one())
    SignerEffects(store, None, Signer()).register(debt)  # type: ignore[arg-type]
    store.close()
    found = {one.name: one for one in spans.get_finished_spans()}
    assert found["register"].parent.span_id == found["submit"].context.span_id


def test_a_span_of_an_exception_keeps_no_text_of_it(spans: Any) -> None:
    with pytest.raises(ValueError, match="secret"), tracing.span("attempt"):
        raise ValueError("secret")
    (one,) = spans.get_finished_spans()
    assert "secret" not in one.to_json()
    assert tracing.current() == ""


def test_names_and_attributes_come_from_a_fixed_list() -> None:
    for name, told in (("tenant-a", {}), ("attempt", {"tenant": "a"}), ("attempt", {"params": "{}"})):
        with pytest.raises(KeyError), tracing.span(name, **told):
            pass


@pytest.mark.parametrize(
    "text",
    ["", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "01" + ABOVE[2:], ABOVE + "-x", ABOVE.upper(), "a\n" + ABOVE],
)
def test_a_malformed_parent_is_no_parent(text: str) -> None:
    assert not tracing.is_traceparent(text)


def test_everything_works_without_the_packages(place: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with traces.recording(server(tmp_path), "worker"):
        place.attempt(place.submit())
    with place.store.read() as connection:
        assert connection.execute(select(job.c.traceparent)).scalar_one() == ""
    endpoint = {"endpoint": "http://127.0.0.1:4318/v1/traces"}
    with (
        pytest.raises(config.ConfigError, match="otel"),
        traces.recording(server(tmp_path, traces=endpoint), "worker"),
    ):
        pass
    with traces.recording(server(tmp_path, traces=endpoint), "signer"):  # it has no network to send by
        pass


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "file:///etc/passwd", "http://", "http://a b/"])
def test_an_endpoint_that_is_none_stops_the_start(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        server(tmp_path, traces={"endpoint": endpoint})
