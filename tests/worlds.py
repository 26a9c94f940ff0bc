"""A tiny lake to replay on: 32 clicks of two days, their features, and decisions by version 1 and by a live system."""

import shutil
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from slidr import data_files, scoring
from slidr.bundle import Bundle, preparation_for
from slidr.config import Config
from slidr.features import counters
from slidr.features.spec import FeatureSpec
from slidr.lake import Lake
from slidr.replay.audit import Who
from slidr.replay.request import Request
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, LABELS, REPLAY_DECISIONS, REPLAYS, Table, features_table
from slidr.version import Version
from tests import expressions
from tests.bundles import LOGIN_SLICES
from tests.frames import at, click, frame

SPEC = FeatureSpec.from_dict(
    {
        "entities": {"ip": ["ip_key"]},
        "counters": [{"entity": "ip", "measure": "clicks", "windows": ["1h"]}],
        "time_of_click": False,
        "logged_in": True,
    }
)
FIRST, SECOND = at("2026-03-01"), at("2026-03-02")
END, NOW = at("2026-03-03"), at("2026-03-05 12:00:00")
ANN, BOB = Who("ann", "run-a"), Who("bob", "run-b")
DAYS = [FIRST.date(), SECOND.date()]
UNDECIDED = ("c14", "c15", "c31")
UPSTREAM = ("c02", "c18")
WITHOUT_FEATURES = "c19"
PUBLISHED = (REPLAY_DECISIONS, CORRECTIONS, CURRENT_DECISIONS)


def bundle(weight: float, bias: float, thresholds: dict[str, float], spec: FeatureSpec = SPEC) -> Bundle:
    """score = sigmoid(weight * log(1 + clicks of the address in the last hour) + bias)."""
    names = tuple(column.name for column in spec.columns)
    preparation = preparation_for(spec)
    weights = np.array([[weight] + [0.0] * (preparation.inputs - 1)], dtype=np.float32)
    parts = {name: {} for name in ("labels", "table_versions", "config", "libraries", "metrics")}
    layers = ((weights, np.array([bias], dtype=np.float32)),)
    sha = f"{weight}:{bias}:{sorted(thresholds.items())}"
    return Bundle(spec, names, preparation, layers, LOGIN_SLICES, thresholds, 0.5, sha256=sha, **parts)


def version(number: str, state: str = "stable") -> Version:
    """1 invalidates from two earlier clicks on; 2 is lax on desktops and strict on phones; 3 is strict everywhere."""
    thresholds = {
        "1": {"desktop/guest": 0.5, "phone/guest": 0.5},
        "2": {"desktop/guest": 0.9, "phone/guest": 0.3},
        "3": {"desktop/guest": 0.3},
    }
    return Version(number, state, bundle(1.0, -1.0, thresholds[number]))


def revised(state: str = "stable", spec: FeatureSpec = SPEC) -> Version:
    return replace(version("2", state), bundle=bundle(1.0, -1.0, {}, spec))


def loose(conf: Config) -> Config:
    """Guardrails that let everything through: a tiny world changes half of its clicks."""
    return conf.model_copy(update={"replay": conf.replay.model_copy(update={"max_changed_share": 1.0, "max_fpr": 1.0})})


def request(start: datetime = FIRST, end: datetime = END, **given: Any) -> Request:
    return Request(start, end, **given)


def made_clicks() -> list[dict[str, Any]]:
    """16 clicks a day, five minutes apart, of two addresses; three advertisers, two currencies, one click without a price."""
    rows = []
    for number in range(32):
        day = FIRST if number < 16 else SECOND
        name = f"c{number:02d}"
        given = {
            "ip": f"192.0.2.{number % 2}",
            "ip_key": f"192.0.2.{number % 2}",
            "device": "phone" if number % 4 < 2 else "desktop",
            "advertiser_id": f"adv-{number % 3}",
            "currency": "EUR" if number % 3 == 2 else "USD",
            "marketplace": "DE" if number % 3 == 2 else "US",
            "cost_micros": None if name == "c05" else 100_000 + number,
            "upstream_filter": "data centre" if name in UPSTREAM else None,
        }
        rows.append(click(name, day + timedelta(hours=10, minutes=5 * (number % 16)), **given))
    return rows


