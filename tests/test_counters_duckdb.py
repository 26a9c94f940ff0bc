"""Every cell of the features against another engine: half a million made clicks and the real files by its range windows, clicks as known
at their arrival by its joins."""

from datetime import date
from pathlib import Path

import duckdb
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from slidr import config
from slidr.features.spec import SECOND, TIME_COLUMNS, Counter, FeatureSpec, column_name, micros
from slidr.lake import Lake
from slidr.tables import CLICKS
from tests.bench.clicks import fill, write_parquet
from tests.commands import World
from tests.foreign import real

KEYS = ["user_id", "session_id", "ip_key", "user_agent"]
LOCAL = "wall_clock"
EQUAL_ANGLES = 1e-12  # sines and cosines of two libraries


def counted(spec: FeatureSpec, counter: Counter, window: str) -> str:
    """One feature as SQL over click_id, t (microseconds) and the keys."""
    keys = ", ".join(spec.key_columns(counter.entity))
    frame = f"(PARTITION BY {keys} ORDER BY t RANGE BETWEEN {micros(window)} PRECEDING AND 1 PRECEDING)"
    measures = {"clicks": f"count(*) OVER {frame}", "since_prev": f"(t - max(t) OVER {frame}) / {SECOND}.0"}
    measure = measures.get(counter.measure, f"count(DISTINCT {counter.distinct}) OVER {frame}")
    known = " AND ".join(f"{key} IS NOT NULL" for key in spec.key_columns(counter.entity))
    return f"CASE WHEN {known} THEN {measure} END AS {column_name(counter.entity, counter.measure, window)}"


def then(spec: FeatureSpec, entity: str, clicks: Path) -> str:
    """The features of one entity as known at arrival, as a query of click_id and these: each click beside those it counts."""
    keys = spec.key_columns(entity)
    columns = []
    for counter in (c for c in spec.counters if c.entity == entity):
        for window in counter.windows:
            measures = {"clicks": "count(b.click_id)", "since_prev": f"(any_value(a.t) - max(b.t)) / {SECOND}.0"}
            measure = measures.get(counter.measure, f"count(DISTINCT b.{counter.distinct})")
            inside = f"{measure} FILTER (WHERE b.t >= a.t - {micros(window)})" if counter.measure != "since_prev" else measure
            columns.append(f"CASE WHEN any_value({_known(keys)}) THEN {inside} END AS {column_name(entity, counter.measure, window)}")
    same = " AND ".join(f"a.{key} = b.{key}" for key in keys)
    counts = f"b.t < a.t AND b.t >= a.t - {spec.longest_window} AND b.arrived <= a.arrived"
    files = f"'{clicks}/*.parquet'"
    return f"SELECT a.click_id, {', '.join(columns)} FROM {files} a LEFT JOIN {files} b ON {same} AND {counts} GROUP BY a.click_id"  # noqa: S608


def _known(keys: tuple[str, ...]) -> str:
    return " AND ".join(f"a.{key} IS NOT NULL" for key in keys)


def of_click(zones: dict[str, str]) -> str:
    """Time of click and logged_in as SQL over t, marketplace and signed_in."""
    cases = " ".join(f"WHEN '{name}' THEN make_timestamptz(t) AT TIME ZONE '{zone}'" for name, zone in zones.items())
    hour, weekday = f"2 * pi() * (hour({LOCAL}) * 60 + minute({LOCAL})) / 1440", f"2 * pi() * (isodow({LOCAL}) - 1) / 7"
    angles = f"sin({hour}) AS hour_sin, cos({hour}) AS hour_cos, sin({weekday}) AS weekday_sin, cos({weekday}) AS weekday_cos"
    return f"CASE marketplace {cases} END AS {LOCAL}, {angles}, signed_in::INT AS logged_in"


