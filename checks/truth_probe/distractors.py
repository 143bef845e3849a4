"""Built-in distractors: a feature that is no truth, written into both texts of a pair before the sweep.

Each pair's coin says which of two variants it becomes, so the feature is independent of the label. Two readings are
taken: directions as fitted, on test rows (`frozen`), and directions refitted on distracted train rows (`refit`).
Specification: truth_probe, section 5.10.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from checks.check import Text
from checks.truth_probe.masks import voters
from checks.truth_probe.pairs import Pair, digest

if TYPE_CHECKING:
    from checks.truth_probe.splits import Plan

BATTERY = ("word", "opinion", "style")
"""Kinds of distractor (5.10)."""

PREFIXES: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "word": (("Pebble.", "Pebble."), ("Lantern.", "Lantern.")),
    "opinion": (("Robin rejects:", "Robin agrees:"), ("Robin agrees:", "Robin rejects:")),
    "style": (("Hint:", "Note:"), ("Note:", "Hint:")),
}
"""By kind and by h: what the + and the - text begin with (5.10)."""

FROZEN_ROWS, REFIT_ROWS = 400, 200
"""Test rows of the frozen reading (5.10), and train rows of the refit: half as many, for it is a note about the method
and no gate."""

CONTRAST_ROWS = 8
"""Rows swept under both values of h. Whether a tokenizer tells two prefixes apart hangs on the prefixes and on what
follows the space, hardly on more: eight texts show it."""

COIN_DOMAIN = b"assay-truth-distractor/v1\n"
"""Separates the coins from every other use of SHA-256."""

Use = Literal["frozen", "refit", "contrast"]


@dataclass(frozen=True)
class Variant:
    """One pair with a distractor written into it."""

    row: int
    """Row of the plan that it was made from."""
    kind: str
    """Which of `BATTERY`."""
    h: int
    """Value of the feature, 0 or 1."""
    use: Use
    """`contrast` is the side of the coin that did not fall: for `testable` alone, never measured."""
    texts: tuple[Text, Text]
    """+ and - text."""


def coin(key: str, kind: str, seed: int) -> int:
    """Return 0 or 1: a function of the pair's key, the kind and the check's seed, whatever else is in the set."""
    said = hashlib.sha256(COIN_DOMAIN + seed.to_bytes(8, "big") + kind.encode() + b"\0" + key.encode())
    return said.digest()[0] & 1


def variant(pair: Pair, kind: str, h: int, *, contrast: bool = False) -> tuple[Text, Text]:
    """Return the + and - text of a pair with a distractor before them.

    One space stands between prefix and text (in answer form: before the prompt, with which the text begins), and a
    declared read position moves along.

    Args:
        pair: the pair as it was.
        kind: one of `BATTERY`.
        h: 0 or 1.
        contrast: give ids of their own, for a pair whose other variant is swept too.
    """
    name = f"{pair.key}/battery/{kind}" + ("/contrast" if contrast else "")
    pos, neg = (
        Text(
            id=f"{name}/{branch}",
            text=f"{prefix} {text.text}",
            read_at=None if text.read_at is None else text.read_at + len(prefix) + 1,
        )
        for branch, prefix, text in zip(("pos", "neg"), PREFIXES[kind][h], pair.texts(), strict=True)
    )
    return pos, neg


def chosen(plan: Plan, split: Literal["train", "test"], count: int) -> tuple[int, ...]:
    """Return the rows that are distracted: labelled main rows of a split, one an item, by the hash of the item.

    Args:
        plan: whose rows.
        split: `test` for the frozen reading, `train` for the refit.
        count: rows at most.

    Returns:
        Rows of the plan, in the order of the hash.
    """
    rows = (
        row
        for row, (kind, of) in enumerate(zip(plan.kinds, plan.splits, strict=True))
        if kind == "main" and of == split
    )
    one_an_item = voters(plan.pairs, rows, plan.seed)
    return tuple(one_an_item[item] for item in sorted(one_an_item, key=lambda name: digest(name, plan.seed))[:count])


def battery(
    plan: Plan, seed: int, *, frozen: int = FROZEN_ROWS, refit: int = REFIT_ROWS, contrast: int = CONTRAST_ROWS
) -> tuple[Variant, ...]:
    """Return every variant to sweep beside a plan, kind by kind: frozen, refit, then contrasts.

    Contrasts are the first test rows with the other side of the coin, by which `testable` decides.

    Args:
        plan: before anything was lost: a variant's `row` counts in it.
        seed: the check's.
        frozen: test rows at most.
        refit: train rows at most.
        contrast: rows swept under both values of h.
    """
    test, train = chosen(plan, "test", frozen), chosen(plan, "train", refit)
    uses: Sequence[tuple[Use, Sequence[int]]] = (("frozen", test), ("refit", train), ("contrast", test[:contrast]))
    made: list[Variant] = []
    for kind in BATTERY:
        for use, rows in uses:
            for row in rows:
                pair = plan.pairs[row]
                other = use == "contrast"
                h = coin(pair.key, kind, seed) ^ int(other)
                made.append(Variant(row, kind, h, use, variant(pair, kind, h, contrast=other)))
    return tuple(made)


def testable(variants: Sequence[Variant], runs: Mapping[str, int]) -> frozenset[str]:
    """Return the kinds of distractor that the model can see at all.

    A tokenizer that knows neither word writes both as unknown; then h is in no text, and an AUROC of .5 for it would be
    taken for a gate that holds. So of a few rows both variants are swept. A kind is testable when at least one row ran
    under both, and in no such row, on neither branch, the two are the same tokens. That errs on the side of an open
    gate: a prefix which only some texts swallow is not tested with either.

    Args:
        variants: as `battery` returned them.
        runs: `Evidence.runs()`: texts of one number are the same tokens; a text that was lost is not in it.
    """
    drawn = {(one.row, one.kind): one for one in variants if one.use == "frozen"}
    told: dict[str, list[bool]] = {}
    for other in variants:
        if other.use == "contrast" and (other.row, other.kind) in drawn:
            for text, flipped in zip(drawn[other.row, other.kind].texts, other.texts, strict=True):
                if text.id in runs and flipped.id in runs:
                    told.setdefault(other.kind, []).append(runs[text.id] != runs[flipped.id])
    return frozenset(kind for kind, parted in told.items() if all(parted))
