"""Norms that cannot be folded are told by their tensor, and nothing else is."""

from __future__ import annotations

import numpy as np

from checks.clusterability.check import Clusterability
from checks.clusterability.norms import norms_left
from checks.feedforward import FeedForwardLayer
from tests.checks.clusterability.nets import batchnorm, evidence_of_net, linear, norm_tensors, op


def test_a_norm_before_a_padded_convolution_is_told_and_refuses_nothing() -> None:
    rng = np.random.default_rng(80)

    def padded(at: int) -> FeedForwardLayer:
        return FeedForwardLayer(op="conv2d", weight=f"{at}.weight", stride=1, padding=1)

    def net(norm_at: int) -> list[FeedForwardLayer]:
        # Behind the ReLU the padded convolution reads the norm; right behind a convolution it is folded.
        layers = [padded(0), op("relu"), padded(3), op("global_avg_pool"), linear(5)]
        layers.insert(norm_at, batchnorm(9))
        return layers

    tensors = {"0.weight": rng.standard_normal((16, 3, 3, 3)), "3.weight": rng.standard_normal((24, 16, 3, 3))}
    tensors |= {"5.weight": rng.standard_normal((20, 24)), **norm_tensors(9, 16, rng)}
    left, gone = (evidence_of_net((3, 6, 6), net(at), tensors) for at in (2, 1))
    assert norms_left(gone) == ()
    measured = Clusterability(k=(2,), nulls=99, families=("conv", "linear")).measure(left)
    assert ("9.weight", "norm_not_folded") in {(one.item, one.reason) for one in measured.skipped}
    assert {one.labels["matrix"] for one in measured.named("p_holm")} == {"3.weight", "5.weight"}
