"""What is counted for the checks on data: one pass over the labelled clicks, and cheap counts of other tables. On Spark.

The driver gets counts by hour and by feature bin, never a row of a click.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import reduce
from operator import add

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr.guardrails.drift import BOUNDED
from slidr.pyworker import light
from slidr.tally import HOURS_OF_DAY, KEYS, NONE, counter

EPOCH = date(1970, 1, 1)
COUNTS = ("clicks", "humans", "purchasing", "high_rfm", "no_user", "no_address", "late", "missing")
SCHEMA = ", ".join([*(f"{name} int" for name in KEYS), *(f"{name} bigint" for name in COUNTS)])


def measure(labelled: DataFrame, *, features: Sequence[str], late_minutes: int) -> DataFrame:
    """Counts of the labelled clicks, in one pass: one row per day and hour, and one per day, feature and occupied bin.

    Columns KEYS (day in days since 1970; -1 where a key does not apply) and COUNTS; rows of bins count `clicks` only. Clicks
    without features are counted in `missing` and nowhere else. Needs click_time, click_date, arrival_time, user_id, ip_key,
    is_human, is_purchase, label_reason, has_features and the features. At most days x (24 + features x bins) rows, whatever the
    number of clicks.
    """
    has = F.col("has_features")
    late = F.unix_seconds("arrival_time") - F.unix_seconds("click_time") > late_minutes * 60
    signs = {
        "clicks": F.lit(True),
        "humans": F.col("is_human"),
        "purchasing": F.col("is_purchase"),
        "high_rfm": (F.col("label_reason") == "rfm") & ~F.col("is_purchase"),
        "no_user": F.col("user_id").isNull(),
        "no_address": F.col("ip_key").isNull(),
        "late": late,
    }
    signs = {name: has & sign for name, sign in signs.items()} | {"missing": ~has}
    hour = F.unix_date("click_date") * HOURS_OF_DAY + F.hour("click_time")
    # Each value that goes to Python costs, so all signs go as one number, and each feature as it is.
    rows = labelled.select(hour.alias("hour"), _bits(signs).alias("signs"), *_numbers(labelled, features))
    task = counter([name in BOUNDED for name in features], COUNTS)
    counted = rows.mapInArrow(light(task), SCHEMA)
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
    """day, hour, orders, rows: orders by their own hour that were known at the label time of their day, cancelled ones are none;
    and all rows of purchases."""
    known = F.col("arrival_time") <= F.date_add("purchase_date", 1 + delay_days).cast("timestamp")
    by_hour = purchases.groupBy(F.col("purchase_date").alias("day"), F.hour("purchase_time").alias("hour"))
    return by_hour.agg(F.count_if(~F.col("cancelled") & known).alias("orders"), F.count(F.lit(1)).alias("rows"))


def rejects_by_reason(rejects: DataFrame, since: date) -> DataFrame:
    """reason, rejected: refused rows of clicks and purchases since a day. A row of the window was refused on its day or later."""
    of_input = F.col("table_name").isin("clicks", "purchases") & (F.col("reject_date") >= F.lit(since))
    return rejects.where(of_input).groupBy("reason").agg(F.count(F.lit(1)).alias("rejected"))


def _bits(signs: Mapping[str, Column]) -> Column:
    """An integer whose bit n is set where sign n holds; NULL does not."""
    return reduce(add, [F.when(sign, F.lit(1 << place)).otherwise(0) for place, sign in enumerate(signs.values())])


def _numbers(labelled: DataFrame, features: Sequence[str]) -> list[Column]:
    boolean = {name for name, kind in labelled.select(*features).dtypes if kind == "boolean"}
    return [(F.col(name).cast("int") if name in boolean else F.col(name)).alias(f"f_{name}") for name in features]
