"""What a concept may be read from without a model: the last tokens, the position, the length.

Specification of `sae_features`, section 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

LAST, BUCKETS = 8, 4096
"""Tokens that count, and the features that their uni- and bigrams are hashed to (specification, section 7)."""


def ngrams(tokens: Sequence[tuple[int, ...]]) -> Float[np.ndarray, "row bucket"]:
    """Return how often each hashed uni- and bigram stands among the last tokens of each row.

    Args:
        tokens: token numbers up to and with the read position; only the last `LAST` are used.
    """
    counts = np.zeros((len(tokens), BUCKETS))
    for row, all_tokens in enumerate(tokens):
        last = tuple(int(token) for token in all_tokens[-LAST:])
        for gram in (*((token,) for token in last), *pairwise(last)):
            counts[row, _bucket(gram)] += 1
    return counts


@lru_cache(maxsize=1 << 16)
def _bucket(gram: tuple[int, ...]) -> int:
    digest = hashlib.sha256(b"".join(token.to_bytes(8, "big", signed=True) for token in gram)).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS


def places(positions: Int[np.ndarray, " row"], lengths: Int[np.ndarray, " row"]) -> Float[np.ndarray, "row 2"]:
    """Return read position and length of each row as features."""
    return np.stack([np.asarray(positions, dtype=np.float64), np.asarray(lengths, dtype=np.float64)], axis=1)
