"""`assay-server dev`: the whole service under one data folder, on loopback, for development and trials."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from assay.tlog import notes

from service.main import buckets, clients, config, pki, recipes, trust
from service.main.children import RESTART_PAUSE_MAX_S, RESTART_PAUSE_S, ChildFailed, Children
from service.main.layout import Layout
from service.worker.isolation import EXIT_REFUSED, IsolationMissing

CELL_UID = 64777
"""Unprivileged user of cells when the server is root. Debian leaves 60000-64999 to packages that ask for one by
name (policy 9.2); an account that nothing else uses cannot be signalled or read by anything else either."""

BWRAP = Path("/usr/bin/bwrap")

PATIENCE_S = 20.0
"""What a child gets to drain: dev kills running cells at once, which takes the sandbox's 5 s at most."""


class AlreadyRunning(Exception):
    """Another server holds this data folder; the message names its process."""


@dataclass(frozen=True)
class DevOptions:
    """What the command line of `assay-server dev` says."""

    data: Path
    port: int = 0
    slots: int = 1
    workers: int = 1
    """Worker processes; the first is called "worker", the others "worker2", "worker3"…"""
    lease_s: float = 30.0
    memory_bytes: int | None = None
    use_redis: bool = True
    store: str | None = None
    """Address of the database; None keeps one under `data`. Another server on the same address shares its audits."""
    bwrap: Path = BWRAP
    cgroup_parent: str | None = None
    warm_spares: int = 0
    third_party: Path | None = None
    apis: int = 1
    """API processes that share the port; the first is called "api", the others "api2", "api3"…"""
    cell_script: Path | None = None
    """Cells isolate nothing and do what it says."""
    caps_lifted: bool = False
    settings: Path | None = None
    """TOML file whose sections are laid over the configuration."""
    people: tuple[clients.Person, ...] = (clients.FIRST,)
    """Principals; each has a certificate and a client file."""
    metrics_port: int | None = None
    """Of the first api's `/metrics`; scheduler and first worker have the next two. None opens none."""


