"""The real files through the commands: to labels where there are clicks or orders alone, to decisions and a replay where there are both."""

import csv
import gzip
import math
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from slidr import config, tables
from tests.commands import World
from tests.foreign import NAMES, real, row, write_csv

ONE_DAY_EACH = {"training.train_days": "1", "training.calibration_days": "1", "training.judging_days": "1"}
pytestmark = pytest.mark.slow


def test_talkingdata_to_decisions_and_a_replay(spark: SparkSession, tmp_path: Path) -> None:
    world = World(tmp_path, spark, {}, "talkingdata.yaml")
    world.ok("init")
    world.ok("ingest", "--source", "talkingdata", real("talkingdata/train_sample.csv.gz"))
    assert world.ok("features", "--from", "2017-11-06", "--to", "2017-11-10")["written"] == 100_000
    labels = world.ok("labels", "--from", "2017-11-06", "--to", "2017-11-10")
    assert (labels["purchase"], labels["purchase"] + labels["none"]) == (227, 100_000)
    assert world.ok("train")["version"] == "1"
    world.ok("models", "promote", "1", "--reason", "first")
    world.ok("models", "mark-stable", "1", "--reason", "first")
    scored = world.ok("score", "--from", "2017-11-09", "--to", "2017-11-10")["new_decisions"]
    assert scored == world.lake.read(tables.CLICKS).where("click_date = '2017-11-09'").count() > 0
    plan = world.ok("replay", "plan", "--from", "2017-11-08", "--to", "2017-11-09", "--mode", "recompute", "--override", "never decided")
    applied = world.ok("replay", "apply", plan["plan_id"])
    assert applied["corrections"] == world.rows(tables.CORRECTIONS) > 0
    assert world.lake.read(tables.CORRECTIONS).where("delta_cost_micros is not null").isEmpty()  # no cost is known


def test_an_access_log_has_no_purchases_and_trains_nothing(spark: SparkSession, tmp_path: Path) -> None:
    world = World(tmp_path, spark, {**ONE_DAY_EACH, "marketplaces": "{US: America/New_York}"}, "talkingdata.yaml")
    world.ok("init")
    world.ok("ingest", "--source", "apache_access", real("apache_access/access.log.gz"), code=10)
    assert world.ok("features", "--from", "2015-05-17", "--to", "2015-05-21")["written"] == 9_999
    spec = config.load(config.shipped("talkingdata.yaml")).spec
    found = world.lake.read(tables.features_table(spec)).agg(F.max("ip_clicks_24h"), F.count("ip_clicks_24h")).collect()[0]
    assert tuple(found) == (356, 9_999)
    labels = world.ok("labels", "--from", "2015-05-17", "--to", "2015-05-21")
    assert (labels["none"], "purchase" in labels) == (9_999, False)
    stopped = world.ok("train", code=4)
    assert "purchas" in stopped["message"]
    assert world.ok("models", "list")["versions"] == []


def test_orders_of_real_households_give_their_scores(spark: SparkSession, tmp_path: Path) -> None:
    """One click of each household a day after the last order of the look-back: labelled by R, F and M of its real orders."""
    path = real("complete_journey/transactions.csv.gz")
    day = datetime(2017, 7, 1, tzinfo=timezone.utc)
    orders = real_orders(path)
    households = sorted({household for household, _, _ in orders.values()})
    clicks = [
        row(click_id=f"c-{name}", user_id=name, session_id=f"s-{name}", click_time=(day + timedelta(hours=12)).isoformat())
        for name in households
    ]
    world = World(tmp_path, spark, {})
    world.ok("init")
    world.ok("ingest", "--source", "complete_journey", path)
    world.ok("ingest", "--source", "canonical", write_csv(tmp_path / "clicks.csv", clicks, NAMES))
    assert world.ok("features", "--from", "2017-07-01", "--to", "2017-07-02")["written"] == len(households)
    world.ok("labels", "--from", "2017-07-01", "--to", "2017-07-02")
    found = {r.click_id: r.rfm_score for r in world.lake.read(tables.LABELS).select("click_id", "rfm_score").collect()}
    expected = naive_scores(orders, end=day + timedelta(days=1))
    assert found == {f"c-{name}": expected.get(name) for name in households}
    assert sum(score is not None for score in found.values()) > 100


def real_orders(path: str) -> dict[str, tuple[str, float, int]]:
    """basket -> (household, epoch seconds, cents)."""
    orders: dict[str, tuple[str, float, int]] = {}
    with gzip.open(path, "rt") as file:
        for line in csv.DictReader(file):
            household, time, cents = line["household_id"], float(line["transaction_timestamp"]), round(float(line["sales_value"]) * 100)
            before = orders.get(line["basket_id"], (household, time, 0))
            orders[line["basket_id"]] = (household, min(time, before[1]), before[2] + cents)
    return orders


def naive_scores(orders: dict[str, tuple[str, float, int]], end: datetime) -> dict[str, int]:
    """R + F + M by sorting: each is ceil(5 x share of the households that are not above)."""
    first, last = (end - timedelta(days=90)).timestamp(), end.timestamp()
    of: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for household, time, cents in orders.values():
        if first <= time < last:
            of[household].append((time, cents))
    measures = [
        {name: max(time for time, _ in made) for name, made in of.items()},
        {name: len(made) for name, made in of.items()},
        {name: sum(cents for _, cents in made) for name, made in of.items()},
    ]
    return {name: sum(math.ceil(5 * sum(v <= m[name] for v in m.values()) / len(m)) for m in measures) for name in of}
