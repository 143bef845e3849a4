"""Journals that each break one rule in a way that the checker once let pass."""

from __future__ import annotations

from dataclasses import replace

from service.rules.journal import Entry
from tests.service.plants.journals import Break, Plant, at, changed, twin, without
from tests.service.plants.lives import Pen, Step, called_back, rejected, sharded, simple, written


def first_shard_end_lost(found: list[Entry], _pen: Pen) -> list[Entry]:
    done = next(n for n, one in enumerate(found) if one.kind == "finalised" and "shard" in one.detail)
    return [*found[: done - 1], *found[done:]]


def within(kind: str, entry: Step) -> Break:
    """Write an entry before the first one of a kind."""

    def insert(found: list[Entry], _pen: Pen) -> list[Entry]:
        position = at(found, kind)
        return [*found[:position], *written(found[0].audit, [entry]), *found[position:]]

    return insert


def never_leased(found: list[Entry], _pen: Pen) -> list[Entry]:
    return [entry for entry in found if entry.kind not in ("leased", "ended")]


def grown(found: list[Entry], pen: Pen) -> list[Entry]:
    """The second use of an approval names more runs than the first."""
    more = twin("approval_used")(found, pen)
    last = more[-1]
    return [*more[:-1], replace(last, detail={**last.detail, "max_runs": last.detail["max_runs"] + 5})]


def unlike(token: int) -> Break:
    """Finalise with a token that was never leased, and seal with it."""

    def change(found: list[Entry], pen: Pen) -> list[Entry]:
        return changed("sealed", token=token)(changed("finalised", token=token)(found, pen), pen)

    return change


def cancelled_instead(found: list[Entry], _pen: Pen) -> list[Entry]:
    position = at(found, "failed")
    return [*found[:position], replace(found[position], kind="cancelled"), *found[position + 1 :]]


FURTHER: tuple[Plant, ...] = (
    Plant("J5", "finalised though nothing was leased", simple, never_leased),
    Plant("J5", "finalised with a token that was not leased", simple, unlike(7)),
    Plant("J5", "finalised though the worker was lost", simple, changed("ended", detail_class="WORKER_LOST")),
    Plant("J5", "finalised without an end", simple, without("ended")),
    Plant("J5", "a shard finalised without its end", sharded, first_shard_end_lost),
    Plant("J4", "sealed with another token than it was finalised with", simple, changed("sealed", token=9)),
    Plant("J3", "leased again after it was finalised", simple, within("sealed", ("leased", "whole", 2, {}))),
    Plant("J3", "asked to stop after it was finalised", simple, within("sealed", ("cancel_requested", "", 0, {}))),
    Plant("J3", "failed after it was finalised", rejected, changed("failed", detail_reason="ATTEMPTS_EXHAUSTED")),
    Plant("J3", "cancelled after it was finalised", rejected, cancelled_instead),
    Plant("J14", "an approval's runs grow between two uses", called_back, grown),
)
"""Flaws that passed once, beside the two for each rule."""
