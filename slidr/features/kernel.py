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

from slidr.features.late import Late, Pairs, out_of_order
from slidr.features.spec import SECOND, Counter, column_name, micros

Ints = NDArray[np.int64]
Positions = NDArray[np.int32]
Bools = NDArray[np.bool_]
Values = tuple[NDArray[Any], Bools | None]  # by position; where they are not NULL, None for everywhere
AXIS_LIMIT = 2**62
WIDE = 4 << 20  # positions over which counting makes an array
CHUNK = 1 << 18  # rows of which whole-array operations are made at a time, where they need 64-bit temporaries


COLLISION = "two different values of {name} have the same 64-bit hash; nothing was written; report this with the input"


class Clicks(Protocol):
    """Where the kernel reads the clicks; a column at a time, since all of a giant key would not fit the memory."""

    def code(self, name: str) -> Ints:
        """A key or value of each row as an integer, a hash."""

    def check(self, name: str) -> NDArray[np.int32]:
        """Another hash of it, 0 where it is NULL."""

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
        start = np.empty(len(self.end), dtype=np.int32)
        for part in _chunks(len(start)):
            start[part] = self._start(part, window)
        return start

    def _start(self, part: slice, window: int) -> Positions:
        axis, start = self.axis[part], self.end[part].copy()
        # Where the instant before is out of the window, nothing is in it: no search.
        near = np.flatnonzero(axis - self.axis[np.maximum(start, 1) - 1] <= window)
        start[near] = np.searchsorted(self.axis, axis[near] - window, side="left")
        return start

    def leaving(self, window: int) -> Positions:
        """For each position the first one whose window no longer holds it."""
        counts = np.zeros(len(self.end), dtype=np.int32)
        for part in _chunks(len(counts)):
            _count(counts, self._start(part, window))
        return np.cumsum(counts, out=counts)


def _count(counts: NDArray[np.int32], positions: Positions, sign: int = 1) -> None:
    """Adds to `counts`, in place, how often each position occurs, or takes it off."""
    for part in _chunks(len(positions)):
        low, high = int(positions[part].min()), int(positions[part].max())
        if high - low > WIDE:
            np.add.at(counts, positions[part], np.int32(sign))  # slower than counting, but it makes no array of that width
        else:
            counts[low : high + 1] += sign * np.bincount(positions[part] - low).astype(np.int32)


def count(clicks: Clicks, key: str, counters: Sequence[Counter], *, then: bool) -> Iterator[tuple[str, Result]]:
    """(name, feature) of the entity whose key is called `key`, one after the other; rows are in the order of the input.

    With `then`, a click counts only what had arrived by its own arrival; without, everything.
    """
    longest = max(micros(w) for c in counters for w in c.windows)
    known, lines = _lines(clicks, key, longest, then)
    for counter in counters:
        yield from _features(counter, known, lines, clicks)


def _features(counter: Counter, known: Bools, lines: Sequence[_Line], clicks: Clicks) -> Iterator[tuple[str, Result]]:
    makers = [_maker(line, counter, clicks) for line in lines]
    for window in counter.windows:
        result = _in_rows(counter, known, lines, [maker.values(line, micros(window)) for line, maker in zip(lines, makers, strict=True)])
        yield column_name(counter.entity, counter.measure, window), result
        del result  # not to be held while the next one is made


def _in_rows(counter: Counter, known: Bools, lines: Sequence[_Line], made: Sequence[Values]) -> Result:
    """Values of lines in the order of the input."""
    result = _empty(counter, known)
    for line, (value, found) in zip(lines, made, strict=True):
        result.value[line.row] = value
        if found is not None:
            result.known[line.row] = found
    return result


def _empty(counter: Counter, known: Bools) -> Result:
    if counter.measure == "since_prev":
        return Result(np.zeros(len(known)), np.zeros(len(known), dtype=bool))
    return Result(np.zeros(len(known), dtype=np.int32), known)


