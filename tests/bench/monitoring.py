"""How soon monitoring notices faulty models and label outages, and how often it cries over nothing, on made traffic without Spark.

Eight weeks are judged after three of history, hour by hour, nothing known that came later. Scores are those of a logistic regression on
windowed counters, fitted to purchasing clicks as the network is; faults are put into its features, scores or thresholds for a few hours.

    python -m tests.bench.monitoring [--clicks-per-day 50000] [--seed 1]
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone

import numpy as np
import pandas as pd

from slidr import config, monitoring
from slidr.monitoring.metrics import AGES, MIDDLE, SCORES
from slidr.monitoring.signals import LABEL_OUTAGE
from slidr.scoring import EMPTY, NULLS
from slidr.simulator.clicks import concat
from slidr.simulator.settings import Attack, Incident, Sale, Simulation
from slidr.simulator.traffic import chunks_of, make_chunk
from slidr.simulator.world import DAY, DEVICES, HOUR, World

START = date(2026, 3, 2)
HISTORY, JUDGED = 3, 8  # weeks
SPARE = 1  # days made and left out: the simulator moves all that would pass its end before it, which no traffic does
FAULT_HOURS = 6
STARTS = (2, 9, 15, 20)  # UTC hours at which faults begin
MATURED_AFTER = 72
WINDOWS = (1, 24)  # hours of the counters
SESSIONS, USERS = [2, 3], [4, 5]  # places of their counters
FEATURES = 11  # of which the counters here are six: the two of the session as many of them as its seven of the shipped 39


@dataclass
class Traffic:
    """Clicks by time; `bought` is the arrival of the click's first purchase, or far away. Hours count from the start."""

    hour: np.ndarray
    time: np.ndarray
    slice: np.ndarray
    names: list[str]
    robot: np.ndarray
    filtered: np.ndarray
    counters: np.ndarray  # clicks x counters
    heavy: np.ndarray
    bought: np.ndarray
    orders: pd.DataFrame  # time, marketplace, purchases
    score: np.ndarray = field(default_factory=lambda: np.zeros(0))
    threshold: np.ndarray = field(default_factory=lambda: np.zeros(0))


def make(seed: int, per_day: int, incidents: tuple = ()) -> Traffic:
    days = 7 * (HISTORY + JUDGED) + SPARE
    world = World(Simulation(seed=seed, start=START, days=days, clicks=per_day * days, incidents=incidents))
    made = [make_chunk(world, chunk) for chunk in range(chunks_of(world.settings))]
    clicks, orders = concat([m.clicks for m in made]), concat([m.orders for m in made])
    order, end = np.argsort(clicks.time, kind="stable"), world.end - SPARE * DAY
    clicks = clicks.take(order[clicks.time[order] < end])
    markets = np.array(world.names)
    codes = clicks.device * 100 + clicks.logged_in * 10 + clicks.marketplace
    unique, position = np.unique(codes, return_inverse=True)
    names = [f"{DEVICES[c // 100]}/{'login' if c // 10 % 10 else 'guest'}/{markets[c % 10]}" for c in unique]
    counters = np.column_stack(
        [counted(key, clicks.time, hours) for key in (clicks.address, clicks.session, clicks.user) for hours in WINDOWS]
    )
    here = (orders.arrival >= world.start) & (orders.arrival < end)
    feed = pd.DataFrame({"time": stamp(world, orders.arrival[here]), "marketplace": markets[orders.marketplace[here]]})
    feed = feed.groupby(["time", "marketplace"]).size().rename("purchases").reset_index()
    return Traffic(
        (clicks.time - world.start) // HOUR, clicks.time, position, names, clicks.kind > 0, clicks.filter > 0, np.log1p(counters),
        counters[:, 2] >= 10, first_purchase(clicks, orders), feed,
    )  # fmt: skip


