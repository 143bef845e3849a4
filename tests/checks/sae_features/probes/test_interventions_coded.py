"""Changes that share an encoding: what is edited, what stays, and when it is encoded again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from checks.passages import States
from checks.sae_features.dictionary.value import LayerNorm, Scale, TokenRms
from checks.sae_features.probes.coded import Coded
from tests.checks.sae_features.dictionary.drawn import by_hand as reconstructed_by_hand
from tests.checks.sae_features.dictionary.drawn import drawn, states
from tests.checks.sae_features.probes.toy_site import LATENTS, ToySite, dictionary, directions, editable

PLANTED, INERT = [0, 1], [5, 9]


def first_states(site: ToySite, kind: str = "c") -> States:
    return next(site.states(site.named(kind)[0]))


def test_ablation_keeps_error() -> None:
    seen = first_states(ToySite("error"))
    changed = Coded(dictionary(), editable, PLANTED + INERT).without(INERT)(seen)
    rows = directions()[INERT]
    x = seen.vectors.astype(np.float64)
    f = np.where(seen.special[:, None], 0.0, np.maximum(x @ rows.T, 0.0))
    assert changed == pytest.approx(x - f @ rows, abs=1e-5)
    # What the dictionary leaves out stands as it stood, and is large here.
    outside = directions()[LATENTS:]
    assert (changed @ outside.T) == pytest.approx(x @ outside.T, abs=1e-5)
    assert np.abs(x[~seen.special] @ outside.T).max() > 2.0


def test_special_tokens_and_silent_places_are_not_edited() -> None:
    seen = first_states(ToySite())
    coded = Coded(dictionary(), editable, [5])
    changed = coded.without([5])(seen)
    assert changed[seen.special].tobytes() == seen.vectors[seen.special].tobytes()
    silent = ~(dictionary().encode(torch.from_numpy(seen.vectors))[:, 5] > 0).numpy()
    assert np.any(silent & ~seen.special)
    assert changed[silent].tobytes() == seen.vectors[silent].tobytes()
    everything = coded.change(lambda code: np.zeros_like(code.x))(seen)
    assert everything[seen.special].tobytes() == seen.vectors[seen.special].tobytes()
    assert not everything[~seen.special].any()


@pytest.mark.parametrize("norm", [None, Scale(0.37), TokenRms(), LayerNorm()])
@pytest.mark.parametrize("kind", ["relu", "topk", "threshold", "gated"])
def test_parts_add_up_under_every_norm(kind: str, norm: Scale | TokenRms | LayerNorm | None) -> None:
    one = drawn(kind, norm=norm, rescale=kind == "topk", pre_bias=True)
    x = states(30).numpy()
    seen = States(
        vectors=x, passage=np.zeros(30, int), position=np.arange(30), token=np.arange(30),
        special=np.zeros(30, bool), read=np.zeros(30, bool),
    )  # fmt: skip
    _, code = Coded(one, editable, range(one.latents)).of(seen)
    f, made = reconstructed_by_hand(one, torch.from_numpy(x))
    assert code.made == pytest.approx(made, rel=1e-4, abs=1e-3)
    assert code.bare + code.added(range(one.latents)) == pytest.approx(made, rel=1e-4, abs=1e-3)
    assert code.x - code.made == pytest.approx(code.error, abs=1e-6)
    kept = torch.from_numpy(f).float()
    kept[:, [2, 7, 11]] = 0.0
    without = one.decode(kept, torch.from_numpy(x)).numpy()
    assert code.made - code.added([7, 2, 11]) == pytest.approx(without, rel=1e-4, abs=1e-3)


def test_a_latent_that_was_not_named_is_an_error() -> None:
    with pytest.raises(KeyError, match="7"):
        Coded(dictionary(), editable, [1, 2]).without([7])(first_states(ToySite()))
    with pytest.raises(ValueError, match="outside"):
        Coded(dictionary(), editable, [LATENTS])


def test_a_batch_is_encoded_once_for_all_changes() -> None:
    site = ToySite(batch=16)
    ids, _ = site.named()
    coded = Coded(dictionary(), editable, range(LATENTS))
    site.margins(ids, [coded.without([one]) for one in range(LATENTS)])
    assert coded.encodings == math.ceil(len(ids) / 16)
