"""What the hours say: each signal against the same hours of earlier weeks, with its numbers. Pandas and numpy only.

A signal is judged over the shortest of WINDOWS up to an hour that holds enough clicks (purchases), always against windows as long
at the same place of earlier weeks. First decisions are judged; the weeks before are taken as they are published, so that what was
corrected does not count as usual. Nothing that became known after the end of an hour is looked at.

A model is to blame only for what the traffic can't explain: where clicks are missing or too many, all of these may have been
robots or none of them, so any share between these two is the traffic's.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy.special import betainc, ndtri, pdtr  # type: ignore[import-untyped]

from slidr.config import MonitoringConf
from slidr.curves import TOTAL
from slidr.monitoring import grid, score_signals, windows
from slidr.monitoring.grid import Array
from slidr.monitoring.metrics import AGES
from slidr.monitoring.windows import WINDOWS, Counts, Places, Tried
from slidr.scoring import EMPTY, NULLS

COLUMNS = ["time", "signal", "place", "hours", "count", "value", "usual", "sigmas", "weeks", "verdict"]
LABEL_OUTAGE = "label outage"
MATURED = "fpr_matured"
FALLEN = 3  # times fewer invalid clicks than the traffic explains are the model's fault
NEVER, SURE = 1e-300, 1 - 1e-12  # chances are not told apart beyond these
STEADY = 0.8  # of `min_sigmas` are enough where purchases stay away: people come in no bursts as robots do
MIN_EXPECTED_PURCHASES = 12.0  # below, that none come in may be chance


@np.errstate(invalid="ignore", divide="ignore")  # shares of nothing are NaN
def judge(hours: pd.DataFrame, feed: pd.DataFrame, *, conf: MonitoringConf, matured_after: int, until: pd.Timestamp) -> pd.DataFrame:
    """One row per hour, signal and place: COLUMNS, for all hours from the first of `hours` up to `until`, the last that is over. Hours
    without decisions have 0 clicks.

    hours: as `metrics.by_hour` gives them. feed: as `metrics.purchase_feed` gives it. matured_after: hours from the end of an hour
    until the labels of its day are there for certain. `time` is the last hour of the window, so a row is known at its end;
    `value` and `usual` are clicks (volume), purchases (label outage), shares in [0, 1] else; `sigmas` how far value is from usual.
    """
    times = pd.date_range(hours["time"].min(), until, freq="h")
    now, past = (_places(hours[hours["view"] == view], times) for view in ("first", "published"))
    whole = now[TOTAL], past[TOTAL]
    signals = [
        _volume(*whole, conf),
        _ivr(now, past, conf),
        _typical_ivr(now, past, conf),
        score_signals.shift(now, past, conf),
        score_signals.ivr_given_scores(*whole, conf),
        score_signals.empty_given_scores(now, past, conf),
        _nothing(*whole, conf, "empty_features", EMPTY, most=1.0),
        _nothing(*whole, conf, "null_features", NULLS, most=0.5),  # every click has an address
        _coverage(*whole, conf),
    ]
    signals += [_slice_ivr(now[place], past[place], conf, place) for place in now if place != TOTAL and place in past]
    signals += list(_fpr(*whole, conf, matured_after))
    signals += list(_label_outage(feed, past, times, conf))
    table = pd.concat([signal.assign(time=times) for signal in signals], ignore_index=True)[COLUMNS]
    return table.replace({name: [np.inf, -np.inf] for name in ("value", "usual", "sigmas")}, np.nan)


def _places(hours: pd.DataFrame, times: pd.DatetimeIndex) -> dict[str, Counts]:
    """Counts by hour of each report slice and of all; hours without a click have 0, and what is not known of an hour is NaN."""
    counts = [name for name in hours.columns if name not in ("time", "report_slice", "model_version", "view")]
    slices = hours.groupby(["report_slice", "time"])[counts].sum(min_count=1)
    whole = slices.groupby("time").sum(min_count=1)
    first = hours["time"].min() if len(hours) else times[-1] + pd.Timedelta(hours=1)
    found = {TOTAL: whole, **{str(name): rows.droplevel(0) for name, rows in slices.groupby("report_slice")}}
    return {name: _arrays(rows, times, first) for name, rows in found.items()}


def _arrays(rows: pd.DataFrame, times: pd.DatetimeIndex, first: pd.Timestamp) -> Counts:
    quiet = times.difference(rows.index)
    filled = rows.reindex(times)
    filled.loc[quiet[quiet >= first]] = 0.0
    return {str(name): filled[name].to_numpy(dtype=np.float64) for name in filled}


def _volume(now: Counts, past: Counts, conf: MonitoringConf) -> pd.DataFrame:
    """Clicks; `watch` where they are more than `max_volume_ratio` times the usual, or less than 1 / this."""
    tried = []
    for hours in WINDOWS:
        clicks, before = (grid.trailing(counts["clicks"], hours) for counts in (now, past))
        log = grid.usual(np.log1p(before), lambda middle: np.exp(-middle / 2), weeks=conf.weeks)
        usual = np.expm1(log.median)
        sigmas = (np.log1p(clicks) - log.median) / log.sigma
        apart = np.maximum(clicks, usual) > conf.max_volume_ratio * np.minimum(clicks, usual)
        bad = apart & (np.abs(sigmas) >= conf.min_sigmas)
        enough = np.fmax(usual, np.nan_to_num(clicks)) >= conf.min_clicks
        tried.append(windows.numbers(hours, clicks, clicks, usual, sigmas, log.weeks, bad, enough))
    return windows.select("volume", TOTAL, tried, conf)


def _ivr(now: Places, past: Places, conf: MonitoringConf) -> pd.DataFrame:
    """Invalid clicks. More of them are `watch` only: one robot can make much of an hour's clicks."""
    tried = []
    for hours in WINDOWS:
        tried.append(_whole_ivr(now[TOTAL], past[TOTAL], hours, conf)[0])
    return windows.select("ivr", TOTAL, tried, conf)


