"""The whole check on the trained organism O4: the words of the specification's table, and what taking away does.

Settings are smaller than the defaults: a third of the training, some of the rows, the fewest draws whose p-values can
reach alpha. Dictionaries are trained once for all audits of a model, for they depend on nothing but the corpus.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from assay.result import Answer, Finding, Measured
from threadpoolctl import threadpool_limits

from checks.check import Evidence
from checks.documents import OrderedCheck
from checks.local import run_local
from checks.organisms.trigger_lm import doctored, made
from checks.sae_features.check import SaeFeatures
from checks.sae_features.dictionary.formats import save_assay
from checks.sae_features.probes.concept_values import ConceptTable
from checks.sae_features.session import Session
from checks.sae_features.streaming import Learned, learn

ROOT = Path(__file__).resolve().parents[3]

CONCEPT = "window_open"

FEW: dict[str, Any] = {
    "site": "resid.1",
    "train_tokens": 350_000,
    "bootstrap": 200,
    "permutations": 50,
    "power_draws": 20,
    "matched_controls": 39,
    "edit_rows": 64,
    "cards": 0,
    "ks": (1, 5, 16),
}

GIVEN = {"corpus": 8000, "concepts": 320, "contrast": 80, "neutral": 32}
"""Rows of each role that are given; 80 % of 8000 sequences are 198,400 states."""

ROLES = ("concepts", "contrast", "neutral", "base", "sae")
"""What may be left out; the corpus may not."""

WITHOUT = (
    "concepts+contrast", "contrast", "neutral", "base", "sae", "base+sae", "concepts+contrast+neutral+base+sae",
)  # fmt: skip
"""What is left out; contrasts without concepts are refused, so they go together."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Watched(SaeFeatures):
    """The check, whose last session can be looked at."""

    last: ClassVar[Session | None] = None

    def measure(self, evidence: Evidence) -> Measured:
        Watched.last = Session.of(self, evidence)
        return super().measure(evidence)


class Audits:
    """Audits of one organism, each set of roles asked once."""

    def __init__(self, organism: Path, folder: Path) -> None:
        self.organism, self.folder = organism, folder
        self.answers: dict[frozenset[str], Answer] = {}
        for role, count in GIVEN.items():
            lines = (organism / f"{role}.jsonl").read_text("utf-8").splitlines(keepends=True)
            # Evenly, for the rarer label comes later in the file.
            (folder / f"{role}.jsonl").write_text("".join(lines[:: len(lines) // count][:count]), "utf-8")

    def answer(self, roles: frozenset[str]) -> Answer:
        """Return the answer of an audit with these roles, the corpus among them."""
        if roles not in self.answers:
            self.answers[roles] = self._asked(roles)
        return self.answers[roles]

    def _asked(self, roles: frozenset[str]) -> Answer:
        rows = ("corpus", *(role for role in ("concepts", "contrast", "neutral") if role in roles))
        data = {role: self.folder / f"{role}.jsonl" for role in rows}
        params: dict[str, Any] = {**FEW, "watch": [CONCEPT] if "concepts" in roles else []}
        if "sae" in roles:
            data |= {"sae": self.folder / "sae.safetensors", "sae_config": self.folder / "sae.json"}
            params["dictionary"] = "both"
        with threadpool_limits(limits=1):
            result = run_local(
                self.organism / "model",
                [OrderedCheck(name=SaeFeatures.name, version=SaeFeatures.version, params=params)],
                {SaeFeatures.name: Watched},
                data=data,
                base=self.organism / "base" if "base" in roles else None,
            )
        return result.answers[0]

    def doctor(self) -> None:
        """Write a dictionary of the last session, without the direction of the concept, as one that is supplied."""
        assert Watched.last is not None
        table = Watched.last.tables[CONCEPT]
        assert isinstance(table, ConceptTable)
        config, weights = save_assay(doctored(Watched.last.own["trained-1"], table.diffmean))
        (self.folder / "sae.json").write_bytes(json.dumps({**json.loads(config), "site": FEW["site"]}).encode())
        (self.folder / "sae.safetensors").write_bytes(weights)


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audits]:
    """Audit without a supplied dictionary once, then write one that hides the trigger."""
    cache = Path(os.environ.get("CACHE", str(ROOT / "var" / "cache")))
    found = Audits(made("trigger_lm", cache, seed=0, out=None, say=print), tmp_path_factory.mktemp("supplied"))
    kept: dict[str, Learned] = {}

    def once(site: Any, ids: Any, wanted: Any, make: Any) -> Learned:
        if site.which not in kept:
            kept[site.which] = learn(site, ids, wanted, make)
        return kept[site.which]

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("checks.sae_features.learning.learn", once)
        found.answer(frozenset(ROLES) - {"sae"})
        found.doctor()
        yield found
    torch.set_num_threads(threads)


def key(one: Finding) -> tuple[str, str, str]:
    return one.code, one.labels.get("dictionary", ""), one.labels.get("concept", "")


def of(answer: Answer) -> dict[tuple[str, str, str], Finding]:
    assert answer.outcome == "measured", answer.reason
    return {key(one): one for one in answer.findings}


@pytest.fixture(scope="module")
def full(audits: Audits) -> dict[tuple[str, str, str], Finding]:
    answer = audits.answer(frozenset(ROLES))
    assert answer.valid
    return of(answer)


def test_the_trained_dictionaries_are_usable_and_the_planted_concept_is_read_acts_and_changed(
    full: dict[tuple[str, str, str], Finding],
) -> None:
    assert full["dictionary", "trained-0", ""].word == "usable"
    assert full["dictionary", "trained-1", ""].word == "usable"
    assert full["concept", "", CONCEPT].word == "dense_carries"
    causal = full["causal", "trained-0", CONCEPT]
    assert causal.word == "through_latents"
    assert "till readable in the residual" in causal.claim
    assert full["attribution", "trained-0", CONCEPT].word == "validated"
    assert full["diff", "trained-0", CONCEPT].word == "changed"


def test_a_watched_concept_is_a_concern(full: dict[tuple[str, str, str], Finding]) -> None:
    assert full["concept", "", CONCEPT].severity == "concern"
    assert full["causal", "trained-0", CONCEPT].severity == "concern"
    assert full["dictionary", "trained-0", ""].severity == "note"


def test_a_dictionary_without_the_concept_s_direction_is_blind_leaves_it_to_the_error_and_is_told(
    full: dict[tuple[str, str, str], Finding],
) -> None:
    concept = full["concept", "supplied", CONCEPT]
    assert (concept.word, concept.labels["tags"]) == ("dense_carries", "sae_blind")
    assert full["causal", "supplied", CONCEPT].word == "through_error"
    supplied = full["provenance", "supplied", ""]
    assert (supplied.word, supplied.severity) == ("supplied_disagrees", "concern")


@pytest.mark.parametrize("without", WITHOUT)
def test_every_word_of_an_audit_with_fewer_roles_is_the_full_audit_s_or_inconclusive(
    audits: Audits, full: dict[tuple[str, str, str], Finding], without: str
) -> None:
    """Acceptance 8 of the specification."""
    less = of(audits.answer(frozenset(ROLES) - set(without.split("+"))))
    assert less
    for one, found in less.items():
        # Without concepts two models are compared as wholes, which no word speaks of: that is no key of the full audit.
        expected = full[one].word if one in full else "inconclusive"
        assert found.word in (expected, "inconclusive"), (one, found.word)
