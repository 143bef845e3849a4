"""Rows of the role `lesion`: inputs by task, each with what the model must answer.

Two forms, one for each kind of model (specification: clusterability, section 3). What is wrong refuses the role and not
the check: structure needs no data.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from checks.check import ModelFacts, Refusal, TokenTrial, Trial, VectorTrial

ROLE = "lesion"
"""Name of the data role."""

TASKS_LEAST, TASKS_MOST = 2, 12
"""A cluster that serves one task of one serves it alone (section 3); of more than twelve the numbers would crowd the
result document."""

TASK_ROWS_LEAST = 50
"""Rows of each task (section 3): a Wilson interval of one half is then .27 wide."""

ROWS_MOST = 4000
"""Every row is read anew under every lesion, and there are thousands of these."""

TOLD_MOST = 20
"""Wrong lines that are told by number; the rest are counted."""

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,31}")
"""Tasks become labels of metrics: the name alphabet, and short, since every label is charged to the result."""

ID_MOST = 512
"""Characters of an id; ids are never told."""

PREFIX = "lesion:"
"""Before each id: trials of a check share no id with its texts and continuations."""

ROW_INVALID, TOO_FEW_ROWS = "lesion_row_invalid", "lesion_task_too_small"
TOO_FEW_TASKS, TOO_MANY_TASKS, TOO_MANY_ROWS = "lesion_tasks_too_few", "lesion_tasks_too_many", "lesion_rows_too_many"
ROW_REASONS = (ROW_INVALID, TOO_FEW_ROWS, TOO_FEW_TASKS, TOO_MANY_TASKS, TOO_MANY_ROWS)
"""Why the role was refused."""


@dataclass(frozen=True)
class LesionRows:
    """The role, read."""

    trials: tuple[Trial, ...]
    """In file order."""
    tasks: tuple[str, ...]
    """In order of their first rows."""
    chance: tuple[float, ...]
    """What guessing scores on each trial: 1 / outputs of its head, or 1 / vocabulary."""


def lesion_rows(rows: Sequence[Mapping[str, Any]], facts: ModelFacts) -> LesionRows:
    """Return the trials of the role.

    Args:
        rows: as parsed, in file order, one a line.
        facts: the model, which says what form rows have.

    Raises:
        Refusal: `lesion_row_invalid` with items "line:<number>:<code>"; `lesion_task_too_small` with
            "task:<name>:rows:<n>"; too few or too many tasks or rows, with the count and the limit.
    """
    if len(rows) > ROWS_MOST:
        raise Refusal(TOO_MANY_ROWS, (f"rows:{len(rows)}", f"limit:{ROWS_MOST}"))
    read = _vector_row if facts.kind == "feedforward" else _token_row
    trials: list[Trial] = []
    wrong: list[str] = []
    seen: set[str] = set()
    for line, row in enumerate(rows, start=1):
        codes = list(_common_problems(row, seen))
        found = None if codes else read(row, facts)
        if isinstance(found, str):
            codes.append(found)
        elif found is not None:
            trials.append(found)
        wrong += (f"line:{line}:{code}" for code in codes)
    if wrong:
        more = (f"more:{len(wrong) - TOLD_MOST}",) if len(wrong) > TOLD_MOST else ()
        raise Refusal(ROW_INVALID, (*wrong[:TOLD_MOST], *more))
    return LesionRows(tuple(trials), _tasks(trials), tuple(chance_of(trial, facts) for trial in trials))


def chance_of(trial: Trial, facts: ModelFacts) -> float:
    """Return how often guessing would be right."""
    if facts.feedforward is None or isinstance(trial, TokenTrial):
        return 1.0 / max(facts.vocabulary, 1)
    heads = {head.name: head for head in facts.feedforward.heads}
    head = heads[trial.head] if trial.head is not None else facts.feedforward.heads[0]
    return 1.0 / (head.stop - head.start)


def _tasks(trials: Sequence[Trial]) -> tuple[str, ...]:
    counts = Counter(trial.group for trial in trials)
    if len(counts) < TASKS_LEAST:
        raise Refusal(TOO_FEW_TASKS, (f"tasks:{len(counts)}", f"least:{TASKS_LEAST}"))
    if len(counts) > TASKS_MOST:
        raise Refusal(TOO_MANY_TASKS, (f"tasks:{len(counts)}", f"limit:{TASKS_MOST}"))
    small = tuple(f"task:{task}:rows:{count}" for task, count in counts.items() if count < TASK_ROWS_LEAST)
    if small:
        raise Refusal(TOO_FEW_ROWS, (*small, f"least:{TASK_ROWS_LEAST}"))
    return tuple(counts)


def _common_problems(row: Mapping[str, Any], seen: set[str]) -> Iterator[str]:
    name, task = row.get("id"), row.get("task")
    if not isinstance(name, str) or not 0 < len(name) <= ID_MOST:
        yield "id_invalid"
    elif name in seen:
        yield "id_duplicate"
    else:
        seen.add(name)
    if not isinstance(task, str) or not TASK_NAME.fullmatch(task):
        yield "task_invalid"


def _token_row(row: Mapping[str, Any], facts: ModelFacts) -> TokenTrial | str:
    if set(row) - {"id", "task", "text", "target"}:
        return "unknown_key"
    for key in ("text", "target"):
        if not isinstance(row.get(key), str):
            return f"{key}_invalid"
        if not row[key]:
            return f"{key}_empty"
    return TokenTrial(id=PREFIX + row["id"], group=row["task"], text=row["text"], target=row["target"])


def _vector_row(row: Mapping[str, Any], facts: ModelFacts) -> VectorTrial | str:
    assert facts.feedforward is not None
    if set(row) - {"id", "task", "input", "label", "head"}:
        return "unknown_key"
    values = _input(row.get("input"), facts.feedforward.input)
    if isinstance(values, str):
        return values
    heads = {head.name: head for head in facts.feedforward.heads}
    name = row.get("head")
    if name is None and len(heads) > 1:
        return "head_missing"
    if "head" in row and (not isinstance(name, str) or name not in heads):
        return "head_unknown"
    head = facts.feedforward.heads[0] if name is None else heads[name]
    label = row.get("label")
    if not isinstance(label, int) or isinstance(label, bool):
        return "label_invalid"
    if not 0 <= label < head.stop - head.start:
        return "label_out_of_range"
    return VectorTrial(id=PREFIX + row["id"], group=row["task"], values=values, label=label, head=name)


def _input(value: Any, shape: tuple[int, ...]) -> tuple[float, ...] | str:
    """Return an input in C order, from a flat list or one nested as the model's input is shaped; else a code."""
    if not isinstance(value, list | tuple):
        return "input_invalid"
    nested = bool(value) and isinstance(value[0], list | tuple)
    flat: list[Any] = list(value)
    for size in shape[1:] if nested else ():
        if not all(isinstance(part, list | tuple) and len(part) == size for part in flat):
            return "input_size"
        flat = [entry for part in flat for entry in part]
    if not all(isinstance(entry, int | float) and not isinstance(entry, bool) for entry in flat):
        return "input_invalid"
    if len(flat) != prod(shape) or (nested and len(value) != shape[0]):
        return "input_size"
    # An integer beyond float64 is as little a number to the model as infinity is.
    if not all(math.isfinite(entry) if isinstance(entry, float) else abs(entry) <= _LARGEST for entry in flat):
        return "input_not_finite"
    return tuple(float(entry) for entry in flat)


_LARGEST = 10**300
"""Integers up to here are float64 numbers."""
