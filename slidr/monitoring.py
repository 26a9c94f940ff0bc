"""Slice metrics by hour, for first decisions and for the published state, and hours whose invalidation rate deviates."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr import plots
from slidr.config import MonitoringConf
from slidr.curves import TOTAL, share
from slidr.days import days_between
from slidr.lake import Lake
from slidr.tables import CURRENT_DECISIONS, LABELS, SLICE_METRICS

OK, DEVIATING, TOO_FEW = "ok", "deviating", "too_few"
KEYS = ["click_date", "hour", "report_slice"]
COLUMNS = [*KEYS, "time", "clicks", "invalid", "ivr", "baseline_clicks", "baseline_ivr", "verdict"]
VIEWS = {"first": ("first_is_invalid", "first_model_version"), "published": ("is_invalid", "model_version")}


def slice_metrics(current: DataFrame, labels: DataFrame, *, days: Sequence[date]) -> DataFrame:
    """Rows of `slice_metrics` of these days from `current_decisions` and `labels`, for both views.

    A click that a replay was first to decide has no first decision and is left out of the view `first`. Counts of labelled
    clicks are NULL for days that have no labels.
    """
    in_days = F.col("click_date").isin(list(days))
    signs = labels.where(in_days).select("click_id", "is_purchase", "label_reason", "in_heavy_session")
    matured = labels.where(in_days).select("click_date").distinct().withColumn("matured", F.lit(True))
    judged = current.where(in_days).join(signs, on="click_id", how="left").join(F.broadcast(matured), on="click_date", how="left")
    views = [_view(judged, view) for view in VIEWS]
    return views[0].unionByName(views[1])


def _view(judged: DataFrame, view: str) -> DataFrame:
    invalid, version = (F.col(name) for name in VIEWS[view])
    high_rfm = (F.col("label_reason") == "rfm") & ~F.col("is_purchase")
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
    )
    sums: list[Column] = [F.count(F.lit(1)).alias("clicks"), F.count_if("invalid").alias("invalid")]
    for name in ("purchasing", "high_rfm", "heavy"):
        sums.append(_if_matured(F.col(name)).alias(name))
        sums.append(_if_matured(F.col(name) & F.col("invalid")).alias(f"{name}_invalid"))
    free = F.when(F.col("cost_micros").isNotNull(), F.lit(0).cast("bigint"))
    sums.append(F.sum("cost_micros").alias("cost_micros"))
    sums.append(F.sum(F.when(F.col("invalid"), F.col("cost_micros")).otherwise(free)).alias("invalid_cost_micros"))
    return rows.groupBy(*SLICE_METRICS.grain).agg(*sums).select(*SLICE_METRICS.names)


def _if_matured(condition: Column) -> Column:
    return F.when(F.bool_or("matured"), F.count_if(condition))


def update(lake: Lake, days: Sequence[date]) -> None:
    """Replaces the metrics of these days, in one commit."""
    metrics = slice_metrics(lake.read(CURRENT_DECISIONS, days), lake.read(LABELS, days), days=days)
    lake.replace_days(metrics, SLICE_METRICS, days)


def deviations(
    metrics: DataFrame | pd.DataFrame, *, conf: MonitoringConf, days: Sequence[date] | None = None, view: str = "published"
) -> pd.DataFrame:
    """One row per hour of `days` (default: all days in `metrics`) and report slice, and per hour of all slices, `(all)`.

    The baseline is the same UTC hour of the slice, pooled over the `baseline_days` before; days without decisions add
    nothing to it. Columns: COLUMNS; `verdict` is ok, deviating, or too_few where hour or baseline has fewer than
    `min_clicks`; `time` is the hour as a UTC timestamp; shares of nothing are NaN.
    """
    hours = _hours(metrics, view)
    judged = hours if days is None else hours[hours["click_date"].isin(list(days))]
    table = judged.merge(_baselines(hours, judged, conf.baseline_days), on=KEYS, how="left")
    for name in ("baseline_clicks", "baseline_invalid"):
        table[name] = table[name].fillna(0).astype("int64")
    table["ivr"] = [share(part, whole) for part, whole in zip(table["invalid"], table["clicks"], strict=True)]
    table["baseline_ivr"] = [share(part, whole) for part, whole in zip(table["baseline_invalid"], table["baseline_clicks"], strict=True)]
    table["verdict"] = [_judge(row, conf) for _, row in table.iterrows()]
    table["time"] = pd.to_datetime(table["click_date"]) + pd.to_timedelta(table["hour"], unit="h")
    return table.sort_values(KEYS).reset_index(drop=True)[COLUMNS]


def _hours(metrics: DataFrame | pd.DataFrame, view: str) -> pd.DataFrame:
    """clicks and invalid by KEYS, over versions and currencies, with the rows of all slices added."""
    if isinstance(metrics, DataFrame):
        sums = metrics.where(F.col("view") == view).groupBy(KEYS).agg(F.sum("clicks").alias("clicks"), F.sum("invalid").alias("invalid"))
        rows = [tuple(row) for row in sums.collect()]  # hours x report slices
        slices = pd.DataFrame(rows, columns=[*KEYS, "clicks", "invalid"])
    else:
        slices = metrics[metrics["view"] == view].groupby(KEYS, as_index=False)[["clicks", "invalid"]].sum()
    totals = slices.groupby(["click_date", "hour"], as_index=False)[["clicks", "invalid"]].sum().assign(report_slice=TOTAL)
    return pd.concat([slices, totals], ignore_index=True)[[*KEYS, "clicks", "invalid"]]


def _baselines(hours: pd.DataFrame, judged: pd.DataFrame, baseline_days: int) -> pd.DataFrame:
    shifted = [hours.assign(click_date=[day + timedelta(days=ago) for day in hours["click_date"]]) for ago in range(1, baseline_days + 1)]
    pooled = pd.concat(shifted).groupby(KEYS, as_index=False)[["clicks", "invalid"]].sum()
    pooled = pooled[pooled["click_date"].isin(set(judged["click_date"]))]
    return pooled.rename(columns={"clicks": "baseline_clicks", "invalid": "baseline_invalid"})


def _judge(row: pd.Series, conf: MonitoringConf) -> str:
    if min(row["clicks"], row["baseline_clicks"]) < conf.min_clicks:
        return TOO_FEW
    low, high = sorted((row["ivr"], row["baseline_ivr"]))
    apart = high > conf.max_ivr_ratio * low and high - low >= conf.min_ivr_difference
    return DEVIATING if apart else OK


def verdict(deviations: pd.DataFrame, *, start: datetime | None = None, end: datetime | None = None) -> str:
    """One verdict over the hours of [start, end): deviating if any is, ok if at least one could be judged, else too_few."""
    rows = deviations
    if start is not None:
        rows = rows[rows["time"] >= _naive(start)]
    if end is not None:
        rows = rows[rows["time"] < _naive(end)]
    found = set(rows["verdict"])
    return next((name for name in (DEVIATING, OK) if name in found), TOO_FEW)


def verdicts_by_version(metrics: DataFrame, *, conf: MonitoringConf, now: datetime) -> dict[str, str]:
    """Model version -> one verdict over the hours, of all slices, in which it made first decisions lately.

    Lately is the `stable_after_hours` up to `now`; `metrics` holds `baseline_days` more. A version that decided nothing
    since then is not in the result. It takes half of its hours with enough clicks to be `ok`.
    """
    start = now - timedelta(hours=conf.stable_after_hours)
    days = days_between(start.date(), (now - timedelta(microseconds=1)).date() + timedelta(days=1))
    table = deviations(metrics, conf=conf, days=days, view="first")
    whole = table[table["report_slice"] == TOTAL]
    decided = metrics.where((F.col("view") == "first") & F.col("click_date").isin(days)).select("model_version", *KEYS[:2]).distinct()
    rows = pd.DataFrame([tuple(row) for row in decided.collect()], columns=["model_version", *KEYS[:2]])  # hours x versions
    judged = rows.merge(whole, on=KEYS[:2])
    judged = judged[(judged["time"] >= _naive(start)) & (judged["time"] < _naive(now))]
    return {str(version): _verdict_of_version(hours) for version, hours in judged.groupby("model_version")}


def _verdict_of_version(hours: pd.DataFrame) -> str:
    found = verdict(hours)
    return TOO_FEW if found == OK and (hours["verdict"] == OK).mean() < 0.5 else found


def _naive(time: datetime) -> pd.Timestamp:
    """The UTC wall time of `time`, as `deviations` has it."""
    stamp = pd.Timestamp(time)
    return stamp.tz_convert("UTC").tz_localize(None) if stamp.tzinfo else stamp


def plot(deviations: pd.DataFrame, path: Path, *, report_slice: str = TOTAL) -> None:
    """IVR by hour beside its baseline, one slice or all; deviating hours are shaded."""
    rows = deviations[deviations["report_slice"] == report_slice]
    lines = [rows.assign(hour=rows["time"], ivr=rows[name], view=name)[["hour", "view", "ivr"]] for name in ("ivr", "baseline_ivr")]
    views = {
        "baseline_ivr": ("the same hours of the days before", plots.CURVE, "-"),
        "ivr": ("these hours", plots.CHOSEN, "-"),
    }
    bad = rows.loc[rows["verdict"] == DEVIATING, "time"]
    shaded = [(hour, hour + pd.Timedelta(hours=1)) for hour in bad]
    plots.plot_hours(pd.concat(lines), path, shaded=shaded, shade="deviating hour", views=views)
