"""Windowed counters on Spark: narrow rows, one exchange per key family, the kernel on whole keys.

Entities that share a column (ip, and ip with user agent) share an exchange. Rows pass the families one after the other
and carry their counters along, so nothing is joined; the family with the most counters is the last.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from slidr import data_files
from slidr.features.cargo import FLAGS, LOGGED_IN, MINUTES, WANTED, Layout, name_of
from slidr.features.spec import UNITS, Counter, FeatureSpec
from slidr.features.stage import Stage
from slidr.lake import Lake, f_date
from slidr.new_files import WRITTEN, Target, Written
from slidr.pyworker import light
from slidr.tables import features_table
from slidr.zones import local_time

PACKED = "bucket int, rows binary"
MADE_OUTSIDE = ("click_date", "origin")  # columns that need not cross from Python
Family = tuple[tuple[str, ...], tuple[Counter, ...]]  # the columns that it is exchanged by, its counters


def build(clicks: DataFrame, *, spec: FeatureSpec, start: date, end: date, known: str, zones: Mapping[str, str]) -> DataFrame:
    """Features of the clicks of [start, end), columns of `features_table(spec)`, one row per click.

    `clicks` must reach back to the start of the longest window before `start`; `known` is `then` (a click counts what
    had arrived by its own arrival) or `now`.
    """
    rows, last = _before_last(clicks, spec=spec, start=start, end=end, known=known, zones=zones)
    made = rows.mapInArrow(light(last.run), _schema(last))
    return made.withColumns({"click_date": F.to_date("click_time"), "origin": F.lit(known)}).select(*features_table(spec).names)


def replace_days(lake: Lake, clicks: DataFrame, days: Sequence[date], *, spec: FeatureSpec, known: str, zones: Mapping[str, str]) -> int:
    """Puts the features of these consecutive days, as `build` gives them, in the place of those that are there, in one commit; returns
    how many rows. The tasks that make the rows write them: on their way through Spark they would cost more than all counting.

    Raises ConflictError where another writer changed these features meanwhile.
    """
    before = data_files.of(lake, features_table(spec), days, origin=known)
    target = Target(before.uri, before.table, (("origin", known),))
    rows, last = _before_last(clicks, spec=spec, start=days[0], end=days[-1] + timedelta(days=1), known=known, zones=zones)
    made = rows.mapInArrow(light(lambda batches: last.write(batches, target)), from_arrow_schema(WRITTEN)).collect()
    written = [Written(*row) for row in made]
    data_files.replace_days(lake, target, before, days, written)
    return sum(file.rows for file in written)


def _before_last(
    clicks: DataFrame, *, spec: FeatureSpec, start: date, end: date, known: str, zones: Mapping[str, str]
) -> tuple[DataFrame, Stage]:
    """What the tasks of the last stage get, and that stage."""
    tasks = int(str(clicks.sparkSession.conf.get("spark.sql.shuffle.partitions")))
    *stages, last = plan(spec, known=known, tasks=tasks)
    wanted = F.col("click_date").between(F.expr(f_date(start)), F.date_sub(F.expr(f_date(end)), 1))
    local = zones if spec.time_of_click else None
    first = stages[0] if stages else last
    rows = narrow(clicks, first.layout, exchange=families(spec)[0][0], wanted=wanted, zones=local)
    for stage in stages:
        rows = rows.repartition(F.col("bucket")).drop("bucket").mapInArrow(light(stage.run), PACKED)
    return rows.repartition(F.col("bucket")).drop("bucket"), last


def families(spec: FeatureSpec) -> list[Family]:
    """Families of a spec, the one with the most features last; at least one.

    An entity whose key holds all columns of another's shares its exchange: equal keys are equal in these columns too.
    """
    counted = {name: columns for name, columns in spec.entities if any(counter.entity == name for counter in spec.counters)}
    shared: dict[tuple[str, ...], list[str]] = {}
    for name, columns in sorted(counted.items(), key=lambda item: len(item[1])):
        host = next((exchange for exchange in shared if set(exchange) <= set(columns)), columns)
        shared.setdefault(host, []).append(name)
    found = [(exchange, tuple(c for c in spec.counters if c.entity in entities)) for exchange, entities in shared.items()]
    return sorted(found, key=lambda family: len(_columns(family[1]))) or [(("session_id",), ())]


def _columns(counters: Sequence[Counter]) -> list[tuple[str, str]]:
    return [(column.name, column.type) for column in FeatureSpec((), tuple(counters), False, False).columns]


def plan(spec: FeatureSpec, *, known: str, tasks: int) -> list[Stage]:
    """What each family's tasks get, count, and hand on."""
    order = families(spec)
    layouts = [_layout(spec, order, number, known == "then") for number in range(len(order))]
    following = [*layouts[1:], None]
    keys = [*[name_of(exchange) for exchange, _ in order[1:]], ""]
    buckets = one_for_each(tasks)
    return [Stage(spec, layouts[n], n == 0, counters, following[n], keys[n], buckets) for n, (_, counters) in enumerate(order)]


