"""What a receiver's answer means for a delivery, and when the next try is due. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

DELAYS_S = (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 86_400)
"""Seconds between one try and the next: eleven, so that a delivery is tried twelve times over two and a half days
(specs: service, section 13)."""

JITTER = 0.1
"""Share by which a delay is longer or shorter, so that receivers that came back are not called in step (ibid.)."""

RETRY_AFTER_MAX_S = 3_600
"""A receiver may ask for so much patience with one answer, in seconds (ibid.)."""

GONE = 410
"""The one status by which a receiver switches its webhook off (RFC 9110, section 15.5.11; ibid.)."""

_SECONDS = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came of one try."""

    status: int = 0
    """HTTP status; 0 where no answer came."""
    retry_after: str = ""
    """The header of that name, as it came; empty where there was none."""
    error: str = ""
    """A word for what went wrong where no answer came, e.g. TIMED_OUT."""


@dataclass(frozen=True)
class Delivered:
    """The receiver took it."""


@dataclass(frozen=True)
class Again:
    """It is tried again."""

    delay_ms: int
    error: str


@dataclass(frozen=True)
class Dead:
    """It is given up and kept for Redeliver."""

    error: str
    disables: bool = False
    """The receiver wants no more calls at all."""


def after(tries: int, reply: Reply, *, jitter: float, now_ms: int) -> Delivered | Again | Dead:
    """Return what follows from the answer to a try.

    Args:
        tries: made so far, this one included.
        reply: what came of it.
        jitter: drawn evenly from [-1, 1].
        now_ms: milliseconds since 1970, for a Retry-After that names a date.
    """
    if 200 <= reply.status < 300:
        return Delivered()
    if reply.status == GONE:
        return Dead("GONE", disables=True)
    error = reply.error or ("REDIRECT" if 300 <= reply.status < 400 else "BAD_STATUS")
    if tries > len(DELAYS_S):
        return Dead(error)
    planned = round(DELAYS_S[tries - 1] * 1000 * (1 + JITTER * max(-1.0, min(1.0, jitter))))
    return Again(max(planned, asked_ms(reply.retry_after, now_ms)), error)


def asked_ms(retry_after: str, now_ms: int) -> int:
    """Return the patience that a Retry-After header asks for (RFC 9110, section 10.2.3), in milliseconds.

    What cannot be read, and a date that has passed, asks for none; more than an hour is cut to an hour.
    """
    text = retry_after.strip()
    if _SECONDS.fullmatch(text):
        asked = int(text) * 1000
    else:
        try:
            date = parsedate_to_datetime(text[:64])
        except (ValueError, TypeError, IndexError, OverflowError):
            return 0
        asked = round((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1000) - now_ms
    return max(0, min(asked, RETRY_AFTER_MAX_S * 1000))
