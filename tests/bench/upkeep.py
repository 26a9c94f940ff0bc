"""Files, log and read time over ninety days of daily commits, with and without upkeep: python -m tests.bench.upkeep

Each day makes the commits of a daily chain on tiny rows, one file for each day that a commit touches: clicks of the day and some of the day
before, decisions, metrics of three days replaced, and a row for each of five runs. The log is kept for KEPT days instead of a hundred, and
after each simulated day all of its files are made a day older, so that the bound shows within ninety days.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from slidr import config, direct, query, session, upkeep
from slidr.lake import Lake
from slidr.tables import CLICKS, CURRENT_DECISIONS, RUNS, SLICE_METRICS, Table
from tests.frames import at

DAYS, EVERY, KEPT = 90, 7, 30  # days of the simulation, days between two upkeeps, days of log
FIRST = date(2026, 3, 1)
TABLES = (CLICKS, CURRENT_DECISIONS, SLICE_METRICS, RUNS)
SPARE = {"boolean": False, "int": 1, "bigint": 1, "double": 0.5, "string": "x"}


@dataclass(frozen=True)
class Seen:
    """A table after some days: live files, files and bytes of its log, seconds to open it and count its rows, and rows."""

    table: str
    day: int
    files: int
    log_files: int
    log_bytes: int
    seconds: float
    rows: int


def row(table: Table, day: date, number: int) -> dict[str, Any]:
    values = {**SPARE, "date": day, "timestamp": at(f"{day} 12:00:00")}
    key = table.columns[0].name if table is not SLICE_METRICS else "report_slice"
    return {column.name: f"{day}-{number}" if column.name == key else values[column.type] for column in table.columns}


def run_day(lake: Lake, number: int) -> None:
    """The commits of one logical day."""
    today, yesterday = FIRST + timedelta(days=number), FIRST + timedelta(days=number - 1)
    for table in (CLICKS, CURRENT_DECISIONS):
        direct.add(lake, table, [row(table, today, n) for n in range(3)])
        direct.add(lake, table, [row(table, yesterday, 10), row(table, today, 11)])
    days = [today - timedelta(days=back) for back in range(3)]
    where = f"click_date IN ({', '.join(repr(str(day)) for day in days)})"
    rows = direct._arrow(SLICE_METRICS, [row(SLICE_METRICS, day, n) for day in days for n in range(2)])
    direct.create(lake, SLICE_METRICS)
    write_deltalake(DeltaTable(direct.path(lake, SLICE_METRICS)), rows, mode="overwrite", predicate=where)
    for run in range(5):
        direct.add(lake, RUNS, [row(RUNS, today, run)])


def older(lake: Lake) -> None:
    """The log as it looks a day later."""
    for path in Path(lake.root).rglob("_delta_log/*"):
        then = path.stat().st_mtime - 86_400
        os.utime(path, (then, then))


def seen(lake: Lake, table: Table, day: int) -> Seen:
    took = []
    for _ in range(3):
        began = time.monotonic()
        [found] = query.run(lake, {table.name: table}, f"SELECT count(*) AS n FROM {table.name}").to_pylist()  # noqa: S608
        took.append(time.monotonic() - began)
    log = list((Path(lake.path(table)) / "_delta_log").glob("0*"))
    size = upkeep.size_of(lake, table)
    return Seen(table.name, day, size.live, len(log), size.log_bytes, statistics.median(took), found["n"])


def simulated(lake: Lake, *, tended: bool, days: int = DAYS) -> Iterator[Seen]:
    """What the tables look like after each third of the days."""
    for table in TABLES:
        direct.create(lake, table)
        DeltaTable(direct.path(lake, table)).alter.set_table_properties({"delta.logRetentionDuration": f"interval {KEPT} days"})
    for number in range(days):
        run_day(lake, number)
        older(lake)
        if tended and number % EVERY == EVERY - 1:
            for table in TABLES:
                upkeep.tend(lake, table, before=FIRST + timedelta(days=number - 3), leave=[], days=100)
        if (number + 1) % (days // 3) == 0:
            yield from (seen(lake, table, number + 1) for table in TABLES)


def both(spark: SparkSession, root: Path, days: int = DAYS) -> dict[bool, list[Seen]]:
    """Without and with upkeep."""
    return {tended: list(simulated(Lake(spark, str(root / f"tended-{tended}")), tended=tended, days=days)) for tended in (False, True)}


def main() -> None:
    conf = config.load(config.shipped("local.yaml"), ("spark.shuffle_partitions=2",))
    with tempfile.TemporaryDirectory() as scratch:
        found = both(session.build(conf.spark), Path(scratch))
    print("| table | day | upkeep | files | log files | log KiB | count, ms |\n| --- | --- | --- | --- | --- | --- | --- |")
    for tended, rows in found.items():
        for one in rows:
            log = f"{one.log_files} | {one.log_bytes / 1024:.0f} | {one.seconds * 1000:.0f}"
            print(f"| {one.table} | {one.day} | {'weekly' if tended else 'none'} | {one.files} | {log} |")


if __name__ == "__main__":
    main()
