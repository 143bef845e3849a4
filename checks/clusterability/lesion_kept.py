"""The lesion rows that could be scored, and what is told of those that could not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Skipped

from checks.clusterability.lesion import Rows
from checks.clusterability.lesion_reasons import NO_HEAD, ROLE_ITEM, TASK_LOST, TRIALS_LOST
from checks.clusterability.lesion_rows import TASK_ROWS_LEAST, TASKS_LEAST, LesionRows

if TYPE_CHECKING:
    from jaxtyping import Int

LOST_MOST = 0.05
"""Share of a task's rows that may be lost. Those that a model cannot run are no random ones: beyond it the task counts
as evidence that is absent, and every word is inconclusive."""


@dataclass(frozen=True)
class LesionData:
    """The rows that were scored."""

    rows: Rows
    tasks: tuple[str, ...]
    kept: Int[np.ndarray, " row"]
    """Place of each row among all trials."""


def kept_rows(read: LesionRows, lost: Mapping[str, str]) -> tuple[LesionData | None, tuple[Skipped, ...]]:
    """Return the rows that ran; a task that lost too many, or has too few left, is left out and told."""
    before = Counter(trial.group for trial in read.trials)
    held = [at for at, trial in enumerate(read.trials) if trial.id not in lost]
    after = Counter(read.trials[at].group for at in held)
    spared = {task: after[task] >= max(TASK_ROWS_LEAST, (1.0 - LOST_MOST) * before[task]) for task in read.tasks}
    left = [task for task in read.tasks if not spared[task]]
    tasks = tuple(task for task in read.tasks if task not in left)
    told = [Skipped(item=f"task:{task}", reason=TASK_LOST) for task in left]
    told += [
        Skipped(item=f"task:{task}:lost:{before[task] - after[task]}", reason=TRIALS_LOST)
        for task in tasks
        if after[task] < before[task]
    ]
    if len(tasks) < TASKS_LEAST:
        why = {lost[trial.id] for trial in read.trials if trial.id in lost}
        reason = NO_HEAD if why == {NO_HEAD} else TRIALS_LOST
        return None, (Skipped(item=ROLE_ITEM, reason=reason), *told)
    kept = np.array([at for at in held if read.trials[at].group in tasks])
    task = np.array([tasks.index(read.trials[at].group) for at in kept])
    guess = np.array([read.chance[at] for at in kept])
    chance = tuple(float(guess[task == index].mean()) for index in range(len(tasks)))
    return LesionData(Rows(task, chance), tasks, kept), tuple(told)
