import math

import numpy as np
import pandas as pd
import pytest

from slidr.curves import curves, index, knee, pool
from slidr.errors import InputError
from tests.oracles_calibration import naive_best_threshold, naive_counts


def clicks(seed: int = 0, size: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    score = np.round(random.beta(1, 3, size), random.integers(1, 7))  # ties on purpose
    purchasing = random.random(size) < 0.2 * (1 - score)
    return pd.DataFrame(
        {
            "slice": random.choice(["a", "b"], size),
            "score": score,
            "purchasing": purchasing,
            "high_rfm": ~purchasing & (random.random(size) < 0.1),
            "heavy": random.random(size) < score,
        }
    )


def histogram(rows: pd.DataFrame) -> pd.DataFrame:
    millionths = np.round(rows["score"] * 1_000_000).astype(int)
    binned = rows.assign(bin=-(-millionths // 100), clicks=1).drop(columns="score")
    return binned.groupby(["slice", "bin"], as_index=False).sum()


@pytest.mark.parametrize("seed", range(5))
def test_counts_at_a_threshold_are_those_of_the_clicks(seed: int) -> None:
    rows = clicks(seed)
    for name, curve in curves(histogram(rows)).items():
        for threshold in (0.0, 0.0001, 0.1, 0.25, 0.5, 0.9999, 1.0):
            expected = naive_counts(rows[rows["slice"] == name], threshold)
            assert {key: value for key, value in curve.at(threshold).items() if key in expected} == expected


@pytest.mark.parametrize("k", [1, 7, 29, 57, 1000, 1001, 9999, 10_000])
def test_a_score_on_the_edge_of_a_bin_is_not_above_its_threshold(k: int) -> None:
    rows = clicks(size=1).assign(slice="a", score=k / 10_000)
    curve = curves(histogram(rows))["a"]
    assert curve.at(k / 10_000)["invalid"] == 0
    assert curve.at((k - 1) / 10_000)["invalid"] == 1


def test_score_zero_is_never_invalid() -> None:
    curve = curves(histogram(clicks(size=3).assign(slice="a", score=0.0)))["a"]
    assert curve.at(0.0)["invalid"] == 0
    assert curve.at(0.0)["clicks"] == 3


@pytest.mark.parametrize("fpr", [0.0, 0.02, 0.1, 0.5, 1.0])
def test_threshold_at_fpr_invalidates_as_many_clicks_as_any_within_it(fpr: float) -> None:
    rows = clicks(3, size=150).assign(slice="a")
    curve = curves(histogram(rows))["a"]
    found = curve.at(curve.threshold_at_fpr(fpr))
    assert found["fpr"] <= fpr
    assert found["invalid"] == naive_best_threshold(rows, fpr)


def test_of_thresholds_that_decide_alike_the_highest_is_taken() -> None:
    rows = clicks(size=3).assign(slice="a", score=[0.2, 0.6, 0.9], purchasing=[True, False, False], high_rfm=False)
    assert curves(histogram(rows))["a"].threshold_at_fpr(0.0) == 0.5999


def test_shares_of_nothing_are_no_zero() -> None:
    rows = clicks(size=5).assign(slice="a", purchasing=False, high_rfm=False, heavy=False)
    curve = curves(histogram(rows))["a"]
    point = curve.at(0.1)
    assert all(math.isnan(point[name]) for name in ("fpr", "coverage", "high_rfm_fpr"))
    assert np.isnan(curve.fpr).all()
    assert np.isnan(curve.coverage).all()
    with pytest.raises(InputError, match="found none"):
        curve.threshold_at_fpr(0.1)
    assert all(math.isnan(number) for number in knee(curve))


def test_pooled_slices_are_the_curve_of_all_clicks() -> None:
    rows = clicks(4)
    pooled, whole = pool(curves(histogram(rows))), curves(histogram(rows.assign(slice="all")))["all"]
    assert (pooled.invalid == whole.invalid).all()
    assert (pooled.heavy_invalid == whole.heavy_invalid).all()
    assert pooled.at(0.3) == whole.at(0.3)


def test_frontier_has_each_fpr_once_with_its_highest_ivr() -> None:
    rows = clicks(size=4).assign(slice="a", score=[0.9, 0.8, 0.7, 0.6], purchasing=[False, True, False, False], high_rfm=False)
    fpr, ivr = curves(histogram(rows))["a"].frontier()
    assert fpr.tolist() == [0.0, 1.0]
    assert ivr.tolist() == [0.25, 1.0]


def test_knee_is_the_corner_of_a_curve_with_one() -> None:
    rows = pd.concat(
        [
            clicks(size=60).assign(score=0.9, purchasing=False),
            clicks(size=40).assign(score=np.linspace(0.1, 0.4, 40), purchasing=True),
        ]
    ).assign(slice="a", high_rfm=False)
    threshold, fpr, ivr = knee(curves(histogram(rows))["a"])
    assert (fpr, ivr) == (0.0, 0.6)
    assert 0.4 <= threshold < 0.9


def test_scores_that_are_none_and_thresholds_within_a_bin_are_refused() -> None:
    rows = histogram(clicks(size=20).assign(slice="a"))
    with pytest.raises(InputError, match=r"NaN or outside \(a: 1\)"):
        curves(pd.concat([rows, rows.head(1).assign(bin=-1, clicks=1)]))
    with pytest.raises(InputError, match="counts between 0"):
        curves(rows.assign(heavy=rows["clicks"] + 1))
    for threshold in (0.00005, -0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="expected a threshold"):
            index(threshold)
    with pytest.raises(InputError, match="no scored clicks"):
        pool({})
