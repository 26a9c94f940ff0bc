"""Clicks for benchmarks: a week, softened Zipf users, few robots with many clicks, one address with a share of all traffic."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from slidr.features.spec import micros
from slidr.lake import Lake
from slidr.tables import CLICKS

START = 1_772_323_200_000_000  # 1 March 2026, microseconds
DAYS = 7


def write_parquet(path: Path, rows: int, hot: float, seed: int = 1, files: int = 8) -> None:
    """click_id, t (microseconds), and the keys as text, in `files` files. 5 % of the clicks are on whole minutes: ties."""
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True)
    for number, size in enumerate([rows // files] * (files - 1) + [rows - rows // files * (files - 1)]):
        time = START + rng.integers(0, DAYS * 86_400_000, size) * 1000
        whole = rng.random(size) < 0.05
        time[whole] = time[whole] // micros("1m") * micros("1m")
        user = (rng.random(size) ** 3 * rows / 20).astype(np.int64)
        robots = rng.random(size) < 0.12
        user[robots] = rng.integers(0, max(rows // 2000, 1), robots.sum())
        ip = user * 7 // 10
        ip[rng.random(size) < hot] = -1
        columns = {
            "click_id": pa.array(np.arange(size) * files + number).cast(pa.string()),
            "t": pa.array(time),
            "user_id": pa.array(np.where(rng.random(size) < 0.4, -1, user)).cast(pa.string()),
            "session_id": pa.array(user * 50 + rng.integers(0, 50, size)).cast(pa.string()),
            "ip_key": pa.array(ip).cast(pa.string()),
            "user_agent": pa.array(rng.integers(0, 30, size)).cast(pa.string()),
        }
        pq.write_table(pa.table(columns), path / f"part-{number}.parquet")


def fill(lake: Lake, spark: SparkSession, path: Path, delay: Column | None = None) -> None:
    """The clicks of `write_parquet` as the table `clicks`; user -1 is a guest. They arrive `delay` microseconds after they were made."""
    rows = spark.read.parquet(str(path))
    time = F.timestamp_micros("t")
    fixed = {"device": "desktop", "marketplace": "US", "advertiser_id": "a", "campaign_id": "c", "currency": "USD"}
    columns = {
        "click_time": time,
        "arrival_time": time if delay is None else F.timestamp_micros(F.col("t") + delay),
        "click_date": F.to_date(time),
        "local_date": F.to_date(time),
        "user_id": F.when(F.col("user_id") != "-1", F.col("user_id")),
        "ip": F.col("ip_key"),
        "logged_in": F.col("user_id") != "-1",
        "cost_micros": F.lit(100_000).cast("bigint"),
        "upstream_filter": F.lit(None).cast("string"),
        **{name: F.lit(value) for name, value in fixed.items()},
    }
    lake.append(rows.withColumns(columns), CLICKS)
