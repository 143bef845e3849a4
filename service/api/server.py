"""The gRPC server: the services, the guard before them, the limits of the transport."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
from assay.api.v1 import (
    approvals_pb2,
    approvals_pb2_grpc,
    audits_pb2,
    audits_pb2_grpc,
    blobs_pb2,
    blobs_pb2_grpc,
    capabilities_pb2,
    capabilities_pb2_grpc,
    checks_pb2,
    checks_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    reports_pb2,
    reports_pb2_grpc,
    schedules_pb2,
    schedules_pb2_grpc,
    webhooks_pb2,
    webhooks_pb2_grpc,
)
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.api.approvals import Approvals
from service.api.audits import Audits
from service.api.backing import Backing, TlsFiles
from service.api.bearer import Bearers, JwksRefused
from service.api.blobs import Blobs
from service.api.catalogue import Capabilities, Checks
from service.api.directory import Directory, Flights
from service.api.guard import Guard
from service.api.health import Health
from service.api.ledger import Denials, Reads, RunningCall
from service.api.models import Models
from service.api.reports import Reports
from service.api.schedules import Schedules
from service.api.transport import CERTIFIED, HEALTH, TOKENS, Door
from service.api.upload import Uploads, prepare_folder
from service.api.webhooks import Webhooks
from service.rules.access import without_row
from service.rules.limits import CallRates
from service.store.access_log import RecordedStore
from service.store.engine import StoreError

SERVICES: tuple[ServiceDescriptor, ...] = (
    approvals_pb2.DESCRIPTOR.services_by_name["Approvals"],
    audits_pb2.DESCRIPTOR.services_by_name["Audits"],
    blobs_pb2.DESCRIPTOR.services_by_name["Blobs"],
    capabilities_pb2.DESCRIPTOR.services_by_name["Capabilities"],
    checks_pb2.DESCRIPTOR.services_by_name["Checks"],
    models_pb2.DESCRIPTOR.services_by_name["Models"],
    reports_pb2.DESCRIPTOR.services_by_name["Reports"],
    schedules_pb2.DESCRIPTOR.services_by_name["Schedules"],
    webhooks_pb2.DESCRIPTOR.services_by_name["Webhooks"],
)
"""What is served besides health and reflection."""

LOG = logging.getLogger("assay.api")

HEALTH_S = 2.0
"""So long the message of such a call may take."""


class NotReady(Exception):
    """The server must not start; the message says what to correct."""


@dataclass(frozen=True)
class Served:
    """A server that is built and not yet started."""

    servers: tuple[grpc.aio.Server, ...]
    """One for callers with certificates, one for callers without where there is an address for them."""
    health: Health
    uploads: Uploads
    audits: Audits
    denials: Denials
    reads: Reads
    bearers: Bearers
    port: int
    """The port it listens on."""
    token_port: int | None
    """The port of callers without certificates, where there is one."""
    health_port: int | None
    """The port of orchestrators, where there is one."""

    async def start(self) -> None:
        """Begin to serve."""
        for server in self.servers:
            await server.start()

    async def stop(self, grace_s: float | None) -> None:
        """Take no new call, let running ones finish for `grace_s` seconds, then end them."""
        await asyncio.gather(*(server.stop(grace_s) for server in self.servers))


def build(backing: Backing) -> Served:
    """Build the server and bind its address; call it inside the running event loop.

    Raises:
        NotReady: a served method has no row in the access table, a file of TLS or of an issuer's keys is unusable,
            the page key is too short, or an address is taken.
    """
    if len(backing.settings.page_key) < 16:
        raise NotReady("page_key has fewer than 16 bytes; write 32 random bytes")
    prepare_folder(backing.settings.upload_dir)
    require_rows([*SERVICES, *_standard_services(backing.settings.reflection)])
    denials, reads = Denials(backing.store), Reads(backing.store)
    bearers = _bearers(backing)
    guard = _guard(backing, denials, reads, bearers)
    backing = replace(backing, store=RecordedStore(backing.store, RunningCall()))
    settings = backing.settings
    health = Health(backing, [service.full_name for service in SERVICES])
    uploads, audits = Uploads(backing), Audits(backing)
    servers: list[grpc.aio.Server] = []
    ports: list[int] = []
    for door, address in ((CERTIFIED, settings.address), (TOKENS, settings.token_address)):
        if address:
            server = grpc.aio.server(interceptors=(guard,), options=door.options, maximum_concurrent_rpcs=door.calls)
            ports.append(_bind(server, address, settings.tls, require_certificate=door is CERTIFIED))
            _add_services(server, backing, health, uploads, audits, door)
            servers.append(server)
    health_port = None
    if settings.health_address:
        teller, health_port = _health_server(settings.health_address, health)
        servers.append(teller)
    port, token_port = ports[0], ports[1] if settings.token_address else None
    return Served(tuple(servers), health, uploads, audits, denials, reads, bearers, port, token_port, health_port)


def _health_server(address: str, health: Health) -> tuple[grpc.aio.Server, int]:
    """Serve health alone, past the guard and in plain text, to an orchestrator that has no certificate."""

    async def check(requests: AsyncIterator[Any], context: Any) -> Any:
        try:
            async with asyncio.timeout(HEALTH_S):
                asked = await anext(requests, health_pb2.HealthCheckRequest())
        except TimeoutError:
            return await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "The message did not come.")
        return await health.servicer.Check(asked, context)

    # As a stream, so that a call without its message holds no place for longer than HEALTH_S.
    told = grpc.stream_unary_rpc_method_handler(
        check,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    server = grpc.aio.server(options=HEALTH.options, maximum_concurrent_rpcs=HEALTH.calls)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": told}),))
    return server, _bound(server.add_insecure_port, address)


def _add_services(
    server: grpc.aio.Server, backing: Backing, health: Health, uploads: Uploads, audits: Audits, door: Door
) -> None:
    approvals_pb2_grpc.add_ApprovalsServicer_to_server(Approvals(backing), server)
    audits_pb2_grpc.add_AuditsServicer_to_server(audits, server)
    blobs_pb2_grpc.add_BlobsServicer_to_server(Blobs(backing, uploads), server)
    capabilities_pb2_grpc.add_CapabilitiesServicer_to_server(Capabilities(backing, door, uploads), server)
    checks_pb2_grpc.add_ChecksServicer_to_server(Checks(backing), server)
    models_pb2_grpc.add_ModelsServicer_to_server(Models(backing), server)
    reports_pb2_grpc.add_ReportsServicer_to_server(Reports(backing), server)
    schedules_pb2_grpc.add_SchedulesServicer_to_server(Schedules(backing), server)
    webhooks_pb2_grpc.add_WebhooksServicer_to_server(Webhooks(backing), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    if backing.settings.reflection:
        names = [service.full_name for service in (*SERVICES, *_standard_services(True))]
        reflection.enable_server_reflection(names, server)


def _bearers(backing: Backing) -> Bearers:
    try:
        return Bearers(backing.settings.issuers)
    except JwksRefused as error:
        raise NotReady(str(error)) from None


def _guard(backing: Backing, denials: Denials, reads: Reads, bearers: Bearers) -> Guard:
    limits = backing.limits
    rates = CallRates(rate=limits.calls_per_s, burst=limits.calls_burst, clock=time.monotonic)
    return Guard(
        Directory(backing.store),
        bearers=bearers,
        rates=rates,
        flights=Flights(limits.calls_in_flight),
        denials=denials,
        reads=reads,
        unary_s=limits.unary_s,
    )


def require_rows(services: Sequence[ServiceDescriptor]) -> None:
    """Do nothing if the access table has a row for every method of these services.

    Raises:
        NotReady: it has not.
    """
    methods = [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]
    forgotten = without_row(methods)
    if forgotten:
        raise NotReady(f"no row in service/rules/access.py for {', '.join(forgotten)}; say who may call it")


def _standard_services(with_reflection: bool) -> tuple[Any, ...]:
    found: list[Any] = [health_pb2.DESCRIPTOR.services_by_name["Health"]]
    if with_reflection:
        found.append(reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"])
    return tuple(found)


def _bind(server: grpc.aio.Server, address: str, tls: TlsFiles, *, require_certificate: bool) -> int:
    """Listen on an address, and return its port.

    grpcio either demands a client certificate or does not ask for one (measured with 1.85.1): callers that have only a
    token need an address of their own, and there a certificate is never seen.
    """
    try:
        credentials = grpc.ssl_server_credentials(
            [(tls.key.read_bytes(), tls.certificate.read_bytes())],
            root_certificates=tls.ca.read_bytes() if require_certificate else None,
            require_client_auth=require_certificate,
        )
    except OSError as error:
        raise NotReady(f"cannot read the server's certificate, key or CA: {error}") from error
    return _bound(lambda asked: server.add_secure_port(asked, credentials), address)


def _bound(listen: Callable[[str], int], address: str) -> int:
    try:
        port = listen(address)
    except RuntimeError as error:
        raise NotReady(f"cannot listen on {address}: {error}") from error
    if port == 0:
        raise NotReady(f"cannot listen on {address}: is it taken?")
    return int(port)


async def drain(served: Served, backing: Backing, grace_s: float) -> None:
    """Tell health, end the watches, let running calls finish for `grace_s` seconds, then stop."""
    backing.draining.set()
    await served.health.probe()
    await served.stop(grace_s)
    try:
        await asyncio.to_thread(served.denials.flush)
        await asyncio.to_thread(served.reads.flush)
    except StoreError as error:
        LOG.warning("denials of the last second and reads of the last minute are lost: %s", error)
