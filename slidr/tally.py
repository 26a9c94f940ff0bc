"""Counts of clicks by hour and by bin of each feature, as Spark's Python workers make them.

Numpy and Arrow alone: each worker imports this module before its first click.

Shapes: B clicks of a batch, D days of a batch, F features, H hours of a day, N bins, S signs.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MISSING, ZERO, FIRST = 0, 1, 2
BINS = 48
PER_UNIT = 10  # bins from 0 to 1 of features that lie in [-1, 1]
HOURS_OF_DAY = 24
KEYS = ("day", "hour", "feature", "bin")
NONE = -1  # where a key does not apply


def bins_of(values_B: NDArray[np.float64], *, bounded: bool) -> NDArray[np.int64]:
    """Bin of each value of a feature, NaN for NULL.

    Counters and seconds: 0 missing, 1 below 1, then one bin per power of two. `bounded`, in [-1, 1]: 0 missing, then tenths.
    """
    known_B = np.nan_to_num(values_B, nan=0.0, posinf=2.0**60, neginf=0.0)
    if bounded:
        bins_B = FIRST + np.floor((np.clip(known_B, -1, 1) + 1) * PER_UNIT + 1e-9).astype(np.int64)
    else:
        bins_B = np.where(known_B < 1, ZERO, FIRST - 1 + np.frexp(np.maximum(known_B, 0.5))[1])
    return np.minimum(np.where(np.isnan(values_B), MISSING, bins_B), BINS - 1).astype(np.int64)


def counter(bounded: Sequence[bool], signs: Sequence[str]) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """A task that counts its rows in arrays of fixed size per day, so that its memory does not grow with clicks.

    Its rows: hour (since 1970), signs (bit s is set where sign s holds; the first says whether the click has features), and
    the features, NULL where missing. It gives KEYS and one count for each of `signs`; rows of bins have the first only.
    """

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        hours_SH: dict[int, NDArray[np.int64]] = defaultdict(lambda: np.zeros((len(signs), HOURS_OF_DAY), np.int64))
        bins_FN: dict[int, NDArray[np.int64]] = defaultdict(lambda: np.zeros((len(bounded), BINS), np.int64))
        for batch in batches:
            hour_B, bits_B = (column.to_numpy().astype(np.int64) for column in batch.columns[:2])
            days_D, place_B = np.unique(hour_B // HOURS_OF_DAY, return_inverse=True)
            cell_B = place_B * HOURS_OF_DAY + hour_B % HOURS_OF_DAY
            by_sign = [_counted(cell_B[(bits_B >> sign) & 1 == 1], len(days_D), HOURS_OF_DAY) for sign in range(len(signs))]
            has_B = bits_B & 1 == 1
            first_B = place_B[has_B] * BINS
            # Column by column: arrays of a batch's clicks stay in the processor's cache, those of all its values do not.
            by_feature = [
                _counted(first_B + bins_of(_values(column), bounded=within)[has_B], len(days_D), BINS)
                for column, within in zip(batch.columns[2:], bounded, strict=True)
            ]
            for place, day in enumerate(days_D.tolist()):
                hours_SH[day] += [found_DH[place] for found_DH in by_sign]
                if by_feature:
                    bins_FN[day] += [found_DN[place] for found_DN in by_feature]
        yield from (_hour_rows(day, found_SH, signs) for day, found_SH in hours_SH.items())
        yield from (_bin_rows(day, found_FN, signs) for day, found_FN in bins_FN.items())

    return count


def _values(column: pa.Array) -> NDArray[np.float64]:
    found: NDArray[np.float64] = column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return found


def _counted(cell_B: NDArray[np.int64], days: int, cells: int) -> NDArray[np.int64]:
    return np.bincount(cell_B, minlength=days * cells).reshape(days, cells)


def _hour_rows(day: int, found_SH: NDArray[np.int64], signs: Sequence[str]) -> pa.RecordBatch:
    hour = np.flatnonzero(found_SH.any(axis=0))
    none = np.full(len(hour), NONE)
    return _batch([np.full(len(hour), day), hour, none, none], found_SH[:, hour], signs)


def _bin_rows(day: int, found_FN: NDArray[np.int64], signs: Sequence[str]) -> pa.RecordBatch:
    feature, number = np.nonzero(found_FN)
    counts = np.zeros((len(signs), len(feature)), np.int64)
    counts[0] = found_FN[feature, number]
    return _batch([np.full(len(feature), day), np.full(len(feature), NONE), feature, number], counts, signs)


def _batch(keys: list[NDArray[np.int64]], counts: NDArray[np.int64], signs: Sequence[str]) -> pa.RecordBatch:
    arrays = [pa.array(key, pa.int32()) for key in keys] + [pa.array(count, pa.int64()) for count in counts]
    return pa.RecordBatch.from_arrays(arrays, names=[*KEYS, *signs])
