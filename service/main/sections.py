"""Sections of the server's configuration that say how it works: certificates, cells, receivers, times."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.blobs.bucket import require_endpoint
from service.main.shapes import AbsolutePath
from service.queue.polling import POLL_S
from service.rules.approvals import WAIT_MS, WAIT_MS_LEAST, WAIT_MS_MOST
from service.rules.schedules import MISFIRE_MS


class Section(BaseModel):
    """A table of the file, whose keys are known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(Section):
    """Files of the server's certificate and of the authority that issued the clients' ones."""

    ca: AbsolutePath
    certificate: AbsolutePath
    key: AbsolutePath


class Sandbox(Section):
    """Where checks measure. A model's files are read behind bubblewrap, whatever stands here."""

    backend: Literal["bubblewrap", "container"] = "bubblewrap"
    engine: Literal["docker", "podman"] = "docker"
    program: AbsolutePath = Path("/usr/bin/docker")
    """The engine's command, by an absolute path."""
    runtime: str = "runsc"
    """gVisor's; a worker refuses to start with any other."""
    image: str = ""
    """The operator's own, by digest (`NAME@sha256:DIGEST`) and on the host already: an interpreter and the packages
    that checks need. The release's code is mounted into it."""
    interpreter: str = "/usr/local/bin/python3"
    """In the image."""
    python_path: tuple[str, ...] = ()
    """Folders of the image that hold packages, e.g. "/opt/venv/lib/python3.11/site-packages"."""

    @model_validator(mode="after")
    def _has_effect(self) -> Sandbox:
        if self.backend == "bubblewrap":
            for name, field in type(self).model_fields.items():
                if name != "backend" and getattr(self, name) != field.default:
                    raise ValueError(f'{name} is a key of backend = "container" alone')
        return self


class Webhooks(Section):
    """Which receivers are called, beyond https to public addresses on port 443."""

    ports: tuple[int, ...] = Field(default=(443,), min_length=1, max_length=16)
    """Ports that receivers may listen on."""
    ca: AbsolutePath | None = None
    """PEM of the authorities that receivers' certificates are verified with; None means this machine's."""
    allow_loopback_receivers: bool = False
    """Call receivers on this very machine too, so that one can be tried out. In the development profile only."""

    @model_validator(mode="after")
    def _are_ports(self) -> Webhooks:
        if not all(1 <= port <= 65_535 for port in self.ports):
            raise ValueError("ports: a port is 1 to 65535")
        return self


class Traces(Section):
    """Where spans of audits are sent (extra `otel`). They hold ids and numbers, no tenant's text and no parameter."""

    endpoint: str = Field(default="", pattern=r"^(https?://[^\s/]+/\S*)?$")
    """OTLP over HTTP, e.g. "http://127.0.0.1:4318/v1/traces"; empty: none."""


class S3(Section):
    """A bucket that holds the blobs of all roles, spoken to as S3 is.

    Without this section they lie in the folder `blobs`; with it, that folder holds what each role of this machine
    keeps of the bucket, in a folder of its own.
    """

    endpoint: str
    """https://HOST[:PORT]; http on loopback alone. Buckets are named by the path, not by the host."""
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]{1,64}$")
    """What requests are signed for."""
    prefix: str = Field(default="", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]{0,63}/){0,8}$")
    """What every object's name begins with, e.g. "assay/"."""
    credentials: AbsolutePath
    """File in the form of the AWS tools: `[default]` with `aws_access_key_id` and `aws_secret_access_key`; readable by
    its owner alone. Keys are read from nowhere else."""
    ca: AbsolutePath | None = None
    """PEM of the authorities that the endpoint's certificate is verified with; None means this machine's."""
    timeout_s: float = Field(default=20.0, ge=1.0, le=300.0)
    """Silence after which a connection is given up; each request is tried four times."""
    cache_bytes: int = Field(default=64 << 30, ge=1 << 20)
    """How much of what a role fetched it keeps; what was used least lately goes first, and earlier near the disk's
    floor."""

    @model_validator(mode="after")
    def _is_an_endpoint(self) -> S3:
        require_endpoint(self.endpoint)
        return self


class Times(Section):
    """How long is waited for what (specs: service, section 15). All roles of a server are told the same."""

    approval_wait_s: float = Field(default=WAIT_MS / 1000, ge=WAIT_MS_LEAST / 1000, le=WAIT_MS_MOST / 1000)
    """So long an audit waits for its owner's approval before it is cancelled; 7 days."""
    misfire_s: float = Field(default=MISFIRE_MS / 1000, ge=60.0, le=86_400.0)
    """A schedule's fire that is later is a misfire."""
    idempotency_days: int = Field(default=7, ge=1, le=30)
    """So long a repeated `request_id` returns the audit of the first one."""
    unreferenced_days: int = Field(default=7, ge=1, le=365)
    """So long a blob stays that nothing refers to and nobody asks for."""
    reconcile_s: float = Field(default=10.0, ge=1.0, le=60.0)
    """Between two comparisons of the queue with the database: a broker that forgot is told again."""
    poll_s: float = Field(default=POLL_S, ge=0.1, le=10.0)
    """Between two looks of an idle slot where there is no broker, give or take a fifth."""
