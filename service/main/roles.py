"""One role in one process: settings from the configuration, then the role's own loop until SIGTERM."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from service.main.config import ConfigError, Server
from service.main.resolver import resolve

if TYPE_CHECKING:
    from assay.catalogue import Catalogue

    from sandbox import BubblewrapCell
    from sandbox.container import ContainerCell
    from sandbox.warm import WarmCell
    from service.api.process import Limits
    from service.main.config import Sandbox
    from service.rules.addresses import Allowed
    from service.rules.limits import Quotas
    from service.worker.backends import ApartCells
    from service.worker.code import Guest
    from service.worker.scripted import ScriptedCell

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
            upload_dir=server.uploads,
            address=server.address,
            token_address=server.token_address,
            issuers=tuple(Issuer(**one.model_dump()) for one in server.issuers),
            limits=api_limits(server),
            disk_floor_bytes=server.limits.disk_floor_bytes,
            tls=TlsFiles(ca=server.tls.ca, certificate=server.tls.certificate, key=server.tls.key),
            page_key=server.page_key.read_bytes(),
            reflection=server.profile == "development",
            isolation_file=server.isolation_file,
            signer_profile=server.profile,
            catalogue=_catalogue(server),
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

    guest = _guest(server)
    with leftovers.workplace(_cells(server)) as workplace, closing(_cell(server, workplace, guest)) as cell:
        sweep_more = getattr(cell, "sweep", None)
        serve(
            WorkerSettings(
                database_url=server.database_url,
                blob_dir=server.blobs,
                work_dir=server.work,
                broker_url=server.broker_url or None,
                slots=server.slots,
                capabilities=server.capability,
                lease_s=server.lease_s,
                cell=cell,
                guest=guest,
                isolation_file=server.isolation_file,
                memory_bytes=server.memory_bytes,
                drain_s=server.drain_s,
                kill_bound_s=server.kill_bound_s,
                backoff_base_ms=round(BACKOFF_BASE_MS * server.pace),
                caps_lifted=server.caps_lifted,
                profile=server.profile,
                has_room=Room(server.work, server.limits.disk_floor_bytes, development=server.profile == "development"),
                third_party=server.third_party,
                sweep=lambda: _sweep(server) + (sweep_more(_cells(server)) if sweep_more else 0),
                ready=ready,
            )
        )


def _catalogue(server: Server) -> Catalogue:
    """The checks that this service answers: the release's own, and those that the operator allows."""
    from service.worker.plugins import operator_catalogue

    return operator_catalogue(server.third_party)


def describe_third_party(server: Server) -> list[Path]:
    """Write the catalogue entry of every allowed third-party check, each loaded in a cell of its own.

    Raises:
        ThirdPartyRefused: the list names what cannot be used.
        SandboxError: no cell could be had.
    """
    import tempfile

    from service.worker.plugins import describe_all

    if server.third_party is None:
        return []
    guest = _guest(server)
    with (
        tempfile.TemporaryDirectory(prefix="assay-describe-") as folder,
        closing(_cold(server, Path(folder), guest)) as cell,
    ):
        return describe_all(server.third_party, guest, cell, Path(folder) / "third-party")


def _cells(server: Server) -> Path:
    return server.work.parent / "cells"


PRELOAD = (
    "torch",
    "transformers",
    # Both libraries import their parts on first use, which the first audit would wait for.
    "transformers.models.auto.modeling_auto",
    "transformers.models.gpt2.modeling_gpt2",
    "transformer_lens.model_bridge",
    "safetensors.torch",
    "checks.catalogue",
    "checks.run",
)
"""What a spare cell imports while it waits: code of the release and its libraries, nothing of an audit."""


def _cold(server: Server, workplace: Path, guest: Guest) -> BubblewrapCell | ApartCells:
    """Return cells that start when their order has come, of the backends that the configuration names."""
    from service.worker.backends import ApartCells

    reading = _bubblewrap(server, workplace)
    if server.sandbox.backend == "bubblewrap":
        return reading
    code = next(one for one in guest.code if one.name == "sandbox")
    return ApartCells(reading, _container(server.sandbox, workplace), code)


