"""The Parquet files of a table, read and written without Spark by tasks that are given their names; commits that name them.

Delta's protocol is delta-rs's work. A table with a newer reader version than 1 (deletion vectors, mapped columns) is refused: its files
alone don't say what its rows are.
"""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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

from slidr import direct, writers
from slidr.errors import ConflictError, InputError
from slidr.lake import Lake
from slidr.tables import Table

FORM = ds.ParquetFileFormat(read_options=ds.ParquetReadOptions(coerce_int96_timestamp_unit="us"))
ROWS_AT_A_TIME = 65_536
ROW_GROUP = 500_000
WAITING = 128 << 20  # bytes of rows that a writer holds back at most


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


def of(place: Lake | direct.Place, table: Table, days: Collection[date] | None = None, **fixed: str) -> Files:
    """The live files of these days, and of these values of other partition columns.

    Raises InputError where the table is missing, differs from its declaration, or needs a newer reader than version 1.
    """
    with direct.told(place, table):
        delta = direct.opened(place, table)
        direct.require_declared(delta, table)
        found = delta.protocol().min_reader_version
        if found != 1:
            raise InputError(
                f"table {table.name}: expected reader version 1, found {found}: a table feature was switched on that other readers "
                "don't know; write the table anew without it"
            )
        return Files(table, delta.table_uri, _live(delta, table, days, fixed))


def _live(delta: DeltaTable, table: Table, days: Collection[date] | None, fixed: Mapping[str, str]) -> tuple[DataFile, ...]:
    names = [f"partition.{name}" for name in table.partitions]
    rows = pa.table(delta.get_add_actions(flatten=True)).select(["path", "num_records", *names]).to_pylist()
    files = [DataFile(row["path"], row["num_records"], tuple(row[name] for name in names)) for row in rows]
    places = [(table.partitions.index(name), value) for name, value in fixed.items()]
    wanted = (file for file in files if days is None or file.values[0] in days)
    return tuple(file for file in wanted if all(file.values[place] == value for place, value in places))


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


WRITTEN = pa.schema([("path", pa.string()), ("size", pa.int64()), ("rows", pa.int64()), ("day", pa.date32()), ("stats", pa.string())])


@dataclass(frozen=True)
class Target:
    """Where rows of a table go: the table's place, and the values of the partition columns beside the day."""

    uri: str
    table: Table
    fixed: tuple[tuple[str, str], ...] = ()

    def values(self, day: date) -> dict[str, str | None]:
        """Partition columns of a file of this day."""
        return {self.table.day: day.isoformat(), **dict(self.fixed)}

    @property
    def indexed(self) -> list[str]:
        """Columns whose extremes the log keeps."""
        return [column.name for column in self.table.columns if column.name not in self.table.partitions][: self.table.indexed]

    def write(self, rows: pa.Table, day: date) -> Written:
        """Writes rows of one day as a file of its own: see `Writer`."""
        with Writer(self) as writer:
            writer.add(rows, day)
            return writer.finish()[0]


class Writer:
    """Writes rows into one file for each of their days. Rows wait until many of a day have come together; what waits is bounded.

    Raises InputError for a NULL where none is allowed. Files that are not finished are in no commit.
    """

    def __init__(self, target: Target) -> None:
        self._target, self._store = target, _store(target.uri)
        self._waiting: dict[date, list[pa.Table]] = {}
        self._open: dict[date, _File] = {}

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def add(self, rows: pa.Table, day: date) -> None:
        """Rows of one day, the declared columns but those of the partition."""
        self._waiting.setdefault(day, []).append(rows)
        while sum(_bytes(tables) for tables in self._waiting.values()) > WAITING:
            self._write(max(self._waiting, key=lambda other: _bytes(self._waiting[other])))

    def finish(self) -> list[Written]:
        """The files, by day."""
        for day in list(self._waiting):
            self._write(day)
        return [self._open[day].finish(day) for day in sorted(self._open)]

    def _write(self, day: date) -> None:
        rows = pa.concat_tables(self._waiting.pop(day))
        self._refuse_nulls(rows)
        if day not in self._open:
            self._open[day] = _File(self._target, self._store, day, rows.schema)
        self._open[day].write(rows)

    def _refuse_nulls(self, rows: pa.Table) -> None:
        table = self._target.table
        broken = [c.name for c in table.columns if not c.nullable and c.name not in table.partitions and rows[c.name].null_count]
        if broken:
            raise InputError(f"table {table.name}: expected no NULL, found NULL in {', '.join(broken)}")


