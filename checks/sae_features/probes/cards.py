"""Feature cards: what a person needs to look at a latent, as numbers.

A file of canonical JSON that holds token numbers, never text; names of rows that are no plain names stand as digests.
Cited latents never stand alone: as many that nobody chose stand beside them, since a latent that looks meaningful next
to no other proves nothing. Source: specification of `sae_features`, section 9.

Layout: {schema, header, row_ids, cards}. Numbers are integers, or decimal strings of three significant digits. A
context is [row, at, first, tokens, values]: the number of its row in `row_ids`, the position of the latent, the
position of the first token shown, the tokens (-1 where one was left out: special, or an outlier by its norm), and
pairs of offset and value, flat, for the tokens where the latent is on; values in thousandths of the card's `max`, at
least 1. Contexts in `sampled` have a sixth entry, the band of values (0 lowest .. 4) from which they were drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from assay.canonical import dumps

from checks.quantise import decimal
from checks.sae_features.probes.cards_chosen import BESIDE, Chosen, chosen
from checks.sae_features.probes.cards_contexts import LEVELS, Corpus, Level, hashed
from checks.sae_features.probes.cards_facts import DENSE, TOKEN_HITS, TOKEN_LIFT, TOKEN_SHARE, Facts, Latents

if TYPE_CHECKING:
    from jaxtyping import Float

    from checks.sae_features.dictionary.value import Dictionary
    from checks.sae_features.held import Held

SCHEMA = "assay-cards/v1"

CAP = 8 * 2**20
"""Bytes of the file at most (section 9)."""

SMALL = 40 * 2**10
"""Bytes that 48 cards fit in by dropping detail: a report that travels with its cards stays small."""

DIGITS = 3
"""Significant digits: more would carry weights out and tell a reader nothing."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,63}")
"""Row ids that are shown; any other could be text."""


def cards(
    dictionary: Dictionary,
    held: Held,
    logit_weights: Float[np.ndarray, "vocabulary d"] | None,
    cited: Mapping[int, str],
    other: Dictionary | None,
    count: int,
    export_contexts: bool,
    rng: np.random.Generator,
    *,
    cap: int = CAP,
) -> bytes:
    """Return the file of cards.

    Args:
        dictionary: whose latents are shown.
        held: states that it was not trained on.
        logit_weights: what directions of the stream raise (`Site.logit_weights`); None where the site does not write
            to the stream, and then no tokens are named as raised.
        cited: latents that findings name, the most important first, with the code of the finding.
        other: the dictionary of another seed; None leaves out the best match.
        count: cards at most, at least 3.
        export_contexts: False leaves out contexts and names of rows, since data may be private.
        rng: draws latents and contexts.
        cap: bytes at most; detail is dropped in the order of `LEVELS` until the file fits, and `header.level` tells.

    Raises:
        ValueError: widths differ, a state is not finite, there is no state or no live latent, a cited latent does not
            exist, fewer than 3 cards are asked, or even the least detail does not fit.
    """
    _agree(dictionary, held, logit_weights, other, cited)
    corpus = Corpus(held)
    latents = Latents(dictionary, corpus)
    picked = chosen(latents.hits, cited, count, rng)
    facts = Facts(dictionary, latents, corpus, logit_weights, other)
    drawn = {one.index: corpus.contexts(latents.column(one.index), rng) for one in picked.cards}
    for number, level in enumerate(LEVELS):
        if not export_contexts and (level.top or level.sampled):
            level = Level(0, 0, 0, level.lifts, level.promoted)
        written = dumps(_document(picked, facts, corpus, drawn, level, number))
        if len(written) <= cap:
            return written
    raise ValueError(f"{len(picked.cards)} cards of the least detail are {len(written)} bytes, over the cap of {cap}")


def _agree(
    dictionary: Dictionary,
    held: Held,
    logit_weights: Float[np.ndarray, "vocabulary d"] | None,
    other: Dictionary | None,
    cited: Mapping[int, str],
) -> None:
    widths = {"states": held.x.shape[1], "other": dictionary.width if other is None else other.width}
    widths["logit_weights"] = dictionary.width if logit_weights is None else logit_weights.shape[1]
    for name, width in widths.items():
        if width != dictionary.width:
            raise ValueError(f"{name} of width {width} for a dictionary of width {dictionary.width}")
    if not len(held.x):
        raise ValueError("no state is held: there is nothing to show")
    if not np.isfinite(held.x).all():
        raise ValueError("a state is not finite: look at the model's activations")
    outside = [index for index in cited if not 0 <= index < dictionary.latents]
    if outside:
        raise ValueError(f"cited latent {outside[0]} is outside 0..{dictionary.latents - 1}")


def _document(
    picked: Chosen, facts: Facts, corpus: Corpus, drawn: Mapping[int, Any], level: Level, number: int
) -> dict[str, Any]:
    rows: dict[int, int] = {}
    told = []
    for one in picked.cards:
        card = {"index": one.index, "from": one.source, "finding": one.finding, **_facts(facts, one.index, level)}
        if level.top or level.sampled:
            card |= {name: _placed(found, rows) for name, found in drawn[one.index].shown(level).items()}
        told.append(card)
    header = {
        "rows_sha256": corpus.sha256,
        "rows": corpus.passages,
        "groups": corpus.groups,
        "tokens": corpus.size,
        "dictionary": dict(facts.dictionary.sha256),
        "latents": facts.dictionary.latents,
        "live": int((facts.latents.hits > 0).sum()),
        "scale": decimal(corpus.scale, DIGITS),
        "level": number,
        "contexts": bool(level.top or level.sampled),
        "cited_left_out": picked.left_out,
        "beside": BESIDE,
        "kinds": {"dense_above": decimal(DENSE, DIGITS), "token_share": decimal(TOKEN_SHARE, DIGITS),
                  "token_lift": decimal(TOKEN_LIFT, DIGITS), "token_hits": TOKEN_HITS},
    }  # fmt: skip
    names = [_shown(corpus.row_ids[row]) for row in rows]
    return {"schema": SCHEMA, "header": header, "row_ids": names, "cards": told}


def _placed(contexts: list[list[Any]], rows: dict[int, int]) -> list[list[Any]]:
    """Return contexts whose row is its number in the file, in the order in which rows are first named."""
    return [[rows.setdefault(row, len(rows)), *rest] for row, *rest in contexts]


def _facts(facts: Facts, index: int, level: Level) -> dict[str, Any]:
    one = facts.of(index)
    told: dict[str, Any] = {
        "hits": one.hits,
        "rate": decimal(one.rate, DIGITS),
        "kind": one.kind,
        "mean": _number(one.mean),
        "max": _number(one.largest),
        "entropy": _number(one.entropy),
        "lift": [[token, decimal(lift, DIGITS), hits] for token, lift, hits in one.lifts[: level.lifts]],
        "nearest": _match(one.nearest),
        "enc_dec": decimal(one.enc_dec, DIGITS),
        "other_seed": _match(one.other_seed),
    }
    if one.raised is not None and one.lowered is not None:
        for name, found in (("raised", one.raised), ("lowered", one.lowered)):
            told[name] = [[token, decimal(logits, DIGITS)] for token, logits in found[: level.promoted]]
    return told


def _number(value: float | None) -> str | None:
    return None if value is None else decimal(value, DIGITS)


def _match(found: tuple[int, float] | None) -> list[Any] | None:
    return None if found is None else [found[0], decimal(found[1], DIGITS)]


def _shown(name: str) -> str:
    return name if NAME.fullmatch(name) else f"sha256:{hashed(name)[:16]}"
