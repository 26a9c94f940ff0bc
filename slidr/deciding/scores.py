"""Scores of stored features, by the names of their files: of each row its id and what was found cross from Python to Spark, and none of
its features does."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from slidr.buckets import numbered
from slidr.bundle import Bundle
from slidr.data_files import Files
from slidr.deciding.tasks import Window, inside, score_schema, scored
from slidr.pyworker import give_back, light


def of_window(spark: SparkSession, features: Files, bundle: Bundle, window: Window, only: pa.Array | None = None) -> DataFrame:
    """Scores of the clicks of [from, to), columns `score_schema`, one row per click: of what a live system logged, else of the rest.

    With `only`, a few ids, of these clicks alone.
    """
    logged = tuple(file for file in features.files if "logged" in file.values)
    rest = _found(spark, _Reading(replace(features, files=tuple(f for f in features.files if f not in logged)), bundle, window, only))
    if not logged:
        return rest
    first = _found(spark, _Reading(replace(features, files=logged), bundle, window, only))
    return first.unionByName(rest.join(first.select("click_id"), on="click_id", how="left_anti"))


@dataclass(frozen=True)
class _Reading:
    """What each task knows; travels once per process."""

    features: Files
    bundle: Bundle
    window: Window
    only: pa.Array | None

    def run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        give_back()
        for batch in batches:
            for number in batch.column("number").to_pylist():
                columns: Sequence[str] = ["click_id", *self.bundle.features]
                for rows in self.features.batches(self.features.files[number], columns, self._where):
                    yield scored(rows, self.bundle)

    @property
    def _where(self) -> ds.Expression:
        where = inside(self.window)
        return where if self.only is None else where & ds.field("click_id").isin(self.only)


def _found(spark: SparkSession, reading: _Reading) -> DataFrame:
    result = from_arrow_schema(score_schema(reading.bundle))
    if not reading.features.files:
        return spark.createDataFrame([], result)
    shared = spark.sparkContext.broadcast(reading)
    return numbered(spark, len(reading.features.files)).mapInArrow(light(lambda batches: shared.value.run(batches)), result)
