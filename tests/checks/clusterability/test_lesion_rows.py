"""Rows of the role `lesion`: every wrong one is named by its line, and refuses the role alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from checks.check import ModelFacts, Refusal, TokenTrial, VectorTrial
from checks.clusterability.lesion_rows import ROWS_MOST, lesion_rows
from checks.feedforward import FeedForward, FeedForwardHead
from checks.memory import model_facts


def net_facts(shape: tuple[int, ...] = (4,), heads: int = 1) -> ModelFacts:
    told = tuple(FeedForwardHead(name="ab"[i], start=3 * i, stop=3 * i + 3) for i in range(heads))
    model = FeedForward(input=shape, layers=(), shapes=(), heads=told)
    return model_facts(architecture="feedforward", vocabulary=0, causal=False, feedforward=model)


def token_rows(tasks: int = 2, each: int = 50) -> list[dict[str, Any]]:
    return [
        {"id": f"{task}-{index}", "task": f"t{task}", "text": "one two", "target": " three"}
        for task in range(tasks)
        for index in range(each)
    ]


def vector_rows(size: int = 4, **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"r{index}", "task": f"t{index % 2}", "input": [float(index)] * size, "label": index % 3, **more}
        for index in range(100)
    ]


def told(rows: list[dict[str, Any]], facts: ModelFacts) -> tuple[str, tuple[str, ...]]:
    with pytest.raises(Refusal) as why:
        lesion_rows(rows, facts)
    return why.value.reason, why.value.items


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"id": "0-0"}, "id_duplicate"),
        ({"id": ""}, "id_invalid"),
        ({"id": 7}, "id_invalid"),
        ({"task": "two words"}, "task_invalid"),
        ({"task": "t" * 33}, "task_invalid"),
        ({"task": ""}, "task_invalid"),
        ({"text": ""}, "text_empty"),
        ({"text": None}, "text_invalid"),
        ({"target": ""}, "target_empty"),
        ({"target": 3}, "target_invalid"),
        ({"label": 0}, "unknown_key"),
    ],
)
def test_a_wrong_token_row_is_named_by_its_line(change: dict[str, Any], code: str) -> None:
    rows = token_rows()
    rows[6] = {**rows[6], **change}
    assert told(rows, model_facts()) == ("lesion_row_invalid", (f"line:7:{code}",))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"input": [1.0, 2.0, float("nan"), 0.0]}, "input_not_finite"),
        ({"input": [1.0, 2.0, 10**400, 0.0]}, "input_not_finite"),
        ({"input": [1.0, 2.0]}, "input_size"),
        ({"input": []}, "input_size"),
        ({"input": [1.0, 2.0, True, 0.0]}, "input_invalid"),
        ({"input": "1234"}, "input_invalid"),
        ({"label": 3}, "label_out_of_range"),
        ({"label": -1}, "label_out_of_range"),
        ({"label": 1.0}, "label_invalid"),
        ({"label": True}, "label_invalid"),
        ({"head": "c"}, "head_unknown"),
        ({"head": None}, "head_unknown"),
        ({"text": "a"}, "unknown_key"),
    ],
)
def test_a_wrong_vector_row_is_named_by_its_line(change: dict[str, Any], code: str) -> None:
    rows = vector_rows()
    rows[99] = {**rows[99], **change}
    assert told(rows, net_facts()) == ("lesion_row_invalid", (f"line:100:{code}",))


def test_a_missing_head_among_several_is_refused() -> None:
    assert told(vector_rows(), net_facts(heads=2))[1][0] == "line:1:head_missing"
    assert len(lesion_rows(vector_rows(head="b"), net_facts(heads=2)).trials) == 100


def test_many_wrong_lines_are_counted() -> None:
    reason, items = told([{**row, "target": ""} for row in token_rows()], model_facts())
    assert (reason, len(items), items[-1]) == ("lesion_row_invalid", 21, "more:80")


def test_counts_out_of_bounds_tell_their_limit() -> None:
    facts = model_facts()
    assert told(token_rows(1), facts) == ("lesion_tasks_too_few", ("tasks:1", "least:2"))
    assert told([], facts) == ("lesion_tasks_too_few", ("tasks:0", "least:2"))
    assert told(token_rows(13), facts) == ("lesion_tasks_too_many", ("tasks:13", "limit:12"))
    assert told(token_rows(2)[:-1], facts) == ("lesion_task_too_small", ("task:t1:rows:49", "least:50"))
    assert told(token_rows(2, 2001), facts) == ("lesion_rows_too_many", ("rows:4002", f"limit:{ROWS_MOST}"))
    assert len(lesion_rows(token_rows(2, 2000), facts).trials) == ROWS_MOST


def test_good_token_rows_become_trials() -> None:
    got = lesion_rows(token_rows(), model_facts(vocabulary=128))
    assert got.trials[50] == TokenTrial(id="lesion:1-0", group="t1", text="one two", target=" three")
    assert got.tasks == ("t0", "t1")
    assert set(got.chance) == {1 / 128}


def test_nested_inputs_are_read_in_c_order() -> None:
    image = np.arange(12.0).reshape(2, 3, 2)
    nested = [{**row, "input": image.tolist()} for row in vector_rows()]
    flat = [{**row, "input": image.ravel().tolist()} for row in vector_rows()]
    facts = net_facts((2, 3, 2))
    assert lesion_rows(nested, facts) == lesion_rows(flat, facts)
    trial = lesion_rows(nested, facts).trials[0]
    assert isinstance(trial, VectorTrial)
    assert trial.values == tuple(range(12))
    assert set(lesion_rows(nested, facts).chance) == {1 / 3}
    for wrong in (image.transpose(1, 0, 2), image[:, :2], image.reshape(2, 6)):
        assert told([{**row, "input": wrong.tolist()} for row in vector_rows()], facts)[1][0] == "line:1:input_size"
    ragged = [[[1.0, 2.0], 3.0, 4.0], [[1.0, 2.0]] * 3]
    assert told([{**row, "input": ragged} for row in vector_rows()], facts)[1][0] == "line:1:input_size"
