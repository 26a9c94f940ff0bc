"""Rows on their way between key families: a click id, and everything else packed into one fixed number of bytes.

What crosses between Spark and Python, and what Spark exchanges, costs by the column; so a row has three columns whatever
it carries: `click_id`, the hash that it is exchanged by, and the `cargo`, one record of a numpy structured type.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from slidr.features.kernel import Result
from slidr.features.spec import FeatureColumn

Records = NDArray[np.void]
# The parts of `flags`: local minute of the day, local weekday, logged in, wanted (asked for, not only looked back at).
MINUTE, WEEKDAY, LOGGED_IN, WANTED = (0, 11), (11, 3), (14, 1), (15, 1)
NULL_COUNT = -1  # int features; double features have NaN


def name_of(columns: Sequence[str]) -> str:
    """Name of the hash of some columns of `clicks`."""
    return "_".join(columns)


@dataclass(frozen=True)
class Layout:
    """Fields of a record: times, flags, a 64-bit hash and a 31-bit check of each key or value, features made so far.

    The check is another hash of the same columns, 0 where one of them is NULL.
    """

    hashes: tuple[tuple[str, tuple[str, ...]], ...]  # name, columns
    features: tuple[tuple[str, str], ...]  # name, Spark type
    arrival: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.dtype.fields or ())

    @property
    def dtype(self) -> np.dtype:
        times = ["time", "arrival"] if self.arrival else ["time"]
        fields = [(name, "<i8") for name in times] + [(f"hash_{name}", "<i8") for name, _ in self.hashes]
        fields += [(name, "<f8" if kind == "double" else "<i4") for name, kind in self.features]
        fields += [(f"check_{name}", "<i4") for name, _ in self.hashes] + [("flags", "<i4")]
        return np.dtype(fields)


def from_columns(batch: pa.RecordBatch, layout: Layout) -> Records:
    """Records of a batch that has one integer column for each field."""
    records = np.empty(batch.num_rows, dtype=layout.dtype)
    for name in layout.names:
        records[name] = batch.column(name).to_numpy()
    return records


def unpacked(cargo: pa.BinaryArray, layout: Layout) -> Records:
    """Records of a `cargo` column, without a copy."""
    offsets = np.frombuffer(cargo.buffers()[1], dtype=np.int32)[cargo.offset : cargo.offset + 2]
    start = int(offsets[0]) if len(cargo) else 0
    return np.frombuffer(cargo.buffers()[2], dtype=layout.dtype, count=len(cargo), offset=start)


def packed(records: Records) -> pa.BinaryArray:
    """A `cargo` column, without a copy."""
    offsets = np.arange(len(records) + 1, dtype=np.int32) * np.int32(records.dtype.itemsize)
    data = np.ascontiguousarray(records)
    return pa.BinaryArray.from_buffers(pa.binary(), len(records), [None, pa.py_buffer(offsets), pa.py_buffer(data.view(np.uint8))])


def moved(records: Records, layout: Layout) -> Records:
    """The records in another layout; fields that they lack are left for the caller to fill."""
    result = np.empty(len(records), dtype=layout.dtype)
    for name in set(layout.names) & set(records.dtype.fields or ()):
        result[name] = records[name]
    return result


def flag(flags: NDArray[np.int32], part: tuple[int, int]) -> NDArray[np.int32]:
    """One part of `flags`."""
    shift, bits = part
    return (flags >> shift) & ((1 << bits) - 1)


def coded(result: Result) -> NDArray[Any]:
    """One column of a feature, NULLs as NULL_COUNT or NaN."""
    return np.where(result.known, result.value, np.nan if result.value.dtype == np.float64 else np.int32(NULL_COUNT))


def feature(column: FeatureColumn, value: NDArray[Any]) -> pa.Array:
    """An Arrow array of a stored feature, with its NULLs."""
    if column.type == "double":
        return pa.array(value, type=pa.float64(), mask=np.isnan(value))
    return pa.array(value, type=pa.int32(), mask=value == NULL_COUNT)
