"""Windowed counters on arrays: numpy only, so that a live service can call the same code.

All clicks of a key must be in the arrays. Times are integer microseconds. A window of length w of a click at t is
[t - w, t): a click exactly w earlier counts, clicks of the same microsecond do not count each other.

Method: sort once by (key, time) and lay the keys one after the other on a single integer axis, far enough apart that no
window reaches the key before. Every window is then a pair of positions on that axis, found by binary search, and a
distinct count is a sum of intervals: cost is linear in the clicks after the sort, whatever the size of one key.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slidr.features.spec import SECOND, Counter, column_name, micros

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
AXIS_LIMIT = 2**62


@dataclass(frozen=True)
class Values:
    """Integer codes with a mask of the rows that have one; a masked row is NULL."""

    code: Ints
    known: Bools


@dataclass(frozen=True)
class Result:
    """One feature of all rows: float64 values, and a mask of the rows where it is not NULL."""

    value: NDArray[np.float64]
    known: Bools


def count(
    key: Values, time: Ints, counters: list[Counter], distinct: Mapping[str, Values], arrival: Ints | None = None
) -> dict[str, Result]:
    """Features of one entity, in the order of the input rows.

    `distinct` holds the codes of every column that a counter counts distinct values of. With `arrival`, a click
    counts only what had arrived by its own arrival (`then`); without, everything (`now`).
    """
    rows = len(time)
    names = [column_name(c.entity, c.measure, w) for c in counters for w in c.windows]
    results = {name: Result(np.zeros(rows), np.zeros(rows, dtype=bool)) for name in names}
    longest = max(micros(w) for c in counters for w in c.windows)
    for block in _blocks(key, time, longest):
        _count_block(block, time, counters, distinct, arrival, results)
    return results


@dataclass(frozen=True)
class _Block:
    """Rows of some whole keys, sorted by (key, time): `row` are their input positions, `axis` the single axis."""

    row: Ints
    axis: Ints
    code: Ints


def _blocks(key: Values, time: Ints, longest: int) -> Iterator[_Block]:
    row = np.flatnonzero(key.known)
    if len(row) == 0:
        return
    row = row[np.lexsort((time[row], key.code[row]))]
    sorted_keys = key.code[row]
    code = np.concatenate(([0], np.cumsum(sorted_keys[1:] != sorted_keys[:-1]))).astype(np.int64)
    start = int(time[row].min())
    reach = int(time[row].max()) - start + longest + 1
    # The axis must fit an int64: many keys over a long span go in several blocks of keys.
    keys_per_block = max(1, AXIS_LIMIT // reach)
    cuts = np.searchsorted(code, np.arange(0, code[-1] + 1, keys_per_block))
    for first, last in zip(cuts, [*cuts[1:], len(code)], strict=True):
        part = slice(first, last)
        yield _Block(row[part], (code[part] - code[first]) * reach + (time[row[part]] - start), code[part])


def _count_block(
    block: _Block, time: Ints, counters: list[Counter], distinct: Mapping[str, Values], arrival: Ints | None, results: dict[str, Result]
) -> None:
    end = np.searchsorted(block.axis, block.axis, side="left")
    starts = {w: np.searchsorted(block.axis, block.axis - micros(w), side="left") for c in counters for w in c.windows}
    for counter in counters:
        values = _take(distinct[counter.distinct], block.row) if counter.distinct else None
        for window in counter.windows:
            value, known = _measure(counter, time[block.row], starts[window], end, values)
            target = results[column_name(counter.entity, counter.measure, window)]
            target.value[block.row] = value
            target.known[block.row] = known
    if arrival is not None:
        _only_arrived(block, time, counters, distinct, arrival, starts, end, results)


def _measure(counter: Counter, time: Ints, start: Ints, end: Ints, values: Values | None) -> tuple[NDArray[np.float64], Bools]:
    if counter.measure == "since_prev":
        found = end > start
        seconds = (time - time[np.maximum(end - 1, 0)]) / SECOND
        return np.where(found, seconds, 0.0), found
    if values is None:
        return (end - start).astype(np.float64), np.ones(len(end), dtype=bool)
    return _distinct(values, start, end).astype(np.float64), np.ones(len(end), dtype=bool)


def _distinct(values: Values, start: Ints, end: Ints) -> Ints:
    """Distinct known values among positions [start_i, end_i), for windows whose both ends never move back.

    Position j stands for its value in exactly the windows that hold j and end before the value occurs again: a run
    of consecutive windows, so the answer is a running sum of +1 at the run's first window and -1 after its last.
    """
    positions = np.flatnonzero(values.known)
    following = _next_same(values, positions)
    first = np.searchsorted(end, positions, side="right")
    last = np.minimum(np.searchsorted(end, following, side="right"), np.searchsorted(start, positions, side="right"))
    open_ = first < last
    steps = np.zeros(len(end) + 1, dtype=np.int64)
    np.add.at(steps, first[open_], 1)
    np.add.at(steps, last[open_], -1)
    return np.cumsum(steps)[:-1]


def _next_same(values: Values, positions: Ints) -> Ints:
    """For each position the next one with the same value, or the number of rows. Another key's next is harmless: the
    windows that could reach it start after this position."""
    order = positions[np.argsort(values.code[positions], kind="stable")]
    following = np.full(len(values.code), len(values.code), dtype=np.int64)
    same = values.code[order[1:]] == values.code[order[:-1]]
    following[order[:-1][same]] = order[1:][same]
    return following[positions]


def _only_arrived(
    block: _Block,
    time: Ints,
    counters: list[Counter],
    distinct: Mapping[str, Values],
    arrival: Ints,
    starts: dict[str, Ints],
    end: Ints,
    results: dict[str, Result],
) -> None:
    """Recounts, one by one, the clicks that a later arrival precedes in time; where nothing is late there are none."""
    arrived = arrival[block.row]
    for i in _overtaken(block.code, arrived, end):
        for counter in counters:
            for window in counter.windows:
                seen = np.arange(starts[window][i], end[i])
                seen = seen[arrived[seen] <= arrived[i]]
                target = results[column_name(counter.entity, counter.measure, window)]
                value, known = _recount(counter, block.row, seen, i, time, distinct)
                target.value[block.row[i]] = value
                target.known[block.row[i]] = known


def _overtaken(code: Ints, arrived: Ints, end: Ints) -> Ints:
    """Positions for which an earlier click of the key arrived later."""
    # One running maximum serves all keys: each key's arrivals are lifted above those of the key before.
    ranks = np.unique(arrived, return_inverse=True)[1].astype(np.int64)
    latest = np.maximum.accumulate(ranks + code * (len(arrived) + 1))
    before = latest[np.maximum(end - 1, 0)]
    has_earlier = (end > 0) & (code[np.maximum(end - 1, 0)] == code)
    return np.flatnonzero(has_earlier & (before > ranks + code * (len(arrived) + 1)))


def _recount(counter: Counter, row: Ints, seen: Ints, i: int, time: Ints, distinct: Mapping[str, Values]) -> tuple[float, bool]:
    if counter.measure == "since_prev":
        return ((time[row[i]] - time[row[seen[-1]]]) / SECOND, True) if len(seen) else (0.0, False)
    if counter.distinct is None:
        return float(len(seen)), True
    values = _take(distinct[counter.distinct], row[seen])
    return float(len(np.unique(values.code[values.known]))), True


def _take(values: Values, rows: Ints) -> Values:
    return Values(values.code[rows], values.known[rows])
