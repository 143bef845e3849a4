"""Laws of noise without clusters: what controls and calibration hold the structure test against.

Every law takes a generator (and a shape) and returns a matrix in which no two groups of rows and columns belong
together, whatever its tails, its scales, its zeros or its rounding. Specification: sections 4.5 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

if TYPE_CHECKING:
    from jaxtyping import Float

Shape = tuple[int, int]

Law = Callable[[np.random.Generator], np.ndarray]
"""Draws one matrix of `SHAPE`."""

SHAPE: Shape = (96, 256)
"""The specification's calibration shape."""

INT4_STEP, INT4_LEVELS = 0.403, 7
"""Rounding of unit Gaussians to fifteen levels at this step makes 16 % of them zero (section 2: int4-like)."""

UNEVEN_ZEROS = 0.19
"""Mean share of uneven zeros: the specification's 20 %, less four binomial deviations (.0025) at 96x256, so that no
draw exceeds the .2 at which the mask route begins."""

OUTLIERS, OUTLIER_SCALE = 0.05, 6.0
"""Contamination of section 4.5: so many entries, so much larger."""


def iid(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return standard Gaussian noise: the null itself."""
    return np.asarray(rng.standard_normal(shape))


def laplace(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Laplace noise."""
    return np.asarray(rng.laplace(size=shape))


def t3(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return noise of Student's law with 3 degrees of freedom."""
    return np.asarray(rng.standard_t(3, size=shape))


def uniform(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return noise uniform on (-1, 1)."""
    return np.asarray(rng.uniform(-1.0, 1.0, size=shape))


def lognormal(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise times scales of rows and of columns whose logarithms are standard Gaussian."""
    return np.asarray(rng.standard_normal(shape) * _scales(rng, shape))


def laplace_lognormal(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Laplace noise times lognormal(1) scales of rows and of columns: the control `HeavyNoise` (section 8)."""
    return np.asarray(rng.laplace(size=shape) * _scales(rng, shape))


def t4_lognormal(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return noise of Student's law with 4 degrees of freedom times lognormal(1) scales of rows and of columns."""
    return np.asarray(rng.standard_t(4, size=shape) * _scales(rng, shape))


def contaminated(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise of which one entry in twenty is six times larger."""
    return rng.standard_normal(shape) * np.where(rng.random(shape) < OUTLIERS, OUTLIER_SCALE, 1.0)


def zeros_1(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise of which 1 % is exactly zero."""
    return _thinned(rng, shape, 0.01)


def zeros_10(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise of which 10 % is exactly zero."""
    return _thinned(rng, shape, 0.10)


def zeros_20(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise of which 20 % (rounded down: the most the dense route takes) is exactly zero."""
    return _thinned(rng, shape, 0.20)


def uneven_zeros_20(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise with zeros that are far more frequent in some rows and columns than in others."""
    return np.where(_uneven(rng, shape, UNEVEN_ZEROS), 0.0, rng.standard_normal(shape))


def int4(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise rounded to fifteen levels, as four-bit weights are; a sixth becomes zero."""
    return np.asarray(np.clip(np.rint(rng.standard_normal(shape) / INT4_STEP), -INT4_LEVELS, INT4_LEVELS))


def mask_30(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise of which 30 % is left."""
    return _thinned(rng, shape, 0.70)


def mask_10(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise of which 10 % is left."""
    return _thinned(rng, shape, 0.90)


def mask_05(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise of which 5 % is left."""
    return _thinned(rng, shape, 0.95)


def mask_10_uneven(rng: np.random.Generator, shape: Shape = SHAPE) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise of which about 10 % is left, far more in some rows and columns than in others."""
    return np.where(_uneven(rng, shape, 0.10), rng.standard_normal(shape), 0.0)


DENSE: Mapping[str, Law] = {
    "iid": iid,
    "lognormal": lognormal,
    "laplace": laplace,
    "laplace-x-lognormal": laplace_lognormal,
    "t4-x-lognormal": t4_lognormal,
    "t3": t3,
    "uniform": uniform,
    "zeros-1": zeros_1,
    "zeros-10": zeros_10,
    "zeros-20": zeros_20,
    "uneven-zeros-20": uneven_zeros_20,
    "rounded": int4,
    "contaminated": contaminated,
}
"""Laws of the dense route: zeros are at most a fifth."""

MASKS: Mapping[str, Law] = {
    "mask-30": mask_30,
    "mask-10": mask_10,
    "mask-05": mask_05,
    "mask-10-uneven": mask_10_uneven,
}
"""Laws of the mask route. They may leave a row or column empty."""


def _scales(rng: np.random.Generator, shape: Shape) -> Float[np.ndarray, "n m"]:
    """Return row times column scales, the logarithm of each standard Gaussian."""
    rows, columns = (np.exp(rng.standard_normal(side)) for side in shape)
    return np.asarray(rows[:, None] * columns)


def _thinned(rng: np.random.Generator, shape: Shape, zeros: float) -> Float[np.ndarray, "n m"]:
    """Return Gaussian noise with a fixed count of zeros, placed at random, so that the route is the same each time."""
    values = rng.standard_normal(shape)
    values.ravel()[rng.permutation(values.size)[: int(zeros * values.size)]] = 0.0
    return values


def _uneven(rng: np.random.Generator, shape: Shape, share: float) -> np.ndarray:
    """Return independent draws whose odds are row times column factors, lognormal(1) each; `share` true on average.

    Given their counts in every row and column all such matrices are equally likely (Rasch 1960), so degrees are all
    the structure there is.
    """
    log_odds = np.log(_scales(rng, shape))
    level = brentq(lambda shift: float(expit(log_odds + shift).mean()) - share, -30.0, 30.0)
    return np.asarray(rng.random(shape) < expit(log_odds + level))
