"""The published method, the constraints of all methods, and which method decides."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from slidr.calibration import calibrate, quadratic
from slidr.curves import BINS, curves, pool
from slidr.errors import GuardrailError, InputError
from slidr.thresholds import METHODS, Solution
from tests.oracles_calibration import bisect_price

SETTINGS = {
    "method": "quadratic",
    "fpr_budget": 0.02,
    "fpr_max": 0.1,
    "min_coverage": 0.0,
    "fit_fpr": 0.06,
    "min_purchases": 30,
    "confidence": 0.95,
}


def made_slice(*, robots: float, sharpness: float, size: int, purchases: int, heavy: bool = True) -> pd.DataFrame:
    """A concave curve without noise: robots' scores are high by x ** (1/sharpness), purchases are spread evenly."""
    robotic = int(size * robots)
    high = 1 - np.linspace(0, 1, robotic, endpoint=False) ** sharpness
    people = np.linspace(0, 1, size - robotic - purchases, endpoint=False)
    buyers = (np.arange(purchases) + 0.5) / purchases
    score = np.concatenate([high, people, buyers])
    purchasing = np.arange(size) >= size - purchases
    return pd.DataFrame(
        {
            "bin": np.ceil(np.round(score * 1e6) / (1e6 / BINS)).astype(int),
            "clicks": 1,
            "purchasing": purchasing.astype(int),
            "high_rfm": 0,
            "heavy": ((np.arange(size) < robotic) & heavy).astype(int),
        }
    )


def made(**slices: pd.DataFrame) -> pd.DataFrame:
    """A histogram of one row per click."""
    return pd.concat([rows.assign(slice=name, fold=np.arange(len(rows)) % 5) for name, rows in slices.items()])


def solved(histogram: pd.DataFrame, **changed: float) -> Solution:
    return calibrate(histogram, **SETTINGS | changed).chosen


def three() -> pd.DataFrame:
    """Slices whose share of clicks and of purchasing clicks differ much."""
    return made(
        desktop=made_slice(robots=0.4, sharpness=4, size=30_000, purchases=400),
        mobile=made_slice(robots=0.1, sharpness=3, size=20_000, purchases=1600),
        tablet=made_slice(robots=0.3, sharpness=3.5, size=8_000, purchases=300),
    )


def fitted(result: Solution) -> dict[str, np.ndarray]:
    return {name: np.array([getattr(row, name) for row in result.slices]) for name in ("a", "b", "c", "w", "p", "floor", "f")}


def optimum(result: Solution, budget: float) -> np.ndarray:
    rows = fitted(result)
    return bisect_price(rows["a"], rows["b"], rows["w"], rows["p"], rows["floor"], 0.1, budget)


@pytest.mark.parametrize(("budget", "coverage"), [(0.005, 0.0), (0.02, 0.0), (0.05, 0.0), (0.2, 0.0), (0.03, 0.3)])
def test_solution_is_the_closed_form_of_the_separable_problem(budget: float, coverage: float) -> None:
    result = solved(three(), fpr_budget=budget, min_coverage=coverage)
    rows = fitted(result)
    expected = optimum(result, budget)
    assert [row.outcome for row in result.slices] == ["quadratic"] * 3
    assert rows["f"] == pytest.approx(expected, abs=1e-4)
    assert result.objective == pytest.approx(rows["w"] @ (rows["a"] * expected**2 + rows["b"] * expected + rows["c"]), abs=1e-4)
    assert (result.status, result.method, result.solver) == ("optimal", "quadratic", "CLARABEL")


def test_no_point_of_a_grid_is_better() -> None:
    result = solved(three())
    rows = fitted(result)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 0.1, 61)] * 3), axis=-1).reshape(-1, 3)
    grid = grid[grid @ rows["p"] <= 0.02]
    best = ((rows["a"] * grid**2 + rows["b"] * grid + rows["c"]) @ rows["w"]).max()
    assert best <= result.objective + 1e-6
    assert result.objective - best < 1e-3


def test_the_two_weights_are_not_confused() -> None:
    """IVR weighs slices by clicks and FPR by purchasing clicks; with one weight for both the answer is another."""
    result = solved(three())
    rows = fitted(result)
    assert rows["w"] == pytest.approx(np.array([30, 20, 8]) / 58)
    assert rows["p"] == pytest.approx(np.array([400, 1600, 300]) / 2300)
    for one in ("w", "p"):
        confused = bisect_price(rows["a"], rows["b"], rows[one], rows[one], rows["floor"], 0.1, 0.02)
        assert np.abs(confused - rows["f"]).max() > 0.005
    assert rows["p"] @ rows["f"] == pytest.approx(0.02, abs=1e-6)


