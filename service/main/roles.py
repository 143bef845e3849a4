"""One role in one process: settings from the configuration, then the role's own loop until SIGTERM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING

from service.main import cells
from service.main.buckets import Reaches, open_bucket
from service.main.cells import describe_third_party, operator_catalogue
from service.main.config import Server
from service.main.resolver import resolve

if TYPE_CHECKING:
    from service.api.process import Limits
    from service.rules.addresses import Allowed
    from service.rules.limits import Quotas
    from service.store.gc import Ages

__all__ = ["ROLES", "ages", "api_limits", "describe_third_party", "run"]

Ready = Callable[[], None]


def run(role: str, server: Server, ready: Ready) -> None:
    """Run a role until it is told to stop. `ready` is called once it serves."""
    from service.main.metrics import serving
    from service.main.traces import recording

    with serving(server, role), recording(server, role):
        ROLES[role](server, ready)


def _api(server: Server, ready: Ready) -> None:
    from service.api.process import ApiSettings, Issuer, TlsFiles
    from service.api.process import run as serve

    serve(
        ApiSettings(
            database_url=server.database_url,
            blob_dir=server.blobs,
            blobs=open_bucket(server, "api"),
            upload_dir=server.uploads,
            address=server.address,
            token_address=server.token_address,
            health_address=server.health_address,
            issuers=tuple(Issuer(**one.model_dump()) for one in server.issuers),
            limits=api_limits(server),
            disk_floor_bytes=server.limits.disk_floor_bytes,
            tls=TlsFiles(ca=server.tls.ca, certificate=server.tls.certificate, key=server.tls.key),
            page_key=server.page_key.read_bytes(),
            reflection=server.profile == "development",
            isolation_file=server.isolation_file,
            signer_profile=server.profile,
            catalogue=operator_catalogue(server),
            receivers=_receivers(server),
            resolve=resolve,
            ready=lambda _address: ready(),
        )
    )


def api_limits(server: Server) -> Limits:
    """Return the limits of callers; a rehearsal's few callers do the work of many, and are counted out by nothing."""
    from service.api.process import Limits

    chosen, lifted = server.limits, server.caps_lifted
    return Limits(
        calls_per_s=1e6 if lifted else chosen.calls_per_second,
        calls_burst=10**6 if lifted else chosen.calls_burst,
        watchers_per_tenant=10**5 if lifted else chosen.watchers,
        blob_bytes=chosen.blob_bytes,
        sync_bytes=server.sync_bytes,
        uploads_per_tenant=chosen.parallel_uploads,
        quotas=_quotas(server),
    )


def _quotas(server: Server) -> Quotas:
    from service.rules.limits import Quotas

    chosen = server.limits
    return Quotas(
        stored_bytes=chosen.stored_bytes,
        unfinished_audits=10**6 if server.caps_lifted else chosen.unfinished_audits,
        gpu_seconds_per_day=chosen.gpu_seconds_per_day,
        manifest_files=chosen.manifest_files,
    )


def _receivers(server: Server) -> Allowed:
    from service.rules.addresses import Allowed

    chosen = server.webhooks
    return Allowed(ports=frozenset(chosen.ports), loopback=chosen.allow_loopback_receivers)


def _worker(server: Server, ready: Ready) -> None:
    from sandbox import leftovers
    from service.rules.states import BACKOFF_BASE_MS
    from service.worker.process import WorkerSettings
    from service.worker.process import run as serve
    from service.worker.room import Room

    guest, bucket = cells.code_of_release(), open_bucket(server, "worker")
    room = Room(server.work, server.limits.disk_floor_bytes, development=server.profile == "development")
    reaches = Reaches(bucket) if bucket else None
    with (
        leftovers.workplace(cells.folder_of_cells(server)) as workplace,
        closing(cells.open_cell(server, workplace, guest)) as cell,
    ):
        sweep_more = getattr(cell, "sweep", None)
        serve(
            WorkerSettings(
                database_url=server.database_url,
                blob_dir=server.blobs,
                blobs=bucket,
                work_dir=server.work,
                broker_url=server.broker_url or None,
                poll_s=server.times.poll_s,
                slots=server.slots,
                capabilities=server.capability,
                lease_s=server.lease_s,
                cell=cell,
                guest=guest,
                isolation_file=server.isolation_file,
                memory_bytes=server.memory_bytes,
                drain_s=server.drain_s,
                backoff_base_ms=round(BACKOFF_BASE_MS * server.pace),
                strikes_max=server.strikes_max,
                caps_lifted=server.caps_lifted,
                profile=server.profile,
                has_room=lambda: room() and (reaches is None or reaches()),
                third_party=server.third_party,
                sweep=lambda: cells.sweep(server) + (sweep_more(cells.folder_of_cells(server)) if sweep_more else 0),
                ready=ready,
            )
        )


def _scheduler(server: Server, ready: Ready) -> None:
    from service.rules.states import BACKOFF_BASE_MS
    from service.scheduler.outbound import OutboundSettings
    from service.scheduler.process import SchedulerSettings
    from service.scheduler.process import run as serve

    serve(
        SchedulerSettings(
            database_url=server.database_url,
            blob_dir=server.blobs,
            blobs=open_bucket(server, "scheduler"),
            broker_url=server.broker_url or None,
            signer_socket=server.signer_socket,
            lease_s=server.lease_s,
            backoff_base_ms=round(BACKOFF_BASE_MS * server.pace),
            reconcile_s=server.times.reconcile_s * server.pace,
            misfire_ms=round(server.times.misfire_s * 1000),
            approval_wait_ms=round(server.times.approval_wait_s * 1000),
            ages=ages(server),
            strikes_max=server.strikes_max,
            caps_lifted=server.caps_lifted,
            outbound=OutboundSettings(allowed=_receivers(server), ca=server.webhooks.ca),
            resolve=resolve,
            catalogue=operator_catalogue(server),
            quotas=_quotas(server),
            ready=ready,
        )
    )


def ages(server: Server) -> Ages:
    """Return how old things must be to be collected."""
    from service.store.gc import DAY_MS, Ages

    chosen = server.times
    return Ages(unreferenced_ms=chosen.unreferenced_days * DAY_MS, idempotency_ms=chosen.idempotency_days * DAY_MS)


def _signer(server: Server, ready: Ready) -> None:
    from service.signer.process import SignerSettings
    from service.signer.process import run as serve

    serve(
        SignerSettings(
            database_url=server.database_url,
            blob_dir=server.blobs,
            blobs=open_bucket(server, "signer"),
            home=server.signer_home,
            socket=server.signer_socket,
            allowed_uid=server.signer_uid,
            key_file=server.signing_key,
            log_key_file=server.log_key,
            log_origin=server.log_origin,
            profile=server.profile,
            rate_per_minute=server.signer_rate_per_minute,
            hash_threads=server.hash_threads,
            catalogue=operator_catalogue(server),
            ready=ready,
        )
    )


ROLES: Mapping[str, Callable[[Server, Ready], None]] = {
    "api": _api,
    "worker": _worker,
    "scheduler": _scheduler,
    "signer": _signer,
}
"""The four processes of a server. Redis is a fifth, and not ours."""
