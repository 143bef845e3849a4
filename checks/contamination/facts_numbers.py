"""Whether an item with numbers asks for a fact rather than for a computation (contamination, 6.6).

"Who founded the glassworks of Hestrup in 1737?" holds a number and nothing to compute: judged by its numbers alone,
every text that names the place and the year would ask the same, and a text that only states the fact would count as
contamination.
"""

from __future__ import annotations

from collections.abc import Sequence

from checks.contamination.facts import WHEN, Slot, slot
from checks.contamination.siblings_values import Place, places

YEARS = range(1000, 2100)
"""Numbers of four digits that may be years; own choice: later ones are seldom dates, earlier ones have three digits."""

DATED = frozenset((
    "in", "since", "until", "till", "to", "from", "by", "of", "before", "after", "during", "around", "about", "circa",
    "and", "between", "year", "spring", "summer", "autumn", "fall", "winter", "early", "late",
))  # fmt: skip
"""Words right before a year. Own list."""

MONTHS = frozenset((
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
))  # fmt: skip

DAYS = range(1, 32)
"""Days of a month."""

SPANS = frozenset(
    ("long", "old", "older", "younger", "age", "years", "decades", "centuries", "months", "weeks", "days")
)
"""What two dates are subtracted for: "how many years". Own list."""

QUANTITIES = frozenset((
    "total", "sum", "difference", "product", "quotient", "remainder", "average", "mean", "median", "ratio", "fraction",
    "percent", "percentage", "proportion", "probability", "amount", "cost", "price", "value", "profit", "revenue",
    "area", "perimeter", "volume", "distance", "length", "width", "height", "weight", "mass", "speed", "rate", "time",
    "age", "score", "change", "result", "minimum", "maximum", "least", "greatest", "combined", "overall", "remaining",
))  # fmt: skip
"""Head nouns that ask for a quantity: "what is the total". Own list; "number" and "count" are slots of their own."""


def asks_fact(question: str, numbers: int, asked: Sequence[str], sentences: int) -> bool:
    """Return whether a question with numbers is judged as a fact.

    It is where its numbers are dates and it asks for no span of time; where it asks who, where, why or which thing,
    and its numbers are labels, or one besides dates, and when, and it has one; and where it is one sentence with one
    number besides dates, unless it asks for a sum or the like. "How old was he in 2010, born in 1980?" is a quantity.

    Args:
        question: as written.
        numbers: distinct numbers other than 0 and 1 that the normaliser reads in it.
        asked: canonical words of the sentence that asks.
        sentences: how many it has.
    """
    if not numbers:
        return True
    wanted = slot(asked)
    found = [place for place in places(question) if place.value.kind == "number" and place.value.told]
    dates = {place.value.amount for place in found if dated(question, place)}
    labels = dates | {place.value.amount for place in found if named(question, place)}
    # Numbers may be fewer places than this: "half" and "twice" are none, and nothing is dated by them.
    others = numbers - len(dates)
    if others == 0 and SPANS.isdisjoint(asked):
        return True
    if wanted is None or not _names(wanted):
        return others == sentences == 1 and SPANS.isdisjoint(asked) and wanted is not None and wanted[0] != "what"
    # A year is computed from a date and one number; a person or a place is not.
    return numbers == 1 or (wanted != WHEN and (len(labels) == numbers or others == 1))


def _names(wanted: Slot) -> bool:
    word, head = wanted
    if word in ("how", "how many"):
        return False
    return word != "what" or bool(head and not head[0].isdigit() and head not in QUANTITIES)


def dated(question: str, place: Place) -> bool:
    """Return whether a number is a year ("in 1737") or the day of a month ("3 May", "May 3")."""
    before, after = _beside(question, place)
    if not place.surface.isdigit():
        return False
    if int(place.surface) in DAYS and MONTHS & {before, after}:
        return True
    return len(place.surface) == len("1737") and int(place.surface) in YEARS and before in DATED | MONTHS


def named(question: str, place: Place) -> bool:
    """Return whether a number belongs to a name: "Apollo 11", "Route 66"."""
    head = question[: place.begin]
    word = head.rsplit(maxsplit=1)[-1] if head[-1:] == " " else ""
    return word[:1].isupper() and word.isalnum()


def _beside(question: str, place: Place) -> tuple[str, str]:
    """Return the words right before and after a number, folded; nothing where other signs but commas stand between."""
    before, after = question[: place.begin].rstrip(" ,("), question[place.end :].lstrip(" ,")
    last = next((at for at in range(len(before), 0, -1) if not before[at - 1].isalpha()), 0)
    first = next((at for at, letter in enumerate(after) if not letter.isalpha()), len(after))
    return before[last:].lower(), after[:first].lower()
