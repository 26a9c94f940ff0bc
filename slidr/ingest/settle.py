"""What becomes of each typed row: written, already there, merged into another order line, or a reject."""

from datetime import date, timedelta

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.ingest.parse import content
from slidr.ingest.sessions import gap_sessions
from slidr.ingest.sources import TableMap, Target
from slidr.ingest.summary import ALREADY, MERGED, NEW, REJECT
from slidr.ingest.values import as_text, digest
from slidr.lake import Lake, in_days
from slidr.slices import slice_name
from slidr.tables import CLICKS, DECISIONS

CONFLICT = "conflicting_duplicate"
OF_CLICK = [c.name for c in CLICKS.columns if c.name in {d.name for d in DECISIONS.columns} | {"upstream_filter"}]
ELSEWHERE = "of another day"  # content of a row that the lake has under another date; equals no digest


def table_rows(parsed: DataFrame, name: str) -> DataFrame:
    """The rows of one table out of `parse`, without the prefix."""
    prefix = f"{name}__"
    mine = [F.col(c).alias(c.removeprefix(prefix)) for c in parsed.columns if c.startswith(prefix) and c != f"{prefix}in"]
    return parsed.where(f"{name}__in").select("_file", "_raw", *mine)


def settle(rows: DataFrame, *, name: str, goal: Target, mapping: TableMap, lake: Lake, conf: Config, run_id: str) -> DataFrame:
    """The table's columns, `_file`, `_raw`, `_status` and `_reason` (of rejects); one row per input row.

    Of rows with one id the earliest arrival stays (then the smallest content); equal ones are already there, others
    conflict. What the lake has stays in any case. `rows` must be cheap to read several times (materialised).
    """
    if name in ("decisions", "features"):
        rows = _of_clicks(rows, name=name, lake=lake, run_id=run_id)
    bad = rows.where(F.col("_reason").isNotNull()).withColumn("_status", F.lit(REJECT))
    good = rows.where(F.col("_reason").isNull())
    ranked = _merged_lines(good, goal) if mapping.order_lines else _ranked(good, goal)
    known = _known(good, goal, lake)
    judged = _judged(
        ranked.join(known, on=goal.key, how="left") if known is not None else ranked.withColumn("_known", F.lit(None).cast("string"))
    )
    if mapping.session_gap:
        gap, new = conf.ingest.session_gap_minutes, F.col("_status") == NEW
        judged = gap_sessions(judged, _recent(good, lake, conf), gap_minutes=gap, new=new)
    columns = ["_file", "_raw", "_status", "_reason", *goal.table.names]
    return judged.select(columns).unionByName(bad.select(columns))


def _ranked(rows: DataFrame, goal: Target) -> DataFrame:
    """`_rank` among the rows of one id, and `_first`, the content of the row that stays."""
    times = [name for name in ("arrival_time", "decided_time") if name in rows.columns]
    order = Window.partitionBy(goal.key).orderBy(*times, "_content", "_file")
    return rows.withColumns(
        {"_rank": F.row_number().over(order), "_first": F.first("_content").over(order), "_line": F.lit(1), "_overflow": F.lit(False)}
    )


def _merged_lines(rows: DataFrame, goal: Target) -> DataFrame:
    """Order lines with the amount and time of their order; `_line` numbers them. A line that contradicts the order's
    first line in anything but amount and time has another content, and so conflicts with it."""
    apart = ("amount_micros", "purchase_time", "arrival_time")
    rows = rows.withColumn("_same", digest([as_text(F.col(f.name), f.type) for f in goal.fields if f.name not in apart]))
    order, group = Window.partitionBy("order_id"), Window.partitionBy("order_id", "_same")
    line = group.orderBy("purchase_time", "_content", "_file")
    rows = rows.withColumns(
        {
            "_line": F.row_number().over(line),
            "_first": F.first("_same").over(order.orderBy("purchase_time", "_content", "_file")),
            "amount_micros": F.try_sum("amount_micros").over(group),
            "purchase_time": F.min("purchase_time").over(group),
            "arrival_time": F.max("arrival_time").over(group),
        }
    )
    rows = rows.withColumn("_overflow", F.col("amount_micros").isNull())
    merged = rows.withColumns({"purchase_date": F.to_date("purchase_time"), "_content": content(goal), "_rank": F.lit(1)})
    return merged.withColumn("_first", F.when(F.col("_same") == F.col("_first"), F.col("_content")).otherwise(F.col("_first")))


