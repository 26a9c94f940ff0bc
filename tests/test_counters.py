"""Counters on Spark: equal to every pair of clicks, whatever the partitioning and the range they are built by."""

import math
import random
from datetime import date, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from slidr import buckets
from slidr.config import Config
from slidr.data_files import Files
from slidr.features import counters
from slidr.features.spec import SECOND, FeatureSpec, micros
from tests.frames import at, click, click_files, day, from_micros
from tests.oracles import naive_features

DAYS = (day("2026-03-01"), day("2026-03-05"))
KEYS = ("user_id", "session_id", "ip_key", "user_agent")


def random_clicks(seed: int, size: int) -> list[dict]:
    """Clicks of few keys with ties, NULL users and agents, exact window distances, late and early arrivals."""
    rng = random.Random(seed)
    start = int(at("2026-03-01").timestamp()) * SECOND
    steps = [0, 1, micros("1m"), micros("1m") - 1, micros("1h"), micros("6h"), micros("24h"), 7 * SECOND]
    rows = []
    for number in range(size):
        time = start + rng.randrange(0, 4 * 24) * micros("1h") + rng.choice(steps)
        late = rng.choice([0, 0, 0, SECOND, micros("1h"), micros("24h")])
        rows.append(
            {
                "click_id": f"c{number}",
                "time": time,
                "arrival": time + late,
                "user_id": rng.choice([None, "u1", "u2"]),
                "session_id": rng.choice(["s1", "s2", "s3"]),
                "ip_key": rng.choice(["a", "a", "a", "b", None]),
                "user_agent": rng.choice([None, "x", "y"]),
            }
        )
    return [row for row in rows if row["time"] < int(at("2026-03-05").timestamp()) * SECOND]


def as_files(folder: Path, rows: list[dict], files: int = 1) -> Files:
    made = [
        click(
            row["click_id"],
            from_micros(row["time"]),
            arrival_time=from_micros(row["arrival"]),
            ip=row["ip_key"],
            **{key: row[key] for key in KEYS},
        )
        for row in rows
    ]
    return click_files(folder, made, files)


def built(
    spark: SparkSession, found: Files, spec: FeatureSpec, known: str, start: date, end: date, zones: dict[str, str]
) -> dict[str, dict]:
    features = counters.build(spark, found, spec=spec, start=start, end=end, known=known, zones=zones)
    names = [c.name for c in spec.columns if not c.name.startswith(("hour", "weekday", "logged"))]
    rows = features.select("click_id", *names).collect()
    result = {row["click_id"]: row.asDict() for row in rows}
    assert len(result) == len(rows), "a click has two rows"
    return {key: {name: row[name] for name in names} for key, row in result.items()}


@pytest.mark.parametrize("known", ["then", "now"])
def test_every_cell_equals_the_naive_count(spark: SparkSession, conf: Config, known: str, tmp_path: Path) -> None:
    rows = random_clicks(seed=3, size=250)
    assert built(spark, as_files(tmp_path, rows), conf.spec, known, *DAYS, conf.marketplaces) == naive_features(rows, conf.spec, known)


def test_partitioning_order_and_path_change_nothing(spark: SparkSession, conf: Config, tmp_path: Path) -> None:
    rows = random_clicks(seed=4, size=200)
    whole = built(spark, as_files(tmp_path / "whole", rows), conf.spec, "then", *DAYS, conf.marketplaces)
    random.Random(5).shuffle(rows)
    shuffled = as_files(tmp_path / "shuffled", rows, files=7)
    by_day: dict[str, dict] = {}
    for offset in (3, 0, 2, 1):
        start = DAYS[0] + timedelta(days=offset)
        by_day |= built(spark, shuffled, conf.spec, "then", start, start + timedelta(days=1), conf.marketplaces)
    assert by_day == whole


@pytest.mark.parametrize(("partitions", "adaptive"), [("1", "true"), ("7", "false"), ("7", "true")])
def test_numbers_of_tasks_and_adaptive_execution_change_nothing(
    spark: SparkSession, conf: Config, tmp_path: Path, partitions: str, adaptive: str
) -> None:
    rows = random_clicks(seed=6, size=120)
    settings = {"spark.sql.shuffle.partitions": partitions, "spark.sql.adaptive.enabled": adaptive}
    before = {key: spark.conf.get(key) for key in settings}
    for key, value in settings.items():
        spark.conf.set(key, value)
    try:
        found = built(spark, as_files(tmp_path, rows, files=3), conf.spec, "then", *DAYS, conf.marketplaces)
    finally:
        for key, value in before.items():
            spark.conf.set(key, value)
    assert found == naive_features(rows, conf.spec, "then")


def test_time_of_click_is_the_marketplaces(spark: SparkSession, conf: Config, tmp_path: Path) -> None:
    # 8 March 2026, 02:00 in New York does not exist: clocks go from 01:59 (UTC-5) to 03:00 (UTC-4).
    times = {"before": "2026-03-08 06:59:00", "after": "2026-03-08 07:00:00", "monday": "2026-03-09 04:00:00"}
    found = click_files(tmp_path, [click(name, at(time)) for name, time in times.items()])
    features = counters.build(
        spark, found, spec=conf.spec, start=day("2026-03-08"), end=day("2026-03-10"), known="now", zones=conf.marketplaces
    ).collect()
    hour = {row["click_id"]: (math.atan2(row["hour_sin"], row["hour_cos"]) / (2 * math.pi) * 24) % 24 for row in features}
    assert hour["before"] == pytest.approx(1 + 59 / 60)
    assert hour["after"] == pytest.approx(3)
    monday = next(row for row in features if row["click_id"] == "monday")
    assert (monday["weekday_sin"], monday["weekday_cos"]) == (0.0, 1.0)


@pytest.mark.parametrize("tasks", [1, 2, 7, 200])
def test_each_bucket_goes_to_another_task(spark: SparkSession, tasks: int) -> None:
    numbers = buckets.one_for_each(tasks)
    rows = spark.createDataFrame([(number,) for number in numbers], "bucket int").repartition(tasks, "bucket")
    placed = rows.select(F.spark_partition_id().alias("task"), "bucket").collect()
    assert sorted(row["task"] for row in placed) == list(range(tasks))
    assert [bucket for _, bucket in sorted(placed)] == list(numbers)


def test_logged_features_win(spark: SparkSession) -> None:
    df = spark.createDataFrame(
        [("a", "logged", 1), ("a", "then", 2), ("b", "then", 3), ("b", "now", 4)], "click_id string, origin string, n int"
    )
    assert sorted(tuple(row) for row in counters.prefer_logged(df).collect()) == [("a", "logged", 1), ("b", "then", 3)]