def test_thresholds_keep_every_constraint_on_the_clicks_themselves() -> None:
    slices = three()
    result = solved(slices, fpr_budget=0.03, min_coverage=0.3)
    points = {name: curves(slices)[name].at(threshold) for name, threshold in result.thresholds.items()}
    spent = sum(point["purchasing_invalid"] for point in points.values())
    assert spent <= 0.03 * 2300
    assert result.fpr == spent / 2300
    assert all(point["coverage"] >= 0.3 and point["fpr"] <= 0.1 for point in points.values())
    assert result.ivr == sum(point["invalid"] for point in points.values()) / 58_000


def test_slices_beat_the_global_threshold_and_it_keeps_the_same_budget() -> None:
    slices = three()
    result = solved(slices)
    pooled = pool(curves(slices))
    assert result.default_threshold == pooled.threshold_at_fpr(0.02)
    assert result.ivr > pooled.at(result.default_threshold)["ivr"]


def test_a_larger_budget_never_lowers_the_objective() -> None:
    objectives = [solved(three(), fpr_budget=budget).objective for budget in np.linspace(0.001, 0.12, 9)]
    assert all(later >= earlier - 1e-7 for earlier, later in zip(objectives, objectives[1:], strict=False))
    assert objectives[-1] > objectives[0]


def test_price_is_the_gain_per_unit_of_budget() -> None:
    low, high = (solved(three(), fpr_budget=budget) for budget in (0.0199, 0.0201))
    assert solved(three()).price == pytest.approx((expected := (high.objective - low.objective) / 0.0002, expected), rel=1e-2)


def test_price_is_an_interval_where_no_slice_lies_between_its_bounds() -> None:
    """At a budget that every slice may spend up to its maximum, one more point buys nothing and one less costs the cheapest slice."""
    result = solved(three(), fpr_budget=0.02, fpr_max=0.02)
    rows = fitted(result)
    assert rows["f"] == pytest.approx(0.02, abs=1e-6)
    marginal = rows["w"] * (2 * rows["a"] * 0.02 + rows["b"]) / rows["p"]
    assert result.price == pytest.approx((0, marginal.min()), abs=1e-4)
    assert solved(three(), fpr_budget=0.03, fpr_max=0.02).price == (0, 0)


def test_floors_above_the_budget_are_named_with_their_numbers() -> None:
    with pytest.raises(GuardrailError) as stopped:
        solved(three(), min_coverage=0.4)
    for part in ("FPR budget 0.02", "mobile: FPR", "x 0.6957 of purchasing clicks", "raise calibration.fpr_budget to 0."):
        assert part in str(stopped.value)


def test_a_floor_above_the_slice_maximum_is_named() -> None:
    with pytest.raises(GuardrailError, match=r"calibration.fpr_max\), found: desktop needs 0\.\d+; mobile needs 0\.\d+; tablet needs 0"):
        solved(three(), min_coverage=0.99)
    unscored = made_slice(robots=0.3, sharpness=4, size=6000, purchases=60, heavy=False)
    unscored.loc[2000:3000, ["bin", "heavy"]] = [0, 1]  # no threshold reaches a score of 0
    with pytest.raises(GuardrailError, match="watch needs more than any threshold gives"):
        solved(pd.concat([three(), made(watch=unscored)]), min_coverage=0.5)


def test_the_budget_that_the_message_asks_for_is_enough() -> None:
    with pytest.raises(GuardrailError) as stopped:
        solved(three(), min_coverage=0.4)
    asked = float(str(stopped.value).split("raise calibration.fpr_budget to ")[1].split()[0])
    assert solved(three(), min_coverage=0.4, fpr_budget=asked).status == "optimal"


def test_small_and_empty_slices_take_the_global_threshold_and_their_purchases_count() -> None:
    small = made_slice(robots=0.5, sharpness=0.3, size=900, purchases=29)
    nobody = made_slice(robots=0.5, sharpness=3, size=500, purchases=0)
    big = made_slice(robots=0.3, sharpness=4, size=20_000, purchases=600)
    slices = made(big=big, nobody=nobody, small=small)
    result = solved(slices)
    rows = {row.slice: row for row in result.slices}
    assert {result.thresholds[name] for name in ("nobody", "small")} == {result.default_threshold}
    assert rows["small"].outcome == "global: 29 purchasing clicks, 30 are needed"
    assert rows["nobody"].outcome == "global: 0 purchasing clicks, 30 are needed"
    spent_by_small = curves(slices)["small"].at(result.default_threshold)["fpr"] * 29 / 629
    assert rows["big"].f * 600 / 629 == pytest.approx(0.02 - spent_by_small, abs=1e-6)
    assert math.isnan(rows["nobody"].fpr)


def test_fits_that_curve_upwards_become_lines() -> None:
    upwards = made_slice(robots=0.3, sharpness=0.5, size=20_000, purchases=600)
    result = solved(made(a=upwards))
    (row,) = result.slices
    assert (row.outcome, row.a) == ("linear", 0.0)
    assert row.b > 0
    assert row.f == pytest.approx(0.02, abs=1e-6)


