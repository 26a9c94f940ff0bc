"""Two builds of the features of the same clicks beside each other: equal cells, sizes of differences, worst hours and keys."""

from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr.features.spec import FeatureSpec

WORST = 10
ENOUGH = 250_000  # clicks: a share of them is known to a fifth of a percent
QUANTILES = {"median": 0.5, "p95": 0.95, "max": 1.0}


def sampled(rows: DataFrame, clicks: int) -> DataFrame:
    """The rows of about ENOUGH of so many clicks, or of all where there are no more: one click of every few by a hash of its id, the same
    ones in every table."""
    one_of = -(-clicks // ENOUGH)
    return rows.where(F.pmod(F.xxhash64("click_id"), F.lit(one_of)) == 0) if one_of > 1 else rows


def side_by_side(new: DataFrame, stored: DataFrame, spec: FeatureSpec) -> DataFrame:
    """click_id, click_time, and each feature as `NAME` (new) and `old_NAME` (stored), of the clicks that both have."""
    names = [column.name for column in spec.columns]
    old = stored.select("click_id", *[F.col(name).cast("double").alias(f"old_{name}") for name in names])
    return new.select("click_id", "click_time", *[F.col(name).cast("double") for name in names]).join(old, on="click_id", how="inner")


def differences(both: DataFrame, spec: FeatureSpec) -> list[dict[str, Any]]:
    """One entry per feature, in one pass: clicks `compared`, `equal` (NULL equals NULL), `mean_stored`, `mean_new`, and of the
    absolute differences where both are known `median`, `p95` and `max`."""
    names = [column.name for column in spec.columns]
    sums = [F.count(F.lit(1)).alias("compared")]
    for name in names:
        sums.append(F.count_if(_equal(name)).alias(f"equal_{name}"))
        sums += [F.avg(f"old_{name}").alias(f"stored_{name}"), F.avg(name).alias(f"new_{name}")]
        apart = F.abs(F.col(name) - F.col(f"old_{name}"))
        sums.append(F.percentile_approx(apart, list(QUANTILES.values()), 1000).alias(f"apart_{name}"))
    row = both.agg(*sums).collect()[0]
    return [
        {
            "feature": name,
            "compared": row["compared"],
            "equal": row[f"equal_{name}"],
            "mean_stored": row[f"stored_{name}"],
            "mean_new": row[f"new_{name}"],
            **dict(zip(QUANTILES, row[f"apart_{name}"] or [None] * len(QUANTILES), strict=True)),
        }
        for name in names
    ]


def by_hour(both: DataFrame, spec: FeatureSpec) -> list[dict[str, Any]]:
    """hour (UTC), clicks, and how many of them differ in any feature; in order."""
    hours = both.groupBy(F.date_trunc("hour", "click_time").alias("hour"))
    rows = hours.agg(F.count(F.lit(1)).alias("clicks"), F.count_if(_differs([c.name for c in spec.columns])).alias("differing"))
    return [row.asDict() for row in rows.orderBy("hour").collect()]  # one row an hour


def worst_keys(both: DataFrame, clicks: DataFrame, spec: FeatureSpec) -> list[dict[str, Any]]:
    """Keys with the most clicks that differ in a feature of their entity; a key is named by one of its clicks, never itself."""
    rows: list[dict[str, Any]] = []
    for entity in dict.fromkeys(counter.entity for counter in spec.counters):
        names = [c.name for c in FeatureSpec(spec.entities, tuple(c for c in spec.counters if c.entity == entity), False, False).columns]
        keys = list(spec.key_columns(entity))
        differing = both.where(_differs(names)).select("click_id")
        of_key = clicks.select("click_id", *keys).dropna(subset=keys).join(differing, on="click_id", how="inner").groupBy(*keys)
        worst = of_key.agg(F.count(F.lit(1)).alias("clicks"), F.min("click_id").alias("click_id")).orderBy(F.desc("clicks"), "click_id")
        rows += [{"entity": entity, "differing": r["clicks"], "one of its clicks": r["click_id"]} for r in worst.limit(WORST).collect()]
    return sorted(rows, key=lambda row: (-row["differing"], row["entity"], row["one of its clicks"]))[:WORST]


def _differs(names: list[str]) -> Column:
    return reduce(Column.__or__, [~_equal(name) for name in names])


def _equal(name: str) -> Column:
    return F.col(name).eqNullSafe(F.col(f"old_{name}"))
