"""Names of slices, as Spark columns: what `slice_spec` defines, said of each click."""

from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from slidr.slice_spec import ALL, ESCAPES, REPORT, SEPARATOR, SlicePart, SliceSpec


def slice_name(slices: SliceSpec, features: str = "") -> Column:
    """For instance desktop/guest; never NULL. Reads the columns of clicks by their names, and features by theirs with the prefix
    `features`: those that the click's score was computed from."""
    if not slices.parts:
        return F.lit(ALL)
    words = [_band(part, F.col(features + part.column)) if part.cuts else _word(part, F.col(part.column)) for part in slices.parts]
    return F.concat_ws(SEPARATOR, *words)


def report_slice() -> Column:
    """Device/login/marketplace, for instance desktop/guest/US: the same over time, whichever version decides."""
    return slice_name(REPORT)


def _word(part: SlicePart, column: Column) -> Column:
    value = F.nullif(column.cast("string"), F.lit(""))  # an empty string is NULL
    escaped = reduce(lambda text, pair: F.replace(text, *map(F.lit, pair)), ESCAPES, value)
    escaped = F.when(escaped.startswith("("), F.concat(F.lit("%28"), F.substring(escaped, 2, 2**31 - 1))).otherwise(escaped)
    unnamed = F.when(value.isNull(), part.unknown)
    return reduce(lambda words, pair: words.when(value == pair[0], pair[1]), part.names, unnamed).otherwise(escaped)


def _band(part: SlicePart, value: Column) -> Column:
    known = F.nanvl(value.cast("double"), F.lit(None).cast("double"))  # the forward pass takes NaN for NULL, too
    words = F.when(known.isNull(), part.unknown)
    below = zip(part.cuts, part.bands[:-1], strict=True)
    return reduce(lambda words, band: words.when(known < band[0], band[1]), below, words).otherwise(part.bands[-1])
