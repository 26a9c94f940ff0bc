"""Champion and challengers: how what other versions would have decided differs from what was decided. Never published."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pandas as pd
from pyspark.sql import Column
from pyspark.sql import functions as F

from slidr.lake import Lake
from slidr.tables import DECISIONS, SHADOW_DECISIONS

BY = ("report_slice", "advertiser_id", "currency")  # what differences are counted by
MONEY = ("cost_only_decided", "cost_only_shadow")
KINDS = ("both_valid", "both_invalid", "only_decided_invalid", "only_shadow_invalid")


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
