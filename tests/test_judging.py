"""All methods and the champion on the same frozen clicks: scored once, decided as scoring decides, and said where it can't be."""

from dataclasses import replace
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from slidr import judging
from slidr.bundle import Bundle
from slidr.calibration import count_pairs
from slidr.config import Config
from slidr.errors import NothingToDoError
from slidr.lake import Lake
from slidr.slice_spec import SlicePart, SliceSpec
from slidr.slices import slice_name
from slidr.tables import features_table
from tests import expressions
from tests.bundles import DEVICES, LOGIN_SLICES, made_by_hand

DAY = date(2026, 3, 4)
CLICKS = 60
THRESHOLDS = {"desktop/guest": 0.4, "desktop/login": 0.7}


def network(conf: Config, weight: float, thresholds: dict[str, float] = THRESHOLDS, **given: Any) -> Bundle:
    return made_by_hand(conf, {"ip_clicks_24h": weight, "user_clicks_1h": 0.2}, -1.0, thresholds, **given)


def labelled_clicks(spark: SparkSession, conf: Config) -> DataFrame:
    """Clicks of both parts with all features of the spec: two thirds are judged, some slice has no threshold."""
    random = np.random.default_rng(5)
    names = [column.name for column in conf.spec.columns if column.name != "logged_in"]
    table = pd.DataFrame(random.integers(0, 9, (CLICKS, len(names))), columns=names).astype(float)
    table.insert(0, "click_id", [f"c{number:02d}" for number in range(CLICKS)])
    table["click_time"] = [datetime(2026, 3, 4, number % 24, 30) for number in range(CLICKS)]
    table["part"] = np.where(np.arange(CLICKS) % 3 == 0, "calibration", "judging")
    table["device"] = random.choice(["desktop", "mobile"], CLICKS)
    table["campaign_id"] = "c1"
    table["marketplace"] = random.choice(["US", "JP"], CLICKS)
    table["logged_in"] = random.random(CLICKS) < 0.5
    table["is_purchase"] = np.arange(CLICKS) % 10 == 1
    table["label_reason"] = np.where(table["is_purchase"], "purchase", random.choice(["rfm", "none"], CLICKS))
    table["in_heavy_session"] = random.random(CLICKS) < 0.3
    table["advertiser_id"], table["currency"], table["cost_micros"] = "a1", "USD", 100_000
    table["user_key"] = random.integers(0, 20, CLICKS)
    table["fold"] = table["user_key"] % 5
    frame = spark.createDataFrame(table)
    return frame.withColumn("user_clicks_1h", F.when(F.col("click_id") != "c01", F.col("user_clicks_1h"))).withColumn(
        "slice", slice_name(LOGIN_SLICES)
    )


@pytest.fixture(scope="module")
def labelled(spark: SparkSession, conf: Config) -> DataFrame:
    return labelled_clicks(spark, conf).localCheckpoint()


def as_scored(labelled: DataFrame, bundle: Bundle) -> pd.DataFrame:
    """What batch scoring decides of the judging clicks."""
    clicks = labelled.where("part = 'judging'").withColumn("upstream_filter", F.lit(None).cast("string"))
    return expressions.score_clicks(clicks.drop("slice"), labelled, bundle).toPandas()


def test_counts_are_those_of_the_decisions_that_scoring_makes(labelled: DataFrame, conf: Config, lake: Lake) -> None:
    methods, champion = (
        {"mlp": network(conf, 0.5), "logistic": network(conf, 0.1)},
        network(conf, 0.6, slices=DEVICES, thresholds={"mobile": 0.55}),
    )
    with judging.scored(labelled, methods, champion, lake=lake, days=[DAY], zones=conf.marketplaces) as (rows, note):
        parts, incomplete = judging.method_curves(rows, judging.score_counts(rows))
        hours = judging.hour_counts(rows, {"new": ("mlp", methods["mlp"]), "champion": ("champion", champion)})
        pairs = judging.decided_by_both(rows, ("mlp", methods["mlp"]), champion).toPandas()
    assert (note, incomplete) == ("", "")
    assert {part: sorted(by_method) for part, by_method in parts.items()} == {
        "calibration": ["logistic", "mlp"],
        "judging": ["champion", "logistic", "mlp"],
    }
    decided = {name: as_scored(labelled, bundle) for name, bundle in (("new", methods["mlp"]), ("champion", champion))}
    assert 0 < decided["new"]["is_invalid"].sum() < 40
    for name, rows_of in decided.items():
        found = hours[hours["method"] == name]
        assert found["clicks"].sum() == len(rows_of) == 40
        beside = pairs.merge(rows_of, on="click_id")
        assert len(beside) == 40
        assert (beside["new_invalid" if name == "new" else "old_invalid"] == beside["is_invalid"]).all()
        assert found["invalid"].sum() == rows_of["is_invalid"].sum()
        assert found["purchasing_invalid"].sum() == (rows_of["is_invalid"] & rows_of["is_purchase"]).sum()
    both = set(decided["new"].query("is_invalid")["click_id"]) & set(decided["champion"].query("is_invalid")["click_id"])
    assert hours[hours["method"] == "both"]["invalid"].sum() == len(both) > 0
    curve = parts["judging"]["mlp"]["desktop/guest"]
    by_slice = hours[(hours["method"] == "new") & (hours["slice"] == "desktop/guest")]
    assert by_slice["invalid"].sum() == curve.at(0.4)["invalid"]


