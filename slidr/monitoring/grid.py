"""Counts on an unbroken line of hours, and what they were in the same hours of earlier weeks. Arrays only.

Shape suffixes: T hours, W earlier weeks (the newest first). NaN means that an hour or a week is not known.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
WEEK = 168  # hours
MAD_TO_SIGMA = 1.4826  # of a normal distribution
MEDIAN_LOSS = 1.57  # variance of a median over that of a mean, of many normal values


@dataclass(frozen=True)
class Usual:
    """What earlier weeks say about each hour (T): their median, its sigma for one new value, how many weeks were there."""

    median: Array
    sigma: Array
    weeks: Array


def trailing(x_T: Array, hours: int) -> Array:
    """Sum over the `hours` hours up to and including each; NaN where one of them is not known."""
    sums = np.cumsum(np.concatenate([[0.0], np.nan_to_num(x_T)]))
    gaps = np.cumsum(np.concatenate([[0], np.isnan(x_T)]))
    result = np.full(len(x_T), np.nan)
    if len(x_T) >= hours:
        whole = gaps[hours:] == gaps[:-hours]
        result[hours - 1 :] = np.where(whole, sums[hours:] - sums[:-hours], np.nan)
    return result


def later(x_T: Array, hours: int) -> Array:
    """Each hour holds the value of `hours` hours before."""
    return np.concatenate([np.full(min(hours, len(x_T)), np.nan), x_T[: max(len(x_T) - hours, 0)]])


def earlier(x_T: Array, weeks: int) -> Array:
    """x_WT: the same hour 1 to `weeks` weeks before."""
    return np.stack([later(x_T, WEEK * week) for week in range(1, weeks + 1)])


def median(x_WT: Array) -> tuple[Array, Array]:
    """(median, number) of the known weeks of each hour; NaN where there is none."""
    ordered = np.sort(x_WT, axis=0)  # NaN last
    known = np.count_nonzero(~np.isnan(x_WT), axis=0)
    low, high = (np.take_along_axis(ordered, np.maximum(place, 0)[None], axis=0)[0] for place in ((known - 1) // 2, known // 2))
    return (low + high) / 2, known.astype(float)


def usual(past_T: Array, noise_T: Callable[[Array], Array], *, weeks: int) -> Usual:
    """Median and spread of the same hour of earlier weeks.

    A spread over a few weeks is a poor measure: it is at least what chance gives, `noise_T` (of the usual value), times the factor
    by which the hours of all these weeks differed more than that.
    """
    past_WT = earlier(past_T, weeks)
    middle, known = median(past_WT)
    own = MAD_TO_SIGMA * median(np.abs(past_WT - middle))[0]
    chance = noise_T(middle)
    excess = np.maximum(recent_median(np.abs(past_T - middle) / chance, weeks) * MAD_TO_SIGMA, 1.0)
    sigma = np.fmax(own, chance * np.where(np.isnan(excess), 1.0, excess)) * np.sqrt(1 + MEDIAN_LOSS / np.maximum(known, 1))
    return Usual(middle, sigma, known)


def recent_median(x_T: Array, weeks: int) -> Array:
    """Median over all known hours of the `weeks` weeks before each hour; NaN where fewer than a day is known."""
    recent = pd.Series(x_T).rolling(WEEK * weeks, min_periods=24).median().shift(1)
    found: Array = recent.to_numpy(dtype=np.float64)
    return found


def first_enough(enough_NT: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """(position of the first window that is enough, whether there is one) of each hour."""
    return np.argmax(enough_NT, axis=0), enough_NT.any(axis=0)
