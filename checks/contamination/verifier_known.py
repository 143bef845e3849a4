"""Twenty fixed pairs with the verifier's word and tier (control KnownAnswer of contamination, section 10).

Written for this check. They hold the rules of section 6.6 one by one; a verifier that differs on any of them is not
the one whose rates were measured.
"""

from __future__ import annotations

from typing import NamedTuple

from checks.contamination.items import Item
from checks.contamination.verifier import Tier, Verdict, compare


class KnownPair(NamedTuple):
    """An item, a text, and what the verifier says of them at a cosine."""

    rule: str
    item: Item
    text: str
    cosine: int
    """round(10 000 cos), given and not computed: these pairs hold the rules, not the encoder."""
    verdict: Verdict
    tier: Tier | None


def _item(question: str, *choices: str) -> Item:
    return Item("known", "1", "choice" if choices else "prose", question, choices=choices)


_BAKER = _item("A baker fills 14 trays with 36 rolls each and sells 120 rolls before noon. How many rolls are left?")
_PUMP = _item("A pump moves 45 litres in 3 minutes. How many litres does it move in 2 hours?")
_SHARE = _item("Of 80 guests, 35 do not eat meat. How many guests do not get the roast of 12 kilograms?")
_SUM = _item("Tom owns 17 stamps and Eva owns 29 stamps. How many stamps do they own in total?")
_FACT = _item("Which river flows through the old town of Velmar Quay before it meets the Orsk Sea?")
_WHEN = _item("When was the lighthouse of Port Ilmen built by Dorte Vahl?")
_CHOICE = _item("Which gas do the lamps of the Velmar Quay lighthouse burn?", "argon", "coal gas", "neon", "acetylene")

KNOWN_PAIRS = (
    KnownPair("whole question", _BAKER, f"Exercise 3. {_BAKER.question} Show your work.", 9900, "same", "exact"),
    KnownPair("number words", _BAKER, "A baker fills fourteen trays with thirty-six rolls each and sells 120 rolls "
              "before noon. How many rolls are left?", 9900, "same", "exact"),
    KnownPair("near wording", _BAKER, "A baker fills 14 trays with 36 rolls each, then sells 120 rolls before noon. "
              "How many of the rolls are left?", 9800, "same", "near"),
    KnownPair("reworded", _BAKER, "By midday 120 buns are gone from a bakery that made 36 on every one of 14 sheets. "
              "What number of buns remains?", 6900, "same", "semantic"),
    KnownPair("reworded, below the floor", _BAKER, "By midday 120 buns are gone from a bakery that made 36 on every "
              "one of 14 sheets. What number of buns remains?", 4900, "same", None),
    KnownPair("one number changed", _BAKER, "A baker fills 14 trays with 36 rolls each and sells 150 rolls before "
              "noon. How many rolls are left?", 9900, "different", "template"),
    KnownPair("other numbers", _BAKER, "A baker fills 22 trays with 48 rolls each and sells 310 rolls before noon. "
              "How many rolls are left?", 9700, "different", "template"),
    KnownPair("two numbers exchanged", _BAKER, "A baker fills 36 trays with 14 rolls each and sells 120 rolls before "
              "noon. How many rolls are left?", 9900, "different", "template"),
    KnownPair("change of unit", _PUMP, "If 45 litres pass a pump in 180 seconds, what volume passes it within two "
              "hours?", 8400, "same", "semantic"),
    KnownPair("two of three numbers", _PUMP, "A pump moves 45 litres in 3 minutes. It is painted green and weighs "
              "nine hundred and one grams.", 7000, "different", "related"),
    KnownPair("three of four numbers", _item("Ida buys 6 pens, 11 rulers, 23 pads and 250 clips. What does she hold?"),
              "Into her bag Ida puts 250 clips, 23 pads and 11 rulers. What is in it?", 7500, "undecided", "related"),
    KnownPair("negation", _SHARE, "Of eighty guests there are 35 without a taste for meat. How many guests get a part "
              "of the 12 kilograms of roast?", 9000, "different", "template"),
    KnownPair("other operation", _SUM, "Eva has 29 stamps, Tom has 17. What is the difference between both counts?",
              8200, "different", "template"),
    KnownPair("fact asked", _FACT, "What river passes the old town of Velmar Quay and flows on to meet the Orsk Sea?",
              8500, "same", "semantic"),
    KnownPair("fact stated", _FACT, "The river Orn flows through the old town of Velmar Quay before it meets the Orsk "
              "Sea.", 9000, "different", "related"),
    KnownPair("other slot", _WHEN, "Who built the lighthouse of Port Ilmen, Dorte Vahl or her son?", 8600,
              "different", "template"),
    KnownPair("other subject", _WHEN, "When did the first steam ferry cross the bay?", 5500, "different", "related"),
    KnownPair("options there", _CHOICE, "Which gas is burnt by the lamps of the lighthouse at Velmar Quay? A) neon "
              "B) coal gas C) acetylene D) argon", 8800, "same", "semantic"),
    KnownPair("other options", _CHOICE, "Which gas is burnt by the lamps of the lighthouse at Velmar Quay? A) xenon "
              "B) propane C) butane D) argon", 8800, "undecided", "related"),
    KnownPair("stranger", _BAKER, "The committee met in spring and adopted the report without a vote.", 800,
              "different", None),
)  # fmt: skip
"""The pairs; names and facts in them are invented."""


def missed_pairs() -> tuple[str, ...]:
    """Return the rules on whose pair the verifier differs; none where it is the one that was measured."""
    missed = []
    for pair in KNOWN_PAIRS:
        found = compare(pair.item, pair.text, pair.cosine)
        if (found.verdict, found.tier) != (pair.verdict, pair.tier):
            missed.append(pair.rule)
    return tuple(missed)
