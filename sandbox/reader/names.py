"""Which paths a model's manifest may name, and which files a model may consist of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
"""One segment: 1 to 128 characters, no leading dot."""

FILES_MAX = 4096

MIB = 2**20
CONFIG_CAP = MIB
TOKENIZER_CAP = 32 * MIB
INDEX_CAP = 16 * MIB

ALLOWED_FILES: tuple[tuple[str, str, int | None], ...] = (
    ("config.json", "config", CONFIG_CAP),
    ("architecture.json", "architecture", CONFIG_CAP),
    ("generation_config.json", "settings", CONFIG_CAP),
    ("special_tokens_map.json", "settings", CONFIG_CAP),
    ("tokenizer_config.json", "settings", CONFIG_CAP),
    ("tokenizer.json", "tokenizer", TOKENIZER_CAP),
    ("vocab.json", "vocabulary", TOKENIZER_CAP),
    ("merges.txt", "merges", TOKENIZER_CAP),
    ("model.safetensors.index.json", "index", INDEX_CAP),
    ("*.safetensors", "weights", None),
    ("README.md", "kept", TOKENIZER_CAP),
    ("LICENSE*", "kept", TOKENIZER_CAP),
    ("added_tokens.json", "kept", TOKENIZER_CAP),
    ("chat_template.*", "kept", TOKENIZER_CAP),
    ("tokenizer.model", "kept", TOKENIZER_CAP),
)
"""(file name pattern, what it is, most bytes; None: the tenant's quota). The name decides the reader; nothing sniffs.
What is "kept" counts in the manifest and is never read. Left out on purpose: every format that can execute or needs a
reader of its own (pickle `.bin`, `.pt`, GGUF, ONNX, Keras, archives)."""

_NESTED = frozenset({"weights", "kept"})


def check_path(path: str) -> str | None:
    """Return None when the path may stand in a manifest, else the code of its refusal.

    Returns:
        None, "name_depth" (more than two segments) or "name_charset" (an empty or odd segment, a leading dot).
    """
    segments = path.split("/")
    if len(segments) > 2:
        return "name_depth"
    if not all(SEGMENT.fullmatch(one) for one in segments):
        return "name_charset"
    return None


def check_paths(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Return (path, code) for each path of a manifest that is refused, clashes under case folding included."""
    wrong: list[tuple[str, str]] = []
    folded: set[str] = set()
    for count, path in enumerate(paths, start=1):
        if count > FILES_MAX:
            wrong.append((path, "too_many_files"))
            break
        code = check_path(path)
        if code is None and path.casefold() in folded:
            code = "name_case_clash"
        folded.add(path.casefold())
        if code is not None:
            wrong.append((path, code))
    return wrong


def file_kind(path: str) -> str | None:
    """Return what the file is ("config", "weights", ...), None when it is not on the list.

    Only weights and files that are never read may lie in a subfolder: a second `config.json` has no meaning.
    """
    folder, _, name = path.rpartition("/")
    for pattern, kind, _cap in ALLOWED_FILES:
        if fnmatchcase(name, pattern):
            return kind if not folder or kind in _NESTED else None
    return None


def is_read(path: str) -> bool:
    """Say whether any reader opens a file of this path; what is kept, or not on the list, is decided by its path."""
    return file_kind(path) not in (None, "kept")


def file_rule(path: str) -> str | None:
    """Return None when a model may hold a file of this path, else the code of the refusal."""
    return check_path(path) or (None if file_kind(path) else "not_on_list")


def file_cap(path: str) -> int | None:
    """Return the most bytes that this file may have, None where only the quota counts."""
    name = path.rpartition("/")[2]
    return next((cap for pattern, _, cap in ALLOWED_FILES if fnmatchcase(name, pattern)), 0)
