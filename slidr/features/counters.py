"""Windowed counters on Spark: names of files to the tasks, narrow rows, one exchange per key family, the kernel on whole keys.

Entities that share a column (ip, and ip with user agent) share an exchange. Rows pass the families one after the other
and carry their counters along, so nothing is joined; the family with the most counters is the last.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from slidr import data_files
from slidr.buckets import numbered, one_for_each
from slidr.data_files import Files
from slidr.features.cargo import Layout, name_of
from slidr.features.reading import Reading
from slidr.features.spec import Counter, FeatureSpec
from slidr.features.stage import Stage
from slidr.lake import Lake
from slidr.new_files import WRITTEN, Target, Written
from slidr.pyworker import light
from slidr.tables import features_table

PACKED = "bucket int, rows binary"
MADE_OUTSIDE = ("click_date", "origin")  # columns that need not cross from Python
Family = tuple[tuple[str, ...], tuple[Counter, ...]]  # the columns that it is exchanged by, its counters


def build(
    spark: SparkSession, clicks: Files, *, spec: FeatureSpec, start: date, end: date, known: str, zones: Mapping[str, str]
) -> DataFrame:
    """Features of the clicks of [start, end), columns of `features_table(spec)`, one row per click.

    `clicks` must reach back to the start of the longest window before `start`; `known` is `then` (a click counts what
    had arrived by its own arrival) or `now`. Raises InputError, when it runs, for a marketplace without a zone, and for a file of clicks
    that is gone or broken.
    """
    rows, last = _before_last(spark, clicks, spec=spec, start=start, end=end, known=known, zones=zones)
    made = rows.mapInArrow(light(last.run), _schema(last))
    return made.withColumns({"click_date": F.to_date("click_time"), "origin": F.lit(known)}).select(*features_table(spec).names)


def replace_days(
    lake: Lake, clicks: Files, before: Files, days: Sequence[date], *, spec: FeatureSpec, known: str, zones: Mapping[str, str]
) -> int:
    """Puts the features of these consecutive days, as `build` gives them, in the place of `before`, in one commit; returns how many rows.
    The tasks that make the rows write them: on their way through Spark they would cost more than all counting.

    `before` is `there(...)`, looked at before `clicks` were: so no build from older clicks takes the place of one from newer clicks.
    Raises ConflictError where another writer changed these features since; otherwise as `build`.
    """
    target = Target(before.uri, before.table, (("origin", known),))
    end = days[-1] + timedelta(days=1)
    rows, last = _before_last(lake.spark, clicks, spec=spec, start=days[0], end=end, known=known, zones=zones)
    made = rows.mapInArrow(light(lambda batches: last.write(batches, target)), from_arrow_schema(WRITTEN)).collect()
    written = [Written(*row) for row in made]
    data_files.replace_days(lake, target, before, days, written)
    return sum(file.rows for file in written)


def there(lake: Lake, spec: FeatureSpec, days: Sequence[date], known: str) -> Files:
    """The files of these days' features of one origin."""
    return data_files.of(lake, features_table(spec), days, origin=known)


def _before_last(
    spark: SparkSession, clicks: Files, *, spec: FeatureSpec, start: date, end: date, known: str, zones: Mapping[str, str]
) -> tuple[DataFrame, Stage]:
    """What the tasks of the last stage get, and that stage."""
    *stages, last = plan(spec, known=known, tasks=int(str(spark.conf.get("spark.sql.shuffle.partitions"))))
    layout, exchange = (stages[0] if stages else last).layout, families(spec)[0][0]
    reading = Reading(clicks, layout, exchange, (start, end), dict(zones) if spec.time_of_click else None, last.buckets)
    shared = spark.sparkContext.broadcast(reading)  # names of files may be many
    rows = numbered(spark, len(clicks.files)).mapInArrow(light(lambda batches: shared.value.run(batches)), PACKED)
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
    return sorted(found, key=lambda family: len(_columns(family[1]))) or [((), ())]


def _columns(counters: Sequence[Counter]) -> list[tuple[str, str]]:
    return [(column.name, column.type) for column in FeatureSpec((), tuple(counters), False, False).columns]


def plan(spec: FeatureSpec, *, known: str, tasks: int) -> list[Stage]:
    """What each family's tasks get, count, and hand on."""
    order = families(spec)
    layouts = [_layout(spec, order, number, known == "then") for number in range(len(order))]
    following = [*layouts[1:], None]
    keys = [*[name_of(exchange) for exchange, _ in order[1:]], ""]
    buckets = one_for_each(tasks)
    return [Stage(spec, layouts[n], counters, following[n], keys[n], buckets) for n, (_, counters) in enumerate(order)]


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


def prefer_logged(features: DataFrame) -> DataFrame:
    """One row per click of a features table: what a live system logged, else what was known then."""
    logged = features.where("origin = 'logged'")
    rest = features.where("origin = 'then'").join(logged.select("click_id"), on="click_id", how="left_anti")
    return logged.unionByName(rest)