def _typical_ivr(now: Places, past: Places, conf: MonitoringConf) -> pd.DataFrame:
    """IVR of the median slice by clicks: a robot is in one or two slices, a model in all of them. More counts only where all clicks
    together say so, too, and is blamed on the model where more clicks than usual can't explain it."""
    tried = []
    for hours in WINDOWS:
        whole, most = _whole_ivr(now[TOTAL], past[TOTAL], hours, conf)
        share, before = (windows.median_slice(counts, "invalid", "clicks", hours) for counts in (now, past))
        n, n_past = (grid.trailing(counts[TOTAL]["clicks"], hours) for counts in (now, past))
        numbers, high = _ivr_of(share, before, n, n_past, hours, conf, slices=len(now) - 1)
        too = (whole["sigmas"] >= conf.min_sigmas / 2) & windows.apart(whole["value"], whole["usual"], conf)
        risen = (numbers["bad"] > 0) & (share > numbers["usual"])
        more = (share - high >= conf.min_ivr_difference / 2) & (whole["value"] - most >= conf.min_ivr_difference / 2)
        numbers["bad"] = np.where(risen, too + 1 * (too & more), numbers["bad"])
        tried.append(numbers)
    return windows.select("ivr_of_median_slice", TOTAL, tried, conf)


def _whole_ivr(now: Counts, past: Counts, hours: int, conf: MonitoringConf) -> tuple[Tried, Array]:
    (k, n), (k_past, n_past) = ([grid.trailing(c[name], hours) for name in ("invalid", "clicks")] for c in (now, past))
    return _ivr_of(_shares(k, n), _shares(k_past, n_past), n, n_past, hours, conf, slices=1)


def _ivr_of(share: Array, past: Array, n: Array, n_past: Array, hours: int, conf: MonitoringConf, *, slices: int) -> tuple[Tried, Array]:
    """(numbers, highest share that the traffic explains) of shares of which each stands for one of so many slices.

    Rises are told on the plain scale, falls on that of logarithms: bursts of robots make the former noisy, not the latter.
    """
    least = conf.min_clicks if slices == 1 else slices * conf.min_clicks / 2
    before = np.where(n_past >= conf.min_clicks, past, np.nan)
    usual = grid.usual(before, windows.chance(n, n_past, slices), weeks=conf.weeks)
    floor = 0.5 * slices / n  # the share of half a click in a slice: 0 has no logarithm
    log = grid.usual(np.log(before + floor), _log_chance(n, n_past, floor), weeks=conf.weeks)
    rise, fall = (share - usual.median) / usual.sigma, (np.log(share + floor) - log.median) / log.sigma
    low, high = windows.explained(usual.median, n, grid.median(grid.earlier(n_past, conf.weeks))[0])
    risen = windows.apart(share, usual.median, conf) & (rise >= conf.min_sigmas)
    fallen = (share < usual.median / conf.max_ivr_ratio) & (fall <= -conf.min_sigmas)
    bad = risen + fallen + 1 * (fallen & (share < low / FALLEN))
    sigmas = np.where(share < usual.median, fall, rise)
    return windows.numbers(hours, n, share, usual.median, sigmas, usual.weeks, bad, n >= least), high