def _container(chosen: Sandbox, workplace: Path) -> ContainerCell:
    from sandbox.container import ContainerCell, ContainerSettings
    from sandbox.container.engine import environment_of_engine

    return ContainerCell(
        ContainerSettings(
            engine=chosen.engine,
            program=chosen.program,
            runtime=cast("Any", chosen.runtime),  # any but gVisor's is refused by what uses it
            image=chosen.image,
            interpreter=chosen.interpreter,
            python_path=chosen.python_path,
            environment=environment_of_engine(),
            work_dir=workplace,
        )
    )


def _bubblewrap(server: Server, workplace: Path) -> BubblewrapCell:
    from sandbox import BubblewrapCell, BubblewrapSettings

    return BubblewrapCell(
        BubblewrapSettings(
            bwrap=server.bwrap,
            cell_uid=server.cell_uid,
            work_dir=workplace,
            cgroup_parent=server.cgroup_parent,
        )
    )


def _cell(server: Server, workplace: Path, guest: Guest) -> BubblewrapCell | WarmCell | ApartCells | ScriptedCell:
    from sandbox.warm import WarmCell

    if server.cell_script is not None:
        return _scripted(server, workplace)
    spares = server.warm_spares * server.slots
    if not spares:
        return _cold(server, workplace, guest)
    return WarmCell(_bubblewrap(server, workplace), spares=spares, preload=PRELOAD, code=guest.code)


def _scripted(server: Server, workplace: Path) -> ScriptedCell:
    from sandbox import ProcessCell
    from service.worker.scripted import ScriptedCell, ScriptRefused, read_script

    assert server.cell_script is not None
    try:
        script = read_script(server.cell_script)
    except ScriptRefused as error:
        raise ConfigError(str(error)) from error
    reasons = {one.name: str(one.raw["reasons"][0]) for one in _catalogue(server).checks}
    return ScriptedCell(ProcessCell(unsafe=True, work_dir=workplace), script, reasons)


def _sweep(server: Server) -> int:
    """Remove folders and control groups that no living worker holds, and processes that have lost their launcher."""
    from sandbox import cgroups, leftovers, orphans
    from sandbox.bubblewrap.settings import CELL_UID

    uid = (server.cell_uid or CELL_UID) if os.geteuid() == 0 else os.geteuid()
    count = leftovers.sweep(_cells(server)) + orphans.end_orphans(frozenset({uid}))
    if server.cgroup_parent is not None:
        count += cgroups.sweep(cgroups.open_parent(server.cgroup_parent))
    return count


def _guest(server: Server) -> Guest:
    """The three packages that a cell needs, mounted as they are installed here."""
    from sandbox import CodeMount
    from service.worker.code import Guest

    packages = ("checks", "sandbox", "assay")
    return Guest(code=tuple(CodeMount(name=name, source=package_folder(name)) for name in packages))


def _scheduler(server: Server, ready: Ready) -> None:
    from service.rules.states import BACKOFF_BASE_MS
    from service.scheduler.outbound import OutboundSettings
    from service.scheduler.process import SchedulerSettings
    from service.scheduler.process import run as serve
    from service.scheduler.reconciler import RECONCILE_S

    serve(
        SchedulerSettings(
            database_url=server.database_url,
            blob_dir=server.blobs,
            broker_url=server.broker_url or None,
            signer_socket=server.signer_socket,
            lease_s=server.lease_s,
            backoff_base_ms=round(BACKOFF_BASE_MS * server.pace),
            reconcile_s=RECONCILE_S * server.pace,
            caps_lifted=server.caps_lifted,
            outbound=OutboundSettings(allowed=_receivers(server), ca=server.webhooks.ca),
            resolve=resolve,
            catalogue=_catalogue(server),
            quotas=_quotas(server),
            ready=ready,
        )
    )


def _signer(server: Server, ready: Ready) -> None:
    from service.signer.process import SignerSettings
    from service.signer.process import run as serve

    serve(
        SignerSettings(
            database_url=server.database_url,
            blob_dir=server.blobs,
            home=server.signer_home,
            socket=server.signer_socket,
            allowed_uid=server.signer_uid,
            key_file=server.signing_key,
            log_key_file=server.log_key,
            log_origin=server.log_origin,
            profile=server.profile,
            catalogue=_catalogue(server),
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


def package_folder(name: str) -> Path:
    """Return where a top-level package lies, without importing it.

    Raises:
        ConfigError: the package is not installed here.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"package {name!r} is not installed here; install the worker's dependencies: `make setup`")
    return Path(next(iter(spec.submodule_search_locations))).resolve()
