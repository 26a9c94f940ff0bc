"""Hashes of rows, as Spark columns."""

from pyspark.sql import Column
from pyspark.sql import functions as F


def row_hash(*columns: Column) -> Column:
    """64-bit hash of typed values; which of them are NULL is hashed too, since xxhash64 skips NULLs."""
    return F.xxhash64(*columns, *[column.isNull() for column in columns])
