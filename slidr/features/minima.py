"""Questions about the smallest value of a run of an array, for many runs at once: a tree of minima of aligned blocks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
HUGE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Minima:
    """`levels[k][b]` is the minimum of the values [b 2^k, (b + 1) 2^k). Built in linear time; twice the values' memory."""

    levels: tuple[Ints, ...]

    @classmethod
    def of(cls, values: NDArray[np.integer[Any]]) -> "Minima":
        levels = [np.asarray(values, dtype=np.int64)]
        while len(levels[-1]) > 1:
            below = levels[-1]
            if len(below) % 2:
                below = np.append(below, HUGE)
            levels.append(np.minimum(below[0::2], below[1::2]))
        return cls(tuple(levels))

    def latest_at_most(self, before: NDArray[np.integer[Any]], limit: NDArray[np.integer[Any]]) -> Ints:
        """For each query the largest index below `before` whose value is at most `limit`; -1 where there is none."""
        blocks = np.asarray(before, dtype=np.int64).copy()  # the blocks of a level that are still to be searched
        block = np.full(len(blocks), -1, dtype=np.int64)
        height = np.zeros(len(blocks), dtype=np.int64)
        searching = blocks > 0
        for level, minima in enumerate(self.levels):
            odd = np.flatnonzero(searching & (blocks & 1 == 1))
            last = blocks[odd] - 1
            hit = odd[minima[last] <= limit[odd]]
            block[hit], height[hit], searching[hit] = blocks[hit] - 1, level, False
            blocks >>= 1
            searching &= blocks > 0
        for level in range(len(self.levels) - 1, 0, -1):
            inside = np.flatnonzero((height == level) & (block >= 0))
            right = np.minimum(2 * block[inside] + 1, len(self.levels[level - 1]) - 1)
            holds = self.levels[level - 1][right] <= limit[inside]
            block[inside] = np.where(holds, right, 2 * block[inside])
            height[inside] = level - 1
        return block

    def smallest(self, first: NDArray[np.integer[Any]], stop: NDArray[np.integer[Any]]) -> Ints:
        """For each query the minimum of the values [first, stop); HUGE where it holds none."""
        left, right = (np.asarray(bound, dtype=np.int64).copy() for bound in (first, stop))
        result = np.full(len(left), HUGE, dtype=np.int64)
        for minima in self.levels:
            for at_odd, offset in ((left, 0), (right, -1)):
                odd = np.flatnonzero((left < right) & (at_odd & 1 == 1))
                result[odd] = np.minimum(result[odd], minima[at_odd[odd] + offset])
                at_odd[odd] += 1 if offset == 0 else -1
            left >>= 1
            right >>= 1
        return result
