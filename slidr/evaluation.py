"""How good decisions are: IVR, FPR and robotic coverage, from one small score histogram per slice.

All of it is of unweighted clicks. FPR is a lower estimate of the harm to people: purchasing clicks are the most human ones.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr.curves import BAD_BIN, BINS, TOTAL, Curve, pool, share

METRIC_COLUMNS = (
    "slice",
    "threshold",
    "clicks",
    "invalid",
    "ivr",
    "purchasing",
    "purchasing_invalid",
    "fpr",
    "high_rfm",
    "high_rfm_invalid",
    "high_rfm_fpr",
    "heavy",
    "heavy_invalid",
    "coverage",
)


def score_bin(score: Column) -> Column:
    """ceil(score * 10000) of a score with 6 decimals, in whole millionths: 0.0007 * 10000 would exceed 7 as a double.

    NULL for NULL; -1 for NaN and scores outside [0, 1].
    """
    millionths = F.round(score * 1_000_000).cast("bigint")
    valid = ~F.isnan(score) & score.between(0.0, 1.0)
    per_bin = 1_000_000 // BINS
    return F.when(valid, F.floor((millionths + F.lit(per_bin - 1)) / F.lit(per_bin)).cast("int")).when(score.isNotNull(), F.lit(BAD_BIN))


def score_histogram(scored: DataFrame, *, by: Sequence[str] = ()) -> DataFrame:
    """One row per slice and occupied score bin: slice, bin, clicks, purchasing, high_rfm, heavy. One aggregation.

    `by` names further columns to count apart, such as the method or the part of the clicks. `scored` has one row per
    labelled click: slice, score, is_purchase, label_reason, in_heavy_session. Clicks without a score are left out. NaN and
    scores outside [0, 1] go to bin -1, which `curves` refuses. At most slices x 10002 rows.
    """
    bins = scored.select(
        *by,
        "slice",
        score_bin(F.col("score")).alias("bin"),
        F.col("is_purchase").alias("purchasing"),
        ((F.col("label_reason") == "rfm") & ~F.col("is_purchase")).alias("high_rfm"),
        F.col("in_heavy_session").alias("heavy"),
    )
    counted = bins.where(F.col("bin").isNotNull()).groupBy(*by, "slice", "bin")
    return counted.agg(
        F.count(F.lit(1)).alias("clicks"),
        F.count_if("purchasing").alias("purchasing"),
        F.count_if("high_rfm").alias("high_rfm"),
        F.count_if("heavy").alias("heavy"),
    )


def slice_metrics(curves: Mapping[str, Curve], thresholds: Mapping[str, float], default: float) -> pd.DataFrame:
    """One row per slice, then one of all slices (slice `(all)`, no threshold): counts and shares at the thresholds.

    Columns METRIC_COLUMNS; a slice without a threshold of its own gets `default`; shares of nothing are NaN.
    """
    rows = []
    for name, curve in curves.items():
        threshold = thresholds.get(name, default)
        rows.append({"slice": name, "threshold": threshold} | curve.at(threshold))
    table = pd.DataFrame(rows, columns=list(METRIC_COLUMNS))
    return pd.concat([table, pd.DataFrame([_total(table)])], ignore_index=True)


def _total(table: pd.DataFrame) -> dict[str, object]:
    counts = ("clicks", "invalid", "purchasing", "purchasing_invalid", "high_rfm", "high_rfm_invalid", "heavy", "heavy_invalid")
    total: dict[str, object] = {"slice": TOTAL, "threshold": float("nan")}
    sums = {name: int(table[name].sum()) for name in counts}
    total |= sums
    total["ivr"] = share(sums["invalid"], sums["clicks"])
    total["fpr"] = share(sums["purchasing_invalid"], sums["purchasing"])
    total["high_rfm_fpr"] = share(sums["high_rfm_invalid"], sums["high_rfm"])
    total["coverage"] = share(sums["heavy_invalid"], sums["heavy"])
    return {name: total[name] for name in METRIC_COLUMNS}


def compare_at_budget(curves_by_method: Mapping[str, Mapping[str, Curve]], budget: float) -> pd.DataFrame:
    """One row per method (`mlp`, `logistic`, `velocity` …) at one global threshold of the same FPR budget.

    Columns: method, then those of METRIC_COLUMNS but `slice`. The curves must be of the same clicks. Raises InputError
    without purchasing clicks.
    """
    rows = []
    for method, curves in curves_by_method.items():
        curve = pool(curves)
        threshold = curve.threshold_at_fpr(budget)
        rows.append({"method": method, "threshold": threshold} | curve.at(threshold))
    return pd.DataFrame(rows, columns=["method", *METRIC_COLUMNS[1:]])
