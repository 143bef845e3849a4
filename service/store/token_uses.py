"""Tokens that are bound to no certificate, each of which changes something once."""

from __future__ import annotations

from sqlalchemy import Connection, delete

from service.rules.bearer import LEEWAY_S, Token
from service.rules.errors import Refusal
from service.store.engine import now_ms
from service.store.tables import token_use
from service.store.uploads import insert_absent

KEPT_S = 15 * 60
"""A use is remembered for so long beyond the last moment at which its token could be believed: room for clocks of
different machines, of which the one that removes rows may be ahead."""


def spend(connection: Connection, token: Token) -> None:
    """Note that a token was used, and forget those that nobody believes any more.

    Args:
        connection: inside `Store.begin`.
        token: one whose signature and claims hold.

    Raises:
        Refusal: TOKEN_USED: it was used before; BAD_TOKEN: it has no `jti`.
    """
    until = (token.expires_at + LEEWAY_S + KEPT_S) * 1000
    fresh = insert_absent(connection, token_use, {"token_sha256": token.use_sha256, "expires_at": until})
    if not fresh:
        raise Refusal("TOKEN_USED", "This token has changed something before.")
    connection.execute(delete(token_use).where(token_use.c.expires_at < now_ms(connection)))
