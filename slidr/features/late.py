"""What had not arrived: corrections of windowed counts for clicks that later arrivals precede in time.

A click counts only what had arrived by its own arrival. Counts are first made of all clicks; what is missing is taken off
here. A count is a sum of events: each adds its weight to all positions from its own on, and of those only to the ones
whose arrival is not before the event's (`rank` is the order of arrivals). So what is missing at a position is a dominance
sum, over the events at or before it, of the weights whose rank is above the position's. Events that no later position
precedes in arrival are never missing: they are left out at once, and where nothing is late there are none.

Cost: (events + positions that miss something) x log^2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slidr.features.minima import Minima

Array = NDArray[np.integer[Any]]
Event = tuple[Array, Array, int]  # positions, ranks, weight


def out_of_order(code: Array, arrival: Array) -> bool:
    """Whether a click arrived before one of its key that stands just before it."""
    return bool(np.any((code[1:] == code[:-1]) & (arrival[1:] < arrival[:-1])))


@dataclass(frozen=True)
class Late:
    """Arrivals of clicks in the order of (key, time). `rank` orders them by (key, arrival), the same for equal arrivals;
    so a rank of an earlier key is below all ranks of a later one. `floor` is the smallest rank from a position on."""

    rank: NDArray[np.int32]
    floor: NDArray[np.int32]

    @classmethod
    def of(cls, code: Array, arrival: Array) -> "Late | None":
        """None where no click arrived before an earlier one of its key. `code` never falls along the positions."""
        if not out_of_order(code, arrival):
            return None
        order = np.lexsort((arrival, code))
        rises = (arrival[order[1:]] != arrival[order[:-1]]) | (code[order[1:]] != code[order[:-1]])
        rank = np.empty(len(code), dtype=np.int32)
        rank[order] = np.concatenate(([0], np.cumsum(rises, dtype=np.int32)))
        return cls(rank, np.minimum.accumulate(rank[::-1])[::-1])

    def missing(self, events: Sequence[Event]) -> NDArray[np.int32]:
        """By position the sum of the weights of the events at or before it whose rank is above the position's."""
        kept = [self._missed(*event) for event in events]
        at, rank, weight = (np.concatenate([event[part] for event in kept]) for part in range(3))
        order = np.argsort(at, kind="stable")
        at, rank, weight = at[order], rank[order], weight[order]
        result = np.zeros(len(self.rank), dtype=np.int32)
        if len(at):
            highest = np.full(len(self.rank), -1, dtype=np.int64)
            np.maximum.at(highest, at, rank)
            misses = np.flatnonzero(np.maximum.accumulate(highest) > self.rank)
            result[misses] = _dominance(rank, weight, np.searchsorted(at, misses, side="right"), self.rank[misses])
        return result

    def _missed(self, at: Array, rank: Array, weight: int) -> tuple[Array, Array, Array]:
        """The events that some position at or after theirs, of the same key, precedes in arrival."""
        inside = np.flatnonzero(at < len(self.rank))
        missed = inside[rank[inside] > self.floor[at[inside]]]
        return at[missed], rank[missed], np.full(len(missed), weight, dtype=np.int64)

    def latest_arrived(self, end: Array) -> NDArray[np.int64]:
        """By position the latest one before `end` that had arrived, maybe of an earlier key; -1 where there is none."""
        found = np.asarray(end, dtype=np.int64) - 1
        waiting = np.flatnonzero((found >= 0) & (self.rank[np.maximum(found, 0)] > self.rank))
        found[waiting] = Minima.of(self.rank).latest_at_most(end[waiting], self.rank[waiting])
        return found


@dataclass(frozen=True)
class Pairs:
    """Occurrences of a value that follow each other for somebody: both had arrived, and none between them.

    `earlier` and `later` are indexes of occurrences; a pair is seen from rank `seen` on and until `parted`, when one between
    them arrives (`parts` tells whether there is one). Of n occurrences there are at most 2n such pairs: each occurrence
    with the nearest before it that arrived not later, and with the nearest after it that arrived earlier.
    """

    earlier: Array
    later: Array
    seen: Array
    parts: NDArray[np.bool_]
    parted: Array

    @classmethod
    def of(cls, same: NDArray[np.bool_], rank: Array) -> "Pairs":
        """`rank` of all occurrences, value by value in the order of position; `same[i]`: i and i + 1 are of one value."""
        group = np.concatenate(([0], np.cumsum(~same, dtype=np.int64)))
        lifted = group * (int(rank.max(initial=0)) + 1) + rank  # occurrences of a later value are above all of an earlier one
        tree = Minima.of(lifted)
        earlier, later = _not_later_before(lifted, same, group, tree), _earlier_after(lifted)
        first, second = np.concatenate((earlier[0], later[0])), np.concatenate((earlier[1], later[1]))
        parted = tree.smallest(first + 1, second) - group[first] * (int(rank.max(initial=0)) + 1)
        return cls(first, second, np.maximum(rank[first], rank[second]), second > first + 1, parted)

    def renumbered(self, order: Array) -> "Pairs":
        """The same pairs by the numbers in `order`."""
        return replace(self, earlier=order[self.earlier], later=order[self.later])


def _not_later_before(lifted: Array, same: NDArray[np.bool_], group: Array, tree: Minima) -> tuple[Array, Array]:
    later = np.arange(1, len(lifted))
    earlier = later - 1
    search = np.flatnonzero(same & (lifted[:-1] > lifted[1:]))
    earlier[search] = tree.latest_at_most(later[search], lifted[later[search]])
    valid = (earlier >= 0) & (group[np.maximum(earlier, 0)] == group[later])
    return earlier[valid], later[valid]


def _earlier_after(lifted: Array) -> tuple[Array, Array]:
    lowest = np.minimum.accumulate(lifted[::-1])[::-1]
    earlier = np.flatnonzero(lowest[1:] < lifted[:-1])
    from_end = len(lifted) - 1
    later = from_end - Minima.of(lifted[::-1]).latest_at_most(from_end - earlier, lifted[earlier] - 1)
    return earlier, later


def _dominance(rank: Array, weight: Array, prefix: Array, limit: Array) -> NDArray[np.int64]:
    """For each query the sum of the weights of the first `prefix` events whose rank is above `limit`.

    The prefix is cut into blocks of 2^k events, at most one of each size; within a block the events are sorted by rank.
    """
    total = np.zeros(len(prefix), dtype=np.int64)
    bits = int(max(rank.max(), limit.max(initial=0))).bit_length() + 1
    number = np.arange(len(rank), dtype=np.int64)
    by_rank = np.argsort(rank, kind="stable")
    for level in range(len(rank).bit_length()):
        asked = np.flatnonzero((prefix >> level) & 1)
        if len(asked) == 0:
            continue
        place = by_rank[np.argsort(number[by_rank] >> level, kind="stable")]
        mixed = ((place >> level) << bits) | rank[place]
        sums = np.concatenate(([0], np.cumsum(weight[place])))
        block = (prefix[asked] >> level) - 1
        above = np.searchsorted(mixed, (block << bits) | limit[asked], side="right")
        total[asked] += sums[(block + 1) << level] - sums[above]
    return total
