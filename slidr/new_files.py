"""Parquet files that tasks write and no commit names yet, one for each day of their rows. Without Spark.

`data_files.commit` makes them part of a table; until then nobody sees them, and vacuum takes them away.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import PyFileSystem

from slidr.errors import InputError
from slidr.tables import Table

ROW_GROUP = 500_000
WAITING = 128 << 20  # bytes of rows that a writer holds back at most


def store(uri: str) -> PyFileSystem:
    """The folder of a table as a file system, by delta-rs."""
    return PyFileSystem(DeltaStorageHandler(uri))


@dataclass(frozen=True)
class Written:
    """A file that no commit names yet."""

    path: str
    size: int
    rows: int
    day: date
    stats: str


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
        self._target, self._store = target, store(target.uri)
        self._waiting: dict[date, list[pa.Table]] = {}
        self._open: dict[date, _File] = {}

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def add(self, rows: pa.Table, day: date) -> None:
        """Rows of one day, the declared columns but those of the partition."""
        if not rows.num_rows:
            return
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
        self.path, self._names, self._rows = f"{folder}/part-{uuid4()}.snappy.parquet", target.table.with_extremes, 0
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
