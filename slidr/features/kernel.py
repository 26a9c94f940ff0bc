"""Windowed counters on arrays, free of Spark, so that a live service can call the same code.

All clicks of a key must be in the arrays. Times are integer microseconds. A window of length w of a click at t is
[t - w, t): a click exactly w earlier counts, clicks of the same microsecond do not count each other.

Method: sort once by (key, time) and lay the keys one after the other on a single integer axis, far enough apart that no
window reaches the key before. Every window is then a pair of positions on that axis, found by binary search, and a
distinct count is a sum of intervals: cost is linear in the clicks after the sort, whatever the size of one key. Features
are made one at a time; memory is about 50 bytes a click beside the arrays given.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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

    def numbered(self) -> tuple[Ints, int]:
        """Small numbers instead of the codes, and how many there are. Raises ValueError where codes collide."""
        number, codes = pd.factorize(self.code)
        expected = np.empty(len(codes), dtype=np.int32)
        expected[number] = self.check
        if not np.array_equal(expected[number], self.check):
            raise ValueError(COLLISION.format(name=self.name))
        return number, len(codes)

    def of(self, rows: NDArray[Any]) -> "Values":
        return Values(self.name, self.code[rows], self.check[rows])


class Clicks(Protocol):
    """Where the kernel reads the clicks; a column at a time, since all of a giant key would not fit the memory."""

    def values(self, name: str) -> Values:
        """The key or the values of that name."""

    def time(self) -> Ints:
        """Click times in microseconds."""

    def arrival(self) -> Ints:
        """Arrival times in microseconds."""


@dataclass(frozen=True)
class Result:
    """One feature of all rows: int32 counts or float64 seconds, and a mask of the rows where it is not NULL."""

    value: NDArray[Any]
    known: Bools


@dataclass(frozen=True)
class _Line:
    """Clicks of some whole keys in the order of (key, time), one after the other on a single axis.

    By position: `row` is the input row; `axis` its place; `end` the first position of the same instant. `late` knows
    arrivals, if asked for.
    """

    row: Positions
    axis: Ints
    end: Positions
    late: Late | None

    def after(self) -> Positions:
        """For each position the first one of a later instant."""
        following = np.full(len(self.end), len(self.end), dtype=np.int32)
        following[:-1][self.end[1:] > self.end[:-1]] = self.end[1:][self.end[1:] > self.end[:-1]]
        return np.minimum.accumulate(following[::-1])[::-1]

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
        return np.cumsum(_counted(start, len(start)), dtype=np.int32)


def _counted(positions: Positions, rows: int) -> NDArray[np.int32]:
    """How often each of `rows` positions occurs."""
    counts = np.zeros(rows, dtype=np.int32)
    for part in _chunks(len(positions)):
        low = int(positions[part].min())
        found = np.bincount(positions[part] - low)
        counts[low : low + len(found)] += found.astype(np.int32)
    return counts


def count(clicks: Clicks, key: str, counters: Sequence[Counter], *, then: bool) -> Iterator[tuple[str, Result]]:
    """(name, feature) of the entity whose key is called `key`, one after the other; rows are in the order of the input.

    With `then`, a click counts only what had arrived by its own arrival; without, everything.
    """
    longest = max(micros(w) for c in counters for w in c.windows)
    known, lines = _lines(clicks, key, longest, then)
    for counter in counters:
        makers = [_maker(line, counter, clicks) for line in lines]
        for window in counter.windows:
            result = _empty(counter, known)
            for line, maker in zip(lines, makers, strict=True):
                maker.into(result, line, micros(window))
            yield column_name(counter.entity, counter.measure, window), result


def _empty(counter: Counter, known: Bools) -> Result:
    if counter.measure == "since_prev":
        return Result(np.zeros(len(known)), np.zeros(len(known), dtype=bool))
    return Result(np.zeros(len(known), dtype=np.int32), known)


def _lines(clicks: Clicks, key: str, longest: int, then: bool) -> tuple[Bools, list[_Line]]:
    """Which rows have the key, and these rows in lines."""
    values = clicks.values(key)
    known = values.known
    rows = np.flatnonzero(known).astype(np.int32)
    code, keys = (values if len(rows) == len(known) else values.of(rows)).numbered()
    del values
    if len(rows) == 0:
        return known, []
    time = clicks.time()
    time = time if len(rows) == len(time) else time[rows]
    time = time - time.min()
    reach = int(time.max()) + longest + 1
    # The axis must fit an int64: many keys over a long span go in several lines of keys.
    keys_per_line = max(1, AXIS_LIMIT // reach)
    if keys <= keys_per_line:
        code *= reach
        code += time
        del time
        return known, [_line(rows, code, reach, clicks, then)]
    parts = [np.flatnonzero(code // keys_per_line == number) for number in range(-(-keys // keys_per_line))]
    return known, [_line(rows[part], code[part] % keys_per_line * reach + time[part], reach, clicks, then) for part in parts]


def _line(rows: Positions, tau: Ints, reach: int, clicks: Clicks, then: bool) -> _Line:
    """`tau` is each row's place on the axis; a key has the places of one multiple of `reach`."""
    order = np.argsort(tau).astype(np.int32)
    axis, row = tau[order], rows[order]
    del tau, order
    is_new = np.ones(len(axis), dtype=bool)
    is_new[1:] = axis[1:] != axis[:-1]
    end = np.maximum.accumulate(np.where(is_new, np.arange(len(axis), dtype=np.int32), np.int32(0)))
    return _Line(row, axis, end, Late.of(axis // reach, clicks.arrival()[row]) if then else None)


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(first, min(first + CHUNK, rows)) for first in range(0, rows, CHUNK))


def _maker(line: _Line, counter: Counter, clicks: Clicks) -> "_Clicks | _SincePrevious | _Distinct":
    if counter.measure == "since_prev":
        return _SincePrevious()
    return _Clicks.of(line) if counter.distinct is None else _Distinct.of(line, clicks, counter.distinct)


@dataclass(frozen=True)
class _Clicks:
    """Earlier clicks in the window, less those that had not arrived."""

    missing: NDArray[Any] | None  # earlier clicks of any age that had not arrived

    @classmethod
    def of(cls, line: _Line) -> "_Clicks":
        return cls(line.late.missing([(line.after(), line.late.rank, 1)]) if line.late else None)

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

    known: Positions  # positions of clicks with a value
    first: Positions
    again: Positions
    pairs: Pairs | None  # by number among the known
    missing: NDArray[Any] | None  # of windows of any length

    @classmethod
    def of(cls, line: _Line, clicks: Clicks, name: str) -> "_Distinct":
        known, order, same = _occurrences(line, clicks.values(name))
        first = line.after()
        first = first if len(known) == len(first) else first[known]
        again = np.full(len(known), len(line.axis), dtype=np.int32)
        again[order[:-1][same]] = first[order[1:][same]]
        if line.late is None or len(known) == 0:
            return cls(known, first, again, None, None)
        rank = line.late.rank[known]
        pairs = Pairs.of(same, rank[order]).renumbered(order)
        seen, parted = _pair_events(pairs, first[pairs.later])
        return cls(known, first, again, pairs, line.late.missing([(first, rank, 1), (*seen, -1), (*parted, 1)]))

    def into(self, result: Result, line: _Line, window: int) -> None:
        leaving = line.leaving(line.start(window))
        leaving = leaving if len(self.known) == len(leaving) else leaving[self.known]
        gone = np.minimum(self.again, leaving)
        np.maximum(gone, self.first, out=gone)
        rows = len(line.axis) + 1
        steps = _counted(self.first, rows)
        steps -= _counted(gone, rows)
        value = np.cumsum(steps, dtype=np.int32)[:-1]
        if line.late is not None and self.pairs is not None and self.missing is not None:
            value -= self.missing
            gone = np.maximum(leaving[self.pairs.earlier], self.first[self.pairs.later])
            seen, parted = _pair_events(self.pairs, gone)
            value += line.late.missing([(leaving, line.late.rank[self.known], 1), (*seen, -1), (*parted, 1)])
        result.value[line.row] = value


def _pair_events(pairs: Pairs, at: Positions) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(positions, ranks) of the pairs as they are seen, and of those that something parts."""
    return (at, pairs.seen), (at[pairs.parts], pairs.parted[pairs.parts])


def _occurrences(line: _Line, values: Values) -> tuple[Positions, Positions, Bools]:
    """Positions of known values, in order; their numbers by value and position; and whether each of those has the value of
    the next.

    Occurrences in different keys may follow each other: no window holds both.
    """
    known = np.flatnonzero(values.known[line.row]).astype(np.int32)
    mixed = values.of(line.row[known]).numbered()[0]
    del values
    bits = len(mixed).bit_length()
    mixed <<= bits
    mixed |= np.arange(len(mixed), dtype=np.int32)
    mixed.sort()
    order = (mixed & ((1 << bits) - 1)).astype(np.int32)
    mixed >>= bits
    return known, order, mixed[1:] == mixed[:-1]
