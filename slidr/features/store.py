"""The rows of one task: in memory while they are few, else in files of the task's own.

Columns are then read one at a time, so that a task with one giant key holds some columns of it, never its rows.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from slidr.features.cargo import Records

IN_MEMORY = 160 << 20  # bytes
Part = tuple[pa.Array, Records]


class Store:
    """Parts of rows (click ids and records), and columns made of them, in the order in which they came."""

    def __init__(self) -> None:
        self.rows = 0
        self._bytes = 0
        self._parts: list[Part] = []
        self._sizes: list[int] = []
        self._columns: dict[str, NDArray[Any]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._folder:
            self._folder.cleanup()

    def add(self, ids: pa.Array, records: Records) -> None:
        self.rows += len(records)
        self._bytes += ids.nbytes + records.nbytes
        self._sizes.append(len(records))
        if self._folder is None and self._bytes > IN_MEMORY:
            # Spark's own folder, where there is one: it goes with the application, even if this process is killed.
            local = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")[0] or None
            self._folder = tempfile.TemporaryDirectory(prefix="slidr-", dir=local)
            for number, part in enumerate(self._parts):
                self._write(number, part)
            self._parts = []
        if self._folder is None:
            self._parts.append((ids, records))
        else:
            self._write(len(self._sizes) - 1, (ids, records))

    def parts(self, at_most: int | None = None) -> Iterator[tuple[slice, Part]]:
        """Each part with the rows that it holds, cut into pieces of `at_most` rows."""
        first = 0
        for number, size in enumerate(self._sizes):
            ids, records = self._parts[number] if self._folder is None else self._read(number)
            step = at_most or max(size, 1)
            for start in range(0, size, step):
                piece = slice(start, min(start + step, size))
                yield slice(first + piece.start, first + piece.stop), (ids[piece], records[piece])
            first += size

    def field(self, name: str) -> NDArray[Any]:
        """One field of all records."""
        result: NDArray[Any] | None = None
        for rows, (_, records) in self.parts():
            if result is None:
                result = np.empty(self.rows, dtype=records.dtype[name])
            result[rows] = records[name]
        return np.empty(0) if result is None else result

    def keep(self, name: str, column: NDArray[Any]) -> None:
        """Keeps a column of all rows."""
        if self._folder is None:
            self._columns[name] = column
        else:
            column.tofile(self._path(f"column-{name}"))
            self._columns[name] = np.empty(0, dtype=column.dtype)

    def column(self, name: str, rows: slice) -> NDArray[Any]:
        """These rows of a column that was kept."""
        kept = self._columns[name]
        if self._folder is None:
            return kept[rows]
        return np.fromfile(
            self._path(f"column-{name}"), dtype=kept.dtype, count=rows.stop - rows.start, offset=rows.start * kept.dtype.itemsize
        )

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / name

    def _write(self, number: int, part: Part) -> None:
        ids, records = part
        with pa.OSFile(str(self._path(f"ids-{number}")), "wb") as file:
            table = pa.table({"click_id": ids})
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        np.save(self._path(f"records-{number}.npy"), records, allow_pickle=False)

    def _read(self, number: int) -> Part:
        with pa.OSFile(str(self._path(f"ids-{number}")), "rb") as file:
            ids = pa.ipc.open_file(file).read_all().column("click_id").combine_chunks()
        return ids, np.load(self._path(f"records-{number}.npy"), allow_pickle=False)


def stored(store: Store, parts: Iterable[Part]) -> Store:
    for ids, records in parts:
        store.add(ids, records)
    return store
