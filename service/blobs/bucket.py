"""One S3-compatible bucket over HTTP: signed requests, a bounded number of tries, errors as a blob store's own."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from service.blobs.contract import BlobFault, BlobsAway, NoSpace
from service.blobs.signing import Credentials, authorization, canonical_path, canonical_query

TRIES = 4
"""Of one request: a throttled or restarting store is back within seconds (waits of .2, .4 and .8 s)."""
WAIT_S = 0.2
ANSWER_MAX = 4 << 20
"""Bytes of an answer that is no blob: a list of 1,000 keys has about 300 KB."""
AGAIN = frozenset({409, 429, 500, 502, 503, 504})
"""Statuses after which the same request is sent again; 409 is a concurrent conditional write (S3: PutObject)."""


@dataclass(frozen=True, kw_only=True)
class S3Settings:
    """Where a bucket is, and how it is spoken to."""

    endpoint: str
    """https://host[:port]; http only on loopback."""
    bucket: str
    """Named by the path of each request, never by the host."""
    prefix: str = ""
    """What every name of an object begins with, e.g. "assay/"."""
    credentials: Credentials
    ca: Path | None = None
    """PEM of the authorities that the endpoint is verified with; None means this machine's."""
    timeout_s: float = 60.0
    """Silence after which a connection is given up."""

    def __post_init__(self) -> None:
        require_endpoint(self.endpoint)


def require_endpoint(text: str) -> None:
    """Refuse what is no endpoint.

    Raises:
        ValueError: the message says what one is.
    """
    parts = urlsplit(text)
    is_local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    if not (parts.scheme == "https" or is_local) or not parts.hostname or parts.path.strip("/") or parts.username:
        raise ValueError("endpoint: https://host[:port], without path or user; http only on loopback")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the store said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Bucket:
    """Sends signed requests. Every call opens its own connection, so that threads share nothing.

    Args:
        settings: where.
        sleep: waits between tries.
    """

    def __init__(self, settings: S3Settings, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._sleep = sleep
        self._tls: ssl.SSLContext | None = None
        if settings.endpoint.startswith("https:"):
            self._tls = ssl.create_default_context(cafile=str(settings.ca) if settings.ca else None)

    def call(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        accept: tuple[int, ...] = (200,),
        sink: Callable[[bytes], None] | None = None,
        restart: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Send one request until it is answered; return the answer if its status is accepted.

        Args:
            method: e.g. "PUT".
            key: name of the object, "" for the bucket.
            query: parameters.
            headers: further headers; they are signed.
            body: what is sent.
            accept: statuses that are no failure.
            sink: takes the body of a 200 piece by piece; `Answer.body` is then empty.
            restart: called before each try, so that a sink can begin anew.

        Raises:
            NoSpace: the store is full (507, or QuotaExceeded).
            BlobsAway: it could not be reached, or asked for patience, on every try.
            BlobFault: it refused.
        """
        failure = "no try"
        for attempt in range(TRIES):
            if attempt:
                self._sleep(WAIT_S * 2 ** (attempt - 1))
            restart()
            try:
                answer = self._once(method, key, query or {}, headers or {}, body, sink)
            except (OSError, http.client.HTTPException) as error:
                failure = type(error).__name__
                continue
            if answer.status in accept:
                return answer
            if answer.status == 507 or b"QuotaExceeded" in answer.body:
                raise NoSpace("the object store is full; free space and try again")
            failure = f"status {answer.status}"
            if answer.status not in AGAIN:
                raise BlobFault(f"the object store refused: {method} ended with {failure}")
        raise BlobsAway(f"the object store is away: {method} ended with {failure}")

    def _once(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        more: Mapping[str, str],
        body: bytes,
        sink: Callable[[bytes], None] | None,
    ) -> Answer:
        place = urlsplit(self._settings.endpoint)
        path = f"/{self._settings.bucket}/{key}" if key else f"/{self._settings.bucket}"
        headers = {
            "host": place.netloc,
            "x-amz-date": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
            "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
            **more,
        }
        signed = authorization(self._settings.credentials, method, path, query, headers)
        target = canonical_path(path) + (f"?{canonical_query(query)}" if query else "")
        with closing(self._connection()) as connection:
            sent = {**headers, "authorization": signed, "content-length": str(len(body))}
            connection.request(method, target, body=body, headers=sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            if sink is None or response.status != 200:
                return Answer(status=response.status, headers=found, body=response.read(ANSWER_MAX))
            while piece := response.read(1 << 20):
                sink(piece)
            if response.length:  # the connection was cut within the body
                raise http.client.IncompleteRead(b"", response.length)
            return Answer(status=200, headers=found, body=b"")

    def _connection(self) -> http.client.HTTPConnection:
        place = urlsplit(self._settings.endpoint)
        assert place.hostname is not None
        if place.scheme == "http":
            return http.client.HTTPConnection(place.hostname, place.port, timeout=self._settings.timeout_s)
        return http.client.HTTPSConnection(
            place.hostname, place.port, timeout=self._settings.timeout_s, context=self._tls
        )
