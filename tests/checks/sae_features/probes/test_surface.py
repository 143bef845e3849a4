from __future__ import annotations

import numpy as np

from checks.sae_features.probes.surface import BUCKETS, ngrams, places


def test_only_the_last_eight_tokens_count() -> None:
    tail = tuple(range(8))
    assert np.array_equal(ngrams([tail])[0], ngrams([(99, 98, 97, *tail)])[0])
    assert not np.array_equal(ngrams([tail])[0], ngrams([(*tail, 99)])[0])


def test_uni_and_bigrams_are_counted_and_order_is_seen() -> None:
    (row,) = ngrams([(3, 3, 3, 5)])
    assert row.shape == (BUCKETS,)
    assert row.sum() == 4 + 3
    assert row.max() == 3
    there, back = ngrams([(1, 2), (2, 1)])
    assert not np.array_equal(there, back)
    assert np.array_equal(there[there != back].sum(), 1.0)


def test_hash_is_the_same_everywhere() -> None:
    # Python's own hash is salted by process: AUROC would change from run to run.
    assert np.flatnonzero(ngrams([(7, 11)])[0]).tolist() == HASHED


def test_rows_without_tokens_have_no_features() -> None:
    assert not ngrams([()]).any()


def test_places_are_position_and_length() -> None:
    assert places(np.array([2, 5]), np.array([9, 7])).tolist() == [[2.0, 9.0], [5.0, 7.0]]


HASHED = [145, 572, 3298]
