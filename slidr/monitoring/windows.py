"""Windows of hours, and what they say: counts of a place against the same hours of earlier weeks. Pandas and numpy only.

Shape suffixes: S report slices, T hours, W earlier weeks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slidr.config import MonitoringConf
from slidr.curves import TOTAL
from slidr.monitoring import grid
from slidr.monitoring.grid import Array, Usual

OK, WATCH, ROLL_BACK = "ok", "watch", "roll back"
NO_HISTORY, TOO_FEW = "not enough history", "too few clicks"
WORST_FIRST = (ROLL_BACK, WATCH, OK, NO_HISTORY, TOO_FEW)
WINDOWS = (2, 3, 4, 6, 12, 24)  # hours; one alone is a burst of a robot too often
SLICES_CLICKS = 5  # times `min_clicks`: the median slice needs some clicks in many slices
ALL_DAY = 24

Flags = NDArray[np.bool_] | NDArray[np.int_]
Tried = dict[str, NDArray[Any]]  # what one width of window says, by hour (T)
Counts = Mapping[str, Array]  # name of a count -> its hours (T)
Places = Mapping[str, Counts]  # report slice, or TOTAL


def select(signal: str, place: str, tried: Sequence[Tried], conf: MonitoringConf) -> pd.DataFrame:
    """Of the windows tried at each hour the shortest with enough clicks; `bad` is 0 (ok), 1 (watch) or 2 (roll back)."""
    chosen, any_enough = grid.first_enough(np.stack([one["enough"] for one in tried]).astype(bool))
    names = ("hours", "count", "value", "usual", "sigmas", "weeks", "bad")
    picked = {name: np.choose(chosen, [np.broadcast_to(one[name], chosen.shape) for one in tried]) for name in names}
    table = pd.DataFrame({**picked, "signal": signal, "place": place})
    known = any_enough & (picked["weeks"] >= conf.min_weeks)
    table["verdict"] = np.select(
        [known & (picked["bad"] == n) for n in (0, 1, 2)] + [any_enough], [OK, WATCH, ROLL_BACK, NO_HISTORY], TOO_FEW
    )
    return table


def numbers(hours: int, count: Array, value: Array, usual: Array, sigmas: Array, weeks: Array, bad: Flags, enough: Flags) -> Tried:
    """What one window of so many hours says at each hour."""
    found = {"count": count, "value": value, "usual": usual, "sigmas": sigmas, "weeks": weeks, "bad": bad, "enough": enough}
    return {"hours": np.full(len(count), hours), **found}


def share(part: str, whole: str, now: Counts, past: Counts, hours: int, conf: MonitoringConf) -> tuple[Array, Array, Usual]:
    """(clicks of the window, share, what is usual)."""
    (k, n), (k_past, n_past) = ((grid.trailing(counts[name], hours) for name in (part, whole)) for counts in (now, past))
    before = np.where(n_past >= conf.min_clicks / 4, k_past / n_past, np.nan)
    return n, k / n, grid.usual(before, chance(n, n_past), weeks=conf.weeks)


def chance(n: Array, n_past: Array, slices: int = 1) -> Callable[[Array], Array]:
    """Sigma of a share by chance alone, of its usual value: among the clicks there are now or were before, whichever are fewer; a
    share of 0 is no certainty: it is taken for that of a click in one of so many slices."""

    def sigma(usual: Array) -> Array:
        fewer = np.fmin(n, n_past)
        found: Array = np.sqrt(np.fmax(usual, slices / fewer) * (1 - np.fmin(usual, 0.99)) / fewer)
        return found

    return sigma


def apart(a: Array, b: Array, conf: MonitoringConf) -> NDArray[np.bool_]:
    """Whether two shares differ enough to matter, whatever chance says."""
    found: NDArray[np.bool_] = (np.abs(a - b) >= conf.min_ivr_difference) & (np.maximum(a, b) > conf.max_ivr_ratio * np.minimum(a, b))
    return found


def explained(usual: Array, n: Array, clicks: Array, most: float = 1.0) -> tuple[Array, Array]:
    """Lowest and highest share of invalid clicks that the traffic alone can make of the usual one and the usual number of clicks: all
    that are too many, or missing, are robots' or people's. `most` is the share that one click can have."""
    invalid, extra = usual * clicks, most * (n - clicks)
    low = np.clip((invalid + np.minimum(extra, 0)) / n, 0, 1)
    return low, np.clip((invalid + np.maximum(extra, 0)) / n, 0, 1)


def median_slice(places: Places, part: str, whole: str, hours: int) -> Array:
    """The share that half of the clicks are in slices at or below; NaN without clicks."""
    sums = [[grid.trailing(c[name], hours) for name in (part, whole)] for place, c in places.items() if place != TOTAL]
    k_ST, n_ST = (np.nan_to_num(np.stack([pair[position] for pair in sums])) for position in (0, 1))
    return of_median_slice(k_ST / n_ST, n_ST)


def of_median_slice(value_ST: Array, n_ST: Array) -> Array:
    """The value (T) that half of the clicks are in slices at or below; values of slices without clicks don't count."""
    value_ST = np.where(n_ST > 0, value_ST, np.inf)
    order = np.argsort(value_ST, axis=0)
    weight_ST = np.cumsum(np.take_along_axis(n_ST, order, axis=0), axis=0)
    half = np.argmax(weight_ST >= weight_ST[-1] / 2, axis=0)
    found = np.take_along_axis(np.take_along_axis(value_ST, order, axis=0), half[None], axis=0)[0]
    return np.where(np.isfinite(found), found, np.nan)


def weekly(part: Array, whole: Array, weeks: int) -> Array:
    """Share of `part` in each of so many whole weeks up to a day before each hour, the newest first (W, T); NaN where it is not known."""
    return whole_weeks(grid.trailing(part, grid.WEEK) / grid.trailing(whole, grid.WEEK), weeks)


def whole_weeks(of_week: Array, weeks: int) -> Array:
    """What the week up to each hour says (T), of so many weeks up to a day before each hour, the newest first (W, T)."""
    newest = grid.later(of_week, ALL_DAY)
    return np.stack([newest, *grid.earlier(newest, weeks - 1)])
