"""Tensors of a weights blob by name: safetensors or flat npz, never a pickle.

The bytes are read by strict readers of our own; torch only views what they found. `torch.load`, `numpy.load` and any
unpickler are reachable from nowhere here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import TYPE_CHECKING

import torch

from checks.check import Refusal
from checks.sae_features.dictionary.npz import read_npz
from sandbox.reader import safetensors, strict_json
from sandbox.reader.error import ReaderError, shown
from sandbox.reader.safetensors import HEADER_FLOOR, HEADER_MAX, HEADER_SHARE, TensorEntry

if TYPE_CHECKING:
    from jaxtyping import Float

PICKLE_ENDINGS = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib")
"""File names that mean a pickle: refused before a byte is read (specification, section 3)."""

ADVICE = "advice:export_as_safetensors"

_DTYPES = {
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "<f2": torch.float16, "<f4": torch.float32, "<f8": torch.float64,
}  # fmt: skip
"""Floating dtypes of both containers; a dictionary has no others."""

_PROTOCOLS = frozenset({2, 3, 4, 5})
_HEAD, _TAIL = 4096, 65536
"""Where a zip of torch.save names its `data.pkl`: the first member, and the central directory at the end."""


def check_name(name: str) -> None:
    """Refuse a file by its name.

    Raises:
        Refusal: `pickle_format`, with the advice to export safetensors.
    """
    if name.lower().endswith(PICKLE_ENDINGS):
        raise Refusal("pickle_format", (f"file:{shown(name.rpartition('/')[2])}"[:128], ADVICE))


def read_safetensors(content: bytes) -> dict[str, Float[torch.Tensor, "*axes"]]:
    """Return every tensor of a safetensors file as float32.

    Raises:
        Refusal: `pickle_format`; `weights_unreadable` with the reader's own code and place; `tensor_dtype`.
    """
    try:
        begin, entries = _table(content)
    except ReaderError as error:
        raise _unreadable(content, error) from None
    whole = memoryview(content)[begin:]
    return {one.name: _tensor(one.name, one.dtype, one.shape, whole[one.begin : one.end]) for one in entries}


def read_arrays(content: bytes, names: Collection[str]) -> dict[str, Float[torch.Tensor, "*axes"]]:
    """Return every array of a flat npz file as float32.

    Args:
        content: the whole file.
        names: array names that may stand in it.

    Raises:
        Refusal: `pickle_format`; `weights_unreadable` with the reader's own code and place.
    """
    try:
        arrays = read_npz(content, names)
    except ReaderError as error:
        raise _unreadable(content, error) from None
    return {name: _tensor(name, one.dtype, one.shape, one.data) for name, one in arrays.items()}


def check_finite(tensors: Mapping[str, Float[torch.Tensor, "*axes"]]) -> None:
    """Refuse NaN and infinity, also what overflowed on its way to float32.

    Raises:
        Refusal: `not_finite`, naming every such tensor.
    """
    wrong = sorted(name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all()))
    if wrong:
        raise Refusal("not_finite", tuple(f"tensor:{name}" for name in wrong))


def _unreadable(content: bytes, error: ReaderError) -> Refusal:
    """Return the refusal of bytes that no reader takes; a pickle is told apart for its advice only."""
    pickled = content[:1] == b"\x80" and content[1:2] and content[1] in _PROTOCOLS
    zipped = content[:2] == b"PK" and b"data.pkl" in content[:_HEAD] + content[-_TAIL:]
    if pickled or zipped:
        return Refusal("pickle_format", (ADVICE,))
    return Refusal("weights_unreadable", (error.code, error.at) if error.at else (error.code,))


def _table(content: bytes) -> tuple[int, tuple[TensorEntry, ...]]:
    """Return where the data begin and the table of tensors, by the rules of the house's own reader.

    That reader takes a path. Bytes of a data role are read by the same rules here; a temporary file would count against
    the cell's file size limit.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 10:
        raise ReaderError("st_short", f"offset:{len(content)}")
    if length > min(HEADER_MAX, max(HEADER_FLOOR, len(content) // HEADER_SHARE)):
        raise ReaderError("st_header_cap", "offset:0")
    if length > len(content) - 8:
        raise ReaderError("st_short", f"offset:{len(content)}")
    header = content[8 : 8 + length]
    if not header.startswith(b"{"):
        raise ReaderError("st_header_type", "offset:8")
    document = strict_json.loads(header.rstrip(b" "), cap=HEADER_MAX, depth=4)
    if "__metadata__" in document:
        safetensors._check_metadata(document.pop("__metadata__"))
    if not document:
        raise ReaderError("st_empty")
    if len(document) > safetensors.TENSORS_MAX:
        raise ReaderError("st_too_many_tensors")
    entries = sorted((safetensors._entry(name, one, "") for name, one in document.items()), key=safetensors._place)
    safetensors._check_tiling(entries, len(content) - 8 - length)
    return 8 + length, tuple(entries)


def _tensor(name: str, dtype: str, shape: tuple[int, ...], data: memoryview) -> Float[torch.Tensor, "*axes"]:
    """Return bytes as a float32 tensor of its own memory."""
    if dtype not in _DTYPES:
        raise Refusal("tensor_dtype", (f"tensor:{name}", f"dtype:{dtype}"))
    if prod(shape) == 0:
        return torch.zeros(shape)
    # A copy: torch takes no read-only buffer, and no member of a zip is aligned.
    return torch.frombuffer(bytearray(data), dtype=_DTYPES[dtype]).reshape(shape).to(torch.float32)
