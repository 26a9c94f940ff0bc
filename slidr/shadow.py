"""Champion and challengers: what other versions would have decided of the same clicks. Never published."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr.bundle import forward
from slidr.errors import InputError
from slidr.lake import Lake
from slidr.pyworker import light
from slidr.scoring import USED, packed, with_verdict
from slidr.slices import slice_name
from slidr.tables import DECISIONS, SHADOW_DECISIONS
from slidr.version import Version

BY = ("report_slice", "advertiser_id", "currency")  # what differences are counted by
MONEY = ("cost_only_decided", "cost_only_shadow")
KINDS = ("both_valid", "both_invalid", "only_decided_invalid", "only_shadow_invalid")


def shadow_decisions(
    clicks: DataFrame, features: DataFrame, versions: Sequence[Version], *, run_id: str, decided_time: datetime
) -> DataFrame:
    """Rows of `shadow_decisions`: every click by every version, in one pass over clicks and features.

    `features` has at most one row per click, of the spec that all versions share. Raises InputError where they don't share one.
    """
    _require_one_spec(versions)
    used = {USED + name: F.col(name) for name in sorted({name for v in versions for name in v.bundle.slices.features})}
    scores = features.withColumn("scores", _scores(versions)).withColumns(used).select("click_id", "scores", *used)
    rows = clicks.join(scores, on="click_id", how="left")
    for place, version in enumerate(versions):
        suffix = f"_{place}"
        named = {f"score{suffix}": F.col("scores")[place], f"slice{suffix}": slice_name(version.bundle.slices, features=USED)}
        rows = with_verdict(rows.withColumns(named), version.bundle, suffix)
    verdicts = F.array(*[_verdict(version, f"_{place}") for place, version in enumerate(versions)])
    written = {"run_id": F.lit(run_id), "decided_time": F.lit(decided_time)}
    exploded = rows.select("click_id", "click_date", F.explode(verdicts).alias("verdict")).select("click_id", "click_date", "verdict.*")
    return exploded.withColumns(written).select(*SHADOW_DECISIONS.names)


def _require_one_spec(versions: Sequence[Version]) -> None:
    specs = {version.number: version.bundle.spec.spec_id for version in versions}
    if len(set(specs.values())) != 1:
        raise InputError(f"expected versions that read one feature spec, found {specs}; shadow those of each spec in a run of their own")


def _scores(versions: Sequence[Version]) -> Column:
    bundles = [version.bundle for version in versions]

    @F.pandas_udf("array<double>")  # type: ignore[call-overload, untyped-decorator] # its types lack the default kind of function
    @light
    def score(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for batch in batches:
            x_BF = np.stack(batch.to_list())
            yield pd.Series(list(np.stack([forward(bundle, x_BF) for bundle in bundles], axis=1)))

    found: Column = score(packed(bundles[0]))
    return found


def _verdict(version: Version, suffix: str) -> Column:
    own = [F.col(f"{name}{suffix}").alias(name) for name in ("slice", "score", "threshold", "is_invalid", "basis")]
    return F.struct(F.lit(version.number).alias("model_version"), *own, F.lit(version.bundle.spec.spec_id).alias("spec_id"))


def write(lake: Lake, found: DataFrame, days: Sequence[date]) -> int:
    """Inserts the rows of these days that the table lacks, and returns how many."""
    kept = found.persist(StorageLevel.MEMORY_AND_DISK)
    new = lake.insert_new(kept, SHADOW_DECISIONS, days)
    kept.unpersist()
    return new


def differences(lake: Lake, days: Sequence[date], where: Column, versions: Sequence[str]) -> list[dict[str, Any]]:
    """First decisions beside these versions' shadow decisions, of clicks that have both: model_version, BY, KINDS (clicks),
    cost_only_decided, cost_only_shadow (micro-units of clicks that one of them alone calls invalid; unknown costs count as clicks only).

    `where` narrows the clicks; the result is small: versions x report slices x advertisers x currencies.
    """
    decided = lake.read(DECISIONS, days).where(where).select("click_id", "is_invalid", "cost_micros", *BY)
    shadow = lake.read(SHADOW_DECISIONS, days).where(F.col("model_version").isin(list(versions)))
    both = decided.join(shadow.select("click_id", "model_version", F.col("is_invalid").alias("shadow_invalid")), on="click_id", how="inner")
    own, other = F.col("is_invalid"), F.col("shadow_invalid")
    kinds = dict(zip(KINDS, (~own & ~other, own & other, own & ~other, ~own & other), strict=True))
    sums = [F.count_if(condition).alias(name) for name, condition in kinds.items()]
    sums += [
        F.coalesce(F.sum(F.when(kinds[f"only_{who}_invalid"], F.col("cost_micros"))), F.lit(0)).alias(f"cost_only_{who}")
        for who in ("decided", "shadow")
    ]
    rows = both.groupBy("model_version", *BY).agg(*sums).orderBy("model_version", *BY).collect()
    return [row.asDict() for row in rows]


def summed(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> list[dict[str, Any]]:
    """`differences` added up by these of its columns, those with most clicks that differ first; `differ` is their share. Money only
    where `by` keeps currencies apart."""
    numbers = [*KINDS, *(MONEY if "currency" in by else ())]
    sums = pd.DataFrame(rows, columns=["model_version", *BY, *KINDS, *MONEY]).groupby(list(by), as_index=False)[numbers].sum()
    apart = sums["only_decided_invalid"] + sums["only_shadow_invalid"]
    sums.insert(len(by), "clicks", sums[list(KINDS)].sum(axis=1))
    sums.insert(len(by) + 1, "differ", apart / sums["clicks"])
    found: list[dict[str, Any]] = (
        sums.assign(apart=apart).sort_values("apart", ascending=False, kind="stable").drop(columns="apart").to_dict("records")
    )
    return found
