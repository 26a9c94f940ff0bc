"""The data dictionary: what the declarations say about each table, what the Delta log says, and where they differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from slidr import contract, direct
from slidr.direct import Facts, Place
from slidr.features.spec import FeatureSpec
from slidr.lake import Lake
from slidr.tables import ALL, Table, features_table

# What readers of Delta's protocol version 1 don't know, or only say that they know: as features, and as properties that bring them.
FEATURES = frozenset(["deletionVectors", "columnMapping", "v2Checkpoint", "clustering", "typeWidening", "timestampNtz", "variantType"])
PROPERTIES = {
    "delta.enableDeletionVectors": "false",
    "delta.columnMapping.mode": "none",
    "delta.checkpointPolicy": "classic",
    "delta.enableTypeWidening": "false",
}
FEATURES_NAME = "features"


def named(spec: FeatureSpec) -> dict[str, Table]:
    """Every table by the name that people use: `features` is that of the configured feature spec."""
    return {**{table.name: table for table in ALL}, FEATURES_NAME: features_table(spec)}


def listed(place: Lake | Place, tables: Mapping[str, Table]) -> list[dict[str, Any]]:
    """A row for each table; version -1 and no rows where it does not exist yet."""
    rows = []
    for name, table in tables.items():
        seen = direct.facts(place, table) if direct.exists(place, table) else None
        known = {"version": seen.version if seen else -1, "rows": seen.rows if seen else None}
        rows.append({"table": name, **known, "grain": " x ".join(table.grain), "holds": table.comment})
    return rows


def columns(table: Table) -> list[dict[str, Any]]:
    """A row for each column."""
    return [
        {
            "column": column.name,
            "type": column.type,
            "null": "yes" if column.nullable else "no",
            "key": "key" if column.name in table.grain else "",
            "partition": "partition" if column.name in table.partitions else "",
            "meaning": column.comment,
        }
        for column in table.columns
    ]


def checked(place: Lake | Place, tables: Mapping[str, Table]) -> dict[str, list[str]]:
    """Existing tables -> how each differs from its declaration, or can't be read by every reader; nothing where all is well."""
    return {name: mismatches(table, direct.facts(place, table)) for name, table in tables.items() if direct.exists(place, table)}


def upgradable(place: Lake | Place, tables: Mapping[str, Table]) -> dict[str, list[str]]:
    """Existing tables -> the columns that can be added to make them as declared; only tables to which some can."""
    there = {name: table for name, table in tables.items() if direct.exists(place, table)}
    found = {name: contract.addable(table, direct.facts(place, table).shape) for name, table in there.items()}
    return {name: columns for name, columns in found.items() if columns}


def mismatches(table: Table, seen: Facts) -> list[str]:
    """Differences as `expected …, found …`. Columns beyond the declared ones are none: a table may gain columns."""
    found = [*contract.differences(table, seen.shape)]
    found += [_differs(f"feature {name}", "absent", "present") for name in sorted(seen.features & FEATURES)]
    found += [_differs(f"property {name}", value, seen.properties.get(name, value)) for name, value in PROPERTIES.items()]
    found += [_differs("comment of the table", table.comment, seen.description)]
    known = [column for column in table.columns if column.name in seen.comments]
    found += [_differs(f"comment of {column.name}", column.comment, seen.comments[column.name]) for column in known]
    return [text for text in found if text]


def _differs(what: str, expected: object, found: object) -> str:
    """Empty where nothing differs."""
    return "" if expected == found else f"{what}: expected {expected}, found {found or 'none'}"


def markdown(tables: Sequence[Table]) -> str:
    """The page docs/tables.md, of the declared tables and of the default feature spec's."""
    return "\n".join([INTRODUCTION, *[_section(table) for table in tables]])


def _section(table: Table) -> str:
    name = FEATURES_NAME if table.name.startswith("features/") else table.name
    head = f"## {name}\n\n{table.comment}. Key: {' × '.join(table.grain)}; partitioned by {', '.join(table.partitions)}.\n"
    rows = [f"| `{c['column']}` | {c['type']} | {c['null']} | {_cell(c['meaning'])} |" for c in columns(table)]
    return "\n".join([head, "| column | type | NULL | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


INTRODUCTION = """# Tables

Generated from `slidr/tables.py` by `slidr tables --markdown > docs/tables.md`; a test asserts that it is up to date.

They are plain Delta tables, one folder each below `lake.root`, which every reader of Delta's protocol version 1 reads:
[queries.md](queries.md) shows how. Times are UTC timestamps with microseconds, dates are UTC dates unless they say otherwise, money is
integer micro-units (1,000,000 = 1.00) of the row's currency. NULL has a meaning where the column says `yes`, and does not occur elsewhere.
The comments are stored in the tables too.

`slidr tables` lists them with version and rows, `slidr tables NAME` shows one, and `slidr tables check` compares the tables of a lake with
this page: columns, types, partitions and comments as declared, and nothing switched on that other readers don't know; `slidr tables
upgrade` adds columns that an older version did not know ([upkeep.md](upkeep.md)). The folder of
`features` is `features/<spec_id>`, one per feature spec, and its columns follow the spec; below it is the default one.
"""
