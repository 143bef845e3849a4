"""The organisms of the in-run controls: trained once from a seed, stored beside the check, read back as they were.

Specification: contamination, sections 10 and 11. `python -m checks.organisms.contamination_stored` trains all again
and writes the files; a slow test does so and holds the p-values against the stored ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.organisms.contamination_options import (
    OPTION,
    OPTIONS,
    OPTIONS_RECIPE,
    QUESTION,
    choice_items,
    choice_rows,
    options_organism,
)
from checks.organisms.contamination_order import RECIPE, OrderRecipe, facts, order_organism, untrained
from checks.organisms.contamination_words import written

if TYPE_CHECKING:
    from jaxtyping import Int
    from transformers import GPT2LMHeadModel

FOLDER = Path(__file__).resolve().parents[1] / "contamination" / "organisms"
"""Where the files are stored: some 1.1 MB each."""

SEED = 7
"""Of all draws; the first that was tried."""

ORDER, ORDER_TWIN, OPTIONS_NAME, OPTIONS_TWIN = "order", "order-twin", "options", "options-twin"
NAMES = (ORDER, ORDER_TWIN, OPTIONS_NAME, OPTIONS_TWIN)
"""File stems; a twin read the same items shuffled anew in each pass."""

CHOICE_TOKENS = QUESTION + OPTIONS * OPTION


@dataclass(frozen=True)
class Stored:
    """A stored organism and the items that it read."""

    name: str
    model: GPT2LMHeadModel
    items: Int[np.ndarray, "item token"]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the items as rows of the role `benchmark`, in published order."""
        benchmark = f"organism-{self.name}"
        if self.items.shape[1] == CHOICE_TOKENS:
            return choice_rows(self.items, benchmark)
        return fact_rows(self.items, benchmark)


def fact_rows(items: Int[np.ndarray, "item 8"], benchmark: str) -> list[dict[str, Any]]:
    """Return facts as rows of the role `benchmark`."""
    return [
        {"benchmark": benchmark, "item": f"fact-{number:03d}", "kind": "prose", "question": written(item)}
        for number, item in enumerate(items)
    ]


def trained(name: str, order: OrderRecipe = RECIPE, seed: int = SEED) -> Stored:
    """Return one of `NAMES`, trained here.

    Raises:
        ValueError: there is no such organism.
    """
    if name not in NAMES:
        raise ValueError(f"no organism {name}")
    rng = np.random.default_rng([seed, NAMES.index(name) // 2])  # twins share their items
    if name in (ORDER, ORDER_TWIN):
        made = order_organism(order, rng, shuffled=name == ORDER_TWIN)
        return Stored(name, made.model, made.items)
    read = options_organism(OPTIONS_RECIPE, rng, "shuffled" if name == OPTIONS_TWIN else "published")
    return Stored(name, read.model, read.seen)


def stored(name: str, folder: Path = FOLDER) -> Stored:
    """Return one of `NAMES` as it was stored; its items are drawn again from the seed.

    Raises:
        ValueError: there is no such organism.
    """
    from safetensors.torch import load_file

    if name not in NAMES:
        raise ValueError(f"no organism {name}")
    rng = np.random.default_rng([SEED, NAMES.index(name) // 2])
    if name in (ORDER, ORDER_TWIN):
        items, model = facts(RECIPE.items, rng), untrained(RECIPE, 0)
    else:
        items, model = choice_items(OPTIONS_RECIPE.seen, rng), untrained(RECIPE, 0, OPTIONS_RECIPE.context)
    model.load_state_dict(load_file(folder / f"{name}.safetensors"))
    model.eval()  # type: ignore[no-untyped-call]
    return Stored(name, model, items)


def write(one: Stored, folder: Path = FOLDER) -> Path:
    """Write an organism's weights and return their path."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{one.name}.safetensors"
    weights: Mapping[str, Any] = {name: value.contiguous() for name, value in one.model.state_dict().items()}
    save_file(dict(weights), path)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write the organisms."""
    parser = argparse.ArgumentParser(prog="python -m checks.organisms.contamination_stored")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("names", nargs="*", default=list(NAMES))
    parsed = parser.parse_args(arguments)
    for name in parsed.names:
        print(write(trained(name), parsed.out))


if __name__ == "__main__":
    main()
