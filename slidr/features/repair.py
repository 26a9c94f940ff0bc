"""Which days of features of all known clicks are out of date because clicks came late."""

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.features.spec import SECOND, FeatureSpec


def late_clicks(clicks: DataFrame, built: DataFrame) -> DataFrame:
    """Clicks of days that have features, but without a row of their own there: they came after the features."""
    days = built.select("click_date").distinct()
    return clicks.join(F.broadcast(days), on="click_date", how="left_semi").join(built.select("click_id"), on="click_id", how="left_anti")


def changed_days(late: DataFrame, clicks: DataFrame, spec: FeatureSpec) -> list[date]:
    """Days of the late clicks, and of the clicks that count them: of an equal key, later by at most the longest window."""
    days = {row[0] for row in late.select("click_date").distinct().collect()}  # one row a day
    reach = F.make_dt_interval(secs=F.lit(spec.longest_window // SECOND))
    for entity in dict.fromkeys(counter.entity for counter in spec.counters):
        keys = list(spec.key_columns(entity))
        came = late.select(*keys, F.col("click_time").alias("late_time"))
        counting = clicks.select(*keys, "click_time", "click_date").join(came, on=keys, how="inner")
        counts = (F.col("click_time") > F.col("late_time")) & (F.col("click_time") <= F.col("late_time") + reach)
        days |= {row[0] for row in counting.where(counts).select("click_date").distinct().collect()}
    return sorted(days)
