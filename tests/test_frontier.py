"""The exact frontier against a dynamic programme and a linear programme that know nothing of it."""

import numpy as np
import pandas as pd
import pytest

from slidr.calibration import calibrate, concave
from slidr.calibration.concave import path
from slidr.calibration.counts import MOST_THRESHOLDS, counts
from slidr.curves import curves
from tests.oracles_calibration import best_by_dynamic_programme, best_by_linear_programme
from tests.populations import make
from tests.test_calibration import SETTINGS, made, made_slice, three


def cumulated(histogram: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(clicks, purchasing clicks) above the thresholds k/10000, by slice."""
    found = curves(histogram).values()
    return np.stack([curve.invalid for curve in found]), np.stack([curve.purchasing_invalid for curve in found])


def bumpy(seed: int, slices: int) -> pd.DataFrame:
    """Few purchases and few score levels: curves that are far from concave."""
    random = np.random.default_rng(seed)
    parts = []
    for number in range(slices):
        bins = np.sort(random.choice(10_000, 40, replace=False)) + 1
        bought = random.integers(0, 4, 40)
        counted = {"clicks": bought + random.integers(0, 60, 40), "purchasing": bought}
        parts.append(
            pd.DataFrame({"slice": f"s{number}", "fold": random.integers(0, 5, 40), "bin": bins, **counted, "high_rfm": 0, "heavy": 0})
        )
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_optimum_of_the_dynamic_programme(seed: int) -> None:
    histogram = bumpy(seed, 6)
    budget = [0.02, 0.05, 0.1, 0.2][seed % 4]
    found = calibrate(histogram, **SETTINGS | {"method": "frontier", "fpr_budget": budget, "fpr_max": 1.0, "min_purchases": 1})
    invalid, spent = cumulated(histogram)
    purchasing, clicks = histogram["purchasing"].sum(), histogram["clicks"].sum()
    best = best_by_dynamic_programme(invalid, spent, int(budget * purchasing + 1e-9))
    assert found.chosen.fpr <= budget + 1e-12
    assert found.chosen.ivr * clicks == pytest.approx(best)


def test_above_what_the_programme_is_used_for_it_is_within_one_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path and single steps off it, on samples where the optimum is known from the programme."""
    for seed in range(3):
        histogram = make(6, seed).sample(np.random.default_rng(seed)).histogram
        settings = SETTINGS | {"method": "frontier", "fpr_budget": 0.01}
        best = calibrate(histogram, **settings).chosen
        with monkeypatch.context() as patched:
            patched.setattr(concave, "EXACT_UP_TO", 0)
            near = calibrate(histogram, **settings).chosen
        assert 0.99 * best.ivr <= near.ivr <= best.ivr
        assert (near.fpr <= 0.01, near.price) == (True, best.price)


@pytest.mark.parametrize("seed", range(6))
def test_price_and_bound_are_those_of_the_linear_programme(seed: int) -> None:
    histogram = make(6, seed + 20, clicks=9000, purchases=300).sample(np.random.default_rng(seed)).histogram
    found = calibrate(histogram, **SETTINGS | {"method": "frontier", "fpr_max": 1.0, "min_purchases": 1}).chosen
    invalid, spent = cumulated(histogram)
    purchasing, clicks = histogram["purchasing"].sum(), histogram["clicks"].sum()
    best, price = best_by_linear_programme(*(counts_at(histogram, values) for values in (invalid, spent)), 0.02 * purchasing)
    assert 0.9 * best <= found.ivr * clicks <= best + 1e-6  # six clicks are allowed: whole steps lose some of it
    low, high = (bound * clicks / purchasing for bound in found.price)
    assert low - 1e-6 <= price <= high + 1e-6


def counts_at(histogram: pd.DataFrame, values: np.ndarray) -> np.ndarray:
    """Only at thresholds right above a bin with purchases: nothing is lost by the others."""
    bins = np.unique(histogram.loc[histogram["purchasing"] > 0, "bin"])
    return values[:, np.unique(np.concatenate([[0], bins, [10_000]]))]


def test_a_price_that_is_not_unique_is_an_interval() -> None:
    """One purchasing click is allowed: it bought 9 clicks, the next one would buy 6."""
    bins = [(9000, 6, 0), (8000, 6, 1), (7000, 2, 0), (6000, 5, 1), (0, 81, 98)]
    rows = [("a", 0, k, clicks + bought, bought, 0, 0) for k, clicks, bought in bins]
    histogram = pd.DataFrame(rows, columns=["slice", "fold", "bin", "clicks", "purchasing", "high_rfm", "heavy"])
    settings = SETTINGS | {"method": "frontier", "fpr_budget": 0.01, "fpr_max": 1.0, "min_purchases": 1}
    found = calibrate(histogram, **settings).chosen
    assert (found.fpr, found.ivr, found.thresholds) == (0.01, 15 / 200, {"a": 0.6})
    assert found.price == pytest.approx((6 / 200 / 0.01, 9 / 200 / 0.01))


def test_it_keeps_floors_and_the_maximum_of_a_slice() -> None:
    settings = SETTINGS | {"method": "frontier", "fpr_budget": 0.04, "min_coverage": 0.3, "fpr_max": 0.05}
    found = calibrate(three(), **settings).chosen
    assert all(row.coverage >= 0.3 and row.fpr <= 0.05 for row in found.slices)
    free = calibrate(three(), **settings | {"min_coverage": 0.0, "fpr_max": 1.0}).chosen
    assert free.ivr > found.ivr


def test_it_promises_more_than_the_quadratic_on_the_clicks_that_chose() -> None:
    ratios = []
    for seed in range(4):
        histogram = make(6, seed).sample(np.random.default_rng(seed)).histogram
        found = calibrate(histogram, **SETTINGS | {"fpr_budget": 0.01})
        ratios.append(found.solutions["quadratic"].ivr / found.solutions["frontier"].ivr)
    assert max(ratios) <= 1
    assert np.mean(ratios) < 0.99


def test_states_of_a_path_never_fall_and_its_positions_have_their_cost_and_gain() -> None:
    random = np.random.default_rng(3)
    cost, gain = (np.concatenate([np.zeros((5, 1)), random.random((5, 30)).cumsum(axis=1)], axis=1) for _ in range(2))
    first, last = np.array([0, 2, 0, 5, 30]), np.array([30, 20, 0, 30, 30])
    found = path(cost, gain, first, last)
    assert (np.diff(found.price) < 0).all()
    assert (np.diff(found.cost) >= 0).all()
    positions = found.positions(np.arange(len(found.price)))
    assert (positions[:, 0] == first).all()
    assert (positions[:, -1] == last).all()
    for points, total in ((cost, found.cost), (gain, found.gain)):
        assert np.take_along_axis(points, positions, axis=1).sum(axis=0) == pytest.approx(total)


def test_more_thresholds_than_are_kept_lose_next_to_nothing() -> None:
    """Everybody's score is another one: 10,001 thresholds matter, MOST_THRESHOLDS are kept."""
    histogram = made(
        a=made_slice(robots=0.2, sharpness=4, size=60_000, purchases=20_000),
        b=made_slice(robots=0.1, sharpness=3, size=60_000, purchases=9000),
    )
    kept = counts(histogram)
    assert len(kept.thresholds) <= MOST_THRESHOLDS + 2
    found = calibrate(histogram, **SETTINGS | {"method": "frontier", "fpr_budget": 0.01}).chosen
    invalid, spent = cumulated(histogram)
    best, _ = best_by_linear_programme(invalid[:, ::4], spent[:, ::4], 290)
    assert found.ivr * 120_000 >= 0.99 * best


def test_each_state_is_the_best_choice_at_its_price() -> None:
    """Brute force over all thresholds of each slice, at prices between those of the path."""
    random = np.random.default_rng(4)
    gain = np.concatenate([np.zeros((6, 1)), random.integers(0, 9, (6, 40)).cumsum(axis=1)], axis=1).astype(float)
    cost = np.concatenate([np.zeros((6, 1)), random.integers(0, 4, (6, 40)).cumsum(axis=1)], axis=1).astype(float)
    first, last = np.zeros(6, dtype=int), np.full(6, 40)
    found = path(cost, gain, first, last)
    for state, price in enumerate((found.price[:-1] + found.price[1:]) / 2):
        if np.isfinite(price):
            best = (gain - price * cost).max(axis=1).sum()
            assert found.gain[state] - price * found.cost[state] == pytest.approx(best)
