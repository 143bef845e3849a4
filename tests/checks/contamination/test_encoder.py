from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from checks.contamination.encoder import (
    FOLDER,
    KNOWN_COSINES,
    KNOWN_TOLERANCE,
    PACKAGE,
    Encoder,
    integer_cosine,
    known_answer,
)

TEXTS = (
    "That is a happy person",
    "Ann has 16 eggs, eats three and sells the rest for $2 each.",
    "",
    "Zürich liegt am See. 中文 tokens, too",
    "word " * 400,
)
PAIRS = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[3] / "../shared/data")) / "gsm8k_rephrase/dev.jsonl"


def published() -> Path | None:
    try:
        return Path(str(metadata.distribution(PACKAGE).locate_file(FOLDER)))
    except metadata.PackageNotFoundError:
        return None


pytestmark = pytest.mark.skipif(published() is None, reason=f"{PACKAGE} is not installed")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


@pytest.mark.parametrize("change", [{"num_hidden_layers": 12}, {"hidden_act": "relu"}, {"model_type": "roberta"}])
def test_another_config_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    folder = published()
    assert folder is not None
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=next(iter(change))):
        Encoder(tmp_path)


@pytest.mark.parametrize("flaw", ["missing", "shape", "strange"])
def test_missing_weights_are_never_filled_in(flaw: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = published()
    assert folder is not None
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(folder / name, tmp_path / name)
    tensors = load_file(folder / "model.safetensors")
    name = "encoder.layer.5.output.dense.bias"
    if flaw == "missing":
        del tensors[name]
    elif flaw == "shape":
        tensors[name] = tensors[name][:-1]
    else:
        tensors["encoder.layer.6.output.dense.bias"] = tensors[name].copy()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="the encoder's weights"):
        Encoder(tmp_path)


def test_known_answer(encoder: Encoder) -> None:
    assert known_answer(encoder) == pytest.approx(KNOWN_COSINES, abs=KNOWN_TOLERANCE)
    assert set(encoder.digests) == {"model.safetensors", "tokenizer.json"}
    assert len(encoder.digest) == 64


@pytest.mark.slow  # importing transformers takes most of it; the known answer holds the same sums in each run
def test_vectors_are_those_of_transformers(encoder: Encoder) -> None:
    import torch
    from transformers import BertModel

    bert = BertModel.from_pretrained(encoder.folder, add_pooling_layer=False, use_safetensors=True)
    bert.train(False)
    for text in TEXTS:
        with torch.no_grad():
            states = bert(torch.tensor(encoder.pieces([text]))).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(encoder.embed_alone(text), states / np.linalg.norm(states), atol=1e-5)


def test_long_text_is_read_to_256_pieces(encoder: Encoder) -> None:
    assert [len(ids) for ids in encoder.pieces(("word " * 400, "one"))] == [256, 3]


def test_a_batch_moves_no_vector_beyond_the_margin(encoder: Encoder) -> None:
    alone = np.stack([encoder.embed_alone(text) for text in TEXTS])
    both = encoder.embed((*TEXTS, *reversed(TEXTS)))
    np.testing.assert_allclose(both[: len(TEXTS)], alone, atol=1e-5)
    np.testing.assert_array_equal(both[: len(TEXTS)], both[len(TEXTS) :][::-1])


def test_exact_cosines_depend_on_no_batch_order_or_thread(encoder: Encoder) -> None:
    import torch

    first = encoder.embed_alone(TEXTS[1])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        encoder.embed(TEXTS)
        again = encoder.embed_alone(TEXTS[1])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(first, again)
    assert encoder.integer_cosine(first, TEXTS[1]) == 10_000
    assert encoder.integer_cosine(encoder.embed_alone(TEXTS[0]), "That is a very happy person") == 9429


def test_the_bf16_pass_stays_within_the_margin(encoder: Encoder) -> None:
    coarse = Encoder(coarse="bf16")
    fast, exact = coarse.embed(TEXTS), encoder.embed(TEXTS)
    assert np.abs(coarse.cosines(fast, fast) - encoder.cosines(exact, exact)).max() < 0.02
    np.testing.assert_array_equal(coarse.embed_alone(TEXTS[1]), encoder.embed_alone(TEXTS[1]))


@pytest.mark.parametrize("bad", [np.zeros(3), np.array([np.nan, 1, 1]), np.array([np.inf, 1, 1])])
def test_a_vector_without_direction_has_no_cosine(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="direction"):
        integer_cosine(np.ones(3), bad)


def test_neither_sentence_transformers_nor_torch_is_imported_by_the_module() -> None:
    code = (
        "import sys, checks.contamination.encoder as e; assert 'torch' not in sys.modules; e.Encoder(); "
        "assert not {'sentence_transformers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=Path(__file__).parents[3], timeout=60)


@pytest.mark.slow
@pytest.mark.skipif(not PAIRS.is_file(), reason="no rewrites: set ASSAY_DATA to the folder of gsm8k_rephrase/")
def test_cosines_of_real_rewrites_are_those_of_the_specification(encoder: Encoder) -> None:
    with PAIRS.open() as lines:
        rows = [json.loads(line) for line in lines][:330]
    items, rewrites = (encoder.embed([row[field] for row in rows]) for field in ("original", "rephrase"))
    table = encoder.cosines(items, rewrites)
    own = np.diag(table)
    assert own.mean() == pytest.approx(0.910, abs=0.005)
    assert np.quantile(own, 0.05) == pytest.approx(0.829, abs=0.01)
    assert (table.argmax(1) == np.arange(330)).mean() >= 0.99
    np.fill_diagonal(table, -1)
    assert table.max(1).mean() == pytest.approx(0.598, abs=0.005)
