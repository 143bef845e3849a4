"""Hostile model directories: each rule of the allow-list has one that breaks it, with the one code that names it.

The rows of `tests.sandbox.reader` are taken up here, so that one table holds everything a model may try. Large files
are sparse: the whole corpus takes less than 5 MB of disk and is never kept.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.sandbox.reader import test_model, test_safetensors, test_strict_json
from tests.sandbox.reader.test_model import ARCHITECTURES, CONFIG, TOKENIZER, write
from tests.sandbox.reader.test_safetensors import pack, tensor

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One directory: the twin with something planted."""

    plant: Callable[[Path], Any]
    path: str | None
    """Of the one file that is refused, as untrusted text is shown; None: the model as a whole."""
    code: str
    root_only: bool = False
    """Planting needs a privilege."""


def twin(root: Path) -> None:
    """Write the valid neighbour of every row, with a regex that takes exponential time: no reader compiles one."""
    write(root, "config.json", CONFIG)
    write(root, "tokenizer.json", TOKENIZER)
    write(root, "tokenizer_config.json", {"model_max_length": 8, "chat_template": "{{ evil }}"})
    (root / WEIGHTS).write_bytes(pack({"w": tensor(0, 4)}, b"\0" * 4))
    (root / "README.md").write_bytes(b"\xff\xfe never read")


def _put(name: str, data: bytes) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    return plant


def _sparse(name: str, size: int, head: bytes = b"") -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / name).write_bytes(head)
        os.truncate(root / name, size)

    return plant


FORMATS: Mapping[str, bytes] = {
    "zip": b"PK\x03\x04" + b"\0" * 60,
    "pickle": b"\x80\x04\x95\x10" + b"\0" * 60,
    "GGUF": b"GGUF\x03\0\0\0" + b"\0" * 60,
    "HDF5": b"\x89HDF\r\n\x1a\n" + b"\0" * 60,
    "ELF": b"\x7fELF\x02\x01\x01\0" + b"\0" * 60,
    "gzip": b"\x1f\x8b\x08\0" + b"\0" * 60,
    "ONNX": b"\x08\x07\x12\x07pytorch" + b"\0" * 60,
    "Python": b"import os\nos.system('id')\n",
}
"""Heads only: no such file is complete, and none is ever loaded."""

READ_NAMES: Mapping[str, str] = {
    "config.json": "json_invalid",
    "generation_config.json": "json_invalid",
    "special_tokens_map.json": "json_invalid",
    "tokenizer_config.json": "json_invalid",
    "tokenizer.json": "json_invalid",
    "vocab.json": "json_invalid",
    "merges.txt": "tokenizer_merge",
    INDEX: "json_invalid",
    WEIGHTS: "st_header_cap",
}
"""Every name on the list whose content is read, with what is said of content in another format."""

KEPT_NAMES = ("README.md", "LICENSE", "added_tokens.json", "chat_template.jinja", "tokenizer.model")
"""Names on the list that are never read: anything may be in them, and it reaches nobody."""


def _disguised() -> dict[str, Hostile]:
    rows = {}
    for form, data in FORMATS.items():
        for name, code in READ_NAMES.items():
            rows[f"{form} called {name}"] = Hostile(plant=_put(name, data), path=name, code=code)
        rows[f"{form} as architecture.json"] = Hostile(
            plant=_alone("architecture.json", data), path="architecture.json", code="json_invalid"
        )
    return rows


def _alone(name: str, data: bytes) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / "config.json").unlink()
        (root / name).write_bytes(data)

    return plant


