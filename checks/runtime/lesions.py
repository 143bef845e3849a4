"""Trials of a token model under lesions: units held at their mean over the trials, at every token.

Specification: clusterability, section 6.1 (mean ablation, tasks weighted equally; never zero).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.check import Lesion, TokenTrial, TrialScores
from checks.errors import NotAskedFor
from checks.runtime import forward
from checks.runtime.lesion_passes import Batch, Held, Means, Place, batches_of, fold, under_lesions
from checks.runtime.loading import Loaded
from checks.runtime.plan import NO_HEAD, units_of
from checks.runtime.tokens import NON_FINITE, Placed, place_trials
from checks.runtime.unit_moments import Moments, Tally, of_rows

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float64


Kept = dict[str, Moments]
"""[row, unit] moments of one batch, by site."""


@dataclass(frozen=True, eq=False)
class TrialRow:
    """Tokens to run, and the numbers of the trials that are these tokens and this target."""

    placed: Placed
    trials: tuple[int, ...]


class TokenLesions:
    """Scores the trials of one check under its lesions, within its budget; implements `checks.memory.Lesioned`.

    Making one runs every trial once: for each unit's mean and spread, and for how the trials fare without a lesion. A
    control that measures again on evidence of this model draws on the same budget.

    Args:
        loaded: the model, alive as long as lesions may come.
        trials: in the order of the answers.
        sites: "mlp.{l}" and "heads.{l}", whose units may be held.
        budget: lesions that may be asked for, those that hold nothing among them.
        on_batch: told (batches done, batches in all) of that first pass.

    Raises:
        NotAskedFor: a site that is not in this model.
    """

    def __init__(
        self,
        loaded: Loaded,
        trials: Sequence[TokenTrial],
        sites: Sequence[str],
        budget: int,
        *,
        on_batch: Callable[[int, int], None] = lambda _done, _owed: None,
    ) -> None:
        self._loaded = loaded
        self._left = budget
        self._trials = tuple(trials)
        self._units = {site: units_of(site, loaded.facts) for site in sites}
        self._places = {site: _place(site) for site in self._units}
        if loaded.head:
            placed, lost = place_trials(loaded.tokenizer, trials, loaded.facts)
        else:
            placed, lost = {}, dict.fromkeys((one.id for one in trials), NO_HEAD)
        rows, tally = _rows(trials, placed), Tally()
        parts = list(batches_of(rows, _placed))
        right, loss = np.empty(0, dtype=np.bool_), np.empty(0)
        for done, part in enumerate(parts, start=1):
            of_part = self._first(part, tally)
            right, loss = np.concatenate([right, of_part[0]]), np.concatenate([loss, of_part[1]])
            on_batch(done, len(parts))
        alive = np.isfinite(loss)
        self._rows = [row for row, good in zip(rows, alive, strict=True) if good]
        self._batches = [Batch.of([row.placed for row in part]) for part in batches_of(self._rows, _placed)]
        self._right, self._loss = right[alive], loss[alive]
        self._means, spread = self._totals(tally)
        strange = [row for row, good in zip(rows, alive, strict=True) if not good]
        lost |= {trials[number].id: NON_FINITE for row in strange for number in row.trials}
        self.lost: Mapping[str, str] = lost
        """Trials that are scored under no lesion, with the reason."""
        self.unit_sd: Mapping[str, Float64[np.ndarray, " unit"]] = spread
        """Standard deviation of each unit over the trials, by site; NaN where no trial could run."""

    @property
    def texts(self) -> int:
        """Sequences of tokens that run under a lesion; trials of the same tokens are one."""
        return len(self._rows)

    @property
    def tokens(self) -> int:
        """Tokens that run under a lesion, without padding."""
        return sum(len(row.placed.stem) for row in self._rows)

    def __call__(self, lesions: Sequence[Lesion]) -> TrialScores:
        """Return how every trial fares under each lesion; a lost one is wrong, its loss NaN.

        Lesions that hold the same units run once, and one that holds none does not run again.

        Raises:
            NotAskedFor: more lesions than the budget, a site that the needs did not name, a unit that is not there.
        """
        asked = [self._held(lesion) for lesion in lesions]
        if len(lesions) > self._left:
            raise NotAskedFor(f"{len(lesions)} lesions, and {self._left} are left of what the needs declared")
        self._left -= len(lesions)
        keys = [tuple((place, units.tobytes()) for place, units in held.items()) for held in asked]
        different = {key: held for key, held in zip(keys, asked, strict=True) if held}
        right, loss = self._run(list(different.values()))
        number = {key: number for number, key in enumerate(different, start=1)}
        which = [number.get(key, 0) for key in keys]
        correct = np.zeros((len(lesions), len(self._trials)), dtype=np.bool_)
        losses = np.full(correct.shape, np.nan)
        for column, row in enumerate(self._rows):
            for trial in row.trials:
                correct[:, trial], losses[:, trial] = right[which, column], loss[which, column]
        return TrialScores(correct=correct, loss=losses)

    def _run(self, lesions: Sequence[Held]) -> tuple[Bool[np.ndarray, "one row"], Float64[np.ndarray, "one row"]]:
        """Return each row's answers: without a lesion first, then under each, all of which hold something."""
        answers = [(self._right[None], self._loss[None])]
        if lesions and self._rows:
            parts = [under_lesions(self._loaded, batch, lesions, self._means) for batch in self._batches]
            rights, losses = zip(*parts, strict=True)
            answers.append((np.concatenate(rights, axis=1), np.concatenate(losses, axis=1)))
        elif lesions:
            answers.append((np.empty((len(lesions), 0), dtype=np.bool_), np.empty((len(lesions), 0))))
        return np.concatenate([right for right, _ in answers]), np.concatenate([loss for _, loss in answers])

    def _held(self, lesion: Lesion) -> Held:
        """Return the units of a lesion, each once and in order, places in order."""
        held: dict[Place, np.ndarray] = {}
        for site in sorted(lesion):
            if site not in self._places:
                raise NotAskedFor(f"a lesion at {site!r}, which is not among the units that the needs name")
            units = np.asarray(lesion[site])
            if units.size and (units.ndim != 1 or not np.issubdtype(units.dtype, np.integer)):
                raise NotAskedFor(f"a lesion at {site!r} names its units by a list of whole numbers")
            units = np.unique(units).astype(np.int64)
            if units.size and not 0 <= units[0] <= units[-1] < self._units[site]:
                raise NotAskedFor(
                    f"a lesion at {site!r} of units {units[0]} to {units[-1]}: it has {self._units[site]}"
                )
            if units.size:
                held[self._places[site]] = units
        return dict(sorted(held.items()))

    def _first(
        self, rows: Sequence[TrialRow], tally: Tally
    ) -> tuple[Bool[np.ndarray, " row"], Float64[np.ndarray, " row"]]:
        """Run a batch as it is: return its answers, and add the moments of what is finite to the tally."""
        batch = Batch.of([row.placed for row in rows])
        lengths = [len(row.placed.stem) for row in rows]
        kept: Kept = {}

        def keep(site: str) -> Callable[..., None]:
            def hook(state: torch.Tensor, **_: Any) -> None:
                kept[site] = of_rows(state.flatten(2), lengths)

            return hook

        hooks = [(place.hook, keep(site)) for site, place in self._places.items()]
        graded = forward.grade(self._loaded, batch.ids, batch.mask, hooks=hooks, targets=batch.targets)
        (right,), (loss,) = fold(batch, *graded)
        for number, row in enumerate(rows):
            own = {site: Moments(one.mean[number], one.square[number]) for site, one in kept.items()}
            if not all(np.isfinite(one.mean).all() and np.isfinite(one.square).all() for one in own.values()):
                right[number], loss[number] = False, np.nan
            if np.isfinite(loss[number]):
                groups = Counter(self._trials[trial].group for trial in row.trials)
                for group in sorted(groups):
                    tally.add(group, groups[group], own)
        return right, loss

    def _totals(self, tally: Tally) -> tuple[Means, dict[str, Float64[np.ndarray, " unit"]]]:
        """Return what each unit is held at, and its spread."""
        import torch

        means: dict[Place, torch.Tensor] = {}
        spread: dict[str, np.ndarray] = {}
        for site, place in self._places.items():
            total = tally.total(site)
            spread[site] = np.full(self._units[site], np.nan)
            if total is not None:
                # A head's numbers are neighbours; a neuron has one.
                width = (-1,) if place.kind == "heads" else ()
                means[place] = torch.from_numpy(total.mean.astype(np.float32)).reshape(self._units[site], *width)
                spread[site] = np.sqrt(total.square.reshape(self._units[site], -1).sum(axis=1))
        return means, spread


def _place(site: str) -> Place:
    kind, layer = site.split(".")
    return Place(int(layer), kind)


def _placed(row: TrialRow) -> Placed:
    return row.placed


def _rows(trials: Sequence[TokenTrial], placed: Mapping[str, Placed]) -> list[TrialRow]:
    """Return the rows to run, by length and then by their tokens: the order of the trials leaves no trace."""
    of_row: dict[Placed, list[int]] = {}
    for number, one in enumerate(trials):
        if one.id in placed:
            of_row.setdefault(placed[one.id], []).append(number)
    ordered = sorted(of_row.items(), key=lambda item: (len(item[0].ids), item[0].ids, item[0].start))
    return [TrialRow(one, tuple(numbers)) for one, numbers in ordered]
