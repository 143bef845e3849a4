"""A dictionary that is read as it was trained is confirmed, every other reading is refused, and the best is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from checks.check import Refusal
from checks.sae_features.dictionary import readings
from checks.sae_features.dictionary.convention import (
    EV_MARGIN,
    ROWS_MIN,
    Confirmed,
    ConventionUnconfirmed,
    Declared,
    confirm,
)
from checks.sae_features.dictionary.readings import Cell, CellResult, grid
from checks.sae_features.dictionary.value import (
    Dictionary,
    Gate,
    Gated,
    LayerNorm,
    Norm,
    Relu,
    Scale,
    Threshold,
    TokenRms,
    TopK,
)
from tests.checks.sae_features.dictionary.drawn import by_hand, drawn

D, M, L0 = 32, 40, 3.0


def planted(gate: Gate, seed: int = 0, **over: Any) -> tuple[Dictionary, torch.Tensor]:
    """Return the true dictionary of states that are sums of a few of its rows, and 4,096 such states.

    Latents are 1 to 2 and their directions are nearly orthogonal, so that a threshold tells them from interference; the
    encoder is the pseudo-inverse's transpose where it exists, and the bias is as long as a row.
    """
    rng = np.random.default_rng(seed)
    rows = np.linalg.qr(rng.standard_normal((D, D)))[0]
    extra = rng.standard_normal((M - D, D))
    rows = np.concatenate([rows, extra / np.linalg.norm(extra, axis=1, keepdims=True)])
    b_dec = 1.5 * rng.standard_normal(D)
    f = (rng.random((ROWS_MIN, M)) < L0 / M) * rng.uniform(1, 2, (ROWS_MIN, M))
    x = f @ rows + b_dec + 0.02 * rng.standard_normal((ROWS_MIN, D))

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float32)

    fields: dict[str, Any] = {"pre_bias": True, **over}
    dictionary = Dictionary(tensor(rows.T), torch.zeros(M), tensor(rows), tensor(b_dec), gate, **fields)
    return dictionary, tensor(x)


THRESHOLD = Threshold(torch.full((M,), 0.7))


def one_by_one(dictionary: Dictionary, cell: Cell, x: torch.Tensor, k: int) -> tuple[float, float]:
    """Return EV and L0 of one reading, as a dictionary of its own read in float64, row by row."""
    squared = (x.double() ** 2).sum(dim=1)
    root = dictionary.width**0.5
    norms: dict[str, Norm | None] = {
        "none": None, "scale": dictionary.norm, "mean_norm": Scale(root / float(squared.sqrt().mean())),
        "token_rms": TokenRms(), "unit_rms": Scale(float(squared.mean()) ** -0.5), "layer_norm": LayerNorm(),
    }  # fmt: skip
    gate, b_enc = dictionary.gate, dictionary.b_enc
    w_enc, w_dec, rescale = dictionary.w_enc, dictionary.w_dec, dictionary.rescale
    if type(gate).__name__.lower() != cell.gate:
        if rescale:
            n = torch.linalg.vector_norm(w_dec, dim=1)
            w_enc, b_enc, w_dec, rescale = w_enc * n, b_enc * n, w_dec / n[:, None], False
        if isinstance(gate, Gated):
            w_enc, b_enc = w_enc * gate.r_mag.exp(), gate.b_mag
        gate = Relu() if cell.gate == "relu" else TopK(k)
    read = Dictionary(
        w_enc, b_enc, w_dec, dictionary.b_dec, gate, pre_bias=cell.pre_bias, norm=norms[cell.norm], rescale=rescale
    )
    f, made = by_hand(read, x)
    states = x.double().numpy()
    spread = ((states - states.mean(axis=0)) ** 2).sum()
    return 1 - ((states - made) ** 2).sum() / spread, (f > 0).sum() / len(f)


@pytest.mark.parametrize(
    ("kind", "norm"),
    [("threshold", None), ("gated", Scale(0.4)), ("topk", None), ("rescaled", LayerNorm()), ("relu", TokenRms())],
)
def test_one_product_for_all_equals_one_by_one(kind: str, norm: Norm | None) -> None:
    rescale = kind == "rescaled"
    dictionary = drawn("topk" if rescale else kind, pre_bias=True, norm=norm, rescale=rescale, d=8, m=24)
    rng = np.random.default_rng(3)
    x = torch.tensor(rng.standard_normal((60, 8)) + rng.standard_normal(8), dtype=torch.float32)
    cells = grid(dictionary, x, 0, 5)
    gates = 2 if kind in ("topk", "rescaled", "relu") else 3
    assert len(cells) == 2 * gates * (6 if isinstance(norm, Scale) else 5)
    for one in cells:
        ev, l0 = one_by_one(dictionary, one.cell, x, 5)
        assert one.ev == pytest.approx(ev, rel=1e-4, abs=1e-4), one.cell
        assert one.l0 == pytest.approx(l0, abs=1 / 60), one.cell


def test_chunks_and_sparse_decoding_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary, x = planted(THRESHOLD)
    whole = grid(dictionary, x, 0, 3)
    monkeypatch.setattr(readings, "CHUNK", 100 * M)
    monkeypatch.setattr(readings, "DENSE_SHARE", 1.0)
    parts = grid(dictionary, x, 0, 3)
    monkeypatch.setattr(readings, "DENSE_SHARE", 0.0)
    dense = grid(dictionary, x, 0, 3)
    for one, other, third in zip(whole, parts, dense, strict=True):
        assert one.cell == other.cell == third.cell
        assert one.ev == pytest.approx(other.ev, rel=1e-5, abs=1e-5)
        assert one.ev == pytest.approx(third.ev, rel=1e-5, abs=1e-5)
        assert one.l0 == other.l0 == third.l0


def test_tie_at_the_last_place_keeps_k() -> None:
    eye = torch.eye(4)
    dictionary = Dictionary(eye, torch.zeros(4), eye, torch.zeros(4), TopK(2))
    x = torch.tensor([[1.0, 1.0, 1.0, 1.0], [3.0, 2.0, 1.0, 0.5]])
    plain = next(one for one in grid(dictionary, x, 0, 2) if str(one.cell) == "layer+0.nopre.none.topk")
    assert plain.l0 == 2.0
    spread = float((x - x.mean(dim=0)).square().sum())
    assert plain.ev == pytest.approx(1 - (2 + 1.25) / spread)


DECLARED: dict[str, tuple[Gate, dict[str, Any]]] = {
    "threshold": (THRESHOLD, {}),
    "gated": (Gated(torch.full((M,), -0.7), torch.zeros(M), torch.zeros(M)), {}),
    "topk": (TopK(6), {}),
    "without pre-bias": (THRESHOLD, {"pre_bias": False}),
}


def as_declared(name: str) -> tuple[Dictionary, torch.Tensor]:
    """Return a true dictionary; without a pre-bias its encoder bias takes the mean out."""
    gate, over = DECLARED[name]
    dictionary, x = planted(gate, **over)
    if not dictionary.pre_bias:
        dictionary = replace(dictionary, b_enc=-dictionary.b_dec @ dictionary.w_enc)
    return dictionary, x


@pytest.mark.parametrize("name", DECLARED)
def test_declared_reading_is_confirmed(name: str) -> None:
    dictionary, x = as_declared(name)
    answer = confirm(dictionary, {0: x}, Declared())
    assert type(answer) is Confirmed
    assert answer.declared.ev > 0.5
    assert answer.best.ev - answer.declared.ev <= EV_MARGIN


@pytest.mark.parametrize(
    ("norm", "name"), [(Scale(0.2), "scale"), (TokenRms(), "token_rms"), (LayerNorm(), "layer_norm")], ids=str
)
def test_declared_norm_is_confirmed_and_its_absence_refused(norm: Norm, name: str) -> None:
    # A dictionary of states that were normalised: trained, in effect, on what the norm makes of x.
    dictionary, x = planted(THRESHOLD)
    rng = np.random.default_rng(8)
    factor = torch.tensor(rng.uniform(0.5, 2.0, (len(x), 1)), dtype=torch.float32)
    if isinstance(norm, Scale):
        raw = x / norm.s
    elif isinstance(norm, TokenRms):
        # States of one norm, so that the norm gives back what the dictionary knows, up to one scale for all.
        x = x * (D**0.5 / torch.linalg.vector_norm(x, dim=1, keepdim=True))
        raw = x * factor
    else:
        x = (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True)
        raw = x * factor + 5 * factor
    if not isinstance(norm, Scale):  # a linear dictionary of the normalised states themselves
        rows = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False).Vh[:20]
        both = torch.cat([rows, -rows])
        dictionary = Dictionary(
            both.T.contiguous(), torch.zeros(40), both, x.mean(dim=0), Threshold(torch.zeros(40)), True
        )
    stated = replace(dictionary, norm=norm)
    answer = confirm(stated, {0: raw}, Declared())
    assert type(answer) is Confirmed
    assert answer.declared.cell.norm == name
    refused = confirm(replace(stated, norm=None), {0: raw}, Declared())
    assert isinstance(refused, ConventionUnconfirmed)
    assert "other_reading" in refused.causes
    if not isinstance(norm, Scale):
        assert refused.best.cell.norm == name


def test_wrong_prebias_is_refused_and_the_right_one_named() -> None:
    dictionary, x = as_declared("threshold")
    answer = confirm(replace(dictionary, pre_bias=False), {0: x}, Declared())
    assert isinstance(answer, ConventionUnconfirmed)
    assert str(answer.best.cell) == "layer+0.pre.none.threshold"
    refusal = answer.refusal()
    assert refusal.reason == "convention_unconfirmed"
    assert "best:layer+0.pre.none.threshold" in refusal.items


def test_threshold_that_was_dropped_is_noticed() -> None:
    dictionary, x = as_declared("threshold")
    answer = confirm(replace(dictionary, gate=Relu()), {0: x}, Declared(l0=L0))
    assert isinstance(answer, ConventionUnconfirmed)
    assert answer.best.cell.gate == "topk"
    assert "l0" in answer.causes


@pytest.mark.parametrize("shift", [-1, 1])
def test_wrong_hook_layer_is_refused(shift: int) -> None:
    dictionary, x = as_declared("threshold")
    _, other = planted(THRESHOLD, seed=9)  # the neighbour writes in directions of its own
    here = {-1: other, 0: 0.5 * other + 0.5 * x, 1: other} | {shift: x}
    answer = confirm(dictionary, here, Declared())
    assert isinstance(answer, ConventionUnconfirmed)
    assert str(answer.best.cell) == f"layer{shift:+d}.pre.none.threshold"
    assert type(confirm(dictionary, {-1: other, 0: x, 1: other}, Declared())) is Confirmed


def test_l0_must_be_the_declared_one() -> None:
    dictionary, x = as_declared("threshold")
    counted = confirm(dictionary, {0: x}, Declared()).declared.l0
    assert type(confirm(dictionary, {0: x}, Declared(l0=counted / 1.19))) is Confirmed
    answer = confirm(dictionary, {0: x}, Declared(l0=counted / 1.21))
    assert isinstance(answer, ConventionUnconfirmed)
    assert answer.causes == ("l0",)


def test_dictionary_that_explains_nothing_is_refused_even_if_best() -> None:
    dictionary, x = as_declared("threshold")
    far = replace(dictionary, b_dec=dictionary.b_dec + 50)
    answer = confirm(far, {0: x}, Declared())
    assert isinstance(answer, ConventionUnconfirmed)
    assert "no_variance_explained" in answer.causes


def test_special_positions_are_told_beside_and_never_ranked() -> None:
    dictionary, x = as_declared("threshold")
    with_bos = torch.cat([x, torch.full((20, D), 300.0)])
    answer = confirm(dictionary, {0: x}, Declared(), with_special=with_bos)
    assert type(answer) is Confirmed
    assert answer.ev_with_special is not None
    assert abs(answer.ev_with_special - answer.declared.ev) > 0.01
    without = confirm(dictionary, {0: x}, Declared())
    assert (without.cells, without.best) == (answer.cells, answer.best)


def test_too_few_states_are_refused() -> None:
    dictionary, x = as_declared("threshold")
    with pytest.raises(Refusal) as caught:
        confirm(dictionary, {0: x, 1: x[:-1]}, Declared())
    assert (caught.value.reason, caught.value.items) == ("too_few_vectors", ("layer:+1", "rows:4095"))
    with pytest.raises(ValueError, match="layer 0"):
        confirm(dictionary, {1: x}, Declared())


def test_readings_without_a_number_rank_last() -> None:
    dictionary, x = as_declared("threshold")
    blown = replace(dictionary, w_dec=dictionary.w_dec * 1e30)
    assert all(isinstance(one, CellResult) and one.ev < 0 for one in grid(blown, x, 0, 3))