def one_for_each(tasks: int) -> tuple[int, ...]:
    """Numbers of which Spark's hash exchange sends one to each task: each number's hash (murmur3, seed 42) modulo `tasks`
    is another task."""
    numbers = np.arange(40 * tasks + 100, dtype=np.uint32)
    _, first = np.unique(_murmur3(numbers).astype(np.int32).astype(np.int64) % tasks, return_index=True)
    return tuple(int(number) for number in numbers[first])


def _murmur3(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Spark's hash of an int (MurmurHash3 x86 32 of four bytes, seed 42)."""
    mixed = _rotated(numbers * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
    mixed = _rotated(mixed ^ np.uint32(42), 13) * np.uint32(5) + np.uint32(0xE6546B64)
    mixed ^= np.uint32(4)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    return mixed ^ (mixed >> np.uint32(16))


def _rotated(numbers: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    return (numbers << np.uint32(bits)) | (numbers >> np.uint32(32 - bits))


def _layout(spec: FeatureSpec, order: Sequence[Family], number: int, then: bool) -> Layout:
    """Hashes that this family and those after it need, and the features of those before."""
    keys: list[tuple[str, ...]] = []
    for later, (exchange, counters) in enumerate(order[number:]):
        keys += [exchange] if later else []
        keys += [spec.key_columns(counter.entity) for counter in counters]
        keys += [(counter.distinct,) for counter in counters if counter.distinct]
    made = [column for _, counters in order[:number] for column in _columns(counters)]
    return Layout(tuple((name_of(columns), columns) for columns in dict.fromkeys(keys)), tuple(made), then)


def _schema(last: Stage) -> StructType:
    return StructType([field for field in features_table(last.spec).schema if field.name not in MADE_OUTSIDE])


def narrow(clicks: DataFrame, layout: Layout, *, exchange: tuple[str, ...], wanted: Column, zones: Mapping[str, str] | None) -> DataFrame:
    """click_id, the hash to exchange by, and one integer column for each field of the layout. Without zones, the minute of the
    week is 0."""
    flags = {LOGGED_IN: F.col("logged_in"), WANTED: wanted}
    minute = F.lit(0)
    if zones:
        local = F.unix_micros(local_time(F.col("click_time"), F.col("marketplace"), zones))
        minute = F.shiftleft(F.pmod(F.floor(local / UNITS["m"]), F.lit(MINUTES)).cast("int"), FLAGS)
    columns = {
        "time": F.unix_micros("click_time"),
        "arrival": F.unix_micros("arrival_time"),
        "moment": reduce(Column.bitwiseOR, [F.shiftleft(value.cast("int"), bit) for bit, value in flags.items()], minute),
    }
    for name, keys in layout.hashes:
        columns[f"hash_{name}"] = _if_known(keys, F.xxhash64(*keys))
        columns[f"check_{name}"] = _if_known(keys, F.hash(*keys).bitwiseOR(F.lit(1)))
    bucket = F.when(_known(exchange), F.xxhash64(*exchange)).otherwise(F.xxhash64("click_id"))  # rows without the key are nobody's
    return clicks.select("click_id", bucket.alias("bucket"), *[columns[name].alias(name) for name in layout.names])


def _known(keys: Sequence[str]) -> Column:
    return reduce(Column.__and__, [F.col(key).isNotNull() for key in keys])


def _if_known(keys: Sequence[str], value: Column) -> Column:
    """0 where any part is NULL: the hashes themselves skip NULLs."""
    return F.when(_known(keys), value).otherwise(F.lit(0))


def prefer_logged(features: DataFrame) -> DataFrame:
    """One row per click of a features table: what a live system logged, else what was known then."""
    logged = features.where("origin = 'logged'")
    rest = features.where("origin = 'then'").join(logged.select("click_id"), on="click_id", how="left_anti")
    return logged.unionByName(rest)
