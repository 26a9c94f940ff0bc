"""What is counted for the checks on data: one pass over the labelled clicks, and cheap counts of other tables. On Spark.

The driver gets counts by hour and by feature bin, never a row of a click.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from functools import reduce

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.guardrails.drift import BINS, bins_of
from slidr.pyworker import light

EPOCH = date(1970, 1, 1)
HOURS_OF_DAY = 24
COUNTS = ("clicks", "humans", "purchasing", "high_rfm", "no_user", "no_address", "late", "missing")
KEYS = ("day", "hour", "feature", "bin")
SCHEMA = ", ".join([*(f"{name} int" for name in KEYS), *(f"{name} bigint" for name in COUNTS)])
NONE = -1


def measure(labelled: DataFrame, *, features: Sequence[str], late_minutes: int) -> DataFrame:
    """Counts of the labelled clicks, in one pass: one row per day and hour, and one per day, feature and occupied bin.

    Columns KEYS (day in days since 1970; -1 where a key does not apply) and COUNTS; rows of bins count `clicks` only. Clicks
    without features are counted in `missing` and nowhere else. Needs click_time, click_date, arrival_time, user_id, ip_key,
    is_human, is_purchase, label_reason, has_features and the features. At most days x (24 + features x bins) rows, whatever the
    number of clicks.
    """
    has = F.col("has_features")
    late = F.unix_seconds("arrival_time") - F.unix_seconds("click_time") > late_minutes * 60
    flags = {
        "clicks": F.lit(True),
        "humans": F.col("is_human"),
        "purchasing": F.col("is_purchase"),
        "high_rfm": (F.col("label_reason") == "rfm") & ~F.col("is_purchase"),
        "no_user": F.col("user_id").isNull(),
        "no_address": F.col("ip_key").isNull(),
        "late": late,
    }
    rows = labelled.select(
        F.unix_date("click_date").alias("day"),
        F.hour("click_time").alias("hour"),
        *[(has & flag).cast("int").alias(name) for name, flag in flags.items()],
        (~has).cast("int").alias("missing"),
        *[F.col(name).cast("double").alias(f"f_{name}") for name in features],
    )
    counted = rows.mapInArrow(light(_counter(tuple(features))), SCHEMA)
    return counted.groupBy(*KEYS).agg(*[F.sum(name).alias(name) for name in COUNTS])


def window_tables(counted: DataFrame, features: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(hours, histogram, missing) of what `measure` counted: rows (day, hour, counts) of the clicks with features, rows (day,
    feature, bin, clicks), and rows (day, missing)."""
    table: pd.DataFrame = counted.toPandas()
    table["day"] = [EPOCH + timedelta(days=int(day)) for day in table["day"]]
    by_hour = table["feature"] == NONE
    hours = table.loc[by_hour & (table["clicks"] > 0), ["day", "hour", *COUNTS[:-1]]].sort_values(["day", "hour"], ignore_index=True)
    missing = table.loc[by_hour & (table["missing"] > 0)].groupby("day", as_index=False)["missing"].sum()
    histogram = table.loc[~by_hour, ["day", "feature", "bin", "clicks"]].sort_values(["day", "feature", "bin"], ignore_index=True)
    histogram["feature"] = [features[number] for number in histogram["feature"]]
    return hours, histogram, missing


def clicks_by_hour(clicks: DataFrame) -> DataFrame:
    """day, hour, clicks."""
    return clicks.groupBy(F.col("click_date").alias("day"), F.hour("click_time").alias("hour")).agg(F.count(F.lit(1)).alias("clicks"))


def orders_by_hour(purchases: DataFrame, *, delay_days: int) -> DataFrame:
    """day, hour, orders: orders by their own hour that were known at the label time of their day; cancelled ones are none."""
    known = F.col("arrival_time") <= F.date_add("purchase_date", 1 + delay_days).cast("timestamp")
    counted = purchases.where(~F.col("cancelled") & known).groupBy(
        F.col("purchase_date").alias("day"), F.hour("purchase_time").alias("hour")
    )
    return counted.agg(F.count(F.lit(1)).alias("orders"))


def rejects_by_reason(rejects: DataFrame | None, kept: Sequence[DataFrame], since: date) -> DataFrame:
    """reason, rows: refused rows of clicks and purchases since a day, by reason, and the rows that were kept, whose reason is NULL.

    A row of the window was refused on its day or later. `kept` are the frames of these tables since that day.
    """
    parts = [rows.select(F.lit(None).cast("string").alias("reason")) for rows in kept]
    if rejects is not None:
        of_input = F.col("table_name").isin("clicks", "purchases") & (F.col("reject_date") >= F.lit(since))
        parts.append(rejects.where(of_input).select("reason"))
    return reduce(DataFrame.unionByName, parts).groupBy("reason").agg(F.count(F.lit(1)).alias("rows"))


def _counter(features: tuple[str, ...]) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Counts a task's rows in arrays of fixed size per day, so that its memory does not grow with clicks."""

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        hours: dict[int, NDArray[np.int64]] = {}
        bins: dict[int, NDArray[np.int64]] = {}
        for batch in batches:
            values = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
            days, hour = values[0].astype(np.int64), values[1].astype(np.int64)
            flags = [np.nan_to_num(flag).astype(np.int64) for flag in values[2 : len(COUNTS) + 2]]
            has = flags[0] == 1
            found_BF = np.column_stack(values[len(COUNTS) + 2 :]) if features else np.empty((len(days), 0))
            flat_BF = bins_of(found_BF, features) + np.arange(len(features)) * BINS
            for day in np.unique(days):
                mine = days == day
                by_hour = [np.bincount(hour[mine], weights=flag[mine], minlength=HOURS_OF_DAY) for flag in flags]
                by_bin = np.bincount(flat_BF[mine & has].ravel(), minlength=len(features) * BINS)
                hours[int(day)] = hours.get(int(day), 0) + np.array(by_hour).astype(np.int64)
                bins[int(day)] = bins.get(int(day), 0) + by_bin.astype(np.int64)
        yield from (_hour_rows(day, counts) for day, counts in hours.items())
        yield from (_bin_rows(day, counts) for day, counts in bins.items())

    return count


def _hour_rows(day: int, counts: NDArray[np.int64]) -> pa.RecordBatch:
    hour = np.flatnonzero(counts[0] + counts[-1])
    none = np.full(len(hour), NONE)
    return _batch([np.full(len(hour), day), hour, none, none], [row[hour] for row in counts])


def _bin_rows(day: int, counts: NDArray[np.int64]) -> pa.RecordBatch:
    at = np.flatnonzero(counts)
    nothing = np.zeros(len(at), dtype=np.int64)
    return _batch([np.full(len(at), day), np.full(len(at), NONE), at // BINS, at % BINS], [counts[at], *[nothing] * (len(COUNTS) - 1)])


def _batch(keys: list[NDArray[np.int64]], counts: list[NDArray[np.int64]]) -> pa.RecordBatch:
    arrays = [pa.array(key, pa.int32()) for key in keys] + [pa.array(count, pa.int64()) for count in counts]
    return pa.RecordBatch.from_arrays(arrays, names=[*KEYS, *COUNTS])
