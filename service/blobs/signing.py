"""AWS Signature Version 4 of one request: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Who signs."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str


def canonical_query(query: Mapping[str, str]) -> str:
    """Return a query as it is signed and sent: sorted, every reserved character escaped."""
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def canonical_path(path: str) -> str:
    """Return a path as it is signed and sent."""
    return quote(path, safe="/-_.~")


def authorization(
    credentials: Credentials, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> str:
    """Return the value of the Authorization header.

    Args:
        credentials: who signs.
        method: e.g. "PUT".
        path: unescaped.
        query: unescaped.
        headers: all that are signed, with lower-case names; among them host, x-amz-date and x-amz-content-sha256.
    """
    names = ";".join(sorted(headers))
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)]
    asked = [method, canonical_path(path), canonical_query(query), *lines, "", names, headers["x-amz-content-sha256"]]
    moment = headers["x-amz-date"]
    scope = f"{moment[:8]}/{credentials.region}/s3/aws4_request"
    digest = hashlib.sha256("\n".join(asked).encode()).hexdigest()
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, "\n".join([ALGORITHM, moment, scope, digest]).encode(), "sha256").hex()
    return f"{ALGORITHM} Credential={credentials.access_key}/{scope},SignedHeaders={names},Signature={signature}"
