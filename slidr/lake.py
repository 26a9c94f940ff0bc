"""Reads and writes the declared tables as Delta. Every write checks the schema and commits once.

`days` arguments are lists of UTC dates; they become literal partition predicates, so that writers of different days
do not collide and readers prune.
"""

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import reduce
from pathlib import Path
from typing import Any
from uuid import uuid4

from delta.tables import DeltaTable, DeltaTableBuilder
from pyspark.sql import Column, DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F

from slidr import contract, writers
from slidr.errors import ConflictError, InputError
from slidr.folders import private_root
from slidr.tables import TYPES, Table

# Readers other than Spark fail, some in silence, on newer table features: keep to reader version 1.
HISTORY_DAYS = 100  # a month, its billing and the days after it in which a replay may still correct it
PROPERTIES = {
    "delta.enableDeletionVectors": "false",
    "delta.checkpointPolicy": "classic",
    "delta.checkpointInterval": "10",  # Spark's own; delta-rs would let readers wade through a hundred commits
    "delta.deletedFileRetentionDuration": f"interval {HISTORY_DAYS} days",
    "delta.logRetentionDuration": f"interval {HISTORY_DAYS} days",
}
PLANS = "_plans"  # folder of what replay plans keep beside the tables
MOVED = "SLIDR_MOVED"  # a write of ours that found another state than it was decided on
CONFLICTS = (
    "ConcurrentAppend",
    "ConcurrentDelete",
    "ConcurrentWrite",
    "ConcurrentTransaction",
    "MetadataChanged",
    "ProtocolChanged",
    "DELTA_CONCURRENT",
    MOVED,
)
COMMIT = re.compile(r"\d{20}\.json")
NO_TABLE_YET = ("DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION", "DELTA_MISSING_DELTA_TABLE", "DELTA_TABLE_NOT_FOUND")
APPEARS_WITHIN = 60  # seconds that another writer on a busy machine may take between the folder of a new table and its first commit
BROADCAST_KEYS = 200_000
RECENT_COMMITS = 20  # more than other writers commit between a commit of ours and the look at it