def _judged(rows: DataFrame) -> DataFrame:
    overflow = F.when(F.col("_overflow"), F.lit("not_a_number: amount_micros"))
    conflict = F.when(F.col("_content") != F.coalesce("_known", "_first"), F.lit(CONFLICT))
    rows = rows.withColumn("_reason", F.coalesce(overflow, conflict))
    repeated = F.col("_known").isNotNull() | (F.col("_rank") > 1)
    kept = F.when(F.col("_line") > 1, MERGED).when(repeated, ALREADY).otherwise(NEW)
    return rows.withColumn("_status", F.when(F.col("_reason").isNotNull(), REJECT).otherwise(kept))


def _known(rows: DataFrame, goal: Target, lake: Lake) -> DataFrame | None:
    """Key and `_known` (content) of the lake's rows with a key of the batch; None while the lake has no such table."""
    if not lake.exists(goal.table):
        return None
    ids = rows.select(goal.key).distinct()
    days = batch_days(rows, goal)
    same = lake.read(goal.table, days)
    if "origin" in same.columns:
        same = same.where(F.col("origin") == "logged")
    known = same.select(goal.key, content(goal).alias("_known"))
    if goal.dated:
        # The id may stand under another day, with another time; only the narrow id column is read there.
        other = lake.read(goal.table).where(~in_days(F.col(goal.day), days)) if days else lake.read(goal.table)
        known = known.unionByName(other.select(goal.key, F.lit(ELSEWHERE).alias("_known")))
    return known.join(ids, on=goal.key, how="left_semi")


def batch_days(rows: DataFrame, goal: Target) -> list[date]:
    """UTC days of the rows; bounded by the days since `ingest.earliest`."""
    return sorted(row[0] for row in rows.select(goal.day).distinct().collect())


def _recent(rows: DataFrame, lake: Lake, conf: Config) -> DataFrame | None:
    """Clicks of the lake that a click of the batch may continue."""
    if not lake.exists(CLICKS):
        return None
    first, last = rows.agg(F.min("click_time"), F.max("click_date")).select(F.to_date("min(click_time)"), "max(click_date)").collect()[0]
    if first is None:
        return None
    first -= timedelta(days=1 + conf.ingest.session_gap_minutes // (24 * 60))
    clicks = lake.read(CLICKS).where(F.col("click_date").between(F.lit(first), F.lit(last)))
    return clicks.select("click_id", "click_time", "user_id", "ip_key", "user_agent", "session_id")


def _of_clicks(rows: DataFrame, *, name: str, lake: Lake, run_id: str) -> DataFrame:
    """What a decision or a logged feature row takes from its click; a click that the lake lacks is a reject."""
    lake.create(CLICKS)
    ids = rows.select("click_id").where("click_id IS NOT NULL").distinct()
    # Two narrow steps: ids over all days, then the columns of the days that were found only.
    days = lake.read(CLICKS).select("click_id", "click_date").join(ids, on="click_id", how="left_semi").select("click_date").distinct()
    found = [row.click_date for row in days.collect()]  # bounded by the number of days in the lake
    taken = ["click_id", "click_time", "click_date"] if name == "features" else OF_CLICK
    clicks = lake.read(CLICKS, found).select(taken)
    rows = rows.join(clicks, on="click_id", how="left")
    unknown = F.when(F.col("click_date").isNull(), F.lit("unknown_click"))
    rows = rows.withColumn("_reason", F.coalesce("_reason", unknown))
    if name == "features":
        return rows.withColumn("origin", F.lit("logged"))
    free = F.when(F.col("upstream_filter").isNotNull(), "givt").otherwise("sivt")
    return rows.withColumns(
        {
            "report_slice": slice_name(),
            "ivt_class": F.when(F.col("is_invalid"), free),
            "basis": F.lit("external"),
            "run_id": F.lit(run_id),
        }
    )
