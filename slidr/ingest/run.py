"""Ingest: find files, read, parse, settle, check, publish.

Tables are committed in the order rejects, purchases, clicks, decisions, features: no row is in a table while a reject of
the same run is missing, and purchases are there when clicks appear. A run that was killed in between is completed by
running it again.
"""

import re
import time
from collections.abc import Sequence
from datetime import datetime
from functools import reduce

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.errors import ConflictError, GuardrailError, InputError
from slidr.ingest.files import InputFile, find_files, hadoop_path
from slidr.ingest.parse import check_source, parse, wanted_columns
from slidr.ingest.read import read_files
from slidr.ingest.settle import batch_days, settle, table_rows
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
    table's rows are rejects; then nothing was published.
    """
    check_source(source, conf)
    staging = _staging(lake, run_id)
    files = find_files(lake.spark, paths, source.format)
    _remove_leftovers(lake)
    try:
        settled = _settle_all(lake, files, source=source, conf=conf, run_id=run_id, now=now, staging=staging)
        summary = IngestSummary(run_id, source.name, tuple(c for name in source.tables for c in _counts(settled[name], name, files)))
        _guard(summary, conf)
        _publish(lake, settled, summary, conf=conf, run_id=run_id, now=now)
    finally:
        _remove(lake, staging)
    return summary


def _settle_all(
    lake: Lake, files: Sequence[InputFile], *, source: Source, conf: Config, run_id: str, now: datetime, staging: str
) -> dict[str, DataFrame]:
    """Each table's settled rows. Both steps are materialised: what was counted is what is written, even if a file changes."""
    wanted = wanted_columns(source, conf)
    rows = read_files(lake.spark, files, source, wanted)
    parsed = _materialised(parse(rows, source=source, wanted=wanted, conf=conf, now=now), f"{staging}/parsed")
    settled = {}
    for name, mapping in source.tables.items():
        goal = target(name, conf.spec)
        judged = settle(table_rows(parsed, name), name=name, goal=goal, mapping=mapping, lake=lake, conf=conf, run_id=run_id)
        settled[name] = _materialised(judged, f"{staging}/{name}")
        _same_number(parsed.where(f"{name}__in").count(), settled[name].count(), name)
    return settled


def _same_number(parsed: int, settled: int, name: str) -> None:
    if parsed != settled:  # own invariant: no join or window may lose or double a row
        raise InputError(f"expected {parsed} rows of {name} to be settled, found {settled}; nothing was published; please report it")


def _materialised(df: DataFrame, path: str) -> DataFrame:
    try:
        df.write.mode("overwrite").parquet(path)
    except Exception as error:
        if not any(word in str(error) for word in UNREADABLE):
            raise
        where = re.search(r"(file:\S+|while reading file \S+)", str(error))
        raise InputError(f"could not read the input{': ' + where[1] if where else ''}; check that each file is whole") from error
    return df.sparkSession.read.schema(df.schema).parquet(path)


def _counts(settled: DataFrame, name: str, files: Sequence[InputFile]) -> list[FileCounts]:
    """Counts by file; the result is bounded by files x reasons."""
    found: dict[str, dict[str, int]] = {file.name: {} for file in files}
    reasons: dict[str, dict[str, int]] = {file.name: {} for file in files}
    for row in settled.groupBy("_file", "_status", "_reason").count().sort("_file", "_reason").collect():
        if row["_status"] == REJECT:
            reasons[row["_file"]][row["_reason"]] = row["count"]
        else:
            found[row["_file"]][row["_status"]] = row["count"]
    counts = []
    for file, numbers in found.items():
        rows_in = sum(numbers.values()) + sum(reasons[file].values())
        new, already, merged = (numbers.get(status, 0) for status in (NEW, ALREADY, MERGED))
        counts.append(FileCounts(name, file, rows_in, new, already, merged, reasons[file]))
    return counts


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


def _publish(lake: Lake, settled: dict[str, DataFrame], summary: IngestSummary, *, conf: Config, run_id: str, now: datetime) -> None:
    if summary.has_rejects:
        _publish_rejects(lake, settled, run_id=run_id, now=now)
    for name in ORDER:
        if name not in settled or not summary.total(name).written:
            continue
        goal = target(name, conf.spec)
        lake.create(goal.table)
        rows = settled[name].where(F.col("_status") == NEW).select(*goal.table.names)
        written = lake.insert_new(rows, goal.table, batch_days(rows, goal))
        if written != summary.total(name).written:
            raise ConflictError(
                f"expected to add {summary.total(name).written} rows to {name}, found that another writer added some of them "
                f"meanwhile ({written} were added); run the command again"
            )


def _publish_rejects(lake: Lake, settled: dict[str, DataFrame], *, run_id: str, now: datetime) -> None:
    """Appends each reject that is not on record yet. Equal rows of a file are as many rejects, on record as many times."""
    parts = [df.where(F.col("_status") == REJECT).withColumn("table_name", F.lit(name)) for name, df in settled.items()]
    renamed = {"reason": "_reason", "raw": "_raw", "source_file": "_file"}
    columns = [F.col("table_name"), *(F.col(old).alias(new) for new, old in renamed.items())]
    rows = reduce(DataFrame.unionByName, [part.select(*columns) for part in parts])
    same = digest([F.col("table_name"), F.col("reason"), F.col("source_file"), F.col("raw")])
    rows = rows.withColumn("_same", same)
    numbered = rows.withColumn("_number", F.row_number().over(Window.partitionBy("_same").orderBy("_same")))
    lake.create(REJECTS)
    recorded = lake.read(REJECTS).join(rows.select("source_file").distinct(), on="source_file", how="left_semi")
    recorded = recorded.groupBy(same.alias("_same")).agg(F.count("*").alias("_recorded"))
    fresh = numbered.join(recorded, on="_same", how="left").where(F.col("_number") > F.coalesce("_recorded", F.lit(0)))
    at = F.timestamp_micros(F.lit(round(now.timestamp() * 1_000_000)))
    fresh = fresh.withColumns({"run_id": F.lit(run_id), "rejected_time": at, "reject_date": F.to_date(at)})
    if not fresh.isEmpty():
        lake.append(fresh, REJECTS)


def _staging(lake: Lake, run_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", run_id):
        raise InputError(f"expected a run id of letters, digits, dots, - and _, found {run_id!r}")
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
