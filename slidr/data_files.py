"""The Parquet files of a table, read without Spark by tasks that are given their names, and commits that name new ones.

Delta's protocol is delta-rs's work. A table with a newer reader version than 1 (deletion vectors, mapped columns) is refused: its files
alone don't say what its rows are.
"""

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from slidr import contract, direct, writers
from slidr.errors import ConflictError, InputError
from slidr.lake import HISTORY_DAYS, Lake
from slidr.new_files import Target, Written, store
from slidr.tables import Table

FORM = ds.ParquetFileFormat(read_options=ds.ParquetReadOptions(coerce_int96_timestamp_unit="us"))
ROWS_AT_A_TIME = 65_536
BROKEN = ("Parquet", "parquet", "deserialize", "Corrupt")  # words of what pyarrow says of a file that is not what it should be


class CommitGoneError(InputError):
    """The log does not hold this commit, or not any more."""


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
    commit: int

    def only(self, files: Iterable[DataFile]) -> "Files":
        """Some of the files."""
        return replace(self, files=tuple(files))

    @property
    def rows(self) -> dict[date, int]:
        """Rows by day, of days that have any; counted in the file where the log does not say."""
        found: dict[date, int] = {}
        for file in self.files:
            rows = self.only([file]).dataset().count_rows() if file.rows is None else file.rows
            found[file.values[0]] = found.get(file.values[0], 0) + rows
        return {day: rows for day, rows in found.items() if rows}

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(file.path for file in self.files)

    def dataset(self) -> ds.Dataset:
        """The declared columns; those that a file lacks are NULL in it. Nothing is read yet, and files are skipped by partition."""
        folder = store(self.uri)
        fragments = [FORM.make_fragment(file.path, folder, _partition(self.table, file.values)) for file in self.files]
        return ds.FileSystemDataset(fragments, schema(self.table), FORM, folder)

    def batches(
        self, file: DataFile, columns: Sequence[str], where: ds.Expression | None = None, *, at_a_time: int = ROWS_AT_A_TIME
    ) -> Iterator[pa.RecordBatch]:
        """Rows of one file, some at a time. Raises InputError where the file is gone or broken."""
        one = self.only([file]).dataset()
        with _whole(f"{self.uri.rstrip('/')}/{file.path}", self.table):
            found = one.to_batches(
                columns=list(columns), filter=where, batch_size=at_a_time, use_threads=False, batch_readahead=1, fragment_readahead=1
            )
            yield from (batch for batch in found if batch.num_rows)

    def holds(self, where: ds.Expression) -> bool:
        """Whether there is such a row."""
        key = [self.table.columns[0].name]
        return any(batch.num_rows for file in self.files for batch in self.batches(file, key, where))


@contextmanager
def _whole(path: str, table: Table) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(
            f"expected the file {path} of the table {table.name}, found it gone (vacuumed or deleted); restore it from a copy, or plan or "
            "train again on the newest commit"
        ) from error
    except (OSError, pa.ArrowException) as error:
        if not any(word in str(error) for word in BROKEN):
            raise
        raise InputError(
            f"expected a whole file {path} of the table {table.name}, found it cut off or damaged; restore it from a copy; features and "
            "labels can be built anew"
        ) from error


def schema(table: Table) -> pa.Schema:
    """The declared columns."""
    return pa.schema([pa.field(column.name, direct.ARROW[column.type]) for column in table.columns])


def of(place: Lake | direct.Place, table: Table, days: Collection[date] | None = None, *, commit: int | None = None, **fixed: str) -> Files:
    """The live files of these days, and of these values of other partition columns, as of a commit or the newest one.

    Raises InputError where the table is missing, differs from its declaration, or needs a newer reader than version 1, CommitGoneError
    where its log does not hold the commit.
    """
    with direct.told(place, table):
        delta = direct.opened(place, table)
        contract.require(table, direct.shape(delta))
        if commit is not None:
            _go_back(delta, table, commit)
        return Files(table, delta.table_uri, _live(delta, table, days, fixed), delta.version())


def _go_back(delta: DeltaTable, table: Table, commit: int) -> None:
    newest = delta.version()
    try:
        delta.load_as_version(commit)
    except (TableNotFoundError, DeltaError) as error:
        if not re.search("log ?segment", str(error), re.IGNORECASE):
            raise
        raise CommitGoneError(
            f"expected commit {commit} of the table {table.name}, found none such in its log; the newest is {newest}, old ones are kept "
            f"for {HISTORY_DAYS} days"
        ) from error


def written(place: Lake | direct.Place, table: Table, days: Collection[date]) -> dict[date, datetime]:
    """When the newest live file of each of these days was made, by the clock of its writer; days without files are left out."""
    with direct.told(place, table):
        delta = direct.opened(place, table)
        rows = pa.table(delta.get_add_actions(flatten=True)).select(["modification_time", f"partition.{table.day}"]).to_pylist()
    made: dict[date, datetime] = {}
    for at, day in (row.values() for row in rows):
        if day in days:
            made[day] = max(at, made.get(day, at))
    return made


def _live(delta: DeltaTable, table: Table, days: Collection[date] | None, fixed: Mapping[str, str]) -> tuple[DataFile, ...]:
    names = [f"partition.{name}" for name in table.partitions]
    rows = pa.table(delta.get_add_actions(flatten=True)).select(["path", "num_records", *names]).to_pylist()
    files = [DataFile(row["path"], row["num_records"], tuple(row[name] for name in names)) for row in rows]
    places = [(table.partitions.index(name), value) for name, value in fixed.items()]
    wanted = (file for file in files if days is None or file.values[0] in days)
    return tuple(file for file in wanted if all(file.values[place] == value for place, value in places))


def _partition(table: Table, values: Sequence[Any]) -> ds.Expression:
    """What holds for all rows of a file: Delta keeps partition columns out of its files."""
    types = {column.name: direct.ARROW[column.type] for column in table.columns}
    parts = [
        ds.field(name).is_null() if value is None else ds.field(name) == pa.scalar(value, types[name])
        for name, value in zip(table.partitions, values, strict=True)
    ]
    return reduce(lambda both, part: both & part, parts)


def commit(place: Lake | direct.Place, target: Target, before: Files, days: Collection[date], written: Sequence[Written]) -> None:
    """Adds files to a table in one commit, if since `before` nobody has touched these days of it; makes no commit of nothing.

    Raises ConflictError otherwise; nothing is committed then.
    """
    if written:
        _commit(place, target, before, days, _added(target, written))


def replace_days(place: Lake | direct.Place, target: Target, before: Files, days: Collection[date], written: Sequence[Written]) -> None:
    """Puts files in the place of those of `before` in one commit; otherwise as `commit`."""
    rewrite(place, target, before, days, before.files, written)


def rewrite(
    place: Lake | direct.Place,
    target: Target,
    before: Files,
    days: Collection[date],
    replaced: Sequence[DataFile],
    written: Sequence[Written],
) -> None:
    """Puts files in the place of some of those of `before` in one commit; otherwise as `commit`."""
    now = int(time.time() * 1000)
    removed = [RemoveAction(file.path, True, now, partition_values=target.values(file.values[0])) for file in replaced]
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
