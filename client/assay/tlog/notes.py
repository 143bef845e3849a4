"""C2SP signed notes and checkpoints, Ed25519.

A note is text, a blank line, and signature lines `— NAME base64(key id || signature)`. Lines of unknown keys are
ignored, which is how witnesses and rotation work; a line of a known key that fails condemns the whole note. A
checkpoint is the note `origin`, size, base64 of the root.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assay.errors import Malformed, Wrong, shown
from assay.strict_json import INTEGER_MAX
from assay.tlog.tree import HASH_SIZE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NOTE_MAX = 64 * 1024
"""Bytes of a note (specification, section 9): more than 16 lines of any assigned signature type."""

VKEY_MAX = 256
"""Characters of a vkey: a name of 128, 8 of the key id, 44 of the key, two signs."""

ED25519 = b"\x01"
"""Signature type of plain Ed25519 notes (C2SP signed-note)."""

_KEY_ID = 4
"""Bytes of a key id (C2SP signed-note)."""
_ED25519_KEY, _ED25519_SIGNATURE = 32, 64
"""Bytes of a public key and of a signature (RFC 8032)."""

_DASH = "\N{EM DASH} "
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}", re.ASCII)
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True)
class Vkey:
    """A key that checks notes, under the name that its lines carry."""

    name: str
    public: bytes
    """32 bytes of Ed25519."""

    @property
    def id(self) -> bytes:
        """Four bytes that name key, type and name together; a hint, not a strong hash."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:_KEY_ID]

    @property
    def text(self) -> str:
        """The form that people pass around: name+id+key."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"


@dataclass(frozen=True)
class Note:
    """A note as read; its text means nothing before a trusted key signed it."""

    text: str
    """Ends with a newline."""
    lines: tuple[tuple[str, bytes], ...]
    """Name and key id || signature of each signature line."""


@dataclass(frozen=True)
class Checkpoint:
    """A log's head at one size."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that the log signs."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_vkey(text: str) -> Vkey:
    """Read a vkey.

    Raises:
        Malformed: not of the form name+id+key, another type than Ed25519, or an id of another key.
    """
    name, plus, rest = text.partition("+")
    tail = rest.partition("+")
    if len(text) > VKEY_MAX or not plus or not tail[1] or not is_origin(name):
        raise Malformed("vkey", shown(text), "a log key has the form name+id+key")
    key = decode_base64(tail[2], "vkey")
    if len(key) != 1 + _ED25519_KEY or key[:1] != ED25519:
        raise Malformed("vkey", shown(name), "only Ed25519 keys are supported here")
    found = Vkey(name, key[1:])
    if found.id.hex() != tail[0]:
        raise Malformed("vkey", shown(name), f"the key id is {shown(tail[0])}, but name and key give {found.id.hex()}")
    return found


def vkey_of(private: Ed25519PrivateKey, name: str) -> Vkey:
    """Return the key that checks what a private key signs.

    Raises:
        Malformed: the name is outside the alphabet.
    """
    if not is_origin(name):
        raise Malformed("vkey", shown(name), "a log's name is 1 to 128 of A-Z a-z 0-9 . _ : / @ -")
    return Vkey(name, private.public_key().public_bytes_raw())


