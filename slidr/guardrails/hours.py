"""Hours of the training window: density of labels, outages of purchases, volume of clicks.

Hours are UTC, not local: an outage is one of a pipeline, and strikes all marketplaces at one instant. A table of hours has
one row per day and hour: day (a date, or Mon … Sun), hour (0-23), clicks and other counts.
"""

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import pandas as pd

from slidr.curves import share
from slidr.guardrails.checks import FALSE_STOPS, Check, at_most, left_out, poisson_at_least, poisson_at_most
from slidr.guardrails.queries import CLICKS_BY_HOUR, LABELS_BY_HOUR, ORDERS_BY_HOUR, query

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# An hour is judged only where so many humans are expected that their absence is no chance: with 10, the chance of seeing
# none is 0.00005. Below, it is pooled with the next small hours of its day.
MIN_EXPECTED = 10.0
SIGNS = {"humans": "human", "purchasing": "purchase", "high_rfm": "high-RFM"}
POOL_COLUMNS = ("day", "name", "clicks", "found", "expected", "ratio")
NAMED = 6  # hours that a message names


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
    rows = []
    for day, part in table.groupby("day", sort=False):
        enough = (part["clicks"].to_numpy(float), part["expected"].to_numpy(float))
        for positions in _pool_day(*enough, min_clicks=min_clicks, min_expected=min_expected):
            rows.append(_pool_row(day, part.iloc[positions]))
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


def check_volume(
    clicks: pd.DataFrame, *, days: Sequence[date], first_day: date, weeks: int, min_hour_clicks: int, min_ratio: float, max_ratio: float
) -> list[Check]:
    """Clicks of every hour of `days` against the mean of the same hour of up to `weeks` earlier weeks: lowest and highest.

    `clicks` has day, hour, clicks, all clicks of the days and of the weeks before. The first day of the lake is left out of
    the weeks before: it may be half a day.
    """
    names = ("click volume of an hour, lowest", "click volume of an hour, highest")
    seen = {(row.day, row.hour): int(row.clicks) for row in clicks.itertuples()}
    whole = {day for day, _ in seen if day > first_day}
    rows = []
    for day in days:
        before = [day - timedelta(weeks=week) for week in range(1, weeks + 1) if day - timedelta(weeks=week) in whole]
        for hour in range(24) if before else ():
            usual = sum(seen.get((other, hour), 0) for other in before) / len(before)
            rows.append((day, hour, usual, seen.get((day, hour), 0)))
    table = pd.DataFrame(rows, columns=["day", "hour", "clicks", "found"])
    pools = pooled_hours(table, found="found", expected=table["clicks"], min_clicks=min_hour_clicks, min_expected=0) if rows else table
    if pools.empty:
        why = "the lake holds no day a week before, or too few clicks an hour, to compare with"
        return [left_out(names[0], min_ratio, why, minimum=True), left_out(names[1], max_ratio, why)]
    low, high = pools.loc[pools["ratio"].idxmin()], pools.loc[pools["ratio"].idxmax()]
    below, above = pools[pools["ratio"] < min_ratio], pools[pools["ratio"] > max_ratio]
    return [
        Check(
            names[0],
            float(low["ratio"]),
            min_ratio,
            below.empty,
            f"clicks are missing in {_places(below, 'clicks')}. Ingest them, or find out why there was no traffic"
            if len(below)
            else _judged(pools, "of earlier weeks"),
            at_least=True,
            query=query(CLICKS_BY_HOUR, _around(below if len(below) else pools.loc[[low.name]], weeks)),
        ),
        Check(
            names[1],
            float(high["ratio"]),
            max_ratio,
            above.empty,
            f"unusually many clicks in {_places(above, 'clicks')}. Look for an attack, or for clicks that were ingested twice"
            if len(above)
            else _judged(pools, "of earlier weeks"),
            query=query(CLICKS_BY_HOUR, _around(above if len(above) else pools.loc[[high.name]], weeks)),
        ),
    ]


def check_missing(hours: pd.DataFrame, *, missing: str, what: str, min_hour_clicks: int, max_share: float) -> Check:
    """The largest share of an hour's clicks that lack something (a user, an address); small hours are pooled."""
    name = f"clicks of an hour without {what}"
    pools = pooled_hours(hours, found=missing, expected=hours["clicks"].astype(float), min_clicks=min_hour_clicks, min_expected=0)
    if pools.empty:
        return left_out(name, max_share, f"no day has {min_hour_clicks} clicks")
    above = pools[pools["ratio"] > max_share]
    # A share just above the bound in one hour of hundreds is chance.
    chances = [poisson_at_least(int(row.found), float(row.expected) * max_share) for row in above.itertuples()]
    high = above[np.array(chances, dtype=float) < FALSE_STOPS / len(pools)]
    shown = high if len(high) else pools[~pools.index.isin(above.index)]
    observed = float(shown["ratio"].max()) if len(shown) else max_share
    advice = f"{what} missing in {_places(high, 'clicks')}. Look at the source's column" if len(high) else _judged(pools, "by themselves")
    return Check(name, observed, max_share, high.empty, advice, query=query(CLICKS_BY_HOUR, list(high["day"]) or list(hours["day"])))


def _check_density(view: str, hours: pd.DataFrame, sign: str, *, min_hour_clicks: int, min_density: float, days: Sequence[date]) -> Check:
    name = f"{SIGNS[sign]} density of an {view}"
    density = share(float(hours[sign].sum()), float(hours["clicks"].sum()))
    if not density > 0:
        return left_out(name, min_density, f"no click of the window is labelled so: {SIGNS[sign]}", minimum=True)
    pools = pooled_hours(hours, found=sign, expected=hours["clicks"] * density, min_clicks=min_hour_clicks, min_expected=MIN_EXPECTED)
    if pools.empty:
        return left_out(name, min_density, f"fewer than {MIN_EXPECTED:g} are expected in every day", minimum=True)
    below = pools[pools["ratio"] < min_density].sort_values("ratio")
    chances = [poisson_at_most(int(row.found), float(row.expected)) for row in below.itertuples()]
    low = below[np.array(chances, dtype=float) < FALSE_STOPS / len(pools)]
    # Observed is the lowest density that chance does not explain, where there is one; else the lowest that is no chance finding.
    shown = low if len(low) else pools[~pools.index.isin(below.index)]
    observed = float(shown["ratio"].min()) if len(shown) else min_density
    advice = f"{len(pools)} hours or pools of small hours judged, {len(below)} of them below the bound by chance"
    if len(low):
        advice = f"low in {_places(low, SIGNS[sign])}. Labels may be missing there: ingest the purchases, label the days again"
    bad_days = [day for day in low["day"] if isinstance(day, date)]
    return Check(name, observed, min_density, low.empty, advice, at_least=True, query=query(LABELS_BY_HOUR, bad_days or days))


def _pool_day(clicks: np.ndarray, expected: np.ndarray, *, min_clicks: float, min_expected: float) -> list[list[int]]:
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


def _pool_row(day: object, part: pd.DataFrame) -> dict[str, object]:
    found, expected = float(part["found"].sum()), float(part["expected"].sum())
    return {
        "day": day,
        "name": f"{day} {', '.join(f'{hour:02d}h' for hour in part['hour'])} UTC",
        "clicks": int(part["clicks"].sum()),
        "found": int(found),
        "expected": expected,
        "ratio": share(found, expected),
    }


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
    """The days and the same weekdays before, of the first few pools."""
    days = list(dict.fromkeys(pools["day"]))[:3]
    return [day - timedelta(weeks=week) for day in days for week in range(weeks + 1)]
