"""Traces to a collector, where the configuration names one: OpenTelemetry, in the extra `otel`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.main.config import ConfigError, Server
from service.rules import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

NAME = "assay"
"""Of the instrumentation."""


class OtelTracer:
    """Records spans by a provider of OpenTelemetry's.

    Args:
        provider: where they go; nothing global is used or set.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(NAME)

    @contextmanager
    def span(self, name: str, parent: str, attributes: Mapping[str, str | int]) -> Iterator[str]:
        """See `service.rules.tracing.Tracer.span`."""
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        above = TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {}, context=Context())
        # Neither exceptions nor their texts are recorded: they name files and may quote what was sent.
        with self._tracer.start_as_current_span(
            name, context=above, attributes=dict(attributes), record_exception=False, set_status_on_exception=False
        ) as made:
            own = made.get_span_context()
            yield f"00-{own.trace_id:032x}-{own.span_id:016x}-{int(own.trace_flags):02x}"


@contextmanager
def recording(server: Server, role: str) -> Iterator[None]:
    """Record a role's spans while it runs, if `[traces] endpoint` is set; the signer, which has no network, never does.

    Raises:
        ConfigError: an endpoint is set, and the packages are not installed.
    """
    if not server.traces.endpoint or role == "signer":
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"traces.endpoint is set, and {error.name} is not installed: install the extra `otel`, or leave it empty"
        ) from error
    provider = TracerProvider(resource=Resource({"service.name": f"assay-{role}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=server.traces.endpoint)))
    tracing.install(OtelTracer(provider))
    try:
        yield
    finally:
        tracing.install(None)
        provider.shutdown()
