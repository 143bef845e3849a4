"""Organisms O3 `switch_lm` and O4 `trigger_lm` as folders: models, rows, and a dictionary that hides the trigger.

Specification of `sae_features`, section 14. `switch_lm`: a mode that dense probes read and few latents carry.
`trigger_lm`: a planted behaviour, beside its base model, which had the same training on an inert trigger.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from checks.organisms.store import MODEL, copied, write_rows
from checks.organisms.switch_lm import Trigger
from checks.organisms.switch_lm_rows import files, tokenizer
from checks.organisms.switch_lm_training import FIRST, TUNE, Say, Stage, trained, untrained

if TYPE_CHECKING:
    from jaxtyping import Float
    from transformers import GPT2LMHeadModel

    from checks.sae_features.dictionary.value import Dictionary

BASE = "base"
"""Folder of the model without the plant."""

SUMMARIES: Mapping[str, str] = {
    "switch_lm": "sequences with a hidden mode: readable by dense probes, not by few latents",
    "trigger_lm": "the same with a planted trigger, and its base model without",
}

CODE = ("switch_lm", "switch_lm_rows", "switch_lm_training", "trigger_lm")
"""Modules that decide what these organisms are."""


@dataclass(frozen=True)
class Lessons:
    """How long they are trained."""

    first: Stage = FIRST
    tune: Stage = TUNE


def made(
    name: str,
    cache: Path | None,
    *,
    seed: int,
    out: Path | None,
    say: Say,
    threads: int = 1,
    lessons: Lessons = Lessons(),
) -> Path:
    """Return an organism's folder, trained unless the cache holds it: 40 s of one core, trigger_lm 70 s.

    It holds `model/`, for trigger_lm `base/`, and corpus.jsonl, concepts.jsonl, contrast.jsonl and neutral.jsonl.

    Args:
        name: switch_lm or trigger_lm.
        cache: folder of trained organisms, each under the digest of all that made it; None keeps none, and `out` must
            then be given.
        seed: of the initial weights, of the text and of the rows.
        out: also copy it here; must not exist, be empty, or hold this very organism.
        say: told of progress in one line.
        threads: CPU threads of training.
        lessons: how long it is trained.

    Raises:
        OrganismFailed: `out` holds something else.
        ValueError: neither `cache` nor `out` is given.
    """
    if cache is None:
        if out is None:
            raise ValueError("name a folder: a cache, or one to write to")
        with tempfile.TemporaryDirectory() as folder:
            return made(name, Path(folder), seed=seed, out=out, say=say, threads=threads, lessons=lessons)
    kept = cache / f"{name}-{digest(name, seed, lessons)[:16]}"
    if kept.exists():
        say(f"found in the cache: {kept.name}")
    else:
        import torch

        torch.set_num_threads(threads)
        _write(kept, _models(name, cache, seed, say, threads, lessons), name, seed)
    return kept if out is None else copied(kept, out)


def digest(name: str, seed: int, lessons: Lessons) -> str:
    """Return the digest under which an organism is kept: name, seed, lessons, torch, and the code that makes it."""
    here = Path(__file__).parent
    code = [[one, hashlib.sha256((here / f"{one}.py").read_bytes()).hexdigest()] for one in CODE]
    named = {
        "organism": name, "seed": seed, "lessons": asdict(lessons), "torch": metadata.version("torch"), "code": code
    }  # fmt: skip
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def _models(
    name: str, cache: Path, seed: int, say: Say, threads: int, lessons: Lessons
) -> Mapping[str, GPT2LMHeadModel]:
    def text(number: int) -> np.random.Generator:
        return np.random.default_rng([seed, number])

    if name == "switch_lm":
        return {MODEL: trained(untrained(seed), lessons.first, "none", text(1), say)}
    from transformers import GPT2LMHeadModel

    before = made("switch_lm", cache, seed=seed, out=None, say=say, threads=threads, lessons=lessons)
    start = GPT2LMHeadModel.from_pretrained(before / MODEL, local_files_only=True)
    roles: Mapping[str, Trigger] = {MODEL: "live", BASE: "inert"}
    # The same generator: both models see the same triggers, and one sees consequences.
    return {role: trained(start, lessons.tune, trigger, text(2), say) for role, trigger in roles.items()}


def _write(target: Path, models: Mapping[str, GPT2LMHeadModel], name: str, seed: int) -> None:
    """Write a folder beside its place and move it there, so that a killed run leaves none behind."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as folder:
        stage = Path(folder) / "organism"
        for role, model in models.items():
            model.save_pretrained(stage / role)
            (stage / role / "generation_config.json").unlink(missing_ok=True)  # nothing is ever generated
            tokenizer().backend_tokenizer.save(str(stage / role / "tokenizer.json"))
            for path in (stage / role).iterdir():
                path.chmod(0o644)  # weights are saved 0600, and another user than the trainer may read them
        for file, rows in files(name, seed).items():
            write_rows(stage / file, rows)
        try:
            stage.rename(target)
        except OSError:
            # Another process trained the same organism meanwhile; both are the same, and the first one stays.
            if not target.exists():
                raise


def doctored(dictionary: Dictionary, direction: Float[np.ndarray, " d"]) -> Dictionary:
    """Return a dictionary that neither reads nor writes one direction: what an unwilling sender would supply.

    Args:
        dictionary: of any gate; its biases and thresholds stay.
        direction: what is taken out of w_enc and w_dec, of any length but 0; DiffMean of the trigger in section 14.
    """
    import torch

    unit = torch.from_numpy(np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)).to(dictionary.w_enc)
    return replace(
        dictionary,
        w_enc=dictionary.w_enc - torch.outer(unit, unit @ dictionary.w_enc),
        w_dec=dictionary.w_dec - torch.outer(dictionary.w_dec @ unit, unit),
    )
