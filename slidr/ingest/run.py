"""Ingest: find files, read, parse, settle, check, publish.

Tables are committed in the order rejects, purchases, clicks, decisions, features: no row is in a table while a reject of
the same run is missing, and purchases are there when clicks appear. A run that was killed in between is completed by
running it again.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache, reduce

from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F

from slidr import pseudonyms
from slidr.config import Config
from slidr.errors import ConflictError, GuardrailError, InputError
from slidr.folders import private_root
from slidr.ingest.files import find_files, hadoop_path
from slidr.ingest.parse import check_source, parse, wanted_columns
from slidr.ingest.read import read_files
from slidr.ingest.settle import compare, doubtful_ids, of_clicks, settled, table_rows, with_sessions
from slidr.ingest.sources import Source, target
from slidr.ingest.summary import ALREADY, MERGED, NEW, REJECT, FileCounts, IngestSummary
from slidr.ingest.values import digest
from slidr.lake import Lake
from slidr.tables import REJECTS

ORDER = ("purchases", "clicks", "decisions", "features")
LEFTOVER_SECONDS = 24 * 60 * 60
UNREADABLE = ("FAILED_READ_FILE", "CANNOT_READ", "EOFException", "ZipException", "ZlibException", "not in gzip format")


def ingest(lake: Lake, *, source: Source, paths: Sequence[str], conf: Config, run_id: str, now: datetime) -> IngestSummary:
    """Files into the source's tables; a second run of the same files adds nothing.

    `now` (with an offset) dates rejects and bounds how late a time may be. Raises InputError for files that are missing,
    empty, unreadable or without a column of the source, GuardrailError where more than `ingest.max_reject_share` of a
    table's rows are rejects, ConfigError where the lake's users and addresses are pseudonyms by another key; then nothing was published.
    """
    check_source(source, conf)
    key = pseudonyms.load_key(conf.ingest)
    pseudonyms.require(lake, key)
    staging = _staging(lake, run_id)
    files = find_files(lake.spark, paths, source.format)
    _remove_leftovers(lake)
    wanted = wanted_columns(source, conf)

    def typed(every_raw: bool) -> DataFrame:
        rows = read_files(lake.spark, files, source, wanted)
        return parse(rows, source=source, wanted=wanted, conf=conf, now=now, key=key, every_raw=every_raw)

    try:
        # Materialised: what was counted is what is written, even if a file changes.
        parsed = _materialised(typed(every_raw=False), f"{staging}/parsed")
        tables = _settle_all(lake, parsed, source=source, conf=conf, run_id=run_id, staging=staging)
        cells = _cells(tables, parsed, conf=conf)
        counts = [_file_counts(name, file.name, found) for name, found in cells.items() for file in files]
        summary = IngestSummary(run_id, source.name, tuple(counts))
        _guard(summary, conf)
        pseudonyms.record(lake, key, run_id=run_id, now=now)
        if summary.has_rejects:
            again = cache(lambda: _materialised(typed(every_raw=True), f"{staging}/again"))
            _publish_rejects(lake, tables, again, conf=conf, run_id=run_id, now=now)
        _publish(lake, tables, cells, conf=conf)
    finally:
        _remove(lake, staging)
    return summary


def _settle_all(lake: Lake, parsed: DataFrame, *, source: Source, conf: Config, run_id: str, staging: str) -> dict[str, DataFrame]:
    """Each table's settled rows."""
    found = {}
    for name, mapping in source.tables.items():
        goal, rows = target(name, conf.spec), table_rows(parsed, name)
        if not goal.dated:
            rows = _materialised(of_clicks(rows, name=name, lake=lake, run_id=run_id), f"{staging}/{name}")
        doubtful = _materialised(doubtful_ids(rows, goal=goal, lake=lake), f"{staging}/{name}_doubtful")
        compared = None
        if not doubtful.isEmpty():
            judged = compare(rows, doubtful, goal=goal, mapping=mapping, lake=lake)
            compared = _materialised(judged, f"{staging}/{name}_compared")
        found[name] = settled(rows, doubtful, compared, goal=goal)
    return found


def _materialised(df: DataFrame, path: str) -> DataFrame:
    try:
        # Read once or twice and thrown away: looking for repeated values costs more than it saves.
        df.write.mode("overwrite").option("parquet.enable.dictionary", "false").parquet(path)
    except Exception as error:
        if not any(word in str(error) for word in UNREADABLE):
            raise
        where = re.search(r"(file:\S+|while reading file \S+)", str(error))
        raise InputError(f"could not read the input{': ' + where[1] if where else ''}; check that each file is whole") from error
    return df.sparkSession.read.schema(df.schema).parquet(path)


def _cells(tables: dict[str, DataFrame], parsed: DataFrame, *, conf: Config) -> dict[str, list[Row]]:
    """Each table's rows by file, status, reason and day, with how many of them lack a session; some per file."""
    inside = parsed.agg(*[F.count_if(f"{name}__in").alias(name) for name in tables]).collect()[0]
    cells = {}
    for name, rows in tables.items():
        without = F.count_if(F.col("session_id").isNull() if name == "clicks" else F.lit(False))
        # The day of a reject says nothing: it may be outside of what Python calls a date, and each may have another.
        day = F.when(F.col("_status") == NEW, F.col(target(name, conf.spec).day)).alias("day")
        groups = rows.groupBy("_file", "_status", "_reason", day)
        cells[name] = groups.agg(F.count(F.lit(1)).alias("rows"), without.alias("lacking")).collect()
        found = sum(cell["rows"] for cell in cells[name])
        if found != inside[name]:  # own invariant: no join or window may lose or double a row
            raise InputError(
                f"expected {inside[name]} rows of {name} to be settled, found {found}; nothing was published; please report it"
            )
    return cells


