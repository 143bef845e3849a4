"""The entries that a sparse step keeps: which they are, exactly, and the products that touch no other entry.

Kept entries are a CSR matrix [B, m] of positive values in row-major order. Selection is exact, ties go to the lower
flat index. On the host numpy selects (its partition and nonzero are vectorised, 5 to 20 times torch's speed on one
thread); elsewhere torch does the same. Specification of `sae_features`, section 5.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch.nn.functional import embedding_bag

if TYPE_CHECKING:
    from jaxtyping import Float, Int

GATHER_ROWS = 2048
"""Entries a chunk of the gather that stands in for the sampled product (specification, section 5)."""


@dataclass(eq=False)
class Kept:
    """A sparse [B, m] matrix of positive values, rows and columns ascending."""

    starts: Int[torch.Tensor, " B+1"]
    """Where each row begins, int32."""
    columns: Int[torch.Tensor, " entry"]
    """int32."""
    values: Float[torch.Tensor, " entry"]
    width: int
    """m."""

    @property
    def rows(self) -> int:
        """Number B of rows."""
        return len(self.starts) - 1

    def product(self, matrix: Float[torch.Tensor, "m d"]) -> Float[torch.Tensor, "B d"]:
        """Return the CSR product with a dense matrix."""
        return _bags(self.columns, self.values, self.starts, matrix)

    def among(self, places: Int[torch.Tensor, " column"], width: int) -> Kept:
        """Return the same entries in a wider matrix, of which this one held the columns `places` (ascending)."""
        return Kept(self.starts, places.to(torch.int32)[self.columns.long()], self.values, width)

    @cached_property
    def row_of_entry(self) -> Int[torch.Tensor, " entry"]:
        """Row of each entry, int64."""
        return torch.repeat_interleave(torch.arange(self.rows, device=self.starts.device), self.starts.long().diff())

    @cached_property
    def by_column(self) -> tuple[Int[torch.Tensor, " entry"], Int[torch.Tensor, " entry"], Int[torch.Tensor, " m+1"]]:
        """Order of the entries by column and then row, their rows in that order, and where each column begins."""
        if self.starts.is_cpu:
            entries = np.arange(len(self.columns), dtype=np.int32)
            shape = (self.rows, self.width)
            turned = csr_matrix((entries, self.columns.numpy(), self.starts.numpy()), shape=shape).tocsc()
            return torch.from_numpy(turned.data), torch.from_numpy(turned.indices), torch.from_numpy(turned.indptr)
        order = torch.argsort(self.columns, stable=True)
        starts = torch.searchsorted(self.columns[order], torch.arange(self.width + 1, device=order.device))
        return order.to(torch.int32), self.row_of_entry[order].to(torch.int32), starts.to(torch.int32)


def largest_of_batch(z: Float[torch.Tensor, "B m"], count: int, floor: float = 0.0) -> Kept:
    """Return the `count` largest positive entries of the whole batch; fewer where fewer are positive.

    Args:
        z: pre-activations, C order.
        count: entries to keep.
        floor: candidates lie above it; where they are too few, every positive entry is one. Never changes the result.
    """
    found, values = _above(z, max(floor, 0.0))
    if len(found) < count and floor > 0.0:
        found, values = _above(z, 0.0)
    if len(found) > count:
        keep = _first_largest(values, count)
        found, values = found[keep], values[keep]
    return _in_rows(z, found, values)


def largest_of_rows(z: Float[torch.Tensor, "B m"], count: int) -> Kept:
    """Return the `count` largest positive entries of each row; fewer where fewer are positive."""
    m = z.shape[1]
    if count >= m:
        return _in_rows(z, *_above(z, 0.0))
    if z.is_cpu:
        least = torch.from_numpy(np.partition(z.numpy(), m - count, axis=1)[:, m - count])
    else:
        least = torch.topk(z, count, dim=1, sorted=False).values.amin(1)
    taken = (z >= least[:, None]) & (z > 0)
    tied = taken.sum(1) > count
    if bool(tied.any()):  # entries equal to the smallest kept one stand in column order
        rows = z[tied]
        over, equal = rows > least[tied][:, None], rows == least[tied][:, None]
        room = count - over.sum(1, keepdim=True)
        taken[tied] = (over | (equal & (equal.cumsum(1) <= room))) & (rows > 0)
    found = _positions(taken)
    return _in_rows(z, found, z.reshape(-1)[found])


def inner_products(
    kept: Kept, left: Float[torch.Tensor, "B d"], right: Float[torch.Tensor, "m d"]
) -> Float[torch.Tensor, " entry"]:
    """Return ⟨left_b, right_i⟩ for every kept entry (b, i): a product sampled where it is wanted."""
    if not len(kept.values):
        return torch.zeros_like(kept.values)
    try:
        return _sampled(kept, left, right)
    except (NotImplementedError, RuntimeError):  # a build or a device without the sampled product
        return gathered(kept, left, right)


def gathered(
    kept: Kept, left: Float[torch.Tensor, "B d"], right: Float[torch.Tensor, "m d"]
) -> Float[torch.Tensor, " entry"]:
    """Return the same inner products by gathering both rows of each entry, a chunk of entries at a time."""
    found = torch.empty_like(kept.values)
    columns = kept.columns.long()
    for begin in range(0, len(found), GATHER_ROWS):
        chunk = slice(begin, begin + GATHER_ROWS)
        found[chunk] = (left[kept.row_of_entry[chunk]] * right[columns[chunk]]).sum(1)
    return found


def transposed_product(
    kept: Kept, values: Float[torch.Tensor, " entry"], dense: Float[torch.Tensor, "B d"]
) -> Float[torch.Tensor, "m d"]:
    """Return the transposed CSR product [m, B]·[B, d], with these values at the kept entries."""
    order, rows, starts = kept.by_column
    return _bags(rows, values[order.long()], starts, dense)


def column_sums(kept: Kept, values: Float[torch.Tensor, " entry"]) -> Float[torch.Tensor, " m"]:
    """Return the sum of each column's values."""
    return torch.zeros(kept.width, dtype=values.dtype, device=values.device).index_add_(0, kept.columns.long(), values)


