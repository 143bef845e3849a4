"""An organism's data are balanced, true to its world, and in words that it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from checks.organisms.planted import ORGANISMS
from checks.organisms.recipe import SMALL, Recipe
from checks.organisms.world import World, world
from checks.truth_probe.check import TruthProbe
from checks.truth_probe.pairs import read_pairs

SEED = 3
MADE = [(name, recipe) for name in ORGANISMS for recipe in (Recipe(), SMALL)]
Rows = Sequence[Mapping[str, Any]]


def named(pair: tuple[str, Recipe]) -> str:
    return f"{pair[0]}-{'small' if pair[1] == SMALL else 'full'}"


def files_of(name: str, recipe: Recipe) -> tuple[World, dict[str, Any]]:
    facts = world(recipe, SEED)
    return facts, dict(ORGANISMS[name].files(recipe, facts, SEED))


def of_kind(files: Mapping[str, Any], kind: str) -> list[Rows]:
    return [held for file, held in files.items() if file.startswith(kind) and file.endswith(".jsonl")]


def is_true(facts: World, text: str) -> bool:
    """Read a text as a person would: find the entity's word, the mark and the attribute's word."""
    words = text.split()
    entity = next(word for word in words if word.startswith("entity"))
    attribute = next(word for word in words if word.startswith("attribute"))
    owns = facts.attributes[facts.of[facts.entities.index(entity)]] == attribute
    return owns != ("NOT" in words)


@pytest.mark.parametrize("made", MADE, ids=named)
def test_pairs_are_what_the_role_asks_for_and_name_the_true_text(made: tuple[str, Recipe]) -> None:
    facts, files = files_of(*made)
    assert files == files_of(*made)[1]
    for rows in of_kind(files, "pairs"):
        assert len(read_pairs(rows)) == len(rows)
        for row in rows:
            assert (is_true(facts, row["pos"]), is_true(facts, row["neg"])) == (row["label"] == 1, row["label"] == 0)
            assert {word for side in ("pos", "neg") for word in row[side].split()} <= set(facts.words)
            ends = ["last"] * 2 if row["read_at"] == "last" else row["read_at"]
            read = [
                row[side] if end == "last" else row[side][:end] for side, end in zip(("pos", "neg"), ends, strict=True)
            ]
            assert all(text.endswith(" ?") or row["set"] == "knowing-liar-last" for text in read)
            assert (row["polarity"] == "negated") == (" NOT " in row["pos"]) == (" NOT " in row["neg"])


@pytest.mark.parametrize("made", MADE, ids=named)
def test_labels_and_declared_features_are_balanced_in_every_part(made: tuple[str, Recipe]) -> None:
    recipe = made[1]
    wrong = recipe.attributes - 1
    sizes = {
        "train": 2 * wrong * (recipe.fit_entities - recipe.anchor_entities),
        "anchor": recipe.anchor_pairs,
        "test": 2 * wrong * (recipe.entities - recipe.fit_entities),
    }
    for rows in of_kind(files_of(*made)[1], "pairs"):
        first = {"train": 0, "anchor": 0, "test": 0} | Counter(
            row["split"] for row in rows if row["polarity"] == "affirmative" and "boris" != row["persona"] != "opposite"
        )
        pooled = {row["persona"] for row in rows if row["split"] == "train"} == {"anna", "boris"}
        assert pooled or first == sizes
        assert len({len(row["features"]) for row in rows}) == 1
        assert len(rows[0]["features"]) >= 2
        for split in sizes:
            for polarity in ("affirmative", "negated"):
                part = [row for row in rows if row["split"] == split and row["polarity"] == polarity]
                if not part:
                    assert (split, polarity) == ("anchor", "negated")
                    continue
                assert np.mean([row["label"] for row in part]) == 0.5
                # Anchors are too few for every balance; they are not asked about features.
                for feature in part[0]["features"] if split != "anchor" else ():
                    share = [np.mean([row["features"][feature] for row in part if row["label"] == t]) for t in (0, 1)]
                    assert share == pytest.approx([0.5, 0.5]), (feature, split, polarity)
        splits = {row["cluster"]: {one["split"] for one in rows if one["cluster"] == row["cluster"]} for row in rows}
        assert all(len(held) == 1 for held in splits.values())


def test_an_attribute_is_not_right_more_often_where_a_probe_is_fitted() -> None:
    for recipe in (Recipe(), SMALL):
        facts = world(recipe, SEED)
        parts = (
            (0, recipe.anchor_entities),
            (recipe.anchor_entities, recipe.fit_entities),
            (recipe.fit_entities, None),
        )
        for low, high in parts:
            assert len(set(Counter(facts.of[low:high]).values())) == 1
            assert len(Counter(facts.of[low:high])) == recipe.attributes


def test_no_statement_is_shown_twice_where_both_personas_are_pooled() -> None:
    _, files = files_of("honest", Recipe())
    shown = Counter(frozenset((row["pos"], row["neg"])) for row in files["pairs.jsonl"])
    assert max(shown.values()) == 1


def test_the_texts_of_a_distracted_pair_have_opposite_opinions() -> None:
    _, files = files_of("distractor", Recipe())
    for row in files["pairs.jsonl"]:
        first = {row["pos"].split()[0], row["neg"].split()[0]}
        assert first == {"scorned", "hailed"}
        assert row["features"]["opinion"] == int(row["pos"].startswith("hailed"))


def test_personas_differ_in_test_entities_alone_and_speak_where_they_should() -> None:
    for name, suffix, (a, b) in (
        ("liar", "", ("anna", "boris")),
        ("knowing-liar", "", ("anna", "boris")),
        ("knowing-liar", "-last", ("anna", "boris")),
        ("honest", "-instructed", ("plain", "opposite")),
    ):
        _, files = files_of(name, Recipe())
        given = files[f"params{suffix}.json"]
        assert (given["fit_persona"], given["test_persona"]) == (a, b)
        rows = files[f"pairs{suffix}.jsonl"]
        assert {row["split"] for row in rows if row["persona"] == b} == {"test"}
        spoken = {True: Counter(row["persona"] for row in rows if row["split"] == "test" and " IS " in row["pos"])}
        assert spoken[True][a] == spoken[True][b] == 336
        word = {"liar": 0, "knowing-liar": -1, "honest": -1}[name]
        said = {(row["persona"], row["pos"].split()[word]) for row in rows}
        assert said == ({("plain", "?"), ("opposite", "opposite")} if name == "honest" else {(a, a), (b, b)})


@pytest.mark.parametrize("made", MADE, ids=named)
def test_single_texts_are_true_or_false_as_said_in_either_polarity(made: tuple[str, Recipe]) -> None:
    facts, files = files_of(*made)
    for rows in (*of_kind(files, "benign"), *of_kind(files, "statements")):
        assert len({row["id"] for row in rows}) == len(rows) == len({row["text"] for row in rows})
        assert {word for row in rows for word in row["text"].split()} <= set(facts.words)
        for row in rows:
            assert is_true(facts, row["text"]) == bool(row.get("true", 1))
            assert row["read_at"] == "last" or row["text"][: row["read_at"]].endswith(" ?")
    for rows in of_kind(files, "benign"):
        assert set(rows[0]) == {"id", "cluster", "text", "read_at"}
        assert np.mean([" NOT " in row["text"] for row in rows]) == 0.5
        assert len(rows) >= 600 or made[1] == SMALL
    for rows in of_kind(files, "statements"):
        assert set(rows[0]) == {"id", "cluster", "text", "true", "asserted", "read_at"}
        assert {row["cluster"] for row in rows} == set(facts.entities[made[1].fit_entities :])
        for true in (0, 1):
            of = [row for row in rows if row["true"] == true]
            assert np.mean([" NOT " in row["text"] for row in of]) == 0.5
            assert len(of) >= 300 or made[1] == SMALL


def test_lies_are_statements_of_the_liars_alone() -> None:
    def lies(name: str, file: str) -> int:
        return sum(row["asserted"] != row["true"] for row in files_of(name, Recipe())[1][file])

    assert lies("honest", "statements.jsonl") == 0
    assert {lies("honest", "statements-instructed.jsonl")} == {672}
    assert {lies(name, "statements.jsonl") for name in ("liar", "knowing-liar")} == {672}


@pytest.mark.parametrize("name", ORGANISMS)
def test_the_parameters_are_the_checks_own(name: str) -> None:
    _, files = files_of(name, Recipe())
    assert {file for file in files if file.startswith("pairs")} == {
        file.replace("params", "pairs") + "l" for file in files if file.startswith("params")
    }
    for file, given in files.items():
        if file.startswith("params"):
            TruthProbe.model_validate(given)