def _file_counts(table: str, file: str, cells: Sequence[Row]) -> FileCounts:
    by_status: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for cell in cells:
        if cell["_file"] == file:
            by_status[cell["_status"]] += cell["rows"]
            reasons[cell["_reason"]] += cell["rows"] if cell["_status"] == REJECT else 0
    rejects = {reason: count for reason, count in sorted(reasons.items(), key=str) if count}
    return FileCounts(table, file, by_status.total(), by_status[NEW], by_status[ALREADY], by_status[MERGED], rejects)


def _guard(summary: IngestSummary, conf: Config) -> None:
    for table, total in summary.totals.items():
        share = total.rejected / total.rows_in if total.rows_in else 0.0
        if share > conf.ingest.max_reject_share:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(total.rejects.items(), key=lambda item: -item[1]))
            raise GuardrailError(
                f"expected at most {conf.ingest.max_reject_share:.2%} rejects for {table}, found {share:.2%} "
                f"({total.rejected} of {total.rows_in} rows; {reasons}); nothing was published; correct the files or the source, "
                "or raise ingest.max_reject_share"
            )


def _publish(lake: Lake, tables: dict[str, DataFrame], cells: dict[str, list[Row]], *, conf: Config) -> None:
    for name in ORDER:
        fresh = [cell for cell in cells.get(name, []) if cell["_status"] == NEW]
        if not fresh:
            continue
        goal, new = target(name, conf.spec), tables[name].where(F.col("_status") == NEW)
        if any(cell["lacking"] for cell in fresh):
            new = with_sessions(new, lake=lake, conf=conf)
        lake.create(goal.table)
        expected = sum(cell["rows"] for cell in fresh)
        days = sorted({cell["day"] for cell in fresh})
        written = lake.insert_new(new.select(*goal.table.names), goal.table, days, expected=expected)
        if written != expected:
            raise ConflictError(
                f"expected to add {expected} rows to {name}, found that another writer added some of them meanwhile "
                f"({written} were added); run the command again"
            )


def _publish_rejects(
    lake: Lake, tables: dict[str, DataFrame], again: Callable[[], DataFrame], *, conf: Config, run_id: str, now: datetime
) -> None:
    """Appends each reject that is not on record yet. Equal rows of a file are as many rejects, on record as many times."""
    parts = []
    for name, rows in tables.items():
        rejects = _with_raw(rows.where(F.col("_status") == REJECT), again, name=name, key=target(name, conf.spec).key)
        columns = {"reason": "_reason", "source_file": "_file", "raw": "_raw"}
        parts.append(rejects.select(F.lit(name).alias("table_name"), *[F.col(old).alias(new) for new, old in columns.items()]))
    same = digest([F.col(name) for name in ("table_name", "reason", "source_file", "raw")])
    rows = reduce(DataFrame.unionByName, parts).withColumn("_same", same)
    numbered = rows.withColumn("_number", F.row_number().over(Window.partitionBy("_same").orderBy("_same")))
    lake.create(REJECTS)
    recorded = lake.read(REJECTS).join(rows.select("source_file").distinct(), on="source_file", how="left_semi")
    recorded = recorded.groupBy(same.alias("_same")).agg(F.count("*").alias("_recorded"))
    fresh = numbered.join(recorded, on="_same", how="left").where(F.col("_number") > F.coalesce("_recorded", F.lit(0)))
    at = F.timestamp_micros(F.lit(round(now.timestamp() * 1_000_000)))
    fresh = fresh.withColumns({"run_id": F.lit(run_id), "rejected_time": at, "reject_date": F.to_date(at)})
    if not fresh.isEmpty():
        lake.append(fresh, REJECTS)


def _with_raw(rejects: DataFrame, again: Callable[[], DataFrame], *, name: str, key: str) -> DataFrame:
    """`_file`, `_reason`, `_raw` of rejects. Rows that only a comparison with others refused are looked up in the files,
    which `again` reads once more: to keep the text of every row for them would cost more than all else.
    """
    columns = ["_file", "_reason", "_raw"]
    compared = rejects.where("_raw is null")
    count = compared.count()
    if not count:
        return rejects.select(columns)
    same = ["_file", key, "_content"]
    usable = table_rows(again(), name).where("_reason is null").select(*same, "_raw")
    found = usable.join(compared.select(*same, "_reason").distinct(), on=same, how="inner").select(columns)
    if found.count() != count:
        raise InputError(f"expected {count} rejects in the files, found others: the files changed while they were read; run it again")
    return rejects.where("_raw is not null").select(columns).unionByName(found)


def _staging(lake: Lake, run_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", run_id):
        raise InputError(f"expected a run id of letters, digits, dots, - and _, found {run_id!r}")
    private_root(lake.root)  # what is put there comes before the first table
    return f"{lake.root.rstrip('/')}/_staging/{run_id}"


def _remove(lake: Lake, path: str) -> None:
    fs, place = hadoop_path(lake.spark, path)
    fs.delete(place, True)


def _remove_leftovers(lake: Lake) -> None:
    """What killed runs left more than a day ago; younger ones may be running."""
    fs, place = hadoop_path(lake.spark, f"{lake.root.rstrip('/')}/_staging")
    if not fs.exists(place):
        return
    for status in fs.listStatus(place):
        if status.getModificationTime() / 1000 < time.time() - LEFTOVER_SECONDS:
            fs.delete(status.getPath(), True)
