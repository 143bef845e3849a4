"""The set `negation`: every item of `geography` and `comparison` once more, with its statement negated.

A negated row keeps the cluster, the template and **the `set` of the item it negates**, so that it stands beside the
affirmative rows of its own set: it is centred by their train means of the same branch and template, and it is test
exactly where they are. Its `polarity` is "negated", its `item` ends in "-not", and its label is the opposite. Load
the affirmative rows of a set and the rows of this one whose `set` is its name to fit on the one and test on the other.
"""

from __future__ import annotations

from checks.truth_probe.sets.comparison import comparison
from checks.truth_probe.sets.geography import geography
from checks.truth_probe.sets.rows import Row


def negation() -> list[Row]:
    """Return 1080 rows: 480 of geography, then 600 of comparison."""
    return [*geography(negated=True), *comparison(negated=True)]
