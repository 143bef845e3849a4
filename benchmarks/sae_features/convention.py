"""The 30 readings of a layer in the self-test of a dictionary against one dense encode and decode (section 15).

Run: `python -m benchmarks.sae_features.convention`. Writes convention.json beside itself. One thread, process CPU time,
4096 states, medians of turns that alternate. The bound is 12 dense passes; one reading after the other would be 30.
"""

from __future__ import annotations

import os

# Before numpy is imported: its BLAS counts its threads once.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import json
import time
from pathlib import Path

import numpy as np
import torch

from checks.sae_features.dictionary.convention import ROWS_MIN
from checks.sae_features.dictionary.readings import grid
from checks.sae_features.dictionary.training import threshold
from checks.sae_features.dictionary.value import Dictionary, Relu, Threshold

SIZES = {(64, 512): 8, (128, 1024): 32, (256, 2048): 32, (512, 4096): 32}
"""k by d and m."""

TURNS, BOUND = 9, 12.0


def dictionary(d: int, m: int, k: int, x: torch.Tensor) -> Dictionary:
    """Return unit rows, tied, with the threshold at which k latents a state are on."""
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((m, d), dtype=np.float32))
    rows /= torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    bare = Dictionary(rows.T.contiguous(), torch.zeros(m), rows, torch.zeros(d), Relu(), pre_bias=True)
    return Dictionary(
        bare.w_enc, bare.b_enc, rows, bare.b_dec, Threshold(torch.full((m,), threshold(bare, x, k))), True
    )


def measured(d: int, m: int, k: int) -> dict[str, object]:
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((ROWS_MIN, d), dtype=np.float32))
    one = dictionary(d, m, k, x)
    dense: list[float] = []
    cells: list[float] = []
    for turn in range(TURNS + 1):
        begun = time.process_time()
        one.reconstruct(x)
        between = time.process_time()
        found = grid(one, x, 0, k)
        ended = time.process_time()
        if turn:  # the first warms up
            dense.append(between - begun)
            cells.append(ended - between)
    ratio = float(np.median(cells) / np.median(dense))
    told = {"d": d, "m": m, "k": k, "cells": len(found), "dense_ms": round(1e3 * float(np.median(dense)), 1)}
    return {
        **told,
        "cells_ms": round(1e3 * float(np.median(cells)), 1),
        "ratio": round(ratio, 1),
        "met": ratio <= BOUND,
    }


def main() -> None:
    """Measure every size, print, write the file."""
    torch.set_num_threads(1)
    told = [measured(d, m, k) for (d, m), k in SIZES.items()]
    for one in told:
        print(one)
    written = {"bound": BOUND, "rows": ROWS_MIN, "sizes": told, "load": round(os.getloadavg()[0], 1)}
    (Path(__file__).parent / "convention.json").write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
