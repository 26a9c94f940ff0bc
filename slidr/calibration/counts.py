"""Counts at the few thresholds that can matter, by slice and fold: all that the methods look at, however many clicks there were.

Shapes: S slices, K folds, C thresholds, highest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slidr.curves import BINS, THRESHOLDS

MOST_THRESHOLDS = 2000

Numbers = NDArray[np.int64]
Shares = NDArray[np.float64]
Levels = Sequence[Numbers]


@dataclass(frozen=True)
class Counts:
    """Clicks above each threshold (S, K, C) and in all (S, K). A user's clicks are all in one fold.

    `thresholds` (C,) descend from 1, which invalidates nothing. An optimal threshold lies right above a bin in which somebody
    purchased: going lower is free until there. So these are the thresholds, and nothing is lost. Of more than MOST_THRESHOLDS the
    ones are kept that lie nearest to FPRs of (i / MOST_THRESHOLDS)²: at an FPR f the distance of two is at most
    2 sqrt(f) / MOST_THRESHOLDS, 1 % of a budget of 1 %.
    """

    slices: tuple[str, ...]
    thresholds: Shares
    clicks: Numbers
    purchasing: Numbers
    heavy: Numbers
    all_clicks: Numbers
    all_purchasing: Numbers
    all_heavy: Numbers

    @property
    def folds(self) -> int:
        return self.clicks.shape[1]

    def of_folds(self, chosen: NDArray[np.bool_], positions: Numbers | None = None) -> "Sums":
        """The clicks of some folds together; `chosen` (K,). `positions`: of some thresholds only."""
        at = slice(None) if positions is None else positions
        above = {name: getattr(self, name)[:, :, at][:, chosen].sum(axis=1) for name in ("clicks", "purchasing", "heavy")}
        return Sums(**above, **{name: getattr(self, name)[:, chosen].sum(axis=1) for name in ("all_clicks", "all_purchasing", "all_heavy")})


@dataclass(frozen=True)
class Sums:
    """Clicks above each threshold (S, C) and in all (S,) of some folds."""

    clicks: Numbers
    purchasing: Numbers
    heavy: Numbers
    all_clicks: Numbers
    all_purchasing: Numbers
    all_heavy: Numbers

    def spend(self, position: Numbers) -> Numbers:
        """Purchasing clicks above the thresholds at `position` (S, L), of all slices: (L,)."""
        found: Numbers = np.take_along_axis(self.purchasing, position, axis=1).sum(axis=0)
        return found

    def gain(self, position: Numbers) -> Numbers:
        """The same of all clicks."""
        found: Numbers = np.take_along_axis(self.clicks, position, axis=1).sum(axis=0)
        return found


def counts(histogram: pd.DataFrame) -> Counts:
    """From rows (slice, fold, bin, clicks, purchasing, heavy), one per slice, fold and occupied score bin, as `curves` takes them."""
    row, slices = pd.factorize(histogram["slice"], sort=True)
    fold, folds = pd.factorize(histogram["fold"], sort=True)
    bins = histogram["bin"].to_numpy(dtype=np.int64)
    kept = _kept_bins(bins, histogram["purchasing"].to_numpy(dtype=np.int64))
    place = np.searchsorted(-kept, -bins, side="right")  # of the first threshold that lies below the bin
    above: dict[str, Numbers] = {}
    for name in ("clicks", "purchasing", "heavy"):
        cells = np.zeros((len(slices), len(folds), len(kept) + 1), dtype=np.int64)
        np.add.at(cells, (row, fold, place), histogram[name].to_numpy(dtype=np.int64))
        summed = cells.cumsum(axis=2)
        above |= {name: summed[:, :, :-1], f"all_{name}": summed[:, :, -1]}
    return Counts(slices=tuple(str(name) for name in slices), thresholds=THRESHOLDS[kept], **above)


def _kept_bins(bins: Numbers, purchasing: Numbers) -> Numbers:
    """k of the thresholds k/10000, descending; a threshold k invalidates the bins above k."""
    of_bin = np.bincount(bins, weights=purchasing, minlength=BINS + 1)
    kept: Numbers = np.unique(np.concatenate([[0, BINS], np.flatnonzero(of_bin)]))[::-1]
    if len(kept) <= MOST_THRESHOLDS:
        return kept
    above = (of_bin.sum() - np.cumsum(of_bin))[kept] / of_bin.sum()
    wanted = (np.arange(MOST_THRESHOLDS) / (MOST_THRESHOLDS - 1)) ** 2
    nearest = np.minimum(np.searchsorted(above, wanted), len(kept) - 1)
    found: Numbers = kept[np.unique(np.concatenate([[0], nearest, [len(kept) - 1]]))]
    return found


def parents(names: tuple[str, ...]) -> Levels:
    """Which group each slice is in (S,), level by level, from all slices together to the slices themselves. `a/b` and `a/c` are both in
    the group `a`. -1 where a group has the same slices as the one above: nothing is borrowed from itself."""
    levels: list[Numbers] = []
    size = np.full(len(names), len(names) + 1)
    for parts in range(max(name.count("/") for name in names) + 2):
        prefixes = ["/".join(name.split("/")[:parts]) for name in names]
        _, group, members = np.unique(prefixes, return_inverse=True, return_counts=True)
        levels.append(np.where(members[group] < size, group, -1))
        size = members[group]
    return levels
