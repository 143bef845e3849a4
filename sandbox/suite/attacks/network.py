"""Attacks on the network: listeners of the host by every family that there is."""

from __future__ import annotations

import socket
from collections.abc import Callable

from .words import Found, Parameters, Probe, each

_TIMEOUT_S = 2
_QUERY = bytes.fromhex("000101000001000000000000") + b"\x06canary\x07invalid\x00\x00\x01\x00\x01"
"""A DNS question for the address of canary.invalid."""


def _connected(family: int, kind: int, address: object, protocol: int = 0, said: bytes = b"") -> Callable[[], object]:
    def connect() -> None:
        with socket.socket(family, kind, protocol) as one:
            one.settimeout(_TIMEOUT_S)
            one.connect(address)  # type: ignore[arg-type]
            if said:
                one.send(said)
            elif kind == socket.SOCK_STREAM:
                # What the listener says is the canary; said aloud, the host finds it in the logs.
                print(one.recv(64).hex(), flush=True)

    return connect


def _made(family: int, kind: int, protocol: int = 0) -> Callable[[], object]:
    def make() -> None:
        socket.socket(family, kind, protocol).close()

    return make


def internet(parameters: Parameters) -> Found:
    """Reach the test's listeners; make other sockets; aim at the address of cloud metadata and send nothing."""
    ports = parameters["ports"]
    return each(
        {
            "tcp": _connected(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", ports["tcp"])),
            "udp": _connected(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", ports["udp"]), said=b"x"),
            "tcp6": _connected(socket.AF_INET6, socket.SOCK_STREAM, ("::1", ports["tcp6"])),
            "metadata": _connected(socket.AF_INET, socket.SOCK_DGRAM, ("169.254.169.254", 80)),
            "lan": _connected(socket.AF_INET, socket.SOCK_DGRAM, ("192.168.0.1", 80)),
            "icmp": _made(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
            "raw": _made(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
            "sctp": _made(socket.AF_INET, socket.SOCK_STREAM, 132),
        }
    )


def dns(parameters: Parameters) -> Found:
    """Carry something out in a question to a resolver, by datagram and by connection."""
    ports = parameters["ports"]
    return each(
        {
            "udp": _connected(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", ports["dns"]), said=_QUERY),
            "tcp": _connected(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", ports["tcp"]), said=_QUERY),
        }
    )


def families(_parameters: Parameters) -> Found:
    """Make sockets that speak with the kernel or past the network namespace."""
    table = {
        "netlink": (16, socket.SOCK_RAW, 0), "packet": (17, socket.SOCK_RAW, 0), "vsock": (40, socket.SOCK_STREAM, 0),
        "alg": (38, socket.SOCK_SEQPACKET, 0), "bluetooth": (31, socket.SOCK_RAW, 1), "key": (15, socket.SOCK_RAW, 2),
    }  # fmt: skip
    return each({name: _made(*one) for name, one in table.items()})


def unix_path(parameters: Parameters) -> Found:
    """Connect to a host's socket by its path."""
    return each({"path": _connected(socket.AF_UNIX, socket.SOCK_STREAM, parameters["socket"])})


def abstract(parameters: Parameters) -> Found:
    """Connect to a host's abstract socket, and take a name of the same kind for oneself."""
    name = "\0" + parameters["abstract"]

    def bind() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.bind(name + "-own")

    return each({"connect": _connected(socket.AF_UNIX, socket.SOCK_STREAM, name), "bind": bind})


PROBES: dict[str, Probe] = {
    "internet": internet, "dns": dns, "families": families, "unix_path": unix_path, "abstract": abstract,
}  # fmt: skip
