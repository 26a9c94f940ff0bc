"""Text -> time, number, boolean, as Spark columns. What can't be read becomes NULL, never an error, never another value."""

import re

from pyspark.sql import Column
from pyspark.sql import functions as F

from slidr.ingest.sources import EPOCHS, PLACEHOLDER, UNITS, FieldMap

ISO = r"^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?\s?(?:Z|UTC|[+-]\d{2}(?::?\d{2})?)?)?$"
# What most files hold, and Spark's cast reads as it is.
PLAIN_ISO = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})$"
ISO_OFFSET = r":\d{2}(?:\.\d+)?\s?(?:Z|UTC|[+-]\d{2}(?::?\d{2})?)$"
SHORT_OFFSET = r"(:\d{2}(?:\.\d+)?)\s?([+-]\d{2})(?::?(\d{2}))?$"
LAST_MICROS = 253_402_300_799_999_999  # the end of the year 9999
LONGEST = 100  # characters of what can be a time, a number or a boolean: Java reads a million digits for minutes
MOST_MICROS = 10**15  # a thousand million units: more is no price, and a few such rows would overflow every sum of money
ZONE_LETTERS = re.compile("[VzOXxZ]")


def present(text: Column) -> Column:
    """An empty or blank text is NULL."""
    return F.when(F.trim(text) != "", text)


def mapped_text(field: FieldMap, column: dict[str, Column]) -> Column:
    """What the field holds before it is read as a type; `column` has the file's columns by name."""
    if field.constant is not None:
        constant = field.constant
        return F.lit(str(constant).lower() if isinstance(constant, bool) else str(constant))
    if field.template is not None:
        pieces = PLACEHOLDER.split(field.template)  # text, name, text, name, ..., text
        return F.concat(*[present(column[piece]) if i % 2 else F.lit(piece) for i, piece in enumerate(pieces)])
    if field.hash_of is not None:
        return digest([present(column[name]) for name in field.hash_of])
    return _translated(field, present(column[str(field.from_)]))


def _translated(field: FieldMap, text: Column) -> Column:
    default = F.lit(field.default)
    if field.values is not None:
        result = F.when(F.lit(False), text)
        for theirs, ours in field.values.items():
            result = result.when(text == theirs, F.lit(ours))
        return F.coalesce(result, default)
    if field.contains is not None:
        result = F.when(F.lit(False), text)
        for part, ours in field.contains.items():
            result = result.when(text.contains(part), F.lit(ours))
        return F.coalesce(result, default, text) if field.default is None else F.coalesce(result, default)
    return F.coalesce(text, default) if field.default is not None else text


def digest(columns: list[Column]) -> Column:
    """First 32 hex digits of the sha256 of the values; NULL is a value of its own, and borders count."""
    parts = [F.coalesce(F.concat(F.length(c).cast("string"), F.lit(":"), c), F.lit("-")) for c in columns]
    return F.substring(F.sha2(F.concat_ws(",", *parts), 256), 1, 32)


def as_text(value: Column, kind: str) -> Column:
    """A typed value for `digest`; a time as its microseconds, so that no zone and no format shows."""
    return F.unix_micros(value).cast("string") if kind == "timestamp" else value.cast("string")


def read_as(text: Column, kind: str, field: FieldMap, *, money: bool = False) -> Column:
    """The text as a type of `tables.TYPES`."""
    if kind == "string":
        return text
    text = F.when(F.length(text) <= LONGEST, F.trim(text))
    if kind == "timestamp":
        return _time(text, field)
    if kind == "boolean":
        # Writers with NULLs in a whole-number column make 1.0 of 1.
        return F.regexp_replace(text, r"^([01])\.0$", "$1").try_cast("boolean")
    if kind == "double":
        number = text.try_cast("double")
        return F.when(~F.isnan(number) & (F.abs(number) < float("inf")), number)
    return _whole(text, kind, UNITS[field.unit] if money else 1)


def _whole(text: Column, kind: str, factor: int) -> Column:
    exact = text.try_cast("decimal(28,9)") * F.lit(factor).cast("decimal(7,0)")
    rounded = F.round(exact, 0)
    # A fraction of a micro-unit is the noise of a float if the money came in larger units; else it is no whole number.
    by_decimal = F.when((rounded == exact) | F.lit(factor > 1), rounded.cast("decimal(37,0)").try_cast(kind))
    return F.coalesce(text.try_cast(kind), by_decimal) if factor == 1 else by_decimal


def _time(text: Column, field: FieldMap) -> Column:
    iso = _iso(text, field.zone)
    if field.format == "iso":
        return iso
    stamped = F.when(text.rlike(ISO_OFFSET), iso)  # a typed timestamp of a Parquet file arrives as ISO
    if field.format in EPOCHS:
        return F.coalesce(_epoch(text, EPOCHS[field.format]), stamped)
    parsed = F.try_to_timestamp(text, F.lit(field.format))
    has_zone = ZONE_LETTERS.search(re.sub("'[^']*'", "", field.format))
    return F.coalesce(parsed if has_zone else _from_zone(parsed, field.zone), stamped)


def _iso(text: Column, zone: str) -> Column:
    return F.when(text.rlike(PLAIN_ISO), text.try_cast("timestamp")).otherwise(_other_iso(text, zone))


def _other_iso(text: Column, zone: str) -> Column:
    text = F.upper(text)
    text = F.regexp_replace(text, r"([T ]\d{2}:\d{2})(?![:\d])", "$1:00")
    spelled = F.regexp_replace(F.regexp_replace(text, SHORT_OFFSET, "$1$2:$3"), r"([+-]\d{2}):$", "$1:00")
    time = F.when(text.rlike(ISO), spelled.try_cast("timestamp"))
    return F.when(text.rlike(ISO_OFFSET), time).otherwise(_from_zone(time, zone))


def _from_zone(time: Column, zone: str) -> Column:
    return time if zone == "UTC" else F.to_utc_timestamp(time, zone)


def _epoch(text: Column, factor: int) -> Column:
    exact = text.try_cast("decimal(26,6)") * F.lit(factor).cast("decimal(7,0)")
    micros = F.floor(exact).cast("decimal(37,0)").try_cast("bigint")
    return F.timestamp_micros(F.when(F.abs(micros) <= LAST_MICROS, micros))