def test_a_slice_on_a_feature_is_the_same_in_judging_and_in_scoring(labelled: DataFrame, conf: Config, lake: Lake) -> None:
    """Champion and new version cut other features; a slice that calibration did not see takes the global threshold."""
    by_user = SliceSpec((SlicePart("device"), SlicePart("user_clicks_1h", cuts=(1.0, 5.0))))
    by_address = SliceSpec((SlicePart("ip_clicks_24h", cuts=(4.0,)), SlicePart("campaign_id")))
    new = network(conf, 0.5, slices=by_user, thresholds={"desktop/user_clicks_1h<1": 0.4, "mobile/user_clicks_1h>=5": 0.9})
    champion = network(conf, 0.6, slices=by_address, thresholds={"ip_clicks_24h<4/c1": 0.3})
    clicks = labelled.withColumn("slice", slice_name(by_user))
    with judging.scored(clicks, {"mlp": new}, champion, lake=lake, days=[DAY], zones=conf.marketplaces) as (rows, _):
        pairs = judging.decided_by_both(rows, ("mlp", new), champion).toPandas()
    assert {name.split("/")[1] for name in pairs["slice"]} == {*by_user.parts[1].bands, "user_clicks_1h=none"}
    for bundle, invalid, name in ((new, "new_invalid", "slice"), (champion, "old_invalid", "slice_champion")):
        rows_of = as_scored(clicks, bundle).set_index("click_id").loc[pairs["click_id"]]
        assert rows_of["slice"].tolist() == pairs[name].tolist()
        assert rows_of["is_invalid"].tolist() == pairs[invalid].tolist()
        unseen = ~rows_of["slice"].isin(list(bundle.thresholds))
        assert 0 < unseen.sum() < 40
        assert (rows_of["basis"] == np.where(unseen, "unseen_slice", "model")).all()
        assert (rows_of.loc[unseen, "threshold"] == bundle.default_threshold).all()


def test_a_champion_of_another_spec_is_scored_on_its_own_features(
    labelled: DataFrame, conf: Config, lake: Lake, spark: SparkSession
) -> None:
    raw = {**conf.features, "counters": [{"entity": "ip", "measure": "clicks", "windows": ["24h"]}]}
    other = conf.model_copy(update={"features": raw})
    bands = SliceSpec((SlicePart("device"), SlicePart("ip_clicks_24h", cuts=(5.0,))))
    champion = made_by_hand(other, {"ip_clicks_24h": 1.0}, -5.0, {"desktop/ip_clicks_24h>=5": 0.03}, slices=bands)
    table = features_table(other.spec)
    lake.create(table)
    features = labelled.where("part = 'judging'").select(
        "click_id",
        "click_time",
        F.lit(DAY).alias("click_date"),
        F.lit("then").alias("origin"),
        (F.col("ip_clicks_24h") + 1).cast("int").alias("ip_clicks_24h"),  # not what the new spec's table holds
        *[name for name in table.names if name.startswith(("hour", "weekday"))],
        F.col("logged_in").cast("int").alias("logged_in"),
    )
    lake.append(features.select(*table.names), table)
    methods = {"mlp": network(conf, 0.5)}
    with judging.scored(labelled, methods, champion, lake=lake, days=[DAY], zones=conf.marketplaces) as (rows, note):
        found = dict(rows.where("part = 'judging'").select("click_id", "score_champion").collect())
        cut = {row["click_id"]: row["slice_champion"].split("/")[1] for row in rows.where("part = 'judging'").collect()}
        parts, incomplete = judging.method_curves(rows, judging.score_counts(rows))
    expected = {row.click_id: row.ip_clicks_24h for row in features.collect()}
    assert found == {click: round(float(1 / (1 + np.exp(5 - np.log1p(count)))), 6) for click, count in expected.items()}
    assert cut == {click: "ip_clicks_24h>=5" if count >= 5 else "ip_clicks_24h<5" for click, count in expected.items()}
    assert (note, incomplete) == ("", "")
    assert "champion" in parts["judging"]
    lake.delta(table).delete("click_id = 'c01'")
    with judging.scored(labelled, methods, champion, lake=lake, days=[DAY], zones=conf.marketplaces) as (rows, _):
        parts, incomplete = judging.method_curves(rows, judging.score_counts(rows))
    assert "champion" not in parts["judging"]
    assert incomplete == "its features are there for 39 of 40 judging clicks only"


