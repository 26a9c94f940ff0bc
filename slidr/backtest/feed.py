"""The lake that a backtest reads, and what was known of it at a time: rows go by when they arrived, never by when they happened."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr.errors import InputError
from slidr.lake import Lake
from slidr.tables import CLICKS, PURCHASES, Table


@dataclass(frozen=True)
class Source:
    """A lake as of one commit of each table, by name; it is never written to. A table without a commit (-1) has no rows."""

    lake: Lake
    pins: Mapping[str, int]

    def read(self, table: Table) -> DataFrame:
        return self.lake.read_version(table, self.pins[table.name])

    def arrived(self, table: Table, after: datetime | None, until: datetime) -> DataFrame:
        """Rows that became known in (after, until]; from the beginning where `after` is None."""
        rows = self.read(table).where(F.col("arrival_time") <= F.lit(until))
        return rows if after is None else rows.where(F.col("arrival_time") > F.lit(after))


def pins(lake: Lake, tables: list[Table]) -> dict[str, int]:
    """The newest commit of each table; -1 where it does not exist. Raises InputError where there are no clicks or no purchases."""
    found = {table.name: lake.version(table) for table in tables}
    missing = [table.name for table in (CLICKS, PURCHASES) if found[table.name] < 0]
    if missing:
        raise InputError(f"expected the tables clicks and purchases in {lake.root}, found no {' and no '.join(missing)}; ingest them first")
    return found


def feed(source: Source, own: Lake, features: Table, *, after: datetime | None, until: datetime) -> None:
    """Brings `own` from what was known at `after` to what was known at `until`: clicks, purchases, features that a live system logged.

    One commit each, made once: where a killed run made it already, Delta skips it. Logged features have no arrival of their own: they come
    with their click. `features` is the table of the spec.
    """
    token = f"feed-{until.isoformat()}"
    for table in (CLICKS, PURCHASES):
        own.append(source.arrived(table, after, until), table, token=token)
    if source.pins[features.name] >= 0:
        logged = source.read(features).where("origin = 'logged'")
        known = source.arrived(CLICKS, after, until).select("click_id", "click_date")
        own.append(logged.join(known, on=["click_id", "click_date"], how="left_semi"), features, token=token)


@dataclass(frozen=True)
class Span:
    """What a source holds: clicks by day, those of them that were known at the first logical day's start, and when it ends."""

    clicks: Mapping[date, int]
    known: Mapping[date, int]
    end: datetime  # the last arrival of a click or purchase


def span(source: Source, start: datetime) -> Span:
    """Counts by day; `start` is when the first logical day begins. Raises InputError for a lake without clicks."""
    known = F.count_if(F.col("arrival_time") <= F.lit(start))
    counts = source.read(CLICKS).groupBy("click_date").agg(F.count(F.lit(1)), known, F.max(_micros())).collect()  # one row a day
    if not counts:
        raise InputError(f"expected clicks in {source.lake.root}, found none; ingest them first")
    bought = source.read(PURCHASES).agg(F.max(_micros())).collect()[0][0]
    last = max([row[3] for row in counts] + [bought or 0])
    end = datetime.fromtimestamp(last // 1_000_000, start.tzinfo).replace(microsecond=last % 1_000_000)
    return Span({row[0]: row[1] for row in counts}, {row[0]: row[2] for row in counts if row[2]}, end)


def _micros() -> Column:
    return F.unix_micros("arrival_time")
