"""Types of parameters that several checks share."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

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


@dataclass(frozen=True)
class Between:
    """Bounds of a decimal-string parameter, both allowed; they stand in the catalogue, where the API reads them."""

    low: str
    high: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the bounds after the string itself."""
        return no_info_after_validator_function(self._within, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Tell the bounds; JSON Schema has words for bounds of numbers only."""
        return {**handler(core), "decimalMinimum": self.low, "decimalMaximum": self.high}

    def _within(self, text: str) -> str:
        if not Decimal(self.low) <= Decimal(text) <= Decimal(self.high):
            raise ValueError(f"{text} is outside {self.low}..{self.high}")
        return text


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
