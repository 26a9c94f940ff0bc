"""Slice metrics equal a plain count, and hours that invalidate too much are found, whatever days before them are missing."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chispa import assert_df_equality
from pyspark.sql import SparkSession

from slidr import monitoring
from slidr.config import Config, MonitoringConf
from slidr.lake import Lake
from slidr.tables import CURRENT_DECISIONS, LABELS, SLICE_METRICS
from tests.frames import at, day, frame

DAY = at("2026-03-10")
CONF = MonitoringConf(baseline_days=3, max_ivr_ratio=2.0, min_ivr_difference=0.05, min_clicks=100, stable_after_hours=48)
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


def metric(hour: int, view: str, version: str, day_text: str = "2026-03-10", **given: Any) -> dict[str, Any]:
    base = {"click_date": day(day_text), "hour": hour, "report_slice": "desktop/guest/US", "model_version": version, "currency": "USD"}
    counts = dict.fromkeys(("clicks", "invalid", *NO_LABELS, "cost_micros", "invalid_cost_micros"), 0)
    return {**base, "view": view, **counts, **given}


def test_metrics_of_both_views(lake: Lake, spark: SparkSession) -> None:
    """Corrected, replay-first, unversioned and unpriced clicks; a day with labels and one without."""
    hour, next_day = DAY + timedelta(hours=23, minutes=59, seconds=59), DAY + timedelta(days=1)
    current = [
        decision("a", hour, is_invalid=True, model_version="2", replay_id="r2"),
        decision("b", hour),
        decision("c", hour, is_invalid=True, model_version="2", first_is_invalid=None, first_model_version=None, cost_micros=None),
        decision("d", hour, is_invalid=True, first_is_invalid=True),
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
    expected = [
        metric(
            23, "first", "1", clicks=3, invalid=1, purchasing=1, high_rfm=2, high_rfm_invalid=1, cost_micros=300, invalid_cost_micros=100
        ),
        metric(23, "published", "1", clicks=2, invalid=1, high_rfm=2, high_rfm_invalid=1, cost_micros=200, invalid_cost_micros=100),
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
        ),
        *[
            metric(0, view, "", "2026-03-11", clicks=1, **NO_LABELS, cost_micros=None, invalid_cost_micros=None)
            for view in ("first", "published")
        ],
    ]
    for _ in range(2):  # a second run replaces what the first wrote
        monitoring.update(lake, days)
        assert_df_equality(lake.read(SLICE_METRICS), frame(spark, SLICE_METRICS, expected), ignore_row_order=True, ignore_nullable=True)
    found = monitoring.deviations(lake.read(SLICE_METRICS), conf=CONF.model_copy(update={"min_clicks": 1}), days=days)
    assert found[["report_slice", "clicks", "invalid"]].values.tolist() == [
        ["(all)", 4, 3],
        ["desktop/guest/US", 4, 3],
        ["(all)", 1, 0],
        ["desktop/guest/US", 1, 0],
    ]


def hours(ago: int, invalid: int, clicks: int = 1000, hour: int = 5, **given: Any) -> dict[str, Any]:
    """One hour `ago` days before DAY."""
    when = (DAY - timedelta(days=ago)).date()
    return {**metric(hour, "published", "1", clicks=clicks, invalid=invalid), "click_date": when, **given}


def judged(rows: list[dict[str, Any]], report_slice: str = "(all)") -> pd.Series:
    found = monitoring.deviations(pd.DataFrame(rows), conf=CONF, days=[DAY.date()])
    return found[found["report_slice"] == report_slice].iloc[0]


def test_baseline_is_the_same_hour_of_the_days_before() -> None:
    """Other hours, the fourth day before, the later day and the other view do not count; versions and currencies are pooled."""
    rows = [hours(0, 200), hours(1, 30, model_version="2"), hours(2, 50, currency="EUR", clicks=3000)]
    rows += [hours(4, 1000), hours(1, 1000, hour=6), hours(-1, 1000), hours(1, 1000, view="first")]
    row = judged(rows)
    assert (row["baseline_clicks"], row["baseline_ivr"], row["ivr"], row["verdict"]) == (4000, 0.02, 0.2, "deviating")
    assert row["time"] == pd.Timestamp("2026-03-10 05:00")


@pytest.mark.parametrize(
    ("now", "before", "verdict"),
    [
        ((100, 1000), (50, 1000), "ok"),  # twice the baseline is not above twice
        ((101, 1000), (50, 1000), "deviating"),
        ((10, 1000), (150, 1000), "deviating"),  # robots that are no longer caught
        ((45, 1000), (10, 1000), "ok"),  # four times, but 3.5 points
        ((99, 99), (0, 1000), "too_few"),
        ((100, 100), (0, 99), "too_few"),
        ((100, 100), (0, 0), "too_few"),
        ((100, 100), (0, 100), "deviating"),
        ((0, 1000), (900, 1000), "deviating"),
    ],
)
def test_verdicts_at_the_bounds(now: tuple[int, int], before: tuple[int, int], verdict: str) -> None:
    rows = [hours(0, *now)] + ([hours(2, *before)] if before[1] else [])
    assert judged(rows)["verdict"] == verdict


def test_a_slice_deviates_alone() -> None:
    rows = [hours(ago, 10, 100_000) for ago in (0, 1)]
    rows += [hours(0, 150, 200, report_slice="phone/login/DE"), hours(1, 2, 200, report_slice="phone/login/DE")]
    assert judged(rows)["verdict"] == "ok"
    assert judged(rows, "phone/login/DE")["verdict"] == "deviating"
    found = monitoring.deviations(pd.DataFrame(rows), conf=CONF, days=[DAY.date()])
    assert monitoring.verdict(found) == "deviating"
    assert monitoring.verdict(found, start=DAY + timedelta(hours=6)) == "too_few"
    assert monitoring.verdict(found, end=DAY + timedelta(hours=5)) == "too_few"
    assert monitoring.verdict(found[found["report_slice"] != "phone/login/DE"], start=DAY, end=DAY + timedelta(hours=6)) == "ok"


def test_nothing_to_judge() -> None:
    empty = monitoring.deviations(pd.DataFrame([hours(5, 1)]), conf=CONF, days=[DAY.date()])
    assert list(empty.columns) == monitoring.COLUMNS
    assert monitoring.verdict(empty) == "too_few"


def test_the_shipped_bounds_find_a_bad_night_and_draw_it(conf: Config, tmp_path: Path) -> None:
    usual = [hours(ago, 30 + (hour * 7) % 20, hour=hour) for ago in range(8) for hour in range(24)]
    night = [{**row, "invalid": 350} if row["click_date"] == DAY.date() and 2 <= row["hour"] < 6 else row for row in usual]
    found = monitoring.deviations(pd.DataFrame(night), conf=conf.monitoring, days=[DAY.date()])
    bad = found[(found["verdict"] == "deviating") & (found["report_slice"] == "(all)")]
    assert bad["hour"].tolist() == [2, 3, 4, 5]
    monitoring.plot(found, tmp_path / "hours.png")
    assert (tmp_path / "hours.png").stat().st_size > 10_000
