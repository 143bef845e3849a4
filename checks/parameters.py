"""Types of parameters that several checks share."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from checks.check import Refusal


def _distinct(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(numbers)) != len(numbers):
        raise ValueError("a number is named twice: name each once")
    return tuple(sorted(numbers))


# A JSON array must do for a tuple, also where the rest of the model is strict.
Numbers = Annotated[tuple[int, ...], Field(strict=False, min_length=1, max_length=256), AfterValidator(_distinct)]
"""Distinct integers, kept sorted."""

Layers = Literal["all"] | Numbers
"""Transformer blocks, counted from 0."""


def between(low: str, high: str) -> AfterValidator:
    """Return the validator of a decimal-string parameter that must lie between two bounds, both allowed."""

    def within(text: str) -> str:
        if not Decimal(low) <= Decimal(text) <= Decimal(high):
            raise ValueError(f"{text} is outside {low}..{high}")
        return text

    return AfterValidator(within)


def chosen_layers(layers: Layers, count: int) -> tuple[int, ...]:
    """Return the layers that a parameter means for a model of `count` blocks.

    Raises:
        Refusal: `layer_out_of_range`, naming every layer that the model does not have.
    """
    if layers == "all":
        return tuple(range(count))
    outside = [layer for layer in layers if not 0 <= layer < count]
    if outside:
        raise Refusal("layer_out_of_range", tuple(f"layer:{layer}" for layer in outside))
    return tuple(layers)
