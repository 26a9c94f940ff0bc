"""The pieces that count what had not arrived, each against a loop."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slidr.features.late import Late, Pairs
from slidr.features.minima import HUGE, Minima

NUMBERS = st.lists(st.integers(0, 6), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(NUMBERS, st.data())
def test_runs_of_minima(numbers: list[int], data: st.DataObject) -> None:
    tree = Minima.of(np.array(numbers))
    ends = np.array(data.draw(st.lists(st.integers(0, len(numbers)), min_size=1, max_size=20)))
    limits = np.array(data.draw(st.lists(st.integers(-1, 7), min_size=len(ends), max_size=len(ends))))
    found = tree.latest_at_most(ends, limits)
    assert found.tolist() == [max((i for i in range(e) if numbers[i] <= limit), default=-1) for e, limit in zip(ends, limits, strict=True)]
    starts = np.minimum(np.array(data.draw(st.lists(st.integers(0, len(numbers)), min_size=len(ends), max_size=len(ends)))), ends)
    assert tree.smallest(starts, ends).tolist() == [min(numbers[s:e], default=HUGE) for s, e in zip(starts, ends, strict=True)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8)), min_size=2, max_size=40), st.data())
def test_missing_is_the_sum_over_events(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    code, arrival = (np.array(column) for column in zip(*sorted(rows, key=lambda row: row[0]), strict=True))
    late = Late.of(code, arrival)
    in_order = all(arrival[i] <= arrival[i + 1] for i in range(len(code) - 1) if code[i] == code[i + 1])
    assert (late is None) == in_order
    if late is None:
        return
    size = data.draw(st.integers(1, 15))
    at = np.array(data.draw(st.lists(st.integers(0, len(code)), min_size=size, max_size=size)))
    of = np.array(data.draw(st.lists(st.integers(0, len(code) - 1), min_size=size, max_size=size)))
    found = late.missing([(at, late.rank[of], 1), (at[: size // 2], late.rank[of[: size // 2]], -3)])
    events = [(a, o, 1) for a, o in zip(at, of, strict=True)] + [(a, o, -3) for a, o in zip(at[: size // 2], of[: size // 2], strict=True)]
    for i in range(len(code)):
        assert found[i] == sum(w for a, o, w in events if a <= i and (code[o], arrival[o]) > (code[i], arrival[i]))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8)), min_size=1, max_size=25))
def test_pairs_follow_each_other_for_somebody(rows: list[tuple[int, int]]) -> None:
    """For every rank, the pairs in force are the neighbours among the occurrences that had arrived."""
    rows = sorted(rows, key=lambda row: row[0])
    value, rank = (np.array(column) for column in zip(*rows, strict=True))
    pairs = Pairs.of(value[1:] == value[:-1], rank)
    assert len(pairs.earlier) <= 2 * len(rows)
    for limit in range(10):
        expected = set()
        for one in set(value):
            arrived = [i for i in range(len(rows)) if value[i] == one and rank[i] <= limit]
            expected |= set(zip(arrived, arrived[1:], strict=False))
        in_force = (pairs.seen <= limit) & ~(pairs.parts & (pairs.parted <= limit))
        assert set(zip(pairs.earlier[in_force].tolist(), pairs.later[in_force].tolist(), strict=True)) == expected
