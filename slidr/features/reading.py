"""How clicks come to the counters: tasks read them by the names of their files and cut them to records. Without Spark's frames."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb import ColumnExpression, ConstantExpression, Expression, FunctionExpression
from numpy.typing import NDArray

from slidr.data_files import Files
from slidr.errors import InputError
from slidr.features.cargo import FLAGS, LOGGED_IN, MINUTES, WANTED, Layout, Records, name_of, routed
from slidr.features.spec import micros
from slidr.pyworker import give_back
from slidr.zones import wall_clock

MINUTE = micros("1m")
ROWS_AT_A_TIME = 262_144  # many, since what goes to each task of the next step costs some hundred bytes beside its rows


@dataclass(frozen=True)
class Reading:
    """The clicks of `clicks`, of which those of the days [first, last) of `wanted` get features, to `buckets` by the columns `exchange`.
    Without zones, the minute of the week is 0."""

    clicks: Files
    layout: Layout
    exchange: tuple[str, ...]
    wanted: tuple[date, date]
    zones: Mapping[str, str] | None
    buckets: tuple[int, ...]

    def run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows of the files with these numbers (column `number`): `cargo.packed`."""
        give_back()
        with closing(duckdb.connect(config={"threads": 1})) as hasher:
            for number in (number for batch in batches for number in batch.column("number").to_pylist()):
                file = self.clicks.files[number]
                wanted = self.wanted[0] <= file.values[0] < self.wanted[1]
                for rows in self.clicks.batches(file, self._columns, at_a_time=ROWS_AT_A_TIME):
                    yield routed(rows.column("click_id"), self._records(rows, wanted, hasher), name_of(self.exchange), self.buckets)

    @property
    def _columns(self) -> list[str]:
        keys = [column for _, columns in self.layout.hashes for column in columns]
        times = ["click_time", "arrival_time"] if self.layout.arrival else ["click_time"]
        return list(dict.fromkeys(["click_id", *times, "logged_in", *(["marketplace"] if self.zones else []), *keys]))

    def _records(self, rows: pa.RecordBatch, wanted: bool, hasher: duckdb.DuckDBPyConnection) -> Records:
        records = np.empty(rows.num_rows, dtype=self.layout.dtype)
        time = records["time"] = _micros(rows.column("click_time"))
        if self.layout.arrival:
            records["arrival"] = _micros(rows.column("arrival_time"))
        flags = pc.cast(rows.column("logged_in"), pa.int8()).to_numpy() << LOGGED_IN | int(wanted) << WANTED
        records["moment"] = flags if self.zones is None else _minute_of_week(time, rows.column("marketplace"), self.zones) << FLAGS | flags
        for name, values in _hashed(rows, self.layout.hashes, hasher).items():
            records[name] = values
        return records


def _micros(times: pa.Array) -> NDArray[np.int64]:
    result: NDArray[np.int64] = times.cast(pa.int64()).to_numpy()
    return result


def _minute_of_week(time: NDArray[np.int64], marketplaces: pa.Array, zones: Mapping[str, str]) -> NDArray[np.int32]:
    """Minute of the local week. Raises InputError for a marketplace without a zone."""
    coded = marketplaces.dictionary_encode()
    local, codes = np.empty_like(time), coded.indices.to_numpy()
    for code, marketplace in enumerate(coded.dictionary.to_pylist()):
        if marketplace not in zones:
            raise InputError(f"expected a zone for marketplace {marketplace}, found {', '.join(sorted(zones))}; add it to `marketplaces`")
        here = codes == code
        local[here] = wall_clock(time[here], zones[marketplace])
    return (local // MINUTE % MINUTES).astype(np.int32)


def _hashed(
    rows: pa.RecordBatch, hashes: Sequence[tuple[str, tuple[str, ...]]], hasher: duckdb.DuckDBPyConnection
) -> dict[str, NDArray[np.integer[Any]]]:
    """Of each key `hash_NAME`, 64 bits, and `check_NAME`, 31 bits of the hash of other text; both 0 where a column of the key is NULL."""
    wanted = [make(columns) for _, columns in hashes for make in (_hash, _check)]
    if not wanted:
        return {}
    found = hasher.from_arrow(pa.Table.from_batches([rows])).select(*wanted).to_arrow_table()
    result: dict[str, NDArray[np.integer[Any]]] = {}
    for place, (name, columns) in enumerate(hashes):
        code, check = (found.column(2 * place + n).to_numpy().view(np.int64) for n in range(2))
        known = _known(rows, columns)
        result[f"hash_{name}"] = np.where(known, code, 0)
        result[f"check_{name}"] = np.where(known, (check & 0x7FFFFFFF | 1).astype(np.int32), np.int32(0))
    return result


def _hash(columns: Sequence[str]) -> Expression:
    return FunctionExpression("hash", *map(ColumnExpression, columns))


def _check(columns: Sequence[str]) -> Expression:
    return FunctionExpression("hash", *[FunctionExpression("||", ConstantExpression("x"), ColumnExpression(name)) for name in columns])


def _known(rows: pa.RecordBatch, columns: Sequence[str]) -> NDArray[np.bool_] | bool:
    masks = [rows.column(name).is_valid().to_numpy(zero_copy_only=False) for name in columns if rows.column(name).null_count]
    return np.logical_and.reduce(masks) if masks else True
