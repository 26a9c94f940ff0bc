"""What the scores say: whether they moved, are decided as ever, and go with the features that they went with. Pandas and numpy only.

Shape suffixes: B parts of [0, 1] between the edges of the score distribution, S report slices, T hours.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from slidr.config import MonitoringConf
from slidr.curves import TOTAL
from slidr.monitoring import grid, windows
from slidr.monitoring.grid import Array
from slidr.monitoring.metrics import MIDDLE, SCORES
from slidr.monitoring.windows import SLICES_CLICKS, WINDOWS, Counts, Places
from slidr.scoring import EMPTY

EDGES = tuple(f"score_to_{edge}" for edge in SCORES)


def shift(now: Places, past: Places, conf: MonitoringConf) -> pd.DataFrame:
    """Share of the scores of the median slice that lie in another part of [0, 1] than usual (total variation distance), but for clicks
    of sessions that are heavy by themselves, where they are more than usual; `roll back` where the number of clicks can't explain it.
    """
    tried = []
    for hours in WINDOWS:
        n, n_past = (grid.trailing(counts[TOTAL]["scored"], hours) for counts in (now, past))
        parts, before = ([windows.median_slice(counts, edge, "scored", hours) for edge in EDGES] for counts in (now, past))
        known = [grid.median(grid.earlier(np.where(n_past >= conf.min_clicks, part, np.nan), conf.weeks)) for part in before]
        middles, weeks = [middle for middle, _ in known], known[0][1]
        moved, earlier = (_distance(found, middles) for found in (parts, before))
        usual, spread = _usual_distance(earlier, conf)
        clicks = grid.median(grid.earlier(n_past, conf.weeks))[0]
        sigmas = (moved - usual) / np.fmax(spread, 0.7 * np.sqrt(SLICES_CLICKS / n))
        _, heavy, usually = windows.share("heavy_now", "clicks", now[TOTAL], past[TOTAL], hours, conf)
        beyond = moved - usual - np.fmax(heavy - usually.median, 0)
        explained = np.abs(n - clicks) / np.maximum(n, clicks)
        bad = (beyond >= conf.max_score_shift) & (sigmas >= conf.min_sigmas)
        blame = bad & (beyond - explained >= conf.max_score_shift / 2)
        tried.append(windows.numbers(hours, n, moved, usual, sigmas, weeks, bad + 1 * blame, n >= SLICES_CLICKS * conf.min_clicks))
    return windows.select("score_shift", TOTAL, tried, conf)


def _distance(parts: list[Array], middles: list[Array]) -> Array:
    """Total variation distance between two distributions, given by their shares up to each edge."""
    apart = np.stack([part - middle for part, middle in zip(parts, middles, strict=True)])
    zero = np.zeros((1, apart.shape[1]))
    found: Array = 0.5 * np.abs(np.diff(np.concatenate([zero, apart, zero]), axis=0)).sum(axis=0)
    return found


def _usual_distance(earlier: Array, conf: MonitoringConf) -> tuple[Array, Array]:
    """(usual distance, its spread) of the hours of the weeks before each; distances are never 0."""
    usual = grid.recent_median(earlier, conf.weeks)
    return usual, grid.MAD_TO_SIGMA * grid.recent_median(np.abs(earlier - usual), conf.weeks)


def ivr_given_scores(now: Counts, past: Counts, conf: MonitoringConf) -> pd.DataFrame:
    """Invalid clicks among those with a score, beside how many of clicks with these scores usually are: robots and sales change the
    scores, not this. Counts where all clicks together are invalid much more, or less, often, too: a version may have a scale of its own,
    and thresholds that go with it. `roll back` where more are invalid, and more than as many times more as there are clicks: robots
    score high in any part of [0, 1]."""
    weeks = grid.median(windows.weekly(past["scored_invalid"], past["scored"], conf.weeks))[1]
    parts = _parts(now), _parts(past)
    usual_BT = np.stack([grid.median(windows.weekly(k, n, conf.weeks))[0] for k, n in zip(*parts[1], strict=True)])
    tried = []
    for hours in WINDOWS:
        (n, share, expected), (_, before, before_expected) = (_decided(*one, usual_BT, hours) for one in parts)
        spread = grid.MAD_TO_SIGMA * grid.recent_median(np.abs(before - before_expected), conf.weeks)
        sigmas = (share - expected) / np.fmax(spread, np.sqrt(np.fmax(expected, 1 / n) / n))
        clicks, ivr, usual = windows.share("invalid", "clicks", now, past, hours, conf)
        more = clicks / grid.median(grid.earlier(grid.trailing(past["clicks"], hours), conf.weeks))[0]
        risen = share > expected
        most = expected * np.fmax(more, 1)
        same = (risen == (ivr > usual.median)) & windows.apart(ivr, usual.median, conf)
        bad = same & windows.apart(share, expected, conf) & (np.abs(sigmas) >= conf.min_sigmas)
        blame = bad & (share > most) & windows.apart(share, most, conf)
        tried.append(windows.numbers(hours, n, share, expected, sigmas, weeks, bad + 1 * blame, n >= conf.min_clicks))
    return windows.select("ivr_given_scores", TOTAL, tried, conf)


def _parts(counts: Counts) -> tuple[Array, Array]:
    """(invalid clicks, clicks) by the part that their score lies in and hour (B, T)."""
    invalid, clicks = (np.stack([counts[f"{edge}{suffix}"] for edge in (*EDGES, "scored")]) for suffix in ("_invalid", ""))
    return np.diff(invalid, axis=0, prepend=0), np.diff(clicks, axis=0, prepend=0)


def _decided(invalid_BT: Array, clicks_BT: Array, usual_BT: Array, hours: int) -> tuple[Array, Array, Array]:
    """(clicks with a score, share of them that is invalid, share that usually is of clicks with these scores). Scores that no click had
    before say nothing: as many of them as are invalid are expected to be."""
    k_BT, n_BT = (np.stack([grid.trailing(part, hours) for part in parts]) for parts in (invalid_BT, clicks_BT))
    n = n_BT.sum(axis=0)
    return n, k_BT.sum(axis=0) / n, np.where(np.isnan(usual_BT), k_BT, usual_BT * n_BT).sum(axis=0) / n


def empty_given_scores(now: Places, past: Places, conf: MonitoringConf) -> pd.DataFrame:
    """How far low and high scores go with other features than usual: the difference in their share of NULL and 0, and how it differs
    from usual, in the median slice. `roll back` where features are as empty as ever: then the scores are another click's, or
    stand for something else."""
    usual = {place: _usual_contrast(counts, conf) for place, counts in past.items() if place != TOTAL}
    weeks = grid.median(windows.weekly(past[TOTAL][EMPTY], past[TOTAL]["featured"], conf.weeks))[1]
    tried = []
    for hours in WINDOWS:
        n = grid.trailing(now[TOTAL]["featured"], hours)
        moved, earlier = (_contrast_moved(places, usual, hours) for places in (now, past))
        middle, spread = _usual_distance(earlier, conf)
        # What `_nothing` takes for chance at a fifth of empty features, of the clicks in one of some slices.
        sigmas = (moved - middle) / np.fmax(spread, 0.2 * np.sqrt(SLICES_CLICKS / n))
        # At most a half of it can move, as against all of the share of empty features.
        bad = (moved - middle >= conf.max_empty_shift / 2) & (sigmas >= conf.min_sigmas)
        blame = bad & (np.abs(_emptier(now[TOTAL], past[TOTAL], hours, conf)) < conf.max_empty_shift)
        tried.append(windows.numbers(hours, n, moved, middle, sigmas, weeks, bad + 1 * blame, n >= SLICES_CLICKS * conf.min_clicks))
    return windows.select("empty_given_scores", TOTAL, tried, conf)


def _emptier(now: Counts, past: Counts, hours: int, conf: MonitoringConf) -> Array:
    """Share of empty features, more than in the same hours of earlier weeks."""
    share, before = (grid.trailing(c[EMPTY], hours) / grid.trailing(c["featured"], hours) / 1000 for c in (now, past))
    return share - grid.median(grid.earlier(before, conf.weeks))[0]


@dataclass(frozen=True)
class _Sides:
    """Clicks with scores up to MIDDLE and above, and their share of empty features, by hour (T)."""

    n_low: Array
    n_high: Array
    low: Array
    high: Array


def _sides(counts: Counts, hours: int) -> _Sides:
    names = ("featured", f"featured_to_{MIDDLE}", EMPTY, f"{EMPTY}_to_{MIDDLE}")
    n, n_low, k, k_low = (grid.trailing(counts[name], hours) for name in names)
    return _Sides(n_low, n - n_low, k_low / n_low / 1000, (k - k_low) / (n - n_low) / 1000)


def _usual_contrast(past: Counts, conf: MonitoringConf) -> Array:
    """Share of empty features at low scores less that at high ones: the median of whole weeks."""
    week = _sides(past, grid.WEEK)
    return grid.median(windows.whole_weeks(week.low - week.high, conf.weeks))[0]


def _contrast_moved(places: Places, usual: dict[str, Array], hours: int) -> Array:
    """How far the contrast of the median slice is from usual, at most a half: few clicks on one side say little of it."""
    moved, clicks = [], []
    for place, counts in places.items():
        if place != TOTAL:
            now = _sides(counts, hours)
            n = now.n_low + now.n_high
            apart = 2 * (now.n_low / n) * (now.n_high / n) * np.abs(now.low - now.high - usual.get(place, np.nan))
            moved.append(np.where(np.minimum(now.n_low, now.n_high) > 0, apart, 0.0))
            clicks.append(np.nan_to_num(n))
    return windows.of_median_slice(np.stack(moved), np.stack(clicks))