def _bags(
    indices: Int[torch.Tensor, " entry"],
    values: Float[torch.Tensor, " entry"],
    starts: Int[torch.Tensor, " bag+1"],
    dense: Float[torch.Tensor, "row d"],
) -> Float[torch.Tensor, "bag d"]:
    """Return the CSR product: a bag of weighted rows for each row of the sparse matrix.

    Torch's embedding bag is this product, about three times as fast as its CSR matrix, and sums each bag in order.
    """
    if not len(indices):
        return torch.zeros(len(starts) - 1, dense.shape[1], dtype=dense.dtype, device=dense.device)
    return embedding_bag(indices, dense, starts[:-1], mode="sum", per_sample_weights=values)


def compressed_rows(
    starts: Int[torch.Tensor, " row+1"],
    columns: Int[torch.Tensor, " entry"],
    values: Float[torch.Tensor, " entry"],
    shape: tuple[int, int],
) -> torch.Tensor:
    """Return a CSR tensor of parts that are in order already."""
    with warnings.catch_warnings():
        # Torch calls CSR tensors beta, and says that it does not check what was made in order.
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
        return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)


def _sampled(
    kept: Kept, left: Float[torch.Tensor, "B d"], right: Float[torch.Tensor, "m d"]
) -> Float[torch.Tensor, " entry"]:
    where = compressed_rows(kept.starts, kept.columns, kept.values, (kept.rows, kept.width))
    sampled: torch.Tensor = torch.sparse.sampled_addmm(where, left, right.T, beta=0.0)
    return sampled.values()


def _above(
    z: Float[torch.Tensor, "B m"], floor: float
) -> tuple[Int[torch.Tensor, " entry"], Float[torch.Tensor, " entry"]]:
    found = _positions(z > floor)
    return found, z.reshape(-1)[found]


def _positions(mask: torch.Tensor) -> Int[torch.Tensor, " entry"]:
    """Return the flat indices of true entries, ascending."""
    if mask.is_cpu:
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.reshape(-1).nonzero()[:, 0]


def _first_largest(values: Float[torch.Tensor, " entry"], count: int) -> torch.Tensor:
    """Return a mask of the `count` largest values; of equal ones the first."""
    if values.is_cpu:
        least = float(np.partition(values.numpy(), len(values) - count)[len(values) - count])
    else:
        least = float(values.kthvalue(len(values) - count + 1).values)
    keep = values >= least
    surplus = int(keep.sum()) - count
    if surplus:
        keep[(values == least).nonzero()[-surplus:, 0]] = False
    return keep


def _in_rows(
    z: Float[torch.Tensor, "B m"], found: Int[torch.Tensor, " entry"], values: Float[torch.Tensor, " entry"]
) -> Kept:
    rows, m = z.shape
    starts = torch.searchsorted(found, torch.arange(rows + 1, device=z.device) * m)
    return Kept(starts.to(torch.int32), (found % m).to(torch.int32), values, m)
