"""Dictionaries on the trained organisms against the tables of section 14 of the specification, O3 and O4.

Run: `python -m benchmarks.sae_features.organisms --cache FOLDER`. Writes organisms.json beside itself. No audit: the
models run in transformers, a loop of this file captures and replaces states, and only dictionaries are the product's.
Concepts are read by scikit-learn. One thread; about five minutes with the training of both organisms.
"""

from __future__ import annotations

import os

# Before numpy is imported: its BLAS counts its threads once.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from transformers import GPT2LMHeadModel

from checks.memory import generator
from checks.organisms.store import MODEL
from checks.organisms.switch_lm import ENTROPY, PAYLOAD, PAYLOAD_RATE, SWITCH_RATE, TRIGGER, TRIGGER_RATE, Trigger, draw
from checks.organisms.switch_lm_training import cross_entropy
from checks.organisms.trigger_lm import BASE, SUMMARIES, doctored, made
from checks.sae_features.dictionary.codelength import code_gain
from checks.sae_features.dictionary.fidelity import fidelity
from checks.sae_features.dictionary.plan import Named, Plan
from checks.sae_features.dictionary.training import train
from checks.sae_features.dictionary.value import Dictionary

LATENTS, K, TOKENS, BATCH = 512, 8, 1_024_000, 512
DICTIONARIES = {"trained-0": Named(0), "trained-1": Named(1), "frozen": Named(0, "decoder")}
SITES = (0, 1)
ROWS = 256
"""Sequences a pass."""

HELD = 1400
"""Held-out sequences that fidelity is measured on: 43,400 states."""

Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Runner:
    """A model whose states after a block can be read and replaced; the first token's never are."""

    model: GPT2LMHeadModel

    def states(self, tokens: torch.Tensor, site: int) -> torch.Tensor:
        """Return [sequence, position, d], the first token's among them."""
        kept: list[torch.Tensor] = []
        self._run(tokens, site, lambda x: kept.append(x) or x)  # type: ignore[func-returns-value]
        return torch.cat(kept)

    def log_probs(self, tokens: torch.Tensor, site: int, change: Change) -> torch.Tensor:
        """Return the log-probabilities of what follows each token, float64, with states changed."""

        def edited(x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x[:, :1], change(x[:, 1:])], 1)

        return torch.log_softmax(self._run(tokens, site, edited).double(), -1)

    @torch.no_grad()
    def _run(self, tokens: torch.Tensor, site: int, change: Change) -> torch.Tensor:
        def hook(_module: object, _given: object, made: Any) -> Any:
            return (change(made[0]), *made[1:]) if isinstance(made, tuple) else change(made)

        handle = self.model.transformer.h[site].register_forward_hook(hook)
        try:
            return torch.cat([self.model(input_ids=rows).logits for rows in torch.split(tokens, ROWS)])
        finally:
            handle.remove()


def runner(folder: Path, role: str) -> Runner:
    model = GPT2LMHeadModel.from_pretrained(folder / role, local_files_only=True)
    model.eval()  # type: ignore[no-untyped-call]
    return Runner(model)


def corpus(folder: Path) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Return training sequences, held-out ones, and the groups of these: one group in five is held out."""
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    out = [int(row["group"].rpartition("-")[2]) % 5 == 0 for row in rows]
    pieces = [torch.tensor([row["tokens"] for row, held in zip(rows, out, strict=True) if held is want])
              for want in (False, True)]  # fmt: skip
    return pieces[0], pieces[1], [row["group"] for row, held in zip(rows, out, strict=True) if held]


def stream(run: Runner, tokens: torch.Tensor, site: int) -> Iterator[torch.Tensor]:
    """Yield states without the first token's, twice over the text."""
    for _ in range(2):
        for rows in torch.split(tokens, ROWS):
            x = run.states(rows, site)[:, 1:]
            yield x.reshape(-1, x.shape[-1])


