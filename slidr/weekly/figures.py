"""The weekly report's numbers, as frames and rows: read once by `read`, then only summed.

Counts of labelled clicks are NaN where no day of theirs has matured; shares and their intervals are those of `evaluation`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pandas as pd

from slidr import evaluation, monitoring, query
from slidr.config import Config
from slidr.days import midnight
from slidr.direct import Place
from slidr.errors import NothingToDoError
from slidr.evaluation import SHARES
from slidr.lake import Lake
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, MODEL_PROMOTIONS, PURCHASES, REJECTS, SLICE_METRICS
from slidr.weekly import sql

VIEWS = ("first", "published")
COUNTS = [name for pair in SHARES.values() for name in reversed(pair)]
MONEY = ["cost_micros", "invalid_cost_micros"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Week:
    """`metrics`: click_date, hour, report_slice, view, COUNTS; `money`: click_date, currency, view, MONEY; both of the days and of
    what they are compared with. `known`: day -> clicks;
    `decided`: day -> (clicks decided, of them invalid), as published now. `judged`: the signals of `monitoring.judge` for the
    hours of the days."""

    days: Sequence[date]
    metrics: pd.DataFrame
    money: list[Row]
    judged: pd.DataFrame
    known: Mapping[date, int]
    decided: Mapping[date, tuple[int, int]]
    versions: list[Row]
    promotions: list[Row]
    corrections: list[Row]
    rejects: list[Row]

    @property
    def before(self) -> list[date]:
        """As many days right before these."""
        return [day - timedelta(days=len(self.days)) for day in self.days]

    def undecided(self, day: date) -> int:
        return self.known.get(day, 0) - self.decided.get(day, (0, 0))[0]


def read(place: Lake | Place, days: Sequence[date], conf: Config) -> Week:
    """Everything of these whole UTC days. Raises NothingToDoError where no day of them was measured."""
    after = days[-1] + timedelta(days=1)
    window = {"first": days[0], "following": after}
    wide = {"first": days[0] - timedelta(days=len(days)), "following": after}
    metrics = query.run(place, {"slice_metrics": SLICE_METRICS}, sql.METRICS, wide).to_pandas(date_as_object=True)
    if not metrics["click_date"].isin(list(days)).any():
        raise NothingToDoError(
            f"expected slice metrics from {days[0]} to {days[-1]}, found none; run `slidr monitor --from {days[0]} --to {after}` first"
        )

    def rows(text: str, table: Any) -> list[Row]:
        found: list[Row] = query.run(place, {table.name: table}, text, window).to_pylist()
        return found

    return Week(
        days=days,
        metrics=metrics,
        money=query.run(place, {"slice_metrics": SLICE_METRICS}, sql.MONEY, wide).to_pylist(),
        judged=_judged(place, days, conf),
        known={row["click_date"]: row["found"] for row in rows(sql.KNOWN, CLICKS)},
        decided={row["click_date"]: (row["found"], row["invalid"]) for row in rows(sql.DECIDED, CURRENT_DECISIONS)},
        versions=rows(sql.VERSIONS, SLICE_METRICS),
        promotions=rows(sql.PROMOTIONS, MODEL_PROMOTIONS),
        corrections=rows(sql.CORRECTIONS, CORRECTIONS),
        rejects=rows(sql.REJECTS, REJECTS),
    )


def _judged(place: Lake | Place, days: Sequence[date], conf: Config) -> pd.DataFrame:
    """The signals of these days as `slidr monitor` judges them, as known at their end."""
    end = days[-1] + timedelta(days=1)
    window = {"first": days[0] - timedelta(weeks=conf.monitoring.weeks + 1), "following": end}
    metrics = query.run(place, {"slice_metrics": SLICE_METRICS}, sql.HOURS, window).to_pandas(date_as_object=True)
    metrics["time"] = pd.to_datetime(metrics.pop("click_date")) + pd.to_timedelta(metrics.pop("hour"), unit="h")
    hours = metrics.groupby(list(monitoring.KEYS), as_index=False).sum(min_count=1)
    feed = query.run(place, {"purchases": PURCHASES}, sql.FEED, window).to_pandas()
    feed["time"] = feed["time"].dt.tz_convert("UTC").dt.tz_localize(None)
    matured_after = 24 * (conf.labels.delay_days + 1)
    until = pd.Timestamp(end) - pd.Timedelta(hours=1)
    judged = monitoring.judge(hours, feed, conf=conf.monitoring, matured_after=matured_after, until=until)
    return monitoring.between(judged, midnight(days[0]), midnight(end))


def shares(week: Week, days: Sequence[date], by: Sequence[str]) -> pd.DataFrame:
    """One row per group of `by` and view: COUNTS, SHARES and their intervals, of the days that were measured."""
    chosen = week.metrics[week.metrics["click_date"].isin(list(days))]
    counts = chosen.groupby([*by, "view"], as_index=False)[COUNTS].sum(min_count=1)
    return evaluation.with_shares(counts)


def one(table: pd.DataFrame, **keys: Any) -> Row:
    """The row with these keys; counts of 0 and unknown shares where there is none."""
    for name, value in keys.items():
        table = table[table[name] == value]
    if len(table):
        return {str(name): value for name, value in table.iloc[0].items()}
    ends = [f"{name}{end}" for name in SHARES for end in ("", "_low", "_high")]
    return {**keys, **dict.fromkeys(COUNTS, 0), **dict.fromkeys(ends, float("nan"))}


def totals(week: Week) -> list[Row]:
    """These days and those before, first and published."""
    found = []
    for name, days in (("these days", week.days), ("the days before", week.before)):
        table = shares(week, days, [])
        found += [{"days": name, **one(table, view=view)} for view in VIEWS]
    return found


def by_day(week: Week) -> list[Row]:
    """One row per day: clicks known, undecided, measured, whether it has matured and whether it was measured before the newest decisions
    or corrections (`stale`); both views under their names."""
    table = shares(week, week.days, ["click_date"])
    rows = []
    for day in week.days:
        views = {view: one(table, click_date=day, view=view) for view in VIEWS}
        counted = int(views["published"]["clicks"]), int(views["published"]["invalid"])
        matured = bool(counted[0] and not pd.isna(views["published"]["purchasing"]))
        state = {"matured": matured, "measured": counted[0], "stale": bool(counted[0]) and counted != week.decided.get(day)}
        rows.append({"day": day, "known": week.known.get(day, 0), "undecided": week.undecided(day), **state, **views})
    return rows


def by_slice(week: Week) -> list[Row]:
    """One row per report slice, most clicks first: both views, the published view of the days before, and the change of its IVR."""
    table, before = (shares(week, days, ["report_slice"]) for days in (week.days, week.before))
    names = table[table["view"] == "published"].sort_values(["clicks", "report_slice"], ascending=[False, True])["report_slice"]
    rows = []
    for name in names:
        views = {view: one(table, report_slice=name, view=view) for view in VIEWS}
        old = one(before, report_slice=name, view="published")
        rows.append({"slice": name, **views, "before": old, "change": views["published"]["ivr"] - old["ivr"]})
    return rows


def by_currency(week: Week) -> list[Row]:
    """One row per currency: price of the clicks and of the invalid ones, in micro-units, of these days in both views and of the days
    before as published; None where no price is known."""
    parts = {"first": (week.days, "first"), "published": (week.days, "published"), "before": (week.before, "published")}
    rows = []
    for currency in currencies(week):
        row: Row = {"currency": currency}
        for name, (days, view) in parts.items():
            row |= {f"{name}_{of}": price(week, of, days=days, view=view, currency=currency) for of in MONEY}
        rows.append(row)
    return rows


def currencies(week: Week) -> list[str]:
    return sorted({row["currency"] for row in week.money if row["click_date"] in set(week.days)})


def price(week: Week, of: str, *, days: Sequence[date], view: str, currency: str) -> int | None:
    """The sum of a column of MONEY, exact; None where no price is known."""
    chosen = [row[of] for row in week.money if row["click_date"] in set(days) and row["view"] == view and row["currency"] == currency]
    known = [amount for amount in chosen if amount is not None]
    return sum(known) if known else None


def alarms(week: Week) -> pd.DataFrame:
    """time, verdict: the hours whose verdict is `watch` or `roll back`."""
    hours = monitoring.by_hour(week.judged)
    return hours[hours["verdict"].isin([monitoring.WATCH, monitoring.ROLL_BACK])]