def stamp(world: World, times: np.ndarray) -> pd.DatetimeIndex:
    return pd.Timestamp(START) + pd.to_timedelta((times - world.start) // HOUR, unit="h")


def counted(key: np.ndarray, time: np.ndarray, hours: int) -> np.ndarray:
    """Earlier clicks of the key within so many hours; clicks are sorted by time."""
    codes, milliseconds = np.unique(key, return_inverse=True)[1].astype(np.int64), time // 1000
    span = milliseconds.max() - milliseconds.min() + 200 * 3_600_000
    line = codes * span + milliseconds - milliseconds.min() + 100 * 3_600_000
    order = np.argsort(line, kind="stable")
    found = np.arange(len(line)) - np.searchsorted(line[order], line[order] - hours * 3_600_000)
    result = np.empty(len(line), dtype=np.int64)
    result[order] = found
    return result


def first_purchase(clicks, orders) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Arrival of the first purchase of each click: by the click it names, else the latest click of its session."""
    far = np.iinfo(np.int64).max
    bought = np.full(len(clicks), far)
    table = pd.DataFrame({"click": clicks.number, "session": clicks.session, "time": clicks.time, "row": np.arange(len(clicks))})
    given = pd.DataFrame({"click": orders.click, "session": orders.session, "time": orders.time, "arrival": orders.arrival})
    given = given[~orders.cancelled].sort_values("time")
    named = given[given["click"] >= 0].merge(table[["click", "row"]], on="click")
    rest = given[given["click"] < 0].drop(columns="click")
    latest = pd.merge_asof(rest, table.sort_values("time"), on="time", by="session", allow_exact_matches=False).dropna(subset=["row"])
    for found in (named, latest):
        np.minimum.at(bought, found["row"].to_numpy(dtype=np.int64), found["arrival"].to_numpy())
    return bought


def fitted(traffic: Traffic, week: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """Logistic regression, balanced, of "bought nothing" on two weeks from this one on; scores of 6 decimals."""
    early = two_weeks(traffic, week)
    x, y = traffic.counters[early], (traffic.bought[early] == np.iinfo(np.int64).max).astype(float)
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    design = np.column_stack([np.ones(len(x)), (x - mean) / scale])
    weight, beta = np.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean())), np.zeros(design.shape[1])
    for _ in range(12):
        p = 1 / (1 + np.exp(-design @ beta))
        hessian = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-3 * np.eye(len(beta))
        beta += np.linalg.solve(hessian, design.T @ (weight * (y - p)))

    def score(counters: np.ndarray) -> np.ndarray:
        return np.round(1 / (1 + np.exp(-(beta[0] + (counters - mean) / scale @ beta[1:]))), 6)

    return score


def two_weeks(traffic: Traffic, week: int) -> np.ndarray:
    return (traffic.hour >= 168 * week) & (traffic.hour < 168 * (week + 2))


def thresholds(traffic: Traffic, budget: float = 0.015, week: int = 0) -> np.ndarray:
    """By device and login the score that this share of purchasing clicks of two weeks from this one on has above it."""
    groups = np.array([name.rsplit("/", 1)[0] for name in traffic.names])[traffic.slice]
    known = two_weeks(traffic, week) & (traffic.bought < np.iinfo(np.int64).max)
    result = np.zeros(len(groups))
    for group in np.unique(groups):
        here = groups == group
        result[here] = np.quantile(traffic.score[here & known], 1 - budget)
    return result


# (score, threshold, empty, null) of the clicks at these places; empty: counters of each click that are NULL or 0; null: that are NULL.
Scored = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
FAULTS: dict[str, Callable[[Traffic, Callable, np.ndarray], Scored]] = {}


def fault(name: str) -> Callable:
    def keep(made: Callable) -> Callable:
        FAULTS[name] = made
        return made

    return keep


def empty(t: Traffic, at: np.ndarray, counters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of each click's counters are NULL or 0, and how many are NULL: those of the user, of guests."""
    guest = np.array(["/guest/" in name for name in t.names])[t.slice[at]]
    zero = counters == 0
    zero[:, USERS] |= guest[:, None]
    return zero.sum(axis=1), guest * len(USERS)


@fault("user and address counters are 0")
def _zeros(t: Traffic, score: Callable, at: np.ndarray) -> Scored:
    x = t.counters[at].copy()
    x[:, [0, 1, *USERS]] = 0
    return score(x), t.threshold[at], *empty(t, at, x)


@fault("user and address counters are halved")
def _halved(t: Traffic, score: Callable, at: np.ndarray) -> Scored:
    x = t.counters[at].copy()
    x[:, [0, 1, *USERS]] = np.log1p(np.expm1(x[:, [0, 1, *USERS]]).round() // 2)
    return score(x), t.threshold[at], *empty(t, at, x)


@fault("all counters are 0")
def _all_zeros(t: Traffic, score: Callable, at: np.ndarray) -> Scored:
    x = 0 * t.counters[at]
    return score(x), t.threshold[at], *empty(t, at, x)


@fault("counters of ten times the clicks")
def _tenfold(t: Traffic, score: Callable, at: np.ndarray) -> Scored:
    x = np.log1p(10 * np.expm1(t.counters[at]))
    return score(x), t.threshold[at], *empty(t, at, x)


@fault("session counters are NULL, filled with the mean")
def _null(t: Traffic, score: Callable, at: np.ndarray) -> Scored:
    x = t.counters[at].copy()
    x[:, SESSIONS] = 0
    nothing, null = empty(t, at, x)
    x[:, SESSIONS] = t.counters[t.hour < 24 * 14][:, SESSIONS].mean(axis=0)
    return score(x), t.threshold[at], nothing, null + len(SESSIONS)


@fault("scores are inverted")
def _inverted(t: Traffic, score: Callable, at: np.ndarray) -> Scored:
    return 1 - t.score[at], t.threshold[at], *empty(t, at, t.counters[at])


@fault("all scores are the same")
def _constant(t: Traffic, score: Callable, at: np.ndarray) -> Scored:
    return np.full(at.sum(), 0.5), t.threshold[at], *empty(t, at, t.counters[at])


@fault("all thresholds are a tenth")
def _low(t: Traffic, score: Callable, at: np.ndarray) -> Scored:
    return t.score[at], t.threshold[at] / 10, *empty(t, at, t.counters[at])


@fault("threshold of mobile/guest is a tenth")
def _low_slice(t: Traffic, score: Callable, at: np.ndarray) -> Scored:
    mobile = np.array([name.startswith("mobile/guest") for name in t.names])[t.slice[at]]
    return t.score[at], np.where(mobile, t.threshold[at] / 10, t.threshold[at]), *empty(t, at, t.counters[at])


@fault("all thresholds are 1")
def _high(t: Traffic, score: Callable, at: np.ndarray) -> Scored:
    return t.score[at], np.ones(at.sum()), *empty(t, at, t.counters[at])


@fault("trained without purchases: five times the budget of false positives")
def _loose(t: Traffic, score: Callable, at: np.ndarray) -> Scored:
    return t.score[at], thresholds(t, 0.075)[at], *empty(t, at, t.counters[at])


def hours(t: Traffic, at: np.ndarray, score: np.ndarray, threshold: np.ndarray, nothing: np.ndarray, null: np.ndarray) -> pd.DataFrame:
    """Hours as `metrics.by_hour` gives them, of the clicks at `at`."""
    invalid = (score > threshold) | t.filtered[at]
    signs = {
        "clicks": np.ones(at.sum(), dtype=bool),
        "scored": np.ones(at.sum(), dtype=bool),
        "featured": np.ones(at.sum(), dtype=bool),
        "heavy_now": t.heavy[at],
    }
    low = score <= MIDDLE / 100
    signs |= {f"score_to_{edge}": score <= edge / 100 for edge in SCORES} | {f"featured_to_{MIDDLE}": low}
    signs |= {f"bought_{age}h": t.bought[at] - t.time[at] <= age * HOUR for age in AGES}
    signs |= {"purchasing": t.bought[at] < np.iinfo(np.int64).max}
    with_invalid = [name for name in signs if name.startswith(("bought", "purchasing", "heavy"))]
    signs |= {f"{name}_invalid": signs[name] & invalid for name in with_invalid} | {"invalid": invalid}
    by_score = (score > threshold) & ~t.filtered[at]
    signs |= {f"{name}_invalid": signs[name] & by_score for name in ("scored", *(f"score_to_{edge}" for edge in SCORES))}
    cell, size = t.hour[at] * len(t.names) + t.slice[at], len(t.names)
    cells, inverse = np.unique(cell, return_inverse=True)
    sums = {
        **signs,
        EMPTY: 1000 * nothing / FEATURES,
        NULLS: 1000 * null / FEATURES,
        f"{EMPTY}_to_{MIDDLE}": 1000 * low * nothing / FEATURES,
    }
    table = pd.DataFrame({name: np.bincount(inverse, weights=values) for name, values in sums.items()})
    table["time"] = pd.Timestamp(START) + pd.to_timedelta(cells // size, unit="h")
    table["report_slice"] = np.array(t.names)[cells % size]
    return table.assign(model_version="1")


def both_views(first: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([first.assign(view="first"), first.assign(view="published")], ignore_index=True)


@dataclass(frozen=True)
class Bench:
    traffic: Traffic
    score: Callable[[np.ndarray], np.ndarray]
    usual: pd.DataFrame
    conf: config.MonitoringConf

    def judge(self, usual: pd.DataFrame, feed: pd.DataFrame) -> pd.DataFrame:
        return monitoring.judge(both_views(usual), feed, conf=self.conf, matured_after=MATURED_AFTER, until=usual["time"].max())

    def with_fault(self, name: str, start: int) -> pd.DataFrame:
        """What monitoring says of the hours from `start` on, a fault beginning then."""
        at = (self.traffic.hour >= start) & (self.traffic.hour < start + FAULT_HOURS)
        bad = hours(self.traffic, at, *FAULTS[name](self.traffic, self.score, at))
        times = pd.Timestamp(START) + pd.to_timedelta([start, start + FAULT_HOURS], unit="h")
        before = self.usual[(self.usual["time"] < times[0]) & (self.usual["time"] >= times[0] - pd.Timedelta(weeks=self.conf.weeks + 2))]
        judged = self.judge(pd.concat([before, bad]), self.traffic.orders)
        return judged[judged["time"] >= times[0]]

    def with_outage(self, start: int) -> pd.DataFrame:
        times = pd.Timestamp(START) + pd.to_timedelta([start, start + FAULT_HOURS], unit="h")
        orders = self.traffic.orders
        feed = orders[(orders["time"] < times[0]) | (orders["time"] >= times[1])]
        near = (self.usual["time"] < times[1]) & (self.usual["time"] >= times[0] - pd.Timedelta(weeks=self.conf.weeks + 2))
        judged = self.judge(self.usual[near], feed)
        return judged[(judged["time"] >= times[0]) & (judged["signal"] == LABEL_OUTAGE)]

    def with_newer_version(self) -> pd.DataFrame:
        """What monitoring says of the hours that a version decides which is trained and calibrated three weeks later."""
        week = HISTORY + 2
        newer = replace(self.traffic, score=fitted(self.traffic, HISTORY)(self.traffic.counters))
        newer.threshold = thresholds(newer, week=HISTORY)
        at = newer.hour >= 168 * week
        rows = hours(newer, at, newer.score[at], newer.threshold[at], *empty(newer, at, newer.counters[at])).assign(model_version="2")
        start = pd.Timestamp(START) + pd.Timedelta(weeks=week)
        judged = self.judge(pd.concat([self.usual[self.usual["time"] < start], rows]), newer.orders)
        return judged[judged["time"] >= start]


def delay(judged: pd.DataFrame, start: int, verdicts: tuple[str, ...]) -> float:
    """Hours of traffic from the start until one of the verdicts is given; infinite if none is while the fault lasts."""
    found = judged[judged["verdict"].isin(verdicts)]
    if found.empty:
        return np.inf
    return (found["time"].min() - pd.Timestamp(START)) / pd.Timedelta(hours=1) + 1 - start


def attacked(seed: int, per_day: int, hour: int) -> tuple[float, float]:
    """Delays until roll back (there should be none) and until anything is noticed, of an attack: traffic's fault, not the model's."""
    start = 168 * (HISTORY + 5) + hour
    first = datetime(START.year, START.month, START.day, tzinfo=timezone.utc) + timedelta(hours=start)
    made = bench(seed, per_day, Attack(first, first + timedelta(hours=FAULT_HOURS), multiple=1.0))
    times = pd.Timestamp(START) + pd.to_timedelta([start, start + FAULT_HOURS], unit="h")
    judged = made.judge(made.usual[made.usual["time"] < times[1]], made.traffic.orders)
    seen = judged[judged["time"] >= times[0]]
    return delay(seen, start, (monitoring.ROLL_BACK,)), delay(seen, start, (monitoring.ROLL_BACK, monitoring.WATCH))


def bench(seed: int, per_day: int, *more: Incident) -> Bench:
    """Traffic with a sale of a day on the largest advertiser, eight times its usual clicks, and with more incidents."""
    first = datetime(START.year, START.month, START.day, tzinfo=timezone.utc)
    sale = Sale(first + timedelta(weeks=7, hours=8), first + timedelta(weeks=7, days=1, hours=8), multiple=8.0)
    traffic = make(seed, per_day, (sale, *more))
    score = fitted(traffic)
    traffic.score = score(traffic.counters)
    traffic.threshold = thresholds(traffic)
    whole = np.ones(len(traffic.hour), dtype=bool)
    conf = config.load(config.shipped("local.yaml")).monitoring
    return Bench(traffic, score, hours(traffic, whole, traffic.score, traffic.threshold, *empty(traffic, whole, traffic.counters)), conf)


def alarms(judged: pd.DataFrame, verdict: str) -> pd.DataFrame:
    """Runs of hours with the verdict: signal, place, first hour, hours; hours less than a day apart are one."""
    rows = judged[judged["verdict"] == verdict].sort_values(["signal", "place", "time"])
    new = (rows.groupby(["signal", "place"])["time"].diff() > pd.Timedelta(days=1)) | (rows["signal"] + rows["place"]).ne(
        (rows["signal"] + rows["place"]).shift()
    )
    return rows.groupby(new.cumsum()).agg(
        signal=("signal", "first"),
        place=("place", "first"),
        start=("time", "min"),
        rows=("time", "size"),
        value=("value", "first"),
        usual=("usual", "first"),
        sigmas=("sigmas", "first"),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clicks-per-day", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    made = bench(given.seed, given.clicks_per_day)
    t = made.traffic
    invalid = t.score > t.threshold
    print(
        f"seed {given.seed}, {given.clicks_per_day} clicks a day: IVR {invalid.mean():.3f}, robots caught {invalid[t.robot].mean():.3f}, "
        f"people harmed {invalid[~t.robot].mean():.4f}, {t.orders['purchases'].sum() / 24 / 7 / (HISTORY + JUDGED):.0f} purchases an hour"
    )
    judged = made.judge(made.usual, t.orders)
    judged = judged[judged["time"] >= pd.Timestamp(START) + pd.Timedelta(weeks=HISTORY)]
    print(judged.groupby(["signal", "verdict"]).size().unstack(fill_value=0).to_string())
    for where, said in {"in normal traffic with a sale:": judged, "where a newer version decides:": made.with_newer_version()}.items():
        for verdict in (monitoring.ROLL_BACK, monitoring.WATCH):
            print(verdict, where)
            print(alarms(said, verdict).to_string())
    rows = []
    for name in FAULTS:
        for number, hour in enumerate(STARTS):
            start = 168 * (HISTORY + 2 + number) + 24 * (2 * number % 7) + hour
            seen = made.with_fault(name, start)
            rows.append(
                (name, hour, delay(seen, start, (monitoring.ROLL_BACK,)), delay(seen, start, (monitoring.ROLL_BACK, monitoring.WATCH)))
            )
    for number, hour in enumerate(STARTS):
        start = 168 * (HISTORY + 2 + number) + 24 * (2 * number % 7) + hour
        found = delay(made.with_outage(start), start, (monitoring.WATCH,))
        rows.append(("no purchases come in", hour, np.nan, found))
    rows += [("attack: as many robots as clicks", hour, *attacked(given.seed, given.clicks_per_day, hour)) for hour in STARTS[1:2]]
    table = pd.DataFrame(rows, columns=["fault", "hour", "roll back after", "noticed after"])
    print(table.pivot(index="fault", columns="hour", values=["roll back after", "noticed after"]).to_string())


if __name__ == "__main__":
    main()