def differing(expected: str, features: Path, names: list[str]) -> tuple[int, dict[str, int]]:
    """(rows compared, feature -> differing cells, of those that have any) of a query of click_id and features."""
    unequal = [
        f"abs(a.{name} - b.{name}) > {EQUAL_ANGLES}" if name in TIME_COLUMNS else f"a.{name} IS DISTINCT FROM b.{name}" for name in names
    ]
    cells = ", ".join(f"count(*) FILTER (WHERE {cell}) AS {name}" for name, cell in zip(names, unequal, strict=True))
    found = duckdb.execute(
        f"SELECT count(*), {cells} FROM ({expected}) a "  # noqa: S608
        f"JOIN read_parquet('{features}/*/*/*.parquet', hive_partitioning = false) b USING (click_id)"
    ).fetchone()
    assert found is not None
    return found[0], {name: count for name, count in zip(names, found[1:], strict=True) if count}


def narrow(world: World) -> Path:
    """The clicks of a world as files for the other engine."""
    micro = [F.unix_micros("click_time").alias("t"), F.unix_micros("arrival_time").alias("arrived")]
    rows = world.lake.read(CLICKS).select("click_id", *micro, *KEYS, "marketplace", F.col("logged_in").alias("signed_in"))
    rows.write.parquet(str(world.root / "narrow"))
    return world.root / "narrow"


def stored(world: World, spec: FeatureSpec) -> Path:
    return world.root / "lake" / "features" / spec.spec_id


def compared(world: World, first: str, last: str, conf: str) -> tuple[int, dict[str, int]]:
    """Builds the features of the days in two ranges, the later first, and compares them."""
    middle = str(date.fromordinal((date.fromisoformat(first).toordinal() + date.fromisoformat(last).toordinal()) // 2))
    for start, end in ((middle, last), (first, middle)):
        world.ok("features", "--known", "now", "--from", start, "--to", end)
    found = config.load(config.shipped(conf))
    spec, zones = found.spec, {"US": "America/New_York"} if conf == "local.yaml" else found.marketplaces
    expected = ", ".join([*(counted(spec, c, w) for c in spec.counters for w in c.windows), of_click(zones)])
    query = f"SELECT click_id, {expected} FROM '{narrow(world)}/*.parquet'"  # noqa: S608
    return differing(query, stored(world, spec), [column.name for column in spec.columns])


def test_clicks_as_known_at_their_arrival(spark: SparkSession, tmp_path: Path) -> None:
    world, hashed = World(tmp_path, spark, {}), F.xxhash64("click_id")
    write_parquet(tmp_path / "made", 20_000, hot=0.1)
    late = F.when(F.pmod(hashed, F.lit(5)) == 0, F.pmod(hashed, F.lit(3 * micros("1d")))).otherwise(0)
    fill(Lake(spark, str(tmp_path / "lake")), spark, tmp_path / "made", delay=late)
    world.ok("features", "--from", "2026-03-01", "--to", "2026-03-08")
    spec, files = config.load(config.shipped("local.yaml")).spec, narrow(world)
    for entity, _ in spec.entities:
        names = [column_name(c.entity, c.measure, w) for c in spec.counters if c.entity == entity for w in c.windows]
        assert differing(then(spec, entity, files), stored(world, spec), names) == (20_000, {})


@pytest.mark.slow
def test_made_clicks_with_a_hot_address(spark: SparkSession, tmp_path: Path) -> None:
    world = World(tmp_path, spark, {"spark.shuffle_partitions": "4"})
    write_parquet(tmp_path / "made", 500_000, hot=0.1)
    fill(Lake(spark, str(tmp_path / "lake")), spark, tmp_path / "made")
    assert compared(world, "2026-03-01", "2026-03-08", "local.yaml") == (500_000, {})


@pytest.mark.slow
def test_real_ad_clicks(spark: SparkSession, tmp_path: Path) -> None:
    world = World(tmp_path, spark, {}, "talkingdata.yaml")
    world.ok("init")
    world.ok("ingest", "--source", "talkingdata", real("talkingdata/train_sample.csv.gz"))
    assert compared(world, "2017-11-06", "2017-11-10", "talkingdata.yaml") == (100_000, {})


@pytest.mark.slow
def test_dense_web_traffic(spark: SparkSession, tmp_path: Path) -> None:
    world = World(tmp_path, spark, {"marketplaces": "{US: America/New_York}"}, "local.yaml")
    world.ok("init")
    world.ok("ingest", "--source", "apache_access", real("apache_access/access.log.gz"), code=10)
    assert compared(world, "2015-05-17", "2015-05-21", "local.yaml") == (9_999, {})