def _bytes(tables: Iterable[pa.Table]) -> int:
    return sum(table.nbytes for table in tables)


class _File:
    """A file that is being written, with what the log will say of it."""

    def __init__(self, target: Target, store: PyFileSystem, day: date, schema: pa.Schema) -> None:
        folder = "/".join(f"{name}={value}" for name, value in target.values(day).items())
        store.create_dir(folder)
        self.path, self._names, self._rows = f"{folder}/part-{uuid4()}.snappy.parquet", target.indexed, 0
        self._seen: dict[str, list[tuple[Any, Any, int]]] = {name: [] for name in self._names}
        self._sink = store.open_output_stream(self.path)
        self._parquet = pq.ParquetWriter(self._sink, schema, compression="snappy")

    def write(self, rows: pa.Table) -> None:
        self._parquet.write_table(rows, row_group_size=ROW_GROUP)
        self._rows += rows.num_rows
        for name in self._names:
            ends = pc.min_max(rows[name]).as_py()
            self._seen[name].append((ends["min"], ends["max"], rows[name].null_count))

    def finish(self, day: date) -> Written:
        self._parquet.close()
        size = self._sink.tell()
        self._sink.close()
        return Written(self.path, size, self._rows, day, self._stats())

    def close(self) -> None:
        if not self._sink.closed:
            self._parquet.close()
            self._sink.close()

    def _stats(self) -> str:
        """Count, extremes and NULLs, as Delta's log keeps them for skipping files."""
        found: dict[str, Any] = {"numRecords": self._rows, "minValues": {}, "maxValues": {}, "nullCount": {}}
        for name, seen in self._seen.items():
            for key, ends, of in (("minValues", [low for low, _, _ in seen], min), ("maxValues", [high for _, high, _ in seen], max)):
                known = [end for end in ends if end is not None]
                if known:
                    found[key][name] = _plain(of(known))
            found["nullCount"][name] = sum(nulls for _, _, nulls in seen)
        return json.dumps(found)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.isoformat() if isinstance(value, date) else value


def commit(place: Lake | direct.Place, target: Target, before: Files, days: Collection[date], written: Sequence[Written]) -> None:
    """Adds files to a table in one commit, if since `before` nobody has touched these days of it; makes no commit of nothing.

    Raises ConflictError otherwise; nothing is committed then.
    """
    if written:
        _commit(place, target, before, days, _added(target, written))


def replace_days(place: Lake | direct.Place, target: Target, before: Files, days: Collection[date], written: Sequence[Written]) -> None:
    """Puts files in the place of those of `before` in one commit; otherwise as `commit`."""
    now = int(time.time() * 1000)
    removed = [RemoveAction(file.path, True, now, partition_values=target.values(file.values[0])) for file in before.files]
    _commit(place, target, before, days, [*_added(target, written), *removed])


def _added(target: Target, written: Sequence[Written]) -> list[AddAction | RemoveAction]:
    now = int(time.time() * 1000)
    return [AddAction(file.path, file.size, target.values(file.day), now, True, file.stats) for file in written]


def _commit(
    place: Lake | direct.Place, target: Target, before: Files, days: Collection[date], actions: list[AddAction | RemoveAction]
) -> None:
    with writers.alone(place, target.table):
        while not _committed(place, target, before, days, actions):
            pass  # somebody committed other days meanwhile: look again


def _committed(
    place: Lake | direct.Place, target: Target, before: Files, days: Collection[date], actions: list[AddAction | RemoveAction]
) -> bool:
    """False, and nothing committed, where another commit came in between."""
    table = target.table
    with direct.told(place, table):
        delta = direct.opened(place, table)
        there = {file.path for file in _live(delta, table, days, dict(target.fixed))}
    if there != before.paths:
        raise ConflictError(
            f"another writer changed the table {table.name} at the same time; nothing of this commit was written; run the command again"
        )
    try:
        # No retry inside: it would not look at the days again.
        once = CommitProperties(max_commit_retries=0)
        delta.create_write_transaction(actions, "append", delta.schema(), list(table.partitions), commit_properties=once)
    except CommitFailedError:
        if DeltaTable(delta.table_uri, without_files=True).version() == delta.version():
            raise
        return False
    return True
