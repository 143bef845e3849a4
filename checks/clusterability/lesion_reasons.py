"""Why something of lesions is left out, and what of a measured partition is: all that `skipped` says of them."""

from __future__ import annotations

from collections.abc import Sequence

from assay.result import Skipped

from checks.clusterability.lesion_rows import ROLE, ROW_REASONS
from checks.clusterability.lesion_tables import PartitionLesions, out_of_range, untold

NO_HEAD, TRIALS_LOST, TASK_LOST = "no_head", "lesion_trials_lost", "lesion_task_lost"
NO_PARTITION, BUDGET, AT_CHANCE = "no_partition", "lesion_budget", "baseline_at_chance"
TOO_MANY_CELLS, OUT_OF_RANGE, INERT = "lesion_cells_too_many", "number_out_of_range", "lesions_inert"
UNTESTED = (AT_CHANCE, "layer_spanning_cluster", "no_units")
"""Why a cluster is told and not tested."""

LESION_REASONS = (
    *ROW_REASONS,
    NO_HEAD,
    TRIALS_LOST,
    TASK_LOST,
    NO_PARTITION,
    BUDGET,
    TOO_MANY_CELLS,
    OUT_OF_RANGE,
    INERT,
    *UNTESTED,
)
"""Every reason that lesions give in `skipped`."""

ROLE_ITEM = f"role:{ROLE}"
"""Item under which the whole role is told to be left out."""


def left_out(told: Sequence[PartitionLesions]) -> tuple[Skipped, ...]:
    """Return what is in no test or no table: tasks and clusters, tables that are too large, numbers that are."""
    chance = {task for one in told for task, at in zip(one.tasks, one.lesions.at_chance, strict=True) if at}
    return (
        *(Skipped(item=f"task:{task}:tests", reason=AT_CHANCE) for task in sorted(chance)),
        *(
            Skipped(item=f"partition:{one.name}:cluster:{test.cluster}", reason=test.reason)
            for one in told
            for test in one.tests
            if test.reason
        ),
        *(
            Skipped(item=f"partition:{name}:{table}", reason=TOO_MANY_CELLS)
            for name, tables in untold(told).items()
            for table in tables
        ),
        *(Skipped(item=f"partition:{name}:{table}", reason=OUT_OF_RANGE) for name, table in out_of_range(told)),
    )