def _lines(clicks: Clicks, key: str, longest: int, then: bool) -> tuple[Bools, list[_Line]]:
    """Which rows have the key, and these rows in lines."""
    check = clicks.check(key)
    known = check != 0
    rows = np.flatnonzero(known).astype(np.int32)
    if len(rows) == 0:
        return known, []
    code, keys = _numbered(_at(clicks.code(key), rows), _at(check, rows), key)
    del check
    time = _at(clicks.time(), rows)
    first = int(time.min())
    reach = int(time.max()) - first + longest + 1
    # The axis must fit an int64: many keys over a long span go in several lines of keys.
    keys_per_line = max(1, AXIS_LIMIT // reach)
    if keys <= keys_per_line:
        code *= reach
        code += time
        code -= first
        del time
        return known, [_line(rows, code, reach, clicks, then)]
    parts = [np.flatnonzero(code // keys_per_line == number) for number in range(-(-keys // keys_per_line))]
    return known, [_line(rows[part], code[part] % keys_per_line * reach + (time[part] - first), reach, clicks, then) for part in parts]


def _at(values: NDArray[Any], rows: Positions) -> NDArray[Any]:
    """The values of some rows, in order; of all rows without a copy."""
    return values if len(rows) == len(values) else values[rows]


def _numbered(code: Ints, check: NDArray[np.int32], name: str) -> tuple[Ints, int]:
    """Small numbers instead of the codes, and how many there are. Raises ValueError where codes collide."""
    number, codes = pd.factorize(code)
    expected = np.empty(len(codes), dtype=np.int32)
    expected[number] = check
    if not np.array_equal(expected[number], check):
        raise ValueError(COLLISION.format(name=name))
    return number, len(codes)


def _line(rows: Positions, tau: Ints, reach: int, clicks: Clicks, then: bool) -> _Line:
    """`tau` is each row's place on the axis; a key has the places of one multiple of `reach`."""
    row = rows[np.argsort(tau).astype(np.int32)]
    tau.sort()  # in place: the caller's array is not needed any more, and a second one of all clicks counts
    axis = tau
    is_new = np.ones(len(axis), dtype=bool)
    is_new[1:] = axis[1:] != axis[:-1]
    end = np.maximum.accumulate(np.where(is_new, np.arange(len(axis), dtype=np.int32), np.int32(0)))
    del is_new
    return _Line(row, axis, end, _late(axis, row, reach, clicks.arrival()) if then else None)


def _late(axis: Ints, row: Positions, reach: int, arrival: Ints) -> Late | None:
    """Looked for in parts: as a rule nothing is late, and then no array of all clicks is made."""
    if any(out_of_order(axis[part] // reach, arrival[row[part]]) for part in _chunks(len(row), overlap=1)):
        return Late.of(axis // reach, arrival[row])
    return None


def _chunks(rows: int, overlap: int = 0) -> Iterator[slice]:
    return (slice(first, min(first + CHUNK + overlap, rows)) for first in range(0, rows, CHUNK))


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

    def values(self, line: _Line, window: int) -> Values:
        value = line.start(window)
        np.subtract(line.end, value, out=value)
        if line.late is not None and self.missing is not None:
            value -= self.missing
            value += line.late.missing([(line.leaving(window), line.late.rank, 1)])
        return value, None


@dataclass(frozen=True)
class _SincePrevious:
    """Seconds since the latest earlier click within the window."""

    def values(self, line: _Line, window: int) -> Values:
        previous = line.end - 1 if line.late is None else line.late.latest_arrived(line.end)
        value, found = np.empty(len(previous)), np.empty(len(previous), dtype=bool)
        for part in _chunks(len(previous)):
            gap = line.axis[part] - line.axis[np.maximum(previous[part], 0)]
            found[part] = (previous[part] >= 0) & (gap <= window)
            value[part] = np.where(found[part], gap / SECOND, 0.0)
        return value, found


@dataclass(frozen=True)
class _Distinct:
    """Distinct known values among the earlier clicks in the window.

    A click stands for its value in exactly the windows that hold it and end before the value occurs again: a run of
    consecutive windows, from `first` to `again`, or to where the click leaves the window. In other words, values are the
    clicks less the pairs of clicks that follow each other with the same value; that form also serves arrivals, where
    pairs differ by what had arrived.
    """

    known: Positions | None  # positions of clicks with a value; None where all have one
    first: Positions
    again: Positions
    pairs: Pairs | None  # by number among the known
    missing: NDArray[Any] | None  # of windows of any length

    @classmethod
    def of(cls, line: _Line, clicks: Clicks, name: str) -> "_Distinct":
        known, order, same = _occurrences(line, clicks, name)
        first = line.after()
        first = first if known is None else first[known]
        again = np.full(len(first), len(line.axis), dtype=np.int32)
        for part in _chunks(len(same)):
            these = np.flatnonzero(same[part]) + part.start
            again[order[these]] = first[order[these + 1]]
        if line.late is None or len(first) == 0:
            return cls(known, first, again, None, None)
        rank = line.late.rank if known is None else line.late.rank[known]
        pairs = Pairs.of(same, rank[order]).renumbered(order)
        seen, parted = _pair_events(pairs, first[pairs.later])
        return cls(known, first, again, pairs, line.late.missing([(first, rank, 1), (*seen, -1), (*parted, 1)]))

    def values(self, line: _Line, window: int) -> Values:
        leaving = line.leaving(window)
        leaving = leaving if self.known is None else leaving[self.known]
        late = line.late is not None and self.pairs is not None
        gone = np.minimum(self.again, leaving, out=None if late else leaving)
        np.maximum(gone, self.first, out=gone)
        steps = np.zeros(len(line.axis) + 1, dtype=np.int32)
        _count(steps, self.first)
        _count(steps, gone, -1)
        value = np.cumsum(steps, out=steps)[:-1]
        if line.late is not None and self.pairs is not None and self.missing is not None:
            value -= self.missing
            gone = np.maximum(leaving[self.pairs.earlier], self.first[self.pairs.later])
            seen, parted = _pair_events(self.pairs, gone)
            value += line.late.missing(
                [(leaving, line.late.rank if self.known is None else line.late.rank[self.known], 1), (*seen, -1), (*parted, 1)]
            )
        return value, None


def _pair_events(pairs: Pairs, at: Positions) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(positions, ranks) of the pairs as they are seen, and of those that something parts."""
    return (at, pairs.seen), (at[pairs.parts], pairs.parted[pairs.parts])


def _occurrences(line: _Line, clicks: Clicks, name: str) -> tuple[Positions | None, Positions, Bools]:
    """Positions of known values, in order (None: all); their numbers by value and position; and whether each of those has the
    value of the next.

    Occurrences in different keys may follow each other: no window holds both. Method: one sort of a single integer, the upper
    bits of the value's hash over the number; where two values share these bits, their rows are sorted again by all of them.
    Raises ValueError where whole hashes collide.
    """
    is_known = (clicks.check(name) != 0)[line.row]
    known = None if is_known.all() else np.flatnonzero(is_known).astype(np.int32)
    row = line.row if known is None else line.row[known]
    del is_known
    bits = len(row).bit_length()
    mixed = clicks.code(name)[row]
    alike, order = np.empty(max(len(mixed) - 1, 0), dtype=bool), np.empty(len(mixed), dtype=np.int32)
    for part in _chunks(len(mixed)):
        mixed[part] = mixed[part] >> bits << bits | np.arange(part.start, part.stop)
    mixed.sort()
    for part in _chunks(len(mixed)):
        order[part] = mixed[part] & ((1 << bits) - 1)
        upper = mixed[part.start : part.stop + 1] >> bits
        alike[part] = upper[1:] == upper[:-1]
    del mixed
    code = clicks.code(name)  # once more: they were too much to hold while numbers were sorted
    same = _same(code, row, order)
    if np.any(alike & ~same):
        _sort_alike(code, row, order, alike)
        same = _same(code, row, order)
    del code
    if np.any(same & ~_same(clicks.check(name), row, order)):
        raise ValueError(COLLISION.format(name=name))
    return known, order, same


def _same(values: NDArray[Any], row: Positions, order: Positions) -> Bools:
    """Whether the value of each number, in an order, is that of the next; `row` is where a number's value stands."""
    same = np.empty(max(len(order) - 1, 0), dtype=bool)
    for part in _chunks(len(same)):
        these = values[row[order[part.start : part.stop + 1]]]
        same[part] = these[1:] == these[:-1]
    return same


def _sort_alike(code: Ints, row: Positions, order: Positions, alike: Bools) -> None:
    """Sorts each run of numbers that are `alike` by code, in place, where its codes differ: few do, as a rule."""
    differ = np.flatnonzero(alike & ~_same(code, row, order))
    starts = np.flatnonzero(~alike)
    starts += 1
    for run in np.unique(np.searchsorted(starts, differ, side="right")):
        these = slice(starts[run - 1] if run else 0, starts[run] if run < len(starts) else len(order))
        numbers = order[these]
        order[these] = numbers[np.argsort(code[row[numbers]], kind="stable")]
