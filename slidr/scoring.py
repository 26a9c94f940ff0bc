"""DECISION: what a version's scores mean for clicks. Rows that Spark has are scored through `with_scores` (calibration, evaluation,
comparisons), rows of files through `deciding`; both by the bundle's `forward`."""

from collections.abc import Iterator, Sequence
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr import rewriting
from slidr.bundle import Array, Bundle, forward
from slidr.lake import Lake
from slidr.pyworker import light
from slidr.reasons import STRONGEST, Texts, strongest
from slidr.slices import slice_name
from slidr.tables import CURRENT_DECISIONS, DECISIONS

REASONS = ("reason_class", *(f"reason_{place}" for place in range(1, STRONGEST + 1)))
UPSTREAM = "upstream filter"  # class and words of what the upstream filter made free
EMPTY, NULLS = "empty_permille", "null_permille"  # thousandths of the features that said nothing: counters that fail show there first
NOTHING = (EMPTY, NULLS)
USED = "used_"  # prefix of the features that a score was computed from, beside the columns of its click


def with_scores(features: DataFrame, bundle: Bundle, column: str = "score") -> DataFrame:
    """Adds `column` (0 to 1, 6 decimals, higher = more robotic) to rows that hold the bundle's features; NULL features are
    filled by the bundle. Executors get the weights with the task: they read no registry."""

    @F.pandas_udf("double")  # type: ignore[call-overload, untyped-decorator] # its types lack the default kind of function
    @light
    def score(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for batch in batches:
            yield pd.Series(forward(bundle, np.stack(batch.to_list())))

    return features.withColumn(column, score(packed(bundle)))


def packed(bundle: Bundle) -> Column:
    """The bundle's features as one array, NaN for NULL: one column crosses to Python faster than many."""
    return F.array(*[F.coalesce(F.col(name).cast("double"), F.lit(float("nan"))) for name in bundle.features])


def nothing(x_BF: Array) -> dict[str, NDArray[np.int32]]:
    """Thousandths (B,) of raw features (B, F) that are NaN, for NULL, or 0 (EMPTY), and that are NaN (NULLS)."""
    null_B, zero_B = np.count_nonzero(np.isnan(x_BF), axis=1), np.count_nonzero(x_BF == 0, axis=1)
    counts = {EMPTY: null_B + zero_B, NULLS: null_B}
    return {name: np.rint(1000 * count_B / x_BF.shape[1]).astype(np.int32) for name, count_B in counts.items()}


def scores_and_reasons(bundle: Bundle, x_BF: Array) -> tuple[Array, Texts]:
    """Scores (B,) of raw features (B, F), NaN for NULL, and REASONS (B, 4) of each score that could be invalid in some slice, else None."""
    scores = forward(bundle, x_BF)
    texts = unexplained(len(scores))
    high = scores > min([*bundle.thresholds.values(), bundle.default_threshold])
    texts[high, 0], texts[high, 1:] = strongest(bundle, x_BF[high])
    return scores, texts


def unexplained(clicks: int) -> Texts:
    """REASONS (B, 4) of clicks that have none."""
    return np.full((clicks, len(REASONS)), None, dtype=object)


def with_score_and_slice(clicks: DataFrame, features: DataFrame, bundle: Bundle, suffix: str = "") -> DataFrame:
    """Every click with `score` (NULL where it has no features) and `slice`, each with the suffix; one row per click.

    `features` has at most one row per click. A slice on a feature takes its value from the row that was scored, whatever columns
    `clicks` has besides.
    """
    score, used = f"score{suffix}", {USED + name: F.col(name) for name in bundle.slices.features}
    scores = with_scores(features, bundle, column=score).withColumns(used).select("click_id", score, *used)
    return _with_slice(clicks.join(scores, on="click_id", how="left"), bundle, f"slice{suffix}")


def _with_slice(scored: DataFrame, bundle: Bundle, column: str) -> DataFrame:
    named = scored.withColumn(column, slice_name(bundle.slices, features=USED))
    return named.drop(*[USED + name for name in bundle.slices.features])


def own_threshold(bundle: Bundle, name: Column) -> Column:
    """The threshold of the slice with this name; NULL for a slice that the version does not know."""
    known = [F.lit(item) for pair in sorted(bundle.thresholds.items()) for item in pair]
    return F.create_map(*known)[name] if known else F.lit(None).cast("double")


def decided(clicks: DataFrame, scores: DataFrame, bundle: Bundle) -> DataFrame:
    """Every click with `slice`, `score`, `threshold`, `is_invalid`, `ivt_class`, `basis` and REASONS by the bundle; one row per click.

    `scores` has at most one row per click: what `deciding.scores` finds. As `with_verdict`; reasons are of invalid clicks alone.
    """
    scored = _with_slice(clicks.join(scores.hint("shuffle_hash"), on="click_id", how="left"), bundle, "slice")
    ivt_class = F.when(F.col("basis") == "upstream", "givt").when(F.col("is_invalid"), "sivt")
    return with_verdict(scored, bundle).withColumn("ivt_class", ivt_class).withColumns(_reasons_of_invalid())


def with_verdict(scored: DataFrame, bundle: Bundle) -> DataFrame:
    """Clicks with `score` and `slice`, and with `basis`, `threshold` and `is_invalid`.

    A click that the upstream filter made free stays invalid (`upstream`); one without features is valid (`no_features`); neither
    gets a threshold. A slice that the version does not know takes the version's default threshold (`unseen_slice`).
    """
    own = own_threshold(bundle, F.col("slice"))
    basis = (
        F.when(F.col("upstream_filter").isNotNull(), "upstream")
        .when(F.col("score").isNull(), "no_features")
        .when(own.isNull(), "unseen_slice")
        .otherwise("model")
    )
    applies = F.col("basis").isin("model", "unseen_slice")
    by_score = applies & (F.col("score") > F.col("threshold"))
    return (
        scored.withColumn("basis", basis)
        .withColumn("threshold", F.when(applies, F.coalesce(own, F.lit(bundle.default_threshold))))
        .withColumn("is_invalid", F.coalesce(by_score, F.lit(False)) | (F.col("basis") == "upstream"))
    )


def _reasons_of_invalid() -> dict[str, Column]:
    upstream = F.col("basis") == "upstream"
    said = {"reason_class": F.lit(UPSTREAM), "reason_1": F.concat(F.lit(f"{UPSTREAM}: "), "upstream_filter")}
    return {name: F.when(upstream, said.get(name)).when(F.col("is_invalid"), F.col(name)) for name in REASONS}


def complete(lake: Lake, days: Sequence[date]) -> None:
    """Brings the published state of these days up to their first decisions: inserts those that it lacks, and fills in those of clicks
    that a replay decided before; what the replay published stays. Makes no commit where nothing is missing."""
    current = as_published(lake.read(DECISIONS, days))
    lake.insert_new(current, CURRENT_DECISIONS, days)
    _fill_first(lake, current, days)


def _fill_first(lake: Lake, current: DataFrame, days: Sequence[date]) -> None:
    by_replay = lake.read(CURRENT_DECISIONS, days).where("first_is_invalid is null").select("click_id")
    if by_replay.isEmpty():
        return
    late = current.join(by_replay, on="click_id", how="left_semi")
    rows = late.count()
    if rows:
        rewriting.replace_rows(lake, late, CURRENT_DECISIONS, days, ["first_is_invalid", "first_model_version"], rows=rows)


def as_published(decided: DataFrame) -> DataFrame:
    """Rows of `current_decisions` for first decisions that no replay has changed."""
    return decided.withColumns(
        {
            "first_is_invalid": F.col("is_invalid"),
            "first_model_version": F.col("model_version"),
            "replay_id": F.lit(None).cast("string"),
            "corrected_time": F.lit(None).cast("timestamp"),
        }
    ).select(*CURRENT_DECISIONS.names)
