"""Whose states are asked: at most one model is in memory, and the one before is gone when the next is read."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.check import ModelFacts
from checks.memory import generator
from checks.passages import Which
from checks.runtime.architectures import architecture
from checks.runtime.loading import Loaded, load, read_tokenizer
from checks.runtime.plan import PassageSite
from sandbox.reader.model import ModelReading

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SHUFFLE_RNG = ("runtime", "shuffled")
"""Names the draw of the shuffled twin's permutations among all draws of an audit's seed."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model's checked files."""

    reading: ModelReading
    files: Mapping[str, Path]
    facts: ModelFacts


class Models:
    """The submitted model, its shuffled twin and the base, one at a time.

    Args:
        submitted: the model of the audit.
        base: the model it is held against, of the same facts and tokenizer; None where the audit names none.
        seed: the audit's seed; the twin's permutations are drawn from it.
    """

    def __init__(self, submitted: Source, base: Source | None, *, seed: int) -> None:
        self._submitted, self._base, self._seed = submitted, base, seed
        self._which: Which = "submitted"
        self._loaded: Loaded | None = None
        self._tokenizer: Tokenizer | None = None
        self.loads = 0
        """How often a model was read, for who wants to know what switching costs."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all its models: a base has the same."""
        if self._tokenizer is None:
            self._tokenizer = read_tokenizer(self._submitted.files)
        return self._tokenizer

    @property
    def head(self) -> bool:
        """Whether words can be scored: of all its models or of none, for they are of one architecture."""
        entry = architecture(self._submitted.facts.architecture)
        return entry.head and entry.causal

    def width(self, site: PassageSite) -> int:
        """Return the width of a site, of all its models alike."""
        facts = self._submitted.facts
        if site.kind != "attn_z":
            return facts.width
        return facts.heads * int(self._submitted.reading.config.get("head_dim") or facts.width // facts.heads)

    @property
    def there(self) -> tuple[Which, ...]:
        """Whose states can be asked."""
        return ("submitted", "shuffled") if self._base is None else ("submitted", "shuffled", "base")

    def use(self, which: Which) -> Loaded:
        """Return a model, frozen; another that was in memory is dropped first.

        Raises:
            LoadRefused: the files do not make the model that the config describes.
        """
        if self._loaded is None or self._which != which:
            self.drop()
            source = self._base if which == "base" and self._base is not None else self._submitted
            loaded = load(
                source.reading.config,
                source.facts,
                source.reading.tensors,
                source.files,
                shuffle=generator(self._seed, *SHUFFLE_RNG) if which == "shuffled" else None,
            )
            # Gradients are taken with respect to states; a weight's would cost as much again and is nobody's.
            loaded.bridge.requires_grad_(False)
            self._loaded, self._which = loaded, which
            self.loads += 1
        return self._loaded

    def drop(self) -> None:
        """Leave nothing of a model in memory."""
        if self._loaded is not None:
            self._loaded = None
            gc.collect()  # a wrapped model refers to itself

    def lent(self) -> Loaded:
        """Return the submitted model for those who keep it: it is read again where another took its place."""
        return replace(self.use("submitted"), bridge=_Lent(self))


class _Lent:
    """Stands for the submitted model's bridge, and holds no model."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models.use("submitted").bridge, name)