def _log_chance(n: Array, n_past: Array, floor: Array) -> Callable[[Array], Array]:
    """Sigma of the logarithm of a share by chance alone, of its usual logarithm."""
    sigma = windows.chance(n, n_past)
    return lambda usual: sigma(np.exp(usual)) / np.fmax(np.exp(usual), floor)


def _shares(k: Array, n: Array) -> Array:
    return k / n


def _slice_ivr(now: Counts, past: Counts, conf: MonitoringConf, place: str) -> pd.DataFrame:
    """Invalid clicks of one slice; `roll back` where its valid clicks are gone, not only more invalid ones there."""
    tried = []
    for hours in WINDOWS:
        n, share, usual = windows.share("invalid", "clicks", now, past, hours, conf)
        sigmas = (share - usual.median) / usual.sigma
        valid, before = (grid.trailing(counts["clicks"] - counts["invalid"], hours) for counts in (now, past))
        log = grid.usual(np.log1p(before), lambda middle: np.exp(-middle / 2), weeks=conf.weeks)
        fewer = np.minimum(0, np.log(n / grid.median(grid.earlier(grid.trailing(past["clicks"], hours), conf.weeks))[0]))
        lost = np.log1p(valid) - log.median - fewer
        gone = (lost <= -np.log(conf.max_volume_ratio)) & (lost / log.sigma <= -conf.min_sigmas)
        bad = 2 * (windows.apart(share, usual.median, conf) & (sigmas >= conf.min_sigmas) & gone)
        tried.append(windows.numbers(hours, n, share, usual.median, sigmas, usual.weeks, bad, n >= conf.min_clicks))
    return windows.select("ivr", place, tried, conf)


def _coverage(now: Counts, past: Counts, conf: MonitoringConf) -> pd.DataFrame:
    """Invalid clicks among those that are heavy by themselves; `watch` where fewer are caught, no more: robots may have changed."""
    tried = []
    for hours in WINDOWS:
        n, share, usual = windows.share("heavy_now_invalid", "heavy_now", now, past, hours, conf)
        sigmas = (share - usual.median) / usual.sigma
        bad = windows.apart(share, usual.median, conf) & (sigmas <= -conf.min_sigmas)
        tried.append(windows.numbers(hours, n, share, usual.median, sigmas, usual.weeks, bad, n >= conf.min_clicks))
    return windows.select("coverage", TOTAL, tried, conf)


def _nothing(now: Counts, past: Counts, conf: MonitoringConf, signal: str, permille: str, *, most: float) -> pd.DataFrame:
    """Features that say nothing (NULL or 0; NULL, which healthy counters seldom are) among those of all clicks that slidr scored; `watch`
    where the number of clicks can't explain it: the counters fail, whatever the model makes of them."""
    tried = []
    for hours in WINDOWS:
        (k, n), (k_past, n_past) = ([grid.trailing(c[name], hours) for name in (permille, "featured")] for c in (now, past))
        share, before = k / n / 1000, np.where(n_past >= conf.min_clicks, k_past / n_past / 1000, np.nan)
        # A click's share of many features varies less than a yes or no does: half as much, until the hours say otherwise.
        usual = grid.usual(before, windows.chance(4 * n, 4 * n_past), weeks=conf.weeks)
        low, high = windows.explained(usual.median, n, grid.median(grid.earlier(n_past, conf.weeks))[0], most)
        sigmas = (share - usual.median) / usual.sigma
        bad = (np.maximum(share - high, low - share) >= conf.max_empty_shift) & (np.abs(sigmas) >= conf.min_sigmas)
        tried.append(windows.numbers(hours, n, share, usual.median, sigmas, usual.weeks, bad, n >= conf.min_clicks))
    return windows.select(signal, TOTAL, tried, conf)


