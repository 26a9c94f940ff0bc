"""What becomes of each typed row: written, already there, merged into another order line, or a reject.

Most rows have an id of their own that the lake lacks, and go straight on. Only rows of a doubtful id, one that comes twice
or is in the lake, are brought together and compared.
"""

from datetime import date, timedelta

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.hashing import row_hash
from slidr.ingest.parse import content
from slidr.ingest.sessions import gap_sessions
from slidr.ingest.sources import TableMap, Target
from slidr.ingest.summary import ALREADY, MERGED, NEW, REJECT
from slidr.lake import Lake, in_days
from slidr.slices import report_slice
from slidr.tables import CLICKS, DECISIONS, ERASED

CONFLICT = "conflicting_duplicate"
OWN = ("_file", "_raw", "_status", "_reason", "_content")
OF_CLICK = [c.name for c in CLICKS.columns if c.name in {d.name for d in DECISIONS.columns} | {"upstream_filter"}]


def table_rows(parsed: DataFrame, name: str) -> DataFrame:
    """The rows of one table out of `parse`, without the prefix."""
    prefix = f"{name}__"
    mine = [F.col(c).alias(c.removeprefix(prefix)) for c in parsed.columns if c.startswith(prefix) and c != f"{prefix}in"]
    return parsed.where(f"{name}__in").select("_file", "_raw", *mine)


def doubtful_ids(rows: DataFrame, *, goal: Target, lake: Lake) -> DataFrame:
    """Ids that usable rows have twice, or that the lake has, on whatever day; each once."""
    ids = rows.where("_reason is null").select(goal.key)
    doubtful = ids.groupBy(goal.key).count().where("count > 1").select(goal.key)
    if lake.exists(goal.table):
        doubtful = doubtful.union(_of_origin(lake.read(goal.table)).select(goal.key).join(ids, on=goal.key, how="left_semi"))
    return doubtful.distinct()


def settled(rows: DataFrame, doubtful: DataFrame, compared: DataFrame | None, *, goal: Target) -> DataFrame:
    """The table's columns, `_file`, `_raw`, `_status`, `_reason` (of rejects) and `_content` as parsed; one row per input row.

    `doubtful` is the result of `doubtful_ids`, `compared` that of `compare`, None where no id is doubtful.
    """
    columns = [*OWN, *goal.table.names]
    unique = F.col("_reason").isNull()
    bad = rows.where(~unique).withColumn("_status", F.lit(REJECT)).select(columns)
    if compared is None:
        return rows.withColumn("_status", F.when(unique, NEW).otherwise(REJECT)).select(columns)
    plain = rows.where(unique).join(doubtful, on=goal.key, how="left_anti").withColumn("_status", F.lit(NEW))
    return plain.select(columns).unionByName(compared).unionByName(bad)


def compare(rows: DataFrame, doubtful: DataFrame, *, goal: Target, mapping: TableMap, lake: Lake) -> DataFrame:
    """The settled rows of doubtful ids.

    Of rows with one id the earliest arrival stays (then the smallest content); equal ones are already there, others
    conflict. What the lake has stays in any case. A row whose user was erased is already there, whatever it says.
    """
    doubted = rows.where("_reason is null").join(doubtful, on=goal.key, how="left_semi")
    doubted = doubted.withColumn("_meaning", content(goal))  # of what the lake would hold: its click may have changed the row as parsed
    ranked = _merged_lines(doubted, goal) if mapping.order_lines else _ranked(doubted, goal)
    known = ranked.join(_known(doubted, doubtful, goal, lake), on=goal.key, how="left")
    judged = _judged(known.join(_erased(goal, lake), on=goal.key, how="left"))
    return judged.select(*OWN, *goal.table.names)


def _ranked(rows: DataFrame, goal: Target) -> DataFrame:
    """`_rank` among the rows of one id, and `_first`, the content of the row that stays."""
    times = [name for name in ("arrival_time", "decided_time") if name in rows.columns]
    order = Window.partitionBy(goal.key).orderBy(*times, "_meaning", "_file")
    return rows.withColumns(
        {"_rank": F.row_number().over(order), "_first": F.first("_meaning").over(order), "_line": F.lit(1), "_overflow": F.lit(False)}
    )


def _merged_lines(rows: DataFrame, goal: Target) -> DataFrame:
    """Order lines with the amount and time of their order; `_line` numbers them. A line that contradicts the order's
    first line in anything but amount and time has another meaning, and so conflicts with it."""
    apart = ("amount_micros", "purchase_time", "arrival_time")
    rows = rows.withColumn("_same", row_hash(*[F.col(f.name) for f in goal.fields if f.name not in apart]))
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
    merged = rows.withColumns({"purchase_date": F.to_date("purchase_time"), "_meaning": content(goal), "_rank": F.lit(1)})
    return merged.withColumn("_first", F.when(F.col("_same") == F.col("_first"), F.col("_meaning")).otherwise(F.col("_first")))