def test_a_champion_whose_features_are_gone_is_not_compared(labelled: DataFrame, conf: Config, lake: Lake) -> None:
    raw = {**conf.features, "counters": [{"entity": "ip", "measure": "clicks", "windows": ["6h"]}]}
    champion = made_by_hand(conf.model_copy(update={"features": raw}), {}, 0.0, {})
    with judging.scored(labelled, {"mlp": network(conf, 0.5)}, champion, lake=lake, days=[DAY], zones=conf.marketplaces) as (rows, note):
        assert "score_champion" not in rows.columns
        parts, incomplete = judging.method_curves(rows, judging.score_counts(rows))
    assert note == f"it reads features of spec {champion.spec.spec_id}, and the lake has no table of them"
    assert (sorted(parts["judging"]), incomplete) == (["mlp"], "")


def test_days_without_clicks_are_said(labelled: DataFrame, conf: Config, lake: Lake) -> None:
    training = labelled.withColumn("part", F.lit("training"))
    with (
        judging.scored(training, {"mlp": network(conf, 0.5)}, None, lake=lake, days=[DAY], zones=conf.marketplaces) as (rows, _),
        pytest.raises(NothingToDoError, match="label more days"),
    ):
        judging.method_curves(rows, judging.score_counts(rows))


def test_purchases_of_users_are_ranked_and_money_is_that_of_the_decisions(labelled: DataFrame, conf: Config, lake: Lake) -> None:
    methods = {"mlp": network(conf, 0.5)}
    deciding = {"bounded": ("mlp", methods["mlp"]), "global": ("mlp", replace(methods["mlp"], thresholds={}, default_threshold=0.6))}
    costly = labelled.withColumn("cost_micros", F.when(F.col("click_id") != "c02", F.length("click_id") * 1000 + F.col("user_key")))
    costly = costly.withColumn("currency", F.when(F.col("marketplace") == "US", "USD").otherwise("JPY"))
    with judging.scored(costly, methods, None, lake=lake, days=[DAY], zones=conf.marketplaces) as (rows, _):
        purchases = judging.purchases_of_users(rows, "mlp").sort_values("bin", ignore_index=True)
        money = judging.money(rows, deciding)
        table = rows.toPandas()
    bought = table[(table["part"] == "calibration") & table["is_purchase"]]
    bins = np.ceil(np.round(bought["score_mlp"] * 1e6) / 100).astype(int)
    expected = count_pairs(bought["user_key"].to_numpy(), bins.to_numpy())
    pd.testing.assert_frame_equal(purchases, expected, check_dtype=False)
    judged = table[table["part"] == "judging"].assign(cost=lambda rows: rows["cost_micros"].fillna(0))
    for decider, (_, bundle) in deciding.items():
        invalid = judged["score_mlp"] > judged["slice"].map(bundle.thresholds).fillna(bundle.default_threshold)
        found = money[money["decider"] == decider].set_index(["slice", "currency"]).sort_index()
        assert (
            found["invalid_cost_micros"].to_dict()
            == judged["cost"].where(invalid, 0).groupby([judged["slice"], judged["currency"]]).sum().to_dict()
        )
        assert found["cost_micros"].sum() == judged["cost"].sum()


def test_folds_of_the_calibration_clicks_are_kept_apart_and_those_of_judging_are_not(labelled: DataFrame, conf: Config, lake: Lake) -> None:
    with judging.scored(labelled, {"mlp": network(conf, 0.5)}, None, lake=lake, days=[DAY], zones=conf.marketplaces) as (rows, _):
        histogram = judging.score_counts(rows)
        by_fold = rows.where("part = 'calibration'").groupBy("fold").count().toPandas().set_index("fold")["count"]
    calibration = histogram[histogram["part"] == "calibration"]
    assert calibration.groupby("fold")["clicks"].sum().to_dict() == by_fold.to_dict()
    assert set(histogram.loc[histogram["part"] == "judging", "fold"]) == {0}
