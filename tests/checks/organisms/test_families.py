"""Authored families: their truth is computed, their split is by name alone, and no tuning reads the test families."""

import ast
import hashlib
from pathlib import Path

import numpy as np
import pytest

from checks.contamination.code_behaviour import behaviour, reference
from checks.contamination.numbers import numbers
from checks.contamination.rewriter import in_words
from checks.organisms import families
from checks.organisms.families import Drawn, draws, evaluated, filled, is_dev
from checks.organisms.families_reading import Family, Version

ROOT = Path(__file__).resolve().parents[3]

MAY_READ_TEST = (
    "benchmarks/contamination_families.py",
    "benchmarks/contamination_power.py",
    "benchmarks/contamination_power_parts.py",
    "benchmarks/contamination_quality.py",
    "benchmarks/contamination_service.py",
    "benchmarks/contamination_speed_texts.py",
    "checks/contamination/authored.py",
    "checks/contamination/check.py",
)
"""What measures, and sets nothing; controls and plans read `authored` or their built-in asset."""

ALL = (*families.dev(), *families.test())
PROSE = [family for family in ALL if family.kind != "code"]
CODE = [family for family in ALL if family.kind == "code"]


def few(family: Family, count: int = 2) -> tuple[Drawn, ...]:
    return draws(family, np.random.default_rng(5), count)


def family(**changed: object) -> Family:
    held = {
        "name": "f",
        "kind": "words",
        "values": {"a": (2, 9, 1), "b": (2, 9, 1)},
        "picks": {},
        "pools": {},
        "when": (),
        "derived": {},
        "original": Version("original", "{a} and {b}?", "a + b"),
        "rewordings": (Version("reworded", "{b#}, {a}?"),),
        "negatives": (),
        "statement": None,
        "probes": (),
    }
    return Family(**{**held, **changed})  # type: ignore[arg-type]


def test_a_family_without_fitting_values_is_named() -> None:
    with pytest.raises(ValueError, match="f: no values fit"):
        draws(family(when=("a > 20",)), np.random.default_rng(0), 1)
    with pytest.raises(ValueError, match="f: no values fit"):
        draws(family(values={"a": (2, 3, 1), "b": (2, 3, 1)}), np.random.default_rng(0), 3)


def test_a_negative_with_the_items_answer_is_never_drawn() -> None:
    # a + b == a * b for 2 and 2 alone, and a negative that says the same in other words has no draw at all.
    same = family(negatives=(Version("operator", "{b} and {a}?", "b + a"),))
    with pytest.raises(ValueError, match="no values fit"):
        draws(same, np.random.default_rng(0), 1)


@pytest.mark.parametrize("expression", ["a / 0", "__import__('os')", "open('x')", "a.__class__", "(lambda: z)()"])
def test_expressions_are_interpreted_and_never_executed(expression: str) -> None:
    with pytest.raises(ValueError, match="an expression of a family came to"):
        evaluated(expression, {"a": 3})


def test_places_are_filled_in_digits_and_words_and_code_keeps_its_braces() -> None:
    assert filled("{a} or {a#} of {q}", {"a": 21, "q": "Velden"}) == "21 or twenty-one of Velden"
    assert filled("{a#} left", {"a": 21}) == "Twenty-one left"
    assert filled("out = {n: t for n in {K}}", {"K": 4}) == "out = {n: t for n in 4}"
    assert filled("{a#}", {"a": 1200}) == "1200"


def test_there_are_as_many_families_as_the_specification_asks_for() -> None:
    counts = {kind: sum(one.kind == kind for one in ALL) for kind in ("words", "facts", "code")}
    assert counts == {"words": 40, "facts": 16, "code": 24}
    assert all(len(one.rewordings) >= 3 for one in ALL)
    assert all(one.negatives for one in ALL)
    kinds = {version.how for one in ALL for drawn in few(one, 1) for version in drawn.negatives}
    assert {"number", "template", "reworded_numbers", "operator", "negation", "entity", "relation", "behaviour"} < kinds


def test_families_are_split_by_their_names_alone() -> None:
    assert not {one.name for one in families.dev()} & {one.name for one in families.test()}
    for one in ALL:
        share = int(hashlib.sha256(one.name.encode()).hexdigest()[:16], 16) / 2**64
        assert is_dev(one.name) is (share < 0.6)
    assert 0.45 < len(families.dev()) / len(ALL) < 0.75


