"""Needs that this model cannot answer are refused before it is loaded, by the name of what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from checks.check import Continuation, ModelFacts, Needs, Text, TokenTrial, VectorTrial
from checks.errors import NotAskedFor
from checks.feedforward import FeedForward, FeedForwardHead, FeedForwardLayer
from checks.memory import model_facts
from checks.runtime.plan import check_needs, plan, twin_plan, units_of

TOKENS = (
    TokenTrial(id="a", group="g", text="one", target=" two"),
    TokenTrial(id="b", group="h", text="one", target=" three"),
)
VECTORS = (VectorTrial(id="a", group="g", values=(1.0,) * 4, label=0),)


def transformer(**more: Any) -> ModelFacts:
    known: dict[str, Any] = {
        "layers": 2,
        "heads": 3,
        "tensors": {"out.0": (24, 6), "out.1": (6, 24)},
        "mlp_out": ("out.0", "out.1"),
        "transposed": frozenset({"out.0"}),
    }
    return model_facts(**(known | more))


def feedforward() -> ModelFacts:
    layers = (
        FeedForwardLayer(op="linear", weight="a"),
        FeedForwardLayer(op="relu"),
        FeedForwardLayer(op="linear", weight="b"),
        FeedForwardLayer(op="linear", weight="c"),
    )
    model = FeedForward(
        input=(4,),
        layers=layers,
        shapes=((8,), (8,), (5,), (2,)),
        heads=(FeedForwardHead(name="out", start=0, stop=2),),
    )
    return model_facts(architecture="feedforward", layers=3, heads=0, feedforward=model)


TOKEN_NEEDS: dict[str, Any] = {"trials": TOKENS, "units": ("mlp.0", "heads.1"), "lesions": 3}
VECTOR_NEEDS: dict[str, Any] = {"trials": VECTORS, "units": ("layer.0", "layer.2"), "lesions": 3}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"units": ("mlp.2",)}, r"mlp\.2"),
        ({"units": ("heads.2",)}, r"heads\.2"),
        ({"units": ("heads.01",)}, r"heads\.01"),
        ({"units": ("layer.0",)}, r"layer\.0"),
        ({"units": ("resid.0",)}, r"resid\.0"),
        ({"units": ("mlp.0", "mlp.0")}, "twice"),
        ({"trials": VECTORS}, "trial 'a'.*transformer"),
        ({"trials": (*TOKENS, VectorTrial(id="v", group="g", values=(), label=0))}, "trial 'v'"),
        ({"trials": (TOKENS[0], TOKENS[0])}, "share an id"),
        ({"texts": (Text(id="a", text="x"),)}, "share an id"),
        ({"continuations": (Continuation(id="b", after="x", text=" y"),)}, "share an id"),
        ({"lesions": -1}, "-1 lesions"),
        ({"trials": ()}, "need trials"),
        ({"trials": (), "units": ()}, "need trials"),
        ({"units": ()}, "units"),
        ({"trials": (), "lesions": 0}, "units need trials"),
    ],
)
def test_trials_and_lesions_that_a_transformer_cannot_answer_are_refused(change: dict[str, Any], told: str) -> None:
    check_needs(Needs(**TOKEN_NEEDS), transformer())
    with pytest.raises(NotAskedFor, match=told):
        check_needs(Needs(**(TOKEN_NEEDS | change)), transformer())


TEXT = (Text(id="t", text="x"),)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"units": ("layer.1",)}, r"layer\.1.*layer\.0, layer\.2"),
        ({"units": ("layer.3",)}, r"layer\.3"),
        ({"units": ("mlp.0",)}, r"mlp\.0"),
        ({"units": ("heads.0",)}, r"heads\.0"),
        ({"trials": TOKENS}, "trial 'a'.*feedforward"),
        ({"sites": ("resid.0",)}, "no tokens"),
        ({"texts": TEXT}, "no tokens"),
        ({"continuations": (Continuation(id="c", after="x", text=" y"),)}, "no tokens"),
        ({"texts": TEXT, "sites": ("resid.0",), "twin": ("t",)}, "no tokens"),
        ({"replay": 1}, "no tokens"),
        ({"lesions": -1}, "-1 lesions"),
    ],
)
def test_what_a_feed_forward_model_cannot_answer_is_refused(change: dict[str, Any], told: str) -> None:
    check_needs(Needs(**VECTOR_NEEDS), feedforward())
    with pytest.raises(NotAskedFor, match=told):
        check_needs(Needs(**(VECTOR_NEEDS | change)), feedforward())


def test_units_are_counted_as_the_last_matrix_reads_them() -> None:
    """One of the two files stores it as [in, out]."""
    facts = transformer()
    assert [units_of(site, facts) for site in ("mlp.0", "mlp.1", "heads.0")] == [24, 24, 3]
    assert [units_of(site, feedforward()) for site in ("layer.0", "layer.2")] == [8, 5]


def test_an_audit_runs_where_one_check_has_nothing_but_trials() -> None:
    facts = transformer()
    only = plan([Needs(**TOKEN_NEEDS), Needs(weights=("out.0",))], facts)
    assert (only.sweeps, only.reads_or_scores, only.trials, only.layers) == (True, False, 2, ())
    assert not plan([Needs(weights=("out.0",))], facts).sweeps
    text = Needs(texts=TEXT, sites=("resid.1",), twin=("t",))
    both = [Needs(**TOKEN_NEEDS), text]
    assert plan(both, facts).reads_or_scores
    twin = twin_plan([Needs(**(TOKEN_NEEDS | {"texts": TEXT, "sites": ("resid.0",), "twin": ("t",)})), text], facts)
    assert (twin.sweeps, twin.trials) == (True, 0)
    assert not twin_plan([Needs(**TOKEN_NEEDS)], facts).sweeps
    assert plan([Needs(**VECTOR_NEEDS)], feedforward()).sweeps
