"""Whether a table of the lake still is what its declaration says: what every read and every write looks at first.

It is read off the table's metadata, which both ways into the lake have at hand anyway: no row, and no Spark job.
"""

import json
from dataclasses import dataclass

from slidr.errors import InputError
from slidr.tables import TYPES, Table

NAMES = {kind.jsonValue(): name for name, kind in TYPES.items()}  # Delta's names of types -> ours


@dataclass(frozen=True)
class Shape:
    """What the Delta log says of a table: its schema as JSON, partition columns, and the protocol version that readers need."""

    schema: str
    partitions: tuple[str, ...]
    reader_version: int


def differences(table: Table, shape: Shape) -> list[str]:
    """As `expected …, found …`, in a fixed order. Columns beyond the declared ones are none: a table may gain columns."""
    found = {field["name"]: field for field in json.loads(shape.schema)["fields"]}
    said = [] if shape.reader_version == 1 else [f"reader version: expected 1, found {shape.reader_version}"]
    if shape.partitions != table.partitions:
        said.append(f"partition columns: expected {', '.join(table.partitions)}, found {', '.join(shape.partitions) or 'none'}")
    for column in table.columns:
        field = found.get(column.name, {"type": "none", "nullable": True})
        kind = NAMES.get(str(field["type"]), str(field["type"]))
        if kind != column.type:
            said.append(f"column {column.name}: expected {column.type}, found {kind}")
        elif not field["nullable"]:
            said.append(f"column {column.name}: expected that it may be declared NULL, found NOT NULL")
    return said


def addable(table: Table, shape: Shape) -> list[str]:
    """The missing columns, if they are all that differs and each may be NULL: older rows hold NULL there. Else none."""
    there = {field["name"] for field in json.loads(shape.schema)["fields"]}
    missing = [column for column in table.columns if column.name not in there]
    alone = len(missing) == len(differences(table, shape))
    return [column.name for column in missing] if alone and all(column.nullable for column in missing) else []


def require(table: Table, shape: Shape) -> None:
    """Raises InputError with every difference and what to do."""
    if said := differences(table, shape):
        raise InputError(f"table {table.name} does not match its declaration: {'; '.join(said)}; `slidr tables check` says what to do")
