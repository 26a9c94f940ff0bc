"""Tables of the lake without Spark: what is said of them, and small ones read whole and appended a few rows at a time. Incident response
and analysts wait for no JVM; `data_files` has the files of large tables.

Delta's protocol is delta-rs's work (package `deltalake`). Spark reads these tables as it reads the others, and they are declared
in `tables.py` like the others. Credentials of object stores come from the environment (AWS_*, AZURE_*, GOOGLE_*) or the machine's role.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, QueryBuilder, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileInfo, FileSelector, PyFileSystem

from slidr import contract, writers
from slidr.errors import InputError
from slidr.folders import private_root
from slidr.lake import PROPERTIES, Lake, refuse_empty_commits
from slidr.tables import Table

SCHEMES = ("file", "s3", "s3a", "gs", "az", "abfs", "abfss", "hdfs")
ARROW: dict[str, pa.DataType] = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
Rows = Sequence[Mapping[str, Any]]
# What delta-rs says of logs and files that are there and broken, or that a log names and are not there.
BROKEN = ("Json error", "Invalid JSON", "Parquet error", "Arrow error", "Invalid Checkpoint", "log segment", "Object at location")


@dataclass(frozen=True)
class Place:
    """Where the tables live, as in `Lake`, without a session."""

    root: str
    catalog: None = None


@dataclass(frozen=True)
class Snapshot:
    """All rows of a table as of one commit."""

    place: Lake | Place
    table: Table
    delta: DeltaTable
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Facts:
    """What the Delta log says about a table: `rows` is None where a file has no statistics; `comments` are by column."""

    version: int
    rows: int | None
    description: str | None
    comments: dict[str, str]
    shape: contract.Shape
    features: frozenset[str]
    properties: dict[str, str]


@dataclass(frozen=True)
class Stored:
    """What lies in a table's folder: `live` files of the newest commit as Delta's flat add actions; `files` by their path below the
    folder; `read` gives a file's bytes."""

    live: list[dict[str, Any]]
    files: dict[str, FileInfo]
    read: Callable[[str], bytes]


def reaches(root: str, catalog: str | None) -> bool:
    """Whether the tables can be used without Spark: not where a catalog names them, nor in stores that only Hadoop knows."""
    return catalog is None and ("://" not in root or root.split("://")[0] in SCHEMES)


def path(place: Lake | Place, table: Table) -> str:
    """Folder or URI of the table's files. Raises InputError where a catalog has no such table."""
    if not place.catalog:
        return f"{place.root.rstrip('/')}/{table.name}"
    where = place.location(table)
    return where.removeprefix("file:") if where.startswith("file:/") and not where.startswith("file://") else where


def exists(place: Lake | Place, table: Table) -> bool:
    if place.catalog:
        return place.exists(table)
    with told(place, table):
        return bool(DeltaTable.is_deltatable(path(place, table)))


def create(place: Lake | Place, table: Table) -> None:
    """Makes the table, as `Lake.create` does, where it is missing; leaves it alone where it exists."""
    if exists(place, table):
        return
    if not place.catalog:
        private_root(place.root)
    try:
        with writers.alone(place, table), told(place, table):
            DeltaTable.create(
                path(place, table),
                schema=Schema.from_json(table.schema.json()),
                mode="ignore",
                partition_by=list(table.partitions),
                description=table.comment,
                configuration={**PROPERTIES, **table.statistics},
            )
    except CommitFailedError:
        if not exists(place, table):  # else another process made the same table at the same time
            raise


def read(place: Lake | Place, table: Table) -> Snapshot:
    """All rows of a small table, times aware of UTC. Raises InputError where it is missing or differs from its declaration."""
    with told(place, table):
        delta = opened(place, table)
        contract.require(table, shape(delta))
        found = QueryBuilder().register("found", delta).execute("SELECT * FROM found").read_all()
        columns = [found.column(name).to_pylist() for name in table.names]
    return Snapshot(place, table, delta, [dict(zip(table.names, values, strict=True)) for values in zip(*columns, strict=True)])


def facts(place: Lake | Place, table: Table) -> Facts:
    """What the log of the newest commit says; no file of rows is opened. Raises InputError where the table is missing."""
    with told(place, table):
        delta = opened(place, table)
        counts = pa.table(delta.get_add_actions(flatten=True))["num_records"].to_pylist()
        meta, protocol = delta.metadata(), delta.protocol()
        fields = json.loads(delta.schema().to_json())["fields"]
    return Facts(
        version=delta.version(),
        rows=None if None in counts else sum(counts),
        description=meta.description,
        comments={field["name"]: field["metadata"].get("comment", "") for field in fields},
        shape=shape(delta),
        features=frozenset([*(protocol.reader_features or ()), *(protocol.writer_features or ())]),
        properties=dict(meta.configuration),
    )


