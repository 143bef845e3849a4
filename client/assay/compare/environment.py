"""Where two runs differ in their environment, and whether a tolerance holds between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from assay.compare.sides import Side


@dataclass(frozen=True)
class Change:
    """One field of the environment that differs."""

    field: str
    first: str | None
    second: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form."""
        return {"field": self.field, "first": self.first, "second": self.second}


GPU_STAGE = "check_gpu"
"""Stage of a cell that a GPU was leased to."""


def same_machine(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether a tolerance holds: same packages, and the same GPU models or, without any, the same processor.

    A report that used a GPU and does not say which is of no machine that is known: two cards may differ.

    Args:
        one: predicate of a report.
        other: predicate of another.
    """
    machine = _machine(one)
    return machine is not None and machine == _machine(other)


def _machine(predicate: Mapping[str, Any]) -> tuple[Any, ...] | None:
    told = predicate["environment"]
    gpus = [gpu.get("model") for gpu in told.get("gpus") or ()]
    attempts = (cell for attempt in predicate["attempts"] for cell in attempt.get("cells") or ())
    leased = any(cell["stage"] == GPU_STAGE for cell in (*predicate["sandbox"]["cells"], *attempts))
    if leased and not (gpus and all(gpus)):
        return None
    return (told.get("lock_sha256"), gpus, None if gpus else told.get("cpu"))


def changes(first: Side, second: Side) -> Iterator[Change]:
    """Yield every field of the environment that differs, and answers that other code gave."""
    sides = [_flat(side.predicate["environment"], "environment") for side in (first, second)]
    for side, told in zip((first, second), sides, strict=True):
        told |= {f"answers/{at}/code_sha256": one["code_sha256"] for at, one in enumerate(side.predicate["answers"])}
    for name in sorted(sides[0].keys() | sides[1].keys()):
        one, other = sides[0].get(name), sides[1].get(name)
        if one != other:
            yield Change(name, one, other)


def _flat(value: Any, at: str) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {k: v for name, inner in value.items() for k, v in _flat(inner, f"{at}/{name}").items()}
    if isinstance(value, list | tuple):
        return {k: v for place, inner in enumerate(value) for k, v in _flat(inner, f"{at}/{place}").items()}
    return {at: str(value).lower() if isinstance(value, bool) else str(value)}