@dataclass(frozen=True)
class Lake:
    """Where the tables live: a root folder or URI, or a catalog schema."""

    spark: SparkSession
    root: str
    catalog: str | None = None

    def path(self, table: Table) -> str:
        return f"{self.root.rstrip('/')}/{table.name}"

    def plan_path(self, plan_id: str) -> str:
        """Folder of what a replay plan keeps beside the tables."""
        return f"{self.root.rstrip('/')}/{PLANS}/{plan_id}"

    def _catalog_name(self, table: Table) -> str:
        return ".".join(f"`{part}`" for part in f"{self.catalog}.{table.name.replace('/', '_')}".split("."))

    def exists(self, table: Table) -> bool:
        """Whether the table is there. Raises InputError where its log has an empty commit."""
        if self.catalog:
            return self.spark.catalog.tableExists(self._catalog_name(table).replace("`", ""))
        refuse_empty_commits(self.path(table), table)
        return DeltaTable.isDeltaTable(self.spark, self.path(table))

    def create(self, table: Table) -> None:
        """Makes the table where it is missing; leaves it alone where it exists."""
        if self.exists(table):
            return
        if not self.catalog:
            private_root(self.root)
        builder = DeltaTable.createIfNotExists(self.spark).comment(table.comment).addColumns(table.schema)
        builder = builder.tableName(self._catalog_name(table)) if self.catalog else builder.location(self.path(table))
        for key, value in {**PROPERTIES, **table.statistics}.items():
            builder = builder.property(key, value)
        builder = builder.partitionedBy(*table.partitions)
        deadline = time.monotonic() + APPEARS_WITHIN
        while not self._made(builder, table):
            if time.monotonic() > deadline:
                raise InputError(
                    f"expected an empty place for the table {table.name} in {self.root}, found other files there; move them away"
                )
            time.sleep(0.1)

    def _made(self, builder: DeltaTableBuilder, table: Table) -> bool:
        """Whether the table is there now; False while somebody else is making it.

        Whoever makes it at the same time makes the same; the folder is there before the table is. Asking Delta whether it is there does
        not help: it goes on to answer what it has found before it lost the race. Making it again looks anew.
        """
        try:
            with writers.alone(self, table):
                builder.execute()
        except Exception as error:
            if not (_is_conflict(error) or any(name in str(error) for name in NO_TABLE_YET)):
                raise
            return False
        return True

    def delta(self, table: Table) -> DeltaTable:
        """The table that every read and write is of. Raises InputError where there is none, or where it is not as declared."""
        if not self.exists(table):
            raise InputError(f"expected the table {table.name} in {self.catalog or self.root}, found none; run `slidr init`")
        found = (
            DeltaTable.forName(self.spark, self._catalog_name(table)) if self.catalog else DeltaTable.forPath(self.spark, self.path(table))
        )
        contract.require(table, _shape(found))
        return found

    def location(self, table: Table) -> str:
        """Where the table's files lie, for readers without Spark: a catalog gives each table a place of its own."""
        if not self.catalog:
            return self.path(table)
        return str(self.delta(table).detail().select("location").collect()[0][0])

    def read(self, table: Table, days: Sequence[date] | None = None) -> DataFrame:
        """The declared columns, of the given UTC days. Raises InputError where table and declaration differ."""
        df = conform(self.delta(table).toDF(), table)
        return df if days is None else df.where(in_days(F.col(table.day), days))

    def read_named(self, table: Table, days: Sequence[date], paths: Collection[str]) -> DataFrame:
        """The declared columns of the live files of these days with these names, as the log has them."""
        names = [path.rsplit("/")[-1] for path in paths]
        rows = self.delta(table).toDF().where(in_days(F.col(table.day), days) & F.col("_metadata.file_name").isin(names))
        return conform(rows, table)

    def read_files(self, table: Table, days: Sequence[date]) -> dict[str, int]:
        """Path -> bytes of the files that hold these days."""
        files = self.delta(table).toDF().where(in_days(F.col(table.day), days)).select("_metadata.file_path", "_metadata.file_size")
        return {row[0]: row[1] for row in files.distinct().collect()}

    def version(self, table: Table) -> int:
        """Number of the newest commit; -1 where the table does not exist."""
        if not self.exists(table):
            return -1
        log = self.delta(table)._jdt.deltaLog()
        # `history()` tells it too, and plans and runs a query for it.
        newest = log.update(False, *[getattr(log, f"update$default${place}")() for place in (2, 3)])
        return int(newest.version())

    def read_version(self, table: Table, version: int, days: Sequence[date] | None = None) -> DataFrame:
        """The table as of a commit, for runs that pin their input; all days where none are given. Raises InputError where there is
        no table."""
        self.delta(table)
        reader = self.spark.read.format("delta").option("versionAsOf", version)
        df = reader.table(self._catalog_name(table)) if self.catalog else reader.load(self.path(table))
        rows = conform(df, table)
        return rows if days is None else rows.where(in_days(F.col(table.day), days))

    def read_at(self, table: Table, days: Sequence[date], versions: Mapping[str, int] | None) -> DataFrame:
        """The table as of its commit in `versions`, by table name; the newest where there are none."""
        return self.read(table, days) if versions is None else self.read_version(table, versions[table.name], days)

    def is_written(self, path: str) -> bool:
        """Whether a folder of files below the root was written to its end."""
        store, done = self._stored(f"{path}/_SUCCESS")
        return bool(store.exists(done))

    def folders(self, name: str) -> list[str]:
        """Names of the folders below a folder of the root; none where it is missing."""
        store, path = self._stored(f"{self.root.rstrip('/')}/{name}")
        found = store.listStatus(path) if store.exists(path) else []
        return [str(status.getPath().getName()) for status in found if status.isDirectory()]

    def delete(self, name: str) -> None:
        """Deletes a folder of the root with all that is in it, where there is one. Not for folders of tables."""
        store, path = self._stored(f"{self.root.rstrip('/')}/{name}")
        store.delete(path, True)

    def _stored(self, name: str) -> tuple[Any, Any]:
        """Hadoop's file system and path of a name: Spark reaches it wherever it lies."""
        path = self.spark._jvm.org.apache.hadoop.fs.Path(name)  # type: ignore[union-attr]
        return path.getFileSystem(self.spark._jsc.hadoopConfiguration()), path

    def append(self, df: DataFrame, table: Table, token: str | None = None) -> None:
        """Appends in one commit. `token` makes it happen once: a second append with it is skipped by Delta."""
        writer = self._laid_out(df, table).write.format("delta").mode("append")
        if token:
            writer = writer.option("txnAppId", token).option("txnVersion", 0)
        self._save(writer, table)

    def append_after(self, df: DataFrame, table: Table, *, rows: int) -> None:
        """Appends in one commit if the table has exactly `rows` rows by then; raises ConflictError otherwise. For small tables.

        The rows are counted by the very plan that appends, so that of two writers at once one is refused.
        """
        # Without a filter on a column Delta may answer the count from its log, and then would not see the conflict.
        there = self.read(table).where(F.col(table.grain[0]) != "").agg(F.count(F.lit(1)).alias("there"))
        self.append(require_equal(df, there, "there", rows, f"rows of {table.name}"), table)

    def replace_days(self, df: DataFrame, table: Table, days: Sequence[date]) -> None:
        """Replaces the partitions of these days in one commit."""
        where = f"{table.day} IN ({', '.join(f_date(day) for day in days)})"
        self._save(self._laid_out(df, table).write.format("delta").mode("overwrite").option("replaceWhere", where), table)

    def insert_new(self, df: DataFrame, table: Table, days: Sequence[date], *, expected: int | None = None) -> int:
        """Inserts the rows whose key the table lacks and returns how many; makes no commit where there is none.

        `df` must hold each key once, only keys of `days`. Without `expected` it must be cheap to read several times; `expected` is the
        number of rows where the caller has found all of them to be new: they are computed once then. The plan that appends also reads the
        keys of these days, so that Delta refuses it where another writer added some meanwhile.
        """
        keys = list(table.grain)
        there = self.read(table, days).select(keys)
        if there.count() > BROADCAST_KEYS:  # as a rule few of the rows are there: then these keys alone are sent around
            there = df.select(keys).join(there, on=keys, how="left_semi")
            there = F.broadcast(there) if expected is not None or there.count() <= BROADCAST_KEYS else there
        else:
            there = F.broadcast(there)
        if expected == 0 or (expected is None and df.select(keys).join(there, on=keys, how="left_anti").isEmpty()):
            return 0
        fresh = df.join(there, on=keys, how="left_anti")
        rows = self._laid_out(fresh, table)
        marker = f"insert-{uuid4().hex}"
        self._save(rows.write.format("delta").mode("append").option("userMetadata", marker), table)
        return self._rows_written(table, marker)

    def _rows_written(self, table: Table, marker: str) -> int:
        """Rows of the recent commit that carries the marker."""
        metrics = self.delta(table).history(RECENT_COMMITS).where(F.col("userMetadata") == marker).select("operationMetrics").collect()
        return int(metrics[0][0]["numOutputRows"])

    def _checked(self, df: DataFrame, table: Table) -> DataFrame:
        """Declared columns only; a NULL where none is allowed fails the write before its commit."""
        df = conform(df, table)
        required = [c.name for c in table.columns if not c.nullable]
        broken = reduce(lambda a, b: a | b, [F.col(name).isNull() for name in required])
        names = F.concat_ws(", ", *[F.when(F.col(name).isNull(), F.lit(name)) for name in required])
        message = F.concat(F.lit(f"table {table.name}: expected no NULL, found NULL in "), names)
        key = table.columns[0]
        guarded = F.when(broken, F.raise_error(message).cast(key.type)).otherwise(F.col(key.name))
        return df.withColumn(key.name, guarded)

    def _laid_out(self, df: DataFrame, table: Table) -> DataFrame:
        """Checked rows, brought together by partition: some large files a day, not one from every task."""
        return self._checked(df, table).hint("rebalance", *table.partitions)

    def _save(self, writer: DataFrameWriter, table: Table) -> None:
        with writers.alone(self, table):
            self.create(table)
            self.delta(table)
            with retelling_conflicts(table):
                if self.catalog:
                    writer.saveAsTable(self._catalog_name(table))
                else:
                    writer.save(self.path(table))


