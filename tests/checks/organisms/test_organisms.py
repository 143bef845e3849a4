"""Organisms are what they claim to be, and are made once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from checks.check import Needs, Text
from checks.documents import OrderedCheck
from checks.errors import OrganismFailed
from checks.local import run_local
from checks.organisms.__main__ import main
from checks.organisms.comparison import comparison_pairs
from checks.organisms.honest import MARKS, PERSONAS, SMALL, Recipe, pairs, recipe_sha256, world
from checks.organisms.store import honest, minilm, tiny
from checks.runtime.plan import plan
from checks.runtime.sweep import evidence, sweep
from sandbox.reader import jsonl
from tests.checks.runtime.test_loading import loaded
from tests.checks.toy import TOYS

FIELDS = {
    "id", "item", "cluster", "set", "template", "form", "pos", "neg", "label", "polarity", "read_at", "split",
    "persona", "features",
}  # fmt: skip


def auroc_of_mean_difference(folder: Path, layer: int) -> float:
    """Return the AUROC, on test pairs, of the mean difference of train pairs: written here, apart from the checks."""
    rows = [row for _, row in jsonl.rows(folder / "pairs.jsonl")]
    texts = tuple(Text(id=f"{row['id']}/{side}", text=row[side]) for row in rows for side in ("pos", "neg"))
    here = loaded(folder / "model")
    needs = Needs(sites=(f"resid.{layer}",), texts=texts)
    swept = sweep(here, plan([needs], here.facts))
    states = evidence(here.facts, check="x", seed=0, needs=needs, swept=swept, weights={}, rows={})
    branches = states.activations(f"resid.{layer}").reshape(len(rows), 2, -1)
    difference = branches[:, 0] - branches[:, 1]
    sign = np.array([2 * row["label"] - 1 for row in rows])
    split = np.array([row["split"] for row in rows])
    direction = (difference * sign[:, None])[split == "train"].mean(axis=0)
    scores, labels = difference[split == "test"] @ direction, sign[split == "test"]
    above = scores[labels > 0][:, None] - scores[labels < 0][None, :]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def answers_of(folder: Path, seed: int, recipe: Recipe) -> float:
    """Return the share of statements that the model itself answers rightly, NOT among them."""
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder / "model", local_files_only=True).train(False)
    tokenizer = loaded(folder / "model").tokenizer
    facts = world(recipe, seed)
    texts, right = [], []
    for entity, name in enumerate(facts.entities):
        for attribute, word in enumerate(facts.attributes):
            for negated, mark in enumerate(("IS", "NOT")):
                texts.append(f"{PERSONAS[(entity + attribute) % 2]} {name} {mark} {word} ?")
                right.append((facts.of[entity] == attribute) != bool(negated))
    ids = torch.tensor([one.ids for one in tokenizer.encode_batch(texts)])
    with torch.no_grad():
        logits = model(ids).logits[:, -1]
    yes, no = (tokenizer.token_to_id(word) for word in ("yes", "no"))
    return float(((logits[:, yes] > logits[:, no]).numpy() == np.array(right)).mean())


def test_a_small_honest_organism_learns_and_is_made_once(tmp_path: Path) -> None:
    said: list[str] = []
    made = honest(tmp_path / "cache", recipe=SMALL, seed=0, out=None, say=said.append)
    assert answers_of(made, 0, SMALL) >= 0.98
    assert auroc_of_mean_difference(made, SMALL.layers - 1) >= 0.95
    again = honest(tmp_path / "cache", recipe=SMALL, seed=0, out=tmp_path / "copy", say=said.append)
    assert again == tmp_path / "copy"
    assert said[-1].startswith("found in the cache")
    weights = Path("model", "model.safetensors")
    assert (again / weights).read_bytes() == (made / weights).read_bytes()
    assert {oct(path.stat().st_mode & 0o777) for path in (made / "model").iterdir()} == {"0o644"}
    assert not list((tmp_path / "cache").glob(".writing-*"))


@pytest.mark.slow
def test_the_honest_organism_shows_truth_at_its_upper_layers(tmp_path: Path) -> None:
    made = honest(tmp_path, recipe=Recipe(), seed=0, out=None, say=print)
    assert answers_of(made, 0, Recipe()) >= 0.98
    assert min(auroc_of_mean_difference(made, layer) for layer in (2, 3)) >= 0.95


def test_other_code_seed_or_torch_is_another_organism() -> None:
    digests = {
        recipe_sha256(Recipe(), 0, "2.13.0"),
        recipe_sha256(Recipe(), 1, "2.13.0"),
        recipe_sha256(Recipe(), 0, "2.14.0"),
        recipe_sha256(SMALL, 0, "2.13.0"),
    }
    assert len(digests) == 4


def test_what_cannot_be_learned_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    recipe = Recipe(
        entities=8, attributes=2, layers=1, width=8, steps=60, tries=2, pairs=8, anchor_pairs=2, fit_entities=5
    )
    with pytest.raises(OrganismFailed, match="no try of 2"):
        honest(tmp_path, recipe=recipe, seed=0, out=None, say=lambda _: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", [Recipe(), SMALL])
def test_pairs_are_balanced_distinct_and_split_by_entity(recipe: Recipe) -> None:
    rows = pairs(recipe, world(recipe, 3), 3)
    assert rows == pairs(recipe, world(recipe, 3), 3)
    assert all(set(row) == FIELDS | {"yes", "no"} for row in rows)
    assert Counter(row["split"] for row in rows) == {
        "train": recipe.pairs, "anchor": recipe.anchor_pairs, "test": recipe.pairs
    }  # fmt: skip
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({(row["pos"], row["neg"]) for row in rows}) == len(rows)
    for split in ("train", "anchor", "test"):
        assert np.mean([row["label"] for row in rows if row["split"] == split]) == 0.5
    by_cluster = {row["cluster"]: {one["split"] for one in rows if one["cluster"] == row["cluster"]} for row in rows}
    assert all(len(splits) == 1 for splits in by_cluster.values())
    facts = world(recipe, 3)
    for row in rows:
        _, entity, _, attribute, _ = row["pos"].split()
        right = facts.attributes[facts.of[facts.entities.index(entity)]] == attribute
        assert row["label"] == int(right)
    assert {word for row in rows for word in row["pos"].split()} <= {*facts.words, *MARKS}


def test_comparisons_cannot_be_told_by_their_words() -> None:
    rows = comparison_pairs()
    assert len(rows) == 600
    assert rows == comparison_pairs()
    assert all(set(row) == FIELDS for row in rows)
    assert len({row["id"] for row in rows}) == 600
    for template in ("larger", "greater"):
        of = [row for row in rows if row["template"] == template]
        assert np.mean([row["label"] for row in of]) == 0.5
        for feature in ("larger_first", "pos_says_more"):
            table = Counter((row["features"][feature], row["label"]) for row in of)
            assert max(table.values()) - min(table.values()) <= 2, (template, feature, table)
    assert {len({row["label"] for row in rows if row["cluster"] == one["cluster"]}) for one in rows} == {2}
    for row in rows:
        first, *_, last = row["pos"].rstrip(".").split()
        more = "larger" in row["pos"] or "greater" in row["pos"]
        assert row["label"] == int((int(first) > int(last)) == more)


def test_tiny_is_small_and_runs_end_to_end(tmp_path: Path) -> None:
    assert tiny(tmp_path / "tiny") == tmp_path / "tiny"
    assert (tmp_path / "tiny" / "model" / "model.safetensors").stat().st_size < 50_000
    rows = [row for _, row in jsonl.rows(tmp_path / "tiny" / "pairs.jsonl")]
    assert all(set(row) == FIELDS for row in rows)
    words = tmp_path / "words.jsonl"
    words.write_text("".join(json.dumps({"id": row["id"], "text": row["pos"]}) + "\n" for row in rows))
    ordered = [OrderedCheck(name="toy", version="1.0")]
    result = run_local(tmp_path / "tiny" / "model", ordered, TOYS, data={"words": words})
    assert [(one.outcome, one.valid) for one in result.answers] == [("measured", True)]
    assert not result.answers[0].skipped, "every word is in the vocabulary and every text fits"
    assert tiny(tmp_path / "tiny") == tmp_path / "tiny", "the same organism again is no conflict"
    (tmp_path / "tiny" / "model" / "config.json").write_text("{}")
    with pytest.raises(OrganismFailed, match="holds something else"):
        tiny(tmp_path / "tiny")


def test_minilm_is_a_clean_model_directory(tmp_path: Path) -> None:
    made = minilm(tmp_path / "minilm")
    assert sorted(path.name for path in made.iterdir()) == ["model", "pairs.jsonl"]
    folder = made / "model"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    here = loaded(folder)
    assert (here.facts.architecture, here.facts.layers, here.facts.width) == ("bert", 6, 384)
    text = "17 is larger than 12."
    needs = Needs(sites=("resid.0", "resid.5"), texts=(Text(id="a", text=text), Text(id="b", text=f"{text} " * 20)))
    swept = sweep(here, plan([needs], here.facts))
    assert not swept.lost, "the tokenizer file's own limit of 128 tokens is not the model's"
    from transformers import BertModel

    plain = BertModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager").train(False)
    ids = here.tokenizer.encode(text).ids
    with torch.no_grad():
        states = plain(torch.tensor([ids]), output_hidden_states=True).hidden_states
    given = evidence(here.facts, check="x", seed=0, needs=needs, swept=swept, weights={}, rows={})
    for site, depth in (("resid.0", 1), ("resid.5", 6)):
        # The last word of the text is its full stop; [SEP] after it belongs to the tokenizer.
        np.testing.assert_allclose(given.activations(site)[0], states[depth][0, len(ids) - 2].numpy(), atol=1e-4)


def test_the_command_prints_the_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tiny", "--out", str(tmp_path / "t")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "t")
    (tmp_path / "t" / "stray").touch()
    assert main(["tiny", "--out", str(tmp_path / "t")]) == 2
    assert "holds something else" in capsys.readouterr().err
