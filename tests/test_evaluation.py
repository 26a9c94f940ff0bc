import math

import numpy as np
import pandas as pd
import pytest
from chispa import assert_df_equality
from pyspark.sql import SparkSession

from slidr.curves import TOTAL, curves
from slidr.errors import InputError
from slidr.evaluation import METRIC_COLUMNS, compare_at_budget, score_histogram, slice_metrics
from tests.oracles_calibration import naive_counts

SCORED = "slice string, score double, is_purchase boolean, label_reason string, in_heavy_session boolean"
HISTOGRAM = "slice string, bin int, clicks bigint not null, purchasing bigint not null, high_rfm bigint not null, heavy bigint not null"


def test_histogram_counts_clicks_by_slice_and_bin(spark: SparkSession) -> None:
    scored = spark.createDataFrame(
        [
            ("a", 0.0, False, "none", False),
            ("a", 0.0007, True, "purchase", False),  # 0.0007 * 10000 is 7.000000000000001 as a double
            ("a", 0.000701, False, "rfm", True),
            ("a", 0.0008, False, "none", True),
            ("a", None, True, "purchase", True),
            ("b", 1.0, True, "rfm", True),
        ],
        SCORED,
    )
    expected = spark.createDataFrame(
        [("a", 0, 1, 0, 0, 0), ("a", 7, 1, 1, 0, 0), ("a", 8, 2, 0, 1, 2), ("b", 10_000, 1, 1, 0, 1)], HISTOGRAM
    )
    assert_df_equality(score_histogram(scored), expected, ignore_row_order=True, ignore_nullable=True)


def test_broken_scores_are_refused_by_the_curves(spark: SparkSession) -> None:
    rows = [("a", score, False, "none", False) for score in (math.nan, 1.5, -0.1, 0.5)]
    histogram = score_histogram(spark.createDataFrame(rows, SCORED)).toPandas()
    with pytest.raises(InputError, match=r"NaN or outside \(a: 3\)"):
        curves(histogram)


def test_all_edges_and_random_scores_agree_with_the_comparison_of_scoring(spark: SparkSession) -> None:
    """Every k/10000 and its neighbours of 6 decimals: bin > k exactly where score > k/10000."""
    random = np.random.default_rng(0)
    millionths = np.concatenate([np.arange(0, 1_000_001, 100), np.arange(1, 1_000_000, 100), random.integers(0, 1_000_001, 3000)])
    score = np.round(millionths / 1e6, 6)
    flags = pd.DataFrame({"slice": "a", "score": score, "purchasing": random.random(len(score)) < 0.5, "high_rfm": False, "heavy": False})
    scored = flags.rename(columns={"purchasing": "is_purchase", "heavy": "in_heavy_session"}).assign(label_reason="none")
    frame = spark.createDataFrame(scored[["slice", "score", "is_purchase", "label_reason", "in_heavy_session"]], SCORED)
    curve = curves(score_histogram(frame).toPandas())["a"]
    assert curve.invalid.tolist() == [int((score > k / 10_000).sum()) for k in range(10_001)]
    assert curve.at(0.3)["purchasing_invalid"] == naive_counts(flags, 0.3)["purchasing_invalid"]


def histogram(name: str, rows: list[tuple[int, int, int, int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["bin", "clicks", "purchasing", "high_rfm", "heavy"]).assign(slice=name)


def test_metrics_of_slices_and_of_all() -> None:
    known = histogram("known", [(9000, 10, 1, 2, 4), (1000, 30, 9, 2, 6)])
    unseen = histogram("unseen", [(6000, 5, 0, 0, 0), (1000, 5, 0, 0, 0)])
    table = slice_metrics(curves(pd.concat([known, unseen])), {"known": 0.8}, 0.5)
    assert list(table.columns) == list(METRIC_COLUMNS)
    expected = pd.DataFrame(
        [
            ("known", 0.8, 40, 10, 0.25, 10, 1, 0.1, 4, 2, 0.5, 10, 4, 0.4),
            ("unseen", 0.5, 10, 5, 0.5, 0, 0, math.nan, 0, 0, math.nan, 0, 0, math.nan),
            (TOTAL, math.nan, 50, 15, 0.3, 10, 1, 0.1, 4, 2, 0.5, 10, 4, 0.4),
        ],
        columns=list(METRIC_COLUMNS),
    )
    pd.testing.assert_frame_equal(table, expected)


def test_methods_are_compared_at_the_same_budget() -> None:
    """The better model invalidates more at the same FPR, though its scores are on another scale."""
    good = histogram("a", [(900, 40, 0, 0, 20), (800, 20, 1, 0, 0), (100, 40, 9, 0, 0)])
    poor = histogram("a", [(9000, 10, 1, 0, 15 - 5), (8000, 90, 9, 0, 10)])
    table = compare_at_budget({"mlp": curves(good), "velocity": curves(poor)}, 0.1).set_index("method")
    assert table["fpr"].tolist() == [0.1, 0.1]
    assert table["ivr"].tolist() == [0.6, 0.1]
    assert table["coverage"].tolist() == [1.0, 0.5]
    assert table.loc["mlp", "threshold"] == 0.0799
    with pytest.raises(InputError, match="found none"):
        compare_at_budget({"mlp": curves(good.assign(purchasing=0))}, 0.1)
