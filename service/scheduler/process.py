"""The scheduler's process: relay (two lanes), reaper, back-off and reconciler, until SIGTERM.

Two schedulers are harmless: each step is a conditional update or an idempotent effect.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from assay import catalogue
from assay.catalogue import Catalogue

from service.blobs import BlobStore, LocalBlobs
from service.queue.celery_queue import CeleryKnocker
from service.queue.contract import Knocker
from service.queue.polling import PollingKnocker
from service.rules.addresses import Resolver, resolve_nothing
from service.rules.approvals import WAIT_MS
from service.rules.limits import QUOTAS, Quotas
from service.rules.logs import log_to
from service.rules.schedules import MISFIRE_MS
from service.rules.states import BACKOFF_BASE_MS, STRIKES_MAX
from service.scheduler.approvals import APPROVALS_S, Approvals
from service.scheduler.collecting import LOOK_S, Collector
from service.scheduler.deliveries import DELIVERIES_S, Deliveries
from service.scheduler.effects import PublishEffect, SignerEffects
from service.scheduler.fires import FIRES_S, Fires
from service.scheduler.leases import BackOff, Reaper
from service.scheduler.loops import Loop, run_loops
from service.scheduler.outbound import Outbound, OutboundSettings
from service.scheduler.reconciler import RECONCILE_S, Reconciler
from service.scheduler.relay import RELAY_S, Relay
from service.scheduler.signer_client import Signer, SignerClient
from service.store.engine import Store, open_store
from service.store.gc import Ages
from service.store.intake import Intake
from service.store.migrations import check_revision

log = logging.getLogger("assay.scheduler")

SIGNER_WIDTH = 4
"""Registrations and seals at once: a large model's hashing must not hold a small one's."""


@dataclass(frozen=True, kw_only=True)
class SchedulerSettings:
    """What a scheduler needs to know. Times are seconds."""

    database_url: str
    blob_dir: Path
    blobs: BlobStore | None = None
    """Where blobs are, if not in that folder."""
    broker_url: str | None
    """Redis; None where workers poll the database."""
    signer_socket: Path
    lease_s: float = 30.0
    """L; must be the workers'."""
    backoff_base_ms: int = BACKOFF_BASE_MS
    quotas: Quotas = QUOTAS
    """Of each tenant; what schedules submit counts like everything else."""
    strikes_max: int = STRIKES_MAX
    """Strikes after which a job is given up; must be the workers'."""
    caps_lifted: bool = False
    """Whether neither attempts nor strikes are counted out: in rehearsals."""
    reconcile_s: float = RECONCILE_S
    outbound: OutboundSettings = field(default_factory=OutboundSettings)
    """How receivers of webhooks are reached."""
    resolve: Resolver = resolve_nothing
    """Looks receivers' names up at every try."""
    catalogue: Catalogue | None = None
    """Checks that a schedule's audits may ask; None are those of the installed release. Must be the api's."""
    misfire_ms: int = MISFIRE_MS
    """A fire of a schedule that is later is a misfire, in milliseconds."""
    approval_wait_ms: int = WAIT_MS
    """How long an audit waits for its owner's approval, in milliseconds."""
    ages: Ages | None = None
    """How old things must be to be collected; None takes the specification's."""
    ready: Callable[[], None] = lambda: None
    """Called once, before the loops start."""


def run(settings: SchedulerSettings) -> None:
    """Work until SIGTERM; must be called in the process's main thread.

    Raises:
        StoreNotUsable: the database is of another revision; the message tells the command to run.
        BaseException: what a loop died of.
    """
    log_to()
    check_revision(settings.database_url)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    store = open_store(settings.database_url)
    try:
        knocker: Knocker = CeleryKnocker(settings.broker_url) if settings.broker_url else PollingKnocker()
        settings.ready()
        schedule(
            settings,
            store=store,
            blobs=settings.blobs or LocalBlobs(settings.blob_dir),
            signer=SignerClient(settings.signer_socket),
            knocker=knocker,
            stop=stop,
        )
    finally:
        store.close()


def schedule(
    settings: SchedulerSettings,
    *,
    store: Store,
    blobs: BlobStore,
    signer: Signer,
    knocker: Knocker,
    stop: threading.Event,
) -> None:
    """Run the loops on given rooms until `stop` is set."""
    asking = SignerEffects(store, blobs, signer)
    knocking = Relay(store, {"publish": PublishEffect(store, knocker).publish})
    signing = Relay(
        store,
        {"register": asking.register, "sign": asking.sign, "void": asking.void, "withdraw": asking.withdraw},
        width=SIGNER_WIDTH,
        on_failure=asking.tell,
        on_success=knocking.step,  # a registered audit is knocked for at once, not at the next sweep
    )
    reaper = Reaper(
        store,
        lease_s=settings.lease_s,
        backoff_base_ms=settings.backoff_base_ms,
        strikes_max=settings.strikes_max,
        caps_lifted=settings.caps_lifted,
    )
    intake = Intake(store=store, blobs=blobs, catalogue=settings.catalogue or catalogue.load(), quotas=settings.quotas)
    firing = Fires(store, intake, misfire_ms=settings.misfire_ms)
    delivering = Deliveries(store, Outbound(settings.outbound, settings.resolve))
    tick_s = settings.lease_s / 6
    loops = (
        Loop(name="relay-signer", every_s=RELAY_S, step=signing.step),
        Loop(name="relay-queue", every_s=RELAY_S, step=knocking.step),
        Loop(name="fires", every_s=FIRES_S, step=firing.step),
        Loop(name="deliveries", every_s=DELIVERIES_S, step=delivering.step),
        Loop(name="approvals", every_s=APPROVALS_S, step=Approvals(store, wait_ms=settings.approval_wait_ms).step),
        Loop(name="collector", every_s=LOOK_S, step=Collector(store, blobs, ages=settings.ages).step),
        Loop(name="reaper", every_s=tick_s, step=reaper.step),
        Loop(name="back-off", every_s=min(1.0, tick_s), step=BackOff(store).step),
        Loop(
            name="reconciler",
            every_s=settings.reconcile_s,
            step=Reconciler(store, knocker, older_s=settings.reconcile_s).step,
        ),
    )
    try:
        run_loops(loops, stop)
    finally:
        signing.close()
        knocking.close()
        delivering.close()
