"""Rows with sensible defaults, so that a test names only the columns it is about."""

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from slidr import data_files
from slidr.data_files import DataFile, Files
from slidr.tables import CLICKS, PURCHASES, Table

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def at(text: str) -> datetime:
    """`2026-03-01 12:00:00.5` as a UTC time."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def from_micros(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def frame(spark: SparkSession, table: Table, rows: list[dict[str, Any]]) -> DataFrame:
    """A frame of the table's schema; a key that the table lacks is an error."""
    unknown = {key for row in rows for key in row} - set(table.names)
    assert not unknown, f"{table.name} has no columns {unknown}"
    return spark.createDataFrame([tuple(row.get(name) for name in table.names) for row in rows], table.schema)


def click(click_id: str, time: datetime, **given: Any) -> dict[str, Any]:
    defaults = {
        "click_id": click_id,
        "click_time": time,
        "click_date": time.date(),
        "local_date": time.date(),
        "user_id": None,
        "session_id": f"s-{click_id}",
        "ip": "192.0.2.1",
        "ip_key": "192.0.2.1",
        "user_agent": "agent",
        "device": "desktop",
        "marketplace": "US",
        "logged_in": given.get("user_id") is not None,
        "advertiser_id": "adv-1",
        "campaign_id": "cam-1",
        "cost_micros": 100_000,
        "currency": "USD",
        "upstream_filter": None,
        "arrival_time": time,
    }
    return {**defaults, **given}


def purchase(order_id: str, time: datetime, **given: Any) -> dict[str, Any]:
    defaults = {
        "order_id": order_id,
        "user_id": None,
        "session_id": None,
        "purchase_time": time,
        "purchase_date": time.date(),
        "marketplace": "US",
        "advertiser_id": None,
        "amount_micros": 10_000_000,
        "currency": "USD",
        "cancelled": False,
        "click_id": None,
        "arrival_time": time,
    }
    return {**defaults, **given}


def clicks(spark: SparkSession, *rows: dict[str, Any]) -> DataFrame:
    return frame(spark, CLICKS, list(rows))


def click_files(folder: Path, rows: list[dict[str, Any]], files: int = 1) -> Files:
    """Rows as files of `clicks` that no log names: each day's go in turns to so many files."""
    schema, made = data_files.schema(CLICKS), []
    for day in sorted({row["click_date"] for row in rows}):
        mine = [row for row in rows if row["click_date"] == day]
        for number in range(min(files, len(mine))):
            table = pa.Table.from_pylist(mine[number::files], schema=schema).drop_columns(["click_date"])
            made.append(DataFile(f"{day}-{number}.parquet", table.num_rows, (day,)))
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, folder / made[-1].path)
    return Files(CLICKS, str(folder), tuple(made), commit=0)


def purchases(spark: SparkSession, *rows: dict[str, Any]) -> DataFrame:
    return frame(spark, PURCHASES, list(rows))


def day(text: str) -> date:
    return date.fromisoformat(text)
