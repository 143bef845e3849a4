"""What values of the configuration must look like, so that a slip stops the start and not a role an hour later."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

BROKERS = ("redis", "rediss", "redis+socket")
"""Schemes of a broker's address that the queue understands."""

DATABASES = ("sqlite", "postgresql+psycopg")
"""Kinds of database that the store opens."""

_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
"""A name, an IPv4 address, or an IPv6 address in brackets."""

_ANY = ("0.0.0.0", "[::]")  # noqa: S104 - names all of a machine's addresses, and binds none
"""Hosts that stand for every address of the machine."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{str(path)!r} is no absolute path without ..: each role starts in a folder of its own")
    return path


def _listening(address: str) -> str:
    if address:
        parts(address)
    return address


def parts(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT.

    Raises:
        ValueError: it has not that form.
    """
    host, _, port = address.rpartition(":")
    if not _HOST.fullmatch(host) or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError(f'{address!r} is not HOST:PORT, e.g. "0.0.0.0:7443" or "[::]:7443"')
    return host, int(port)


def meet(one: str, other: str) -> bool:
    """Tell whether two addresses to listen on are the same one; port 0 takes a free one and meets none."""
    if not one or not other:
        return False
    (host, port), (other_host, other_port) = parts(one), parts(other)
    return port == other_port != 0 and (host == other_host or host in _ANY or other_host in _ANY)


def _database(url: str) -> str:
    kind, _, rest = url.partition("://")
    if kind not in DATABASES or (kind == "sqlite" and not rest.startswith("//")):
        # The address itself may hold a password.
        raise ValueError("is neither sqlite:////absolute/path nor postgresql+psycopg://user:password@host/name")
    return url


def _broker(url: str) -> str:
    if url and urlsplit(url).scheme not in BROKERS:
        raise ValueError(f"its scheme is none of {', '.join(BROKERS)}")
    return url


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Listening = Annotated[str, AfterValidator(_listening)]
"""HOST:PORT to listen on, or empty."""
DatabaseUrl = Annotated[str, AfterValidator(_database)]
BrokerUrl = Annotated[str, AfterValidator(_broker)]


def overlap(one: Path, other: Path) -> bool:
    """Tell whether one folder is the other, or lies in it."""
    return one.is_relative_to(other) or other.is_relative_to(one)
