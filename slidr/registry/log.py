"""The table `model_promotions`: every change of a version's state, numbered from 1 without gaps.

A change is decided on the events that were read, and is appended right behind them or not at all: of two changes decided on the same
events one wins. Without Spark wherever the lake allows it; through Spark in a catalog, which has no other way in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timezone
from functools import partial
from typing import Any

from pyspark.sql import functions as F

from slidr import direct
from slidr.direct import Place
from slidr.errors import ConflictError
from slidr.lake import Lake
from slidr.tables import MODEL_PROMOTIONS

Rows = Sequence[Mapping[str, Any]]
BEHIND = "slidr-not-the-newest-event"


@dataclass(frozen=True)
class Log:
    """All events in order; a few per version. `append` adds rows right behind them and says whether it could."""

    events: list[dict[str, Any]]
    append: Callable[[Rows], bool]

    @property
    def last(self) -> int:
        """Number of the newest event; 0 where there is none."""
        return int(self.events[-1]["event_no"]) if self.events else 0


def create(lake: Lake | Place) -> None:
    if direct.reaches(lake.root, lake.catalog):
        direct.create(lake, MODEL_PROMOTIONS)
    else:
        _with_spark(lake).create(MODEL_PROMOTIONS)


def read(lake: Lake | Place) -> Log:
    if not direct.reaches(lake.root, lake.catalog):
        return _by_spark(_with_spark(lake))
    if not direct.exists(lake, MODEL_PROMOTIONS):
        return Log([], _nowhere)
    snapshot = direct.read(lake, MODEL_PROMOTIONS)
    return Log(_in_order(snapshot.rows), partial(direct.append, snapshot))


def _nowhere(_rows: Rows) -> bool:
    raise AssertionError("a version changes its state only once it is registered, and registering makes the table")


def _in_order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda event: event["event_no"])


def _with_spark(lake: Lake | Place) -> Lake:
    if not isinstance(lake, Lake):
        raise TypeError(f"expected a lake with a Spark session for {lake.root}")
    return lake


def _by_spark(lake: Lake) -> Log:
    """The same through Spark: the plan that appends reads the last number again, so that Delta refuses it where another came first."""
    if not lake.exists(MODEL_PROMOTIONS):
        return Log([], _nowhere)
    rows = [row.asDict() for row in lake.read(MODEL_PROMOTIONS).collect()]
    events = _in_order([{**row, "event_time": row["event_time"].replace(tzinfo=timezone.utc)} for row in rows])
    return Log(events, partial(_append_by_spark, lake, Log(events, _nowhere).last))


def _append_by_spark(lake: Lake, seen: int, rows: Rows) -> bool:
    new = lake.spark.createDataFrame([tuple(row[name] for name in MODEL_PROMOTIONS.names) for row in rows], MODEL_PROMOTIONS.schema)
    last = lake.read(MODEL_PROMOTIONS).agg(F.coalesce(F.max("event_no"), F.lit(0)).alias("last"))
    right_behind = F.when(F.col("last") == seen, F.col("event_no")).otherwise(F.raise_error(F.lit(BEHIND)).cast("bigint"))
    try:
        lake.append(new.join(last, how="cross").withColumn("event_no", right_behind), MODEL_PROMOTIONS)
    except ConflictError:
        return False
    except Exception as error:
        if BEHIND in str(error):
            return False
        raise
    return True
