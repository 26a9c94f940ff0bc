"""Slice metrics equal a plain count; what they mean is in test_monitoring_signals.py."""

from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession

from slidr import monitoring
from slidr.config import Config
from slidr.lake import Lake
from slidr.tables import CURRENT_DECISIONS, LABELS, SLICE_METRICS
from tests.frames import at, day, frame, purchase, purchases

DAY = at("2026-03-10")
NO_LABELS = dict.fromkeys(("purchasing", "purchasing_invalid", "high_rfm", "high_rfm_invalid", "heavy", "heavy_invalid"))


def decision(click_id: str, time: datetime, **given: Any) -> dict[str, Any]:
    defaults = {
        "click_id": click_id,
        "click_time": time,
        "click_date": time.date(),
        "local_date": time.date(),
        "session_id": "s",
        "advertiser_id": "adv",
        "campaign_id": "cam",
        "marketplace": "US",
        "device": "desktop",
        "logged_in": False,
        "cost_micros": 100,
        "currency": "USD",
        "slice": "desktop/guest",
        "report_slice": "desktop/guest/US",
        "is_invalid": False,
        "score": None,
        "basis": "model",
        "model_version": "1",
        "run_id": "r",
        "decided_time": time,
        "first_is_invalid": False,
        "first_model_version": "1",
    }
    return {**defaults, **given}


def label(click_id: str, **given: Any) -> dict[str, Any]:
    base = {"click_id": click_id, "click_date": DAY.date(), "label_time": DAY + timedelta(days=3), "rfm_score": None}
    return {**base, "is_human": False, "label_reason": "none", "is_purchase": False, "in_heavy_session": False, **given}


PARTS = ("scored", *(f"score_to_{edge}" for edge in (20, 40, 50, 60, 80, 95)))
SCORED = dict.fromkeys(("featured", "featured_to_50", *(f"{part}{suffix}" for part in PARTS for suffix in ("", "_invalid"))))
YOUNG = {"bought_24h": None, "bought_24h_invalid": None}  # an hour that is not a day old
AGES = [name for age in (1, 6, 24) for name in (f"bought_{age}h", f"bought_{age}h_invalid")]


def metric(hour: int, view: str, version: str, day_text: str = "2026-03-10", **given: Any) -> dict[str, Any]:
    base = {"click_date": day(day_text), "hour": hour, "report_slice": "desktop/guest/US", "model_version": version, "currency": "USD"}
    counts = dict.fromkeys((*NO_LABELS, *SCORED, *AGES, "clicks", "invalid", "heavy_now", "heavy_now_invalid"), 0)
    return {
        **base,
        "view": view,
        **counts,
        "empty_permille": None,
        "null_permille": None,
        "empty_permille_to_50": None,
        "cost_micros": 0,
        "invalid_cost_micros": 0,
        **given,
    }


def bought(spark: SparkSession, *rows: tuple[str, datetime]) -> DataFrame:
    return spark.createDataFrame(list(rows), "click_id string, known_time timestamp")


def test_metrics_of_both_views(lake: Lake, spark: SparkSession, conf: Config) -> None:
    """Corrected, replay-first, unversioned and unpriced clicks; a day with labels and one without."""
    hour, next_day = DAY + timedelta(hours=23, minutes=59, seconds=59), DAY + timedelta(days=1)
    current = [
        decision("a", hour, is_invalid=True, model_version="2", replay_id="r2", score=0.99, empty_permille=900, null_permille=50),
        decision("b", hour, score=0.5, empty_permille=100, null_permille=0),
        decision("c", hour, is_invalid=True, model_version="2", first_is_invalid=None, first_model_version=None, cost_micros=None),
        decision("d", hour, is_invalid=True, first_is_invalid=True, score=0.95, empty_permille=300, null_permille=200),
        decision("e", next_day, model_version=None, first_model_version=None, cost_micros=None),
        decision("f", DAY - timedelta(seconds=1)),
    ]
    labels = [
        label("a", is_purchase=True, label_reason="purchase", is_human=True),
        label("b", is_human=True, label_reason="rfm"),
        label("c", in_heavy_session=True),
        label("d", is_human=True, label_reason="rfm"),
    ]
    lake.append(frame(spark, CURRENT_DECISIONS, current), CURRENT_DECISIONS)
    lake.append(frame(spark, LABELS, labels), LABELS)
    days = [DAY.date(), next_day.date()]
    orders = bought(spark, ("a", hour + timedelta(hours=1)), ("d", hour + timedelta(hours=6, seconds=1)), ("d", hour + timedelta(hours=9)))
    now = DAY + timedelta(days=2)  # an hour after the last hour of the first day was a day old
    expected = [
        metric(
            23,
            "first",
            "1",
            clicks=3,
            invalid=1,
            purchasing=1,
            high_rfm=2,
            high_rfm_invalid=1,
            cost_micros=300,
            invalid_cost_micros=100,
            scored=2,  # the score of a is version 2's
            score_to_50=1,
            score_to_60=1,
            score_to_80=1,
            score_to_95=2,
            scored_invalid=1,
            score_to_95_invalid=1,
            featured=2,
            empty_permille=400,
            null_permille=200,
            featured_to_50=1,
            empty_permille_to_50=100,
            bought_1h=1,
            bought_6h=1,
            bought_24h=2,
            bought_24h_invalid=1,
        ),
        metric(
            23,
            "published",
            "1",
            clicks=2,
            invalid=1,
            high_rfm=2,
            high_rfm_invalid=1,
            cost_micros=200,
            invalid_cost_micros=100,
            scored=2,
            score_to_50=1,
            score_to_60=1,
            score_to_80=1,
            score_to_95=2,
            scored_invalid=1,
            score_to_95_invalid=1,
            featured=2,
            empty_permille=400,
            null_permille=200,
            featured_to_50=1,
            empty_permille_to_50=100,
            bought_24h=1,
            bought_24h_invalid=1,
        ),
        metric(
            23,
            "published",
            "2",
            clicks=2,
            invalid=2,
            purchasing=1,
            purchasing_invalid=1,
            heavy=1,
            heavy_invalid=1,
            cost_micros=100,
            invalid_cost_micros=100,
            scored=1,
            scored_invalid=1,
            featured=1,
            empty_permille=900,
            null_permille=50,
            bought_1h=1,
            bought_1h_invalid=1,
            bought_6h=1,
            bought_6h_invalid=1,
            bought_24h=1,
            bought_24h_invalid=1,
        ),
        *[
            metric(0, view, "", "2026-03-11", clicks=1, **NO_LABELS, **YOUNG, cost_micros=None, invalid_cost_micros=None)
            for view in ("first", "published")
        ],
    ]
    for _ in range(2):  # a second run replaces what the first wrote
        monitoring.update(lake, days, orders, now=now, heavy=conf.labels)
        assert_df_equality(lake.read(SLICE_METRICS), frame(spark, SLICE_METRICS, expected), ignore_row_order=True, ignore_nullable=True)


