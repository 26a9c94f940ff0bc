"""A new version, the baselines and the champion on the same frozen clicks: scored once, counted on the executors."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date

import pandas as pd
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from slidr import evaluation, scoring
from slidr.bundle import Bundle
from slidr.curves import Curve, curves
from slidr.errors import NothingToDoError
from slidr.features.counters import prefer_logged
from slidr.lake import Lake
from slidr.slice_spec import CLICK_COLUMNS
from slidr.slices import slice_name
from slidr.tables import features_table

PARTS = ("calibration", "judging")
NEW, CHAMPION, BOTH = "new", "champion", "both"  # who decides
SIGNS = ("is_purchase", "label_reason", "in_heavy_session")
MONEY = ("currency", "cost_micros")
USERS = ("user_key", "fold")
SCORE = "score_"
CHAMPIONS_SLICE = f"slice_{CHAMPION}"

ByPart = dict[str, dict[str, dict[str, Curve]]]  # part -> method -> slice -> curve


@contextmanager
def scored(
    labelled: DataFrame,
    methods: Mapping[str, Bundle],
    champion: Bundle | None,
    *,
    lake: Lake,
    days: Sequence[date],
    zones: Mapping[str, str],
) -> Iterator[tuple[DataFrame, str]]:
    """(calibration and judging clicks with a column `score_<method>` each, why the champion can't be scored or ''), kept while
    the block runs: everything is counted from these scores.

    `labelled` holds the features of the methods' spec, part, `slice` as the methods name it, and what names a slice; columns
    `score_…` that are there already stay. A champion has its own `slice_champion`. One of another spec is scored, and its slices
    named, by what its own spec's table holds of the judging `days`.
    """
    same = champion is not None and {champion.spec.spec_id} == {bundle.spec.spec_id for bundle in methods.values()}
    rows = _narrow(labelled, methods, champion if same else None, zones)
    note = ""
    if champion and not same and not lake.exists(features_table(champion.spec)):
        note = f"it reads features of spec {champion.spec.spec_id}, and the lake has no table of them"
    elif champion and not same:
        rows = scoring.with_score_and_slice(rows, _features_of(champion, lake, days), champion, suffix=f"_{CHAMPION}")
    rows = rows.drop(*set(CLICK_COLUMNS) - {"advertiser_id"}).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        yield rows, note
    finally:
        rows.unpersist()


def _narrow(labelled: DataFrame, methods: Mapping[str, Bundle], champion: Bundle | None, zones: Mapping[str, str]) -> DataFrame:
    rows = labelled.where(F.col("part").isin(*PARTS))
    for name, bundle in ({**methods, CHAMPION: champion} if champion else methods).items():
        rows = scoring.with_scores(rows, bundle, column=SCORE + name)
    if champion:
        rows = rows.withColumn(CHAMPIONS_SLICE, slice_name(champion.slices))
    hour = evaluation.hour_of_week(zones).alias("hour_of_week")
    made = [name for name in rows.columns if name.startswith(SCORE) or name == CHAMPIONS_SLICE]
    return rows.select("click_id", "part", "slice", hour, *USERS, *CLICK_COLUMNS, *SIGNS, *MONEY, *made)


def scores_of(bundle: Bundle, lake: Lake, days: Sequence[date], name: str) -> DataFrame:
    """click_id and `score_<name>` of the clicks of these days, by the features of the bundle's own spec."""
    return scoring.with_scores(_features_of(bundle, lake, days), bundle, column=SCORE + name).select("click_id", SCORE + name)


def _features_of(bundle: Bundle, lake: Lake, days: Sequence[date]) -> DataFrame:
    return prefer_logged(lake.read(features_table(bundle.spec), days))


def by_method(rows: DataFrame, *keep: str) -> DataFrame:
    """One row per click and method: `keep`, method, score; of the columns `score_<method>`."""
    names = [name for name in rows.columns if name.startswith(SCORE)]
    each = [F.struct(F.lit(name.removeprefix(SCORE)).alias("method"), F.col(name).alias("score")) for name in names]
    return rows.select(*keep, F.explode(F.array(*each)).alias("by")).select(*keep, "by.*")


def score_counts(rows: DataFrame) -> pd.DataFrame:
    """Score histogram of all methods in one aggregation: `evaluation.score_histogram` by part, method and fold; the judging clicks are
    all in fold 0, since nothing is learnt from them. Raises NothingToDoError without clicks of both parts."""
    long = by_method(
        rows.withColumn("fold", F.when(F.col("part") == "calibration", F.col("fold")).otherwise(0)), "part", "fold", "slice", *SIGNS
    )
    histogram: pd.DataFrame = evaluation.score_histogram(long, by=("part", "method", "fold")).toPandas()
    if set(histogram["part"]) != set(PARTS):
        raise NothingToDoError(f"expected labelled clicks on the calibration and judging days, found {len(histogram)}; label more days")
    return histogram


def method_curves(rows: DataFrame, histogram: pd.DataFrame) -> tuple[ByPart, str]:
    """(curves of all methods by part and slice, why the champion is not among them or ''), from the `score_counts` of the rows.

    The champion is on the judging clicks alone, and only where it has a score of every one of them: the same frozen rows.
    """
    parts = {part: {str(name): curves(of) for name, of in found.groupby("method")} for part, found in histogram.groupby("part")}
    parts["calibration"].pop(CHAMPION, None)
    wanted, found = (_clicks(histogram, champion) for champion in (False, True))
    if SCORE + CHAMPION in rows.columns and found < wanted:
        parts["judging"].pop(CHAMPION, None)
        return parts, f"its features are there for {found:,} of {wanted:,} judging clicks only"
    return parts, ""


def purchases_of_users(rows: DataFrame, method: str) -> pd.DataFrame:
    """The purchasing clicks of the calibration part by score bin, as `calibration.design_effect` takes them: bin, clicks, pairs (sum of
    2 r - 1, r the rank by score among the purchasing clicks of the same user) and of_user (sum of how many the user has)."""
    bought = rows.where((F.col("part") == "calibration") & F.col("is_purchase") & F.col(SCORE + method).isNotNull())
    bins = bought.select("user_key", evaluation.score_bin(F.col(SCORE + method)).alias("bin"))
    user = Window.partitionBy("user_key")
    ranked = bins.withColumns({"rank": F.row_number().over(user.orderBy(F.desc("bin"))), "of_user": F.count(F.lit(1)).over(user)})
    counted = ranked.groupBy("bin").agg(
        F.count(F.lit(1)).alias("clicks"), F.sum(2 * F.col("rank") - 1).alias("pairs"), F.sum("of_user").alias("of_user")
    )
    return counted.toPandas()


def money(rows: DataFrame, deciding: Mapping[str, tuple[str, Bundle]]) -> pd.DataFrame:
    """One row per decider, slice and currency of the judging clicks: cost_micros, invalid_cost_micros; clicks without a cost count as
    nothing. `deciding`: as in `hour_counts`."""
    each = [
        F.struct(F.lit(name).alias("decider"), is_invalid(bundle, method).alias("is_invalid"))
        for name, (method, bundle) in deciding.items()
    ]
    judged = rows.where("part = 'judging'").select("slice", *MONEY, F.explode(F.array(*each)).alias("by"))
    invalid = F.when(F.col("by.is_invalid"), F.col("cost_micros")).otherwise(0)
    summed = judged.groupBy(F.col("by.decider").alias("decider"), "slice", "currency").agg(
        F.coalesce(F.sum("cost_micros"), F.lit(0)).alias("cost_micros"), F.coalesce(F.sum(invalid), F.lit(0)).alias("invalid_cost_micros")
    )
    return summed.toPandas()


def _clicks(histogram: pd.DataFrame, champion: bool) -> int:
    """Scored judging clicks of one method: the champion, or the one with most."""
    judging = histogram[(histogram["part"] == "judging") & ((histogram["method"] == CHAMPION) == champion)]
    return int(judging.groupby("method")["clicks"].sum().max()) if len(judging) else 0


def hour_counts(rows: DataFrame, deciding: Mapping[str, tuple[str, Bundle]]) -> pd.DataFrame:
    """Counts of the judging clicks by decider, slice and hour of week, each by the thresholds of its bundle; at most 3 x slices x
    168 rows. `deciding`: decider (NEW, CHAMPION) -> (method whose score it takes, bundle); with two of them, BOTH is added.
    """
    judged = rows.where("part = 'judging'")
    invalid = {name: is_invalid(bundle, method) for name, (method, bundle) in deciding.items()}
    if len(invalid) > 1:
        invalid[BOTH] = invalid[NEW] & invalid[CHAMPION]
    decided = judged.withColumns({f"invalid_{name}": column for name, column in invalid.items()})
    return evaluation.decided_counts(decided, by=("slice", "hour_of_week"), deciders=list(invalid)).toPandas()


def decided_by_both(rows: DataFrame, new: tuple[str, Bundle], champion: Bundle) -> DataFrame:
    """The judging clicks with `new_invalid` and `old_invalid`: what the new version (its method, its bundle) and the champion
    decide; NULL where one has no score."""
    deciding = {"new_invalid": new, "old_invalid": (CHAMPION, champion)}
    invalid = {name: is_invalid(bundle, method) for name, (method, bundle) in deciding.items()}
    return rows.where("part = 'judging'").withColumns(invalid)


def is_invalid(bundle: Bundle, method: str) -> Column:
    """Whether the bundle invalidates a click with this method's score, by the threshold of its own slices; as `scoring` decides it."""
    own = scoring.own_threshold(bundle, F.col(CHAMPIONS_SLICE if method == CHAMPION else "slice"))
    return F.col(SCORE + method) > F.coalesce(own, F.lit(bundle.default_threshold))