def trained(run: Runner, tokens: torch.Tensor, site: int) -> dict[str, Dictionary]:
    plan = Plan(latents=LATENTS, k=K, steps=TOKENS // BATCH, batch=BATCH, dictionaries=tuple(DICTIONARIES.values()))
    return dict(zip(DICTIONARIES, train(stream(run, tokens, site), plan), strict=True))


def shuffled(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Return a twin: the entries of each matrix permuted."""
    twin = GPT2LMHeadModel(model.config)
    twin.eval()  # type: ignore[no-untyped-call]
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, tensor in twin.named_parameters():
            if tensor.ndim >= 2:
                order = generator(0, "sae_features", f"twin/{name}").permutation(tensor.numel())
                tensor.copy_(tensor.flatten()[torch.from_numpy(order)].reshape(tensor.shape))
    return twin


def of_output(run: Runner, tokens: torch.Tensor, site: int, change: Change, plain: torch.Tensor) -> dict[str, float]:
    """Return the change in cross-entropy and the divergence at the positions that have a next token and are edited."""
    edited = run.log_probs(tokens, site, change)
    follows = tokens[:, 2:, None]

    def cross(log_probs: torch.Tensor) -> float:
        return -float(log_probs[:, 1:-1].gather(2, follows).mean())

    divergence = (plain.exp() * (plain - edited)).sum(-1)[:, 1:-1].mean()
    return {"delta_ce": cross(edited) - cross(plain), "kl": float(divergence)}


def of_site(
    run: Runner, held: torch.Tensor, groups: Sequence[str], site: int, dictionaries: dict[str, Dictionary]
) -> dict[str, dict[str, float | None]]:
    """Return a row of numbers for each dictionary, and one for the states replaced by zero and by their mean."""
    x = run.states(held, site)[:, 1:].reshape(-1, run.model.config.n_embd)
    names = [group for group in groups for _ in range(held.shape[1] - 1)]
    plain = run.log_probs(held, site, lambda states: states)
    mean = x.mean(0)
    zeroed = of_output(run, held, site, torch.zeros_like, plain)
    meaned = of_output(run, held, site, lambda states: mean.expand_as(states), plain)
    found: dict[str, dict[str, float | None]] = {
        "replaced": {"delta_ce_zero": zeroed["delta_ce"], "delta_ce_mean": meaned["delta_ce"]}
    }
    for name, one in dictionaries.items():
        f = one.encode(x)
        told = fidelity(x, one.decode(f, x), f, names, rng=np.random.default_rng(0), resamples=20).estimates
        numbers = {key: told[key].value for key in ("ev", "shrink_gamma", "l0", "dead")}
        numbers["code_gain"] = code_gain(one, x, names, 0.05, rng=np.random.default_rng(0), resamples=20).gain.value

        def spliced(states: torch.Tensor, one: Dictionary = one) -> torch.Tensor:
            return one.reconstruct(states.reshape(-1, states.shape[-1])).reshape(states.shape)

        output = of_output(run, held, site, spliced, plain)
        share = output["delta_ce"] / meaned["delta_ce"] if meaned["delta_ce"] >= 0.05 else None
        found[name] = {**numbers, **output, "dce_share": share}
    return found


@dataclass(frozen=True)
class Concept:
    """Read states of the concept's rows: the first part to fit on, the other to test."""

    x: np.ndarray
    label: np.ndarray

    @property
    def half(self) -> int:
        return len(self.label) // 2

    @property
    def difference(self) -> np.ndarray:
        """Mean state with the concept minus that without."""
        x, label = self.x[: self.half], self.label[: self.half]
        return np.asarray(x[label].mean(0) - x[~label].mean(0))

    def dense(self) -> float:
        return self._auroc(self.x)

    def sparse(self, dictionary: Dictionary, k: int) -> float:
        return self._auroc(self._latents(dictionary)[:, self.order(dictionary)[:k]])

    def order(self, dictionary: Dictionary) -> np.ndarray:
        """Return latents by standardised difference of means, largest first."""
        f, label = self._latents(dictionary)[: self.half], self.label[: self.half]
        one, zero = f[label], f[~label]
        gap = np.abs(one.mean(0) - zero.mean(0)) / np.sqrt((one.var(0) + zero.var(0)) / 2 + 1e-6)
        return np.argsort(-gap, kind="stable")

    def _latents(self, dictionary: Dictionary) -> np.ndarray:
        norms = torch.linalg.vector_norm(dictionary.w_dec, dim=1)
        return np.asarray((dictionary.encode(torch.from_numpy(self.x)) * norms).double().numpy())

    def _auroc(self, features: np.ndarray) -> float:
        fit, test = features[: self.half], features[self.half :]
        mean, spread = fit.mean(0), np.maximum(fit.std(0), 1e-6)
        probe = LogisticRegression(C=1.0, max_iter=5000).fit((fit - mean) / spread, self.label[: self.half])
        return float(roc_auc_score(self.label[self.half :], probe.decision_function((test - mean) / spread)))


def concept(run: Runner, folder: Path, site: int) -> Concept:
    rows = [json.loads(line) for line in (folder / "concepts.jsonl").read_text().splitlines()]
    states = [
        run.states(torch.tensor([[int(word[1:]) for word in row["text"].split()]]), site)[0, -1].numpy() for row in rows
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    return Concept(np.stack(states)[order], np.array([row["label"] == 1 for row in rows])[order])


def payload(run: Runner, site: int, change: Change) -> float:
    """Return P(payload) after tokens that leave a window open, the trigger left out."""
    drawn = draw(1500, np.random.default_rng(77), "live")
    tokens = torch.from_numpy(drawn.tokens)
    asked = torch.from_numpy(drawn.opened & (drawn.tokens != TRIGGER))
    return float(run.log_probs(tokens, site, change).exp()[..., PAYLOAD][asked].mean())


def edits(one: Dictionary, latents: Sequence[int], mean: torch.Tensor) -> dict[str, Change]:
    """Return what section 14 replaces the states by; `latents` are those of the concept."""
    chosen = torch.tensor(list(latents))

    def by(rule: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> Change:
        def change(states: torch.Tensor) -> torch.Tensor:
            x = states.reshape(-1, states.shape[-1])
            f = one.encode(x)
            part = f[:, chosen] @ one.w_dec[chosen]
            return rule(x, one.decode(f, x), part).reshape(states.shape)

        return change

    return {
        "unedited": lambda states: states,
        "reconstruction": by(lambda _x, made, _part: made),
        "mean": by(lambda x, _made, _part: mean.expand_as(x)),
        "mean_and_error": by(lambda x, made, _part: mean + x - made),
        "ablated": by(lambda x, _made, part: x - part),
        "ablated_without_error": by(lambda _x, made, part: made - part),
    }


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Return everything of one organism."""
    run, (text, held, groups) = runner(folder, MODEL), corpus(folder)
    held, groups = held[:HELD], groups[:HELD]
    trigger: Trigger = "live" if name == "trigger_lm" else "none"
    told: dict[str, Any] = {
        "held_out_ce": cross_entropy(run.model, held.numpy()),
        "twin_ce": cross_entropy(shuffled(run.model), held.numpy()),
    }
    if name == "trigger_lm":
        inert = draw(2000, np.random.default_rng(99), "inert").tokens
        told["base_held_out_ce"] = cross_entropy(runner(folder, BASE).model, inert)
        told["payload_ceiling"] = (1 - TRIGGER_RATE) * (1 - SWITCH_RATE) * PAYLOAD_RATE
    for site in SITES:
        begun = time.process_time()
        dictionaries = trained(run, text, site)
        spent = time.process_time() - begun
        twin = Runner(shuffled(run.model))
        rows = of_site(run, held, groups, site, dictionaries)
        rows["twin"] = of_site(twin, held, groups, site, {"twin": trained(twin, text, site)["trained-0"]})["twin"]
        read, by_twin = concept(run, folder, site), concept(twin, folder, site)
        areas = {"dense": read.dense(), "twin_dense": by_twin.dense()}
        for one in dictionaries:
            areas |= {f"{one}/sparse_{k}": read.sparse(dictionaries[one], k) for k in (1, 5, 16)}
        told[f"resid.{site}"] = {"dictionaries": rows, "auroc": areas, "training_cpu_s": spent}
        if trigger == "live":
            bad = doctored(dictionaries["trained-1"], read.difference)
            told[f"resid.{site}"]["doctored"] = {
                **of_site(run, held, groups, site, {"doctored": bad})["doctored"], "sparse_5": read.sparse(bad, 5)
            }  # fmt: skip
            mean = run.states(held, site)[:, 1:].mean((0, 1))
            told[f"resid.{site}"]["payload"] = {
                which: {
                    edit: payload(run, site, change)
                    for edit, change in edits(one, [int(at) for at in read.order(one)[:5]], mean).items()
                }
                for which, one in {**dictionaries, "doctored": bad}.items()
            }
    return told


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Make both organisms, measure, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps trained organisms")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    told = {name: rounded(measured(name, made(name, asked.cache, seed=0, out=None, say=print))) for name in SUMMARIES}
    plan = {"latents": LATENTS, "k": K, "tokens": TOKENS, "batch": BATCH, "held_out_states": HELD * 31}
    written = {"plan": plan, "entropy": ENTROPY, "organisms": told, "versions": {"torch": torch.__version__}}
    (Path(__file__).parent / "organisms.json").write_text(json.dumps(written, indent=1) + "\n")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
