"""The set `geography`: cities, their countries and continents; affirmative, or negated for the set `negation`.

Two cities exchange their objects: "Paris is in France" against "Paris is in Japan", and "Tokyo is in France" against
"Tokyo is in Japan". A cluster is such a couple of cities, not one city: only so does every object stand true and false
equally often within whatever the split leaves on one side (see `rows`). Each couple gives eight items: country or
continent, a question or a statement, one city or the other.
"""

from __future__ import annotations

from checks.truth_probe.sets.cities import COUPLES, City
from checks.truth_probe.sets.rows import IS_THAT_RIGHT, TRUE_OR_FALSE, Head, Row, answered, stated, verified

RELATIONS = ("country", "continent")
FORMS = (("ask", "verify"), ("is_in", "lies"))
"""Templates by form: questions, then statements."""


def geography(*, negated: bool = False) -> list[Row]:
    """Return 480 rows: 60 couples by two relations, two forms and two cities."""
    rows = []
    for number, couple in enumerate(COUPLES):
        for relation in range(2):
            for form in range(2):
                # Each bit turns at its own pace, so that template, relation, form and + object are balanced together.
                template = FORMS[form][(number + relation) % 2]
                first = (number // 2 + form) % 2
                rows += [_row(couple, relation, template, first, at, negated) for at in range(2)]
    return rows


def object_of(city: City, relation: int) -> str:
    """Return the country (0) or the continent (1) of a city."""
    return city.continent if relation else city.country


def cluster_of(couple: tuple[City, City]) -> str:
    """Return the name of a couple's cluster."""
    return f"{couple[0].slug}.{couple[1].slug}"


def _row(couple: tuple[City, City], relation: int, template: str, first: int, at: int, negated: bool) -> Row:
    """Return the row of one city; `first` says whose object the + text names."""
    city = couple[at]
    pos, neg = (object_of(couple[which], relation) for which in (first, 1 - first))
    ending = "-not" if negated else ""
    head = Head(
        item=f"{city.slug}-{RELATIONS[relation]}-{template}{ending}",
        cluster=cluster_of(couple),
        set="geography",
        template=template,
        label=(at == first) != negated,
        features={"continent": relation == 1, "pos_first_abc": pos < neg},
        negated=negated,
    )
    no = "not " if negated else ""
    if template == "ask":
        return answered(head, f"Fact: The city of {city.name} is {no}in", pos, neg)
    if template == "verify":
        return verified(head, f"{city.name} is {no}in {pos}")
    if template == "is_in":
        return stated(head, (f"{city.name} is {no}in {one}" for one in (pos, neg)), tail=TRUE_OR_FALSE)
    verb = "does not lie" if negated else "lies"
    return stated(head, (f"The city of {city.name} {verb} in {one}" for one in (pos, neg)), tail=IS_THAT_RIGHT)
