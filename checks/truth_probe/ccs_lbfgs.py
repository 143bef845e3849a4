"""L-BFGS with a strong Wolfe line search for many starts at once: products are shared, every start goes its own way.

Nocedal & Wright 2006, Numerical Optimization, algorithms 3.5 and 3.6; the product with the inverse Hessian is the
compact form of Byrd, Nocedal & Schnabel 1994 (Mathematical Programming 63:129), equation 3.1. Specification: 5.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

ITERATIONS, GRADIENT_MAX, CHANGE_MAX = 200, 1e-6, 1e-8
"""When a start is finished: iterations, largest slope, least change of value or weights (5.4)."""

MEMORY = 10
"""Steps remembered. The usual 3 to 20 (Nocedal & Wright, 7.2)."""

ARMIJO, CURVATURE = 1e-4, 0.9
"""Strong Wolfe constants usual for quasi-Newton methods (Nocedal & Wright, 3.1)."""

TRIALS, EXPAND, INSIDE = 25, 4.0, 0.1
"""Trials of a line search; growth of a step that is too short; share of the bracket that a trial keeps to its ends."""

Objective = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Takes points as rows, returns each row's value and gradient."""


class _Search:
    """Line searches along one ray each: `low` meets Armijo and is the best so far, `high` closes the bracket."""

    def __init__(self, starts: int, weights: int) -> None:
        self.step, self.low_step, self.high_step = np.ones(starts), np.zeros(starts), np.full(starts, np.inf)
        self.low_f, self.low_slope = np.zeros(starts), np.zeros(starts)
        self.high_f, self.high_slope = np.zeros(starts), np.zeros(starts)
        self.low_g = np.zeros((starts, weights))
        self.trials = np.zeros(starts, dtype=int)

    def begin(self, rows: Int[np.ndarray, " row"], step: np.ndarray | float, f: np.ndarray, slope: np.ndarray) -> None:
        """Start anew at some rows, from their current point."""
        self.step[rows], self.low_step[rows], self.high_step[rows] = step, 0.0, np.inf
        self.low_f[rows], self.low_slope[rows], self.trials[rows] = f, slope, 0

    def narrow(
        self,
        rows: Int[np.ndarray, " row"],
        f: np.ndarray,
        slope: np.ndarray,
        g: np.ndarray,
        good: Bool[np.ndarray, " row"],
    ) -> None:
        """Take in trials that did not end their search, and set the next ones; good trials become the low end."""
        step, bad = self.step[rows], ~good
        # A good trial that slopes towards the far end makes the old low that end; so does one in an open bracket.
        turned = good & ((slope >= 0) == (self.high_step[rows] > self.low_step[rows]))
        at = rows[turned]
        self.high_step[at] = self.low_step[at]
        self.high_f[at], self.high_slope[at] = self.low_f[at], self.low_slope[at]
        at = rows[bad]
        self.high_step[at], self.high_f[at], self.high_slope[at] = step[bad], f[bad], slope[bad]
        at = rows[good]
        self.low_step[at], self.low_f[at], self.low_slope[at] = step[good], f[good], slope[good]
        self.low_g[at] = g[good]
        self.trials[rows] += 1
        self.step[rows] = np.where(np.isinf(self.high_step[rows]), EXPAND * step, self._between(rows))

    def _between(self, rows: Int[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        """Return the minimum of the cubic through both ends, kept inside the bracket; its middle where that fails."""
        a, b = self.low_step[rows], self.high_step[rows]
        with np.errstate(all="ignore"):
            d1 = self.low_slope[rows] + self.high_slope[rows] - 3 * (self.low_f[rows] - self.high_f[rows]) / (a - b)
            d2 = np.sign(b - a) * np.sqrt(d1**2 - self.low_slope[rows] * self.high_slope[rows])
            down = self.high_slope[rows] - self.low_slope[rows] + 2 * d2
            cubic = b - (b - a) * (self.high_slope[rows] + d2 - d1) / down
            margin = INSIDE * np.abs(b - a)
            cubic = np.clip(cubic, np.minimum(a, b) + margin, np.maximum(a, b) - margin)
            return np.asarray(np.where(np.isfinite(cubic), cubic, (a + b) / 2))


class _Memory:
    """Past steps of every start, oldest overwritten first; a slot not yet used changes nothing."""

    def __init__(self, starts: int, weights: int) -> None:
        self.s, self.y = np.zeros((starts, MEMORY, weights)), np.zeros((starts, MEMORY, weights))
        self.sy, self.yy = np.zeros((starts, MEMORY, MEMORY)), np.zeros((starts, MEMORY, MEMORY))
        self.sy[:] = np.eye(MEMORY)
        self.born = np.zeros((starts, MEMORY), dtype=int)
        self.count, self.scale = np.zeros(starts, dtype=int), np.ones(starts)

    def add(self, rows: Int[np.ndarray, " row"], s: np.ndarray, y: np.ndarray) -> None:
        """Remember steps and changes of gradient; one without positive curvature is left out."""
        sy, yy = np.einsum("ri,ri->r", s, y), np.einsum("ri,ri->r", y, y)
        good = sy > 1e-10 * yy
        if not good.all():
            rows, s, y, sy, yy = rows[good], s[good], y[good], sy[good], yy[good]
        slot = self.count[rows] % MEMORY
        self.count[rows] += 1
        self.s[rows, slot], self.y[rows, slot], self.born[rows, slot] = s, y, self.count[rows]
        self.scale[rows] = sy / yy
        # The new row of sy needs only its diagonal: no older y pairs with a younger s in the upper triangle.
        self.sy[rows, :, slot] = (self.s[rows] @ y[:, :, None])[:, :, 0]
        self.yy[rows, :, slot] = self.yy[rows, slot, :] = (self.y[rows] @ y[:, :, None])[:, :, 0]

    def descent(self, rows: Int[np.ndarray, " row"], g: Float[np.ndarray, "row weights"]) -> np.ndarray:
        """Return minus the product of the inverse Hessian and the gradients."""
        s, y, born, scale = self.s[rows], self.y[rows], self.born[rows], self.scale[rows, None]
        sy = self.sy[rows]
        # Upper triangle in order of age; unused slots keep their unit diagonal.
        inverse = np.linalg.inv(sy * (born[:, :, None] <= born[:, None, :]))
        diagonal = np.einsum("rii->ri", sy)
        p = (inverse @ (s @ g[:, :, None]))[:, :, 0]
        inner = diagonal * p + scale * ((self.yy[rows] @ p[:, :, None])[:, :, 0] - (y @ g[:, :, None])[:, :, 0])
        outer = (inner[:, None, :] @ inverse)[:, 0]
        return np.asarray(scale * (p[:, None, :] @ y)[:, 0] - (outer[:, None, :] @ s)[:, 0] - scale * g)


def minimise(objective: Objective, start: Float[np.ndarray, "start weights"]) -> Float[np.ndarray, "start weights"]:
    """Return where each start ends; one whose value or gradient is not finite stays where it is.

    Args:
        objective: values and gradients of points given as rows.
        start: one start a row.
    """
    run = _Run(objective, start)
    while len(run.live):
        run.trial()
    return run.x


class _Run:
    """All starts: where each is, which way it goes, and which of them still move."""

    def __init__(self, objective: Objective, start: Float[np.ndarray, "start weights"]) -> None:
        self.objective, self.x = objective, np.array(start, dtype=np.float64)
        self.f, self.g = objective(self.x)
        self.d, self.slope = -self.g, -np.einsum("ri,ri->r", self.g, self.g)
        self.search, self.memory = _Search(*self.x.shape), _Memory(*self.x.shape)
        self.iterations = np.zeros(len(self.x), dtype=int)
        steepest = np.abs(self.g).max(axis=1)
        self.live = np.flatnonzero(np.isfinite(self.f) & np.isfinite(steepest) & (steepest > GRADIENT_MAX))
        # Nothing is known of the scale yet: the first step is at most one in the 1-norm.
        first = np.minimum(1.0, 1.0 / np.abs(self.g[self.live]).sum(axis=1))
        self.search.begin(self.live, first, self.f[self.live], self.slope[self.live])

    def trial(self) -> None:
        """Try the next step of every live start at once."""
        rows, search = self.live, self.search
        step, d = search.step[rows], self.d[rows]
        f, g = self.objective(self.x[rows] + step[:, None] * d)
        slope = np.einsum("ri,ri->r", g, d)
        # Written so that a value that is not finite is never good.
        good = (f <= self.f[rows] + ARMIJO * step * self.slope[rows]) & (f <= search.low_f[rows])
        ended = good & (np.abs(slope) <= -CURVATURE * self.slope[rows])
        self._move(rows[ended], step[ended], f[ended], g[ended])
        if not ended.all():
            again = ~ended
            search.narrow(rows[again], f[again], slope[again], g[again], good[again])
            self._give_up(rows[again])

    def _give_up(self, rows: Int[np.ndarray, " row"]) -> None:
        """End searches that cannot meet the curvature condition (the loss has kinks) at the best point they saw."""
        search = self.search
        width = np.abs(search.high_step[rows] - search.low_step[rows]) * np.abs(self.d[rows]).max(axis=1)
        spent = rows[(search.trials[rows] >= TRIALS) | (width <= CHANGE_MAX)]
        if len(spent):
            moved = search.low_step[spent] > 0
            self.live = np.setdiff1d(self.live, spent[~moved])
            at = spent[moved]
            self._move(at, search.low_step[at], search.low_f[at], search.low_g[at])

    def _move(self, rows: Int[np.ndarray, " row"], step: np.ndarray, f: np.ndarray, g: np.ndarray) -> None:
        """Take steps, stop the starts that are finished, and turn the others."""
        s, y = step[:, None] * self.d[rows], g - self.g[rows]
        change = self.f[rows] - f
        self.x[rows] += s
        self.f[rows], self.g[rows] = f, g
        self.iterations[rows] += 1
        done = (self.iterations[rows] >= ITERATIONS) | (change <= CHANGE_MAX)
        done |= (np.abs(g).max(axis=1) <= GRADIENT_MAX) | (np.abs(s).max(axis=1) <= CHANGE_MAX)
        if done.any():
            self.live = np.setdiff1d(self.live, rows[done])
            rows, s, y, f, g = rows[~done], s[~done], y[~done], f[~done], g[~done]
        if not len(rows):
            return
        self.memory.add(rows, s, y)
        d = self.memory.descent(rows, g)
        slope = np.einsum("ri,ri->r", d, g)
        if not (slope < 0).all():
            d = np.where(slope[:, None] < 0, d, -g)
            slope = np.einsum("ri,ri->r", d, g)
        self.d[rows], self.slope[rows] = d, slope
        self.search.begin(rows, 1.0, f, slope)
