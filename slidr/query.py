"""SQL over the lake's tables without Spark: DuckDB reads the files of each table's newest commit, and nothing else.

A query can read the tables and what is given as parameters: no file, no network, no setting, no table of Python's.
"""

import re
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import duckdb
import pyarrow as pa

from slidr import data_files
from slidr.direct import Place
from slidr.errors import InputError, SlidrError, UsageError
from slidr.lake import Lake
from slidr.tables import Table

BEGIN = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:SELECT|WITH|FROM)\b", re.IGNORECASE | re.DOTALL)
UNREADABLE = ("get_next failed", "Object at location", "magic bytes")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
CLOSED = "SET enable_external_access = false; SET python_enable_replacements = false; SET TimeZone = 'UTC'"


def run(
    place: Lake | Place, tables: Mapping[str, Table], query: str, params: Mapping[str, Any] | None = None, *, rows: int | None = None
) -> pa.Table:
    """The answer to one SELECT, or its first `rows` rows; times are UTC.

    `tables` maps the names that the query may use to tables; each is seen as of its newest commit when the query names it first.
    Parameters stand in the query as `$name`. Raises UsageError for what is not one SELECT, what does not parse or name known
    tables and columns, for parameters that are missing or not used, and for two columns of one name; InputError for a file of a
    table that is gone or broken.
    """
    with closing(duckdb.connect()) as connection:
        connection.execute(CLOSED)
        given = dict(params or {})
        try:
            statement = _select(connection, query)
            _match(statement, given)
            for name in _named(query, tables):
                connection.register(name, data_files.of(place, tables[name]).dataset())
            connection.execute("SET lock_configuration = true")
            answer = connection.execute(statement, given)
            found = answer.fetch_arrow_table() if rows is None else _first(answer, rows)
        except (duckdb.Error, OSError) as error:  # while rows stream in, DuckDB's errors come as OSError
            raise _retold(error, tables) from error
    return _distinct(found)


def _first(answer: duckdb.DuckDBPyConnection, rows: int) -> pa.Table:
    """The first rows as they come: the others are not computed where nothing sorts or groups them."""
    reader = answer.fetch_record_batch(rows)
    batches, left = [], rows
    for batch in reader:
        batches.append(batch.slice(0, left))
        left -= batches[-1].num_rows
        if not left:
            break
    return pa.Table.from_batches(batches, reader.schema)


def _distinct(found: pa.Table) -> pa.Table:
    names = found.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"expected columns of different names, found {', '.join(twice)} more than once; name each with AS")
    return found


def _select(connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.Statement:
    """DuckDB counts some statements as SELECT that are none, such as PRAGMA: the first word counts too."""
    statements = connection.extract_statements(query)
    begins = BEGIN.match(query)
    if len(statements) != 1 or statements[0].type.name != "SELECT" or begins is None:
        raise UsageError(
            "expected one query that begins with SELECT, WITH or FROM, found another statement or several; "
            "tables change through slidr's commands only"
        )
    return statements[0]


def _match(statement: duckdb.Statement, given: Mapping[str, Any]) -> None:
    wanted = set(statement.named_parameters)
    if wanted != set(given):
        raise UsageError(
            f"expected values for the parameters {sorted(wanted) or 'none'}, found {sorted(given) or 'none'}; "
            "give each as --param NAME=VALUE"
        )


def _named(query: str, tables: Mapping[str, Table]) -> list[str]:
    """Tables whose name is a word of the query: to open the others would only take time."""
    words = {word.lower() for word in re.findall(r"\w+", query)}
    return [name for name in tables if name in words]


def _retold(error: Exception, tables: Mapping[str, Table]) -> SlidrError:
    """DuckDB's own words without the query, which the user has before them, and without names of its own catalog."""
    said = COLOURS.sub("", str(error)).split("\n\nLINE ")[0]
    if any(words in said for words in UNREADABLE):
        why = " ".join(said.partition("Detail:")[0].split())
        return InputError(f"expected whole files of the tables, found: {why}; restore the table's folder from a copy")
    if isinstance(error, duckdb.CatalogException):
        return UsageError(f"expected the tables {', '.join(sorted(tables))}, found: {said.splitlines()[0]}")
    return UsageError(f"expected a query that can be answered, found: {' '.join(said.split())}")