def _judged(rows: DataFrame) -> DataFrame:
    overflow = F.when(F.col("_overflow"), F.lit("not_a_number: amount_micros"))
    other = F.coalesce("_elsewhere", F.lit(False)) | (F.col("_meaning") != F.coalesce("_known", "_first"))
    erased = F.col("_erased").isNotNull()
    rows = rows.withColumn("_reason", F.when(~erased, F.coalesce(overflow, F.when(other, F.lit(CONFLICT)))))
    repeated = erased | F.col("_known").isNotNull() | (F.col("_rank") > 1)
    kept = F.when(F.col("_line") > 1, MERGED).when(repeated, ALREADY).otherwise(NEW)
    return rows.withColumn("_status", F.when(F.col("_reason").isNotNull(), REJECT).otherwise(kept))


def _known(rows: DataFrame, doubtful: DataFrame, goal: Target, lake: Lake) -> DataFrame:
    """Key, `_known` (what the lake's row of this key says) and `_elsewhere`: the key stands under another day there."""
    if not lake.exists(goal.table):
        return doubtful.withColumns({"_known": F.lit(None).cast("bigint"), "_elsewhere": F.lit(False)})
    there, days = _of_origin(lake.read(goal.table)), batch_days(rows, goal)
    known = there.where(in_days(F.col(goal.day), days)).select(goal.key, content(goal).alias("_known"), F.lit(False).alias("_elsewhere"))
    if goal.dated:  # only the narrow id column is read there
        other = there.where(~in_days(F.col(goal.day), days)).select(goal.key)
        known = known.unionByName(other.withColumns({"_known": F.lit(None).cast("bigint"), "_elsewhere": F.lit(True)}))
    return known.join(doubtful, on=goal.key, how="left_semi")


def _erased(goal: Target, lake: Lake) -> DataFrame:
    """Key and `_erased` of the rows whose user was erased."""
    if not lake.exists(ERASED):
        return lake.spark.createDataFrame([], f"{goal.key} string, _erased boolean")
    rows = lake.read(ERASED).where(F.col("table_name") == goal.table.name)
    return rows.select(F.col("row_id").alias(goal.key), F.lit(True).alias("_erased")).distinct()


def _of_origin(table: DataFrame) -> DataFrame:
    return table.where("origin = 'logged'") if "origin" in table.columns else table


def batch_days(rows: DataFrame, goal: Target) -> list[date]:
    """UTC days of the rows; bounded by the days since `ingest.earliest`."""
    return sorted(row[0] for row in rows.select(goal.day).distinct().collect())


def with_sessions(new: DataFrame, *, lake: Lake, conf: Config) -> DataFrame:
    """New clicks, those without a session in one made by a gap of inactivity."""
    lacking = new.where("session_id is null")
    filled = gap_sessions(lacking, _recent(lacking, lake, conf), gap_minutes=conf.ingest.session_gap_minutes)
    return new.where("session_id is not null").unionByName(filled)


def _recent(rows: DataFrame, lake: Lake, conf: Config) -> DataFrame | None:
    """Clicks of the lake that a click of the batch may continue."""
    if not lake.exists(CLICKS):
        return None
    first, last = rows.agg(F.to_date(F.min("click_time")), F.max("click_date")).collect()[0]
    first -= timedelta(days=1 + conf.ingest.session_gap_minutes // (24 * 60))
    clicks = lake.read(CLICKS).where(F.col("click_date").between(F.lit(first), F.lit(last)))
    return clicks.select("click_id", "click_time", "user_id", "ip_key", "user_agent", "session_id")


def of_clicks(rows: DataFrame, *, name: str, lake: Lake, run_id: str) -> DataFrame:
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
    return _of_live_system(rows).withColumns({"report_slice": report_slice(), "run_id": F.lit(run_id)})


def _of_live_system(rows: DataFrame) -> DataFrame:
    """Decisions by what the live system said; of a click that the upstream filter made free it has no say: that is never charged again,
    and published as `valid` it would be."""
    free = F.col("upstream_filter").isNotNull()
    return rows.withColumns(
        {
            "is_invalid": F.col("is_invalid") | free,
            "ivt_class": F.when(free, "givt").when(F.col("is_invalid"), "sivt"),
            "basis": F.when(free, "upstream").otherwise("external"),
            "threshold": F.when(~free, F.col("threshold")),
            # What the live system knew is not known.
            "empty_permille": F.lit(None).cast("int"),
            "null_permille": F.lit(None).cast("int"),
        }
    )