def refuse_empty_commits(path: str, table: Table) -> None:
    """Raises InputError for a commit without a byte, such as a power cut leaves in a local folder. Delta would take it for one that
    changed nothing, and its rows would be missing without a word. Stores of objects put a file whole or not at all."""
    log = Path(path.removeprefix("file://")) / "_delta_log"
    if "://" in path.removeprefix("file://") or not log.is_dir():
        return
    empty = sorted(file.name for file in os.scandir(log) if COMMIT.fullmatch(file.name) and not file.stat().st_size)
    if empty:
        raise InputError(f"expected a whole log of the table {table.name}, found the commit {log}/{empty[0]} empty; restore it from a copy")


def _shape(delta: DeltaTable) -> contract.Shape:
    """What Delta holds of the table by now: `detail()` tells it too, and plans a query for it."""
    snapshot = delta._jdt.deltaLog().unsafeVolatileSnapshot()
    metadata = snapshot.metadata()
    columns = tuple(filter(None, metadata.partitionColumns().mkString("\n").split("\n")))
    return contract.Shape(metadata.schemaString(), columns, int(snapshot.protocol().minReaderVersion()))


def conform(df: DataFrame, table: Table) -> DataFrame:
    """Exactly the declared columns in order. Raises InputError that lists every missing column and wrong type."""
    found = {field.name: field.dataType for field in df.schema.fields}
    problems = [f"{c.name} is missing" for c in table.columns if c.name not in found]
    problems += [
        f"{c.name}: expected {c.type}, found {found[c.name].simpleString()}"
        for c in table.columns
        if c.name in found and found[c.name] != TYPES[c.type]
    ]
    if problems:
        raise InputError(f"table {table.name} does not match its declaration: " + "; ".join(problems))
    return df.select(*table.names)


