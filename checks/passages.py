"""Whole passages and what a check may do with the states at a site of theirs: read, replace, differentiate.

`Needs.texts` reads one state a text. A sparse dictionary wants every token's, wants them again after a part of each was
taken out, and wants to know what the output says then. Here is that door: the check names passages and sites before
any weight is loaded, and later asks a `Site` for states, for outputs with states replaced by its own arithmetic, and
for gradients. Nothing of the model is handed over but these numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float, Float64, Int

Which = Literal["submitted", "shuffled", "base"]
"""Whose states: the model's; those of a twin whose weight matrices have their entries permuted (norms and the
distribution of values stay, what was learned goes); those of a second model that the audit names as its base."""

CONTEXT_MAX = 512
"""Tokens of a passage that run; longer ones are cut, and counted (specification of `sae_features`, section 3)."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A sequence of tokens, every state of which may be wanted."""

    id: str
    """Unique within the check, also against its contrasts, texts and continuations."""
    text: str | None = None
    """Tokenised as it is; exactly one of `text` and `tokens` is set."""
    tokens: tuple[int, ...] | None = None
    read: Literal["last"] | int | tuple[int, int] = "last"
    """Which tokens `States.read` marks: the last; the last that ends at or before a character; those that overlap the
    characters [start, end). Of `tokens` the numbers count tokens instead: the token before an offset, a range."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A prompt after which one word is held against another.

    Target and foil are tokenised after the prompt; the tokens that they share at their beginning join the prompt, and
    the margin is log p(target) - log p(foil) of the first tokens that differ, in nats.
    """

    id: str
    prompt: str
    target: str
    foil: str


@dataclass(frozen=True, kw_only=True, eq=False)
class States:
    """States at a site, token by token; one batch of passages, in the order they were asked."""

    vectors: Float[np.ndarray, "token width"]
    """float32."""
    passage: Int[np.ndarray, " token"]
    """Number of the passage in the sequence of ids that was asked."""
    position: Int[np.ndarray, " token"]
    """Counted from 0 within its passage."""
    token: Int[np.ndarray, " token"]
    """Token number in the vocabulary."""
    special: Bool[np.ndarray, " token"]
    """Tokens that the tokenizer declares special (beginning, end, padding)."""
    read: Bool[np.ndarray, " token"]
    """Where the passage asked to be read."""


Change = Callable[[States], "Float[np.ndarray, 'token width']"]
"""Takes the states of a batch, returns what stands in their place; what it returns as it was is not edited."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spliced:
    """What the output says with states replaced, at every token that has a next one; first of all unedited."""

    passage: Int[np.ndarray, " token"]
    position: Int[np.ndarray, " token"]
    scored: Bool[np.ndarray, " token"]
    """False where this token or the next one is special."""
    cross_entropy: Float64[np.ndarray, "edit token"]
    """-log p(next token), nats. Row 0 is unedited, row 1 + i is the i-th change."""
    divergence: Float64[np.ndarray, "edit token"]
    """KL(unedited || edited), nats; row 0 is 0."""
    same_top: Bool[np.ndarray, "edit token"]
    """Whether the likeliest token is the unedited one."""
    variation: Float64[np.ndarray, "edit token"]
    """Total variation distance of the two distributions, in 0..1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradients:
    """Derivatives with respect to the states that stood at the site."""

    states: States
    """Those that came to the site, before any change."""
    gradient: Float[np.ndarray, "token width"]
    """Of the sum over the batch, with respect to what stood at the site after the change; zero where it has no say."""
    value: Float64[np.ndarray, " passage"]
    """Of each passage or contrast of the batch, in the order they were asked: what was differentiated."""


class Site(Protocol):
    """A place in one model, and the passages that the needs named.

    Every token that runs forward is charged to `Needs.passage_tokens`: once for states, 1 + changes times for
    `splice`, 1 + changes times for `margins`, three times for a gradient. Ids may repeat. An iterator runs the model
    batch by batch as it is drawn from; nothing is kept between batches.
    """

    name: str
    """"resid.{l}" is the residual stream after block l, "mlp_out.{l}" what its MLP adds, "attn_z.{l}" the
    concatenated heads as W_O reads them, "embed" the stream before block 0."""
    width: int

    def states(self, ids: Sequence[str]) -> Iterator[States]:
        """Yield the states of passages, or of the prompts of contrasts.

        Raises:
            NotAskedFor: an id that the needs did not name, or more tokens than they declared.
        """
        ...

    def splice(self, ids: Sequence[str], changes: Sequence[Change]) -> Iterator[Spliced]:
        """Yield the output under each change; the model must be causal and have a head.

        Raises:
            NotAskedFor: as for `states`, or a model without a head.
        """
        ...

    def margins(self, ids: Sequence[str], changes: Sequence[Change]) -> Float64[np.ndarray, "edit contrast"]:
        """Return each contrast's margin (nats): row 0 unedited, row 1 + i under the i-th change."""
        ...

    def margin_gradients(self, ids: Sequence[str], change: Change | None = None) -> Iterator[Gradients]:
        """Yield the gradient of each contrast's margin; with a change, at what it puts in place."""
        ...

    def divergence_gradients(self, ids: Sequence[str], change: Change) -> Iterator[Gradients]:
        """Yield the gradient of the summed KL(unedited || edited) over scored tokens; `value` is each passage's sum."""
        ...

    def logit_weights(self) -> Float[np.ndarray, "vocabulary width"]:
        """Return the unembedding with the final norm's gain folded in, rows centred over the vocabulary, float32.

        What a direction of the residual stream raises and lowers, up to the final norm's scale.
        """
        ...

    def lengths(self, ids: Sequence[str]) -> Int[np.ndarray, " passage"]:
        """Return how many tokens that are not special each passage has, after cutting; nothing runs for it."""
        ...

    def cut(self) -> int:
        """Return how many passages were cut at `CONTEXT_MAX` or at the model's own context."""
        ...
