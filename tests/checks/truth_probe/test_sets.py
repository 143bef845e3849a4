"""Built-in sets: what is committed is what is generated and read, and every row keeps the rules of the role."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.truth_probe.pairs import folded, joined_clusters, read_pairs
from checks.truth_probe.sets import generate, load
from checks.truth_probe.splits import Plan, plans, require_enough

Row = dict[str, Any]
Tokens = Callable[[str], list[str]]

COUNTS = {
    "world": (800, 200),
    "geography": (480, 60),
    "arithmetic": (800, 200),
    "comparison": (600, 300),
    "negation": (1080, 360),
    "conjunction": (400, 30),
}
"""Items and clusters."""

TAILS = {
    " True or false? The statement is": (" true", " false"),
    " Is that right? Answer:": (" yes", " no"),
}

each_set = pytest.mark.parametrize("name", load.BUILT_IN)


def test_committed_files_are_what_the_generator_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


def test_a_changed_or_missing_file_is_told_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main([], tmp_path) == 0
    assert generate.main(["--check"], tmp_path) == 0
    (tmp_path / "world.jsonl").write_bytes((tmp_path / "world.jsonl").read_bytes().replace(b"goat", b"boat", 1))
    (tmp_path / "sets.json").unlink()
    capsys.readouterr()
    assert generate.main(["--check"], tmp_path) == 1
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"stale: {tmp_path / 'world.jsonl'}",
        f"stale: {tmp_path / 'sets.json'}",
    ]


def test_a_damaged_set_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate.main([], tmp_path)
    path = tmp_path / "world.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "geography.jsonl").unlink()
    monkeypatch.setattr(load, "FOLDER", tmp_path)
    load._text.cache_clear()
    with pytest.raises(load.SetDamaged, match=r"world\.jsonl: SHA-256 is"):
        load.rows("world")
    with pytest.raises(load.SetDamaged, match=r"geography\.jsonl: No such file"):
        load.rows("geography")
    assert len(load.rows("comparison")) == 600
    load._text.cache_clear()
    load.index.cache_clear()
    (tmp_path / "sets.json").write_text("{")
    with pytest.raises(load.SetDamaged, match=r"sets\.json"):
        load.digest("world")
    load.index.cache_clear()
    with pytest.raises(KeyError, match="no built-in set 'wrld'"):
        load.rows("wrld")


def test_a_caller_may_change_its_rows() -> None:
    load.rows("world")[0]["features"]["planted"] = 1
    assert "planted" not in load.rows("world")[0]["features"]


@each_set
def test_lines_are_canonical_and_the_index_tells_them(name: str) -> None:
    lines = (load.FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()
    assert lines == [json.dumps(json.loads(one), sort_keys=True, separators=(",", ":")) for one in lines]
    told = load.index()[name]
    assert (told["items"], told["clusters"]) == COUNTS[name]
    assert told["rows"] == len(lines) == told["items"]
    assert told["licence"] == "CC0-1.0"
    assert told["sha256"] == load.digest(name)
    assert told["provenance"].endswith(".")


def test_the_sets_stay_small() -> None:
    assert sum(path.stat().st_size for path in load.FOLDER.glob("*.json*")) < 1.65e6


def test_ids_are_unique_over_all_sets() -> None:
    ids = [row["id"] for name in load.BUILT_IN for row in load.rows(name)]
    assert len(set(ids)) == len(ids)


@each_set
def test_one_row_an_item_and_no_text_in_two_clusters(name: str) -> None:
    pairs = read_pairs(load.rows(name))
    assert len({(pair.set, pair.item) for pair in pairs}) == len(pairs)
    assert len({pair.cluster for pair in pairs}) == len(set(joined_clusters(pairs))) == COUNTS[name][1]
    assert len({(pair.pos, pair.neg) for pair in pairs}) == len(pairs)
    assert not any(folded(pair.pos) == folded(pair.neg) for pair in pairs)


@each_set
def test_templates_and_labels_are_balanced(name: str) -> None:
    by_template: dict[tuple[str, str], list[int]] = defaultdict(list)
    forms: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in load.rows(name):
        by_template[row["set"], row["template"]].append(row["label"])
        forms[row["form"]].add((row["set"], row["template"]))
    sets = {of for of, _ in by_template}
    assert len(forms["answer"]) == len(forms["statement"]) == 2 * len(sets)
    for (of, _), labels in by_template.items():
        assert len(labels) == sum(len(one) for (other, _), one in by_template.items() if other == of) // 4
        assert sum(labels) * 2 == len(labels)


@each_set
def test_a_set_by_itself_is_enough_to_be_judged_or_is_a_column_only(name: str) -> None:
    made = plans(read_pairs(load.rows(name)), max_items=1000, anchors_k=32, seed=0)
    for plan in made.values():
        assert isinstance(plan, Plan)
        assert not any("over_max_items" in reason for _, reason in plan.left_out)
        if name in load.DEFAULT:
            require_enough(plan)
        else:
            assert name == "conjunction" or set(plan.kinds) == {"negated"}


def test_negated_rows_follow_their_clusters_and_conjunctions_can_be_held_out() -> None:
    rows = [*load.rows("geography"), *load.rows("negation")]
    plan = plans(read_pairs(rows), max_items=1000, anchors_k=32, seed=0)["geography"]
    assert isinstance(plan, Plan)
    of: dict[str, set[str]] = defaultdict(set)
    for cluster, split in zip(plan.clusters, plan.splits, strict=True):
        of[cluster].add(split)
    assert all(len(splits) == 1 for splits in of.values())
    kinds = Counter(zip(plan.kinds, plan.splits, strict=True))
    assert kinds["negated", "test"] == kinds["main", "test"] >= 100
    unseen = [
        row for row in load.rows("conjunction") if all(of[part] == {"test"} for part in load.parts(row["cluster"]))
    ]
    assert 20 <= len(unseen) <= 200


@each_set
def test_statements_are_read_at_their_full_stop_and_answers_at_their_end(name: str) -> None:
    for row in load.rows(name):
        if row["form"] == "answer":
            assert "read_at" not in row
            assert not row["prompt"].endswith(" ")
            assert all(row[key][0] == " " and row[key][1] != " " for key in ("answer_pos", "answer_neg"))
        else:
            tails = [row[key][at:] for key, at in zip(("pos", "neg"), row["read_at"], strict=True)]
            assert tails[0] == tails[1]
            assert TAILS[tails[0]] == (row["yes"], row["no"])
            assert all(row[key][at - 1] == "." for key, at in zip(("pos", "neg"), row["read_at"], strict=True))


def phi(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


@each_set
def test_features_vary_and_do_not_tell_the_label(name: str) -> None:
    by_set: dict[str, list[Row]] = defaultdict(list)
    for row in load.rows(name):
        by_set[row["set"]].append(row)
    for rows in by_set.values():
        names = sorted(rows[0]["features"])
        assert len(names) >= 2
        assert all(sorted(row["features"]) == names for row in rows)
        labels = np.array([row["label"] for row in rows])
        for feature in names:
            flags = np.array([row["features"][feature] for row in rows])
            assert 0.1 < flags.mean() < 0.9, feature
            assert abs(phi(flags, labels)) < 0.1, feature
