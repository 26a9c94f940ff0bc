"""Decisions with their reasons: of invalid clicks alone, each by its own features."""

from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.reasons import strongest
from slidr.scoring import EMPTY, NULLS, REASONS, nothing
from slidr.tables import CLICKS, DECISIONS
from tests import expressions
from tests.bundles import crowd
from tests.frames import click, frame

NAMES = {"fair": 0, "low": 1, "high": 40, "higher": 900, "free": 900}
AT = datetime(2026, 3, 1, 10, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def clicks(spark: SparkSession) -> DataFrame:
    upstream = {"free": "data centre"}
    names = [*NAMES, "unknown"]
    rows = [click(name, AT, device="desktop", logged_in=False, upstream_filter=upstream.get(name)) for name in names]
    return frame(spark, CLICKS, rows).localCheckpoint()


@pytest.fixture(scope="module")
def features(spark: SparkSession, conf: Config) -> DataFrame:
    """Every known click with its address's clicks in a day; there are none of `unknown`."""
    kinds = {column.name: column.type for column in conf.spec.columns}
    rows = [
        [name, *[None if c.endswith("_since_prev") else float(count) if c == "ip_clicks_24h" else 0.0 for c in kinds]]
        for name, count in NAMES.items()
    ]
    made = spark.createDataFrame(rows, "click_id string, " + ", ".join(f"{name} double" for name in kinds))
    return made.withColumns({name: F.col(name).cast(kind) for name, kind in kinds.items()}).localCheckpoint()


def decided(clicks: DataFrame, features: DataFrame, conf: Config) -> dict[str, tuple]:
    rows = expressions.decisions(clicks, features, crowd(conf), version="1", run_id="r", decided_time=AT)
    assert rows.columns == DECISIONS.names
    return {row["click_id"]: row for row in rows.collect()}


def test_empty_features_are_null_or_zero() -> None:
    x_BF = np.array([[0.0, np.nan, 0.0], [1.0, 0.0, -2.0], [0.5, 3.0, 1e-9], [np.nan, 4.0, 0.0]])
    found = {name: permille.tolist() for name, permille in nothing(x_BF).items()}
    assert found == {EMPTY: [1000, 333, 0, 667], NULLS: [333, 0, 0, 333]}


def test_invalid_clicks_have_reasons_and_others_have_none(clicks: DataFrame, features: DataFrame, conf: Config) -> None:
    found = decided(clicks, features, conf)
    assert {name: tuple(row[reason] for reason in REASONS) for name, row in found.items()} == {
        "fair": (None,) * 4,
        "low": (None,) * 4,
        "high": ("rate", "ip: 40 clicks in 24 h", None, None),
        "higher": ("rate", "ip: 900 clicks in 24 h", None, None),
        "free": ("upstream filter", "upstream filter: data centre", None, None),
        "unknown": (None,) * 4,
    }
    assert {name for name, row in found.items() if row["is_invalid"]} == {"high", "higher", "free"}


def test_a_click_below_its_own_threshold_has_no_reasons_though_another_slice_would_have_caught_it(
    clicks: DataFrame, features: DataFrame, conf: Config
) -> None:
    elsewhere = clicks.withColumn("logged_in", F.col("click_id") == "high")
    found = decided(elsewhere, features, conf)  # desktop/login is no slice of the version: the default threshold, 0.6
    assert found["high"]["basis"] == "unseen_slice"
    assert found["high"]["is_invalid"]
    harsh = {"desktop/guest": 0.5, "desktop/login": 0.999999}
    rows = expressions.score_clicks(elsewhere, features, replace(crowd(conf), thresholds=harsh)).collect()
    assert {row["click_id"]: row["reason_1"] for row in rows if row["basis"] == "model"} == {
        "fair": None,
        "low": None,
        "high": None,
        "higher": "ip: 900 clicks in 24 h",
    }


def test_reasons_are_those_of_the_arrays_however_the_clicks_are_spread(clicks: DataFrame, features: DataFrame, conf: Config) -> None:
    bundle = crowd(conf)
    names = [column.name for column in conf.spec.columns]
    table = features.toPandas().set_index("click_id")[names].to_numpy(dtype=np.float64)
    texts = dict(zip(NAMES, strongest(bundle, table)[1][:, 0], strict=True))
    for parts in (1, 5):
        found = decided(clicks.repartition(parts), features.repartition(parts), conf)
        assert {name: found[name]["reason_1"] for name in ("high", "higher")} == {name: texts[name] for name in ("high", "higher")}
