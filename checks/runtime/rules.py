"""What the config keys that a loader uses may hold: types and ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a used config key may hold."""

    kind: Literal["whole", "real", "one_of", "scalars"]
    low: float = 0
    high: float = 0
    values: tuple[Any, ...] = ()
    optional: bool = True
    """False where the loader's default would invent a size."""

    def allows(self, value: Any) -> bool:
        """Tell whether the value is of the right type and in range; null is allowed where the key may be absent."""
        if value is None:
            return self.optional
        if self.kind == "one_of":
            return any(type(value) is type(one) and value == one for one in self.values)
        if self.kind == "scalars":
            return isinstance(value, dict) and all(isinstance(one, (str, int, float, bool)) for one in value.values())
        if isinstance(value, bool) or not isinstance(value, int if self.kind == "whole" else (int, float)):
            return False
        return bool(self.low <= value <= self.high)


def whole(high: int, *, optional: bool = False) -> Rule:
    """Return the rule of a count from 1 to `high`."""
    return Rule(kind="whole", low=1, high=high, optional=optional)


LAYERS = whole(512)
WIDTH = whole(65_536)
HEADS = whole(1024)
VOCABULARY = whole(2**21)
CONTEXT = whole(2**22)
HIDDEN = whole(2**20)
"""Sizes: about four times the largest open model's, so that a hostile config cannot ask for more than it could use."""
EPSILON = Rule(kind="real", low=1e-15, high=0.1)
ROPE_BASE = Rule(kind="real", low=1, high=1e10)
SHARE = Rule(kind="real", low=0, high=1)
FLAG = Rule(kind="one_of", values=(True, False))
OFF = Rule(kind="one_of", values=(False,))
"""Switched on, the model would be another one than the table describes."""
ACTIVATION = Rule(
    kind="one_of",
    values=("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish", "tanh"),
)
ROPE = Rule(kind="scalars")
TOKEN = Rule(kind="whole", low=0, high=2**21)
