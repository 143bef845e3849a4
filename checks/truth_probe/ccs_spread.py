"""How far the restarts of CCS agree, and how they do on pairs they were not fitted to. Specification: section 5.4.

A loss near that of the constant probe is a result like any other: it is reported, never raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from checks.truth_probe.ccs_loss import CONSTANT_LOSS, loss_of
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.scores import auroc

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from checks.truth_probe.ccs import CcsFit


@dataclass(frozen=True)
class CcsSpread:
    """All restarts on test pairs, in the order of the fit's rows; nothing here chooses a restart."""

    auroc_best_of_sign: Float[np.ndarray, " restart"]
    """AUROC of the pair score or 1 less it, the larger: a restart has no sign of its own. Never a gate."""
    train_loss: Float[np.ndarray, " restart"]
    test_loss: Float[np.ndarray, " restart"]
    """To be read beside `CONSTANT_LOSS`."""
    inconsistency: Float[np.ndarray, " restart"]
    """Mean |p + q - 1|: 0 where the two answers of every pair are opposite."""
    one_sided: Float[np.ndarray, " restart"]
    """Share of pairs whose two texts both get more than one half, or neither does."""
    cos: float
    """Mean |cos| over pairs of restarts; 0 where one restart is left, for nothing agrees with it."""
    loss_rank: float
    """Rank correlation of train loss and AUROC over restarts; 0 where either is constant."""
    chosen: int
    """Row of lowest train loss."""

    @property
    def auroc_range_best_of_sign(self) -> tuple[float, float, float]:
        """Return least, median and greatest AUROC over restarts."""
        low, middle, high = np.quantile(self.auroc_best_of_sign, [0.0, 0.5, 1.0])
        return float(low), float(middle), float(high)

    @property
    def test_loss_median(self) -> float:
        """Return the median test loss over restarts."""
        return float(np.median(self.test_loss))

    @property
    def beats_constant(self) -> bool:
        """Whether that median is below the constant probe's."""
        return self.test_loss_median < CONSTANT_LOSS


def dispersion(fit: CcsFit, test: PairActivations, labels: Int[np.ndarray, " pair"]) -> CcsSpread:
    """Return what the restarts of a fit do on other pairs.

    Args:
        fit: restarts on train pairs.
        test: pairs normalised with the train pairs' statistics.
        labels: 1 where the + text is true, 0 where the - text is; both present. Used for AUROC alone.
    """
    p, q = fit.answers(test)
    areas = auroc((test.pos - test.neg) @ fit.vectors.T, labels)
    areas = np.maximum(areas, 1 - areas)
    return CcsSpread(
        auroc_best_of_sign=areas,
        train_loss=fit.train_loss,
        test_loss=loss_of(p, q)[0],
        inconsistency=np.abs(p + q - 1).mean(axis=1),
        one_sided=((p > 0.5) == (q > 0.5)).mean(axis=1),
        cos=mean_cos(fit.vectors),
        loss_rank=_rank_correlation(fit.train_loss, areas),
        chosen=fit.chosen,
    )


def mean_cos(vectors: Float[np.ndarray, "restart width"]) -> float:
    """Return the mean |cos| over pairs of unit vectors; 0 where there is one vector."""
    if len(vectors) < 2:
        return 0.0
    return float(np.abs(vectors @ vectors.T)[np.triu_indices(len(vectors), 1)].mean())


def _rank_correlation(a: Float[np.ndarray, " restart"], b: Float[np.ndarray, " restart"]) -> float:
    ranks = [rankdata(x) - (len(x) + 1) / 2 for x in (a, b)]
    size = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1] / size) if size else 0.0
