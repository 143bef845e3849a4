"""One channel to one service: deadlines, patience, and no gRPC exception beyond this page."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc

from assay.api.v1 import (
    approvals_pb2_grpc,
    audits_pb2_grpc,
    blobs_pb2_grpc,
    capabilities_pb2_grpc,
    checks_pb2_grpc,
    models_pb2_grpc,
    reports_pb2_grpc,
    schedules_pb2_grpc,
    webhooks_pb2_grpc,
)
from assay.client_errors import NoConfig, ServerRefused, TimedOut, Unreachable
from assay.config import ClientConfig
from assay.remote.wire import failure

Answer = TypeVar("Answer")

MESSAGE_MAX = 4 * 2**20
"""The service's own limit of one message."""

TOKEN_MAX = 8 * 2**10
"""Bytes of a token: the service's limit of a call's metadata."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_MAX),
    # A restarted service is found again within two seconds; the default grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A peer that vanished without a word is noticed; the service allows a ping a minute.
    ("grpc.keepalive_time_ms", 120_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Proxies of the environment would carry a mutually authenticated stream to a stranger.
    ("grpc.enable_http_proxy", 0),
)

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 5.0

TOO_OFTEN = "TOO_MANY_CALLS"
"""Reason of a call that was refused before anything was looked at: any method may be called again."""

AGAIN = ("UPLOAD_BUSY", "UPLOAD_UNFINISHED", "TOO_MANY_UPLOADS", "TOO_MANY_WATCHERS", TOO_OFTEN)
"""Reasons with which the service asks to send the same call again."""


class Patience:
    """How long to go on after breaks; starts afresh whenever something moved.

    Args:
        seconds: longest time without progress before giving up.
    """

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds, self._clock, self._sleep = seconds, clock, sleep
        self.renew()

    def renew(self) -> None:
        """Note that something moved."""
        self._since: float | None = None
        self._delay = BACKOFF_FIRST_S

    def wait(self) -> bool:
        """Wait a little longer than last time. False: patience is over, and nothing was waited.

        The first break starts the clock, not the last progress: a long healthy transfer uses up no patience.
        """
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._seconds:
            return False
        # Jitter, so that a hundred clients of a restarted service do not return in step.
        self._sleep(self._delay * random.uniform(0.5, 1.0))  # noqa: S311  # no secret depends on it
        self._delay = min(2 * self._delay, BACKOFF_MAX_S)
        return True


def is_transient(error: Exception) -> bool:
    """Tell whether the same call may simply be sent again."""
    return isinstance(error, Unreachable) or (isinstance(error, ServerRefused) and error.reason in AGAIN)


class Calls:
    """The stubs of one service.

    Args:
        config: where, and who the caller is.
        timeout_s: deadline of each unary call.
        patience_s: how long to go on after breaks, where going on is safe.

    Raises:
        NoConfig: a certificate or key file cannot be read.
    """

    def __init__(self, config: ClientConfig, *, timeout_s: float, patience_s: float) -> None:
        self.address = config.address
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        ca, self.secret, certificate = _read_files(config)
        """The private key's bytes; None where a token alone says who calls."""
        credentials = grpc.ssl_channel_credentials(ca, self.secret, certificate)
        if config.token_file is not None:
            # gRPC sends call credentials over TLS only.
            showing = grpc.metadata_call_credentials(_Token(config.token_file))
            credentials = grpc.composite_channel_credentials(credentials, showing)
        self._channel = grpc.secure_channel(config.address, credentials, options=_OPTIONS)
        self.capabilities = capabilities_pb2_grpc.CapabilitiesStub(self._channel)
        self.blobs = blobs_pb2_grpc.BlobsStub(self._channel)
        self.models = models_pb2_grpc.ModelsStub(self._channel)
        self.audits = audits_pb2_grpc.AuditsStub(self._channel)
        self.checks = checks_pb2_grpc.ChecksStub(self._channel)
        self.reports = reports_pb2_grpc.ReportsStub(self._channel)
        self.approvals = approvals_pb2_grpc.ApprovalsStub(self._channel)
        self.webhooks = webhooks_pb2_grpc.WebhooksStub(self._channel)
        self.schedules = schedules_pb2_grpc.SchedulesStub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn gRPC's exceptions into this package's.

        Raises:
            ServerRefused, Unreachable, TimedOut.
        """
        try:
            yield
        except grpc.RpcError as error:
            raise failure(error, self.address) from None

    def unary(self, method: Callable[..., Answer], request: Any, *, patient: bool = False) -> Answer:
        """Call a unary method once, or until patience is over.

        Args:
            method: a stub's method.
            request: its message.
            patient: repeat it after breaks; only for methods whose repetition changes nothing.

        Raises:
            ServerRefused, Unreachable, TimedOut.
        """
        patience = Patience(self.patience_s)
        while True:
            try:
                with self.translated():
                    return method(request, timeout=self.timeout_s)
            except (Unreachable, ServerRefused, TimedOut) as error:
                again = patient or (isinstance(error, ServerRefused) and error.reason == TOO_OFTEN)
                if not (again and is_transient(error) and patience.wait()):
                    raise


class _Token(grpc.AuthMetadataPlugin):
    """Shows the token that the file holds now."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, context: Any, callback: Callable[..., None]) -> None:
        """Hand gRPC the metadata of one call."""
        try:
            text = self._file.read_bytes()[: TOKEN_MAX + 1].strip().decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            callback((), NoConfig(f"cannot read the token in {self._file}: {error}"))
            return
        callback((("authorization", f"Bearer {text}"),), None)


def _read_files(config: ClientConfig) -> tuple[bytes, bytes | None, bytes | None]:
    try:
        if config.key is None or config.certificate is None:
            return config.ca.read_bytes(), None, None
        return config.ca.read_bytes(), config.key.read_bytes(), config.certificate.read_bytes()
    except OSError as error:
        raise NoConfig(f"cannot read {error.filename}: {error.strerror}") from None
