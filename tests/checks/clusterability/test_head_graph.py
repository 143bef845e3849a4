"""Edges between heads: against the dense formula, free of bases, and organism F's halves found where planted."""

from __future__ import annotations

import numpy as np
import pytest

from checks.clusterability.graphs import graph_ks, graph_structure
from checks.clusterability.scores import adjusted_rand
from checks.clusterability.transformer import HeadLayer, head_graph, layer_of_head
from checks.organisms.halves import HalvesBlock, halves


def heads_of(block: HalvesBlock) -> HeadLayer:
    return HeadLayer(query=block.query, key=block.key, value=block.value, output=block.output)


def random_layers(rng: np.random.Generator, layers: int = 3, heads: int = 4) -> list[HeadLayer]:
    return [
        HeadLayer(
            query=rng.normal(size=(heads, 3, 10)),
            key=rng.normal(size=(heads, 3, 10)),
            value=rng.normal(size=(heads, 3, 10)),
            output=rng.normal(size=(heads, 10, 3)),
        )
        for _ in range(layers)
    ]


def test_edges_agree_with_the_dense_definition() -> None:
    layers = random_layers(np.random.default_rng(10))
    dense = np.zeros((12, 12))
    for first in range(3):
        for second in range(first + 1, 3):
            for a in range(4):
                for b in range(4):
                    ov1 = layers[first].output[a] @ layers[first].value[a]
                    later = layers[second]
                    qk = later.query[b].T @ later.key[b]
                    for r in (later.output[b] @ later.value[b], qk, qk.T):
                        share = np.linalg.norm(r @ ov1) ** 2 / (np.linalg.norm(r) ** 2 * np.linalg.norm(ov1) ** 2)
                        dense[4 * first + a, 4 * second + b] += share
    for first in range(3):
        for second in range(first + 1, 3):
            dense[4 * first : 4 * first + 4, 4 * second : 4 * second + 4] /= dense[
                4 * first : 4 * first + 4, 4 * second : 4 * second + 4
            ].mean()
    assert head_graph(layers) == pytest.approx(dense)
    assert layer_of_head(layers).tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_neither_the_residual_basis_nor_a_heads_gauge_matters() -> None:
    rng = np.random.default_rng(11)
    layers = random_layers(rng)
    turn = np.linalg.qr(rng.normal(size=(10, 10)))[0]

    def another(layer: HeadLayer) -> HeadLayer:
        one, two = rng.normal(size=(4, 3, 3)), rng.normal(size=(4, 3, 3))
        return HeadLayer(
            query=np.swapaxes(np.linalg.inv(one), 1, 2) @ layer.query @ turn.T,
            key=one @ layer.key @ turn.T,
            value=two @ layer.value @ turn.T,
            output=turn @ layer.output @ np.linalg.inv(two),
        )

    assert head_graph([another(layer) for layer in layers]) == pytest.approx(head_graph(layers))


def test_pairs_of_layers_weigh_the_same_whatever_their_scale() -> None:
    rng = np.random.default_rng(12)
    layers = random_layers(rng)
    loud = [layers[0], HeadLayer(query=layers[1].query, key=1e3 * layers[1].key, value=layers[1].value,
                                 output=1e-3 * layers[1].output), layers[2]]  # fmt: skip
    graph = head_graph(loud)
    assert graph == pytest.approx(head_graph(layers))
    assert graph[:4, 4:8].mean() == pytest.approx(1.0)
    assert graph[:4, 8:].mean() == pytest.approx(1.0)


def test_a_dead_head_has_no_edges_and_divides_nothing_by_zero() -> None:
    layers = random_layers(np.random.default_rng(13))
    layers[1].output[2] = 0.0
    layers[1].query[2] = 0.0
    graph = head_graph(layers)
    assert np.isfinite(graph).all()
    assert np.array_equal(graph[6], np.zeros(12))
    assert np.array_equal(graph[:, 6], np.zeros(12))


def test_norms_in_the_stream_scale_what_passes_them() -> None:
    rng = np.random.default_rng(14)
    layers = random_layers(rng)
    gains = [rng.normal(size=10) for _ in range(2)]
    centre = np.eye(10) - 0.1
    normed = [
        HeadLayer(query=one.query, key=one.key, value=one.value, output=one.output, gains=(gain,), norm="layer")
        for one, gain in zip(layers, [*gains, np.ones(10)], strict=True)
    ]
    graph = head_graph(normed)
    # From layer 0 to layer 2 both gains are passed; the same edges from a writer that has them in it.
    through = np.diag(gains[1]) @ centre @ np.diag(gains[0]) @ centre
    writer = HeadLayer(
        query=layers[0].query, key=layers[0].key, value=layers[0].value, output=through @ layers[0].output
    )
    assert graph[:4, 8:] == pytest.approx(head_graph([writer, layers[2]])[:4, 4:])
    assert graph[:4, 8:] != pytest.approx(head_graph(layers)[:4, 8:], abs=0.05)


@pytest.mark.parametrize(
    ("leak", "q", "null"), [(0.0, 0.471, 0.12), (0.3, 0.325, 0.08), (0.5, 0.163, 0.04), (1.0, 0.009, 0.008)]
)
def test_head_graph_finds_the_planted_halves(leak: float, q: float, null: float) -> None:
    blocks = halves(leak, 0)
    layers = [heads_of(block) for block in blocks]
    found = graph_structure(head_graph(layers), layer_of_head(layers), graph_ks(32), 199, seed=0)
    truth = np.concatenate([block.heads for block in blocks])
    assert found.q == pytest.approx(q, abs=0.02)
    assert found.null.mean[found.null.ks.index(found.k)] == pytest.approx(null, abs=0.02)
    if leak < 1:
        assert (found.k, found.p) == (2, 1 / 200)
        assert adjusted_rand(found.labels, truth) >= 0.95
    else:
        assert found.p > 0.1
        assert abs(adjusted_rand(found.labels, truth)) < 0.1


@pytest.mark.parametrize("runs", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_heads_of_a_random_transformer_do_not_cluster(runs: int) -> None:
    # Heads that share output directions give a little structure that shuffled edges lack: p alone is a little too
    # small (.175 and .075 at .05 in two series of 40), p and floor together flagged none of 350, loud axes included.
    flagged = []
    for run in range(runs):
        rng = np.random.default_rng([23, run])
        axes = np.ones(64)
        axes[: 4 * (run % 2)] = 6.0
        reads = rng.normal(size=(4, 4, 8, 8, 64)) * axes
        layers = [HeadLayer(query=q, key=k, value=v, output=np.swapaxes(o, 1, 2)) for q, k, v, o in reads]
        found = graph_structure(head_graph(layers), layer_of_head(layers), (2, 3, 4), 39, seed=run)
        flagged.append(found.p <= 0.05 and found.excess_q >= 0.02)
    assert sum(flagged) <= runs // 10


def test_one_layer_of_heads_has_no_graph() -> None:
    with pytest.raises(ValueError, match="two layers"):
        head_graph(random_layers(np.random.default_rng(15), layers=1))
