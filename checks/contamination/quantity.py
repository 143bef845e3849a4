"""Whether a region asks for the same quantity: its numbers, negations and what is asked for (contamination, 6.6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache

FACTORS = (60, 3600, 24, 7, 12, 100, 1000)
"""A number equals one that is so many times larger or smaller: seconds, minutes and hours; hours and days; days and
weeks; months or dozens; percent, cents or centimetres; metres or grams (section 6.6)."""

UNTOLD = (Fraction(0), Fraction(1))
"""Numbers that say nothing: "a", "one" and "no" stand everywhere (section 6.6)."""

UNDECIDED_SHARE = 0.75
"""Share of the item's numbers from which a region is `undecided`; with all of them it is `same` (section 6.6). Of 660
real rewrites .950 hold all numbers and .973 three quarters (section 6.2)."""

NEGATORS = frozenset(("not", "no", "never", "except", "false", "cannot"))
"""Words that turn a question round; other words count as equal (section 6.6). "n't" is "not" to the normaliser."""

OPERATIONS = {
    "total": ("total", "altogether", "in all", "combined", "sum", "overall"),
    "remaining": ("left", "remain", "remains", "remaining", "leftover", "how many more", "how much more", "additional",
                  "still"),
    "difference": ("difference", "discrepancy", "how many more", "how much more", "how many fewer", "how much less",
                   "how many less", "additional"),
    "each": ("each", "apiece", "average", "per person"),
}  # fmt: skip
MEASURES = {
    "ratio": ("ratio", "what fraction", "what percent", "what percentage", "what portion", "how many times as"),
    "area": ("area", "volume", "perimeter", "square feet", "square meters", "square metres"),
    "time": ("how long", "what time", "how many hours", "how many minutes", "how many days", "how many weeks",
             "how many months", "how many years", "how old", "duration"),
    "rate": ("per hour", "per minute", "how fast", "speed"),
}  # fmt: skip
"""Classes of what is asked for, by phrases (section 6.6). Own lists. "The total time" is a sum by its operation and a
time by its measure, so a class differs only from others of its own list. "How many more are needed" and "how many are
left" are one subtraction."""

CACHED = 4096
"""Question sentences whose classes are kept: a region meets many probes, one after another."""

QUESTION_WORDS = frozenset(("how", "what", "which"))

_PHRASES = tuple(
    (kind, tuple(phrase.split())) for table in (OPERATIONS, MEASURES) for kind, told in table.items() for phrase in told
)


def equal_numbers(number: Fraction) -> frozenset[str]:
    """Return the canonical texts of every number that counts as equal to one."""
    values = {number, *(number * factor for factor in FACTORS), *(number / factor for factor in FACTORS)}
    return frozenset(str(value) for value in values)


def told_numbers(numbers: Iterable[Fraction]) -> tuple[Fraction, ...]:
    """Return the distinct numbers other than 0 and 1, in order of first use."""
    return tuple(number for number in dict.fromkeys(numbers) if number not in UNTOLD)


def count_found(accepted: Sequence[frozenset[str]], numbers: frozenset[str]) -> int:
    """Return how many of an item's numbers occur in a region, each as a number of its own; f is their share.

    One number of the region stands for one of the item: else "half of 20" would hold all of "half of 30", as 30 is
    60 halves. Below `UNDECIDED_SHARE` the count is an upper bound, as it no longer matters there.

    Args:
        accepted: for each number of the item what counts as equal to it.
        numbers: canonical texts of the region's numbers.
    """
    most = len(accepted) - sum(map(numbers.isdisjoint, accepted))
    if most < UNDECIDED_SHARE * len(accepted):
        return most
    return _matched([numbers & one for one in accepted])


def _matched(there: Sequence[frozenset[str]]) -> int:
    """Return the size of a largest matching, by augmenting paths (Kuhn 1955)."""
    holder: dict[str, int] = {}

    def placed(at: int, tried: set[str]) -> bool:
        for number in sorted(there[at] - tried):
            tried.add(number)
            if number not in holder or placed(holder[number], tried):
                holder[number] = at
                return True
        return False

    return sum(placed(at, set()) for at in range(len(there)))


def negations(words: Sequence[str]) -> int:
    """Return the parity of the negators among the words of a sentence; "true / false" negates nothing."""
    kept = [at for at, word in enumerate(words) if word in NEGATORS]
    return sum(not (words[at] == "false" and "true" in words[max(at - 2, 0) : at]) for at in kept) % 2


@lru_cache(maxsize=CACHED)
def asked_classes(words: tuple[str, ...]) -> frozenset[str]:
    """Return the classes of what a sentence asks for; none where no phrase tells.

    Read from the last question word on: "if each pail holds 5 litres, how much ..." does not ask for each.
    """
    last = max((at for at, word in enumerate(words) if word in QUESTION_WORDS), default=0)
    clause = words[last:]
    return frozenset(kind for kind, phrase in _PHRASES if holds(clause, phrase))


def classes_differ(left: frozenset[str], right: frozenset[str]) -> bool:
    """Return whether two sentences ask for different operations, or for different measures, both known."""
    for table in (OPERATIONS, MEASURES):
        a, b = left & table.keys(), right & table.keys()
        if a and b and a.isdisjoint(b):
            return True
    return False


def holds(words: Sequence[str], phrase: Sequence[str]) -> bool:
    """Return whether a phrase stands contiguously among words; an empty one does not."""
    if not phrase or phrase[0] not in words:
        return False
    wanted = tuple(phrase)
    return any(tuple(words[at : at + len(wanted)]) == wanted for at in range(len(words) - len(wanted) + 1))
