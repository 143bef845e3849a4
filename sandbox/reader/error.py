"""The one error of the readers, and how untrusted text is shown in it."""

from __future__ import annotations

import errno

NAME_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@+-")
SHOWN_MAX = 128


class ReaderError(Exception):
    """The file is refused.

    Attributes:
        code: from the closed list of refusal codes, e.g. "json_duplicate_key".
        at: where, as `kind:value` with kind one of key, tensor, line, offset; empty when it is the file as a whole.
    """

    def __init__(self, code: str, at: str = "") -> None:
        super().__init__(f"{code}{f' at {at}' if at else ''}")
        self.code = code
        self.at = at


_NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})
"""What opening a link, a socket or a device without a driver says, when nothing is followed."""


def unopened(error: OSError) -> ReaderError:
    """Return the refusal of a file that could not be opened."""
    if error.errno in _NO_FILE:
        return ReaderError("not_regular")
    return ReaderError("file_unreadable", f"key:{error.__class__.__name__}")


def shown(text: str) -> str:
    r"""Return untrusted text as at most 128 characters of the name alphabet, everything else as `\xNN`."""
    out: list[str] = []
    length = 0
    for character in text[:SHOWN_MAX]:
        if character in NAME_ALPHABET:
            piece = character
        else:
            piece = "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
        length += len(piece)
        if length > SHOWN_MAX:
            break
        out.append(piece)
    return "".join(out)
