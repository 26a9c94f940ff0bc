"""Rows on their way between key families: a click id, and everything else packed into one fixed number of bytes.

What crosses between Spark and Python, and what Spark exchanges, costs by the row and by the column. So the tasks of one
family sort their rows by where they go, and Spark exchanges some large values: all rows that go the same way, as bytes.
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
LOGGED_IN, WANTED = 0, 1  # bits of `moment`; wanted: asked for, not only looked back at
FLAGS = 2  # bits of `moment` below the minute
MINUTES = 7 * 1440  # of a week
NULL_COUNT = -1  # int features; double features have NaN
MIXER = np.int64(-7046029254386353131)  # 2^64 / golden ratio: every bit of a product's upper half depends on all lower ones


def name_of(columns: Sequence[str]) -> str:
    """Name of the hash of some columns of `clicks`."""
    return "_".join(columns)


@dataclass(frozen=True)
class Layout:
    """Fields of a record: times, features made so far, of each key or value a 64-bit hash and a 31-bit check, and `moment`.

    The check is another hash of the same columns, 0 where one of them is NULL. `moment` is the minute of the local week,
    whose first day is a Thursday as 1 January 1970 was, with the flags in its lowest bits: each column that crosses to
    Python costs as much as some counters.
    """

    hashes: tuple[tuple[str, tuple[str, ...]], ...]  # name, columns
    features: tuple[tuple[str, str], ...]  # name, Spark type
    arrival: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.dtype.fields or ())

    @property
    def dtype(self) -> np.dtype[Any]:
        times = ["time", "arrival"] if self.arrival else ["time"]
        fields = [(name, "<i8") for name in times] + [(f"hash_{name}", "<i8") for name, _ in self.hashes]
        fields += [(name, "<f8" if kind == "double" else "<i4") for name, kind in self.features]
        fields += [(f"check_{name}", "<i4") for name, _ in self.hashes] + [("moment", "<i4")]
        return np.dtype(fields)


def routed(ids: pa.Array, records: Records, key: str, buckets: Sequence[int]) -> pa.RecordBatch:
    """`packed` rows of the same key for the same bucket; rows without the key are nobody's, all rows where it is '': they spread by their
    time, whose lowest bits may all be alike (a log of milliseconds). A task that runs again sends each row where it was sent before."""
    time = records["time"] * MIXER >> 32
    by = np.where(records[f"check_{key}"] != 0, records[f"hash_{key}"], time) if key else time
    return packed(ids, records, by % len(buckets), buckets)


def packed(ids: pa.Array, records: Records, shares: NDArray[np.int64], buckets: Sequence[int]) -> pa.RecordBatch:
    """`bucket`, `rows`: one row for each share that has any rows, with all of them as bytes; `shares` are indexes of `buckets`."""
    order = np.argsort(shares.astype(np.min_scalar_type(len(buckets))), kind="stable")  # numpy sorts small numbers by counting
    ids, rows = ids.take(pa.array(order)), taken(records, order)
    ends = np.cumsum(np.bincount(shares, minlength=len(buckets)))
    filled = [(bucket, first, end) for bucket, first, end in zip(buckets, [0, *ends[:-1]], ends, strict=True) if end > first]
    cargo = pa.FixedSizeBinaryArray.from_buffers(pa.binary(records.dtype.itemsize), len(records), [None, pa.py_buffer(rows)])
    whole = pa.RecordBatch.from_arrays([ids, cargo], names=["click_id", "cargo"])
    parts = [whole.slice(first, end - first).serialize().to_pybytes() for _, first, end in filled]
    return pa.RecordBatch.from_arrays(
        [pa.array([bucket for bucket, _, _ in filled], pa.int32()), pa.array(parts, pa.binary())], names=["bucket", "rows"]
    )


def taken(records: Records, rows: NDArray[np.integer[Any]]) -> Records:
    """Some records, in order; moved as rows of plain numbers, since numpy moves records field by field."""
    plain = np.ascontiguousarray(records).view(np.int32).reshape(len(records), -1)
    found: Records = plain[rows].view(records.dtype).reshape(-1)
    return found


def unpacked(rows: pa.BinaryArray, layout: Layout) -> tuple[pa.Array, Records]:
    """Click ids and records of the rows that `packed` made."""
    schema = pa.schema([("click_id", pa.string()), ("cargo", pa.binary(layout.dtype.itemsize))])
    batches = [pa.ipc.read_record_batch(value.as_buffer(), schema) for value in rows]
    size = layout.dtype.itemsize
    records = [np.frombuffer(batch.column(1).buffers()[1], dtype=np.uint8, count=batch.num_rows * size) for batch in batches]
    return pa.concat_arrays([batch.column(0) for batch in batches]), np.concatenate(records).view(layout.dtype)


def moved(records: Records, layout: Layout) -> Records:
    """The records in another layout; fields that they lack are left for the caller to fill."""
    result = np.empty(len(records), dtype=layout.dtype)
    for name in set(layout.names) & set(records.dtype.fields or ()):
        result[name] = records[name]
    return result


def flag(records: Records, bit: int) -> NDArray[np.int32]:
    """One flag of each record, 0 or 1."""
    return (records["moment"] >> bit) & 1


def minute_of_week(records: Records) -> NDArray[np.int32]:
    return records["moment"] >> FLAGS


def coded(result: Result) -> NDArray[Any]:
    """One column of a feature, NULLs as NULL_COUNT or NaN."""
    return np.where(result.known, result.value, np.nan if result.value.dtype == np.float64 else np.int32(NULL_COUNT))


def feature(column: FeatureColumn, value: NDArray[Any]) -> pa.Array:
    """An Arrow array of a stored feature, with its NULLs."""
    missing = np.isnan(value) if column.type == "double" else value == NULL_COUNT
    return pa.array(value, type=pa.float64() if column.type == "double" else pa.int32(), mask=missing if missing.any() else None)
