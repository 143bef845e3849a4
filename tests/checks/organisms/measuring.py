"""What an organism's data show, by plain transformers, numpy and scikit-learn: written apart from the checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

Rows = Sequence[Mapping[str, Any]]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@dataclass(frozen=True)
class Seen:
    """States of texts after every block, [text, layer, width], and log P(yes) - log P(no) after each text."""

    states: np.ndarray
    says: np.ndarray


def look(folder: Path, texts: Sequence[str], read_at: Sequence[int | str]) -> Seen:
    """Run the texts one length at a time; blocks are hooked, since the last hidden state of GPT-2 is normalised."""
    model = GPT2LMHeadModel.from_pretrained(folder / "model", local_files_only=True).train(False)
    tokenizer = Tokenizer.from_file(str(folder / "model" / "tokenizer.json"))
    caught: list[np.ndarray] = []
    for block in model.transformer.h:
        block.register_forward_hook(
            lambda _module, _given, out: caught.append((out[0] if isinstance(out, tuple) else out).numpy())
        )
    tokens = [one.ids for one in tokenizer.encode_batch(list(texts))]
    assert not any(tokenizer.token_to_id("[UNK]") in of for of in tokens)
    ends = [len(text) if at == "last" else int(at) for text, at in zip(texts, read_at, strict=True)]
    place = [len(text[:end].split()) - 1 for text, end in zip(texts, ends, strict=True)]
    no, yes = tokenizer.token_to_id("no"), tokenizer.token_to_id("yes")
    states = np.zeros((len(texts), model.config.n_layer, model.config.n_embd))
    says = np.zeros(len(texts))
    for length in {len(of) for of in tokens}:
        which = [row for row, of in enumerate(tokens) if len(of) == length]
        caught.clear()
        with torch.no_grad():
            logits = model(torch.tensor([tokens[row] for row in which])).logits[:, -1]
        for layer, caught_here in enumerate(caught):
            states[which, layer] = caught_here[np.arange(len(which)), [place[row] for row in which]]
        says[which] = (logits[:, yes] - logits[:, no]).numpy()
    return Seen(states, says)


@dataclass(frozen=True)
class Probed:
    """AUROC on test pairs; `md` is not oriented, so it may stand on its head."""

    output: dict[str, float]
    """Of the model's own answers against truth, by persona ("None" where nobody is named)."""
    md: dict[str, list[float]]
    """Of the first component of displacements, fitted without labels on the first persona, by persona; per layer."""
    lr: dict[str, list[float]]
    """Of logistic regression likewise; "negated" is the first persona on pairs with NOT."""
    features: dict[str, list[float]]
    """Of `md` against each declared feature."""


def probe(folder: Path, suffix: str = "") -> Probed:
    """Fit on affirmative train pairs of the persona that the parameters name, and test on all others."""
    rows = rows_of(folder / f"pairs{suffix}.jsonl")
    fit_persona = json.loads((folder / f"params{suffix}.json").read_text()).get("fit_persona")
    ends = [row["read_at"] if isinstance(row["read_at"], list) else [row["read_at"]] * 2 for row in rows]
    pos = look(folder, [row["pos"] for row in rows], [end[0] for end in ends])
    neg = look(folder, [row["neg"] for row in rows], [end[1] for end in ends])
    label = np.array([row["label"] for row in rows])
    split = np.array([row["split"] for row in rows])
    negated = np.array([row["polarity"] == "negated" for row in rows])
    persona = np.array([str(row["persona"]) for row in rows])
    fits = (persona == fit_persona) if fit_persona else np.ones(len(rows), dtype=bool)
    test = {name: (split == "test") & ~negated & (persona == name) for name in sorted(set(persona))}
    asked = {**test, "negated": (split == "test") & negated & fits}
    train = (split == "train") & ~negated & fits
    moved = pos.states - neg.states
    directions = [directions_of(moved[train, layer], label[train]) for layer in range(moved.shape[1])]

    def areas(which: int, rows_asked: np.ndarray, truth: np.ndarray) -> list[float]:
        return [
            float(roc_auc_score(truth[rows_asked], moved[rows_asked, layer] @ of[which]))
            for layer, of in enumerate(directions)
        ]

    read = (split == "test") & ~negated & fits
    declared = rows[0]["features"]
    return Probed(
        output={name: float(roc_auc_score(label[at], (pos.says - neg.says)[at])) for name, at in test.items()},
        md={name: areas(0, at, label) for name, at in asked.items()},
        lr={name: areas(1, at, label) for name, at in asked.items()},
        features={name: areas(0, read, np.array([row["features"][name] for row in rows])) for name in declared},
    )


def directions_of(moved: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first principal component of displacements, and the logistic direction of their labels."""
    centred = moved - moved.mean(axis=0)
    scale = np.sqrt(np.mean(centred**2))
    logistic = LogisticRegression(C=1.0, fit_intercept=False, max_iter=1000).fit(centred / scale, label)
    return np.linalg.svd(centred, full_matrices=False)[2][0], logistic.coef_[0]