def fill(lake: Lake, conf: Config) -> None:
    """Clicks, features as known then, labels of the first day, decisions: the first day by version 1, the second by a live system.

    The live system decided the opposite of version 1, and logged its features.
    """
    clicks = frame(lake.spark, CLICKS, made_clicks())
    lake.append(clicks, CLICKS)
    files = data_files.of(lake, CLICKS)
    built = counters.build(lake.spark, files, spec=SPEC, start=DAYS[0], end=END.date(), known="then", zones=conf.marketplaces)
    origin = F.when(F.col("click_date") == F.lit(DAYS[0]), "then").otherwise("logged")
    lake.append(built.where(F.col("click_id") != WITHOUT_FEATURES).withColumn("origin", origin), features_table(SPEC))
    lake.append(frame(lake.spark, LABELS, made_labels()), LABELS)
    for table in (DECISIONS, REPLAYS, *PUBLISHED):
        lake.create(table)
    first = decided(lake, clicks.where(~F.col("click_id").isin(*UNDECIDED)))
    lake.append(first, DECISIONS)
    lake.append(scoring.as_published(first), CURRENT_DECISIONS)


def made_labels() -> list[dict[str, Any]]:
    base = {"click_date": DAYS[0], "rfm_score": None, "label_time": at("2026-03-04"), "in_heavy_session": False}
    return [
        {**base, "click_id": row["click_id"], "is_human": bought, "is_purchase": bought, "label_reason": "purchase" if bought else "none"}
        for number, row in enumerate(made_clicks()[:16])
        for bought in [number in (0, 12)]
    ]


def decided(lake: Lake, clicks: DataFrame) -> DataFrame:
    """First decisions of these clicks by version 1 and, on the second day, by a live system."""
    stored = counters.prefer_logged(lake.read(features_table(SPEC)))
    time = at("2026-03-03 01:00:00")
    first = expressions.decisions(clicks, stored, version("1").bundle, version="1", run_id="r1", decided_time=time)
    live = (F.col("click_date") == F.lit(DAYS[1])) & (F.col("basis") != "upstream")
    invalid = F.when(live, ~F.col("is_invalid")).otherwise(F.col("is_invalid"))
    foreign = {
        "ivt_class": F.when(F.col("basis") == "upstream", "givt").when(invalid, "sivt"),
        "spec_id": F.when(~live, F.col("spec_id")),
        "model_version": F.when(live, "live-3").otherwise(F.col("model_version")),
        "is_invalid": invalid,
        "basis": F.when(live, "external").otherwise(F.col("basis")),
        **{name: F.when(~live, F.col(name)) for name in scoring.REASONS},
    }
    return first.withColumns(foreign).localCheckpoint()


def publish_first(lake: Lake, decided: DataFrame, days: list[date] = DAYS) -> int:
    """First decisions of a live system come late; returns how many are new."""
    new = lake.insert_new(decided, DECISIONS, days)
    scoring.complete(lake, days)
    return new


def rows_of(lake: Lake, table: Table) -> list[tuple[Any, ...]]:
    """All rows of a table in a fixed order, for comparing two lakes."""
    return sorted((tuple(row) for row in lake.read(table).collect()), key=repr)


def versions_of(lake: Lake, *tables: Table) -> dict[str, int]:
    return {table.name: lake.version(table) for table in tables}


def state(lake: Lake) -> dict[str, tuple[Any, ...]]:
    """click_id -> (is_invalid, model_version, first_is_invalid) of the published state."""
    rows = lake.read(CURRENT_DECISIONS).select("click_id", "is_invalid", "model_version", "first_is_invalid").collect()
    assert len({row[0] for row in rows}) == len(rows), "a click has two rows"
    return {row[0]: tuple(row)[1:] for row in rows}


def copy_of(template: str, spark: SparkSession, root: str) -> Lake:
    """The filled lake at another place: Delta's paths are relative."""
    shutil.copytree(template, root)
    return Lake(spark, root)
