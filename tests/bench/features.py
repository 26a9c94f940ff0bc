"""What counters cost: python -m tests.bench.features [--rows 2000000 8000000] [--only whole]

Every table compares ways that run in turns in this process, on the same data; a cost is CPU seconds of the whole process
tree, the median of three or five runs after a warm one; a ratio is the median of the ratios of single rounds. The six
counts of all engines are checked to be equal.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from slidr import config, data_files, session
from slidr.buckets import numbered
from slidr.data_files import Files
from slidr.features import counters, kernel
from slidr.features.cargo import name_of, routed, unpacked
from slidr.features.reading import ROWS_AT_A_TIME, Reading
from slidr.features.spec import FeatureSpec, micros
from slidr.lake import Lake
from slidr.pyworker import light
from slidr.tables import CLICKS, features_table
from tests.bench.clicks import DAYS, fill, write_parquet
from tests.bench.measure import Cost, side_by_side
from tests.test_kernel import Arrays

WINDOWS = ("1m", "10m", "1h", "6h", "24h", "7d")
SIX = FeatureSpec.from_dict(
    {
        "entities": {"ip": ["ip_key"]},
        "counters": [{"entity": "ip", "measure": "clicks", "windows": list(WINDOWS)}],
        "time_of_click": False,
        "logged_in": False,
    }
)
NAMES = [column.name for column in SIX.columns]
TEMPO = "dbl-tempo"
Known = Literal["then", "now"]
KNOWN: tuple[Known, ...] = get_args(Known)
PRIME = 100_003
START, END = date(2026, 3, 1), date(2026, 3, 1) + timedelta(days=DAYS)
CONF = config.load(config.shipped("local.yaml"))


def built(lake: Lake, spec: FeatureSpec, known: Known = "now", start: date = START) -> DataFrame:
    return counters.build(lake.spark, data_files.of(lake, CLICKS), spec=spec, start=start, end=END, known=known, zones=CONF.marketplaces)


def _by_file(clicks: Files, run: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]) -> DataFrame:
    """What the tasks that read the clicks hand on to the first counting ones."""
    return numbered(SparkSession.active(), len(clicks.files)).mapInArrow(light(run), counters.PACKED)


@dataclass(frozen=True)
class Keyed:
    """A narrow keyed copy of the clicks beside them: hashes and times, cut and hashed once, one file for each of theirs."""

    reading: Reading
    folder: Path

    def write(self) -> None:
        everything = replace(self.reading, buckets=(0,))
        for number in range(len(self.reading.clicks.files)):
            [numbers] = pa.table({"number": [number]}).to_batches()
            rows = pa.concat_arrays([batch["rows"] for batch in everything.run([numbers])])
            ids, records = unpacked(rows, self.reading.layout)
            columns = {name: np.ascontiguousarray(records[name]) for name in self.reading.layout.names}
            pq.write_table(pa.table({"click_id": ids, **columns}), self.folder / f"{number}.parquet", compression="zstd")

    def run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """As `Reading.run`, of the copy."""
        for number in (number for batch in batches for number in batch.column("number").to_pylist()):
            for rows in pq.ParquetFile(self.folder / f"{number}.parquet").iter_batches(ROWS_AT_A_TIME, use_threads=False):
                records = np.empty(rows.num_rows, dtype=self.reading.layout.dtype)
                for name in self.reading.layout.names:
                    records[name] = rows[name].to_numpy()
                yield routed(rows["click_id"], records, name_of(self.reading.exchange), self.reading.buckets)


def sums(df: DataFrame) -> list[int]:
    """Of each counter the sum of count x (click_id modulo PRIME): a way must know whose count it is."""
    weight = F.col("click_id").cast("bigint") % PRIME
    return list(df.agg(*[F.sum(F.col(name) * weight) for name in NAMES]).collect()[0])


def six_in_slidr(lake: Lake) -> list[int]:
    return sums(built(lake, SIX))


def six_in_kernel(path: Path) -> list[int]:
    """No Spark: Parquet by pyarrow, one process."""
    table = pq.read_table(path, columns=["click_id", "t", "ip_key"])
    weight = table["click_id"].cast("int64").to_numpy() % PRIME
    code = table["ip_key"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    clicks = Arrays({"ip": (code, np.ones(len(code), dtype=np.int32))}, table["t"].to_numpy())
    return [int(result.value @ weight) for _, result in kernel.count(clicks, "ip", SIX.counters, then=False)]


def six_in_duckdb(path: Path) -> list[int]:
    import duckdb

    frames = [
        f"count(*) OVER (PARTITION BY ip_key ORDER BY t RANGE BETWEEN {micros(w)} PRECEDING AND 1 PRECEDING) AS c{w}" for w in WINDOWS
    ]
    names = ", ".join(f"sum(c{w} * (click_id::BIGINT % {PRIME}))" for w in WINDOWS)
    counted = f"SELECT click_id, {', '.join(frames)} FROM '{path}/*.parquet'"  # noqa: S608
    found = duckdb.connect(config={"threads": 2}).execute(f"SELECT {names} FROM ({counted})")  # noqa: S608
    return [int(value) for value in found.fetchone() or ()]


def six_in_polars(path: Path) -> list[int]:
    import polars as pl

    rows = pl.read_parquet(f"{path}/*.parquet", columns=["click_id", "t", "ip_key"]).sort("ip_key", "t")
    weight = rows["click_id"].cast(pl.Int64) % PRIME
    windows = [rows.rolling("t", period=f"{micros(w)}i", group_by="ip_key", closed="left").agg(n=pl.len()) for w in WINDOWS]
    # The rows of each come back in another order than the input, and all in the same one.
    order = windows[0].select(pl.arg_sort_by("ip_key", "t")).to_series()
    return [int((frame["n"].gather(order).cast(pl.Int64) * weight).sum()) for frame in windows]


def six_in_spark_windows(lake: Lake) -> list[int]:
    rows = lake.read(CLICKS).select("click_id", "ip_key", F.unix_micros("click_time").alias("t"))
    by_time = Window.partitionBy("ip_key").orderBy("t")
    return sums(
        rows.select(
            "click_id", *[F.count("*").over(by_time.rangeBetween(-micros(w), -1)).alias(n) for w, n in zip(WINDOWS, NAMES, strict=True)]
        )
    )


def six_in_tempo(lake: Lake) -> list[int]:
    """Its windows hold the click itself and its peers: other counts, and more statistics than counts."""
    from tempo import TSDF

    rows = lake.read(CLICKS).select("ip_key", F.unix_micros("click_time").alias("t"), F.lit(1).alias("one"))
    found = TSDF(rows, ts_col="t", partition_cols=["ip_key"])
    counted = [found.withRangeStats(colsToSummarize=["one"], rangeBackWindowSecs=micros(w)).df for w in WINDOWS]
    return [df.agg(F.sum("count_one")).collect()[0][0] for df in counted]


class Bench:
    def __init__(self, spark: SparkSession, root: Path, rounds: int) -> None:
        self.spark, self.root, self.rounds, self.console = spark, root, rounds, Console(width=140)

    def world(self, rows: int, hot: float) -> tuple[Lake, Path]:
        path, lake = self.root / f"{rows}-{hot}", Lake(self.spark, str(self.root / f"lake-{rows}-{hot}"))
        if not path.exists():
            write_parquet(path, rows, hot)
            fill(lake, self.spark, path)
        return lake, path

    def show(self, title: str, rows: int, costs: dict[str, Cost], base: str) -> None:
        table = Table(title=title, title_justify="left")
        for name in ("way", "CPU s", "us/click", "wall s", f"CPU / {base}", "largest worker MiB"):
            table.add_column(name)
        for name, cost in costs.items():
            ratio = f"{cost.over(costs[base]):.2f}"
            worker = f"{cost.worker / 2**20:.0f}" if cost.worker else "-"
            table.add_row(name, f"{cost.cpu:.1f}", f"{cost.cpu / rows * 1e6:.2f}", f"{cost.wall:.1f}", ratio, worker)
        self.console.print(table)

    def whole(self, rows: int) -> None:
        """The whole default feature set, Delta to Delta, beside moving the finished rows once."""
        lake, _ = self.world(rows, 0.1)
        table = features_table(CONF.spec)
        days = [START + timedelta(days=n) for n in range(DAYS)]
        copy = Lake(self.spark, str(self.root / "copy"))

        lake.create(table)
        copy.create(table)

        def slidr() -> None:
            before = counters.there(lake, CONF.spec, days, "now")
            counters.replace_days(lake, data_files.of(lake, CLICKS), before, days, spec=CONF.spec, known="now", zones=CONF.marketplaces)

        def floor() -> None:
            finished = lake.read(table).repartition(F.col("click_id")).sortWithinPartitions("click_date", "origin", "click_id")
            finished.write.format("delta").mode("overwrite").partitionBy("click_date", "origin").save(copy.path(table))

        self.show(f"Whole feature set, {rows:,} clicks", rows, side_by_side({"slidr": slidr, "floor": floor}, runs=self.rounds), "floor")

    def six(self, rows: int) -> None:
        lake, path = self.world(rows, 0.1)
        ways: dict[str, Callable[[], Any]] = {
            "slidr": lambda: six_in_slidr(lake),
            "arrays alone": lambda: six_in_kernel(path),
            "DuckDB": lambda: six_in_duckdb(path),
            "Polars": lambda: six_in_polars(path),
        }
        if rows <= 500_000:
            ways["Spark range windows"] = lambda: six_in_spark_windows(lake)
        if rows <= 200_000:
            ways[TEMPO] = lambda: six_in_tempo(lake)
        costs = side_by_side(ways, runs=self.rounds)
        different = {name: cost.result for name, cost in costs.items() if name != TEMPO and cost.result != costs["slidr"].result}
        assert not different, f"expected {costs['slidr'].result}, found {different}"
        self.show(f"Six counts of one key, {rows:,} clicks", rows, costs, "slidr")

    def growth(self, sizes: list[int]) -> None:
        table = Table(title="Growth: six counts of one key, whole feature set", title_justify="left")
        for name in ("clicks", "six, us/click", "whole set, us/click", "largest worker MiB"):
            table.add_column(name)
        seen = []
        for rows in sizes:
            lake, _ = self.world(rows, 0.1)
            ways = {"six": lambda lake=lake: six_in_slidr(lake), "whole": lambda lake=lake: self._nowhere(lake)}
            costs = side_by_side(ways, runs=1)
            seen.append((rows, costs["six"].cpu, costs["whole"].cpu))
            worker = max(cost.worker for cost in costs.values()) / 2**20
            table.add_row(f"{rows:,}", f"{seen[-1][1] / rows * 1e6:.2f}", f"{seen[-1][2] / rows * 1e6:.2f}", f"{worker:.0f}")
        self.console.print(table)
        for column, name in ((1, "six"), (2, "whole set")):
            slope = np.polyfit(np.log([row[0] for row in seen]), np.log([row[column] for row in seen]), 1)[0]
            self.console.print(f"log-log slope of CPU, {name}: {slope:.2f}")

    def _nowhere(self, lake: Lake, known: Known = "now") -> None:
        built(lake, CONF.spec, known).write.format("noop").mode("overwrite").save()

    def day(self, rows: int) -> None:
        """The last of the days with all before it as its look-back; of that the reading of the clicks, beside the reading of a narrow
        keyed copy of them; and all days."""
        lake, last = self.world(rows, 0.1)[0], END - timedelta(days=1)
        stage = counters.plan(CONF.spec, known="now", tasks=4)[0]
        clicks, exchange = data_files.of(lake, CLICKS), counters.families(CONF.spec)[0][0]
        reading = Reading(clicks, stage.layout, exchange, (last, END), dict(CONF.marketplaces), stage.buckets)
        copy = Keyed(reading, self.root / f"keyed-{rows}")
        copy.folder.mkdir()
        copy.write()
        sizes = (sum(file.stat().st_size for file in Path(path).rglob("*.parquet")) / rows for path in (lake.path(CLICKS), copy.folder))
        self.console.print("bytes of a click: {:.0f}, of its keyed copy: {:.0f}".format(*sizes))
        frames = {
            "one day and its look-back": lambda: built(lake, CONF.spec, start=last),
            "reading alone": lambda: _by_file(reading.clicks, reading.run),
            "reading a keyed copy": lambda: _by_file(clicks, copy.run),
            "all days": lambda: built(lake, CONF.spec),
        }
        ways = {name: lambda made=made: made().write.format("noop").mode("overwrite").save() for name, made in frames.items()}
        self.show(f"A day with its look-back, {rows:,} clicks", rows, side_by_side(ways), "one day and its look-back")

    def giant(self, rows: int) -> None:
        """All clicks on one address: what the largest Python worker holds."""
        lake, _ = self.world(rows, 1.0)
        ways = {known: lambda known=known: self._nowhere(lake, known) for known in KNOWN}
        self.show(f"One key, {rows:,} clicks", rows, side_by_side(ways, runs=1, warm=0), "now")

    def hot(self, rows: int) -> None:
        lakes = {f"{share:.0%} on one address": self.world(rows, share)[0] for share in (0.01, 0.1, 0.4)}
        costs = side_by_side({name: lambda lake=lake: self._nowhere(lake) for name, lake in lakes.items()})
        self.show(f"Skew: whole feature set, {rows:,} clicks", rows, costs, "1% on one address")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 500_000, 2_000_000, 8_000_000])
    parser.add_argument("--rounds", type=int, default=5, help="of the whole feature set and of the six counts, after a warm one")
    parser.add_argument("--only", choices=["whole", "six", "growth", "hot", "day", "giant"])
    given = parser.parse_args()
    spark = session.build(CONF.spark, app="slidr-bench")
    with tempfile.TemporaryDirectory(prefix="slidr-bench-") as folder:
        bench = Bench(spark, Path(folder), given.rounds)
        for name in [given.only] if given.only else ["whole", "six", "hot", "day", "growth"]:
            if name == "growth":
                bench.growth(given.rows)
            else:
                for rows in given.rows:
                    getattr(bench, name)(rows)
    spark.stop()


if __name__ == "__main__":
    main()
