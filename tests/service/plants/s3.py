"""An S3 look-alike that checks signatures and payload digests, keeps what S3 keeps, and fails when it is told to."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from service.blobs.signing import Credentials, authorization

WHO = Credentials(access_key="PLANTED", secret_key="planted secret", region="nowhere-1")
PAGE = 3
"""Keys of one list: small, so that lists have pages."""


@dataclass
class Bucket:
    """What the look-alike holds, and how it misbehaves."""

    address: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    begun: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of uploads that are not completed: their object's name, and the moment of their beginning."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """(part of a request line, what goes wrong): each is spent by the first request that it fits. `500`, `507`, `cut`
    (the connection ends within the body), `drop` (before any answer), `etag`, `flip` (other bytes), `late-error`,
    `short` (stores less than was sent)."""
    log: list[str] = field(default_factory=list)


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *_arguments: Any) -> None:
        self.bucket.log.append(self.requestline)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        place = urlsplit(self.path)
        query = dict(parse_qsl(place.query, keep_blank_values=True))
        path = unquote(place.path)
        fault = self._fault()
        if fault == "drop":
            self.close_connection = True
            self.connection.close()
            return
        if fault in ("500", "507"):
            self._answer(int(fault), b"<Error><Code>Planted</Code></Error>")
        elif not self._is_signed(path, query, body):
            self._answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        else:
            self._act(path.removeprefix("/bucket").removeprefix("/"), query, body, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _fault(self) -> str:
        for one in self.bucket.faults:
            if one[0] in self.requestline:
                self.bucket.faults.remove(one)
                return one[1]
        return ""

    def _is_signed(self, path: str, query: dict[str, str], body: bytes) -> bool:
        told = self.headers.get("authorization", "")
        names = re.search(r"SignedHeaders=([^,]*)", told)
        if names is None or self.headers["x-amz-content-sha256"] != hashlib.sha256(body).hexdigest():
            return False
        signed = {name: self.headers.get(name, "") for name in names[1].split(";")}
        held = {name.lower() for name in self.headers if name.lower().startswith(("x-amz-", "if-"))} | {"host"}
        return held <= set(signed) and told == authorization(WHO, self.command, path, query, signed)

    def _act(self, key: str, query: dict[str, str], body: bytes, fault: str) -> None:
        held = self.bucket
        if not key:
            return self._list_uploads(query) if "uploads" in query else self._list(query)
        if "uploads" in query:
            name = secrets.token_hex(4) + "&<"
            held.uploads[name] = {}
            held.begun[name] = (key, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"))
            return self._answer(200, b"<R><UploadId>" + name[:-2].encode() + b"&amp;&lt;</UploadId></R>")
        if "uploadId" in query:
            return self._multipart(key, query, body, fault)
        if self.command == "PUT":
            if self.headers.get("if-none-match") == "*" and key in held.objects:
                return self._answer(412, b"")
            held.objects[key] = body[:-1] if fault == "short" else body
            return self._answer(200, b"", etag=_etag(body))
        if self.command == "DELETE":
            held.objects.pop(key, None)
            return self._answer(204, b"")
        if key not in held.objects:
            return self._answer(404, b"")
        data = held.objects[key]
        return self._answer(200, bytes(len(data)) if fault == "flip" else data, etag=_etag(data), cut=fault == "cut")

    def _multipart(self, key: str, query: dict[str, str], body: bytes, fault: str) -> None:
        held, name = self.bucket, query["uploadId"]
        parts = held.uploads.get(name)
        if parts is None:
            return self._answer(404, b"<Error><Code>NoSuchUpload</Code></Error>")
        if self.command == "DELETE":
            del held.uploads[name]
            return self._answer(204, b"")
        if self.command == "PUT":
            parts[int(query["partNumber"])] = body
            return self._answer(200, b"", etag='"wrong"' if fault == "etag" else _etag(body))
        if fault == "late-error":
            return self._answer(200, b"<Error><Code>InternalError</Code></Error>")
        told = re.findall(rb"<PartNumber>(\d+)</PartNumber><ETag>([^<]*)</ETag>", body)
        asked = [(int(number), tag.decode().replace("&quot;", '"')) for number, tag in told]
        if asked != [(number, _etag(data)) for number, data in sorted(parts.items())]:
            return self._answer(400, b"<Error><Code>InvalidPart</Code></Error>")
        if self.headers.get("if-none-match") == "*" and key in held.objects:
            return self._answer(412, b"")
        held.objects[key] = b"".join(parts[number] for number, _ in asked)
        del held.uploads[name]
        return self._answer(200, b"<CompleteMultipartUploadResult/>")

    def _list(self, query: dict[str, str]) -> None:
        keys = sorted(key for key in self.bucket.objects if key.startswith(query.get("prefix", "")))
        keys = [key for key in keys if key > query.get("continuation-token", "")]
        page = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys[:PAGE])
        more = f"<NextContinuationToken>{keys[PAGE - 1]}</NextContinuationToken>" if len(keys) > PAGE else ""
        self._answer(200, f"<ListBucketResult>{page}{more}</ListBucketResult>".encode())

    def _list_uploads(self, query: dict[str, str]) -> None:
        found = [(name, *self.bucket.begun[name]) for name in self.bucket.uploads]
        told = "".join(
            f"<Upload><Key>{key}</Key><UploadId>{escape(name)}</UploadId><Initiated>{at}</Initiated></Upload>"
            for name, key, at in found
            if key.startswith(query.get("prefix", ""))
        )
        self._answer(200, f"<ListMultipartUploadsResult>{told}</ListMultipartUploadsResult>".encode())

    def _answer(self, status: int, body: bytes, *, etag: str = "", cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if etag:
            self.send_header("etag", etag)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


@contextmanager
def served(bucket: Bucket | None = None) -> Iterator[Bucket]:
    """Run a look-alike on loopback; one that was run before begins again where it was, with what it held."""
    bucket = bucket or Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", int(bucket.address.rpartition(":")[2] or 0)), handler)
    bucket.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
