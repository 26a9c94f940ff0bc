import math

import numpy as np
import pandas as pd
import pytest
from chispa import assert_df_equality
from pyspark.sql import SparkSession

from slidr.curves import TOTAL, curves
from slidr.errors import InputError
from slidr.evaluation import (
    METRIC_COLUMNS,
    compare_at_budget,
    decided_counts,
    hour_of_week,
    ivr_interval,
    label_histogram,
    rolled_up,
    score_histogram,
    slice_metrics,
    threshold_table,
    with_shares,
)
from slidr.intervals import interval
from tests.judged import curves_of, hours_of, made_clicks
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


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k), summed term by term."""
    return math.fsum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))


@pytest.mark.parametrize(("k", "n"), [(1, 7), (3, 200), (50, 100), (9, 10)])
def test_the_interval_is_clopper_pearsons(k: int, n: int) -> None:
    """By definition: at the lower end k or more have a chance of 2.5 %, at the upper end k or fewer."""
    low, high = (float(end) for end in interval(k, n))
    assert binomial_tail(k, n, low) == pytest.approx(0.025, rel=1e-9)
    assert 1 - binomial_tail(k + 1, n, high) == pytest.approx(0.025, rel=1e-9)


def test_intervals_of_nothing_of_none_and_of_all() -> None:
    low, high = interval([0, 0, 30], [0, 30, 30])
    assert np.isnan([low[0], high[0]]).all()
    assert (low[1], high[2]) == (0.0, 1.0)
    assert high[1] == pytest.approx(1 - 0.025 ** (1 / 30))
    assert low[2] == pytest.approx(0.025 ** (1 / 30))


def test_the_interval_of_the_ivr_holds_the_population_at_least_as_often_as_it_says() -> None:
    """Samples of one population: its IVR at an FPR of 5 % lies within in 95 % of them or more."""
    apart = {"mlp": 3.0}
    everybody = curves_of(made_clicks(400_000, 1, apart).assign(slice="a"), "mlp")["a"]
    at = everybody.at(everybody.threshold_at_fpr(0.05))["ivr"]
    samples = [curves_of(made_clicks(4_000, seed, apart).assign(slice="a"), "mlp")["a"] for seed in range(100, 180)]
    found = [ivr_interval(sample, 0.05) for sample in samples]
    held = sum(low <= at <= high for low, high in found)
    assert 73 <= held <= 80  # 80 draws of 95 %: fewer than 73 has a chance of 0.03
    assert np.median([high - low for low, high in found]) < 0.2  # and is no trivial interval


def test_few_purchases_leave_the_ivr_without_a_lower_end() -> None:
    curve = curves(histogram("a", [(9000, 40, 0, 0, 0), (500, 60, 20, 0, 0)]))["a"]
    assert ivr_interval(curve, 0.01)[0] == 0.0  # of 20 purchasing clicks none may lie above the threshold in truth


DECIDED = (
    "slice string, hour_of_week int, is_purchase boolean, label_reason string, in_heavy_session boolean, "
    "invalid_new boolean, invalid_champion boolean"
)


def test_decisions_are_counted_by_decider_slice_and_hour(spark: SparkSession) -> None:
    rows = [
        ("a", 3, True, "purchase", False, True, False),
        ("a", 3, False, "rfm", True, True, True),
        ("a", 3, True, "rfm", True, False, True),  # a purchase counts as purchase alone
        ("a", 4, False, "none", True, False, False),
        ("b", 3, False, "none", False, False, True),
    ]
    counted = decided_counts(spark.createDataFrame(rows, DECIDED), by=("slice", "hour_of_week"), deciders=("new", "champion"))
    names = ["method", "slice", "hour_of_week", "clicks", "invalid", "purchasing", "purchasing_invalid", "high_rfm", "high_rfm_invalid"]
    expected = [
        ("champion", "a", 3, 3, 2, 2, 1, 1, 1, 2, 2),
        ("champion", "a", 4, 1, 0, 0, 0, 0, 0, 1, 0),
        ("champion", "b", 3, 1, 1, 0, 0, 0, 0, 0, 0),
        ("new", "a", 3, 3, 2, 2, 1, 1, 1, 2, 1),
        ("new", "a", 4, 1, 0, 0, 0, 0, 0, 1, 0),
        ("new", "b", 3, 1, 0, 0, 0, 0, 0, 0, 0),
    ]
    found = counted.select(*names, "heavy", "heavy_invalid").toPandas()
    assert sorted(found.itertuples(index=False, name=None)) == expected
    total = rolled_up(found, ("method",)).set_index("method")
    assert total.loc["new", ["clicks", "ivr", "fpr", "high_rfm_fpr"]].tolist() == [5, 0.4, 0.5, 1.0]
    assert total.loc["new", "coverage"] == pytest.approx(1 / 3)
    by_hour = rolled_up(found[found["method"] == "new"], ("hour_of_week",)).set_index("hour_of_week")
    assert math.isnan(by_hour.loc[4, "fpr"])
    assert math.isnan(by_hour.loc[4, "fpr_high"])
    assert by_hour.loc[3, "fpr_low"] == pytest.approx(1 - 0.975**0.5)


def test_hours_of_the_week_are_local(spark: SparkSession) -> None:
    zones = {"US": "America/New_York", "JP": "Asia/Tokyo"}
    rows = [("US", "2026-03-02 03:30:00"), ("JP", "2026-03-02 03:30:00"), ("JP", "2026-03-01 16:00:00")]
    clicks = spark.createDataFrame(rows, "marketplace string, t string").selectExpr("marketplace", "to_timestamp(t) AS click_time")
    # Sunday 22 h in New York, Monday noon and Monday 1 h in Tokyo
    assert [row[0] for row in clicks.select(hour_of_week(zones)).collect()] == [6 * 24 + 22, 12, 1]


def test_thresholds_stand_beside_what_they_do_on_both_parts() -> None:
    known, unseen = (
        histogram("known", [(9000, 10, 1, 2, 4), (1000, 30, 9, 2, 6)]),
        histogram("unseen", [(6000, 5, 0, 0, 0), (1000, 5, 0, 0, 0)]),
    )
    parts = {"calibration": curves(known), "judging": curves(pd.concat([known, unseen]))}
    table = threshold_table(parts, {"known": 0.8}, 0.5, {"known": "quadratic"}).set_index("slice")
    assert table.index.tolist() == ["known", "unseen", TOTAL]
    assert table["threshold"].tolist()[:2] == [0.8, 0.5]
    assert table["chosen"].tolist() == ["quadratic", "default: not seen in calibration", ""]
    assert table["judging_ivr"].tolist() == [0.25, 0.5, 0.3]
    assert table.loc["known", "calibration_fpr_high"] == pytest.approx(float(interval(1, 10)[1]))
    assert math.isnan(table.loc["unseen", "calibration_ivr"])


def test_the_histogram_of_a_curve_holds_every_click_once() -> None:
    clicks = made_clicks(3_000, 3, {"mlp": 3.0}).assign(slice="a")
    clicks.loc[:4, "mlp"] = [0.0, 0.02, 0.020001, 1.0, 0.98]
    table = label_histogram(curves_of(clicks, "mlp")["a"])
    edges = np.arange(1, 51) / 50
    expected = np.bincount(np.searchsorted(edges, clicks["mlp"]), minlength=50)
    assert (table["purchasing"] + table["high_rfm"] + table["other"]).tolist() == expected.tolist()
    assert table["purchasing"].sum() == clicks["purchasing"].sum()
    assert table["heavy"].sum() == clicks["heavy"].sum()


def test_shares_agree_with_the_curves() -> None:
    """Two ways to the same figures: counted decisions, and the curve at the threshold."""
    clicks = made_clicks(5_000, 4, {"mlp": 3.0})
    curve = slice_metrics(curves_of(clicks, "mlp"), {}, 0.6)
    counted = rolled_up(hours_of(clicks, {"new": clicks["mlp"] > 0.6}), ("slice",))
    pd.testing.assert_frame_equal(counted[["slice", "invalid", "fpr", "coverage"]], curve[["slice", "invalid", "fpr", "coverage"]][:-1])
    assert with_shares(curve)["ivr"].tolist() == curve["ivr"].tolist()
