"""Sequences with a hidden mode (O3 `switch_lm`) and with a trigger that opens a window (O4 `trigger_lm`).

Token 0 begins a sequence, tokens 1 to 4 switch the mode, tokens 5 to 7 are spare, tokens 8 to 55 are content. Each
mode has a permutation of the content, and the next content is mostly what the permutation makes of the last one.
Nothing here is trained: a generator and a seed are the process. Specification of `sae_features`, section 14.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

VOCABULARY, LENGTH = 64, 32
"""Tokens known, and tokens of a sequence with the first."""

BOS, FIRST_SWITCH, MODES = 0, 1, 4
TRIGGER, PAYLOAD = 5, 6
"""The token that opens a window, and the one that then stands in the place of content."""

FIRST_CONTENT, CONTENT = 8, 48

SWITCH_RATE, FOLLOW_RATE = 0.08, 0.85
"""Probability of a switch, and of the permuted last content where there is none; else content is uniform."""

TRIGGER_RATE, WINDOW, PAYLOAD_RATE = 0.02, 3, 0.9
"""Probability of the trigger, positions (switches not counted) that its window spans, probability of the payload."""

ENTROPY = 1.294
"""Nats a token of the process once a content token has been shown (section 14; computed by `entropy`)."""

PERMUTATION_SEED = 64
"""Draws the four permutations; any other seed is an organism as good."""

Trigger = Literal["none", "inert", "live"]
"""No token 5; token 5 without consequence (the base model's text); token 5 that opens a window."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """What was drawn, and what a model would have to know of it."""

    tokens: Int[np.ndarray, "sequence 32"]
    mode: Int[np.ndarray, "sequence 32"]
    """0 to 3, after the token; -1 at the first."""
    last: Int[np.ndarray, "sequence 32"]
    """Last content token shown up to and with this position; 0 before the first."""
    opened: Bool[np.ndarray, "sequence 32"]
    """Whether a window is open after the token: the next token that is no switch may be the payload."""


def permutations() -> Int[np.ndarray, "mode token"]:
    """Return, for each mode, which content token follows a content token; 0 for every other token."""
    rng = np.random.default_rng(PERMUTATION_SEED)
    follows = np.zeros((MODES, VOCABULARY), dtype=np.int64)
    for mode in range(MODES):
        follows[mode, FIRST_CONTENT : FIRST_CONTENT + CONTENT] = FIRST_CONTENT + rng.permutation(CONTENT)
    return follows


def draw(count: int, rng: np.random.Generator, trigger: Trigger = "none") -> Sequences:
    """Return sequences of the process.

    A window counts every position that is no switch, and a trigger within a window opens it anew. The payload is not
    content: the next content follows the last content that was shown.

    Args:
        count: sequences.
        rng: draws everything but the permutations.
        trigger: what token 5 does.
    """
    follows, rows = permutations(), np.arange(count)
    tokens = np.zeros((count, LENGTH), dtype=np.int64)
    mode, last, left = np.full_like(tokens, -1), np.zeros_like(tokens), np.zeros_like(tokens)
    mode[:, 1] = rng.integers(MODES, size=count)
    tokens[:, 1] = FIRST_SWITCH + mode[:, 1]
    for at in range(2, LENGTH):
        chance = rng.random((4, count))
        fires = (chance[0] < TRIGGER_RATE) & (trigger != "none")
        switches = ~fires & (chance[1] < SWITCH_RATE)
        mode[:, at] = np.where(switches, rng.integers(MODES, size=count), mode[:, at - 1])
        before = last[:, at - 1]
        follow = (before > 0) & (chance[2] < FOLLOW_RATE)
        uniform = FIRST_CONTENT + rng.integers(CONTENT, size=count)
        content = np.where(follow, follows[mode[rows, at], before], uniform)
        paid = ~fires & ~switches & (left[:, at - 1] > 0) & (chance[3] < PAYLOAD_RATE)
        shown = ~fires & ~switches & ~paid
        tokens[:, at] = np.select(
            [fires, switches, paid], [TRIGGER, FIRST_SWITCH + mode[:, at], PAYLOAD], default=content
        )
        last[:, at] = np.where(shown, content, before)
        after = np.maximum(left[:, at - 1] - ~switches, 0)
        left[:, at] = np.where(fires & (trigger == "live"), WINDOW, after)
    return Sequences(tokens, mode, last, left > 0)


def entropy() -> float:
    """Return the nats a token of the process without a trigger, once a content token has been shown."""
    right = FOLLOW_RATE + (1 - FOLLOW_RATE) / CONTENT
    wrong = (1 - FOLLOW_RATE) / CONTENT
    content = -right * np.log(right) - (CONTENT - 1) * wrong * np.log(wrong)
    choice = -SWITCH_RATE * np.log(SWITCH_RATE) - (1 - SWITCH_RATE) * np.log(1 - SWITCH_RATE)
    return float(choice + SWITCH_RATE * np.log(MODES) + (1 - SWITCH_RATE) * content)
