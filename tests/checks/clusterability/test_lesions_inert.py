"""A lesion pass that holds nothing is caught for both kinds of model: by the plant, and on the audited model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.check import TokenTrial
from checks.clusterability.layers import Partitioned
from checks.clusterability.lesion_cases import produced
from checks.clusterability.lesion_controls import PlantedTwoNets, ShuffledPartition, planted_lesions
from checks.clusterability.lesion_plants import planted_two_nets
from checks.clusterability.lesioning import LesionMeasured, lesion_measured, lesion_needs
from checks.memory import InMemoryEvidence, model_facts
from checks.runtime import feedforward, lesion_passes
from checks.runtime.lesions import TokenLesions
from tests.checks.clusterability.lesioned import Asked, judged, network_of
from tests.checks.models import save
from tests.checks.runtime.test_loading import loaded

PARTITIONS = (
    Partitioned("mlp.0", (("mlp.0", np.arange(64) % 2),)),
    Partitioned("head_graph", tuple((f"heads.{layer}", np.arange(2)) for layer in range(3))),
)

ASKED = Asked(lesion_nulls=99, lesion_layers=(0,), families=("mlp_in",))


def words_and_reasons(told: LesionMeasured) -> set[tuple[str, str]]:
    return {(one.word, one.labels.get("reason", "")) for one in judged(told)}


def net_lesioned() -> LesionMeasured:
    case, owner = planted_two_nets(np.random.default_rng(51))
    seen = produced(case, model_facts(), "clusterability", 3, 600)
    return lesion_measured(Asked(lesion_nulls=99), seen, [network_of(case, owner)])


def tokens_lesioned(folder: Path, partition: Partitioned) -> LesionMeasured:
    save("gpt2", folder)
    here = loaded(folder)
    rows = [
        {"id": f"{at}", "task": f"t{at % 2}", "text": f"thing{at % 20} IS red", "target": " red" if at % 3 else " blue"}
        for at in range(100)
    ]
    needs = lesion_needs(ASKED, here.facts, rows)
    trials = [one for one in needs.trials if isinstance(one, TokenTrial)]
    answers = TokenLesions(here, trials, [site for site, _ in partition.sites], needs.lesions)
    rng = np.random.default_rng(0)
    shapes = {
        name: shape[::-1] if name in here.facts.transposed else shape for name, shape in here.facts.tensors.items()
    }
    seen = InMemoryEvidence(
        facts=here.facts,
        check="clusterability",
        weights={name: rng.standard_normal(shape) for name, shape in shapes.items()},
        rows={"lesion": rows},
        lesioned=answers,
        unit_sd=answers.unit_sd,
        lost=answers.lost,
    )
    return lesion_measured(ASKED, seen, [partition])


def held(control: PlantedTwoNets | ShuffledPartition) -> bool:
    measured = planted_lesions(Asked(), control.spoil(Asked(), InMemoryEvidence(facts=model_facts(), seed=3)))
    assert measured is not None
    return all(one.low <= one.value <= one.high for one in control.bands(Asked(), measured))


def test_a_feedforward_pass_that_holds_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("inconclusive", "lesions_inert") not in words_and_reasons(net_lesioned())
    monkeypatch.setattr(feedforward._Site, "hold", lambda _site, state, _mask: state)
    assert not held(PlantedTwoNets())
    assert not held(ShuffledPartition())
    told = net_lesioned()
    assert [(one.item, one.reason) for one in told.skipped] == [
        ("role:lesion", "lesions_inert"),
        ("role:lesion:partition:network", "lesions_inert"),
    ]
    assert words_and_reasons(told) == {("inconclusive", "lesions_inert")}


def test_a_feedforward_pass_that_holds_other_units_is_caught_by_the_plant(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = feedforward._Site.mask
    monkeypatch.setattr(feedforward._Site, "mask", lambda site, units: mask(site, np.asarray((units + 1) % site.units)))
    assert not held(PlantedTwoNets())


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda one: one.name)
def test_a_token_pass_that_holds_nothing_is_caught(
    partition: Partitioned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ("inconclusive", "lesions_inert") not in words_and_reasons(tokens_lesioned(tmp_path, partition))
    moved, holding = lesion_passes._moved, lesion_passes._holding

    def nothing(lesions: Sequence[Mapping[Any, Any]]) -> list[dict[Any, Any]]:
        return [{} for _ in lesions]

    monkeypatch.setattr(
        lesion_passes, "_moved", lambda here, batch, held, *rest: moved(here, batch, nothing(held), *rest)
    )
    monkeypatch.setattr(lesion_passes, "_holding", lambda held, *rest: holding(nothing(held), *rest))
    told = tokens_lesioned(tmp_path, partition)
    assert ("role:lesion", "lesions_inert") in {(one.item, one.reason) for one in told.skipped}
    assert words_and_reasons(told) == {("inconclusive", "lesions_inert")}
