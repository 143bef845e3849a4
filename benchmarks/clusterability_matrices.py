"""Wall time of `clusterability`'s tests, matrix by matrix, on a model directory.

Each matrix is asked alone, from its weights to metrics and plots; the null of a shape that is not committed falls on
the first matrix that has it, as it does in an audit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from checks.check import ModelFacts
from checks.clusterability.asking import owed_of
from checks.clusterability.check import Clusterability
from checks.clusterability.layers import layer_matrices
from checks.clusterability.nulls import auto_ks, committed_n, replicate, sweep
from checks.clusterability.views import normal_scores
from checks.memory import InMemoryEvidence, model_facts
from checks.runtime.architectures import architectures_json
from checks.runtime.facts import model_facts_of
from sandbox.reader.model import read_model

ROUNDS = 5
"""Of the data path and the null replicate, for their ratio."""


def matrices_of(folder: Path) -> dict[str, np.ndarray]:
    """Return the matrices of a model directory that the check tests alone, as [out, in].

    Raises:
        SystemExit: the directory holds no model that can be read.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    reading = read_model(files, architectures_json())
    if reading.refused:
        raise SystemExit(f"{folder}: {[one for one in reading.decisions if one.decision == 'refused'][:1]}")
    facts = model_facts_of(reading.config, reading.tensors)
    stored: dict[str, np.ndarray] = {}
    for name in sorted(files):
        if name.endswith(".safetensors"):
            stored |= load_file(files[name])
    return _in_one_form(facts, stored)


def _in_one_form(facts: ModelFacts, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    def weights(name: str) -> np.ndarray:
        whole = stored[name].astype(np.float64)
        return whole.T if name in facts.transposed else whole

    names = owed_of(Clusterability(), facts).matrices
    if facts.feedforward is None:
        return {name: weights(name) for name in names}
    return {one.name: one.signed for one in layer_matrices(facts.feedforward, weights) if one.name in names}


def timed(folder: Path) -> dict[str, Any]:
    """Measure and print the seconds of every matrix; return them, with the ratio of null and data on the first."""
    check = Clusterability(families=("mlp_in",))
    told: dict[str, dict[str, Any]] = {}
    every = matrices_of(folder)
    for name, values in every.items():
        evidence = InMemoryEvidence(
            facts=model_facts(layers=1, mlp_in=(name,)), check=check.name, seed=0, weights={name: values}
        )
        start = time.perf_counter()
        measured = check.measure(evidence)
        wall = time.perf_counter() - start
        numbers = {one.name: one.value for one in measured.metrics if one.name in ("p", "excess_q", "k")}
        committed = committed_n((values.shape[0], values.shape[1]), auto_ks((values.shape[0], values.shape[1])))
        told[name] = {"shape": list(values.shape), "wall_s": round(wall, 3), "committed_null": committed, **numbers}
        print(f"{name:<52} {values.shape[0]:>5}x{values.shape[1]:<5} {wall:8.3f} s  {numbers}", flush=True)
    walls = [one["wall_s"] for one in told.values()]
    print(f"{len(walls)} matrices: median {np.median(walls):.3f} s, largest {max(walls):.3f} s, all {sum(walls):.1f} s")
    return {
        "matrices": told,
        "wall_s_all": round(sum(walls), 2),
        "null_against_data": _against(next(iter(every.values()))),
    }


def _against(weights: np.ndarray) -> dict[str, float]:
    """Return CPU seconds of a trained matrix's data path and of a null replicate of its shape, at the same k."""
    shape, ks = (weights.shape[0], weights.shape[1]), tuple(range(2, 10))
    jobs: dict[str, Callable[[], object]] = {
        "data path": lambda: sweep(normal_scores(weights).mass, ks, 0),
        "null replicate": lambda: replicate(shape, ks, 0),
    }
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(ROUNDS + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            if turn:
                spent[name].append(time.process_time() - start)
    data, null = (float(np.median(spent[name])) for name in jobs)
    print(f"null replicate / data path of this trained matrix, eight k: {null:.3f} / {data:.3f} = {null / data:.2f}")
    return {"data_path_cpu_s": round(data, 4), "null_replicate_cpu_s": round(null, 4), "ratio": round(null / data, 2)}
