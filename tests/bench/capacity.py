"""What docs/capacity.md claims about days of 10^7 and 10^9 clicks, simulated: python -m tests.bench.capacity [--only log]

log       a table of `lake.click_days` days with as many files a day as scoring writes: its checkpoint, and what the driver pays to find
          the files of one day, by delta-rs and by Spark. No data file is written: the log alone says what there is
plan      what the driver of scoring makes and sends for one day
counters  CPU and shuffled bytes of a click that is counted, and of one that is only looked back at
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import psutil
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction
from pyspark.sql import SparkSession

from slidr import config, data_files, deciding, direct, session
from slidr.data_files import DataFile, Files
from slidr.deciding.tasks import CLICK, DECIDED, LOGGED, PUBLISHED, SCORE, SHADOWED, Judge
from slidr.direct import Place
from slidr.features import counters
from slidr.lake import Lake
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS, SHADOW_DECISIONS, Table, features_table
from tests.bench import replay as made
from tests.bench.clicks import DAYS, START, fill, write_parquet
from tests.bench.measure import Tree

CONF = config.load(config.shipped("local.yaml"))
FIRST = date(2025, 1, 1)
DAYS_OF_A_COMMIT = 20  # 400 commits of their own would take an hour and leave the same table
FILES = {"10^7": 20, "10^9": 2000}  # files of a day: parts of half a million clicks
COUNTED = 2_000_000


def statistics(table: Table, number: int) -> str:
    """As long as those of real files."""
    low = {"string": f"{number:036d}", "boolean": False, "int": number, "bigint": number, "double": number / 7}
    low |= {"date": "2025-01-01", "timestamp": "2025-01-01T00:00:00.000000Z"}
    types = {column.name: column.type for column in table.columns}
    ends = {name: low[types[name]] for name in table.with_extremes}
    return json.dumps({"numRecords": 500_000, "minValues": ends, "maxValues": ends, "nullCount": dict.fromkeys(ends, 0)})


def fill_log(place: Place, table: Table, files: int, days: int) -> None:
    """A table with so many files a day."""
    direct.create(place, table)
    for first in range(0, days, DAYS_OF_A_COMMIT):
        delta, actions = direct.opened(place, table), []
        for day in (FIRST + timedelta(days=first + n) for n in range(DAYS_OF_A_COMMIT)):
            names = [f"{table.day}={day}/part-{n:05d}-{n:012d}-{n:012d}.snappy.parquet" for n in range(files)]
            actions += [AddAction(name, 40 << 20, {table.day: str(day)}, 0, True, statistics(table, n)) for n, name in enumerate(names)]
        once = CommitProperties(max_commit_retries=0)
        delta.create_write_transaction(actions, "append", delta.schema(), [table.day], commit_properties=once)
    DeltaTable(direct.path(place, table)).create_checkpoint()


def look(root: str, name: str, by: str) -> None:
    """In a process of its own: finds the files of the last day; prints seconds of the second look and the process's memory."""
    table = next(one for one in (CLICKS, DECISIONS) if one.name == name)
    day = FIRST + timedelta(days=CONF.lake.click_days - 1)
    if by == "spark":
        lake = Lake(session.build(CONF.spark, app="slidr-bench"), root)

        def find() -> int:
            return lake.delta(table).toDF().where(f"{table.day} = DATE'{day}'").inputFiles().__len__()

    else:

        def find() -> int:
            return len(data_files.of(Place(root), table, [day]).files)

    first, _ = timed(find)
    second, found = timed(find)
    me = psutil.Process()
    memory = sum(process.memory_info().rss for process in [me, *me.children(recursive=True)])
    print(json.dumps({"files": found, "first": first, "second": second, "memory": memory}))


def timed(way: Callable[[], int]) -> tuple[float, int]:
    began = time.monotonic()
    found = way()
    return time.monotonic() - began, found


