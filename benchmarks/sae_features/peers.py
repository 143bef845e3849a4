"""Peers' training steps behind one call, and the environment that they need.

Run: `python -m benchmarks.sae_features.peers FOLDER` makes an environment that sees this project's packages (torch
among them) and, before these, the peers without what they would pull in; then `FOLDER/bin/python -m
benchmarks.sae_features.step`. SAELens needs transformer-lens < 4, which the project cannot have, hence an environment
of its own. Each step is the peer's own: its forward pass, its optimiser (sparsify: Adam instead of its default signum,
for all others are Adam), its clipping and its treatment of decoder rows.
"""

from __future__ import annotations

import site
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

PINNED = ("sae-lens==6.54.12", "dictionary-learning==0.1.0", "eai-sparsify==1.3.3")

NEEDED = (
    "transformer-lens==3.9.0", "nnsight==0.3.7", "simple-parsing==0.1.7", "docstring-parser", "natsort", "schedulefree",
    "tenacity", "babe", "nltk", "plotly", "plotly-express", "py2store", "python-dotenv", "better-abc", "pillow",
    "python-socketio", "python-engineio", "bidict", "simple-websocket", "wsproto", "websocket-client",
)  # fmt: skip
"""What the peers' own modules import and the project has not; installed without dependencies, so that torch stays."""

Step = Callable[[torch.Tensor, int, float], object]


def sae_lens(d: int, m: int, k: int, batch: int, kind: str) -> Step:
    """Return `SAETrainer.step` as `train_toy_sae` configures it."""
    lens, made = import_module("sae_lens"), _sae_lens_of(d, m, k, kind)
    config = import_module("sae_lens.config")
    trainer = import_module("sae_lens.training.sae_trainer").SAETrainer(
        cfg=config.SAETrainerConfig(
            n_checkpoints=0, checkpoint_path=None, save_final_checkpoint=False, total_training_samples=2**40,
            device="cpu", autocast=False, lr=1e-3, lr_end=1e-3, lr_scheduler_name="constant", lr_warm_up_steps=0,
            adam_beta1=0.9, adam_beta2=0.999, lr_decay_steps=0, n_restart_cycles=1, train_batch_size_samples=batch,
            dead_feature_window=1000, feature_sampling_window=2000,
            logger=lens.LoggingConfig(log_to_wandb=False, eval_every_n_wandb_logs=2**31 - 1),
            n_batches_for_norm_estimate=1000,
        ),
        sae=made,
        data_provider=iter(()),
    )  # fmt: skip

    def step(x: torch.Tensor, _k: int, _rate: float) -> object:
        told = trainer.step(x)
        trainer.n_training_steps += 1
        return told

    return step


def _sae_lens_of(d: int, m: int, k: int, kind: str) -> Any:
    lens = import_module("sae_lens")
    name = {"batchtopk": "BatchTopK", "topk": "TopK"}[kind]
    config = getattr(lens, f"{name}TrainingSAEConfig")(d_in=d, d_sae=m, k=k, dtype="float32", device="cpu")
    return getattr(lens, f"{name}TrainingSAE")(config)


def dictionary_learning(d: int, m: int, k: int, _batch: int, kind: str) -> Step:
    """Return `BatchTopKTrainer.update` or `TopKTrainer.update`."""
    module, name = {
        "batchtopk": ("batch_top_k", "BatchTopKTrainer"),
        "topk": ("top_k", "TopKTrainer"),
    }[kind]
    trainer = getattr(import_module(f"dictionary_learning.trainers.{module}"), name)(
        steps=2**30, activation_dim=d, dict_size=m, k=k, layer=0, lm_name="none", lr=1e-3, seed=0, device="cpu"
    )
    steps = iter(range(1, 2**30))  # step 0 also takes a geometric median
    return lambda x, _k, _rate: trainer.update(next(steps), x)


def sparsify(d: int, m: int, k: int, _batch: int, kind: str) -> Step:
    """Return the step of `Trainer` with loss fvu: forward, backward, parallel part removed, Adam, rows of norm 1."""
    if kind != "topk":
        raise NotImplementedError("it has no BatchTopK")
    coder = import_module("sparsify.sparse_coder")
    made = coder.SparseCoder(d, import_module("sparsify.config").SparseCoderConfig(num_latents=m, k=k))
    adam = torch.optim.Adam(made.parameters(), lr=1e-3)

    def step(x: torch.Tensor, _k: int, _rate: float) -> object:
        made.set_decoder_norm_to_unit_norm()
        loss = made(x).fvu
        loss.backward()
        made.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()
        return loss.detach()

    return step


PEERS: Mapping[str, Callable[[int, int, int, int, str], Step]] = {
    "sae_lens": sae_lens,
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
}


def available(kind: str) -> tuple[dict[str, Callable[[int, int, int, int], Step]], dict[str, str]]:
    """Return the peers that take a step here, and of the others why not."""
    found: dict[str, Callable[[int, int, int, int], Step]] = {}
    skipped: dict[str, str] = {}
    for name, make in PEERS.items():
        try:
            make(8, 32, 2, 16, kind)(torch.randn(16, 8), 2, 1e-3)
        except Exception as error:
            skipped[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        found[name] = lambda d, m, k, batch, make=make: make(d, m, k, batch, kind)  # type: ignore[misc]
    return found, skipped


def environment(folder: Path) -> Path:
    """Make the environment and return its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    (own,) = folder.glob("lib/python*/site-packages")
    # Not the bare folder: then the project's own packages, which are installed by .pth files, would be left out.
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in site.getsitepackages()]
    (own / "project.pth").write_text("".join(lines))
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", *PINNED, *NEEDED], check=True)
    return python


if __name__ == "__main__":
    print(environment(Path(sys.argv[1])))
