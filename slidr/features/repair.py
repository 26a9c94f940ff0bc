"""Which days of features of all known clicks are out of date because clicks came late, and how many keys of each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from slidr.features import builds
from slidr.features.spec import SECOND, FeatureSpec
from slidr.lake import Lake
from slidr.tables import CLICKS

LATE = "late_time"


@dataclass(frozen=True)
class Found:
    """Late clicks by click day; the days that they change; and of these the `changes`."""

    came: dict[date, int]
    days: list[date]
    keys: list[dict[str, Any]]


def out_of_date(lake: Lake, spec: FeatureSpec, days: Sequence[date], built: Collection[date]) -> Found:
    """What the clicks of `days` change in days of origin now that were built before they came."""
    came: dict[date, int] = {}
    changed: set[date] = set()
    keys: list[dict[str, Any]] = []
    for commit, counted in builds.by_commit(lake, spec, built).items():
        read = {day for one in counted for day in builds.look_back(spec, [one])}
        files, more = builds.come_since(lake, read & set(days), commit)
        if more:
            late = lake.read_named(CLICKS, list(more), files.paths).persist(StorageLevel.MEMORY_AND_DISK)
            keys += changes(late, lake.read(CLICKS, counted), spec)
            changed |= set(_days_of(late)) & set(counted)
            late.unpersist()
        came |= {day: max(rows, came.get(day, 0)) for day, rows in more.items()}
    return Found(came, sorted(changed | {row["day"] for row in keys}), keys)


def changes(late: DataFrame, clicks: DataFrame, spec: FeatureSpec) -> list[dict[str, Any]]:
    """What late clicks change: one entry per `day` and `entity` with the `keys` and `clicks` of that day whose counters count a late
    click, one of an equal key that was made earlier by at most the longest window.

    Rows of one key are sorted together, so that the cost does not grow with the late clicks of a key times its clicks.
    """
    reach = F.make_dt_interval(secs=F.lit(spec.longest_window // SECOND))
    found: list[dict[str, Any]] = []
    for entity in dict.fromkeys(counter.entity for counter in spec.counters):
        keys = list(spec.key_columns(entity))
        counting = _beside_the_latest(late, clicks, keys).where(F.col("click_time") <= F.col(LATE) + reach)
        days = counting.groupBy("click_date").agg(F.count_distinct(F.struct(*keys)).alias("keys"), F.count("*").alias("clicks"))
        rows = days.orderBy("click_date").collect()  # one row a day
        found += [{"day": row["click_date"], "entity": entity, "keys": row["keys"], "clicks": row["clicks"]} for row in rows]
    return found


def _days_of(late: DataFrame) -> list[date]:
    """Days of the late clicks: their own rows are missing there."""
    return sorted(row[0] for row in late.select("click_date").distinct().collect())  # one row a day


def _beside_the_latest(late: DataFrame, clicks: DataFrame, keys: Sequence[str]) -> DataFrame:
    """Clicks of the keys of late ones, each with the time of the latest late click before it in `late_time`; the keys, click_time and
    click_date."""
    came = late.dropna(subset=list(keys)).select(*keys, "click_time", F.lit(None).cast("date").alias("click_date"))
    theirs = clicks.select(*keys, "click_time", "click_date").join(came.select(*keys).distinct(), on=list(keys), how="left_semi")
    both = theirs.unionByName(came).withColumn("came", F.when(F.col("click_date").isNull(), F.col("click_time")))
    # At one instant clicks stand before the late ones, which they don't count.
    order = Window.partitionBy(*keys).orderBy("click_time", F.col("came").asc_nulls_first())
    before = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    return both.withColumn(LATE, F.last("came", ignorenulls=True).over(before)).where(F.col("click_date").isNotNull())
