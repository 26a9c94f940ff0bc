"""Every reader reads what we wrote: twelve commits and a checkpoint to each table that analysts read, then the same rows from Spark,
delta-rs, DuckDB and Polars, whole and by partition."""

import operator
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, QueryBuilder
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from slidr import dictionary, direct, ledger, query, rewriting
from slidr.errors import InputError
from slidr.lake import Lake
from slidr.tables import CORRECTIONS, CURRENT_DECISIONS, DECISIONS, MODEL_PROMOTIONS, REPLAY_DECISIONS, RUNS, SLICE_METRICS, Table
from tests.frames import at, frame

Row = dict[str, Any]
FIRST = at("2026-03-30 23:59:59.999999")
DAYS = 4
BY_HAND = 9  # commits by delta-rs, whose last one comes with a checkpoint; two follow as production makes them
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {"=": operator.eq, "!=": operator.ne, ">=": operator.ge, "<": operator.lt}
FILTERS = [(), (("=", 1),), (("!=", 1),), ((">=", 1), ("<", 3))]


def row_of(table: Table, number: int) -> Row:
    """Distinct values; NULL in every third row where one is allowed."""
    time = FIRST + timedelta(days=number % DAYS)
    values: dict[str, Any] = {"boolean": number % 2 == 0, "int": number, "bigint": number * 10**12, "double": number / 8}
    values |= {"timestamp": time, "date": time.date()}
    return {c.name: None if c.nullable and number % 3 == 0 else values.get(c.type, f"{c.name} {number} ä'\"") for c in table.columns}


def rows_of(table: Table, numbers: Sequence[int]) -> list[Row]:
    return [row_of(table, number) for number in numbers]


def days_of(rows: list[Row], table: Table) -> list[date]:
    return sorted({row[table.day] for row in rows})


def inserted(lake: Lake, table: Table, rows: list[Row]) -> None:
    assert lake.insert_new(frame(lake.spark, table, rows), table, days_of(rows, table), expected=len(rows)) == len(rows)


def appended(lake: Lake, table: Table, rows: list[Row]) -> None:
    lake.append(frame(lake.spark, table, rows), table, token=f"token {rows[0]['click_id']}")


def merged(lake: Lake, table: Table, rows: list[Row]) -> None:
    rewriting.replace_rows(lake, frame(lake.spark, table, rows), table, days_of(rows, table), ["score", "replay_id"], rows=len(rows))


def replaced(lake: Lake, table: Table, rows: list[Row]) -> None:
    lake.replace_days(frame(lake.spark, table, rows), table, days_of(rows, table))


def recorded(lake: Lake, table: Table, rows: list[Row]) -> None:
    assert ledger.read(lake, table).append(rows)


def added(lake: Lake, table: Table, rows: list[Row]) -> None:
    direct.add(lake, table, rows)


WRITERS = {
    DECISIONS: inserted,
    CURRENT_DECISIONS: merged,
    CORRECTIONS: appended,
    REPLAY_DECISIONS: appended,
    SLICE_METRICS: replaced,
    MODEL_PROMOTIONS: recorded,
    RUNS: added,
}


def filled(lake: Lake, table: Table) -> list[Row]:
    """Rows that the table must hold after twelve commits: the first makes it, nine add five rows each, two write as production does."""
    direct.create(lake, table)
    known = {}
    for commit in range(BY_HAND):
        rows = rows_of(table, range(commit * 5, commit * 5 + 5))
        direct.add(lake, table, rows)
        known |= {repr([row[name] for name in table.grain]): row for row in rows}
    for commit in range(2):
        rows = rows_of(table, [100 + 4 * commit, 101 + 4 * commit])
        if table is CURRENT_DECISIONS:  # rows that are there change, others come
            rows.append({**row_of(table, commit), "score": 0.5, "replay_id": f"replay {commit}"})
        if table is SLICE_METRICS:
            known = {key: row for key, row in known.items() if row[table.day] not in days_of(rows, table)}
        WRITERS[table](lake, table, rows)
        known |= {repr([row[name] for name in table.grain]): row for row in rows}
    return list(known.values())


