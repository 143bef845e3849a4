"""The reader's schema, a table, and the signer's, of pydantic, say the same: two ways to one answer never part."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from assay import decimals, forged_parts, result, shape
from assay.errors import Malformed
from assay.predicate import Predicate
from assay.shape import Absent, Each, Maybe, Null, Ruled, Some
from assay.testing import Forge
from assay.verify.schema import PREDICATE
from pydantic import ValidationError

HEX = "0" * 64
PLOT = {
    "title": "t",
    "kind": "line",
    "x": {"label": "layer", "unit": "1"},
    "y": {"label": "accuracy", "unit": "fraction"},
    "series": [{"name": "s", "x": ["0", "1"], "y": ["0.5", "1"], "low": ["0", "0"], "high": None}],
    "marks": [{"axis": "y", "at": "0.5", "label": "chance"}],
}
POWER = {"metric": "accuracy", "effect": "e", "value": "0.9", "low": "0.8", "high": "1", "n_planted": 9, "fpr": "0"}
NULL = {"kind": "shuffled", "mean": "0.5", "sd": "0.01", "n": 100, "p95": "0.52"}
FACTS = {
    **dict.fromkeys(("architecture", "dtype", "torch"), "gpt2"),
    **dict.fromkeys(("layers", "width", "parameters", "texts", "tokens", "batch_size", "threads"), 2),
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A predicate in which every field holds something."""
    forge = Forge(tmp_path_factory.mktemp("forge"))
    told: dict[str, Any] = forge.statement(forge.report())["predicate"]
    [answer] = told["answers"]
    answer["measured"]["plots"] = [PLOT]
    answer["measured"]["skipped"] = answer["skipped"] = [{"item": "layer:2", "reason": "non_finite"}]
    answer["measured"]["metrics"][0].update(null=NULL, p="0.04", tolerance={"abs": "0", "rel": "0.1"}, items_sha256=HEX)
    answer["measured"]["metrics"].append({**answer["measured"]["metrics"][1], "interval": None})
    answer["power"], answer["step"] = [POWER], None
    answer["findings"][0]["fingerprint"] = "0" * 32
    answer["artefacts"] = [{"name": "items", "media_type": "application/json", "sha256": HEX, "size": 3}]
    output = {"bytes": 1, "cap": 2}
    decided = {"path": "a", "decision": "dropped", "reason": "no_loader", "at": {"line": 3, "why": "x"}}
    told["model"]["ingest"]["decisions"].append(decided)
    told["attempts"][0]["cells"] = [forged_parts.cell()]
    entry = {"id": "a", "outcome": "pass", "reason": "r", "selected": 1}
    told.update(
        base={**copy.deepcopy(told["model"]), "lifetime_output": output},
        parties={"auditor": "a", "owner": "b", "approvals": [{"name": "x", "key_id": HEX, "envelope_sha256": HEX}]},
        access={"derived": ["weights"], "granted": ["weights"], "grant": HEX},
        facts=FACTS,
        policy={"sha256": HEX, "name": "release"},
        verdict={
            "outcome": "pass",
            "assertions": [
                {**entry, "deciding": {"labels": {"layer": "1"}, "detail": "d"}},
                {**entry, "deciding": None},
            ],
            "counts": {"pass": 1},
        },
    )
    told["sandbox"]["lifetime_output"] = output
    return told


def signers(value: Any) -> bool | None:
    """Tell whether the signer's schema takes a predicate; None where the two are not to be compared."""
    try:
        Predicate.model_validate_json(json.dumps(value))
    except ValidationError as error:
        # Readers ignore unknown fields; pydantic's arithmetic gives up where whole numbers go on.
        return None if "extra_forbidden" in {one["type"] for one in error.errors()} else False
    except ArithmeticError:
        return None
    return True


def readers(value: Any) -> bool:
    try:
        shape.check(value, PREDICATE)
    except Malformed:
        return False
    return True


def test_an_honest_predicate_obeys_both(full: dict[str, Any]) -> None:
    Predicate.model_validate_json(json.dumps(full))
    shape.check(full, PREDICATE)


HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 13, 2**53 - 1, "", "0", "1", "-0", "0.0", "0.10", "1.5", "-1", "0.79", "1.01"),
    *("1e3", "01", "+1", ".5", "1.", "0.001", "0.0001", "1000000", "0.0000000000001", "9" * 16, "1" * 15, "\u0661"),
    *(
        "measured",
        "refused",
        "failed",
        "none",
        "exact",
        "line",
        "heatmap",
        "higher",
        "weights",
        "pass",
        "waived",
        "note",
    ),
    *(
        "a b",
        "a\n",
        "a" * 128,
        "a" * 129,
        " " * 513,
        "\u202e",
        "\u00e9",
        "../x",
        "a/b",
        ".a",
        HEX,
        "A" * 64,
        HEX + "\n",
    ),
    *("2026-01-02T03:04:05Z", "2026-02-30T00:00:00Z", "audits/" + "0" * 32, "1.0", "1.9", "2.0", "1.0\n", "fixed"),
    *([], ["0"], ["0", "1", "2"], [None], [""], ["0"] * 2001, {}, {"a": "b"}, {"": ""}, {"a": 1}, {"a": None}),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from places(child, (*path, key))


def altered(full: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return a predicate with one or two places replaced, left out or repeated."""
    value = copy.deepcopy(full)
    for _ in range(rng.choice((1, 1, 2))):
        *path, last = rng.choice(list(places(value)))
        holder = value
        for part in path:
            holder = holder[part]
        kind = rng.randrange(8)
        if kind == 0:
            del holder[last]
        elif kind == 1 and isinstance(holder[last], list):
            holder[last] = holder[last] * rng.choice((2, 13, 65))
        else:
            holder[last] = copy.deepcopy(rng.choice(HOSTILE))
    return value


def disagreements(full: dict[str, Any], count: int, seed: int) -> tuple[list[str], int]:
    rng = random.Random(seed)
    found: list[str] = []
    taken = 0
    for _ in range(count):
        value = altered(full, rng)
        theirs, ours = signers(value), readers(value)
        taken += ours
        if theirs is not None and theirs != ours:
            found.append(f"signer {theirs}, reader {ours}: {json.dumps(value)}")
    return found, taken


def test_reader_and_signer_agree_on_altered_reports(full: dict[str, Any]) -> None:
    found, taken = disagreements(full, 300, seed=8)
    assert found == []
    assert 30 < taken < 270, "the altered reports tell too little"


@pytest.mark.slow
def test_reader_and_signer_agree_on_very_many_altered_reports(full: dict[str, Any]) -> None:
    assert disagreements(full, 10_000, seed=9)[0] == []


def test_every_place_is_of_the_kind_that_the_signer_holds_it_to(full: dict[str, Any]) -> None:
    """Each leaf in turn, with what is nearest to it: what a random walk seldom hits."""
    for path in list(places(full)):
        *above, last = path
        holder: Any = full
        for part in above:
            holder = holder[part]
        was = holder[last]
        hostile: tuple[Any, ...] = (None, 7, "a b", [], {})
        for told in hostile:
            holder[last] = told
            assert signers(full) in (readers(full), None), (path, told)
        holder[last] = was


def test_the_grammar_of_decimals_and_names_is_one() -> None:
    assert (decimals.DECIMAL.pattern, decimals.NAME.pattern) == (result.DECIMAL.pattern, result.NAME.pattern)
    assert decimals.LEVEL_MIN == result.LEVEL_MIN
    for text in ("0", "-0", "0.0", "1.50", "-1.0", "10", "0.1", "-0.10"):
        canonical = result.canonical_decimal(text)
        assert decimals.canonical_decimal(text) == canonical
        assert decimals.is_canonical(text) == (text == canonical)


def test_both_have_the_same_fields() -> None:
    schema = Predicate.model_json_schema()

    def compare(node: dict[str, Any], table: Any, at: str) -> None:
        while "$ref" in node or "anyOf" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node["anyOf"][0]
        while isinstance(table, Maybe | Null | Absent | Ruled):
            table = table.shape
        if isinstance(table, dict):
            assert set(table) == set(node["properties"]), at
            for name, inner in table.items():
                assert isinstance(inner, Maybe | Absent) == (name not in node.get("required", ())), f"{at}/{name}"
                compare(node["properties"][name], inner, f"{at}/{name}")
        elif isinstance(table, list | Some):
            compare(node["items"], table[0] if isinstance(table, list) else table.shape, at)
        else:
            assert isinstance(table, Each) or "properties" not in node, at

    compare(schema, PREDICATE, "")
