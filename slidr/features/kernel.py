"""Windowed counters on arrays, free of Spark, so that a live service can call the same code.

All clicks of a key must be in the arrays. Times are integer microseconds. A window of length w of a click at t is
[t - w, t): a click exactly w earlier counts, clicks of the same microsecond do not count each other.

Method: sort once by (key, time) and lay the keys one after the other on a single integer axis, far enough apart that no
window reaches the key before. Every window is then a pair of positions on that axis, found by binary search, and a
distinct count is a sum of intervals: cost is linear in the clicks after the sort, whatever the size of one key. Features
are made one at a time; memory is about 50 bytes a click beside the arrays given.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slidr.features.late import Late, Pairs
from slidr.features.spec import SECOND, Counter, column_name, micros

Ints = NDArray[np.int64]
Positions = NDArray[np.int32]
Bools = NDArray[np.bool_]
AXIS_LIMIT = 2**62
CHUNK = 1 << 20  # rows of which whole-array operations are made at a time, where they need 64-bit temporaries


COLLISION = "two different values of {name} have the same 64-bit hash; nothing was written; report this with the input"


@dataclass(frozen=True)
class Values:
    """A key or a value of each row as an integer code, a hash; `check` is another hash of it, 0 where it is NULL."""

    name: str
    code: Ints
    check: NDArray[np.int32]

    @property
    def known(self) -> Bools:
        return self.check != 0

    def numbered(self, rows: NDArray[Any]) -> tuple[Ints, int]:
        """Small numbers instead of the codes of these rows, and how many there are. Raises ValueError where codes collide."""
        number, codes = pd.factorize(self.code[rows])
        check = self.check[rows]
        expected = np.empty(len(codes), dtype=np.int32)
        expected[number] = check
        if not np.array_equal(expected[number], check):
            raise ValueError(COLLISION.format(name=self.name))
        return number, len(codes)


@dataclass(frozen=True)
class Result:
    """One feature of all rows: int32 counts or float64 seconds, and a mask of the rows where it is not NULL."""

    value: NDArray[Any]
    known: Bools


@dataclass(frozen=True)
class _Line:
    """Clicks of some whole keys in the order of (key, time), one after the other on a single axis.

    By position: `row` is the input row; `axis` its place; `end` the first position of the same instant; `after` the first
    position of a later instant; `gap` is what `axis` advanced since the instant before. `late` knows arrivals, if asked for.
    """

    row: Positions
    axis: Ints
    end: Positions
    after: Positions
    late: Late | None

    def start(self, window: int) -> Positions:
        """First position whose click is at most `window` microseconds before the click of each position."""
        start = self.end.copy()
        for part in _chunks(len(start)):
            axis, end = self.axis[part], self.end[part]
            # Where the instant before is out of the window, nothing is in it: no search.
            near = np.flatnonzero(axis - self.axis[np.maximum(end, 1) - 1] <= window)
            start[part][near] = np.searchsorted(self.axis, axis[near] - window, side="left")
        return start

    def leaving(self, start: Positions) -> Positions:
        """For each position the first one whose window, beginning at `start`, no longer holds it."""
        return np.cumsum(np.bincount(start, minlength=len(start)), dtype=np.int32)


def count(
    key: Values, time: Ints, counters: Sequence[Counter], distinct: Mapping[str, Values], arrival: Ints | None = None
) -> Iterator[tuple[str, Result]]:
    """(name, feature) of one entity, one after the other; rows are in the order of the input.

    `distinct` holds the codes of every column that a counter counts distinct values of. With `arrival`, a click
    counts only what had arrived by its own arrival (`then`); without, everything (`now`).
    """
    longest = max(micros(w) for c in counters for w in c.windows)
    known = key.known
    lines = list(_lines(key, time, longest, arrival))
    del key, time, arrival
    for counter in counters:
        values = distinct[counter.distinct] if counter.distinct else None
        makers = [_maker(line, counter, values) for line in lines]
        for window in counter.windows:
            result = _empty(counter, known)
            for line, maker in zip(lines, makers, strict=True):
                maker.into(result, line, micros(window))
            yield column_name(counter.entity, counter.measure, window), result


def _empty(counter: Counter, known: Bools) -> Result:
    if counter.measure == "since_prev":
        return Result(np.zeros(len(known)), np.zeros(len(known), dtype=bool))
    return Result(np.zeros(len(known), dtype=np.int32), known)


def _lines(key: Values, time: Ints, longest: int, arrival: Ints | None) -> Iterator[_Line]:
    rows = np.flatnonzero(key.known).astype(np.int32)
    if len(rows) == 0:
        return
    code, keys = key.numbered(rows)
    start = int(time[rows].min())
    reach = int(time[rows].max()) - start + longest + 1
    # The axis must fit an int64: many keys over a long span go in several lines of keys.
    keys_per_line = max(1, AXIS_LIMIT // reach)
    for first in range(0, keys, keys_per_line):
        if keys > keys_per_line:
            part = np.flatnonzero((code >= first) & (code < first + keys_per_line))
            yield _line(rows[part], code[part] - first, time, start, reach, arrival)
        else:
            yield _line(rows, code, time, start, reach, arrival)


def _line(rows: Positions, code: Ints, time: Ints, start: int, reach: int, arrival: Ints | None) -> _Line:
    tau = code * reach
    tau += time[rows]
    tau -= start
    order = np.argsort(tau).astype(np.int32)
    axis, row = tau[order], rows[order]
    del tau
    positions = np.arange(len(axis), dtype=np.int32)
    is_new = np.ones(len(axis), dtype=bool)
    is_new[1:] = axis[1:] != axis[:-1]
    end = np.maximum.accumulate(np.where(is_new, positions, np.int32(0)))
    following = np.full(len(axis), len(axis), dtype=np.int32)
    following[:-1][is_new[1:]] = positions[1:][is_new[1:]]
    after = np.minimum.accumulate(following[::-1])[::-1]
    late = None if arrival is None else Late.of(code[order], arrival[row])
    return _Line(row, axis, end, after, late)


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(first, min(first + CHUNK, rows)) for first in range(0, rows, CHUNK))


def _maker(line: _Line, counter: Counter, values: Values | None) -> "_Clicks | _SincePrevious | _Distinct":
    if counter.measure == "since_prev":
        return _SincePrevious()
    return _Clicks.of(line) if values is None else _Distinct.of(line, values)


@dataclass(frozen=True)
class _Clicks:
    """Earlier clicks in the window, less those that had not arrived."""

    missing: NDArray[Any] | None  # earlier clicks of any age that had not arrived

    @classmethod
    def of(cls, line: _Line) -> "_Clicks":
        return cls(line.late.missing([(line.after, line.late.rank, 1)]) if line.late else None)

    def into(self, result: Result, line: _Line, window: int) -> None:
        start = line.start(window)
        value = line.end - start
        if line.late is not None and self.missing is not None:
            value -= self.missing
            value += line.late.missing([(line.leaving(start), line.late.rank, 1)])
        result.value[line.row] = value


@dataclass(frozen=True)
class _SincePrevious:
    """Seconds since the latest earlier click within the window."""

    def into(self, result: Result, line: _Line, window: int) -> None:
        previous = line.end - 1
        if line.late is not None:
            previous = line.late.latest_arrived(line.end)
        gap = line.axis - line.axis[np.maximum(previous, 0)]
        found = (previous >= 0) & (gap <= window)
        result.known[line.row] = found
        result.value[line.row] = np.where(found, gap / SECOND, 0.0)


@dataclass(frozen=True)
class _Distinct:
    """Distinct known values among the earlier clicks in the window.

    A click stands for its value in exactly the windows that hold it and end before the value occurs again: a run of
    consecutive windows, from `first` to `again`, or to where the click leaves the window. In other words, values are the
    clicks less the pairs of clicks that follow each other with the same value; that form also serves arrivals, where
    pairs differ by what had arrived.
    """

    position: Positions
    first: Positions
    again: Positions
    pairs: Pairs | None
    missing: NDArray[Any] | None  # of windows of any length

    @classmethod
    def of(cls, line: _Line, values: Values) -> "_Distinct":
        position, same = _occurrences(line, values)
        first = line.after[position]
        again = np.full(len(position), len(line.axis), dtype=np.int32)
        again[:-1][same] = first[1:][same]
        if line.late is None or len(position) == 0:
            return cls(position, first, again, None, None)
        rank = line.late.rank[position]
        pairs = Pairs.of(same, rank)
        seen, parted = _pair_events(pairs, first[pairs.later], pairs.parts)
        return cls(position, first, again, pairs, line.late.missing([(first, rank, 1), (*seen, -1), (*parted, 1)]))

    def into(self, result: Result, line: _Line, window: int) -> None:
        leaving = line.leaving(line.start(window))[self.position]
        gone = np.maximum(np.minimum(self.again, leaving), self.first)
        rows = len(line.axis) + 1
        steps = np.bincount(self.first, minlength=rows) - np.bincount(gone, minlength=rows)
        value = np.cumsum(steps, dtype=np.int32)[:-1]
        if line.late is not None and self.pairs is not None and self.missing is not None:
            value -= self.missing
            gone = np.maximum(leaving[self.pairs.earlier], self.first[self.pairs.later])
            seen, parted = _pair_events(self.pairs, gone, self.pairs.parts)
            value += line.late.missing([(leaving, line.late.rank[self.position], 1), (*seen, -1), (*parted, 1)])
        result.value[line.row] = value


def _pair_events(pairs: Pairs, at: Positions, parts: Bools) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(positions, ranks) of the pairs as they are seen, and of those that something parts."""
    return (at, pairs.seen), (at[parts], pairs.parted[parts])


def _occurrences(line: _Line, values: Values) -> tuple[Positions, Bools]:
    """Positions of known values, by value and position; and whether each has the value of the next.

    Occurrences in different keys may follow each other: no window holds both.
    """
    known = values.known[line.row]
    position = np.flatnonzero(known)
    code = values.numbered(line.row[position])[0]
    bits = len(line.axis).bit_length()
    mixed = (code << bits) | position
    mixed.sort()
    position = (mixed & ((1 << bits) - 1)).astype(np.int32)
    return position, (mixed[1:] >> bits) == (mixed[:-1] >> bits)
