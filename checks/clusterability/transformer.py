"""Structure across a transformer's layers: neurons that write for neurons, heads that write for heads.

Residual axes are no natural basis and axes inside a head are a gauge choice, so single matrices say little. What is
independent of both are products of one layer's writers with a later layer's readers. Specification: section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log2
from typing import TYPE_CHECKING

import numpy as np

from checks.clusterability.canonical import Norm, carried
from checks.clusterability.nulls import NullTable, sweep
from checks.clusterability.views import balanced_squares, in_range, live, normal_scores

if TYPE_CHECKING:
    from jaxtyping import Float, Int

INNER_MIN = 2
"""Smallest inner size of the product null. Its Q falls as the size grows, but at 1 there is none: magnitudes of one
outer product balance to a constant, all ranks tie and Q is 0, so that everything would pass (128x128, k = 4: 0 at 1,
.371 at 2, .262 at 4, .098 without bound)."""


@dataclass(frozen=True, kw_only=True)
class HeadLayer:
    """One layer's heads as gauge-free products wait to be made: OV = output value, QK = query^T key."""

    query: Float[np.ndarray, "heads head_width width"]
    key: Float[np.ndarray, "heads head_width width"]
    """Keys and values that heads share are repeated, one for each head."""
    value: Float[np.ndarray, "heads head_width width"]
    output: Float[np.ndarray, "heads width head_width"]
    gains: tuple[Float[np.ndarray, " width"], ...] = ()
    """Gains of the norms that stand in the residual stream between this layer's heads and the next layer's, in order
    of passage; empty where norms stand at the readers and are folded into them."""
    norm: Norm = "rms"
    """Kind of the norms in the stream; without `gains` it plays no part."""


def virtual_mlp(
    w_in_next: Float[np.ndarray, "next width"],
    w_out: Float[np.ndarray, "width hidden"],
    gate_next: Float[np.ndarray, "next width"] | None = None,
) -> Float[np.ndarray, "next hidden"]:
    """Return how strongly each neuron of a layer writes for each neuron of the next; free of the residual basis.

    Args:
        w_in_next: the next layer's reading matrix, norm folded in; of a gated MLP, `up`.
        w_out: the layer's writing matrix.
        gate_next: the next layer's `gate` of a gated MLP. Then entries are magnitudes,
            sqrt((gate_i . out_j)^2 / |gate_i|^2 + (up_i . out_j)^2 / |up_i|^2), without it signed products.
    """
    stacked = _products(w_in_next, w_out, gate_next)
    return stacked if gate_next is None else np.asarray(np.hypot(*np.split(stacked, 2)))


def virtual_d_eff(
    w_in_next: Float[np.ndarray, "next width"],
    w_out: Float[np.ndarray, "width hidden"],
    gate_next: Float[np.ndarray, "next width"] | None = None,
) -> int | None:
    """Return the inner size of the product null that fits a `virtual_mlp` of the same arguments.

    Of a gated MLP it is that of the signed products of gate and up, one above the other: magnitudes have one large
    singular value, their mean, which says nothing of the rank.
    """
    return d_eff(_products(w_in_next, w_out, gate_next))


def _products(
    w_in_next: Float[np.ndarray, "next width"],
    w_out: Float[np.ndarray, "width hidden"],
    gate_next: Float[np.ndarray, "next width"] | None,
) -> Float[np.ndarray, "rows hidden"]:
    if gate_next is None:
        return _exact_zeros(w_in_next, w_out)
    return np.concatenate([_exact_zeros(_unit_rows(one), w_out) for one in (gate_next, w_in_next)])


def _exact_zeros(left: Float[np.ndarray, "n d"], right: Float[np.ndarray, "d m"]) -> Float[np.ndarray, "n m"]:
    """Return left @ right with 0 where an entry is within the rounding error of its sum.

    Normal scores rank entries: ranks of rounding errors would differ between machines, and would spread over a range
    what is in truth one tie (the two halves of organism F without a leak).
    """
    product = left @ right
    error = np.finfo(float).eps * left.shape[1] * np.outer(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=0))
    return np.asarray(np.where(np.abs(product) > error, product, 0.0))


def _unit_rows(matrix: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.where(norms > 0, norms, 1.0))


def d_eff(matrix: Float[np.ndarray, "n m"]) -> int | None:
    """Return the inner size at which a product of Gaussian factors has a matrix's participation ratio.

    1 / d = 1 / PR - 1/n - 1/m with PR = (sum sigma^2)^2 / sum sigma^4, rounded down to a power of sqrt 2: a smaller
    inner size has the larger null, so the test errs towards finding nothing. The ratio is that of the matrix with
    balanced squares, as the test's own view is: one of the matrix itself would fall with every loud neuron (lognormal
    scales on a product of inner size 32 read 1 to 8), and the null with it.

    Args:
        matrix: signed; dead rows and columns are left out.

    Returns:
        the size, at least `INNER_MIN`; None where the ratio is that of an unstructured matrix or above (then the null
        of independent entries fits).

    Raises:
        ValueError: the matrix is all zero.
    """
    values = in_range(matrix)
    rows, columns = live(values)
    kept = values[np.ix_(rows, columns)]
    if not kept.size:
        raise ValueError("an all-zero matrix has no inner size")
    signed = np.sign(kept) * np.sqrt(balanced_squares(kept).mass)
    n, m = signed.shape
    gram = signed @ signed.T if n <= m else signed.T @ signed
    inverse = float(np.square(gram).sum()) / float(np.trace(gram)) ** 2 - 1.0 / n - 1.0 / m
    if inverse <= 0:
        return None
    # A hair above the ratio, so that an exact power of two is not rounded below itself.
    half_steps = floor(2.0 * log2(1.0 / inverse) + 1e-9)
    return max(INNER_MIN, int(2.0 ** (half_steps / 2.0)))


