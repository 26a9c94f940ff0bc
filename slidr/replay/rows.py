"""The planned rows of a replay: one per click, under the lake's `_plans/<plan_id>/`, in chunks of whole hours."""

from collections.abc import Callable
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from slidr.errors import ConflictError
from slidr.lake import Lake
from slidr.progress import Progress
from slidr.replay import numbers, outcomes
from slidr.replay.audit import Plan

Chunk = dict[str, Any]  # start and end (ISO 8601, UTC) and clicks


def path(lake: Lake, plan_id: str, number: int) -> str:
    return f"{lake.plan_path(plan_id)}/rows/{number:05d}"


def chunk(lake: Lake, plan_id: str, number: int) -> DataFrame:
    """The rows of one chunk: outcomes.ROWS."""
    return lake.spark.read.schema(outcomes.SCHEMA).parquet(path(lake, plan_id, number))


def of_chunks(lake: Lake, plan_id: str, chunks: int) -> DataFrame:
    """The rows of all chunks, one per click."""
    return lake.spark.read.schema(outcomes.SCHEMA).parquet(*[path(lake, plan_id, number) for number in range(chunks)])


def planned(lake: Lake, plan: Plan) -> DataFrame:
    """The rows of a plan on record."""
    return of_chunks(lake, plan.plan_id, len(plan.details["chunks"]))


def write(lake: Lake, plan_id: str, chunks: list[Chunk], rows_of: Callable[[Chunk], DataFrame], *, again: bool, progress: Progress) -> None:
    """Writes the chunks; those that an earlier run of the same plan has written are left as they are, unless `again`."""
    for number in progress.chunks(lake.spark, "deciding", [part["clicks"] for part in chunks]):
        place = path(lake, plan_id, number)
        if again or not lake.is_written(place):
            rows_of(chunks[number]).write.mode("overwrite").parquet(place)


def intact(lake: Lake, plan: Plan) -> bool:
    """Whether the planned rows can be read and are those on record."""
    try:
        found = numbers.identity(numbers.cells(planned(lake, plan)))
    except (PySparkException, Py4JJavaError):
        return False
    result: bool = found == plan.details["rows"]
    return result


def refuse_changed(lake: Lake, plan: Plan) -> None:
    """Raises ConflictError unless the rows are those on record."""
    if not intact(lake, plan):
        raise ConflictError(
            f"expected the {plan.details['rows']['count']} rows of plan {plan.plan_id} as they were planned, found them changed or lost; "
            "plan again, nothing was published"
        )
