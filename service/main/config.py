"""The server's configuration: one frozen value, parsed once from TOML. An unknown key stops the start and is named."""

from __future__ import annotations

import ipaddress
import json
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from sandbox.cell import KILL_BOUND_LEAST_S, KILL_BOUND_S
from service.main.callers import Issuer, Limits
from service.main.sections import S3, Sandbox, Section, Times, Tls, Traces, Webhooks
from service.main.shapes import AbsolutePath, BrokerUrl, DatabaseUrl, Listening, meet, overlap, parts
from service.rules.capability import read_served
from service.rules.states import STRIKES_MAX, check_bound

LEASE_S = 30.0
"""L in earnest (specs: service, section 15)."""

REHEARSAL_S = 6.0
"""A lease below this is a rehearsal's, whose back-off and reconciler go faster with it."""


_LEASE_LEAST_S = round(6 * KILL_BOUND_LEAST_S, 6)

_DOORS = ("address", "token_address", "health_address", "metrics_address")

__all__ = ["ConfigError", "Sandbox", "Server", "Tls", "changed", "dump", "load"]


class ConfigError(Exception):
    """The configuration cannot be used; the message names the file and the key."""


class Server(Section):
    """Everything a role needs to know. Paths are absolute; times are seconds; sizes are bytes."""

    profile: Literal["development", "production"]
    """Development: generated keys, reflection on, reports that say so."""
    database_url: DatabaseUrl
    """`sqlite:////absolute/path`, or `postgresql+psycopg://user:password@host/name` for more than one machine."""
    blobs: AbsolutePath
    """Folder of the content-addressed bytes; every role reads it; the signer may be given it read-only. With `[s3]` it
    holds caches, and each role may have another."""
    uploads: AbsolutePath
    """Folder of part files, on the file system of `blobs`: finishing an upload is a rename."""
    sync_bytes: int = Field(default=64 << 20, ge=1 << 20, le=256 << 20)
    """Bytes of an upload between two syncs: so much is sent again after a crash."""
    work: AbsolutePath
    """The worker's copies of inputs. Private to one worker: what lies there at its start is removed."""
    isolation_file: AbsolutePath
    """Where a worker tells which isolation it could arm; the API serves it."""
    broker_url: BrokerUrl = ""
    """Redis, e.g. "redis+socket:///run/assay/redis.sock"; empty means that workers poll the database."""
    address: Listening = Field(min_length=1)
    """Host and port of the API."""
    token_address: Listening = ""
    """Host and port for callers that show a token and no certificate; empty: every caller shows a certificate."""
    health_address: Listening = ""
    """Host and port where an orchestrator without a certificate asks for the api's health, in plain text; empty: none.
    Nothing else is served there: close it to all but the machine's own agent."""
    tls: Tls
    page_key: AbsolutePath
    """File of 32 random bytes that authenticate page tokens."""
    signer_socket: AbsolutePath
    """Unix socket between scheduler and signer."""
    signer_home: AbsolutePath
    """The signer's folder: registrations, salts, sealed reports and the log. It alone writes there."""
    signing_key: AbsolutePath
    """The report key's private half, P-256; readable by its owner alone."""
    log_key: AbsolutePath
    """The transparency log's private key, Ed25519; the log lies in the signer's home."""
    log_origin: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$")
    """The log's name. Readers remember logs by name: it is never changed, and never given to another log."""
    signer_uid: int
    """The user that may ask the signer: the scheduler's."""
    signer_rate_per_minute: int = Field(default=60, ge=1, le=6_000)
    """Operations that the signer does in a minute; an audit needs two, a withdrawal one. More wait their turn: a
    scheduler in the wrong hands cannot make it work without end."""
    hash_threads: int | None = Field(default=None, ge=1, le=64)
    """Files that the signer hashes at once when it weighs a model; None takes one for each core, at most 8."""
    slots: int = Field(default=1, ge=1, le=64)
    """Cells that one worker minds at once."""
    capability: tuple[str, ...] = ("cpu",)
    """Queues that a worker serves: its own first, then those of lesser needs that it takes jobs from while that one is
    empty, e.g. ["gpu-80g", "gpu-24g", "cpu"]. One word alone does as well."""
    lease_s: float = Field(default=LEASE_S, ge=_LEASE_LEAST_S, le=300.0)
    """L: at least six times the 5 s that the sandbox may take to kill a cell. Under development it may be shorter, for
    there a cell that is not dead after a sixth of it is given up, and its worker leases nothing more; containers need
    the 30 s there too."""
    strikes_max: int = Field(default=STRIKES_MAX, ge=1, le=10)
    """Ends of attempts that are the machine's fault before a job is given up. All roles are told the same."""
    drain_s: float = Field(default=600.0, ge=0.0, le=7200.0)
    """How long running cells may go on after SIGTERM before they are killed and their jobs given back."""
    memory_bytes: int | None = Field(default=None, ge=256 * 2**20)
    """Memory limit of one cell; None takes the sandbox's default."""
    warm_spares: int = Field(default=0, ge=0, le=4)
    """Cells per slot that wait with their libraries imported while nothing runs: an audit starts seconds earlier, and
    each takes about 240 MB of memory. 0, the default, starts every cell when its order has come: the self-check of a
    host attacks fresh cells, and a report of a warm one says so (`started_warm`)."""
    cell_uid: int | None = None
    """Unprivileged user of cells; needed when the worker is root, and used for nothing else."""
    bwrap: AbsolutePath = Path("/usr/bin/bwrap")
    """bubblewrap, by an absolute path; it must be neither setuid nor carry file capabilities."""
    cgroup_parent: str | None = Field(default=None, min_length=1)
    """Control group beneath which each cell gets its own, e.g. "assay" (beneath the worker's own group) or
    "/system.slice/assay-worker.service/cells". It must exist, be the worker's to write, and have the controllers
    memory, pids and cpu; then a cell without it is refused. None limits by rlimits and a watchdog, and reports say
    so."""
    sandbox: Sandbox = Sandbox()
    """Where checks measure; by default behind bubblewrap."""
    cell_script: AbsolutePath | None = None
    """Development only: cells isolate nothing and do what this script says (`service.worker.scripted`)."""
    caps_lifted: bool = False
    """Development only: attempts and strikes of a job are not counted out; a rehearsal kills workers by the hundred."""
    third_party: AbsolutePath | None = None
    """TOML list of the third-party checks that are allowed here (`service.worker.plugins`); None allows none."""

    issuers: tuple[Issuer, ...] = Field(default=(), max_length=16)
    """Whose bearer tokens are believed; none by default."""
    limits: Limits = Limits()
    """How often callers may call, and what a tenant may hold and run."""
    webhooks: Webhooks = Webhooks()
    """Which receivers of signed calls may be called."""
    s3: S3 | None = None
    """Where blobs are, if not in the folder `blobs`."""
    times: Times = Times()
    """How long is waited for what."""
    traces: Traces = Traces()
    """Where spans are sent; nowhere by default."""
    metrics_address: Listening = ""
    """Host and port of this process's `/metrics`, on loopback, e.g. "127.0.0.1:9464"; empty: none. Each process needs
    a port of its own (`assay-server ROLE --metrics HOST:PORT`); the signer never has one."""
    metrics_beyond_loopback: bool = False
    """Let `metrics_address` be no loopback address, where a network policy keeps all but the collector away."""

    @field_validator("capability", mode="before")
    @classmethod
    def _served(cls, value: object) -> object:
        words = [value] if isinstance(value, str) else value
        return read_served(words) if isinstance(words, list | tuple) else words

    @model_validator(mode="after")
    def _metrics_at_home(self) -> Server:
        if not self.metrics_address:
            return self
        host, _ = parts(self.metrics_address)
        if not _is_loopback(host.strip("[]")) and not self.metrics_beyond_loopback:
            raise ValueError("metrics_address: not on loopback; metrics_beyond_loopback = true allows it")
        return self

    @model_validator(mode="after")
    def _is_apart(self) -> Server:
        listening = {name: getattr(self, name) for name in _DOORS}
        for one, other in combinations(listening, 2):
            # The api shares its port among processes, so the system would let it listen twice and say nothing.
            if meet(listening[one], listening[other]):
                raise ValueError(f"{other}: {listening[other]} is {one}'s; give it a port of its own")
        for name in ("blobs", "uploads", "signer_home"):
            if overlap(self.work, getattr(self, name)):
                raise ValueError(f"work: lies in {name} or around it, and what lies in work is removed at a start")
        return self

    @model_validator(mode="after")
    def _issuers_are_distinct(self) -> Server:
        if len({one.issuer for one in self.issuers}) < len(self.issuers):
            raise ValueError("issuers: one is named twice; give each its one file of keys")
        if self.token_address and not self.issuers:
            raise ValueError("token_address: nobody could enter there; name the [[issuers]] of tokens too")
        return self

    @model_validator(mode="after")
    def _no_loopback_receivers(self) -> Server:
        if self.webhooks.allow_loopback_receivers and self.profile != "development":
            raise ValueError('webhooks.allow_loopback_receivers: only with profile = "development"; remove it')
        return self

    @model_validator(mode="after")
    def _no_warm_containers(self) -> Server:
        if self.warm_spares and self.sandbox.backend == "container":
            raise ValueError('warm_spares: a container starts cold; set it to 0 with sandbox.backend = "container"')
        return self

    @model_validator(mode="after")
    def _rehearses_in_development(self) -> Server:
        asked = {
            "cell_script": self.cell_script is not None,
            "caps_lifted": self.caps_lifted,
        }
        found = [name for name, is_asked in asked.items() if is_asked]
        if found and self.profile != "development":
            raise ValueError(f'{", ".join(found)}: only under profile = "development"')
        check_bound(self.lease_s, self.kill_bound_s)
        return self

    @property
    def pace(self) -> float:
        """How much faster than in earnest back-off and reconciler go: the ratio of a rehearsal's lease to 30 s."""
        return self.lease_s / LEASE_S if self.lease_s < REHEARSAL_S else 1.0

    @property
    def kill_bound_s(self) -> float:
        """Seconds within which a killed cell is gone, or counts as unkillable; cells are made with it.

        In earnest it is the sandbox's promise, whatever the lease; a container's engine knows no other.
        """
        shortened = self.profile == "development" and self.sandbox.backend == "bubblewrap"
        return min(KILL_BOUND_S, self.lease_s / 6) if shortened else KILL_BOUND_S


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name may be looked up to anything, but this one
        return host == "localhost"