def by_spark(lake: Lake, table: Table, where: list[tuple[str, date]]) -> list[Row]:
    found = lake.spark.read.format("delta").load(lake.path(table))
    for name, day in where:
        found = found.where(OPERATORS[name](F.col(table.day), F.lit(day)))
    return [row.asDict() for row in found.collect()]


def by_delta_rs(lake: Lake, table: Table, where: list[tuple[str, date]]) -> list[Row]:
    conditions = " AND ".join(f"{table.day} {name} DATE '{day}'" for name, day in where)
    found = QueryBuilder().register("found", DeltaTable(lake.path(table)))
    rows = found.execute(f"SELECT * FROM found WHERE {conditions or 'true'}").read_all()  # noqa: S608
    columns = [rows.column(name).to_pylist() for name in table.names]
    return [dict(zip(table.names, values, strict=True)) for values in zip(*columns, strict=True)]


def by_duckdb(lake: Lake, table: Table, where: list[tuple[str, date]]) -> list[Row]:
    conditions = " AND ".join(f"{table.day} {name} ${'ab'[number]}" for number, (name, _) in enumerate(where))
    text = f"SELECT * FROM {table.name} WHERE {conditions or 'true'}"  # noqa: S608
    return query.run(lake, {table.name: table}, text, dict(zip("ab", [day for _, day in where], strict=False))).to_pylist()


def by_polars(lake: Lake, table: Table, where: list[tuple[str, date]]) -> list[Row]:
    found = pl.scan_delta(lake.path(table))
    for name, day in where:
        found = found.filter(OPERATORS[name](pl.col(table.day), day))
    return found.collect().to_dicts()


READERS = (by_spark, by_delta_rs, by_duckdb, by_polars)


def plain(rows: list[Row]) -> list[str]:
    """Rows in one order, times aware of UTC."""
    aware = [{name: _aware(value) for name, value in row.items()} for row in rows]
    return sorted(repr(sorted(row.items())) for row in aware)


def _aware(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)
    return value


@pytest.mark.parametrize("table", WRITERS, ids=lambda table: table.name)
def test_every_reader_reads_the_same(lake: Lake, table: Table) -> None:
    wanted = filled(lake, table)
    assert list((Path(lake.path(table)) / "_delta_log").glob("*.checkpoint.parquet"))
    assert dictionary.mismatches(table, direct.facts(lake, table)) == []
    assert direct.facts(lake, table).rows == len(wanted)
    for conditions in FILTERS:
        where = [(name, (FIRST + timedelta(days=number)).date()) for name, number in conditions]
        left = [row for row in wanted if all(OPERATORS[name](row[table.day], day) for name, day in where)]
        assert left
        for reader in READERS:
            assert plain(reader(lake, table, where)) == plain(left), f"{reader.__name__} where {where}"


def test_tables_of_a_catalog_are_found_where_it_keeps_them(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql("CREATE SCHEMA looked LOCATION '" + str(tmp_path / "looked") + "'")  # noqa: S608
    lake = Lake(spark, str(tmp_path / "nowhere"), "looked")
    try:
        rows = rows_of(DECISIONS, range(6))
        lake.create(DECISIONS)
        inserted(lake, DECISIONS, rows)
        assert plain([row.asDict() for row in spark.table("looked.decisions").collect()]) == plain(rows)
        assert plain(by_duckdb(lake, DECISIONS, [])) == plain(rows)
        assert dictionary.checked(lake, {"decisions": DECISIONS, "runs": RUNS}) == {"decisions": []}
        with pytest.raises(InputError, match="expected the table runs in looked, found none"):
            by_duckdb(lake, RUNS, [])
        assert not (tmp_path / "nowhere").exists()
    finally:
        spark.sql("DROP SCHEMA looked CASCADE")
