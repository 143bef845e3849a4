"""The command line of the server: `assay-server dev`, one command per role, and local administration."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from service.main import access, access_log, backup, clients, collect, config, cron, dev, journal, pki, roles, status
from service.main.alive import beating
from service.main.children import ChildFailed
from service.worker.distribution import ThirdPartyRefused
from service.worker.isolation import EXIT_REFUSED, IsolationMissing

EXIT_USAGE = 3
"""As in the client: usage or configuration; argparse's own 2 would read as "could not tell"."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]  # never returns: exits
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the return value is the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (config.ConfigError, dev.AlreadyRunning) as error:
        print(f"assay-server: {error}", file=sys.stderr)
        return EXIT_USAGE
    except IsolationMissing as error:
        print(f"assay-server: no cell can be isolated here: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except ThirdPartyRefused as error:
        print(f"assay-server: a third-party check cannot be used: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except ChildFailed as error:
        print(f"assay-server: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="assay-server", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    start = commands.add_parser("dev", help="start everything under one data folder, on loopback")
    start.add_argument("--data", type=Path, default=Path(".assay"), help="data folder (default: .assay)")
    start.add_argument("--port", type=int, default=0, help="port of the API (default: a free one)")
    start.add_argument("--slots", type=int, default=1, help="audits at a time (default: 1)")
    start.add_argument("--workers", type=int, default=1, help="worker processes, each with its slots (default: 1)")
    start.add_argument("--lease-s", type=float, default=30.0, help="lease of a job in seconds (default: 30)")
    start.add_argument("--memory-mib", type=int, help="memory limit of one cell in MiB (default: the sandbox's)")
    start.add_argument(
        "--bwrap", type=Path, default=dev.BWRAP, help="absolute path of bubblewrap (default: /usr/bin/bwrap)"
    )
    start.add_argument("--cgroup-parent", help="control group beneath which each cell gets its own (default: none)")
    start.add_argument("--warm-spares", type=int, default=0, help="cells per slot that wait, started (default: 0)")
    start.add_argument("--third-party", type=Path, metavar="FILE", help="list of the checks of others that are allowed")
    start.add_argument("--apis", type=int, default=1, help="API processes that share the port (default: 1)")
    start.add_argument(
        "--cell", metavar="script=FILE", help="rehearsal: cells isolate nothing and do what each line of FILE says"
    )
    start.add_argument("--lift-caps", action="store_true", help="rehearsal: attempts and strikes are not counted out")
    start.add_argument(
        "--metrics-port",
        type=int,
        help="port of the api's /metrics on loopback; scheduler and worker have the next two",
    )
    start.add_argument(
        "--store", metavar="URL", help="database, e.g. postgresql+psycopg://... (default: SQLite in --data)"
    )
    start.add_argument(
        "--principal",
        action="append",
        default=[],
        metavar=clients.FORM,
        help="another principal, with a certificate and clients/NAME.json in --data (repeatable; default tenant: dev)",
    )
    start.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="TOML whose sections are laid over server.toml, e.g. [times], [s3]",
    )
    start.add_argument("--no-redis", action="store_true", help="poll the database even if redis-server is installed")
    start.set_defaults(run=_dev)
    for role in roles.ROLES:
        one = commands.add_parser(role, help=f"run the {role} alone")
        one.add_argument("--config", type=Path, required=True, help="the server's TOML configuration")
        one.add_argument("--ready-fd", type=int, help="write a line here once the role serves")
        one.add_argument("--alive", type=Path, metavar="FILE", help="touch it every 10 s while the role serves")
        one.add_argument("--metrics", metavar="HOST:PORT", help="instead of the configuration's metrics_address")
        one.set_defaults(run=_role, role=role)
    migrate = commands.add_parser("migrate", help="bring the database to this version's revision")
    migrate.add_argument("--config", type=Path, required=True)
    migrate.set_defaults(run=_migrate)
    _add_administration(commands)
    journal.add_commands(commands)
    collect.add_commands(commands)
    backup.add_commands(commands)
    access_log.add_commands(commands)
    cron.add_command(commands)
    status.add_command(commands)
    return parser


def _add_administration(commands: argparse._SubParsersAction[_Parser]) -> None:
    certificates = commands.add_parser(
        "certificates", help="make a private authority, a server and client certificates"
    )
    certificates.add_argument("--out", type=Path, required=True)
    certificates.add_argument("--host", action="append", default=[], help="name or address of the server (repeatable)")
    certificates.add_argument("--principal", action="append", default=[], help="client certificate for (repeatable)")
    certificates.set_defaults(run=_certificates)
    key = commands.add_parser("signing-key", help="make the key that signs reports, unless it is there")
    key.add_argument("--out", type=Path, required=True, help="private key; the public one is written beside it")
    key.set_defaults(run=_signing_key)
    describe = commands.add_parser(
        "third-party", help="write the catalogue entries of the allowed third-party checks, each loaded in a cell"
    )
    describe.add_argument("--config", type=Path, required=True)
    describe.set_defaults(run=_third_party)
    access.add_commands(commands)


def _dev(options: argparse.Namespace) -> int:
    if options.cell is not None and not options.cell.startswith("script="):
        raise config.ConfigError(f"--cell {options.cell}: only script=FILE is known")
    if options.apis < 1:
        raise config.ConfigError(f"--apis {options.apis}: at least one process answers")
    if options.workers < 1:
        raise config.ConfigError(f"--workers {options.workers}: at least one process does the work")
    return dev.run(
        dev.DevOptions(
            data=options.data,
            port=options.port,
            slots=options.slots,
            workers=options.workers,
            lease_s=options.lease_s,
            memory_bytes=options.memory_mib * 2**20 if options.memory_mib else None,
            use_redis=not options.no_redis,
            store=options.store,
            bwrap=options.bwrap,
            cgroup_parent=options.cgroup_parent,
            warm_spares=options.warm_spares,
            third_party=options.third_party,
            apis=options.apis,
            cell_script=Path(options.cell.removeprefix("script=")) if options.cell else None,
            caps_lifted=options.lift_caps,
            metrics_port=options.metrics_port,
            settings=options.settings,
            people=clients.people(options.principal),
        )
    )


def _role(options: argparse.Namespace) -> int:
    def ready() -> None:
        begin()
        if options.ready_fd is not None:
            os.write(options.ready_fd, b"ready\n")
            os.close(options.ready_fd)

    server = config.load(options.config)
    if options.metrics is not None:
        server = config.changed(server, metrics_address=options.metrics)
    with beating(options.alive) as begin:
        roles.run(options.role, server, ready)
    return 0


def _migrate(options: argparse.Namespace) -> int:
    from service.store.migrations import migrate

    migrate(config.load(options.config).database_url)
    return 0


def _certificates(options: argparse.Namespace) -> int:
    options.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    pki.ensure(options.out, tuple(options.principal), hosts=tuple(options.host))
    return 0


def _signing_key(options: argparse.Namespace) -> int:
    from service.signer.keys import ensure_key

    print(ensure_key(options.out))
    return 0


def _third_party(options: argparse.Namespace) -> int:
    server = config.load(options.config)
    if server.third_party is None:
        raise config.ConfigError("the configuration names no list: set third_party")
    for path in roles.describe_third_party(server):
        print(path)
    return 0
