"""How far back a replay can go, by mode: what is still there, and what billing still takes. Without Spark."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from slidr import direct
from slidr.config import Config, ReplayConf
from slidr.days import days_between
from slidr.direct import Place
from slidr.history import Day, kept
from slidr.lake import Lake
from slidr.tables import CLICKS, CURRENT_DECISIONS, features_table

Days = Mapping[date, Day]
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Reach:
    """`since`: from this hour on every click can be replayed; None where none can. `why`: what ends it there. `lost`: files are gone."""

    mode: str
    since: datetime | None
    why: str
    lost: bool


@dataclass(frozen=True)
class Horizon:
    """`modes`: one for each way to get features; none where there are no clicks. `commits`: of the tables that a replay reads, the oldest
    commit that can be read in full, and when it was made."""

    modes: tuple[Reach, ...]
    commits: Mapping[str, tuple[int, datetime]]


def closing(year: int, month: int, conf: ReplayConf, zone: timezone | ZoneInfo) -> datetime:
    """When a month of clicks is billed."""
    return datetime(year + month // 12, month % 12 + 1, conf.close_day, 23, 59, 59, tzinfo=zone)


def oldest_billed(conf: Config, now: datetime) -> datetime:
    """From this hour on clicks of every marketplace belong to months that a replay may still correct."""
    year, month = now.year, now.month
    while True:
        before = (year, month - 1) if month > 1 else (year - 1, 12)
        if now - closing(*before, conf.replay, timezone.utc) > timedelta(days=conf.replay.max_days_after_close):
            break
        year, month = before
    starts = [datetime(year, month, 1, tzinfo=ZoneInfo(zone)).astimezone(timezone.utc) for zone in conf.marketplaces.values()]
    return _hour(max(starts) + HOUR - timedelta(microseconds=1))


def look(place: Lake | Place, conf: Config, now: datetime) -> Horizon:
    """By the configured feature spec."""
    tables = {"clicks": CLICKS, "current_decisions": CURRENT_DECISIONS, "features": features_table(conf.spec)}
    found = {name: kept(place, table, time="click_time") for name, table in tables.items() if direct.exists(place, table)}
    days = {name: found[name].days if name in found else {} for name in tables}
    modes = _modes(*days.values(), conf=conf, now=now) if days["clicks"] else ()
    return Horizon(modes, {name: one.oldest for name, one in found.items()})


def _modes(clicks: Days, published: Days, stored: Days, *, conf: Config, now: datetime) -> tuple[Reach, ...]:
    back = timedelta(microseconds=conf.spec.longest_window)

    def scored(day: date) -> str:
        return _lacking(clicks, day, "clicks") or _gone(published, day, "decisions") or _lacking(stored, day, "stored features")

    def counted(day: date) -> str:
        first = max(min(clicks), (datetime(day.year, day.month, day.day) - back).date())
        lacking = [_lacking(clicks, read, "clicks") for read in days_between(first, day + timedelta(days=1))]
        return next(filter(None, lacking), "") or _gone(published, day, "decisions")

    billed = oldest_billed(conf, now)
    return _reach("rescore", clicks, scored, billed), _reach("recompute", clicks, counted, billed)


def _lacking(days: Days, day: date, what: str) -> str:
    return _gone(days, day, what) if day in days else f"no {what} of {day}"


def _gone(days: Days, day: date, what: str) -> str:
    return f"{days[day].lost} files of {what} of {day} are gone" if day in days and days[day].lost else ""


def _reach(mode: str, clicks: Days, problem: Callable[[date], str], billed: datetime) -> Reach:
    """Back from the newest day to the first that can't be replayed, or is billed for too long."""
    since, why, lost = None, "the clicks begin there", False
    for day in sorted(clicks, reverse=True):
        if found := problem(day):
            why, lost = found, "gone" in found
            break
        since = clicks[day].begins
    if since is not None and since < billed:
        return Reach(mode, billed, "older months were billed too long ago", lost)
    return Reach(mode, since and _hour(since), why, lost)


def _hour(time: datetime) -> datetime:
    return time.replace(minute=0, second=0, microsecond=0)