def _replaced(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        make(root / name)

    return plant


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


IRREGULAR: Mapping[str, Callable[[Path], Any]] = {
    "FIFO": os.mkfifo,
    "socket": _socket,
    "link to a file outside": lambda path: path.symlink_to("/etc/passwd"),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "device": _device,
}


def _irregular() -> dict[str, Hostile]:
    return {
        f"{kind} called {name}": Hostile(
            plant=_replaced(name, make), path=name, code="not_regular", root_only=kind == "device"
        )
        for kind, make in IRREGULAR.items()
        for name in ("config.json", "tokenizer.json", WEIGHTS)
    }


def _header_share(root: Path) -> None:
    """A header of over 1 % of a 100 MB file, all of it a hole."""
    body = json.dumps({"w": tensor(0, 10**8)}).encode()
    length = len(body) + 1_100_000
    (root / WEIGHTS).write_bytes(struct.pack("<Q", length) + body)
    os.truncate(root / WEIGHTS, 8 + length + 10**8)


def _many_tensors(root: Path) -> None:
    body = b"{" + b",".join(b'"t%d":0' % n for n in range(100_001)) + b"}"
    (root / WEIGHTS).write_bytes(struct.pack("<Q", len(body)) + body)
    os.truncate(root / WEIGHTS, 200 * len(body))


def _many_files(root: Path) -> None:
    for n in range(4097 - 5):
        (root / f"LICENSE{n:04}").touch()


def _odd_name(name: bytes) -> Callable[[Path], None]:
    return lambda root: open(os.fsencode(root) + b"/" + name, "wb").close()


def _deep(root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "LICENSE").touch()


def _cases(root: Path) -> None:
    for name in ("LICENSE", "LICENSE.a", "LICENSE.A"):
        (root / name).touch()


def _named() -> dict[str, Hostile]:
    rows = {
        f"file called {name}": Hostile(plant=_put(name, b""), path=name, code="not_on_list")
        for name in (
            "pytorch_model.bin", "model.pt", "model.pkl", "model.gguf", "model.onnx", "model.h5", "model.keras",
            "model.msgpack", "modeling_x.py", "model.zip", "model.safetensors.zip", "config.json.bak", "VOCAB.JSON",
            "sub/config.json", "sub/tokenizer.json", "setup.sh", "x.so",
        )
    }  # fmt: skip
    odd = {
        "space": (b"a b.json", "a\\x20b.json"),
        "newline": (b"config.json\n", "config.json\\x0a"),
        "leading dot": (b".config.json", ".config.json"),
        "bad UTF-8": (b"\xff.json", "\\xed\\xb3\\xbf.json"),
        "look-alike": ("c\u043enfig.json".encode(), "c\\xd0\\xbenfig.json"),
        "markup": (b"<b>.json", "\\x3cb\\x3e.json"),
        "terminal": (b"\x1b[0m", "\\x1b\\x5b0m"),
        "129 characters": (b"x" * 129, "x" * 128),
    }
    for name, (raw, told) in odd.items():
        rows[f"name with {name}"] = Hostile(plant=_odd_name(raw), path=told, code="name_charset")
    rows["three segments"] = Hostile(plant=_deep, path="a/b/LICENSE", code="name_depth")
    rows["case clash"] = Hostile(plant=_cases, path="LICENSE.a", code="name_case_clash")
    rows["4097 files"] = Hostile(plant=_many_files, path="tokenizer_config.json", code="too_many_files")
    return rows


def _sized() -> dict[str, Hostile]:
    mib = 2**20
    caps = {
        "config.json": mib, "generation_config.json": mib, "special_tokens_map.json": mib,
        "tokenizer_config.json": mib, "tokenizer.json": 32 * mib, "vocab.json": 32 * mib, "merges.txt": 32 * mib,
        INDEX: 16 * mib,
    }  # fmt: skip
    rows = {
        f"{name} one byte over its cap": Hostile(plant=_sparse(name, cap + 1), path=name, code="size_cap")
        for name, cap in caps.items()
    }
    rows["header over 1 % of 100 MB"] = Hostile(plant=_header_share, path=WEIGHTS, code="st_header_cap")
    rows["100 001 tensors"] = Hostile(plant=_many_tensors, path=WEIGHTS, code="st_too_many_tensors")
    return rows


def _declared() -> dict[str, Hostile]:
    good: dict[str, Any] = {
        "schema": "assay.feedforward/1", "input": [2], "layers": [{"op": "linear", "weight": "w"}],
    }  # fmt: skip

    def row(change: dict[str, Any], code: str) -> Hostile:
        def plant(root: Path) -> None:
            (root / WEIGHTS).write_bytes(pack({"w": tensor(0, 16, [2, 2], "F32")}, b"\0" * 16))
            _alone("architecture.json", json.dumps(good | change).encode())(root)

        return Hostile(plant=plant, path="architecture.json", code=code)

    return {
        "declared: unknown key": row({"auto_map": {}}, "config_key_unknown"),
        "declared: unknown schema": row({"schema": "evil"}, "architecture_unknown"),
        "declared: input a string": row({"input": "2"}, "config_type"),
        "declared twice": Hostile(
            plant=_put("architecture.json", json.dumps(good).encode()), path="architecture.json", code="not_on_list"
        ),
    }


def _taken_up() -> dict[str, Hostile]:
    rows = {f"model: {name}": Hostile(plant=p, path=path, code=code)
            for name, (p, path, code) in test_model.HOSTILE.items()}  # fmt: skip
    for name, (data, code) in test_safetensors.HOSTILE.items():
        rows[f"weights: {name}"] = Hostile(plant=_put(WEIGHTS, data), path=WEIGHTS, code=code)
    for name, (data, code) in test_strict_json.HOSTILE.items():
        # Settings may hold fractions; an array of one is no settings.
        told = "config_type" if name == "fraction" else code
        rows[f"config: {name}"] = Hostile(plant=_put("config.json", data), path="config.json", code=told)
    return rows


def corpus() -> dict[str, Hostile]:
    """Return every row by its name."""
    return {**_taken_up(), **_disguised(), **_irregular(), **_named(), **_sized(), **_declared()}


ARCHITECTURE_TABLE = ARCHITECTURES
"""The table of architectures that the twin is of."""

ELSEWHERE: Mapping[str, str] = {
    "quota": "the service counts a tenant's bytes before there is a model (tests/service/api)",
    "digest_mismatch": "inputs are hashed before a cell starts: input_digest (tests/sandbox/test_inputs.py)",
    "magic_mismatch": "nothing sniffs: the name decides the reader, and its reader refuses (see FORMATS)",
    "file_unreadable": "the disk failed; no content causes it (tests/sandbox/reader/test_safetensors.py)",
    "load_missing_key": "the cell that measures says so (tests/checks)",
    "load_unexpected_key": "the cell that measures says so (tests/checks)",
    "ingest_limit": "counts what was left out, refuses nothing (tests/sandbox/reader/test_model.py)",
}
"""Codes that no directory of this corpus causes, and where they are shown."""
