"""Where Spark sends what tasks hand on: numbers that its exchange spreads as wanted."""

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

TASKS_OF_A_CORE = 3


def one_for_each(tasks: int) -> tuple[int, ...]:
    """Numbers of which Spark's hash exchange sends one to each task: each number's hash (murmur3, seed 42) modulo `tasks`
    is another task."""
    numbers = np.arange(40 * tasks + 100, dtype=np.uint32)
    _, first = np.unique(_murmur3(numbers).astype(np.int32).astype(np.int64) % tasks, return_index=True)
    return tuple(int(number) for number in numbers[first])


def _murmur3(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Spark's hash of an int (MurmurHash3 x86 32 of four bytes, seed 42)."""
    mixed = _rotated(numbers * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
    mixed = _rotated(mixed ^ np.uint32(42), 13) * np.uint32(5) + np.uint32(0xE6546B64)
    mixed ^= np.uint32(4)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    return mixed ^ (mixed >> np.uint32(16))


def _rotated(numbers: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    return (numbers << np.uint32(bits)) | (numbers >> np.uint32(32 - bits))


def numbered(spark: SparkSession, files: int) -> DataFrame:
    """The numbers of files (column `number`), spread over tasks."""
    if not files:
        return spark.createDataFrame([], "bucket int, number int")
    tasks = one_for_each(min(files, TASKS_OF_A_CORE * spark.sparkContext.defaultParallelism))
    numbers = [(tasks[number % len(tasks)], number) for number in range(files)]
    return spark.createDataFrame(numbers, "bucket int, number int").repartition(len(tasks), "bucket")