def test_two_points_make_a_line_and_one_point_the_global_threshold() -> None:
    few = made(a=made_slice(robots=0.3, sharpness=3, size=2000, purchases=30))
    assert solved(few).slices[0].outcome == "linear"
    result = solved(few, fit_fpr=0.01)
    assert (result.status, result.solver) == ("not needed", "none")
    assert result.thresholds == {"a": result.default_threshold}
    assert result.slices[0].outcome.startswith("global: the curve has 1 point")


def test_a_slice_without_heavy_sessions_has_no_floor() -> None:
    slices = made(
        heavy=made_slice(robots=0.3, sharpness=4, size=20_000, purchases=600),
        light=made_slice(robots=0.3, sharpness=4, size=20_000, purchases=600, heavy=False),
    )
    result = solved(slices, min_coverage=0.4)
    rows = {row.slice: row for row in result.slices}
    assert rows["light"].floor == 0
    assert math.isnan(rows["light"].coverage)
    assert rows["heavy"].floor > 0
    assert rows["heavy"].coverage >= 0.4


def test_where_everyone_or_nobody_purchased() -> None:
    everyone = made(a=made_slice(robots=0.0, sharpness=1, size=500, purchases=500))
    result = solved(everyone)
    assert (result.fpr, result.ivr) == (0.02, 0.02)
    nobody = made(a=made_slice(robots=0.5, sharpness=3, size=500, purchases=0))
    with pytest.raises(GuardrailError, match="found none among 500 clicks"):
        solved(nobody)


def test_a_status_other_than_optimal_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quadratic.cp.Problem, "status", "optimal_inaccurate")
    with pytest.raises(GuardrailError, match="found 'optimal_inaccurate' with the answer .* for 3 slices"):
        solved(three())


def test_thresholds_above_the_budget_are_never_published(monkeypatch: pytest.MonkeyPatch) -> None:
    real = quadratic._solve
    monkeypatch.setattr(quadratic, "_solve", lambda *args, **kwargs: replace(real(*args, **kwargs), f=np.full(3, 0.05)))
    with pytest.raises(GuardrailError, match="nothing is published"):
        solved(three())


def test_random_slices_always_keep_the_budget_and_the_optimum() -> None:
    for seed in range(15):
        random = np.random.default_rng(seed)
        slices = {
            f"s{i}": made_slice(
                robots=random.uniform(0.05, 0.5), sharpness=random.uniform(2, 5), size=6000, purchases=int(random.integers(5, 500))
            )
            for i in range(6)
        }
        result = solved(made(**slices))
        assert result.fpr <= 0.02
        rows = [row for row in result.slices if row.fitted and row.outcome == "quadratic"]
        if len(rows) == len([row for row in result.slices if row.fitted]):
            a, b, w, p = (np.array([getattr(row, name) for row in rows]) for name in ("a", "b", "w", "p"))
            left = 0.02 - sum(row.p * row.fpr for row in result.slices if not row.fitted)
            expected = bisect_price(a, b, w, p, np.zeros(len(rows)), 0.1, left)
            assert np.array([row.f for row in rows]) == pytest.approx(expected, abs=1e-4)


def test_one_method_decides_and_all_that_can_answer_are_kept() -> None:
    for method in METHODS:
        found = calibrate(three(), **SETTINGS | {"method": method})
        assert set(found.solutions) == set(METHODS)
        assert (found.refused, found.chosen.method) == ({}, method)
        assert found.thresholds == found.solutions[method].thresholds
        assert set(found.thresholds) == {"desktop", "mobile", "tablet"}


def test_a_method_without_an_answer_stops_only_if_it_decides() -> None:
    few = made(a=made_slice(robots=0.3, sharpness=4, size=4000, purchases=100))
    found = calibrate(few, **SETTINGS)
    assert set(found.solutions) == {"quadratic", "frontier"}
    assert found.refused["bounded"] == found.refused["global"]
    for method in ("bounded", "global"):
        with pytest.raises(GuardrailError, match="at least 149 independent purchasing clicks .* found 100 that are worth 100"):
            calibrate(few, **SETTINGS | {"method": method})


def test_scores_that_are_no_scores_are_refused() -> None:
    """NaN and scores outside [0, 1] are counted in bin -1."""
    with pytest.raises(InputError, match="score is NaN or outside"):
        solved(pd.concat([three(), made(desktop=made_slice(robots=0, sharpness=1, size=600, purchases=60).assign(bin=-1))]))


def test_what_finer_bins_could_add_is_said() -> None:
    found = calibrate(three(), **SETTINGS)
    clicks = three()
    missed = sum(((clicks["slice"] == name) & (clicks["bin"] == round(t * BINS))).sum() for name, t in found.thresholds.items())
    assert found.resolution == pytest.approx(missed / 58_000)
    assert 0 < found.resolution < 0.001
