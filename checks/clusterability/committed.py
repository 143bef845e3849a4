"""Null replicates and powers that are committed beside the code: read once, and only where they are the pinned ones.

`nulls.safetensors` holds Q in millionths, [replicate, k], one tensor for each shape; `nulls.json` names its digest.
The catalogue's digest of the code covers the latter, and so a report names the table. Specification: section 4.5.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

FOLDER = Path(__file__).parent

TABLE = FOLDER / "nulls.safetensors"

PIN = FOLDER / "nulls.json"

POWER = FOLDER / "power.json"

MICRO = 1e6
"""Q is committed in millionths, as int32."""

Shape = tuple[int, int]


@dataclass(frozen=True)
class Kept:
    """Committed replicates of one shape."""

    ks: tuple[int, ...]
    q: Float[np.ndarray, "replicates ks"]


def shape_name(shape: Shape) -> str:
    """Return a shape's name in the files, smaller side first: "96x256"."""
    return f"{min(shape)}x{max(shape)}"


def null_table_sha256() -> str:
    """Return the digest of the committed null table, as `nulls.json` pins it."""
    return str(_pin()["sha256"])


@lru_cache(maxsize=1)
def kept_nulls(algorithm: int) -> Mapping[str, Kept]:
    """Return the committed replicates by shape name.

    Args:
        algorithm: version of the steps from weights to Q that the caller runs.

    Raises:
        ValueError: the table is of another version, or is not the file that `nulls.json` names.
    """
    from safetensors.numpy import load

    pin = _pin()
    if pin["algorithm"] != algorithm:
        raise ValueError(f"{TABLE.name} is of algorithm {pin['algorithm']}, not {algorithm}: run `make nulls`")
    told = TABLE.read_bytes()
    if hashlib.sha256(told).hexdigest() != pin["sha256"]:
        raise ValueError(f"{TABLE.name} is not the file that {PIN.name} names: run `make nulls`")
    tensors = load(told)
    return {name: Kept(tuple(ks), tensors[name] / MICRO) for name, ks in pin["ks"].items()}


def write_nulls(tables: Mapping[str, Kept], algorithm: int) -> None:
    """Write the table and its pin; the same replicates give the same bytes.

    Args:
        tables: replicates by shape name.
        algorithm: version of the steps from weights to Q.
    """
    from safetensors.numpy import save

    told = save({name: np.rint(kept.q * MICRO).astype(np.int32) for name, kept in tables.items()})
    TABLE.write_bytes(told)
    pin = {
        "algorithm": algorithm,
        "sha256": hashlib.sha256(told).hexdigest(),
        "n": {name: len(kept.q) for name, kept in tables.items()},
        "ks": {name: list(kept.ks) for name, kept in tables.items()},
    }
    PIN.write_text(json.dumps(pin, indent=1) + "\n")
    kept_nulls.cache_clear()
    _pin.cache_clear()


def committed_power(shape: Shape) -> tuple[int, int] | None:
    """Return (found, planted): of how many planted matrices of a shape the whole rule detects how many.

    The rule with its default parameters (`check.POWER_DEPENDS_ON`), one matrix tested alone: of others it says nothing.
    Planted: k = 4, weights outside the blocks .7 of those inside. None where it was not measured;
    `benchmarks/clusterability_calibration.py` measures it.
    """
    return _found(shape_name(shape))


def committed_graph_power(name: str) -> tuple[int, int] | None:
    """Return (found, planted) for what is no single matrix: "virtual_mlp", "head_graph" or "network".

    Planted: what the control of that name plants, at a leak of .5. None where it was not measured.
    """
    return _found(name)


def _found(name: str) -> tuple[int, int] | None:
    entry = _power().get(name)
    return (entry["found"], entry["planted"]) if entry else None


@lru_cache(maxsize=1)
def _power() -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = json.loads(POWER.read_text()) if POWER.exists() else {}
    return table


@lru_cache(maxsize=1)
def _pin() -> dict[str, Any]:
    pin: dict[str, Any] = json.loads(PIN.read_text())
    return pin