def opened(place: Lake | Place, table: Table) -> DeltaTable:
    """The table as of its newest commit. Raises InputError where its log has an empty commit."""
    where = path(place, table)
    refuse_empty_commits(where, table)
    return DeltaTable(where)


def stored(place: Lake | Place, table: Table) -> Stored:
    """Lists the table's folder, log included. Raises InputError where the table is missing."""
    with told(place, table):
        delta = DeltaTable(path(place, table))
        live = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
        store = PyFileSystem(DeltaStorageHandler.from_table(delta._table))
        files = {info.path: info for info in store.get_file_info(FileSelector("", recursive=True)) if info.is_file}
    return Stored(live, files, lambda path: bytes(store.open_input_file(path).read()))


def sweep(place: Lake | Place, table: Table, days: int) -> int:
    """Removes files that were superseded more than `days` days ago, or that are as old and belong to no commit; returns how many.
    Delta refuses fewer days than the table's own retention."""
    with writers.alone(place, table), told(place, table):
        return len(DeltaTable(path(place, table)).vacuum(retention_hours=24 * days, dry_run=False, full=True))


def add_columns(place: Lake | Place, table: Table, names: Sequence[str]) -> None:
    """Adds declared columns, in one commit; rows that are there hold NULL in them."""
    fields = [field for field in Schema.from_json(table.schema.json()).fields if field.name in names]
    with writers.alone(place, table), told(place, table):
        DeltaTable(path(place, table)).alter.add_columns(fields)


def append(snapshot: Snapshot, rows: Rows) -> bool:
    """Appends rows as the very next commit after the snapshot; False, and nothing written, where another commit came first."""
    batch = _arrow(snapshot.table, rows)
    try:
        with writers.alone(snapshot.place, snapshot.table):
            # No retry inside: rows are decided on what the snapshot holds, so they must not land behind anything else.
            once = CommitProperties(max_commit_retries=0)
            write_deltalake(snapshot.delta, batch, mode="append", schema_mode="merge", commit_properties=once)
    except CommitFailedError:
        if DeltaTable(snapshot.delta.table_uri).version() > snapshot.delta.version():
            return False
        raise
    return True


def add(place: Lake | Place, table: Table, rows: Rows) -> None:
    """Appends rows that depend on no others, in one commit; makes the table where it is missing. Raises InputError where it differs
    from its declaration."""
    create(place, table)
    with writers.alone(place, table), told(place, table):
        delta = opened(place, table)
        contract.require(table, shape(delta))
        write_deltalake(delta, _arrow(table, rows), mode="append", schema_mode="merge")


def purge(place: Lake | Place, table: Table) -> int:
    """Deletes the files that the newest commit does not have any more, at once, and returns their number: older commits can't be read
    after it. Files that no commit names yet, of writers at work, are left alone."""
    with writers.alone(place, table), told(place, table):
        gone = DeltaTable(path(place, table)).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    return len(gone)


def _arrow(table: Table, rows: Rows) -> pa.Table:
    """The declared columns. Raises InputError for a NULL where none is allowed."""
    broken = sorted({c.name for c in table.columns for row in rows if row[c.name] is None and not c.nullable})
    if broken:
        raise InputError(f"table {table.name}: expected no NULL, found NULL in {', '.join(broken)}")
    fields = [pa.field(c.name, ARROW[c.type]) for c in table.columns]
    return pa.Table.from_pylist([{name: row[name] for name in table.names} for row in rows], schema=pa.schema(fields))


def shape(delta: DeltaTable) -> contract.Shape:
    """What the log of the newest commit says of the table."""
    return contract.Shape(delta.schema().to_json(), tuple(delta.metadata().partition_columns), delta.protocol().min_reader_version)


@contextmanager
def told(place: Lake | Place, table: Table) -> Iterator[None]:
    with writers.reached(f"the table {table.name} in {place.root}"):
        try:
            yield
        except TableNotFoundError as error:
            raise InputError(f"expected the table {table.name} in {place.root}, found none; run `slidr init`") from error
        except CommitFailedError:
            raise
        except (OSError, DeltaError) as error:
            why = writers.in_short(error)
            if any(words in why for words in BROKEN):
                raise InputError(
                    f"expected a whole log and whole files of the table {table.name} in {place.root}, found: {why}; "
                    "restore the table's folder from a copy; a broken _last_checkpoint can be deleted"
                ) from error
            raise
