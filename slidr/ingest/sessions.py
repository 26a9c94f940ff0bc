"""Sessions by inactivity, for sources without session ids; looking back only, so that a session never changes later."""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from slidr.ingest.values import digest

PREFIX = "gap-"  # made sessions are known by it: a session that a source delivered is never continued


def gap_sessions(clicks: DataFrame, known: DataFrame | None, *, gap_minutes: int) -> DataFrame:
    """`clicks`, none of which has a session, with session_id filled.

    A click belongs to the session of the latest earlier click of the same user (of the same ip_key and user agent where
    the user is NULL) if at most the gap lies between them; else it begins one. A click without user and address is a
    session of its own. `known` are clicks of the lake, of which those with a made session count as earlier. Linear: one
    sort per key, a running frame.
    """
    rows = clicks.drop("session_id").withColumns({"_key": session_key(), "_begun": F.lit(None).cast("string"), "_in_lake": F.lit(False)})
    if known is not None:
        made = known.where(F.col("session_id").startswith(PREFIX)).withColumnRenamed("session_id", "_begun")
        rows = rows.unionByName(made.withColumns({"_key": session_key(), "_in_lake": F.lit(True)}), allowMissingColumns=True)
    ordered = Window.partitionBy("_key").orderBy("click_time", F.col("_in_lake").desc(), "click_id")
    running = ordered.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    pause = F.unix_micros("click_time") - F.lag(F.unix_micros("click_time")).over(ordered)
    begins = pause.isNull() | (pause > gap_minutes * 60_000_000)
    fresh = F.concat(F.lit(PREFIX), digest([F.col("_key"), F.col("click_id")]))
    rows = rows.withColumn("_begun", F.coalesce("_begun", F.when(begins, fresh)))
    rows = rows.withColumn("session_id", F.last("_begun", ignorenulls=True).over(running))
    return rows.where(~F.col("_in_lake")).drop("_in_lake", "_key", "_begun")


def session_key() -> Column:
    """What one visitor is; reads user_id, ip_key, user_agent and click_id."""
    address = F.concat(F.lit("address "), F.col("ip_key"), F.lit(" "), F.coalesce("user_agent", F.lit("")))
    return F.coalesce(F.concat(F.lit("user "), F.col("user_id")), address, F.concat(F.lit("click "), F.col("click_id")))