def load(path: Path) -> Server:
    """Read the configuration.

    Raises:
        ConfigError: unreadable file, bad TOML, unknown or ill-typed key; names it.
    """
    return _valid(_read(path), path)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _valid(told: dict[str, Any], path: Path) -> Server:
    try:
        return Server.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {key}: {first['msg']} ({error.error_count()} problem(s) in all)") from error


def overlaid(server: Server, path: Path) -> Server:
    """Return a configuration with the sections of a file laid over its own, key by key.

    Raises:
        ConfigError: the file cannot be read, holds a key outside of any section or one of the certificates', or the
            result breaks a rule; names file and key.
    """
    told = _read(path)
    for key, value in told.items():
        if key == "tls" or not isinstance(value, dict | list):
            raise ConfigError(f"{path}: {key}: is chosen by `assay-server dev`; only other sections can be given")
    now = server.model_dump()
    laid = {key: {**(now.get(key) or {}), **one} if isinstance(one, dict) else one for key, one in told.items()}
    return _valid({**now, **laid}, path)


def changed(server: Server, **values: object) -> Server:
    """Return a configuration with other values, which are held against the same rules.

    Raises:
        ConfigError: one of them cannot be; names it.
    """
    try:
        return Server.model_validate({**server.model_dump(), **values})
    except ValidationError as error:
        raise ConfigError(str(error.errors()[0]["msg"])) from error


def dump(server: Server, path: Path) -> None:
    """Write the configuration as TOML (JSON strings and numbers are TOML too)."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in server.model_dump(mode="json", exclude_none=True).items():
        if isinstance(value, dict):
            tables += _table(f"[{key}]", value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for one in value:
                tables += _table(f"[[{key}]]", one)
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    path.write_text("\n".join([*lines, *tables, ""]), encoding="utf-8")
    path.chmod(0o600)


def _table(heading: str, value: dict[str, Any]) -> list[str]:
    return [heading, *(f"{name} = {json.dumps(item)}" for name, item in value.items())]
