"""Windowed counters on Spark: narrow integer rows, one exchange per key family, the kernel on whole keys.

Entities whose key starts with the same column (ip, and ip with user agent) share an exchange. Rows pass the families one
after the other and gain columns, so nothing is joined. Memory of a task grows with the clicks of its keys in the window
read, about 300 bytes each.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import reduce

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr.features import kernel
from slidr.features.spec import Counter, FeatureSpec
from slidr.lake import f_date
from slidr.tables import TYPES, features_table
from slidr.zones import local_time

COLLISION = "two different keys of the entity {entity} have the same 64-bit hash; nothing was written; report this with the input"


def build(clicks: DataFrame, *, spec: FeatureSpec, start: date, end: date, known: str, zones: Mapping[str, str]) -> DataFrame:
    """Features of the clicks of [start, end), columns of `features_table(spec)`, one row per click.

    `clicks` must reach back to the start of the longest window before `start`; `known` is `then` (a click counts what
    had arrived by its own arrival) or `now`.
    """
    rows = narrow(clicks, spec=spec, start=start, end=end, zones=zones)
    for family, entities in families(spec).items():
        counters = [counter for counter in spec.counters if counter.entity in entities]
        rows = _count(rows, family=family, counters=counters, then=known == "then")
    return _finish(rows.where("wanted"), spec=spec, known=known)


def families(spec: FeatureSpec) -> dict[str, list[str]]:
    """First key column -> entities that a counter uses."""
    used = {counter.entity for counter in spec.counters}
    result: dict[str, list[str]] = {}
    for entity, columns in spec.entities:
        if entity in used:
            result.setdefault(columns[0], []).append(entity)
    return result


def narrow(clicks: DataFrame, *, spec: FeatureSpec, start: date, end: date, zones: Mapping[str, str]) -> DataFrame:
    """Integer rows: hashes of the keys and of the distinct values, times, and whether the row is asked for."""
    local = local_time(F.col("click_time"), F.col("marketplace"), zones)
    columns = [
        F.col("click_id"),
        F.unix_micros("click_time").alias("time"),
        F.unix_micros("arrival_time").alias("arrival"),
        F.col("click_date").between(F.expr(f_date(start)), F.date_sub(F.expr(f_date(end)), 1)).alias("wanted"),
        (F.hour(local) * 60 + F.minute(local)).alias("local_minute"),
        F.weekday(local).alias("local_weekday"),
        F.col("logged_in").cast("int").alias("logged_in"),
    ]
    for family in families(spec):
        columns.append(F.coalesce(_hash([family]), F.xxhash64("click_id")).alias(f"family_{family}"))
    for entity in [entity for entities in families(spec).values() for entity in entities]:
        keys = list(spec.key_columns(entity))
        columns += [_hash(keys).alias(f"key_{entity}"), _hash(keys, "second").alias(f"check_{entity}")]
    columns += [_hash([name]).alias(f"value_{name}") for name in sorted({c.distinct for c in spec.counters if c.distinct})]
    return clicks.select(columns)


def _hash(names: list[str], salt: str = "first") -> Column:
    """64-bit hash of a key; NULL where any part is NULL (xxhash64 itself skips NULLs)."""
    any_null = reduce(lambda a, b: a | b, [F.col(name).isNull() for name in names])
    return F.when(~any_null, F.xxhash64(F.lit(salt), *[F.col(name) for name in names]))


def _count(rows: DataFrame, *, family: str, counters: list[Counter], then: bool) -> DataFrame:
    """Exchanges the rows by the family's key and adds its counters; the family's own hashes are dropped."""
    entities = sorted({counter.entity for counter in counters})
    spent = [f"family_{family}", *[f"{kind}_{entity}" for entity in entities for kind in ("key", "check")]]
    kept = [field for field in rows.schema.fields if field.name not in spent]
    added = FeatureSpec((), tuple(counters), False, False).columns
    schema = reduce(lambda s, c: s.add(c.name, TYPES[c.type]), added, type(rows.schema)(list(kept)))
    task = _task([field.name for field in kept], counters, then)
    return rows.repartition(F.col(f"family_{family}")).mapInArrow(task, schema)


def _task(kept: list[str], counters: list[Counter], then: bool) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def count_partition(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        received = list(batches)
        if not received:
            return
        table = pa.Table.from_batches(received)
        result = table.select(kept)
        for name, feature in _features(table, counters, then).items():
            result = result.append_column(name, _arrow(name, feature, counters))
        yield from result.to_batches(max_chunksize=50_000)

    return count_partition


def _features(table: pa.Table, counters: list[Counter], then: bool) -> dict[str, kernel.Result]:
    time = _ints(table["time"])
    arrival = _ints(table["arrival"]) if then else None
    distinct = {c.distinct: _values(table[f"value_{c.distinct}"]) for c in counters if c.distinct}
    results: dict[str, kernel.Result] = {}
    for entity in dict.fromkeys(counter.entity for counter in counters):
        key = _values(table[f"key_{entity}"])
        _refuse_collisions(entity, key, _ints(table[f"check_{entity}"]))
        results |= kernel.count(key, time, [c for c in counters if c.entity == entity], distinct, arrival)
    return {name: results[name] for c in counters for name in results if name.startswith(f"{c.entity}_{c.measure}")}


def _refuse_collisions(entity: str, key: kernel.Values, check: np.ndarray) -> None:
    order = np.argsort(key.code[key.known], kind="stable")
    code, second = key.code[key.known][order], check[key.known][order]
    if np.any((code[1:] == code[:-1]) & (second[1:] != second[:-1])):
        raise ValueError(COLLISION.format(entity=entity))


def _ints(column: pa.ChunkedArray) -> np.ndarray:
    return column.fill_null(0).to_numpy().astype(np.int64, copy=False)


def _values(column: pa.ChunkedArray) -> kernel.Values:
    return kernel.Values(_ints(column), column.is_valid().to_numpy())


def _arrow(name: str, feature: kernel.Result, counters: list[Counter]) -> pa.Array:
    is_double = any(c.measure == "since_prev" and name == f"{c.entity}_since_prev" for c in counters)
    kind = pa.float64() if is_double else pa.int32()
    return pa.array(feature.value.astype(kind.to_pandas_dtype()), type=kind, mask=~feature.known)


def _finish(rows: DataFrame, *, spec: FeatureSpec, known: str) -> DataFrame:
    hour, weekday = F.col("local_minute") * (2 * np.pi / 1440), F.col("local_weekday") * (2 * np.pi / 7)
    derived = {"hour_sin": F.sin(hour), "hour_cos": F.cos(hour), "weekday_sin": F.sin(weekday), "weekday_cos": F.cos(weekday)}
    time = F.timestamp_micros("time")
    keys = {"click_time": time, "click_date": F.to_date(time), "origin": F.lit(known)}
    wanted = {**keys, **{name: column for name, column in derived.items() if spec.time_of_click}}
    return rows.withColumns(wanted).select(*features_table(spec).names)


def prefer_logged(features: DataFrame) -> DataFrame:
    """One row per click of a features table: what a live system logged, else what was known then."""
    logged = features.where("origin = 'logged'")
    rest = features.where("origin = 'then'").join(logged.select("click_id"), on="click_id", how="left_anti")
    return logged.unionByName(rest)
