"""Chunks of traffic, each from the seed and its own number alone, written in parallel by Spark.

A chunk is a small population with its own robots: nobody is in two chunks, so what is written does not depend on cores or tasks,
and memory stays that of one chunk however large the simulation is.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from slidr.errors import UsageError
from slidr.pyworker import light
from slidr.simulator import rows
from slidr.simulator.clicks import Clicks, Orders, concat
from slidr.simulator.incidents import delay_clicks, second_copies, split_orders
from slidr.simulator.people import clicks_of_people, orders_of_people, population
from slidr.simulator.robots import clicks_of_attack, clicks_of_robots, orders_of_robots
from slidr.simulator.settings import Attack, Duplicates, LabelOutage, Simulation
from slidr.simulator.world import World
from slidr.tables import CLICKS, PURCHASES

CLICKS_PER_CHUNK = 50_000
CHUNKS_PER_TASK = 8  # each task writes one file a day: not too many small ones
DERIVED = {"click_date", "local_date", "ip_key", "purchase_date"}
CLICK_SCHEMA = T.StructType([f for f in CLICKS.schema if f.name not in DERIVED] + [T.StructField("day", T.DateType())])
ORDER_SCHEMA = T.StructType([f for f in PURCHASES.schema if f.name not in DERIVED])
KIND_SCHEMA = T.StructType().add("click_id", T.StringType()).add("is_robot", T.BooleanType()).add("kind", T.StringType())


@dataclass
class Chunk:
    clicks: Clicks
    orders: Orders
    late_orders: Orders


def chunks_of(settings: Simulation) -> int:
    return math.ceil(settings.clicks / CLICKS_PER_CHUNK)


def make_chunk(world: World, chunk: int) -> Chunk:
    """All clicks and orders of one chunk. The same for the same settings and number, wherever it is made."""
    settings, chunks = world.settings, chunks_of(world.settings)
    count = settings.clicks * (chunk + 1) // chunks - settings.clicks * chunk // chunks
    robots = round(count * settings.robot_share)
    people = population(world, chunk, chunks, count - robots)
    human, person = clicks_of_people(world, chunk, people, count - robots)
    batches = clicks_of_robots(world, chunk, chunks, people, robots)
    orders = concat([orders_of_people(world, chunk, people, human, person), orders_of_robots(world, chunk, batches)])
    attacks = [i for i in settings.incidents if isinstance(i, Attack)]
    batches += [clicks_of_attack(world, chunk, chunks, people, attack, 2 * n) for n, attack in enumerate(attacks)]
    clicks = delay_clicks(world, chunk, concat([human, *batches]))
    return Chunk(clicks.take(np.argsort(clicks.arrival, kind="stable")), *split_orders(world, chunk, orders))


def _frame(
    spark: SparkSession, settings: Simulation, tasks: int | None, schema: T.StructType, build: Callable[[World, int], pa.RecordBatch]
) -> DataFrame:
    def make(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        world = World(settings)
        for batch in batches:
            for chunk in batch.column(0).to_pylist():
                yield build(world, chunk)

    chunks = chunks_of(settings)
    enough = min(chunks, max(spark.sparkContext.defaultParallelism, chunks // CHUNKS_PER_TASK))
    return spark.range(0, chunks, 1, tasks or enough).mapInArrow(light(make), schema)


def clicks_frame(spark: SparkSession, settings: Simulation, *, tasks: int | None = None, copies: bool = False) -> DataFrame:
    """Canonical clicks with `day`, the UTC day of arrival; or only the second copies of `Duplicates` incidents."""

    def build(world: World, chunk: int) -> pa.RecordBatch:
        clicks = make_chunk(world, chunk).clicks
        return rows.click_rows(world, second_copies(world, chunk, clicks) if copies else clicks)

    return _frame(spark, settings, tasks, CLICK_SCHEMA, build)


def orders_frame(spark: SparkSession, settings: Simulation, *, tasks: int | None = None, late: bool = False) -> DataFrame:
    """Canonical purchases that arrive on time; or only those that `LabelOutage` incidents hold back."""

    def build(world: World, chunk: int) -> pa.RecordBatch:
        made = make_chunk(world, chunk)
        return rows.order_rows(world, made.late_orders if late else made.orders)

    return _frame(spark, settings, tasks, ORDER_SCHEMA, build)


def kinds_frame(spark: SparkSession, settings: Simulation, *, tasks: int | None = None) -> DataFrame:
    """Who made each click: click_id, is_robot, kind."""
    return _frame(spark, settings, tasks, KIND_SCHEMA, lambda world, chunk: rows.kind_rows(world, make_chunk(world, chunk).clicks))


def simulate(spark: SparkSession, folder: str, settings: Simulation, *, tasks: int | None = None) -> dict[str, int]:
    """Writes `clicks/day=…`, `purchases`, `purchases_late` and `truth` under the folder as Parquet; returns rows by name.

    An earlier simulation there is replaced. Orders after clicks of the last days follow up to 40 hours after the end.
    Raises UsageError where the folder holds clicks or purchases that no simulation wrote.
    """
    root = folder.rstrip("/")
    _check_folder(spark, root)
    has = {kind: any(isinstance(i, kind) for i in settings.incidents) for kind in (Duplicates, LabelOutage)}
    kinds_frame(spark, settings, tasks=tasks).write.mode("overwrite").parquet(f"{root}/truth")
    clicks_frame(spark, settings, tasks=tasks).write.mode("overwrite").partitionBy("day").parquet(f"{root}/clicks")
    orders_frame(spark, settings, tasks=tasks).write.mode("overwrite").parquet(f"{root}/purchases")
    if has[Duplicates]:
        copies = clicks_frame(spark, settings, tasks=tasks, copies=True)
        copies.write.mode("append").partitionBy("day").parquet(f"{root}/clicks")
    if has[LabelOutage]:
        orders_frame(spark, settings, tasks=tasks, late=True).write.mode("overwrite").parquet(f"{root}/purchases_late")
    else:
        _remove(spark, f"{root}/purchases_late")
    names = ["clicks", "purchases", "truth"] + ["purchases_late"] * has[LabelOutage]
    return {name: spark.read.parquet(f"{root}/{name}").count() for name in names}


def _check_folder(spark: SparkSession, root: str) -> None:
    """A simulation writes `truth` first, so a folder with clicks but without it is somebody's data."""
    found = [name for name in ("clicks", "purchases", "purchases_late") if _exists(spark, f"{root}/{name}")]
    if found and not _exists(spark, f"{root}/truth"):
        raise UsageError(f"expected an empty folder or an earlier simulation at {root}, found {', '.join(found)}; choose another folder")


def _path(spark: SparkSession, path: str) -> tuple[Any, ...]:
    hadoop = spark._jvm.org.apache.hadoop.fs.Path(path)  # type: ignore[union-attr]
    return hadoop.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()), hadoop


def _exists(spark: SparkSession, path: str) -> bool:
    system, hadoop = _path(spark, path)
    return bool(system.exists(hadoop))


def _remove(spark: SparkSession, path: str) -> None:
    system, hadoop = _path(spark, path)
    system.delete(hadoop, True)
