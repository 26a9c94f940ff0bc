"""One key family of a plan of counters: what a Python task does with the rows that it gets. Without Spark's frames."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from slidr.features import kernel
from slidr.features.cargo import (
    LOGGED_IN,
    WANTED,
    Layout,
    Records,
    coded,
    feature,
    flag,
    minute_of_week,
    moved,
    name_of,
    routed,
    taken,
    unpacked,
)
from slidr.features.spec import Counter, FeatureSpec, micros
from slidr.features.store import Store, stored
from slidr.new_files import WRITTEN, Target, Writer
from slidr.pyworker import give_back

Batches = Iterable[pa.RecordBatch]
HOUR = 2 * np.pi * np.arange(1440) / 1440
DAY_OF_WEEK = 2 * np.pi * np.arange(7) / 7
DAY = micros("24h")
EPOCH = date(1970, 1, 1)
THURSDAY = 3  # 1 January 1970; Monday = 0
ROWS_OUT = 50_000  # rows that are given on at a time: few enough for the processor's cache


@dataclass(frozen=True)
class Stage:
    """Counts `counters` of rows in `layout`; then packs them for the stage that is exchanged by the hash `next_key`, one of
    `buckets` for each of its tasks, or, in the last stage, gives the features of the wanted rows."""

    spec: FeatureSpec
    layout: Layout
    counters: tuple[Counter, ...]
    next_layout: Layout | None
    next_key: str
    buckets: tuple[int, ...]

    def run(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """Batches of a task that has all rows of its keys."""
        give_back()
        with Store() as store:
            stored(store, (unpacked(batch.column("rows"), self.layout) for batch in batches if batch.num_rows))
            give_back()  # what the rows came in: counting needs the room
            self._keep_features(store)
            for rows, (ids, records) in store.parts(at_most=ROWS_OUT):
                made = {name: store.column(name, rows) for name in self._names}
                if self.next_layout is not None:
                    yield self._onward(ids, records, made, self.next_layout)
                else:
                    yield from self._last(ids, records, made).to_batches()

    def write(self, batches: Batches, target: Target) -> Iterator[pa.RecordBatch]:
        """As `run` of the last stage, into a file for each day; the batches say which: WRITTEN."""
        with Writer(target) as writer:
            for batch in self.run(batches):
                for day, rows in _days_of(batch):
                    writer.add(rows, day)
            yield pa.RecordBatch.from_pylist([asdict(file) for file in writer.finish()], schema=WRITTEN)

    @property
    def _names(self) -> list[str]:
        return [column.name for column in FeatureSpec((), self.counters, False, False).columns]

    def _keep_features(self, store: Store) -> None:
        if store.rows == 0:
            return
        for entity in dict.fromkeys(counter.entity for counter in self.counters):
            wanted = [counter for counter in self.counters if counter.entity == entity]
            key = name_of(self.spec.key_columns(entity))
            for name, result in kernel.count(_Stored(store), key, wanted, then=self.layout.arrival):
                store.keep(name, coded(result))
                del result  # not to be held while the next one is made

    def _onward(self, ids: pa.Array, records: Records, made: Mapping[str, NDArray[Any]], layout: Layout) -> pa.RecordBatch:
        packing = moved(records, layout)
        for name, column in made.items():
            packing[name] = column
        return routed(ids, packing, self.next_key, self.buckets)

    def _last(self, ids: pa.Array, records: Records, made: Mapping[str, NDArray[Any]]) -> pa.Table:
        """Rows of the features table, less what is the same for all or follows from the time."""
        rows = _wanted_by_day(records)
        ids, records = ids.take(pa.array(rows)), taken(records, rows)
        made = {**{name: column[rows] for name, column in made.items()}, **_time_of_click(records)}
        arrays = {"click_id": ids, "click_time": pa.array(records["time"], pa.timestamp("us", tz="UTC"))}
        for column in self.spec.columns:
            arrays[column.name] = feature(column, made[column.name] if column.name in made else records[column.name])
        return pa.table(arrays)


@dataclass(frozen=True)
class _Stored:
    """Clicks for the kernel, from a store."""

    store: Store

    def code(self, name: str) -> NDArray[np.int64]:
        return self.store.field(f"hash_{name}")

    def check(self, name: str) -> NDArray[np.int32]:
        return self.store.field(f"check_{name}")

    def time(self) -> NDArray[np.int64]:
        return self.store.field("time")

    def arrival(self) -> NDArray[np.int64]:
        return self.store.field("arrival")


def _days_of(batch: pa.RecordBatch) -> Iterator[tuple[date, pa.Table]]:
    """The rows of each day; they come day by day."""
    days = batch.column("click_time").cast(pa.int64()).to_numpy() // DAY
    starts = np.flatnonzero(np.diff(days, prepend=days[:1] - 1))
    for start, end in zip(starts, [*starts[1:], len(days)], strict=True):
        yield EPOCH + timedelta(days=int(days[start])), pa.Table.from_batches([batch.slice(start, end - start)])


def _wanted_by_day(records: Records) -> NDArray[np.int64]:
    """Numbers of the wanted records, day by day: the writer sorts by day, and sorting what is in order costs it little."""
    wanted = np.flatnonzero(flag(records, WANTED))
    day = records["time"][wanted] // DAY
    if len(day) == 0:
        return wanted
    numbers = (day - day.min()).astype(np.min_scalar_type(int(np.ptp(day))))  # numpy sorts small numbers by counting
    return wanted[np.argsort(numbers, kind="stable")]


def _time_of_click(records: Records) -> dict[str, NDArray[Any]]:
    minute = minute_of_week(records)
    hour, day = HOUR[minute % 1440], DAY_OF_WEEK[(minute // 1440 + THURSDAY) % 7]
    return {
        "hour_sin": np.sin(hour),
        "hour_cos": np.cos(hour),
        "weekday_sin": np.sin(day),
        "weekday_cos": np.cos(day),
        "logged_in": flag(records, LOGGED_IN),
    }