def is_origin(name: object) -> bool:
    """Tell whether a name may be a log's: our name alphabet without the plus sign, which separates parts of vkeys."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def sign(text: str, private: Ed25519PrivateKey, name: str) -> bytes:
    """Return a note with one signature line. Ed25519 has no randomness: the same text gives the same note."""
    assert text.endswith("\n")
    line = base64.b64encode(vkey_of(private, name).id + private.sign(text.encode())).decode()
    return f"{text}\n{_DASH}{name} {line}\n".encode()


def read(data: bytes) -> Note:
    """Read a note's form.

    Raises:
        Malformed: over 64 KiB, not UTF-8, control characters, no blank line, or a line that is no signature.
    """
    if len(data) > NOTE_MAX:
        raise Malformed("size_cap", "note", f"a note has at most {NOTE_MAX} bytes")
    try:
        whole = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise Malformed("note_form", f"offset:{error.start}", "not UTF-8") from None
    if _CONTROL.search(whole):
        raise Malformed("note_form", "note", "a control character")
    text, blank, signatures = whole.rpartition("\n\n")
    if not blank or not text or not signatures.endswith("\n"):
        raise Malformed("note_form", "note", "a note is text, a blank line, and signature lines")
    lines = tuple(_line(line, number) for number, line in enumerate(signatures[:-1].split("\n"), 1))
    return Note(text + "\n", lines)


def verify(note: Note, keys: Iterable[Vkey]) -> tuple[Vkey, ...]:
    """Return the known keys that signed a note.

    Raises:
        Wrong: a line of a known key does not verify, or no line is of a known key.
    """
    known = {(key.name, key.id): key for key in keys}
    signed: list[Vkey] = []
    for name, content in note.lines:
        key = known.get((name, content[:_KEY_ID]))
        if key is None:
            continue
        if not _verifies(key, content[_KEY_ID:], note.text.encode()):
            raise Wrong(f"the note's signature of {name} does not verify")
        signed.append(key)
    if not signed:
        raise Wrong("no trusted log key signed the note")
    return tuple(signed)


def read_checkpoint(data: bytes) -> tuple[Checkpoint, Note]:
    """Read a checkpoint's form; nobody has checked its signatures.

    Raises:
        Malformed: no note, or not the three lines origin, size, root.
    """
    note = read(data)
    lines = note.text[:-1].split("\n")
    if len(lines) != 3 or not is_origin(lines[0]) or not _NUMBER.fullmatch(lines[1]) or int(lines[1]) > INTEGER_MAX:
        raise Malformed("checkpoint_form", "checkpoint", "a checkpoint is three lines: origin, size, root")
    return Checkpoint(lines[0], int(lines[1]), decode_hash(lines[2], "checkpoint")), note


def open_checkpoint(data: bytes, keys: Sequence[Vkey]) -> Checkpoint:
    """Read a checkpoint and check that its own log signed it.

    Raises:
        Malformed: as `read_checkpoint`.
        Wrong: no known key of this origin signed it, or a known key's signature fails.
    """
    checkpoint, note = read_checkpoint(data)
    if all(key.name != checkpoint.origin for key in verify(note, keys)):
        raise Wrong(f"no trusted key of the log {checkpoint.origin} signed its checkpoint")
    return checkpoint


def parse_number(text: str, at: str) -> int:
    """Read a decimal number without leading zeros, at most 2^53-1.

    Raises:
        Malformed: another form.
    """
    if not _NUMBER.fullmatch(text) or int(text) > INTEGER_MAX:
        raise Malformed("number", at, "a whole number without leading zeros, at most 2^53-1")
    return int(text)


def decode_base64(text: str, at: str) -> bytes:
    """Decode standard base64 in its one canonical form.

    Raises:
        Malformed: another alphabet, padding, or trailing bits.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Malformed("base64", at, "not base64") from None
    if base64.b64encode(data).decode() != text:
        raise Malformed("base64", at, "not the canonical base64 of its bytes (padding, trailing bits)")
    return data


def decode_hash(text: str, at: str) -> bytes:
    """Decode a SHA-256 digest in base64.

    Raises:
        Malformed: not canonical base64 of 32 bytes.
    """
    data = decode_base64(text, at)
    if len(data) != HASH_SIZE:
        raise Malformed("hash", at, f"a hash has {HASH_SIZE} bytes, this one {len(data)}")
    return data


def _line(line: str, number: int) -> tuple[str, bytes]:
    at = f"signature:{number}"
    name, space, signature = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not name or "+" in name or name != "".join(name.split()):
        raise Malformed("note_form", at, "a signature line is an em dash, a name, and base64")
    content = decode_base64(signature, at)
    if len(content) <= _KEY_ID:
        raise Malformed("note_form", at, "a signature is longer than its key id")
    return name, content


def _verifies(key: Vkey, signature: bytes, text: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(signature) != _ED25519_SIGNATURE:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True