def test_what_the_upstream_filter_made_free_is_not_decided_by_score(lake: Lake, spark: SparkSession, conf: Config) -> None:
    given = {"is_invalid": True, "first_is_invalid": True, "score": 0.3}
    rows = [decision("a", DAY, ivt_class="givt", basis="upstream", **given), decision("b", DAY, ivt_class="sivt", **given)]
    lake.append(frame(spark, CURRENT_DECISIONS, rows), CURRENT_DECISIONS)
    lake.append(frame(spark, LABELS, []), LABELS)
    monitoring.update(lake, [DAY.date()], bought(spark), now=DAY + timedelta(days=2), heavy=conf.labels)
    names = ("invalid", "scored", "scored_invalid", "score_to_20_invalid", "score_to_40", "score_to_40_invalid")
    assert [tuple(row) for row in lake.read(SLICE_METRICS).select(*names).distinct().collect()] == [(2, 2, 1, 0, 2, 1)]


def test_days_are_stale_once_something_is_said_of_them(lake: Lake, spark: SparkSession, conf: Config) -> None:
    days = [DAY.date(), DAY.date() + timedelta(days=1), DAY.date() + timedelta(days=2)]
    rows = [decision("a", DAY), decision("b", DAY + timedelta(days=1)), decision("c", DAY + timedelta(days=2))]
    lake.append(frame(spark, CURRENT_DECISIONS, rows), CURRENT_DECISIONS)
    assert monitoring.stale(lake, [*days, DAY.date() + timedelta(days=3)]) == days  # nothing was measured, nothing decided on the last one
    lake.create(LABELS)
    monitoring.update(lake, days[:2], bought(spark), now=DAY + timedelta(days=3), heavy=conf.labels)
    assert monitoring.stale(lake, days) == days[2:]
    monitoring.update(lake, days[2:], bought(spark), now=DAY + timedelta(days=3), heavy=conf.labels)
    assert monitoring.stale(lake, days) == []
    lake.append(frame(spark, LABELS, [label("a")]), LABELS)
    assert monitoring.stale(lake, days) == days[:1]
    lake.append(frame(spark, CURRENT_DECISIONS, [decision("late", DAY + timedelta(days=1, hours=1))]), CURRENT_DECISIONS)
    assert monitoring.stale(lake, days) == days[:2]
    monitoring.update(lake, days[1:2], bought(spark), now=DAY + timedelta(days=3), heavy=conf.labels)
    assert monitoring.stale(lake, days) == days[:1]
    assert monitoring.stale(lake, days[1:]) == []


def test_a_click_is_heavy_by_what_came_before_it_only(spark: SparkSession, conf: Config) -> None:
    """Of twelve clicks a minute apart the last two have ten others; the first day's clicks count for the next day's."""
    start = DAY - timedelta(minutes=11)
    current = frame(spark, CURRENT_DECISIONS, [decision(f"{n:02d}", start + timedelta(minutes=n), is_invalid=n == 11) for n in range(12)])
    none = frame(spark, LABELS, [])
    of_labels = conf.labels.model_copy(update={"heavy_others": 10, "heavy_minutes": 60})
    found = monitoring.slice_metrics(current, none, bought(spark), days=[DAY.date()], now=DAY, heavy=of_labels).where("view = 'published'")
    assert [(row.clicks, row.heavy_now, row.heavy_now_invalid, row.bought_1h) for row in found.collect()] == [(1, 1, 1, None)]


def test_hours_and_purchases_reach_the_driver_in_utc(spark: SparkSession) -> None:
    rows = [metric(23, "first", "1", clicks=2), metric(23, "first", "1", clicks=3, currency="EUR")]
    hours = monitoring.read_hours(frame(spark, SLICE_METRICS, rows))
    assert hours[["time", "clicks"]].values.tolist() == [[pd.Timestamp("2026-03-10 23:00"), 5]]
    orders = [
        purchase("a", DAY, arrival_time=DAY + timedelta(hours=5, minutes=59)),
        purchase("b", DAY, arrival_time=DAY + timedelta(hours=6)),
    ]
    feed = monitoring.purchase_feed(purchases(spark, *orders), start=DAY, end=DAY + timedelta(hours=6))
    assert feed.values.tolist() == [[pd.Timestamp("2026-03-10 05:00"), "US", 1]]
