"""The planned rows of a replay: one per click, under the lake's `_plans/<plan_id>/`, in chunks of whole hours."""

from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from slidr.errors import ConflictError
from slidr.lake import PLANS, Lake
from slidr.progress import Progress
from slidr.replay import audit, numbers, outcomes, pace
from slidr.replay.audit import Plan

Chunk = dict[str, Any]  # start and end (ISO 8601, UTC) and clicks


def _folder(plan_id: str, number: int) -> str:
    """Of a chunk, below the lake's root."""
    return f"{PLANS}/{plan_id}/rows/{number:05d}"


def _written(lake: Lake, plan_id: str, number: int) -> str | None:
    """The rows of a chunk, None where nobody has written them to their end. Each run writes into a folder of its own, so that two that
    make the same plan at once don't disturb each other; what they write is the same."""
    folder = _folder(plan_id, number)
    paths = (f"{lake.root.rstrip('/')}/{folder}/{name}" for name in sorted(lake.folders(folder)))
    return next((path for path in paths if lake.is_written(path)), None)


def chunk(lake: Lake, plan_id: str, number: int) -> DataFrame:
    """The rows of one chunk: outcomes.ROWS. Raises ConflictError where they are lost."""
    return _read(lake, plan_id, [number])


def of_chunks(lake: Lake, plan_id: str, chunks: int) -> DataFrame:
    """The rows of all chunks, one per click; otherwise as `chunk`."""
    return _read(lake, plan_id, range(chunks))


def _read(lake: Lake, plan_id: str, numbers: Iterable[int]) -> DataFrame:
    places = [_written(lake, plan_id, number) for number in numbers]
    if None in places:
        raise ConflictError(f"expected the rows of plan {plan_id}, found them lost; plan again, nothing more was published")
    return lake.spark.read.schema(outcomes.SCHEMA).parquet(*places)  # type: ignore[arg-type] # none is None


def planned(lake: Lake, plan: Plan) -> DataFrame:
    """The rows of a plan on record."""
    return of_chunks(lake, plan.plan_id, len(plan.details["chunks"]))


def write(lake: Lake, plan_id: str, chunks: list[Chunk], rows_of: Callable[[Chunk], DataFrame], *, again: bool, progress: Progress) -> None:
    """Writes the chunks; those that an earlier run of the same plan has written are left as they are, unless `again`."""
    mine, clicks = uuid4().hex, [part["clicks"] for part in chunks]
    for number in progress.chunks(lake.spark, "deciding", clicks, pace.expected(audit.read(lake), "planning", sum(clicks))):
        if again:
            lake.delete(_folder(plan_id, number))
        if _written(lake, plan_id, number) is None:
            rows_of(chunks[number]).write.parquet(f"{lake.root.rstrip('/')}/{_folder(plan_id, number)}/{mine}")


def intact(lake: Lake, plan: Plan) -> bool:
    """Whether the planned rows can be read, are those on record, and make the clicks and the money on record."""
    try:
        cells = numbers.cells(planned(lake, plan))
    except (ConflictError, PySparkException, Py4JJavaError):
        return False
    found = numbers.identity(cells), numbers.counts(cells), numbers.directions(cells)
    return found == (plan.details["rows"], plan.counts, plan.money["directions"])


def refuse_changed(lake: Lake, plan: Plan) -> None:
    """Raises ConflictError unless the rows are those on record."""
    if not intact(lake, plan):
        raise ConflictError(
            f"expected the {plan.details['rows']['count']} rows of plan {plan.plan_id} as they were planned, found them, or the "
            "plan's clicks or money on record, changed or lost; plan again, nothing more was published"
        )
