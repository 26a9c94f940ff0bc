"""Windowed counters on Spark: narrow rows, one exchange per key family, the kernel on whole keys.

Entities that share a column (ip, and ip with user agent) share an exchange. Rows pass the families one after the other
and carry their counters along, so nothing is joined; the family with the most counters is the last.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from slidr.features.cargo import LOGGED_IN, MINUTE, WANTED, WEEKDAY, Layout, name_of
from slidr.features.spec import Counter, FeatureSpec
from slidr.features.stage import Stage
from slidr.lake import f_date
from slidr.tables import TYPES, features_table
from slidr.zones import local_time

PACKED = "click_id string, part bigint, cargo binary"
Family = tuple[tuple[str, ...], tuple[Counter, ...]]  # the columns that it is exchanged by, its counters


def build(clicks: DataFrame, *, spec: FeatureSpec, start: date, end: date, known: str, zones: Mapping[str, str]) -> DataFrame:
    """Features of the clicks of [start, end), columns of `features_table(spec)`, one row per click.

    `clicks` must reach back to the start of the longest window before `start`; `known` is `then` (a click counts what
    had arrived by its own arrival) or `now`.
    """
    stages = plan(spec, then=known == "then")
    wanted = F.col("click_date").between(F.expr(f_date(start)), F.date_sub(F.expr(f_date(end)), 1))
    rows = narrow(clicks, stages[0].layout, exchange=families(spec)[0][0], wanted=wanted, zones=zones)
    for stage in stages:
        rows = rows.repartition(F.col("part")).mapInArrow(stage.run, _schema(stage))
    time = F.timestamp_micros("time")
    return rows.withColumns({"click_time": time, "click_date": F.to_date(time), "origin": F.lit(known)}).select(*features_table(spec).names)


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


def plan(spec: FeatureSpec, *, then: bool) -> list[Stage]:
    """What each family's tasks get, count, and hand on."""
    order = families(spec)
    layouts = [_layout(spec, order, number, then) for number in range(len(order))]
    following = [*layouts[1:], None]
    keys = [*[name_of(exchange) for exchange, _ in order[1:]], ""]
    return [Stage(spec, layouts[n], n == 0, counters, following[n], keys[n]) for n, (_, counters) in enumerate(order)]


def _layout(spec: FeatureSpec, order: Sequence[Family], number: int, then: bool) -> Layout:
    """Hashes that this family and those after it need, and the features of those before."""
    keys: list[tuple[str, ...]] = []
    for later, (exchange, counters) in enumerate(order[number:]):
        keys += [exchange] if later else []
        keys += [spec.key_columns(counter.entity) for counter in counters]
        keys += [(counter.distinct,) for counter in counters if counter.distinct]
    made = [column for _, counters in order[:number] for column in _columns(counters)]
    return Layout(tuple((name_of(columns), columns) for columns in dict.fromkeys(keys)), tuple(made), then)


def _schema(stage: Stage) -> str | StructType:
    if stage.next_layout is not None:
        return PACKED
    first = StructType().add("click_id", "string").add("time", "long")
    return reduce(lambda schema, column: schema.add(column.name, TYPES[column.type]), stage.spec.columns, first)


def narrow(clicks: DataFrame, layout: Layout, *, exchange: tuple[str, ...], wanted: Column, zones: Mapping[str, str]) -> DataFrame:
    """click_id, the hash to exchange by, and one integer column for each field of the layout."""
    local = local_time(F.col("click_time"), F.col("marketplace"), zones)
    flags = {MINUTE: F.hour(local) * 60 + F.minute(local), WEEKDAY: F.weekday(local), LOGGED_IN: F.col("logged_in"), WANTED: wanted}
    packed = reduce(Column.bitwiseOR, [F.shiftleft(value.cast("int"), shift) for (shift, _), value in flags.items()])
    columns = {"time": F.unix_micros("click_time"), "arrival": F.unix_micros("arrival_time"), "flags": packed}
    for name, keys in layout.hashes:
        columns[f"hash_{name}"] = _if_known(keys, F.xxhash64(*keys))
        columns[f"check_{name}"] = _if_known(keys, F.hash(*keys).bitwiseOR(F.lit(1)))
    part = F.when(_known(exchange), F.xxhash64(*exchange)).otherwise(F.xxhash64("click_id"))  # rows without the key are nobody's
    return clicks.select("click_id", part.alias("part"), *[columns[name].alias(name) for name in layout.names])


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
