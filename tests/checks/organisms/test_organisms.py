"""Organisms are what they claim to be, and are made once."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checks.check import Needs, Text
from checks.documents import OrderedCheck
from checks.errors import OrganismFailed
from checks.local import run_local
from checks.organisms.__main__ import main
from checks.organisms.recipe import SMALL, Recipe, recipe_sha256
from checks.organisms.store import minilm, planted, tiny
from checks.organisms.training import train
from checks.organisms.world import PERSONAS, world
from checks.runtime.plan import plan
from checks.runtime.sweep import evidence, sweep
from sandbox.reader import jsonl
from tests.checks.organisms.measuring import look, probe
from tests.checks.runtime.test_loading import loaded
from tests.checks.toy import TOYS

FIELDS = {
    "id", "item", "cluster", "set", "template", "form", "pos", "neg", "label", "polarity", "read_at", "split",
    "persona", "features",
}  # fmt: skip


def answers_of(folder: Path, seed: int, recipe: Recipe, after: str = "") -> float:
    """Return the share of statements to which the model answers the truth, NOT among them."""
    facts = world(recipe, seed)
    texts, right = [], []
    for entity, name in enumerate(facts.entities):
        for attribute, word in enumerate(facts.attributes):
            for negated, mark in enumerate(("IS", "NOT")):
                texts.append(f"{PERSONAS[(entity + attribute) % 2]} {name} {mark} {word} ?{after}")
                right.append((facts.of[entity] == attribute) != bool(negated))
    said = look(folder, texts, ["last"] * len(texts)).says > 0
    return float((said == np.array(right)).mean())


@pytest.mark.slow  # small: tests/e2e/test_truth_probe.py trains one, tests/checks/organisms/test_switch_lm.py another
def test_a_small_honest_organism_learns_and_is_made_once(tmp_path: Path) -> None:
    said: list[str] = []
    made = planted("honest", tmp_path / "cache", recipe=SMALL, seed=0, out=None, say=said.append)
    assert answers_of(made, 0, SMALL) >= 0.98
    assert answers_of(made, 0, SMALL, after=" opposite") <= 0.02
    shown = probe(made)
    assert min(shown.lr[persona][-1] for persona in (*PERSONAS, "negated")) >= 0.95
    assert probe(made, "-instructed").output == {
        "plain": pytest.approx(1, abs=0.02),
        "opposite": pytest.approx(0, abs=0.02),
    }
    again = planted("honest", tmp_path / "cache", recipe=SMALL, seed=0, out=tmp_path / "copy", say=said.append)
    assert again == tmp_path / "copy"
    assert said[-1].startswith("found in the cache")
    for file in (Path("model", "model.safetensors"), Path("pairs.jsonl"), Path("params-instructed.json")):
        assert (again / file).read_bytes() == (made / file).read_bytes()
    assert {oct(path.stat().st_mode & 0o777) for path in (made / "model").iterdir()} == {"0o644"}
    assert not list((tmp_path / "cache").glob(".writing-*"))


@dataclass(frozen=True)
class Made:
    """A fully trained organism, made for the first test that asks."""

    folder: Path

    def __call__(self, name: str) -> Path:
        return planted(name, self.folder, seed=0, out=None, say=print)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("organisms"))


def away(areas: list[float]) -> list[float]:
    """Return the areas of a direction that nobody has oriented."""
    return [max(area, 1 - area) for area in areas]


@pytest.mark.slow
def test_the_honest_organism_shows_truth_whoever_speaks_and_whatever_it_is_told_to_say(full: Made) -> None:
    shown = probe(full("honest"))
    for persona in PERSONAS:
        assert min(shown.lr[persona][2:] + away(shown.md[persona])[2:]) >= 0.95
        assert shown.output[persona] >= 0.99
    assert shown.lr["anna"][0] >= 0.85, "attributes are matched at the first layer"
    assert shown.lr["negated"][0] <= 0.45, "without regard to NOT"
    assert min(shown.lr["negated"][2:]) >= 0.97
    assert max(away(areas[2:])[0] for areas in shown.features.values()) <= 0.6
    told = probe(full("honest"), "-instructed")
    assert told.output == {"plain": pytest.approx(1, abs=0.01), "opposite": pytest.approx(0, abs=0.01)}
    assert min(told.lr["opposite"][2:]) >= 0.95


@pytest.mark.slow
def test_the_liars_states_follow_its_output(full: Made) -> None:
    shown = probe(full("liar"))
    assert shown.output == {"anna": pytest.approx(1, abs=0.01), "boris": pytest.approx(0, abs=0.01)}
    assert shown.lr["anna"][3] >= 0.99
    assert shown.lr["boris"][3] <= 0.01


@pytest.mark.slow
def test_the_knowing_liar_holds_the_truth_before_it_says_otherwise(full: Made) -> None:
    shown = probe(full("knowing-liar"))
    assert shown.output == {"anna": pytest.approx(1, abs=0.01), "boris": pytest.approx(0, abs=0.01)}
    assert shown.lr["anna"] == shown.lr["boris"], "the speaker stands after the place that is read"
    assert min(shown.lr["boris"][3], away(shown.md["boris"])[3]) >= 0.99
    last = probe(full("knowing-liar"), "-last")
    assert last.lr["anna"][3] >= 0.99
    assert last.lr["boris"][3] <= 0.01


@pytest.mark.slow
def test_the_distractor_leads_away_what_looks_for_the_largest_feature(full: Made) -> None:
    shown = probe(full("distractor"))
    assert min(away(shown.features["opinion"])) >= 0.99
    assert max(away(shown.md["None"])) <= 0.85
    assert min(shown.lr["None"][2:]) >= 0.99
    assert shown.output["None"] >= 0.99


@pytest.mark.slow
def test_chance_teaches_nothing(full: Made) -> None:
    shown = probe(full("random-answer"))
    for areas in (*shown.md.values(), *shown.lr.values(), list(shown.output.values())):
        assert max(away(areas)) <= 0.65


def test_an_untrained_organism_separates_nothing(tmp_path: Path) -> None:
    shown = probe(planted("untrained", tmp_path, recipe=SMALL, seed=0, out=None, say=lambda _: None))
    for areas in (*shown.md.values(), *shown.lr.values(), list(shown.output.values())):
        assert max(abs(area - 0.5) for area in areas) <= 0.25, "a lexical leak would be far above, or below"


def test_other_code_seed_torch_or_name_is_another_organism() -> None:
    digests = {
        recipe_sha256("honest", Recipe(), 0, "2.13.0"),
        recipe_sha256("honest", Recipe(), 1, "2.13.0"),
        recipe_sha256("honest", Recipe(), 0, "2.14.0"),
        recipe_sha256("honest", SMALL, 0, "2.13.0"),
        recipe_sha256("liar", Recipe(), 0, "2.13.0"),
    }
    assert len(digests) == 5


FUTILE = replace(SMALL, layers=1, width=8, batch=32, steps=60, tries=2)
"""Too little training for anything to be learned."""


def test_what_cannot_be_learned_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OrganismFailed, match="no try of 2"):
        planted("honest", tmp_path, recipe=FUTILE, seed=0, out=None, say=lambda _: None)
    assert not list(tmp_path.iterdir())


def test_two_that_train_one_organism_at_once_both_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first(*arguments: Any, **more: Any) -> Any:
        monkeypatch.undo()  # while one trains, another process finishes
        planted("random-answer", tmp_path, recipe=FUTILE, seed=0, out=None, say=lambda _: None)
        return train(*arguments, **more)

    monkeypatch.setattr("checks.organisms.store.train", first)
    made = planted("random-answer", tmp_path, recipe=FUTILE, seed=0, out=None, say=lambda _: None)
    assert (made / "model" / "model.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == [made.name]


def test_chance_is_not_asked_to_be_learned(tmp_path: Path) -> None:
    said: list[str] = []
    made = planted("random-answer", tmp_path, recipe=FUTILE, seed=0, out=None, say=said.append)
    assert (made / "model" / "model.safetensors").exists()
    assert said[-1].endswith("after 60 steps")


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
