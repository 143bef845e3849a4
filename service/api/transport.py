"""Limits of the transport (specs: service, section 15): what gRPC is told, and what Capabilities publishes of it."""

from __future__ import annotations

from dataclasses import dataclass

MESSAGE_BYTES = 4 << 20
"""Largest message."""

METADATA_BYTES = 8 << 10
"""Largest metadata of one call."""

STREAMS = 32
"""Calls at a time on one connection."""

Options = tuple[tuple[str, int], ...]

_OPTIONS: Options = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.max_concurrent_streams", STREAMS),
    # Only "identity": a compressed message could be small on the wire and large here. Refused with UNIMPLEMENTED.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 60_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.so_reuseport", 1),
)


@dataclass(frozen=True, kw_only=True)
class Door:
    """An address of the API, and how much comes in there at once."""

    calls: int
    """Calls in flight."""
    age_s: int
    """Age at which a connection is closed."""
    grace_s: int = 5 * 60
    """How long the calls of such a connection may go on."""
    idle_s: int = 0
    """A connection without a call is closed after so long; 0: never."""
    connections: int = 0
    """Connections at a time; 0: as many as come."""
    overload_protection: bool
    """gRPC's own guard against streams that are opened and reset."""

    @property
    def options(self) -> Options:
        """What gRPC is told."""
        options: Options = (
            *_OPTIONS,
            ("grpc.http.overload_protection", int(self.overload_protection)),
            ("grpc.max_connection_age_ms", self.age_s * 1000),
            ("grpc.max_connection_age_grace_ms", self.grace_s * 1000),
        )
        if self.idle_s:
            options = (*options, ("grpc.max_connection_idle_ms", self.idle_s * 1000))
        if self.connections:
            options = (*options, ("grpc.max_allowed_incoming_connections", self.connections))
        return options


CERTIFIED = Door(
    calls=1024,
    age_s=30 * 60,
    # It counts streams that have ended and are not yet freed, and so refuses a well-behaved client that keeps 32 open
    # (seen with 100 parallel calls). Here certificates keep strangers out, `calls` bounds what runs.
    overload_protection=False,
)
"""Where every connection has shown a certificate."""

TOKENS = Door(
    calls=512,  # places of their own: they take none of those of callers with certificates
    age_s=5 * 60,  # a token lives 15 minutes at most, and a connection that serves no call shows no token at all
    idle_s=60,
    connections=1024,
    overload_protection=True,
)
"""Where anybody connects."""

HEALTH = Door(
    calls=8, age_s=TOKENS.age_s, idle_s=TOKENS.idle_s, connections=TOKENS.connections, overload_protection=True
)
"""Where orchestrators ask for health, each of whom is answered at once."""
