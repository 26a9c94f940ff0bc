"""SQL over the lake's tables without Spark: DuckDB reads the files of each table's newest commit, and nothing else.

A query can read the tables and what is given as parameters: no file, no network, no setting, no table of Python's.
"""

import re
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import duckdb
import pyarrow as pa

from slidr import direct
from slidr.direct import Place
from slidr.errors import UsageError
from slidr.lake import Lake
from slidr.tables import Table

CLOSED = "SET enable_external_access = false; SET python_enable_replacements = false; SET TimeZone = 'UTC'"


def run(place: Lake | Place, tables: Mapping[str, Table], query: str, params: Mapping[str, Any] | None = None) -> pa.Table:
    """The answer to one SELECT; times are UTC.

    `tables` maps the names that the query may use to tables; each is seen as of its newest commit when the query names it first.
    Parameters stand in the query as `$name`. Raises UsageError for what is not one SELECT, what does not parse or name known
    tables and columns, and for parameters that are missing or not used.
    """
    with closing(duckdb.connect()) as connection:
        connection.execute(CLOSED)
        given = dict(params or {})
        try:
            statement = _select(connection, query)
            _match(statement, given)
            for name in _named(query, tables):
                connection.register(name, direct.dataset(place, tables[name]))
            connection.execute("SET lock_configuration = true")
            return connection.execute(statement, given).fetch_arrow_table()
        except duckdb.Error as error:
            raise UsageError(_told(error, tables)) from error


def _select(connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.Statement:
    statements = connection.extract_statements(query)
    if len(statements) != 1 or statements[0].type.name != "SELECT":
        raise UsageError(
            "expected one query that begins with SELECT or WITH, found another statement; tables change through slidr's commands only"
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


def _told(error: duckdb.Error, tables: Mapping[str, Table]) -> str:
    why = str(error).strip()
    return f"expected a query over {', '.join(sorted(tables))}, found one that can't be answered: {why}"
