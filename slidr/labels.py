"""Weak labels of matured clicks: purchase attribution, RFM of accounts, heavy sessions.

A click of UTC day D is labelled with what was known at the end of D + delay. It is human if it is a purchasing click or
belongs to an account with a high RFM score; otherwise nothing is known about it.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from slidr.config import LabelsConf
from slidr.days import midnight
from slidr.tables import LABELS

# A session is judged heavy by its clicks of the click's own day and of one day on either side.
SESSION_REACH_DAYS = 1


def label_time(day: date, conf: LabelsConf) -> datetime:
    """End of the UTC day + label delay."""
    return midnight(day) + timedelta(days=1 + conf.delay_days)


def matured(days: Sequence[date], *, now: datetime, conf: LabelsConf) -> list[date]:
    """The days whose label time has come."""
    return [day for day in days if label_time(day, conf) <= now]


def days_of_clicks(days: Sequence[date], conf: LabelsConf) -> list[date]:
    """Days of clicks that labelling these days reads: heavy sessions reach over midnight, their look-back too, and a
    later click may take an order away from the click of the day."""
    offsets = range(-SESSION_REACH_DAYS - 1, max(SESSION_REACH_DAYS, conf.attribution_days) + 1)
    return sorted({day + timedelta(days=offset) for day in days for offset in offsets})


def days_of_purchases(days: Sequence[date], conf: LabelsConf) -> list[date]:
    """Days of purchases that labelling these days reads: the RFM look-back and the attribution window."""
    first, last = min(days) - timedelta(days=conf.rfm_days), max(days) + timedelta(days=conf.attribution_days + 1)
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]


def label(clicks: DataFrame, purchases: DataFrame, attributed: DataFrame, *, days: Sequence[date], conf: LabelsConf) -> DataFrame:
    """Rows of `labels` for the clicks of `days`, one per click; all of these days must have matured.

    `clicks` holds `days_of_clicks(days, conf)`, `purchases` holds `days_of_purchases(days)`, `attributed` is the result of
    `attribute` on both: over all clicks read, since whether an order is a later day's must not depend on the days asked for.
    """
    judged = clicks.where(F.col("click_date").isin(list(days)))
    bought = attributed.where("known").select("click_id", F.lit(True).alias("bought")).distinct()
    labelled = (
        judged.withColumn("label_time", _label_time(F.col("click_date"), conf))
        .join(bought, on="click_id", how="left")
        .join(rfm(purchases, days=days, conf=conf), on=["click_date", "marketplace", "user_id"], how="left")
        .join(heavy_sessions(clicks, days=days, conf=conf), on=["click_date", "session_id"], how="left")
    )
    is_purchase = F.coalesce("bought", F.lit(False))
    is_high = F.coalesce(F.col("rfm_score") >= conf.rfm_high, F.lit(False))
    reason = F.when(is_purchase, "purchase").when(is_high, "rfm").otherwise("none")
    return labelled.withColumns(
        {
            "is_purchase": is_purchase,
            "label_reason": reason,
            "is_human": is_purchase | is_high,
            "in_heavy_session": F.coalesce("heavy", F.lit(False)),
        }
    ).select(*LABELS.names)


def _label_time(click_date: Column, conf: LabelsConf) -> Column:
    return F.date_add(click_date, 1 + conf.delay_days).cast("timestamp")


def attribute(clicks: DataFrame, purchases: DataFrame, *, conf: LabelsConf) -> DataFrame:
    """order_id, click_id, click_date, arrival_time, known: each order with the click that it marks, if any.

    The click that the order names; else the latest earlier click of its session; else of its user, of the same
    advertiser where the order names one. Only a purchase in (click_time, click_time + window] marks a click; `known` says
    that it had arrived by the click's label time. Cancelled orders mark none.
    """
    orders = purchases.where("not cancelled")
    window = F.expr(f"INTERVAL {conf.attribution_days} DAYS")
    named = orders.where("click_id is not null").join(clicks.select("click_id", "click_time", "click_date"), on="click_id", how="inner")
    unnamed = orders.where("click_id is null")
    by_session = latest_click(clicks, unnamed, key="session_id", window=window)
    rest = unnamed.join(by_session.select("order_id"), on="order_id", how="left_anti")
    by_user = latest_click(clicks, rest, key="user_id", window=window)
    columns = ["order_id", "click_id", "click_time", "click_date", "purchase_time", "arrival_time"]
    found = named.select(columns).unionByName(by_session.select(columns)).unionByName(by_user.select(columns))
    in_window = (F.col("purchase_time") > F.col("click_time")) & (F.col("purchase_time") <= F.col("click_time") + window)
    known = F.col("arrival_time") <= _label_time(F.col("click_date"), conf)
    return found.where(in_window).select("order_id", "click_id", "click_date", "arrival_time", known.alias("known"))


def latest_click(clicks: DataFrame, orders: DataFrame, *, key: str, window: Column) -> DataFrame:
    """Orders with the latest earlier click of the same key that is at most `window` older; ties: the larger click_id.

    One running pass over clicks and orders together, so that a key with many clicks costs what its rows cost.
    """
    anyone = orders.where(F.col(key).isNotNull() & F.col("advertiser_id").isNull())
    named = orders.where(F.col(key).isNotNull() & F.col("advertiser_id").isNotNull())
    known = clicks.where(F.col(key).isNotNull())
    found = _as_of(known, anyone, [key]).unionByName(_as_of(known, named, [key, "advertiser_id"]))
    return found.where(F.col("purchase_time") <= F.col("click_time") + window)


def _as_of(clicks: DataFrame, orders: DataFrame, keys: list[str]) -> DataFrame:
    event = F.struct("click_id", "click_time", "click_date")
    # Few keys have an order: only their clicks are sorted.
    clicks = clicks.join(orders.select(*keys).distinct(), on=keys, how="left_semi")
    click_rows = clicks.select(*keys, F.col("click_time").alias("time"), F.lit(1).alias("kind"), event.alias("click"))
    order = F.struct("order_id", "purchase_time", "arrival_time")
    order_rows = orders.select(*keys, F.col("purchase_time").alias("time"), F.lit(0).alias("kind"), order.alias("order"))
    # An order sorts before the clicks of its own instant: only strictly earlier clicks count.
    running = Window.partitionBy(*keys).orderBy("time", "kind", "click.click_id").rowsBetween(Window.unboundedPreceding, Window.currentRow)
    events = click_rows.unionByName(order_rows, allowMissingColumns=True)
    latest = events.withColumn("latest", F.last("click", ignorenulls=True).over(running))
    return latest.where("kind = 0 and latest is not null").select("order.*", "latest.*")


def rfm(purchases: DataFrame, *, days: Sequence[date], conf: LabelsConf) -> DataFrame:
    """click_date, marketplace, user_id -> rfm_score (3 to 15), for accounts with a purchase in the look-back.

    Purchases of the `rfm_days` before the end of the click's day that had arrived by its label time. Recency, frequency
    and money each score ceil(5 * cumulative distribution) within the marketplace; ties score the same.
    """
    day_end = F.date_add("click_date", 1).cast("timestamp")
    spark_days = purchases.sparkSession.createDataFrame([(day,) for day in days], "click_date date")
    known = (
        purchases.where("user_id is not null and not cancelled")
        .join(F.broadcast(spark_days), how="cross")
        .where(F.col("purchase_time") < day_end)
        .where(F.col("purchase_time") >= day_end - F.expr(f"INTERVAL {conf.rfm_days} DAYS"))
        .where(F.col("arrival_time") <= _label_time(F.col("click_date"), conf))
    )
    accounts = known.groupBy("click_date", "marketplace", "user_id").agg(
        F.max("purchase_time").alias("recency"), F.count("*").alias("frequency"), F.sum("amount_micros").alias("money")
    )
    peers = Window.partitionBy("click_date", "marketplace")
    scores = [F.ceil(5 * F.cume_dist().over(peers.orderBy(name))) for name in ("recency", "frequency", "money")]
    return accounts.select("click_date", "marketplace", "user_id", (scores[0] + scores[1] + scores[2]).cast("int").alias("rfm_score"))


def heavy_sessions(clicks: DataFrame, *, days: Sequence[date], conf: LabelsConf) -> DataFrame:
    """click_date, session_id, heavy = true: sessions with a click that has at least k others of the session in the
    minutes up to and including its own instant, on the day or a neighbouring one."""
    by_time = Window.partitionBy("session_id").orderBy("click_time", "click_id")
    earlier = F.lag("click_time", conf.heavy_others).over(by_time)
    heavy = earlier >= F.col("click_time") - F.expr(f"INTERVAL {conf.heavy_minutes} MINUTES")
    found = clicks.select("session_id", "click_date", heavy.alias("heavy")).where("heavy").distinct()
    reach = F.explode(F.array(*[F.date_add("click_date", offset) for offset in range(-SESSION_REACH_DAYS, SESSION_REACH_DAYS + 1)]))
    spread = found.select("session_id", reach.alias("click_date"), "heavy").distinct()
    return spread.where(F.col("click_date").isin(list(days)))


def purchases_in_time(attributed: DataFrame, *, days: Sequence[date], now: datetime) -> tuple[int, int]:
    """(orders that label, orders that would have labelled had they arrived in time) of the clicks of `days`, as known at `now`."""
    of_days = attributed.where(F.col("click_date").isin(list(days)) & (F.col("arrival_time") <= F.lit(now)))
    counts = {row["known"]: row["count"] for row in of_days.groupBy("known").count().collect()}  # two rows
    return counts.get(True, 0), counts.get(False, 0)