def log() -> None:
    row("clicks a day", "files", "log of a day, MB", "checkpoint, MB", "files of a day found by", "first, s", "again, s", "memory, GB")
    row(*["---"] * 8)
    for named, files in FILES.items():
        with tempfile.TemporaryDirectory() as root:
            fill_log(Place(root), DECISIONS, files, CONF.lake.click_days)
            folder = Path(root) / DECISIONS.name / "_delta_log"
            day = max(folder.glob("*.json")).stat().st_size / 1e6 / DAYS_OF_A_COMMIT
            checkpoint = sum(path.stat().st_size for path in folder.glob("*.checkpoint*.parquet")) / 1e6
            for by in ("delta-rs", "spark"):
                command = [sys.executable, "-m", "tests.bench.capacity", "--look", root, DECISIONS.name, by]
                said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
                assert said["files"] == files
                seconds = [f"{said[name]:.2f}" for name in ("first", "second")]
                many = f"{files * CONF.lake.click_days:,}"
                row(named, many, f"{day:.2f}", f"{checkpoint:.1f}", by, *seconds, f"{said['memory'] / 1e9:.2f}")


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def plan() -> None:
    bundle, day = made.bundle(0.5), date(2026, 3, 1)
    window = (datetime(2026, 3, 1, tzinfo=timezone.utc), datetime(2026, 3, 2, tzinfo=timezone.utc))
    row("clicks a day", "parts", "files read", "sent to each process, MB", "driver, s")
    row(*["---"] * 5)
    for named, files in FILES.items():

        def of(table: Table, many: int = files) -> Files:
            names = [DataFile(f"{table.day}={day}/part-{n:05d}-{'0' * 36}.snappy.parquet", 500_000, (day, "then")) for n in range(many)]
            return Files(table, f"s3a://bucket/lake/{table.name}", tuple(names), commit=0)

        began = time.monotonic()
        features = of(features_table(CONF.spec))
        spec = bundle.spec.spec_id
        sources = {CLICK: of(CLICKS), f"{SCORE} {spec}": features, f"{LOGGED} {spec}": of(features_table(CONF.spec), files // 2)}
        sources |= {DECIDED: of(DECISIONS, 0), PUBLISHED: of(CURRENT_DECISIONS, 0), SHADOWED: of(SHADOW_DECISIONS, 0)}
        work = deciding._work(sources, (Judge("1", bundle),), window, {})
        sent = len(pickle.dumps(work))
        row(named, f"{len(work.parts):,}", f"{len(work.reads):,}", f"{sent / 1e6:.2f}", f"{time.monotonic() - began:.2f}")


def counted() -> None:
    """A week counted whole, and its last day alone: of the second, all but a seventh of the clicks are only looked back at."""
    spark = session.build(config.load(config.shipped("local.yaml"), ("spark.shuffle_partitions=8",)).spark, app="slidr-bench")
    first = datetime.fromtimestamp(START / 1e6, timezone.utc).date()
    end = first + timedelta(days=DAYS)
    with tempfile.TemporaryDirectory() as root:
        lake = Lake(spark, f"{root}/lake")
        write_parquet(Path(root) / "clicks", COUNTED, hot=0.01)
        fill(lake, spark, Path(root) / "clicks")
        lake.create(features_table(CONF.spec))
        seen = {}
        for start in (first, first, end - timedelta(days=1)):  # the first round warms up
            shuffled, days = _shuffled(spark), [start + timedelta(days=n) for n in range((end - start).days)]
            with Tree() as tree:
                before = counters.there(lake, CONF.spec, days, "then")
                rows = counters.replace_days(
                    lake, data_files.of(lake, CLICKS), before, days, spec=CONF.spec, known="then", zones=CONF.marketplaces
                )
            seen[start] = (tree.cpu, _shuffled(spark) - shuffled, rows)
    (all_cpu, _, all_rows), (day_cpu, _, day_rows) = seen[first], seen[end - timedelta(days=1)]
    each = (all_cpu - day_cpu) / (all_rows - day_rows)
    back = (all_cpu - each * all_rows) / COUNTED
    row("clicks read", "that get features", "CPU us a click read", "shuffled bytes a click read")
    row(*["---"] * 4)
    for cpu, moved, rows in (seen[first], seen[end - timedelta(days=1)]):
        row(f"{COUNTED:,}", f"{rows:,}", f"{1e6 * cpu / COUNTED:.1f}", f"{moved / COUNTED:.0f}")
    print(f"a click that is looked back at: {1e6 * back:.1f} CPU us; one that gets its features: {1e6 * each:.1f} more", flush=True)
    spark.stop()


def _shuffled(spark: SparkSession) -> int:
    """Bytes that all stages so far have written for an exchange."""
    gateway = spark.sparkContext._gateway
    nothing = gateway.new_array(gateway.jvm.double, 0), gateway.jvm.java.util.ArrayList()
    stages = spark._jsc.sc().statusStore().stageList(None, False, False, *nothing)  # type: ignore[union-attr]
    return sum(stages.apply(n).shuffleWriteBytes() for n in range(stages.size()))


SECTIONS = {"log": log, "plan": plan, "counters": counted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SECTIONS))
    parser.add_argument("--look", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.look:
        return look(*given.look)
    for name, section in SECTIONS.items():
        if given.only in (None, name):
            section()
    return None


if __name__ == "__main__":
    main()
