"""What every servicer of the API stands on, as one frozen value, and the settings it is made from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from assay.catalogue import Catalogue

from service.api.bearer import Issuer
from service.api.transport import STREAMS
from service.blobs import BlobStore
from service.rules.addresses import Allowed, Resolver, resolve_nothing
from service.rules.limits import QUOTAS, Quotas
from service.store.engine import Store


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files of the server's side of mutual TLS."""

    ca: Path
    """Issuer of every client's certificate; no other is accepted."""
    certificate: Path
    key: Path


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the API beyond those of the transport; `GetCapabilities` publishes each that refuses or ends a call."""

    batch_bytes: int = 3 << 20
    blob_bytes: int = 100 << 30
    find_missing: int = 1000
    uploads_per_tenant: int = 16
    watchers_per_tenant: int = 200
    calls_per_s: float = 20.0
    """Calls of one principal in the long run, in each API process (specs: service, section 15)."""
    calls_burst: int = 100
    """Calls of one principal at once."""
    quotas: Quotas = QUOTAS
    """What a tenant may hold and run."""
    unary_s: float = 30.0
    """Deadline of a unary call that came without one."""
    idle_upload_s: float = 60.0
    """A stream that sends no byte for so long loses its claim."""
    keepalive_s: float = 15.0
    """Silence in a watch is broken after so long."""
    poll_s: float = 1.0
    """One look per watched audit and so many seconds, however many watch it."""
    sync_bytes: int = 64 << 20
    """Bytes of an upload between two fsyncs."""
    part_idle_s: float = 24 * 3600.0
    """Parts to which nothing was written for so long are deleted."""

    @property
    def calls_in_flight(self) -> int:
        """Calls of one principal that run at once: all that its tenant may watch and send, and two full connections."""
        return self.watchers_per_tenant + self.uploads_per_tenant + 2 * STREAMS


@dataclass(frozen=True, kw_only=True)
class ApiSettings:
    """Everything an API process needs to know."""

    database_url: str
    blob_dir: Path
    blobs: BlobStore | None = None
    """Where blobs are, if not in that folder."""
    upload_dir: Path
    """Part files of unfinished uploads; on the blobs' file system, so that finishing is a rename."""
    address: str
    """host:port; port 0 takes a free one."""
    tls: TlsFiles
    token_address: str = ""
    """host:port for callers that show a token and no certificate; empty: every caller shows a certificate."""
    health_address: str = ""
    """host:port where anybody is told the health, and nothing else; empty: none."""
    issuers: tuple[Issuer, ...] = ()
    """Whose tokens are believed."""
    page_key: bytes
    """Secret under which page tokens are made; at least 16 bytes, the same for all processes of one server."""
    reflection: bool
    isolation_file: Path
    """Where a worker writes which isolation it could arm."""
    signer_profile: str
    """Which key signs reports: "development" or "production"."""
    catalogue: Catalogue | None = None
    """Checks that may be asked; None are those of the installed release."""
    ready: Callable[[str], None]
    """Called once with the address, when the server serves."""
    disk_floor_bytes: int | None = None
    """Free space that uploads never touch. None: the larger of 5 % and 10 GiB, in development 1 GiB."""
    limits: Limits = Limits()
    receivers: Allowed = field(default_factory=Allowed)
    """Which receivers of webhooks may be called."""
    resolve: Resolver = resolve_nothing
    """Looks receivers' names up when a webhook is made."""


@dataclass(frozen=True, kw_only=True)
class Backing:
    """The store, the blobs, the catalogue, and the server's way to stop its streams."""

    settings: ApiSettings
    store: Store
    blobs: BlobStore
    catalogue: Catalogue
    draining: asyncio.Event
    """Set when the server goes down: watches end."""

    @property
    def limits(self) -> Limits:
        """The API's limits."""
        return self.settings.limits
