"""Tested matrices, graphs and nets for the tests of plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from assay.result import Plot

from checks.clusterability import metrics
from checks.clusterability.cocluster import Partition
from checks.clusterability.controls import planted
from checks.clusterability.families import GraphFound
from checks.clusterability.graphs import GraphStructure
from checks.clusterability.masks import mask_structure, planted_mask
from checks.clusterability.matrices import Usable
from checks.clusterability.network_tests import NetworkStructure, network_null, network_test
from checks.clusterability.nulls import NullTable, null_table
from checks.clusterability.structure import Structure, structure_test
from sandbox.budget import charge_bytes

SHAPE, K = (96, 256), 4


def matrix(name: str, values: np.ndarray, found: Structure, **more: object) -> metrics.Tested:
    masked = bool(more.pop("masked", False))
    usable = Usable(values, 0, float(np.mean(values == 0)), masked)
    one = metrics.Tested(
        name=name,
        matrix=usable,
        found=found,
        p_holm=0.01,
        together=1,
        passes=True,
        stability=None,
        confirm=None,
        plant=None,
    )
    return replace(one, **more)  # type: ignore[arg-type]


@lru_cache
def blocks() -> tuple[np.ndarray, Partition]:
    return planted(SHAPE, K, 0.3, np.random.default_rng(0))


@lru_cache
def dense() -> metrics.Tested:
    values, _ = blocks()
    found = structure_test(values, null_table(SHAPE, (2, 3, 4, 6), 99), 0)
    return matrix("layers.0.mlp", values, found, stability=np.linspace(0.8, 1.0, 10))


@lru_cache
def sparse() -> metrics.Tested:
    mask, _ = planted_mask((48, 64), 2, 0.4, 0.05, np.random.default_rng(1))
    mask = mask[np.ix_(mask.any(axis=1), mask.any(axis=0))]
    found = mask_structure(mask, (2, 3), 0, np.random.default_rng(2), 19)
    return matrix("sparse", mask * np.random.default_rng(3).standard_normal(mask.shape), found, masked=True)


def product(inner: int | None) -> metrics.Tested:
    return replace(dense(), name="virtual_mlp.0", inner=inner)


@lru_cache
def heads() -> GraphFound:
    rng = np.random.default_rng(4)
    null = NullTable((32, 32), (2, 3, 4), rng.normal(0.1, 0.01, (49, 3)), committed=False)
    found = GraphStructure(3, 0.3, 0.2, 0.02, 0, 20.0, np.arange(32) % 3, (0.2, 0.3, 0.28), null)
    return GraphFound(found, rng.uniform(0.5, 1.0, 10), 32)


@lru_cache
def net() -> NetworkStructure:
    shapes = ((24, 16), (16, 24))
    rng = np.random.default_rng(5)
    return network_test([rng.standard_normal(s) for s in shapes], network_null(shapes, (2,), 9, rng), 0)


def of_kind(found: Sequence[Plot], kind: str) -> list[Plot]:
    return [plot for plot in found if plot.kind == kind]


def charged(found: Sequence[Plot]) -> int:
    return charge_bytes([plot.to_json() for plot in found], set(json.dumps(Plot.model_json_schema()).split('"')))


def cells(plot: Plot) -> np.ndarray:
    return np.array([[float(y) for y in row.y] for row in plot.series])
