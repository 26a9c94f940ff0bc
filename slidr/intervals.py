"""How far a share that was counted may be by chance from that of all clicks alike."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv  # type: ignore[import-untyped]

LEVEL = 0.95  # of all intervals


def interval(part: ArrayLike, whole: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Clopper–Pearson interval of the shares part / whole at LEVEL: exact, so it holds for counts of 0 too; NaN of nothing.

    It takes clicks as independent. Those of one session are not, so for IVR and coverage it is too narrow rather than too wide.
    """
    k, n = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    tail = (1 - LEVEL) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, tail), 0.0)
        high = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - tail), 1.0)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)
