"""The simulator's own evaluation: decisions against who really made the clicks. No other part of slidr reads this."""

from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from slidr.curves import Curve, curves, pool
from slidr.errors import InputError
from slidr.evaluation import score_histogram


def read_truth(spark: SparkSession, folder: str) -> DataFrame:
    """click_id, is_robot, kind, as `simulate` wrote them under the folder."""
    return spark.read.parquet(f"{folder.rstrip('/')}/truth").select("click_id", "is_robot", "kind")


def judge(decisions: DataFrame, truth: DataFrame) -> dict[str, Any]:
    """What the decisions did, in counts of clicks.

    decisions: one row per click, as in the tables `decisions` or `current_decisions`. credited_micros: by currency, what
    advertisers don't pay because of slidr (general invalid traffic was free before). Raises InputError for clicks that the
    simulation didn't make.
    """
    invalid = F.col("is_invalid").cast("bigint")
    credited = F.when(F.col("is_invalid") & (F.coalesce("ivt_class", F.lit("")) != "givt"), F.col("cost_micros")).otherwise(0)
    groups = (
        decisions.join(truth, "click_id", how="left")
        .groupBy("kind", "is_robot", "currency")
        .agg(F.count("*").alias("clicks"), F.sum(invalid).alias("invalid"), F.sum(credited).alias("credited"))
        .collect()  # kinds x currencies: some dozens of rows
    )
    unknown = sum(row.clicks for row in groups if row.is_robot is None)
    if unknown:
        raise InputError(f"expected decisions of simulated clicks only, found {unknown} others; use the lake of this simulation")
    return _summary(groups)


def _summary(groups: list[Any]) -> dict[str, Any]:
    kinds: dict[str, dict[str, int]] = {}
    money: dict[str, int] = {}
    for row in groups:
        entry = kinds.setdefault(row.kind, {"clicks": 0, "invalid": 0})
        entry["clicks"] += row.clicks
        entry["invalid"] += row.invalid
        money[row.currency] = money.get(row.currency, 0) + (row.credited or 0)
    robots = [entry for kind, entry in kinds.items() if kind != "human"]
    people = kinds.get("human", {"clicks": 0, "invalid": 0})
    return {
        "clicks": sum(entry["clicks"] for entry in kinds.values()),
        "robots": sum(entry["clicks"] for entry in robots),
        "robots_caught": sum(entry["invalid"] for entry in robots),
        "people": people["clicks"],
        "people_harmed": people["invalid"],
        "credited_micros": dict(sorted(money.items())),
        "by_kind": dict(sorted(kinds.items())),
    }


def judge_scores(scored: DataFrame, truth: DataFrame, *, fpr: float) -> list[dict[str, Any]]:
    """One row per method or version, each at its global threshold of the same FPR, the best at finding robots first: method,
    threshold, clicks, ivr, fpr, high_rfm_fpr, coverage, robots, recall (invalid share of robots' clicks), people, harm (of people's).

    `scored` has one row per click and method: click_id, method, score, is_purchase, label_reason, in_heavy_session. Counted on
    the executors. Raises InputError for clicks that the simulation didn't make, and without purchasing clicks.
    """
    whose = F.when(F.col("is_robot"), "robots").when(~F.col("is_robot"), "people").otherwise("unknown")
    known = scored.join(truth, "click_id", how="left").withColumn("slice", whose)
    histogram: pd.DataFrame = score_histogram(known, by=("method",)).toPandas()
    unknown = int(histogram.loc[histogram["slice"] == "unknown", "clicks"].sum())
    if unknown:
        raise InputError(f"expected scores of simulated clicks only, found {unknown} others; use the lake of this simulation")
    rows = [_at_fpr(str(method), curves(of), fpr) for method, of in histogram.groupby("method")]
    return sorted(rows, key=lambda row: -row["recall"])


def _at_fpr(method: str, by_maker: dict[str, Curve], fpr: float) -> dict[str, Any]:
    pooled = pool(by_maker)
    threshold = pooled.threshold_at_fpr(fpr)
    at = pooled.at(threshold)
    row: dict[str, Any] = {"method": method, "threshold": threshold, "clicks": pooled.clicks}
    row |= {name: at[name] for name in ("ivr", "fpr", "high_rfm_fpr", "coverage")}
    for who, name in (("robots", "recall"), ("people", "harm")):
        curve = by_maker.get(who)
        row |= {who: curve.clicks if curve else 0, name: curve.at(threshold)["ivr"] if curve else float("nan")}
    return row
