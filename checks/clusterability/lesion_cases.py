"""A small net that is read in numpy, as evidence of a declared feed-forward model: what lesion controls bring along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from checks.check import Lesion, ModelFacts, TrialScores, VectorTrial
from checks.clusterability.lesion_plants import LesionCase, ReluNet
from checks.clusterability.lesion_rows import ROLE, lesion_rows
from checks.feedforward import FeedForward, FeedForwardHead, FeedForwardLayer
from checks.memory import InMemoryEvidence

F = TypeVar("F", bound=ModelFacts)


def sites_of(net: ReluNet) -> tuple[str, ...]:
    """Return the site of each hidden layer: every linear layer but the last is followed by its ReLU."""
    return tuple(f"layer.{2 * index}" for index in range(len(net.weights) - 1))


def by_site(net: ReluNet, values: np.ndarray) -> tuple[tuple[str, np.ndarray], ...]:
    """Return one value a hidden unit, cut by site."""
    edges = np.cumsum([len(weight) for weight in net.weights[:-1]])[:-1]
    return tuple(zip(sites_of(net), np.split(values, edges), strict=True))


def declared(net: ReluNet) -> FeedForward:
    """Return the declaration of a net: linear layers with ReLU between them."""
    layers: list[FeedForwardLayer] = []
    shapes: list[tuple[int, ...]] = []
    for index, weight in enumerate(net.weights):
        layers += [FeedForwardLayer(op="linear", weight=f"w{index}", bias=f"b{index}"), FeedForwardLayer(op="relu")]
        shapes += [(len(weight),), (len(weight),)]
    heads = tuple(FeedForwardHead(name=f"h{at}", start=start, stop=stop) for at, (start, stop) in enumerate(net.heads))
    return FeedForward(
        input=(net.weights[0].shape[1],), layers=tuple(layers[:-1]), shapes=tuple(shapes[:-1]), heads=heads
    )


def tensors_of(net: ReluNet) -> dict[str, np.ndarray]:
    """Return the tensors that the declaration names."""
    found = {f"w{index}": weight for index, weight in enumerate(net.weights)}
    return found | {f"b{index}": bias for index, bias in enumerate(net.biases)}


def rows_of(case: LesionCase) -> list[dict[str, Any]]:
    """Return the rows of the role `lesion`; task t is named "t<t>"."""
    return [
        {"id": str(row), "task": f"t{task}", "input": values, "label": int(label), "head": f"h{head}"}
        for row, (task, values, label, head) in enumerate(
            zip(case.rows.task, case.inputs.tolist(), case.labels, case.head, strict=True)
        )
    ]


def lesioned_by(case: LesionCase) -> Callable[[Sequence[Lesion]], TrialScores]:
    """Return what answers lesions of a case, its rows in their order."""
    score = case.scored()
    sizes = [len(weight) for weight in case.net.weights[:-1]]
    starts = dict(zip(sites_of(case.net), np.cumsum([0, *sizes[:-1]]), strict=True))

    def answer(lesions: Sequence[Lesion]) -> TrialScores:
        held = [
            np.concatenate([np.zeros(0, dtype=np.int64), *(starts[site] + units for site, units in one.items())])
            for one in lesions
        ]
        found = score(held)
        return TrialScores(correct=found.correct, loss=found.loss)

    return answer


def case_evidence(
    case: LesionCase, facts: F, check: str, seed: int, rows: Sequence[Mapping[str, Any]] | None = None
) -> InMemoryEvidence:
    """Return a case as evidence.

    Args:
        case: net, inputs and tasks.
        facts: what is known beside the net, which replaces what they say of the model.
        check: name of the check that asks.
        seed: of its draws.
        rows: of the role, where they are not the case's own.
    """
    spread = case.net.hidden(case.inputs) - case.means
    tensors = tensors_of(case.net)
    own = replace(
        facts,
        architecture="feedforward",
        feedforward=declared(case.net),
        layers=len(case.net.weights),
        tensors={name: tensor.shape for name, tensor in tensors.items()},
        mlp_in=(),
        mlp_out=(),
        causal=False,
    )
    return InMemoryEvidence(
        facts=own,
        check=check,
        seed=seed,
        weights=tensors,
        rows={ROLE: rows_of(case) if rows is None else rows},
        lesioned=lesioned_by(case),
        unit_sd=dict(by_site(case.net, np.sqrt(case.rows.weights() @ np.square(spread)))),
    )


def produced(case: LesionCase, facts: F, check: str, seed: int, budget: int) -> InMemoryEvidence:
    """Return a case as evidence whose lesions run through the pass that audits of feed-forward models take.

    Args:
        case: net, inputs and tasks.
        facts: what is known beside the net.
        check: name of the check that asks.
        seed: of its draws.
        budget: lesions that may be asked for.
    """
    # Where it is needed: `judge` shares this module and runs without torch.
    from checks.runtime.feedforward import FeedForwardLesions

    bare = case_evidence(case, facts, check, seed)
    model, weights = declared(case.net), tensors_of(case.net)
    trials = [one for one in lesion_rows(bare.data(ROLE), bare.facts).trials if isinstance(one, VectorTrial)]
    answers = FeedForwardLesions(model, weights, trials, sites_of(case.net), budget)
    return InMemoryEvidence(
        facts=bare.facts,
        check=check,
        seed=seed,
        weights=weights,
        rows={ROLE: bare.data(ROLE)},
        lesioned=answers,
        unit_sd=answers.unit_sd,
        lost=answers.lost,
    )
