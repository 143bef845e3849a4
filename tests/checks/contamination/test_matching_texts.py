"""Windows, encoder, matching and verifier together, on a text."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest

from checks.contamination.encoder import PACKAGE, Encoder
from checks.contamination.items import Item
from checks.contamination.matching import Exact, Match, candidates
from checks.contamination.normaliser import Normalised, normalise
from checks.contamination.regions import region
from checks.contamination.siblings import siblings
from checks.contamination.verifier import Comparison, compare
from checks.contamination.windows import Window, bin_of, windows

QUESTIONS = (
    "A baker fills 14 trays with 36 rolls each and sells 120 rolls before noon. How many rolls are left?",
    "Mia reads 23 pages on Monday and 47 pages on Tuesday of a book of 310 pages. How many pages remain?",
    "A tank of 640 litres loses 15 litres an hour. How many litres does it hold after 18 hours?",
    "A school orders 32 boxes with 24 pencils each and gives away 510 pencils. How many pencils are left?",
)
REWRITE = (
    "Each of the fourteen trays that a baker has ready takes 36 rolls. By noon 120 of these rolls have been sold. "
    "What number of rolls does the baker still have?"
)
FILLER = (
    "The harbour office keeps a list of every boat that came in during the winter. Nobody has read it for years. "
    "In spring the ice goes out of the bay, and the ferries start again with the old timetable. "
)


def installed() -> bool:
    try:
        metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True


pytestmark = pytest.mark.skipif(not installed(), reason=f"{PACKAGE} is not installed")
ITEMS = [Item("b", str(number), "prose", text) for number, text in enumerate(QUESTIONS)]
PROBES = [*ITEMS, *(made.probe for made in siblings(ITEMS, 5, np.random.default_rng(0)))]


Found = tuple[Normalised, tuple[Window, ...], tuple[Match, ...], int]


def found(encoder: Encoder, text: str) -> Found:
    read = normalise(text)
    size = bin_of(len(normalise(QUESTIONS[0]).tokens))
    made = windows(read, size)
    texts, probes = [one.text for one in made], [normalise(one.question).window_text for one in PROBES]
    pairs = candidates(encoder.embed(texts), encoder.embed(probes))
    return read, made, Exact(encoder).matches(pairs, texts, probes), size


def judged(read: Normalised, made: tuple[Window, ...], matches: tuple[Match, ...], size: int) -> dict[str, Comparison]:
    best: dict[str, Comparison] = {}
    for match in matches:
        window, probe = made[match.window], PROBES[match.probe]
        told = compare(probe, region(read, window.begin, window.end, size), match.cosine)
        if probe.item not in best or told.score > best[probe.item].score:
            best[probe.item] = told
    return best


def test_a_reworded_item_inside_a_document_is_found_and_its_siblings_are_not() -> None:
    exact = Encoder()
    text = f"{FILLER}\n\n{REWRITE}\n\n{FILLER}"
    seen = found(exact, text)
    best = judged(*seen)
    assert best["0"].tier == "semantic"
    assert [name for name, told in best.items() if told.tier in ("exact", "near", "semantic")] == ["0"]
    assert {"0.s1", "0.s2"} <= set(best)  # they lie above the floor and fall to their numbers
    assert found(Encoder(coarse="bf16"), text)[2] == seen[2]
    assert judged(*found(exact, FILLER)) == {}