def product_null(
    shape: tuple[int, int], inner: int, ks: Sequence[int], n: int, rng: np.random.Generator, *, gated: bool = False
) -> NullTable:
    """Return Q over `ks` of products of Gaussian factors, through the pipeline that the data go through.

    Args:
        shape: rows and columns of the product.
        inner: its inner size, from `d_eff`; it belongs in a cache's key, beside shape, ks and `gated`.
        ks: candidates of k.
        n: replicates.
        rng: draws one seed a replicate.
        gated: replicates have two readers, as a gated MLP's `virtual_mlp` has.

    Raises:
        ValueError: the inner size is below `INNER_MIN`.
    """
    if inner < INNER_MIN:
        raise ValueError(f"an inner size of {inner} has no null; the least is {INNER_MIN}")
    seeds = [int(seed) for seed in rng.integers(2**63, size=n)]
    rows = [sweep(normal_scores(_product(shape, inner, seed, gated)).mass, ks, seed) for seed in seeds]
    return NullTable((min(shape), max(shape)), tuple(ks), np.stack(rows), committed=False)


def _product(shape: tuple[int, int], inner: int, seed: int, gated: bool) -> Float[np.ndarray, "n m"]:
    rng = np.random.default_rng(seed)
    up, out = rng.standard_normal((shape[0], inner)), rng.standard_normal((inner, shape[1]))
    return virtual_mlp(up, out, rng.standard_normal((shape[0], inner)) if gated else None)


def head_graph(layers: Sequence[HeadLayer]) -> Float[np.ndarray, "heads heads"]:
    """Return the edges from every head to every head of a later layer; heads in layer order.

    An edge is the sum over R in {OV, QK, KQ} of the later head of |R OV1|_F^2 / (|R|_F^2 |OV1|_F^2), where OV1 is the
    earlier head's; each pair of layers is divided by its mean. It depends on no basis, of the residual stream or inside
    heads, and is computed through factors of the heads' width.

    Raises:
        ValueError: fewer than two layers.
    """
    if len(layers) < 2:
        raise ValueError("edges between heads need two layers")
    blocks = layer_of_head(layers)
    graph = np.zeros((len(blocks), len(blocks)))
    readers = [_readers(layer) for layer in layers]
    for first in range(len(layers) - 1):
        writes = layers[first].output
        held = _gram(np.swapaxes(layers[first].value, 1, 2))
        for second in range(first + 1, len(layers)):
            passed = layers[second - 1]
            if passed.gains:
                writes = np.stack([carried(one, passed.gains, passed.norm) for one in writes])
            edges = _edges(writes, held, readers[second])
            mean = edges.mean()
            graph[np.ix_(blocks == first, blocks == second)] = edges / mean if mean > 0 else 0.0
    return graph


def layer_of_head(layers: Sequence[HeadLayer]) -> Int[np.ndarray, " heads"]:
    """Return the layer of every node of `head_graph`: the blocks within which its null shuffles."""
    return np.repeat(np.arange(len(layers)), [len(layer.value) for layer in layers])


@dataclass(frozen=True)
class _Reader:
    """One way in which heads read, R = left . reads: |R| needs `reads` and the Gram matrix of `left` alone."""

    reads: Float[np.ndarray, "heads head_width width"]
    gram: Float[np.ndarray, "heads head_width head_width"]
    squares: Float[np.ndarray, " heads"]
    """|R|_F^2."""


def _readers(layer: HeadLayer) -> tuple[_Reader, ...]:
    """OV reads through the value, QK = Q^T K through the key, KQ = K^T Q through the query."""
    ways = (
        (layer.value, layer.output),
        (layer.key, np.swapaxes(layer.query, 1, 2)),
        (layer.query, np.swapaxes(layer.key, 1, 2)),
    )
    found = []
    for reads, left in ways:
        gram = _gram(left)
        found.append(_Reader(reads, gram, _squares(gram, _gram(np.swapaxes(reads, 1, 2)))))
    return tuple(found)


def _gram(factor: Float[np.ndarray, "heads width head_width"]) -> Float[np.ndarray, "heads head_width head_width"]:
    return np.asarray(np.swapaxes(factor, 1, 2) @ factor)


def _squares(
    left: Float[np.ndarray, "heads head_width head_width"], right: Float[np.ndarray, "heads head_width head_width"]
) -> Float[np.ndarray, " heads"]:
    """Return |A B|_F^2 = tr(A^T A B B^T) from the two Gram matrices."""
    return np.asarray(np.einsum("hij,hij->h", left, right))


def _edges(
    writes: Float[np.ndarray, "first width head_width"],
    held: Float[np.ndarray, "first head_width head_width"],
    readers: Sequence[_Reader],
) -> Float[np.ndarray, "first second"]:
    """Return |R OV1|^2 / (|R|^2 |OV1|^2) summed over the readers: how much of what a head writes another reads.

    Args:
        writes: the earlier heads' output factors, as they arrive.
        held: V V^T of the earlier heads.
        readers: the later heads' ways of reading.
    """
    written = _squares(_gram(writes), held)
    total = np.zeros((len(writes), len(readers[0].reads)))
    for reader in readers:
        # meet[f, s]: the small matrix in which the later head's reads meet the earlier head's writes.
        meet = np.einsum("siw,fwj->fsij", reader.reads, writes, optimize=True)
        seen = np.einsum("fsij,fsij->fs", reader.gram[None] @ meet, meet @ held[:, None], optimize=True)
        scale = np.outer(written, reader.squares)
        total += np.divide(seen, scale, out=np.zeros_like(seen), where=scale > 0)
    return total
