"""Hours of the training window: density of labels, outages of purchases, volume of clicks.

Hours are UTC, not local: an outage is one of a pipeline, and strikes all marketplaces at one instant. A table of hours has
one row per day and hour: day (a date, or Mon … Sun), hour (0-23), clicks and other counts.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slidr.config import GuardrailsConf
from slidr.curves import share
from slidr.guardrails.checks import FALSE_STOPS, Check, at_least, at_most, left_out, poisson_at_most
from slidr.guardrails.queries import CLICKS_BY_HOUR, LABELS_BY_HOUR, ORDERS_BY_HOUR, query

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# An hour is judged only where so many humans are expected that their absence is no chance: with 10, the chance of seeing
# none is 0.00005. Below, it is pooled with the next small hours of its day.
MIN_EXPECTED = 10.0
SIGNS = {"humans": "human", "purchasing": "purchase", "high_rfm": "high-RFM"}
POOL_COLUMNS = ("day", "name", "clicks", "found", "expected", "ratio")
NAMED = 6  # hours that a message names
# The clicks of one person come together, so that counts of people's clicks vary more than by chance of single clicks. Their
# variance is measured, but not believed above this many times the mean: an outage of many hours makes it large too.
MAX_DISPERSION = 10.0
MEDIAN_CHI2 = 0.4549  # of one degree of freedom


def by_week(hours: pd.DataFrame) -> pd.DataFrame:
    """The same counts by hour of the week: day becomes Mon … Sun."""
    named = hours.assign(day=[WEEKDAYS[day.weekday()] for day in hours["day"]])
    return named.groupby(["day", "hour"], as_index=False, sort=False).sum(numeric_only=True)


def pooled_hours(hours: pd.DataFrame, *, found: str, expected: "pd.Series[float]", min_clicks: float, min_expected: float) -> pd.DataFrame:
    """One row per judged group of hours: day, name, clicks, found, expected, ratio (found / expected).

    An hour with at least `min_clicks` clicks and `min_expected` expected stands alone. The other hours of the same day are
    pooled in order until both are reached; what is left over joins the last pool of its day, or is not judged where the
    day has none.
    """
    table = hours.assign(expected=expected, found=hours[found]).sort_values(["day", "hour"])
    columns = [table[name].to_numpy() for name in ("hour", "clicks", "found", "expected")]
    days = table["day"].tolist()
    starts = [place for place, day in enumerate(days) if place == 0 or day != days[place - 1]]
    rows = []
    for start, end in pairwise([*starts, len(days)]):
        hour, clicks, counts, usual = (column[start:end] for column in columns)
        for at in _pool_day(clicks.astype(float), usual.astype(float), min_clicks=min_clicks, min_expected=min_expected):
            name = f"{days[start]} {', '.join(f'{number:02d}h' for number in hour[at])} UTC"
            sums = (int(clicks[at].sum()), int(counts[at].sum()), float(usual[at].sum()))
            rows.append((days[start], name, *sums, share(sums[1], sums[2])))
    return pd.DataFrame(rows, columns=list(POOL_COLUMNS))


def check_densities(hours: pd.DataFrame, *, min_hour_clicks: int, min_density: float) -> list[Check]:
    """Density of humans, purchasing clicks and high-RFM clicks of every hour, relative to all hours.

    Per calendar hour, since folding over weeks hides an outage of a few hours; and per hour of the week (the published
    check), unless no weekday occurs twice: then it is the same. Purchases and RFM are judged apart: each hides the other.
    """
    folded = by_week(hours)
    views = [("hour", hours)] + ([("hour of the week", folded)] if len(folded) < len(hours) else [])
    return [
        _check_density(view, table, sign, min_hour_clicks=min_hour_clicks, min_density=min_density, days=list(hours["day"]))
        for view, table in views
        for sign in SIGNS
    ]


def check_purchase_outage(hours: pd.DataFrame, orders: pd.DataFrame, *, min_hour_clicks: int, max_hours: int) -> Check:
    """Hours without one order that was known at its label time, where chance does not explain it.

    `orders` has day, hour, orders, by the hour of the order itself: this looks at the orders that came in, the density of
    purchasing clicks at the labels that were made of them. Expected are orders in proportion to clicks. Hours that are
    small are pooled; every pool counts as one hour.
    """
    name = "hours without a purchase"
    table = hours.merge(orders, on=["day", "hour"], how="left").fillna({"orders": 0})
    rate = share(float(table["orders"].sum()), float(table["clicks"].sum()))
    if not rate > 0:
        return left_out(name, max_hours, "there are no orders in the window; see the check of purchasing clicks")
    pools = pooled_hours(table, found="orders", expected=table["clicks"] * rate, min_clicks=min_hour_clicks, min_expected=MIN_EXPECTED)
    if pools.empty:
        return left_out(name, max_hours, f"fewer than {MIN_EXPECTED:g} orders are expected in every day, so none can be missed")
    chance = np.exp(-pools["expected"])
    empty = pools[(pools["found"] == 0) & (chance < FALSE_STOPS / len(pools))]
    days = list(empty["day"]) or list(hours["day"])
    advice = f"{len(pools)} hours or pools of small hours judged"
    if len(empty):
        advice = f"no order is known in {_places(empty, 'orders')}. Orders did not come in: ingest them, label the days again"
    return at_most(name, len(empty), max_hours, advice, query(ORDERS_BY_HOUR, days))


def check_volume(clicks: pd.DataFrame, *, days: Sequence[date], first_day: date, bounds: GuardrailsConf) -> list[Check]:
    """Clicks of every hour and of every day of `days` against the mean of the same hour (weekday) of up to `volume_weeks`
    earlier weeks: lowest and highest.

    `clicks` has day, hour, clicks: all clicks of the days and of the weeks before. The first day of the lake is left out of
    the weeks before: it may be half a day. One hour varies with every burst of a robot, so its bounds are wide.
    """
    hours = _beside_earlier_weeks(clicks, days, first_day, bounds.volume_weeks)
    if hours.empty:
        why = "the lake holds no day a week before to compare with"
        limits = {"hour, lowest": bounds.min_volume_ratio, "hour, highest": bounds.max_volume_ratio}
        limits |= {"day, lowest": bounds.min_day_volume_ratio, "day, highest": bounds.max_day_volume_ratio}
        return [left_out(f"click volume of an {n}".replace("an day", "a day"), b, why, minimum="lowest" in n) for n, b in limits.items()]
    pools = pooled_hours(hours, found="found", expected=hours["clicks"], min_clicks=bounds.min_hour_clicks, min_expected=0)
    whole = hours.groupby("day", as_index=False)[["clicks", "found"]].sum()
    whole = whole.assign(name=whole["day"].astype(str), expected=whole["clicks"], ratio=whole["found"] / whole["clicks"])
    weeks = bounds.volume_weeks
    return [
        *_volumes("click volume of an hour", pools, low=bounds.min_volume_ratio, high=bounds.max_volume_ratio, weeks=weeks),
        *_volumes("click volume of a day", whole, low=bounds.min_day_volume_ratio, high=bounds.max_day_volume_ratio, weeks=weeks),
    ]


def _beside_earlier_weeks(clicks: pd.DataFrame, days: Sequence[date], first_day: date, weeks: int) -> pd.DataFrame:
    """day, hour, clicks (mean of the earlier weeks), found (the hour's own), for the days that have an earlier week."""
    seen = {(row.day, row.hour): int(row.clicks) for row in clicks.itertuples()}
    whole = {day for day, _ in seen if day > first_day}
    rows = []
    for day in days:
        before = [day - timedelta(weeks=week) for week in range(1, weeks + 1) if day - timedelta(weeks=week) in whole]
        for hour in range(24) if before else ():
            usual = sum(seen.get((other, hour), 0) for other in before) / len(before)
            rows.append((day, hour, usual, seen.get((day, hour), 0)))
    return pd.DataFrame(rows, columns=["day", "hour", "clicks", "found"])


def _volumes(name: str, pools: pd.DataFrame, *, low: float, high: float, weeks: int) -> list[Check]:
    """The lowest and the highest ratio of found to expected clicks."""
    if pools.empty:
        why = "too few clicks to compare"
        return [left_out(f"{name}, lowest", low, why, minimum=True), left_out(f"{name}, highest", high, why)]
    ordered = pools.sort_values("ratio", kind="stable")
    below, above = ordered[ordered["ratio"] < low], ordered[ordered["ratio"] > high].iloc[::-1]
    judged = _judged(pools, "against the same ones of earlier weeks")
    missing = f"clicks are missing in {_places(below, 'clicks')}. Ingest them, or find out why there was no traffic"
    many = f"unusually many clicks in {_places(above, 'clicks')}. Look for an attack, or for clicks that were ingested twice"
    behind = [query(CLICKS_BY_HOUR, _around(part, weeks)) for part in (ordered.head(1), ordered.tail(1))]
    return [
        at_least(f"{name}, lowest", ordered["ratio"].iloc[0], low, missing if len(below) else judged, behind[0]),
        at_most(f"{name}, highest", ordered["ratio"].iloc[-1], high, many if len(above) else judged, behind[1]),
    ]


def check_missing(hours: pd.DataFrame, *, missing: str, what: str, min_hour_clicks: int, max_share: float) -> Check:
    """The largest share of an hour's clicks that lack something (a user, an address); small hours are pooled."""
    name = f"clicks of an hour without {what}"
    pools = pooled_hours(hours, found=missing, expected=hours["clicks"].astype(float), min_clicks=min_hour_clicks, min_expected=0)
    if pools.empty:
        return left_out(name, max_share, f"no day has {min_hour_clicks} clicks")
    above = pools[pools["ratio"] > max_share]
    advice = f"no {what} in {_places(above, 'clicks')}. Look at the source's column" if len(above) else _judged(pools, "by themselves")
    return at_most(name, pools["ratio"].max(), max_share, advice, query(CLICKS_BY_HOUR, list(above["day"]) or list(hours["day"])))


def _check_density(view: str, hours: pd.DataFrame, sign: str, *, min_hour_clicks: int, min_density: float, days: Sequence[date]) -> Check:
    name = f"{SIGNS[sign]} density of an {view}"
    density = share(float(hours[sign].sum()), float(hours["clicks"].sum()))
    if not density > 0:
        return left_out(name, min_density, f"no click of the window is labelled so: {SIGNS[sign]}", minimum=True)
    pools = pooled_hours(hours, found=sign, expected=hours["clicks"] * density, min_clicks=min_hour_clicks, min_expected=MIN_EXPECTED)
    if pools.empty:
        return left_out(name, min_density, f"fewer than {MIN_EXPECTED:g} are expected in every day", minimum=True)
    # One purchase marks one click; a person with a high RFM score marks all of theirs.
    together = 1.0 if sign == "purchasing" else dispersion(pools)
    below = pools[pools["ratio"] < min_density].sort_values("ratio")
    chances = [poisson_at_most(ceil(row.found / together), float(row.expected) / together) for row in below.itertuples()]
    low = below[np.array(chances, dtype=float) < FALSE_STOPS / len(pools)]
    # Observed is the lowest density that chance does not explain, where there is one; else the lowest of the others.
    shown = low if len(low) else pools[~pools.index.isin(below.index)]
    observed = float(shown["ratio"].min()) if len(shown) else min_density
    advice = f"{len(pools)} hours or pools of small hours judged, {len(below)} of them below the bound by chance"
    if len(low):
        advice = f"low in {_places(low, SIGNS[sign])}. Labels may be missing there: ingest the purchases, label the days again"
    bad_days = [day for day in low["day"] if isinstance(day, date)]
    return Check(name, observed, min_density, low.empty, advice, at_least=True, query=query(LABELS_BY_HOUR, bad_days or days))


def dispersion(pools: pd.DataFrame) -> float:
    """Variance / mean of the counts around what is expected, 1 to MAX_DISPERSION, from the median so that a few bad hours don't
    raise it."""
    squares = (pools["found"] - pools["expected"]) ** 2 / pools["expected"]
    return float(np.clip(squares.median() / MEDIAN_CHI2, 1.0, MAX_DISPERSION))


def _pool_day(clicks: NDArray[Any], expected: NDArray[Any], *, min_clicks: float, min_expected: float) -> list[list[int]]:
    """Positions of the day's hours that are judged together."""

    def enough(positions: list[int]) -> bool:
        return bool(positions) and clicks[positions].sum() >= min_clicks and expected[positions].sum() >= min_expected

    alone = [[position] for position in range(len(clicks)) if enough([position])]
    pools: list[list[int]] = []
    small: list[int] = []
    for position in range(len(clicks)):
        if not enough([position]):
            small.append(position)
        if enough(small):
            pools.append(small)
            small = []
    if pools:
        pools[-1] = pools[-1] + small
    return alone + pools


def _places(pools: pd.DataFrame, what: str) -> str:
    """The first hours with their numbers, and how many more there are."""
    named = [
        f"{row.name_}: {row.found} {what}, {row.expected:.1f} expected"
        for row in pools.head(NAMED).rename(columns={"name": "name_"}).itertuples()
    ]
    more = len(pools) - len(named)
    return "; ".join(named) + (f"; and {more} more" if more else "")


def _judged(pools: pd.DataFrame, how: str) -> str:
    return f"{len(pools)} hours or pools of small hours judged {how}"


def _around(pools: pd.DataFrame, weeks: int) -> list[date]:
    """The days and the same weekdays before."""
    days = list(dict.fromkeys(pools["day"]))
    return [day - timedelta(weeks=week) for day in days for week in range(weeks + 1)]