def require_equal(df: DataFrame, one_row: DataFrame, name: str, expected: int, what: str) -> DataFrame:
    """The rows of `df`, which fail where the column `name` of `one_row` is not `expected` when they are computed."""
    moved = F.concat(F.lit(f"{MOVED}: expected {expected} for {what}, found "), F.col(name).cast("string"))
    first = df.columns[0]
    guarded = F.when(F.col(name) == expected, F.col(first)).otherwise(F.raise_error(moved).cast(df.schema[first].dataType))
    return df.crossJoin(F.broadcast(one_row)).withColumn(first, guarded).drop(name)


def f_date(day: date) -> str:
    return f"DATE'{day.isoformat()}'"


def in_days(column: Column, days: Iterable[date]) -> Column:
    """A literal partition predicate."""
    return column.isin([F.lit(day) for day in days])


@contextmanager
def retelling_conflicts(table: Table) -> Iterator[None]:
    """Raises ConflictError for Delta's own errors that another writer was faster."""
    try:
        yield
    except Exception as error:
        if _is_conflict(error):
            raise ConflictError(
                f"another writer changed the table {table.name} at the same time; nothing of this commit was written; run the command again"
            ) from error
        raise


def _is_conflict(error: Exception) -> bool:
    return any(name in str(error) for name in CONFLICTS)
