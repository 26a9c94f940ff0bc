"""Small tables of events whose next one depends on those that are there: appended right behind what was read, or not at all.

Without Spark wherever the lake allows it; through Spark in a catalog, which has no other way in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

from slidr import direct
from slidr.direct import Place
from slidr.errors import ConflictError
from slidr.lake import Lake
from slidr.tables import Table

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Ledger:
    """All rows as of one commit, times aware of UTC, in no order. `append` adds rows as the very next commit and says whether it
    could: False, and nothing written, where another commit came first."""

    rows: list[dict[str, Any]]
    append: Callable[[Rows], bool]


def create(lake: Lake | Place, table: Table) -> None:
    """Makes the table where it is missing."""
    if direct.reaches(lake.root, lake.catalog):
        direct.create(lake, table)
    else:
        _with_spark(lake).create(table)


def read(lake: Lake | Place, table: Table) -> Ledger:
    """The rows of the table. Raises InputError where it is missing or differs from its declaration."""
    if not direct.reaches(lake.root, lake.catalog):
        return _by_spark(_with_spark(lake), table)
    snapshot = direct.read(lake, table)
    return Ledger(snapshot.rows, partial(direct.append, snapshot))


def exists(lake: Lake | Place, table: Table) -> bool:
    return direct.exists(lake, table) if direct.reaches(lake.root, lake.catalog) else _with_spark(lake).exists(table)


def _with_spark(lake: Lake | Place) -> Lake:
    if not isinstance(lake, Lake):
        raise TypeError(f"expected a lake with a Spark session for {lake.root}")
    return lake


def _by_spark(lake: Lake, table: Table) -> Ledger:
    rows = [{name: _aware(value) for name, value in row.asDict().items()} for row in lake.read(table).collect()]
    return Ledger(rows, partial(_append_by_spark, lake, table, len(rows)))


def _aware(value: Any) -> Any:
    return value.replace(tzinfo=timezone.utc) if isinstance(value, datetime) else value


def _append_by_spark(lake: Lake, table: Table, seen: int, rows: Rows) -> bool:
    try:
        new = lake.spark.createDataFrame([tuple(row[name] for name in table.names) for row in rows], table.schema)
        lake.append_after(new, table, rows=seen)
    except ConflictError:
        return False
    return True
