"""Upkeep of the tables: small files of a day are brought together, files that nobody can ask for any more are removed.

It runs beside writers and readers: days that are still written to are left alone, what is superseded stays readable for the retention,
and where a writer was faster the table is left as it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from slidr import direct, writers
from slidr.config import Config
from slidr.errors import ConflictError, LockedError
from slidr.lake import HISTORY_DAYS, Lake, f_date, retelling_conflicts
from slidr.tables import ALL, Table

FEATURES = "features"
# Files smaller than the first are brought together into files of up to the second.
SETTINGS = {
    "spark.databricks.delta.optimize.minFileSize": str(64 << 20),
    "spark.databricks.delta.optimize.maxFileSize": str(256 << 20),
}


@dataclass(frozen=True)
class Size:
    """Of a table: files of the newest commit, files and bytes in its folder, bytes of these that are the log."""

    live: int
    files: int
    bytes: int
    log_bytes: int


@dataclass(frozen=True)
class Tended:
    """What was done to one table. `left` says that another writer was faster: nothing was brought together."""

    table: str
    before: Size
    after: Size
    removed: int
    left: bool


def every_table(lake: Lake) -> list[Table]:
    """The tables that the lake has, those of all feature specs included: of these only name, grain and partitions are filled in."""
    specs = [Table(name, "", ("click_id", "origin"), ("click_date", "origin"), ()) for name in _feature_tables(lake)]
    return [table for table in (*ALL, *specs) if lake.exists(table)]


def _feature_tables(lake: Lake) -> list[str]:
    if lake.catalog:
        names = [row["tableName"] for row in lake.spark.sql("SHOW TABLES IN IDENTIFIER(:schema)", {"schema": lake.catalog}).collect()]
        return sorted(name.replace("_", "/", 1) for name in names if name.startswith(f"{FEATURES}_"))
    return sorted(f"{FEATURES}/{name}" for name in lake.folders(FEATURES))


def settled_before(now: datetime, conf: Config) -> date:
    """The first UTC day that the daily chain may still write to: yesterday's run labels, and measures, `delay_days` back."""
    return now.date() - timedelta(days=conf.labels.delay_days + 1)


def kept_days(conf: Config) -> int:
    """Days that superseded files stay: at least as long as a click may be replayed after it was made."""
    return max(HISTORY_DAYS, 31 + conf.replay.close_day + conf.replay.max_days_after_close)


def tend(lake: Lake, table: Table, *, before: date, leave: Sequence[date], days: int) -> Tended:
    """Brings the small files of the days before `before` together, those of `leave` excepted, and removes files that were superseded
    more than `days` days ago, or that lie there as long and belong to no commit.

    Rows do not change. Makes no commit where there is nothing to do.
    """
    size = size_of(lake, table)
    left = not _compacted(lake, table, before, leave)
    removed = direct.sweep(lake, table, days)
    return Tended(table.name, size, size_of(lake, table), removed, left)


def size_of(lake: Lake, table: Table) -> Size:
    found = direct.stored(lake, table)
    sizes = {path: file.size for path, file in found.files.items()}
    log = sum(size for path, size in sizes.items() if path.startswith("_delta_log/"))
    return Size(len(found.live), len(sizes), sum(sizes.values()), log)


def _compacted(lake: Lake, table: Table, before: date, leave: Sequence[date]) -> bool:
    """By Spark, like all other writes of these tables: Delta then sees whose rows a commit would touch. False where a writer was faster."""
    where = f"{table.day} < {f_date(before)}"
    where += f" AND {table.day} NOT IN ({', '.join(map(f_date, leave))})" if leave else ""
    try:
        with writers.alone(lake, table), _settings(lake), retelling_conflicts(table):
            lake.delta(table).optimize().where(where).executeCompaction()
    except (ConflictError, LockedError):
        return False
    return True


@contextmanager
def _settings(lake: Lake) -> Iterator[None]:
    """The session with SETTINGS while the block runs."""
    before = {key: lake.spark.conf.get(key, None) for key in SETTINGS}
    for key, value in SETTINGS.items():
        lake.spark.conf.set(key, value)
    try:
        yield
    finally:
        for key, old in before.items():
            if old is None:
                lake.spark.conf.unset(key)
            else:
                lake.spark.conf.set(key, old)
