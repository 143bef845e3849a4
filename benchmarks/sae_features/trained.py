"""Words of `sae_features` on trained organisms, on the same with their weights shuffled, and on labels drawn at random.

Run: `OMP_NUM_THREADS=1 python -m benchmarks.sae_features.trained --cache FOLDER --seed 0`. Adds what it measures to
`trained.json` beside this script, a seed a run. `trigger_lm` is trained (90 s of one core) unless the cache holds it;
the audits of one seed take some two minutes. Settings are smaller than the defaults and stand in the file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from assay.result import Answer, Measured
from safetensors.torch import load_file, save_file

from benchmarks.sae_features.power import FOUND, rate, words_of
from checks.check import Evidence
from checks.documents import OrderedCheck
from checks.local import run_local
from checks.memory import Joined, generator
from checks.organisms.store import MODEL
from checks.organisms.trigger_lm import BASE, made
from checks.sae_features.check import SaeFeatures
from checks.sae_features.concept_metrics import concepts_told
from checks.sae_features.judge import words
from checks.sae_features.learning import FROZEN
from checks.sae_features.probes.concept import concept_table
from checks.sae_features.probes.concept_values import ConceptRows, Twin, split_of
from checks.sae_features.session import Session

TABLE = Path(__file__).with_suffix(".json")

SITE, CONCEPT = "resid.1", "window_open"

SETTINGS: Mapping[str, Any] = {
    "site": SITE,
    "train_tokens": 400_000,
    "bootstrap": 200,
    "permutations": 50,
    "power_draws": 20,
    "matched_controls": 39,
    "edit_rows": 64,
    "cards": 0,
}
"""The fewest draws whose p-values can reach alpha, and two fifths of the default training."""

ROLES = ("corpus", "concepts", "contrast", "neutral")


class Redrawn(SaeFeatures):
    """The check, which also asks its trained session of concepts whose labels are drawn at random by group."""

    draws: ClassVar[int] = 0
    said: ClassVar[list[str]] = []
    """Word of each drawn concept."""

    def measure(self, evidence: Evidence) -> Measured:
        """Measure as the check does, then the drawn concepts."""
        measured = super().measure(evidence)
        if not isinstance(evidence, Joined):
            session = Session.of(self, evidence)
            Redrawn.said += [redrawn(session, measured, draw) for draw in range(Redrawn.draws)]
        return measured


def redrawn(session: Session, measured: Measured, draw: int) -> str:
    """Return the word of a concept whose labels are those of `CONCEPT`, permuted over rows: each is a group."""
    rows, read, twin = session.concept_rows(CONCEPT), session.read[CONCEPT], session.twin_read[CONCEPT]
    labels = np.random.default_rng([draw, 9]).permutation([row.label for row in rows])
    told = ConceptRows(
        concept=CONCEPT,
        labels=labels,
        groups=[row.group for row in rows],
        x=read.x,
        tokens=list(read.tokens),
        positions=read.positions,
        lengths=read.lengths,
        split=[row.split or split_of(row.group, session.check.seed) for row in rows],
        shift=[row.shift for row in rows],
    )
    table = concept_table(
        told,
        {name: session.features(read, one) for name, one in session.judged.items()},
        session.features(read, session.own[FROZEN]),
        Twin(x=twin.x, latents=session.features(twin, session.twin_dictionary).latents),
        session.settings,
        lambda label: session.rng(f"drawn/{draw}/{label}"),
    )
    real = session.__dict__["tables"]
    session.__dict__["tables"] = {CONCEPT: table}
    own = concepts_told(session).metrics
    session.__dict__["tables"] = real
    power = tuple(measured.named("power"))
    findings = words(session.check.gates(), Measured(coverage=measured.coverage, metrics=(*own, *power)), (), ())
    return next(one.word for one in findings if one.code == "concept")


def shuffled(model: Path, target: Path, seed: int) -> Path:
    """Write a model whose tensors of two or more axes have their entries permuted: norms and values stay."""
    target.mkdir()
    for path in model.iterdir():
        if path.suffix != ".safetensors":
            (target / path.name).write_bytes(path.read_bytes())
            continue
        rng = generator(seed, "benchmark", "shuffled")
        tensors = load_file(path)
        for name in sorted(tensors):
            if tensors[name].ndim >= 2:
                flat = tensors[name].reshape(-1)
                tensors[name] = flat[torch.from_numpy(rng.permutation(len(flat)))].reshape(tensors[name].shape)
        save_file(tensors, target / path.name, metadata={"format": "pt"})
    return target


def audit(organism: Path, model: Path, base: bool, seed: int, draws: int = 0) -> tuple[Answer, list[str], float]:
    """Return the answer on a model with an organism's rows, the words of drawn concepts, and the CPU seconds."""
    Redrawn.draws, Redrawn.said = draws, []
    begun = time.process_time()
    result = run_local(
        model,
        [OrderedCheck(name=SaeFeatures.name, version=SaeFeatures.version, params={**SETTINGS, "watch": [CONCEPT]})],
        {SaeFeatures.name: Redrawn},
        data={role: organism / f"{role}.jsonl" for role in ROLES},
        seed=seed,
        base=organism / BASE if base else None,
    )
    return result.answers[0], Redrawn.said, time.process_time() - begun


def told(answer: Answer, spent: float) -> dict[str, Any]:
    """Return what an audit said, with the numbers that it rests on."""
    assert answer.measured is not None, answer.reason
    at = {"dictionary": "trained-0", "concept": CONCEPT}
    found = {
        name: answer.measured.find(name, **at)
        for name in ("effect", "relative_effect", "effect_p_holm", "error_share", "delta_sae", "delta_surface")
    }
    found["dense"] = answer.measured.find("auroc", concept=CONCEPT, probe="dense")
    found["ev"] = answer.measured.find("ev", dictionary="trained-0")
    return {
        "valid": answer.valid,
        "words": words_of(answer),
        "concerns": sorted({one.code for one in answer.findings if one.severity == "concern"}),
        "numbers": {name: None if one is None else one.value for name, one in found.items()},
        "left_out": sorted({f"{one.item} {one.reason}" for one in answer.skipped})[:8],
        "cpu_s": round(spent),
    }


def measured(cache: Path, seed: int, draws: int) -> dict[str, Any]:
    """Return all that is measured of the organism of one training seed."""
    organism = made("trigger_lm", cache, seed=seed, out=None, say=print)
    answer, drawn, spent = audit(organism, organism / MODEL, True, seed, draws)
    with tempfile.TemporaryDirectory() as folder:
        twin = shuffled(organism / MODEL, Path(folder) / "twin", seed)
        other, _, other_spent = audit(organism, twin, False, seed)
    found: dict[str, Any] = {"trained": told(answer, spent), "shuffled": told(other, other_spent)}
    if drawn:
        found["labels_drawn"] = {
            "detected": rate(sum(word in FOUND for word in drawn), len(drawn)),
            "words": {word: drawn.count(word) for word in sorted(set(drawn))},
        }
    return found


def main() -> None:
    """Measure one seed and add it to the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps trained organisms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=40, help="concepts with labels drawn at random; 1.5 s each")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = measured(asked.cache, asked.seed, asked.draws)
    before = json.loads(TABLE.read_text("utf-8"))["seeds"] if TABLE.exists() else {}
    seeds = {**before, str(asked.seed): found}
    TABLE.write_text(
        json.dumps({"settings": SETTINGS, "seeds": dict(sorted(seeds.items()))}, indent=1) + "\n", encoding="utf-8"
    )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