def test_no_tuning_code_reads_test_families() -> None:
    readers = []
    for folder in ("checks", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            name = str(path.relative_to(ROOT))
            if "families" in text and not name.startswith("checks/organisms/families") and reads_test(ast.parse(text)):
                readers.append(name)
    assert set(readers) <= set(MAY_READ_TEST)


def reads_test(tree: ast.Module) -> bool:
    """Whether a module reaches the test families: by import, by attribute, or by the files themselves."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("checks.organisms.families"):
            if any(one.name in ("test", "read_all", "FOLDER", "*") for one in node.names):
                return True
        elif isinstance(node, ast.Attribute) and node.attr in ("test", "read_all"):
            if isinstance(node.value, ast.Name) and node.value.id.startswith("families"):
                return True
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "organisms/families/" in node.value:
            return True
    return False


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("from checks.organisms.families import dev, test", True),
        ("from checks.organisms import families\nfamilies.test()", True),
        ("from checks.organisms import families\nfamilies.dev()", False),
        ("open('checks/organisms/families/words_1.json')", True),
    ],
)
def test_reading_test_families_is_seen(text: str, reads: bool) -> None:
    assert reads_test(ast.parse(text)) is reads


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_draws_follow_the_generator_and_leave_no_place_open(one: Family) -> None:
    first, again = few(one), few(one)
    assert first == again
    assert len({drawn.item.question + str(drawn.item.reference) for drawn in first}) == len(first)
    for drawn in first:
        versions = [drawn.item.question, *(version.text for version in (*drawn.rewordings, *drawn.negatives))]
        assert not [text for text in versions if "{" in text or "}" in text]
        assert len(set(versions)) == len(versions) or one.kind == "code"


@pytest.mark.parametrize("one", [one for one in PROSE if one.kind == "words"], ids=lambda one: one.name)
def test_every_negative_has_another_answer_than_its_item(one: Family) -> None:
    for drawn in few(one, 3):
        assert int(str(drawn.item.answer)) > 0
        for version in drawn.negatives:
            if version.program is not None:
                assert evaluated(version.program, drawn.values) != int(str(drawn.item.answer))
        held = {version.how: set(numbers(version.text)) for version in drawn.negatives}
        own = set(numbers(drawn.item.question))
        assert not own <= held["number"]
        assert not own <= held["template"]
        assert not own <= held["reworded_numbers"]
        assert set(numbers(str(drawn.light))) >= own


def test_answers_equal_those_of_python() -> None:
    # Expressions of families are this project's own files, so that here they may be run.
    for one in PROSE:
        for drawn in few(one):
            assert str(eval(str(one.original.program), {}, dict(drawn.values))) == drawn.item.answer


def test_light_versions_keep_the_words_and_change_names_and_numbers() -> None:
    drawn = few(next(one for one in ALL if one.name == "bus-stops"), 1)[0]
    place, number = str(drawn.values["q"]), int(drawn.values["a"])
    assert place in drawn.item.question
    assert place not in str(drawn.light)
    assert in_words(number) in str(drawn.light)


def check_behaviour(one: Family, count: int) -> None:
    for drawn in few(one, count):
        expected = reference(drawn.item)
        assert not isinstance(expected, str), (one.name, expected)
        for version in drawn.rewordings:
            assert behaviour(expected, str(version.program), str(version.entry)).verdict == "same", version.entry
        for version in drawn.negatives:
            assert behaviour(expected, str(version.program), str(version.entry)).verdict == "different", version.how


@pytest.mark.parametrize("one", CODE, ids=lambda one: one.name)
def test_rewritten_functions_behave_alike_and_negatives_do_not(one: Family) -> None:
    check_behaviour(one, 1)


@pytest.mark.slow
@pytest.mark.parametrize("one", CODE, ids=lambda one: one.name)
def test_functions_of_every_draw_behave_as_they_should(one: Family) -> None:
    check_behaviour(one, 8)


@pytest.mark.parametrize("one", CODE, ids=lambda one: one.name)
def test_interpreter_agrees_with_python_on_authored_functions(one: Family) -> None:
    for drawn in few(one, 1):
        expected = reference(drawn.item)
        assert not isinstance(expected, str)
        sources = [(str(drawn.item.reference), str(drawn.item.entry))]
        sources += [(str(version.program), str(version.entry)) for version in drawn.rewordings]
        for source, entry in sources:
            held: dict[str, object] = {}
            exec(source, held)  # this project's own functions
            function = held[entry]
            assert callable(function)
            for probe, output in zip(drawn.item.probes, expected.outputs, strict=True):
                assert function(*probe) == output


def test_planted_items_are_of_the_test_families() -> None:
    held = families.authored(np.random.default_rng(0))
    assert len(held) == families.PLANTED
    names = {one.name for one in families.test()}
    for item, text in held:
        assert item.template in names
        assert text != item.question
