"""What can go wrong, as types: "it is wrong", "I could not tell" and "the machine failed" are never mixed.

AssayError
├── Malformed        bytes or values outside one of our formats; carries a code and a place
├── VerifyError      the outcome of looking at a report
│   ├── Wrong        a signature, digest, claim or form is not as it must be
│   └── CouldNotTell something needed is absent, unreadable or unknown to this client
└── MachineFailed    the host's fault: disk, permissions, a broken installation
"""

from __future__ import annotations


class AssayError(Exception):
    """Root of everything this package raises on purpose."""


class Malformed(AssayError):
    """Bytes or values break one of our formats.

    Args:
        code: machine-readable, e.g. "json_duplicate_key", "path_charset".
        at: where: a JSON pointer, a key, an offset ("offset:17") or a file.
        message: what was expected and what to do next, for a person.
    """

    def __init__(self, code: str, at: str, message: str) -> None:
        super().__init__(f"{message} [{code} at {at or 'the document'}]")
        self.code = code
        self.at = at
        self.message = message


class VerifyError(AssayError):
    """A report could not be accepted."""


class Wrong(VerifyError):
    """The report is not what it must be: verification answers no."""


class CouldNotTell(VerifyError):
    """Something needed is absent or unknown: verification answers neither yes nor no."""


class Misused(AssayError):
    """The caller asked for something impossible; nothing was looked at."""


class MachineFailed(AssayError):
    """The host failed, not the report: unreadable disk, broken installation."""


def shown(value: object, limit: int = 80) -> str:
    """Return a value shortened and printable, so that no message carries control characters of a report."""
    text = value if isinstance(value, str) else repr(value)
    clean = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
