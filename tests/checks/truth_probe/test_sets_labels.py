"""Built-in sets: labels against what the texts say, read by rules of their own, and each set's own design."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from checks.truth_probe.sets import load
from checks.truth_probe.sets.cities import COUPLES

Row = dict[str, Any]
Tokens = Callable[[str], list[str]]

CITIES = {city.name: city for couple in COUPLES for city in couple}

each_set = pytest.mark.parametrize("name", load.BUILT_IN)


def read_claims(row: Row) -> list[str]:
    """Return the claims of the + and the - text, without question, answer or full stop."""
    if row["form"] == "statement":
        return [row[key][: at - 1] for key, at in zip(("pos", "neg"), row["read_at"], strict=True)]
    prompt = row["prompt"]
    for pattern in (r"Question: Is it right to say that (.*)\? Answer:", r"Claim: (.*)\. The claim is"):
        if found := re.search(pattern, prompt):
            return [prompt[: found.start()] + found[1], "no " + prompt[: found.start()] + found[1]]
    return [prompt + row["answer_pos"], prompt + row["answer_neg"]]


def is_true(name: str, claim: str) -> bool:
    if claim.startswith("no "):
        return not is_true(name, claim[3:])
    return {
        "world": world_says,
        "geography": map_says,
        "arithmetic": sum_says,
        "comparison": order_says,
        "conjunction": joined_says,
    }[name](claim)


def world_says(claim: str) -> bool:
    *facts, last = re.sub(r"Story: |Statement: |As told above, |It follows that ", "", claim).split(". ")
    assert len(facts) == 3
    return last in facts


def map_says(claim: str) -> bool:
    claim = claim.removeprefix("Fact: ").removeprefix("The city of ").removeprefix("the city of ")
    found = re.fullmatch(r"(.*?) (is in|is not in|lies in|does not lie in) (.*)", claim)
    assert found is not None, claim
    city, negated = CITIES[found[1]], "not" in found[2]
    return (found[3] in (city.country, city.continent)) != negated


def sum_says(claim: str) -> bool:
    claim = claim.removeprefix("Question: What is ").replace("? Answer:", " =")
    found = re.fullmatch(r"(\d+) (\+|-|\*|plus|minus|times) (\d+) (?:=|is|equals) (\d+)", claim)
    assert found is not None, claim
    a, b, c = int(found[1]), int(found[3]), int(found[4])
    assert max(a, b) <= 99
    return {"+": a + b, "-": a - b, "*": a * b, "plus": a + b, "minus": a - b, "times": a * b}[found[2]] == c


def order_says(claim: str) -> bool:
    asked = re.fullmatch(r"Of the numbers (\d+) and (\d+), the one that (is .*) is (\d+)", claim)
    if asked is not None:
        other = asked[2] if asked[1] == asked[4] else asked[1]
        claim = f"{asked[4]} {asked[3]} than {other}"
    found = re.fullmatch(r"(\d+) is (not )?(larger|greater|smaller|less) than (\d+)", claim)
    assert found is not None, claim
    more = found[3] in ("larger", "greater")
    return ((int(found[1]) > int(found[4])) == more) == (found[2] is None)


def joined_says(claim: str) -> bool:
    found = re.fullmatch(r"(.*) (and|or) (.*)", claim)
    assert found is not None, claim
    return (all if found[2] == "and" else any)(map_says(half) for half in (found[1], found[3]))


@each_set
def test_exactly_the_labelled_text_is_true(name: str) -> None:
    for row in load.rows(name):
        rule = row["set"]
        assert [is_true(rule, claim) for claim in read_claims(row)] == [row["label"] == 1, row["label"] == 0], row["id"]


def test_cities_are_where_the_table_says() -> None:
    assert len(CITIES) == 120
    assert all(a.country != b.country and a.continent != b.continent for a, b in COUPLES)
    continents = defaultdict(set)
    for city in CITIES.values():
        continents[city.country].add(city.continent)
    assert all(len(found) == 1 for found in continents.values())
    assert {found for one in continents.values() for found in one} == {
        "Africa", "Asia", "Europe", "North America", "South America", "Oceania",
    }  # fmt: skip
    known = {
        "Paris": "France", "Jakarta": "Indonesia", "Guayaquil": "Ecuador", "Kumasi": "Ghana", "Suva": "Fiji",
        "Ibadan": "Nigeria", "Basra": "Iraq", "Turin": "Italy", "Tegucigalpa": "Honduras", "Kigali": "Rwanda",
        "Maracaibo": "Venezuela", "Calgary": "Canada", "Busan": "South Korea", "Recife": "Brazil",
    }  # fmt: skip
    assert {name: CITIES[name].country for name in known} == known


@pytest.mark.parametrize("name", ["geography", "negation", "world", "arithmetic", "conjunction"])
def test_no_object_is_true_more_often_than_false_in_any_cluster(name: str) -> None:
    # Over the whole set would not do: what train has too much of, test has too little of.
    true: Counter[tuple[str, str, str]] = Counter()
    for row in load.rows(name):
        if row["form"] == "answer" and row["answer_pos"] not in (" yes", " true"):
            for sign, key in ((1, "answer_pos"), (-1, "answer_neg")):
                true[row["cluster"], row["template"], row[key]] += sign * (2 * row["label"] - 1)
    assert not any(true.values())
    assert len(true) >= 60 or name == "conjunction"


def test_false_objects_are_a_derangement() -> None:
    partner = {a.name: b.name for couple in COUPLES for a, b in (couple, couple[::-1])}
    assert sorted(partner) == sorted(partner.values()) == sorted(CITIES)
    assert all(city != other for city, other in partner.items())
    shown: Counter[tuple[str, bool]] = Counter()
    for row in load.rows("geography"):
        if row["template"] == "ask":
            shown[row["answer_pos"], row["label"] == 1] += 1
            shown[row["answer_neg"], row["label"] == 0] += 1
    assert all(shown[thing, True] == shown[thing, False] for thing, _ in shown)


def test_false_results_are_off_by_one_two_and_ten_alike() -> None:
    off: Counter[tuple[str, int]] = Counter()
    operations: Counter[str] = Counter()
    pairs: dict[tuple[str, frozenset[int]], set[str]] = defaultdict(set)
    for row in load.rows("arithmetic"):
        a, operation, b = row["item"].split("-")[:3]
        pairs[operation, frozenset((int(a), int(b)))].add(row["cluster"])
        operations[operation] += 1
        if row["template"] != "verify":
            results = [int(claim.split()[-1]) for claim in read_claims(row)]
            off[operation, (results[1] - results[0]) * (2 * row["label"] - 1)] += 1
    assert all(len(clusters) == 1 for clusters in pairs.values())
    assert {step for _, step in off} == {-10, -2, -1, 1, 2, 10}
    assert max(operations.values()) - min(operations.values()) <= 4
    for step in (1, 2, 10):
        assert sum(n for (_, by), n in off.items() if by == step) == sum(n for (_, by), n in off.items() if by == -step)
    assert min(off.values()) >= 28


def test_world_uses_its_whole_vocabulary_alike() -> None:
    stories = {row["cluster"]: row["prompt"] for row in load.rows("world") if row["template"] in ("ask", "verify")}
    facts = [fact.split() for text in stories.values() for fact in text.split(". ")[:3]]
    names = Counter(fact[0] for fact in facts)
    values = {(fact[1], fact[-1]) for fact in facts}
    assert (len(names), len({fact[1] for fact in facts}), len(values)) == (64, 6, 48)
    assert max(names.values()) - min(names.values()) <= 2


def test_negated_rows_stand_beside_the_rows_they_negate() -> None:
    affirmative = {(row["set"], row["item"]): row for name in ("geography", "comparison") for row in load.rows(name)}
    negated = load.rows("negation")
    assert Counter(row["set"] for row in negated) == {"geography": 480, "comparison": 600}
    for row in negated:
        assert row["polarity"] == "negated"
        assert row["item"].endswith("-not")
        base = affirmative.pop((row["set"], row["item"].removesuffix("-not")))
        same = ("cluster", "template", "form", "features")
        assert [row[key] for key in same] == [base[key] for key in same]
        assert row["label"] == 1 - base["label"]
    assert not affirmative


def test_a_couple_of_cities_is_in_one_conjunction_cluster_only() -> None:
    geography = {row["cluster"] for row in load.rows("geography")}
    owner: dict[str, str] = {}
    strata: Counter[tuple[int, int, int]] = Counter()
    for row in load.rows("conjunction"):
        parts = load.parts(row["cluster"])
        assert len(parts) == 2
        assert set(parts) <= geography
        assert all(owner.setdefault(part, row["cluster"]) == row["cluster"] for part in parts)
        named = {name for name in CITIES if re.search(rf"\b{name}\b", read_claims(row)[0])}
        slugs = [{city.slug for city in map(CITIES.__getitem__, named)} & set(part.split(".")) for part in parts]
        assert [len(found) for found in slugs] == [1, 1]
        features = row["features"]
        strata[features["or"], features["first_differs"], features["second_differs"]] += 1
    assert load.parts("paris.tokyo") == ("paris.tokyo",)
    assert len(strata) == 6
    assert all(60 <= count <= 72 for count in strata.values())
