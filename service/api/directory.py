"""Whose call this is: certificates and tokens as names, names as rows of the database, and how much one may take.

What is held against a call before its message has arrived stands here: a stranger costs a look at its metadata.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from service.rules.access import Caller
from service.rules.bearer import Token
from service.rules.certificates import CertificateMalformed, principal_in, thumbprints
from service.rules.errors import Refusal
from service.store import token_uses
from service.store.certificates import is_revoked
from service.store.engine import Store
from service.store.principals import find_caller

CACHE_S = 5.0
"""How long the database's word on a principal and its certificate is believed."""

KNOWN_MAX = 10_000
"""Principals that are remembered at once; an issuer can name any number that do not exist."""

FAILURES_MAX = 20
"""Credentials of one connection that are verified and found bad before it has to wait: a new connection costs its
sender and us a handshake of TLS, some times what the verification of a signature costs."""

FAILURES_S = 60.0
"""So long a connection's bad credentials are remembered."""


class Directory:
    """Principals by their ids, as the database has them."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[tuple[str, bytes], tuple[float, Caller | None]] = {}

    async def caller(self, identifier: str, certificate: bytes | None = None) -> Caller:
        """Return what a principal may act as, over a connection that shows this certificate.

        Args:
            identifier: the principal.
            certificate: PEM of the certificate; None if the connection shows none.

        Raises:
            Refusal: NO_CREDENTIAL: the principal is unknown or disabled, or the certificate revoked or unreadable.
            StoreError: the database cannot say; then nobody is let in.
        """
        asked = identifier, hashlib.sha256(certificate or b"").digest()
        until, caller = self._known.get(asked, (0.0, None))
        if until <= self._clock():
            caller = await asyncio.to_thread(self._read, identifier, certificate)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[asked] = (self._clock() + CACHE_S, caller)
        if caller is None:
            raise no_credential()
        return caller

    def _read(self, identifier: str, certificate: bytes | None) -> Caller | None:
        try:
            shown = thumbprints(certificate) if certificate is not None else ()
        except CertificateMalformed:
            return None
        with self._store.read() as connection:
            if shown and is_revoked(connection, shown):
                return None
            return find_caller(connection, identifier)

    async def spend(self, token: Token) -> None:
        """Let a token that is bound to no certificate change something this once.

        Raises:
            Refusal: TOKEN_USED, BAD_TOKEN.
        """

        def spend() -> None:
            with self._store.begin() as connection:
                token_uses.spend(connection, token)

        await asyncio.to_thread(spend)


class Flights:
    """Calls that run, by principal: one credential never holds every place of the server.

    Args:
        limit: calls of one principal that run at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: Counter[str] = Counter()

    def board(self, principal: str) -> Callable[[object], None]:
        """Count a call from now on; return what ends it, to be called once.

        Raises:
            Refusal: TOO_MANY_CALLS.
        """
        if self._running[principal] >= self._limit:
            text = f"{self._limit} calls of this principal already run."
            told = {"quota": "calls_in_flight", "limit": str(self._limit)}
            raise Refusal("TOO_MANY_CALLS", text, metadata=told, quota="calls_in_flight")
        self._running[principal] += 1

        def leave(_ended: object) -> None:
            self._running[principal] -= 1
            if not self._running[principal]:
                del self._running[principal]

        return leave


class Failures:
    """Bad credentials by connection, so that nobody has signatures verified without end."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def require_few(self, peer: str) -> None:
        """Do nothing if a connection may show another credential.

        Raises:
            Refusal: TOO_MANY_CALLS, with the time after which it may.
        """
        since, count = self._seen.get(peer, (0.0, 0))
        left = since + FAILURES_S - self._clock()
        if count >= FAILURES_MAX and left > 0:
            text = f"This connection showed {FAILURES_MAX} credentials that are not accepted."
            told = {"quota": "bad_credentials", "limit": str(FAILURES_MAX)}
            raise Refusal("TOO_MANY_CALLS", text, metadata=told, quota="bad_credentials", retry_s=max(left, 0.001))

    def note(self, peer: str) -> None:
        """Count a bad credential."""
        now = self._clock()
        since, count = self._seen.pop(peer, (now, 0))
        if now - since >= FAILURES_S:
            since, count = now, 0
        if len(self._seen) >= KNOWN_MAX:
            del self._seen[next(iter(self._seen))]  # whose last one is the longest ago
        self._seen[peer] = (since, count + 1)


def certified(auth_context: Mapping[str, Any]) -> str | None:
    """Return the principal that the connection's certificate names, None if it names none or there is none."""
    names = auth_context.get("x509_subject_alternative_name", ())
    found = [one for name in names if (one := principal_in(name.decode("utf-8", "replace"))) is not None]
    return found[0] if len(found) == 1 else None


def no_credential() -> Refusal:
    """Return the one refusal for whoever is nobody here, or is not believed to be who they say."""
    return Refusal("NO_CREDENTIAL", "There is no valid credential.")
