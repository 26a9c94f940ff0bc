"""Local time of a marketplace, as Spark columns and as arrays. Stored times are UTC; only people's rhythm needs local ones."""

from collections.abc import Mapping
from datetime import datetime
from functools import reduce
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column
from pyspark.sql import functions as F

QUARTER = 900_000_000  # microseconds


def local_time(time: Column, marketplace: Column, zones: Mapping[str, str]) -> Column:
    """The UTC timestamp shifted to the wall clock of the marketplace; NULL for a marketplace without a zone."""
    # A branch per zone, since Spark looks a zone up once where it is a literal, and for every row where it is not.
    shifted = {name: F.from_utc_timestamp(time, zone) for name, zone in sorted(zones.items())}
    return reduce(lambda cases, name: cases.when(marketplace == name, shifted[name]), shifted, F.when(F.lit(False), time))


def wall_clock(time: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    """UTC times in microseconds as what a clock in the zone shows, in microseconds since it showed 1970.

    Clocks are changed at quarters of an hour, so one look at the zone serves a quarter; the times should lie within some days.
    """
    if not len(time):
        return time
    quarter = time // QUARTER
    first, last = int(quarter.min()), int(quarter.max())
    place = ZoneInfo(zone)
    starts = (datetime.fromtimestamp(number * QUARTER // 1_000_000, place) for number in range(first, last + 1))
    offsets = np.array([start.utcoffset() for start in starts], dtype="timedelta64[us]").astype(np.int64)
    result: NDArray[np.int64] = time + offsets[quarter - first]
    return result
