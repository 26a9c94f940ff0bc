"""Decisions by hour and report slice, for first decisions and for the published state, and purchases by the hour they came in. On Spark.

The driver gets these small counts, never a row of a click; what they mean is judged in `signals`.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from slidr import data_files
from slidr.config import LabelsConf
from slidr.lake import Lake
from slidr.scoring import EMPTY, NOTHING
from slidr.tables import CURRENT_DECISIONS, LABELS, SLICE_METRICS, Table

VIEWS = {"first": ("first_is_invalid", "first_model_version"), "published": ("is_invalid", "model_version")}
AGES = (1, 6, 24)  # hours after the click at which its purchase is looked for
SCORES = (20, 40, 50, 60, 80, 95)  # inner edges of the score distribution, in hundredths
MIDDLE = 50  # of these the one that low scores end at
COUNTS = tuple(column.name for column in SLICE_METRICS.columns if column.type == "bigint" and "cost" not in column.name)
KEYS = ("time", "report_slice", "model_version", "view")


def slice_metrics(
    current: DataFrame, labels: DataFrame, bought: DataFrame, *, days: Sequence[date], now: datetime, heavy: LabelsConf
) -> DataFrame:
    """Rows of `slice_metrics` of these days from `current_decisions`, `labels` and `bought`, for both views.

    `current` holds the day before as well: whether a click is heavy by itself looks back. `bought` has click_id and known_time, when
    its first purchase was known. A click that a replay was first to decide has no first decision and is left out of the view
    `first`. Counts of labelled clicks are NULL for days that have no labels, purchases at an age for hours younger than it.
    """
    in_days = F.col("click_date").isin(list(days))
    signs = labels.where(in_days).select("click_id", "is_purchase", "label_reason", "in_heavy_session")
    matured = labels.where(in_days).select("click_date").distinct().withColumn("matured", F.lit(True))
    known = bought.groupBy("click_id").agg(F.min("known_time").alias("known_time"))
    judged = current.withColumn("heavy_now", _heavy_now(heavy)).where(in_days)
    judged = judged.join(signs, on="click_id", how="left").join(known, on="click_id", how="left")
    judged = judged.join(F.broadcast(matured), on="click_date", how="left")
    views = [_view(judged, view, now) for view in VIEWS]
    return views[0].unionByName(views[1])


def _heavy_now(conf: LabelsConf) -> Column:
    """Whether a click has at least `heavy_others` others of its session in the minutes up to it."""
    by_time = Window.partitionBy("session_id").orderBy("click_time", "click_id")
    earlier = F.lag("click_time", conf.heavy_others).over(by_time)
    return F.coalesce(earlier >= F.col("click_time") - F.expr(f"INTERVAL {conf.heavy_minutes} MINUTES"), F.lit(False))


def _view(judged: DataFrame, view: str, now: datetime) -> DataFrame:
    invalid, version = (F.col(name) for name in VIEWS[view])
    high_rfm = (F.col("label_reason") == "rfm") & ~F.col("is_purchase")
    age = (F.unix_micros("known_time") - F.unix_micros("click_time")) / 3_600_000_000
    hour_end = F.date_trunc("hour", F.col("click_time")) + F.expr("INTERVAL 1 HOUR")
    # The score is the published one: where a replay changed the version, the first one's is kept in `decisions` alone.
    own_score = F.col("score").isNotNull() & version.eqNullSafe(F.col("model_version"))
    rows = judged.where(invalid.isNotNull()).select(
        "click_date",
        F.hour("click_time").alias("hour"),
        "report_slice",
        F.coalesce(version, F.lit("")).alias("model_version"),
        "currency",
        F.lit(view).alias("view"),
        invalid.alias("invalid"),
        "matured",
        "cost_micros",
        F.col("is_purchase").alias("purchasing"),
        high_rfm.alias("high_rfm"),
        F.col("in_heavy_session").alias("heavy"),
        "heavy_now",
        F.when(own_score, F.col("score")).alias("score"),
        (invalid & ~F.col("ivt_class").eqNullSafe("givt")).alias("by_score"),
        *[F.when(own_score, F.col(name)).alias(name) for name in NOTHING],
        *[
            F.when(hour_end <= F.lit(now) - F.expr(f"INTERVAL {h} HOURS"), F.coalesce(age <= h, F.lit(False))).alias(f"at_{h}")
            for h in AGES
        ],
    )
    return rows.groupBy(*SLICE_METRICS.grain).agg(*_sums()).select(*SLICE_METRICS.names)


def _sums() -> list[Column]:
    sums: list[Column] = [F.count(F.lit(1)).alias("clicks"), F.count_if("invalid").alias("invalid")]
    for name in ("purchasing", "high_rfm", "heavy"):
        sums += _parts(name, F.col(name), F.bool_or("matured"))
    sums += _parts("heavy_now", F.col("heavy_now"), F.lit(True))
    for hours in AGES:
        sums += _parts(f"bought_{hours}h", F.col(f"at_{hours}"), F.count(f"at_{hours}") > 0)
    parts = {"scored": F.col("score").isNotNull(), **{f"score_to_{edge}": F.col("score") <= edge / 100 for edge in SCORES}}
    for name, part in parts.items():
        sums += _parts(name, part, F.lit(True), invalid="by_score")
    sums += [F.count(EMPTY).alias("featured"), *[F.sum(name).alias(name) for name in NOTHING]]
    low = F.when(F.col("score") <= MIDDLE / 100, F.col(EMPTY))
    sums += [F.count(low).alias(f"featured_to_{MIDDLE}"), F.sum(low).alias(f"{EMPTY}_to_{MIDDLE}")]
    free = F.when(F.col("cost_micros").isNotNull(), F.lit(0).cast("bigint"))
    sums.append(F.sum("cost_micros").alias("cost_micros"))
    sums.append(F.sum(F.when(F.col("invalid"), F.col("cost_micros")).otherwise(free)).alias("invalid_cost_micros"))
    return sums


def _parts(name: str, condition: Column, known: Column, invalid: str = "invalid") -> list[Column]:
    """Clicks that fulfil a condition, and the invalid ones of them; NULL where it is not known."""
    both = F.when(known, F.count_if(condition & F.col(invalid)))
    return [F.when(known, F.count_if(condition)).alias(name), both.alias(f"{name}_invalid")]


def update(lake: Lake, days: Sequence[date], bought: DataFrame, *, now: datetime, heavy: LabelsConf) -> None:
    """Replaces the metrics of these days, in one commit."""
    before = sorted({day - timedelta(days=back) for day in days for back in (0, 1)})
    metrics = slice_metrics(lake.read(CURRENT_DECISIONS, before), lake.read(LABELS, days), bought, days=days, now=now, heavy=heavy)
    lake.replace_days(metrics, SLICE_METRICS, days)


def stale(lake: Lake, days: Sequence[date]) -> list[date]:
    """Those of these days that were decided and never measured, or whose metrics are older than a decision, a correction or a label."""
    measured, decided, labelled = (_written(lake, table, days) for table in (SLICE_METRICS, CURRENT_DECISIONS, LABELS))
    newest = {day: max(time, labelled.get(day, time)) for day, time in decided.items()}
    return sorted(day for day, time in newest.items() if day not in measured or time > measured[day])


def _written(lake: Lake, table: Table, days: Sequence[date]) -> dict[date, datetime]:
    return data_files.written(lake, table, days) if lake.exists(table) else {}


def by_hour(metrics: DataFrame) -> pd.DataFrame:
    """KEYS and COUNTS of stored metrics over currencies; `time` is the UTC hour, without a zone."""
    time = F.col("click_date").cast("timestamp") + F.make_interval(hours=F.col("hour"))
    sums = metrics.withColumn("time", F.unix_seconds(time)).groupBy(*KEYS).agg(*[F.sum(name).alias(name) for name in COUNTS])
    rows: pd.DataFrame = sums.toPandas()  # hours x report slices x versions
    return rows.assign(time=pd.to_datetime(rows["time"], unit="s"))


def purchase_feed(purchases: DataFrame, *, start: datetime, end: datetime) -> pd.DataFrame:
    """time, marketplace, purchases: orders that came in [start, end), by the UTC hour of their arrival; cancelled ones too."""
    arrived = purchases.where((F.col("arrival_time") >= F.lit(start)) & (F.col("arrival_time") < F.lit(end)))
    hour = F.unix_seconds(F.date_trunc("hour", F.col("arrival_time"))).alias("time")
    counted = arrived.groupBy(hour, "marketplace").agg(F.count(F.lit(1)).alias("purchases"))
    rows: pd.DataFrame = counted.toPandas()  # hours x marketplaces
    return rows.assign(time=pd.to_datetime(rows["time"], unit="s"))
