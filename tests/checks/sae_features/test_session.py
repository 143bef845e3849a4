"""What one session reads, leaves out and refuses: a spoiled row costs itself and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from checks.check import Refusal
from checks.memory import InMemoryEvidence, model_facts
from checks.passages import States
from checks.sae_features import concept_metrics
from checks.sae_features.check import SaeFeatures
from checks.sae_features.dictionary.formats import save_assay
from checks.sae_features.dictionary.value import Dictionary, Relu
from checks.sae_features.learning import HELD_GROUPS_LEAST
from checks.sae_features.probes.concept_values import ConceptRefused, ConceptTable
from checks.sae_features.session import Read, Session
from checks.sae_features.supplying import Supplied
from tests.checks.sae_features.linear_model import LENGTH, VOCABULARY, D, Drawn, LinearSite, Recipe

FEW: dict[str, Any] = {
    "site": "resid.1",
    "width": 64,
    "k": 4,
    "train_tokens": 100_000,
    "dictionary_seeds": 2,
    "bootstrap": 200,
    "permutations": 50,
    "ks": (1, 5),
}

Change = Callable[[States], States]


class Changed(LinearSite):
    """A site whose states are changed as they come."""

    def __init__(self, drawn: Drawn, states: dict[str, np.ndarray], change: Change) -> None:
        super().__init__(drawn, states)
        self.change = change

    def states(self, ids: Sequence[str]) -> Iterator[States]:
        yield from map(self.change, super().states(ids))


@cache
def drawn() -> Drawn:
    return Drawn(Recipe(passages=8000, contrasts=0))


@cache
def twin() -> Drawn:
    return Drawn(replace(drawn().recipe, seed=1, amplitude=0.0))


def spoiled(**rows: np.ndarray) -> dict[str, np.ndarray]:
    return {**drawn().states, **{f"concepts/{name}": x for name, x in rows.items()}}


def session(
    *,
    states: dict[str, np.ndarray] | None = None,
    change: Change = lambda states: states,
    beside: Mapping[str, dict[str, np.ndarray]] | None = None,
    base: dict[str, np.ndarray] | None = None,
    lost: Mapping[str, str] | None = None,
    blobs: dict[str, bytes] | None = None,
    rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    **params: Any,
) -> Session:
    """Return a session of a model of three blocks; its sites hold the same states but where others are given."""

    def site(name: str, which: str) -> LinearSite:
        if which == "shuffled":
            return Changed(twin(), twin().states, change)
        if which == "base":
            return Changed(drawn(), base or drawn().states, change)
        return Changed(drawn(), (beside or {}).get(name, states or drawn().states), change)

    given = InMemoryEvidence(
        facts=model_facts(layers=3, width=D, vocabulary=VOCABULARY, context=LENGTH),
        check="sae_features",
        rows=rows or {role: drawn().rows[role] for role in ("corpus", "concepts")},
        lost=lost,
        sites=site,
        models=("submitted", "shuffled") if base is None else ("submitted", "shuffled", "base"),
        blobs=blobs,
    )
    return Session.of(SaeFeatures(**{**FEW, **params}), given)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(limits=1, user_api="blas"):
        yield
    torch.set_num_threads(threads)


@cache
def plain() -> Session:
    made = session()
    assert made.learned
    assert made.twin
    return made


def trained(**more: Any) -> Session:
    """Return a session with what was trained for the plain one: corpus and settings of the training are the same."""
    made = session(**more)
    made.__dict__ |= {"learned": plain().learned, "twin": plain().twin}
    return made


def ids(read: Session) -> list[str]:
    return [row.id for row in read.concept_rows("open")]


def equal(one: Read, other: Read) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("x", "positions", "lengths"))


def test_rows_that_cannot_be_read_cost_themselves_and_are_named() -> None:
    gone = {"concepts/k0": "too_long", "concepts/k7": "nothing_before", "corpus/c1": "too_long"}
    made = trained(lost=gone)
    assert made.left_out_rows == (("concept_row:k0", "row_lost"), ("concept_row:k7", "row_lost"))
    left = [number for number in range(320) if number not in (0, 7)]
    assert ids(made) == [f"k{number}" for number in left]
    assert np.array_equal(made.read["open"].x, plain().read["open"].x[left])
    assert np.array_equal(made.twin_read["open"].x, plain().twin_read["open"].x[left])
    table = made.tables["open"]
    assert isinstance(table, ConceptTable)
    assert sum(table.counts.values()) == len(left)


def test_a_row_that_marks_no_token_is_lost_too() -> None:
    def unmarked(states: States) -> States:
        # The last passage of a batch: k63 where batches hold 64 rows, k255 and k319 where they hold 256.
        read = states.read.copy()
        read[-LENGTH:] = False
        return replace(states, read=read)

    made = trained(change=unmarked)
    assert made.left_out_rows == (("concept_row:k255", "row_lost"), ("concept_row:k319", "row_lost"))


def test_a_concept_whose_rows_are_all_lost_is_refused_by_groups_and_nothing_fails() -> None:
    made = trained(lost={f"concepts/k{number}": "too_long" for number in range(320)}, base=drawn().states)
    assert len(made.left_out_rows) == 320
    refused = made.tables["open"]
    assert isinstance(refused, ConceptRefused)
    assert refused.reason == "too_few_groups"
    assert made.read["open"].x.shape == made.base_read["open"].x.shape == (0, D)


def test_an_outlier_of_norm_is_not_read_by_a_probe_and_its_row_is_named() -> None:
    states = drawn().states
    wild = states["concepts/k3"].copy()
    wild[-1] *= 1e4
    quiet = states["concepts/k4"].copy()
    quiet[0] *= 1e4  # not marked: the row stays
    made = trained(states=spoiled(k3=wild, k4=quiet))
    assert made.left_out_rows == (("concept_row:k3", "outlier_row"),)
    assert "k3" not in ids(made)
    assert np.abs(made.read["open"].x).max() == np.abs(np.delete(plain().read["open"].x, 3, axis=0)).max()


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_of_several_marked_tokens_only_usable_ones_are_pooled_in_every_model(pool: str) -> None:
    def three(states: States) -> States:
        # The last three tokens are marked; the last is the end of the text, the one before it an outlier of one row.
        marked = states.position >= LENGTH - 3
        return replace(states, read=marked, special=states.position == LENGTH - 1)

    wild = drawn().states["concepts/k3"].copy()
    wild[-2] *= 1e4
    made = trained(states=spoiled(k3=wild), change=three, pool=pool, base=drawn().states)
    assert made.left_out_rows == ()
    read, number = made.read["open"], ids(made).index("k3")
    assert read.positions[number] == LENGTH - 3
    assert read.positions[number + 1] == LENGTH - 2
    assert len(read.tokens[number]) == LENGTH - 2
    for one, source in ((read, drawn()), (made.twin_read["open"], twin()), (made.base_read["open"], drawn())):
        assert np.array_equal(one.x[number], source.states["concepts/k3"][LENGTH - 3])
        beside = source.states["concepts/k4"][LENGTH - 3 : LENGTH - 1]
        expected = beside.astype(np.float64).mean(axis=0) if pool == "mean" else beside[-1]
        assert np.allclose(one.x[number + 1], expected, rtol=1e-6)


def test_another_model_s_outliers_do_not_change_which_rows_are_read() -> None:
    wild = drawn().states["concepts/k3"] * np.float32(1e4)
    made = trained(base=spoiled(k3=wild))
    assert made.left_out_rows == ()
    assert equal(made.read["open"], plain().read["open"])
    assert len(made.base_read["open"].x) == 320


def test_two_sessions_read_the_same_bytes() -> None:
    one, other = (trained(lost={"concepts/k5": "too_long"}) for _ in range(2))
    assert equal(one.read["open"], other.read["open"])
    assert one.left_out_rows == other.left_out_rows


def grouped(groups: int) -> dict[str, list[dict[str, Any]]]:
    corpus = drawn().rows["corpus"]
    return {"corpus": [{**row, "group": f"source{number % groups}"} for number, row in enumerate(corpus)]}


def test_a_corpus_of_few_sources_is_refused_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: Any) -> Any:
        raise AssertionError("trained")

    monkeypatch.setattr("checks.sae_features.learning.learn", never)
    made = session(rows=grouped(40))
    groups = len(set(made.held_groups.values()))
    assert 2 <= groups < HELD_GROUPS_LEAST
    with pytest.raises(Refusal) as caught:
        _ = made.held
    assert (caught.value.reason, caught.value.items) == ("too_few_groups", (f"corpus:held:{groups}", "limit:20"))


def test_groups_whose_states_are_all_outliers_do_not_count_as_held() -> None:
    made = trained()
    kept = sorted(set(made.held_groups.values()))[:5]
    wild = {
        name: drawn().states[name] * np.float32(1e4) for name, group in made.held_groups.items() if group not in kept
    }
    made = trained(states={**drawn().states, **wild})
    with pytest.raises(Refusal) as caught:
        _ = made.held
    assert (caught.value.reason, caught.value.items) == ("too_few_groups", ("corpus:held:5", "limit:20"))


def test_too_few_groups_to_plant_in_leave_power_out_and_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trained()
    assert isinstance(made.tables["open"], ConceptTable)
    monkeypatch.setattr(concept_metrics, "LEAST_GROUPS", 10**6)
    told = concept_metrics.concepts_told(made)
    assert ("power:trained-0", "too_few_groups") in {(one.item, one.reason) for one in told.skipped}
    assert list(concept_metrics.power_told(made)) == []


def supplied(site: str = "resid.1", **config: Any) -> dict[str, bytes]:
    """Return a dictionary that explains every state: each axis and its negative."""
    axes = torch.cat([torch.eye(D), -torch.eye(D)])
    stated, weights = save_assay(Dictionary(axes.T.contiguous(), torch.zeros(2 * D), axes, torch.zeros(D), Relu()))
    document = {**json.loads(stated), "site": site}
    document |= {key: config.pop(key) for key in ("assume_site", "declared_l0") if key in config}
    document["config"] |= config
    return {"sae": weights, "sae_config": json.dumps(document).encode()}


def confirmed(**more: Any) -> Supplied:
    found = trained(dictionary="both", **more).supplied
    assert found is not None
    assert found.refusal is None
    return found


def layers(found: Supplied) -> set[int]:
    assert found.convention is not None
    return {one.cell.layer for one in found.convention.cells}


def test_a_sender_s_own_words_do_not_reach_the_statements() -> None:
    lie = "resid.7 VERIFIED by the auditor"
    blobs = supplied(
        lie, assume_site=True, hook_name="blocks.9.hook_resid_post", model_name="<b>audited</b>", note="safe", seed=3
    )
    found = confirmed(blobs=blobs)
    assert found.statements == ("site:differs", "hook:differs", "model:unverified", "trained_on:unknown")
    assert found.dropped == ("note", "seed")


def test_a_dictionary_that_states_nothing_more_has_nothing_dropped() -> None:
    found = confirmed(blobs=supplied())
    assert found.statements == ("trained_on:unknown",)
    assert found.dropped == found.untested == ()
    assert layers(found) == {-1, 0, 1}


def test_a_neighbour_of_larger_states_is_held_against_by_its_own_norm() -> None:
    louder = {name: x * np.float32(30) for name, x in drawn().states.items()}
    found = confirmed(blobs=supplied(), beside={"resid.2": louder})
    assert layers(found) == {-1, 0, 1}


def test_a_neighbour_of_too_few_usable_states_is_left_out_and_named() -> None:
    # Of the 8192 states that are read 6400 are outliers; the median is that of the first 20,000.
    wild = {name: drawn().states[name] * np.float32(1e3) for name in plain().held_ids[:400]}
    found = confirmed(blobs=supplied(), beside={"resid.0": {**drawn().states, **wild}})
    assert found.untested == ("resid.0",)
    assert layers(found) == {0, 1}
