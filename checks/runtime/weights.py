"""Single tensors by name, straight from the safetensors files: no model is built for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from checks.errors import NotAskedFor
from sandbox.reader.safetensors import TensorEntry

if TYPE_CHECKING:
    from jaxtyping import Float64


def read_weights(
    names: Sequence[str], tensors: Sequence[TensorEntry], files: Mapping[str, Path], transposed: frozenset[str]
) -> dict[str, Float64[np.ndarray, "*axes"]]:
    """Return the named tensors as float64; matrices as [out, in].

    Args:
        names: tensors to read.
        tensors: the model's tensor table.
        files: path of each manifest file.
        transposed: matrices that the file stores as [in, out].

    Raises:
        NotAskedFor: a name is not in the table.
    """
    from safetensors import safe_open

    place = {tensor.name: tensor.file for tensor in tensors}
    unknown = sorted(set(names) - set(place))
    if unknown:
        raise NotAskedFor(f"the needs name tensors that the model has not: {unknown[:8]}")
    read: dict[str, np.ndarray] = {}
    for file in sorted({place[name] for name in names}):
        # Through torch and not numpy: numpy has no bfloat16.
        with safe_open(str(files[file]), framework="pt", device="cpu") as opened:
            for name in names:
                if place[name] == file:
                    array = opened.get_tensor(name).double().numpy()
                    read[name] = np.ascontiguousarray(array.T) if name in transposed else array
    return read
