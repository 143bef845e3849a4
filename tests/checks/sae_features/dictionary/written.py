"""Files of each format, written from their description alone: json, struct and zipfile, and no code under test."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Any

import numpy as np
import torch

from checks.sae_features.dictionary.value import Dictionary, Gated, Threshold

Arrays = dict[str, np.ndarray]

_NAMES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64"}


def safetensors(arrays: Arrays) -> bytes:
    header: dict[str, Any] = {}
    data = b""
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        place = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": _NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": place}
        data += raw
    body = json.dumps(header).encode()
    return struct.pack("<Q", len(body)) + body + data


def npy(array: np.ndarray) -> bytes:
    head = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + np.ascontiguousarray(array).tobytes()


def npz(arrays: Arrays, method: int = zipfile.ZIP_STORED, stream: io.RawIOBase | io.BytesIO | None = None) -> bytes:
    """Return an archive as numpy's savez writes it: members with 64-bit extra fields."""
    held = io.BytesIO() if stream is None else stream
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = method
            with archive.open(entry, "w", force_zip64=True) as member:
                member.write(npy(array))
    return b"" if not isinstance(held, io.BytesIO) else held.getvalue()


def config(form: str, peer: dict[str, Any] | None = None, **over: Any) -> bytes:
    document: dict[str, Any] = {
        "schema": "assay-sae/v1",
        "format": form,
        "config": {} if peer is None else peer,
        "site": "resid.1",
        "declared_l0": None,
        "trained_on": "base",
        "assume_site": False,
    }
    return json.dumps({**document, **over}).encode()


def as_saelens(dictionary: Dictionary) -> Arrays:
    w = {name: tensor.numpy() for name, tensor in dictionary.tensors().items()}
    names = {"w_enc": "W_enc", "w_dec": "W_dec", "theta": "threshold"}
    drop = {"b_enc"} if isinstance(dictionary.gate, Gated) else set()
    return {names.get(name, name): array for name, array in w.items() if name not in drop}


def as_sparsify(dictionary: Dictionary) -> Arrays:
    w = {name: tensor.numpy() for name, tensor in dictionary.tensors().items()}
    return {"encoder.weight": w["w_enc"].T, "encoder.bias": w["b_enc"], "W_dec": w["w_dec"], "b_dec": w["b_dec"]}


def as_gemma(dictionary: Dictionary) -> Arrays:
    assert isinstance(dictionary.gate, Threshold)
    return as_saelens(dictionary)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(one, other))
