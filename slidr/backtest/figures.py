"""How the decisions of each day turned out: IVR, FPR, robotic coverage and money, by day and slice, beside the budget.

Counted once in Spark, by day, slice and version; everything else is sums of these counts. All clicks that were decided count, as
elsewhere; money is that of slidr's own invalid clicks (`sivt`): what the upstream filter made free was free already.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from slidr import evaluation
from slidr.evaluation import SHARES

DECIDED = "decided"  # as it was decided; other methods carry the name of their calibration
COUNTS = [name for pair in SHARES.values() for name in pair]

Calibrations = Mapping[str, Mapping[str, Mapping[str, Any]]]  # version -> method -> thresholds (by slice), default_threshold


@dataclass(frozen=True)
class Counted:
    """`counts`: click_date, slice, model_version, method and COUNTS; `money`: click_date, currency, micros (NaN without a known
    cost); `labelled`: click_date -> clicks with a label, decided or not."""

    counts: pd.DataFrame
    money: pd.DataFrame
    labelled: Mapping[Any, int]


def count(decisions: DataFrame, labels: DataFrame, calibrations: Calibrations) -> Counted:
    """Both hold the judged days; a decision without a label is not judged. `calibrations`: what the versions' bundles hold of other
    methods' thresholds, which decide on the same scores."""
    rows = decisions.join(labels.select("click_id", "is_purchase", "label_reason", "in_heavy_session"), on="click_id", how="inner")
    methods = sorted({method for found in calibrations.values() for method in found})
    decided = _with_thresholds(rows, calibrations, methods).withColumn(f"invalid_{DECIDED}", F.col("is_invalid"))
    for method in methods:
        by_score = F.col("score") > F.col(f"threshold_{method}")
        applies = F.col("basis").isin("model", "unseen_slice")
        decided = decided.withColumn(f"invalid_{method}", F.when(applies, by_score).otherwise(F.col("is_invalid")))
    by = ("click_date", "slice", "model_version")
    counts: pd.DataFrame = evaluation.decided_counts(decided, by=by, deciders=[DECIDED, *methods]).toPandas()
    known = [row.method == DECIDED or row.method in calibrations.get(row.model_version, {}) for row in counts.itertuples()]
    credited = rows.where("ivt_class = 'sivt'").groupBy("click_date", "currency").agg(F.sum("cost_micros").alias("micros"))
    labelled = {row[0]: row[1] for row in labels.groupBy("click_date").count().collect()}  # one row a day
    return Counted(counts[pd.Series(known, dtype=bool)].reset_index(drop=True), credited.toPandas(), labelled)


def _with_thresholds(rows: DataFrame, calibrations: Calibrations, methods: list[str]) -> DataFrame:
    """The rows with `threshold_<method>`: that of the click's slice, else the method's default; NULL where the version has none."""
    if not methods:
        return rows
    own: dict[tuple[str, str], dict[str, float]] = {}
    for version, found in calibrations.items():
        for method, chosen in found.items():
            for name, threshold in {**chosen["thresholds"], "": chosen["default_threshold"]}.items():
                own.setdefault((version, name), {})[method] = float(threshold)
    schema = T.StructType([T.StructField(name, T.StringType()) for name in ("model_version", "slice")])
    for method in methods:
        schema = schema.add(f"own_{method}", T.DoubleType())
    table = [(*key, *[chosen.get(method) for method in methods]) for key, chosen in own.items()]
    by_slice = F.broadcast(rows.sparkSession.createDataFrame(table, schema))
    renamed = {f"own_{method}": f"default_{method}" for method in methods}
    default = by_slice.where("slice = ''").drop("slice").withColumnsRenamed(renamed)
    both = rows.join(by_slice, on=["model_version", "slice"], how="left").join(default, on="model_version", how="left")
    return both.withColumns({f"threshold_{method}": F.coalesce(f"own_{method}", f"default_{method}") for method in methods})


def shares(counted: Counted, *by: str, budget: float, method: str = DECIDED) -> pd.DataFrame:
    """Counts of one method summed by `by`, with the four shares, their intervals, `over` and `surely_over` (see `_beside`)."""
    return _beside(evaluation.rolled_up(counted.counts[counted.counts["method"] == method], by), budget)


def total(counted: Counted, *, budget: float, method: str = DECIDED) -> dict[str, Any]:
    """One row over all days, with the days over budget, and `days`: those on which somebody purchased."""
    sums = counted.counts.loc[counted.counts["method"] == method, COUNTS].sum()
    whole = _beside(evaluation.with_shares(pd.DataFrame([sums])), budget)
    return {**whole.to_dict("records")[0], **over_days(shares(counted, "click_date", budget=budget, method=method))}


def by_slice(counted: Counted, *, budget: float, method: str = DECIDED) -> list[dict[str, Any]]:
    """One row per slice over all days, with its days over budget."""
    days = shares(counted, "slice", "click_date", budget=budget, method=method)
    whole = shares(counted, "slice", budget=budget, method=method)
    return [{**row, **over_days(days[days["slice"] == row["slice"]])} for row in whole.to_dict("records")]


def over_days(days: pd.DataFrame) -> dict[str, Any]:
    """`days` with an FPR, `days_over` by the estimate, `days_surely_over` by the lower end of the interval, and both as shares."""
    known = int(days["fpr"].notna().sum())
    over, surely = int(days["over"].sum()), int(days["surely_over"].sum())
    named = {"share_over": over / known if known else float("nan"), "share_surely_over": surely / known if known else float("nan")}
    return {"days": known, "days_over": over, "days_surely_over": surely, **named}


def money(counted: Counted, day: Any = None) -> dict[str, int]:
    """Currency -> micro-units of slidr's invalid clicks, of one day or all; a currency without a known cost is left out."""
    rows = counted.money if day is None else counted.money[counted.money["click_date"] == day]
    return {str(name): int(part.sum()) for name, part in rows.dropna().groupby("currency")["micros"]}


def _beside(table: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Adds `over` (FPR above the budget) and `surely_over` (the lower end of its interval too); False where FPR is not known."""
    return table.assign(over=table["fpr"] > budget, surely_over=table["fpr_low"] > budget)
