"""States that no dictionary has seen, held in memory with where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """Usable states of held-out passages: neither special tokens nor outliers of norm (specification, section 3)."""

    x: Float[np.ndarray, "token d"]
    """float32."""
    groups: tuple[str, ...]
    """Group of each state: the unit of resampling."""
    passages: tuple[str, ...]
    """Id of the passage of each state."""
    positions: Int[np.ndarray, " token"]
    """Counted from 0 within the passage."""
    tokens: Int[np.ndarray, " token"]
    """Token number at each state."""