def run(options: DevOptions) -> int:
    """Start everything, print one JSON line when it serves, tend it until SIGTERM or SIGINT.

    Raises:
        AlreadyRunning: another server holds the folder.
        ChildFailed: a process did not become ready.
        IsolationMissing: the worker found that no cell can be isolated here; everything was stopped.
        ThirdPartyRefused: the list of third-party checks names what cannot be used.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    layout = Layout.at(options.data)
    with _lock(layout):
        server, files = _prepare(layout, options)
        pause_s = RESTART_PAUSE_S if server.pace < 1 else RESTART_PAUSE_MAX_S  # in a rehearsal what dies was killed
        children = Children(note=_note, environment=_environment(), pause_max_s=pause_s)
        try:
            names = _start(children, layout, server, options)
            children.await_ready(names)
            _publish(children, layout)
            print(json.dumps(_ready_line(layout, server, files)), flush=True)
            _note("development server: generated keys, loopback only; not for production")
            while not stop.wait(0.2):
                _publish(children, layout)
                children.tend()
        except ChildFailed as failed:
            if failed.status == EXIT_REFUSED:  # only the worker ends so, and it has written down why
                raise IsolationMissing(_isolation(server)["detail"]) from None
            raise
        finally:
            children.stop(PATIENCE_S)
    return 0


def _prepare(layout: Layout, options: DevOptions) -> tuple[config.Server, Mapping[str, str]]:
    """Make keys and certificates where absent, bring the database to its revision, write the configuration.

    Returns:
        The configuration, and the file of each client by name.

    Raises:
        ConfigError: the script, the settings, a bucket's keys or the database's address cannot be used.
    """
    from service.signer.keys import ensure_key, ensure_log_key, load_key, load_log_key
    from service.store.engine import StoreError
    from service.store.migrations import migrate

    _check_script(options)
    pki.ensure(layout.pki, tuple(one.name for one in options.people))
    ensure_key(layout.signing_key)
    ensure_key(layout.root_key)
    ensure_log_key(layout.log_key)
    log_key = load_log_key(layout.log_key)
    vkey = notes.vkey_of(log_key, trust.log_origin(log_key.public_key().public_bytes_raw()))
    pinned = trust.ensure_root(
        layout.trust, load_key(layout.root_key), load_key(layout.signing_key), vkey, datetime.now(UTC)
    )
    page_key = layout.run / "page.key"
    if not page_key.exists():
        page_key.touch(mode=0o600)
        page_key.write_bytes(secrets.token_bytes(32))
    store = options.store or layout.database_url
    try:
        migrate(store)
        clients.enter(store, options.people)
    except StoreError as error:
        raise config.ConfigError(f"--store: {error}") from error
    redis = shutil.which("redis-server") if options.use_redis else None
    server = config.Server(
        profile="development",
        database_url=store,
        blobs=layout.blobs,
        uploads=layout.uploads,
        work=layout.work,
        isolation_file=layout.run / "isolation.json",
        broker_url=f"redis+socket://{layout.sockets / 'redis.sock'}" if redis else "",
        address=f"127.0.0.1:{options.port or _free_port()}",
        tls=config.Tls(ca=layout.pki / "ca.pem", certificate=layout.pki / "server.pem", key=layout.pki / "server.key"),
        page_key=page_key,
        signer_socket=layout.sockets / "signer.sock",
        signer_home=layout.signer,
        signing_key=layout.signing_key,
        log_key=layout.log_key,
        log_origin=vkey.name,
        signer_uid=os.getuid(),
        slots=options.slots,
        lease_s=options.lease_s,
        drain_s=0.0,
        memory_bytes=options.memory_bytes,
        cell_uid=CELL_UID if os.getuid() == 0 else None,
        bwrap=options.bwrap,
        cgroup_parent=options.cgroup_parent,
        warm_spares=options.warm_spares,
        third_party=options.third_party.resolve() if options.third_party else None,
        cell_script=options.cell_script.resolve() if options.cell_script else None,
        caps_lifted=options.caps_lifted,
    )
    if options.settings is not None:
        server = config.overlaid(server, options.settings)
        buckets.require_keys(server)  # here, or their refusal would stand in the roles' logs alone
    config.dump(server, layout.config)
    _describe(server)
    return server, clients.write_files(layout, server, pinned, options.people)


def _check_script(options: DevOptions) -> None:
    """Refuse a script that cannot be used before anything starts.

    Raises:
        ConfigError: the message names its line.
    """
    from service.worker.scripted import ScriptRefused, read_script

    if options.cell_script is not None:
        try:
            read_script(options.cell_script)
        except ScriptRefused as error:
            raise config.ConfigError(str(error)) from error


def _describe(server: config.Server) -> None:
    """Write the entries of third-party checks anew; elsewhere an operator does that, and looks at them.

    A worker would refuse a stale one, too, but its refusal would stand in its log alone.

    Raises:
        ThirdPartyRefused: the list names what cannot be used.
        IsolationMissing: no cell could be had to load them in.
    """
    from sandbox.errors import SandboxError
    from service.main.roles import describe_third_party

    try:
        for path in describe_third_party(server):
            _note(f"described {path.stem} in a cell: {path}")
    except SandboxError as error:
        raise IsolationMissing(str(error)) from None


def _start(children: Children, layout: Layout, server: config.Server, options: DevOptions) -> tuple[str, ...]:
    """Start Redis if the binary is there, then the roles; they become ready side by side."""
    if server.broker_url:
        children.start(recipes.redis(layout))
        children.await_ready(("redis",))
    tree = recipes.Tree(workers=options.workers, apis=options.apis, metrics_port=options.metrics_port)
    started = tuple(recipes.recipes(layout, server, tree))
    for one in started:
        children.start(one)
    return tuple(one.name for one in started)


def _publish(children: Children, layout: Layout) -> None:
    """Keep run/children.json, the processes by role, for whoever looks after the server."""
    text = json.dumps(children.pids())
    target = layout.run / "children.json"
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        fresh = target.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(target)


def _ready_line(layout: Layout, server: config.Server, files: Mapping[str, str]) -> dict[str, object]:
    isolation = _isolation(server)
    return {
        "ready": True,
        "address": server.address,
        "client_config": str(layout.client_config),
        "clients": dict(files),
        "dispatcher": "celery" if server.broker_url else "polling",
        "isolation": isolation["isolation"],
        "isolation_detail": isolation["detail"],
        "signer_profile": server.profile,
    }


def _isolation(server: config.Server) -> dict[str, str]:
    """Return what the worker wrote about its isolation."""
    return dict(json.loads(server.isolation_file.read_text(encoding="utf-8")))


class _lock:  # noqa: N801 - reads as a verb in the with statement
    """Hold the data folder; the lock ends with the process, however it ends."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.run / "lock"

    def __enter__(self) -> None:
        self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise AlreadyRunning(
                f"{self._path.parent.parent} is in use by the server with process id {holder}; "
                "stop it, or give --data another folder"
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    """What the children inherit: where programs and modules lie, and nothing that names a model hub or a proxy."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONUNBUFFERED": "1"}


def _note(text: str) -> None:
    print(f"assay-server: {text}", file=sys.stderr, flush=True)
