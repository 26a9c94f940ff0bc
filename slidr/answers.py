"""Answers of queries as people and programs take them: rows for JSON and for a terminal, and CSV."""

import io
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.csv

from slidr.pages import plain


def rows(found: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON has them: times, dates and intervals as ISO 8601 text, UTC; whole decimals (DuckDB's sums of integers) as integers."""
    return [{name: _value(value) for name, value in row.items()} for row in found.to_pylist()]


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, pa.MonthDayNano):
        return f"P{value.months}M{value.days}DT{value.nanoseconds / 1e9:g}S"
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: _value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    return plain(value) if value is None or isinstance(value, str | int | float) else str(value)


def csv(found: pa.Table) -> str:
    """CSV with a header: NULL is an empty cell, an empty string is `""`, times are UTC with a `Z`; lists and structs are JSON."""
    columns = [_flat(column) for column in found.columns]
    written = io.BytesIO()
    pa.csv.write_csv(pa.table(columns, names=found.column_names), written)
    return written.getvalue().decode("utf-8")


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """A column that CSV can hold."""
    if not pa.types.is_nested(column.type) and not pa.types.is_interval(column.type) and not pa.types.is_duration(column.type):
        return column
    texts = [None if value is None else _text(_value(value)) for value in column.to_pylist()]
    return pa.array(texts, pa.string())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
