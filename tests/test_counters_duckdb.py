"""Every cell of the features against another engine's range windows: half a million made clicks, and the real files."""

from datetime import date
from pathlib import Path

import duckdb
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from slidr import config
from slidr.features.spec import SECOND, Counter, FeatureSpec, column_name, micros
from slidr.lake import Lake
from slidr.tables import CLICKS
from tests.bench.clicks import fill, write_parquet
from tests.commands import World
from tests.foreign import real

pytestmark = pytest.mark.slow
KEYS = ["user_id", "session_id", "ip_key", "user_agent"]


def counted(spec: FeatureSpec, counter: Counter, window: str) -> str:
    """One feature as SQL over click_id, t (microseconds) and the keys."""
    keys = ", ".join(spec.key_columns(counter.entity))
    frame = f"(PARTITION BY {keys} ORDER BY t RANGE BETWEEN {micros(window)} PRECEDING AND 1 PRECEDING)"
    measures = {"clicks": f"count(*) OVER {frame}", "since_prev": f"(t - max(t) OVER {frame}) / {SECOND}.0"}
    measure = measures.get(counter.measure, f"count(DISTINCT {counter.distinct}) OVER {frame}")
    known = " AND ".join(f"{key} IS NOT NULL" for key in spec.key_columns(counter.entity))
    return f"CASE WHEN {known} THEN {measure} END AS {column_name(counter.entity, counter.measure, window)}"


def differing(clicks: Path, features: Path, spec: FeatureSpec) -> tuple[int, dict[str, int]]:
    """(rows compared, feature -> differing cells, of those that have any)."""
    names = [column_name(c.entity, c.measure, w) for c in spec.counters for w in c.windows]
    expected = ", ".join(counted(spec, c, w) for c in spec.counters for w in c.windows)
    cells = ", ".join(f"count(*) FILTER (WHERE a.{name} IS DISTINCT FROM b.{name}) AS {name}" for name in names)
    found = duckdb.execute(
        f"SELECT count(*), {cells} FROM (SELECT click_id, {expected} FROM '{clicks}/*.parquet') a "  # noqa: S608
        f"JOIN read_parquet('{features}/*/*/*.parquet', hive_partitioning = false) b USING (click_id)"
    ).fetchone()
    assert found is not None
    return found[0], {name: count for name, count in zip(names, found[1:], strict=True) if count}


def compared(world: World, first: str, last: str, conf: str) -> tuple[int, dict[str, int]]:
    """Builds the features of the days in two ranges, the later first, and compares them."""
    middle = str(date.fromordinal((date.fromisoformat(first).toordinal() + date.fromisoformat(last).toordinal()) // 2))
    for start, end in ((middle, last), (first, middle)):
        world.ok("features", "--known", "now", "--from", start, "--to", end)
    spec = config.load(config.shipped(conf)).spec
    narrow = world.lake.read(CLICKS).select("click_id", F.unix_micros("click_time").alias("t"), *KEYS)
    narrow.write.parquet(str(world.root / "narrow"))
    return differing(world.root / "narrow", world.root / "lake" / "features" / spec.spec_id, spec)


def test_made_clicks_with_a_hot_address(spark: SparkSession, tmp_path: Path) -> None:
    world = World(tmp_path, spark, {"spark.shuffle_partitions": "4"})
    write_parquet(tmp_path / "made", 500_000, hot=0.1)
    fill(Lake(spark, str(tmp_path / "lake")), spark, tmp_path / "made")
    assert compared(world, "2026-03-01", "2026-03-08", "local.yaml") == (500_000, {})


def test_real_ad_clicks(spark: SparkSession, tmp_path: Path) -> None:
    world = World(tmp_path, spark, {}, "talkingdata.yaml")
    world.ok("init")
    world.ok("ingest", "--source", "talkingdata", real("talkingdata/train_sample.csv.gz"))
    assert compared(world, "2017-11-06", "2017-11-10", "talkingdata.yaml") == (100_000, {})


def test_dense_web_traffic(spark: SparkSession, tmp_path: Path) -> None:
    world = World(tmp_path, spark, {"marketplaces": "{US: America/New_York}"}, "local.yaml")
    world.ok("init")
    world.ok("ingest", "--source", "apache_access", real("apache_access/access.log.gz"), code=10)
    assert compared(world, "2015-05-17", "2015-05-21", "local.yaml") == (9_999, {})
