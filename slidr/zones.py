"""Local time of a marketplace, as Spark columns. Stored times are UTC; only people's rhythm needs local ones."""

from collections.abc import Mapping
from itertools import chain

from pyspark.sql import Column
from pyspark.sql import functions as F


def local_time(time: Column, marketplace: Column, zones: Mapping[str, str]) -> Column:
    """The UTC timestamp shifted to the wall clock of the marketplace; NULL for a marketplace without a zone."""
    zone = F.create_map(*[F.lit(item) for item in chain.from_iterable(sorted(zones.items()))])[marketplace]
    return F.from_utc_timestamp(time, zone)