def _fpr(now: Counts, past: Counts, conf: MonitoringConf, matured_after: int) -> Iterator[pd.DataFrame]:
    """Invalid clicks among those whose purchase was known at an age, and among all of matured days; `roll back` where more are."""
    ages = {f"fpr_{age}h": (f"bought_{age}h", age) for age in AGES}
    for signal, (name, age) in {**ages, MATURED: ("purchasing", matured_after)}.items():
        yield _harm(signal, name, now, past, age, conf)


def _harm(signal: str, name: str, now: Counts, past: Counts, age: int, conf: MonitoringConf) -> pd.DataFrame:
    """Purchases are few, so earlier weeks count as a whole, and chance is told by the binomial distribution."""
    (k_now, n_now), (k_past, n_past) = ([grid.later(c[part], age) for part in (f"{name}_invalid", name)] for c in (now, past))
    weeks_WT = windows.weekly(k_past, n_past, conf.weeks)
    usual, weeks = grid.median(weeks_WT)
    # Weeks differ, and those of one person are invalid together: what the worst of the ordinary weeks had is no surprise.
    expected = np.fmax(usual + 2 * grid.MAD_TO_SIGMA * grid.median(np.abs(weeks_WT - usual))[0], 0.005)
    tried = []
    for hours in WINDOWS:
        k, n = grid.trailing(k_now, hours), grid.trailing(n_now, hours)
        share = k / n
        sigmas = -ndtri(np.clip(_at_least(k, n, np.clip(expected, 0, 1)), NEVER, SURE))
        bad = 2 * (windows.apart(share, usual, conf) & (share > usual) & (sigmas >= conf.min_sigmas))
        enough = n >= conf.min_purchases
        tried.append(windows.numbers(hours, n, share, usual, sigmas, weeks, bad, enough))
    return windows.select(signal, TOTAL, tried, conf)


def _at_least(k: Array, n: Array, p: Array) -> Array:
    """Chance that at least k of n are hit where each is with chance p."""
    return np.where(k > 0, betainc(np.maximum(k, 1), n - np.maximum(k, 1) + 1, p), 1.0)


def _label_outage(feed: pd.DataFrame, past: Places, times: pd.DatetimeIndex, conf: MonitoringConf) -> Iterator[pd.DataFrame]:
    """Purchases by the hour that they came in, per click, of all marketplaces and of each; `watch` where they stay away."""
    clicks = {TOTAL: past[TOTAL]["clicks"]}
    for place, counts in past.items():
        if place != TOTAL:
            market = place.rsplit("/", 1)[-1]
            clicks[market] = clicks.get(market, 0.0) + np.nan_to_num(counts["clicks"])
    by_place = {TOTAL: feed.groupby("time")["purchases"].sum()}
    by_place |= {str(name): rows.set_index("time")["purchases"] for name, rows in feed.groupby("marketplace")}
    first = feed["time"].min() if len(feed) else times[-1] + pd.Timedelta(hours=1)
    for place, n in clicks.items():
        found = by_place.get(place, pd.Series(dtype=np.float64)).reindex(times)
        arrived = np.where(times < first, np.nan, found.fillna(0).to_numpy(dtype=np.float64))
        yield _missing_purchases(arrived, n, place, conf)


def _missing_purchases(arrived: Array, clicks: Array, place: str, conf: MonitoringConf) -> pd.DataFrame:
    tried = []
    for hours in WINDOWS:
        found, n = grid.trailing(arrived, hours), grid.trailing(clicks, hours)
        usual, weeks = grid.median(grid.earlier(found, conf.weeks))
        clicks_usual = grid.median(grid.earlier(n, conf.weeks))[0]
        # More clicks than usual may be robots', which buy nothing.
        expected = usual * np.clip(n / clicks_usual, 0, 1)
        excess = np.fmax(np.nan_to_num(grid.recent_median((found - expected) ** 2 / expected, conf.weeks) / 0.4549), 1.0)
        sigmas = ndtri(np.clip(pdtr(np.ceil(found / excess), expected / excess), NEVER, SURE))
        bad = (found < expected / 2) & (sigmas <= -conf.min_sigmas * STEADY)
        enough = expected >= MIN_EXPECTED_PURCHASES * excess
        tried.append(windows.numbers(hours, n, found, expected, sigmas, weeks, bad, enough))
    return windows.select(LABEL_OUTAGE, place, tried, conf)
