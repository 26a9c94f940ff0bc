"""Local time of a marketplace, as Spark columns. Stored times are UTC; only people's rhythm needs local ones."""

from collections.abc import Mapping
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F


def local_time(time: Column, marketplace: Column, zones: Mapping[str, str]) -> Column:
    """The UTC timestamp shifted to the wall clock of the marketplace; NULL for a marketplace without a zone."""
    # A branch per zone, since Spark looks a zone up once where it is a literal, and for every row where it is not.
    shifted = {name: F.from_utc_timestamp(time, zone) for name, zone in sorted(zones.items())}
    return reduce(lambda cases, name: cases.when(marketplace == name, shifted[name]), shifted, F.when(F.lit(False), time))
