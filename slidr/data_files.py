"""The Parquet files of a table, read and written without Spark by tasks that are given their names; commits that name them.

Delta's protocol is delta-rs's work. A table with a newer reader version than 1 (deletion vectors, mapped columns) is refused: its files
alone don't say what its rows are.
"""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from functools import reduce
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction
from pyarrow.fs import PyFileSystem

from slidr import direct
from slidr.errors import ConflictError, InputError
from slidr.lake import Lake
from slidr.tables import Table

FORM = ds.ParquetFileFormat(read_options=ds.ParquetReadOptions(coerce_int96_timestamp_unit="us"))
ROWS_AT_A_TIME = 65_536
ROW_GROUP = 500_000


@dataclass(frozen=True)
class DataFile:
    """One live file: `path` as the log names it, `values` of the partition columns; `rows` is None where the log does not say."""

    path: str
    rows: int | None
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Files:
    """The live files of a table as of one commit, of some days where days were given."""

    table: Table
    uri: str
    files: tuple[DataFile, ...]

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(file.path for file in self.files)

    def dataset(self) -> ds.Dataset:
        """The declared columns; those that a file lacks are NULL in it. Nothing is read yet, and files are skipped by partition."""
        store = _store(self.uri)
        fragments = [FORM.make_fragment(file.path, store, _partition(self.table, file.values)) for file in self.files]
        return ds.FileSystemDataset(fragments, schema(self.table), FORM, store)

    def batches(self, file: DataFile, columns: Sequence[str], where: ds.Expression | None = None) -> Iterator[pa.RecordBatch]:
        """Rows of one file, some at a time."""
        found = (
            replace(self, files=(file,))
            .dataset()
            .to_batches(
                columns=list(columns), filter=where, batch_size=ROWS_AT_A_TIME, use_threads=False, batch_readahead=1, fragment_readahead=1
            )
        )
        return (batch for batch in found if batch.num_rows)


@dataclass(frozen=True)
class Written:
    """A file that no commit names yet."""

    path: str
    size: int
    rows: int
    day: date
    stats: str


def schema(table: Table) -> pa.Schema:
    """The declared columns."""
    return pa.schema([pa.field(column.name, direct.ARROW[column.type]) for column in table.columns])


def of(place: Lake | direct.Place, table: Table, days: Collection[date] | None = None) -> Files:
    """The live files of these days. Raises InputError where the table is missing, differs from its declaration, or needs a newer reader
    than version 1."""
    with direct.told(place, table):
        delta = DeltaTable(direct.path(place, table))
        direct.require_declared(delta, table)
        found = delta.protocol().min_reader_version
        if found != 1:
            raise InputError(
                f"table {table.name}: expected reader version 1, found {found}: a table feature was switched on that other readers "
                "don't know; write the table anew without it"
            )
        return Files(table, delta.table_uri, _live(delta, table, days))


def _live(delta: DeltaTable, table: Table, days: Collection[date] | None) -> tuple[DataFile, ...]:
    names = [f"partition.{name}" for name in table.partitions]
    rows = pa.table(delta.get_add_actions(flatten=True)).select(["path", "num_records", *names]).to_pylist()
    files = [DataFile(row["path"], row["num_records"], tuple(row[name] for name in names)) for row in rows]
    return tuple(file for file in files if days is None or file.values[0] in days)


def _store(uri: str) -> PyFileSystem:
    return PyFileSystem(DeltaStorageHandler(uri))


def _partition(table: Table, values: Sequence[Any]) -> ds.Expression:
    """What holds for all rows of a file: Delta keeps partition columns out of its files."""
    types = {column.name: direct.ARROW[column.type] for column in table.columns}
    parts = [
        ds.field(name).is_null() if value is None else ds.field(name) == pa.scalar(value, types[name])
        for name, value in zip(table.partitions, values, strict=True)
    ]
    return reduce(lambda both, part: both & part, parts)


def write(uri: str, table: Table, rows: pa.Table, day: date) -> Written:
    """Writes rows of one day, declared columns in order, as a file of their own. The table is partitioned by the day alone.

    Raises InputError for a NULL where none is allowed, before anything is written.
    """
    broken = [column.name for column in table.columns if not column.nullable and rows[column.name].null_count]
    if broken:
        raise InputError(f"table {table.name}: expected no NULL, found NULL in {', '.join(broken)}")
    folder = f"{table.day}={day.isoformat()}"
    path, store = f"{folder}/part-{uuid4()}.snappy.parquet", _store(uri)
    store.create_dir(folder)
    with store.open_output_stream(path) as sink:
        pq.write_table(rows.drop_columns([table.day]), sink, compression="snappy", row_group_size=ROW_GROUP)
        size = sink.tell()
    return Written(path, size, rows.num_rows, day, _stats(rows, [c.name for c in table.columns[: table.indexed] if c.name != table.day]))


def _stats(rows: pa.Table, names: Iterable[str]) -> str:
    """Count, extremes and NULLs, as Delta's log keeps them for skipping files."""
    found = {name: (pc.min_max(rows[name]).as_py(), rows[name].null_count) for name in names}
    extremes = {end: {n: _plain(ends[end]) for n, (ends, _) in found.items() if ends[end] is not None} for end in ("min", "max")}
    nulls = {name: count for name, (_, count) in found.items()}
    return json.dumps({"numRecords": rows.num_rows, "minValues": extremes["min"], "maxValues": extremes["max"], "nullCount": nulls})


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.isoformat() if isinstance(value, date) else value


def commit(place: Lake | direct.Place, before: Files, days: Collection[date], written: Sequence[Written]) -> None:
    """Adds files to a table in one commit, if since `before` nobody has touched these days of it; makes no commit of nothing.

    Raises ConflictError otherwise; nothing is committed then.
    """
    table = before.table
    if not written:
        return
    actions: list[AddAction | RemoveAction] = [
        AddAction(file.path, file.size, {table.day: file.day.isoformat()}, int(time.time() * 1000), True, file.stats) for file in written
    ]
    while True:
        with direct.told(place, table):
            delta = DeltaTable(direct.path(place, table))
            there = {file.path for file in _live(delta, table, days)}
        if there != before.paths:
            raise ConflictError(
                f"another writer changed the table {table.name} at the same time; nothing of this commit was written; run the command again"
            )
        try:
            # No retry inside: it would not look at the days again.
            once = CommitProperties(max_commit_retries=0)
            delta.create_write_transaction(actions, "append", delta.schema(), list(table.partitions), commit_properties=once)
            return
        except CommitFailedError:
            if DeltaTable(delta.table_uri, without_files=True).version() == delta.version():
                raise
