"""Asking the signer: one JSON line to its socket, one JSON line back."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from assay import canonical, strict_json
from assay.errors import Malformed
from assay.manifest import is_sha256

from service.scheduler.errors import SignerRefused, SignerUnavailable

ANSWER_MAX = 4 * 2**20
"""Bytes of an answer; `seal` names every file of a report."""

PATIENCE_S = 600.0
"""`register` hashes the model: 600 s is 300 GB at the 500 MiB/s of one core."""

_CODE = re.compile(r"[A-Z][A-Z_]{0,63}")


class Signer(Protocol):
    """Whoever signs."""

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to an operation.

        Raises:
            SignerUnavailable: nobody answered, or not in our words.
            SignerRefused: the answer is no.
        """
        ...


class SignerClient:
    """The signer behind its socket.

    Args:
        path: the socket.
        patience_s: longest wait for an answer, in seconds.
    """

    def __init__(self, path: Path, *, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._patience_s = patience_s

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """See `Signer.ask`."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._patience_s)
                connection.connect(str(self._path))
                connection.sendall(canonical.dumps(dict(question)) + b"\n")
                line = _read_line(connection)
        except OSError as error:
            raise SignerUnavailable(f"the signer at {self._path} does not answer: {error}") from error
        return _answer(line)


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) <= ANSWER_MAX:
        piece = connection.recv(65_536)
        if not piece:
            break
        line += piece
    return line


def _answer(line: bytes) -> dict[str, Any]:
    try:
        answer = strict_json.loads(line, ANSWER_MAX)
    except Malformed as error:
        raise SignerUnavailable(f"the signer's answer is not in our words: {error}") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        raise SignerUnavailable("the signer's answer is not in our words: no `ok`")
    if not answer["ok"]:
        code = answer.get("code")
        known = isinstance(code, str) and _CODE.fullmatch(code) is not None
        lost = str(answer.get("blob", ""))
        raise SignerRefused(
            str(code) if known else "SIGNER_REFUSED",
            str(answer.get("message", ""))[:512],
            blob=lost if is_sha256(lost) else "",
        )
    return answer
