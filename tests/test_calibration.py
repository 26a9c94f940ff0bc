import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from slidr import calibration
from slidr.calibration import calibrate
from slidr.curves import BINS, Calibration, Curve, curves, pool
from slidr.errors import GuardrailError
from tests.oracles_calibration import bisect_price

SETTINGS = {"fpr_budget": 0.02, "fpr_max": 0.1, "min_coverage": 0.0, "fit_fpr": 0.06, "min_purchases": 30}


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


def made(**slices: pd.DataFrame) -> dict[str, Curve]:
    return curves(pd.concat([rows.assign(slice=name) for name, rows in slices.items()]))


def three() -> dict[str, Curve]:
    """Slices whose share of clicks and of purchasing clicks differ much."""
    return made(
        desktop=made_slice(robots=0.4, sharpness=4, size=30_000, purchases=400),
        mobile=made_slice(robots=0.1, sharpness=3, size=20_000, purchases=1600),
        tablet=made_slice(robots=0.3, sharpness=3.5, size=8_000, purchases=300),
    )


def fitted(result: Calibration) -> dict[str, np.ndarray]:
    return {name: np.array([getattr(row, name) for row in result.slices]) for name in ("a", "b", "c", "w", "p", "floor", "f")}


def optimum(result: Calibration, budget: float) -> np.ndarray:
    rows = fitted(result)
    return bisect_price(rows["a"], rows["b"], rows["w"], rows["p"], rows["floor"], result.fpr_max, budget)


@pytest.mark.parametrize(("budget", "coverage"), [(0.005, 0.0), (0.02, 0.0), (0.05, 0.0), (0.2, 0.0), (0.03, 0.3)])
def test_solution_is_the_closed_form_of_the_separable_problem(budget: float, coverage: float) -> None:
    result = calibrate(three(), **SETTINGS | {"fpr_budget": budget, "min_coverage": coverage})
    rows = fitted(result)
    expected = optimum(result, budget)
    assert [row.outcome for row in result.slices] == ["quadratic"] * 3
    assert rows["f"] == pytest.approx(expected, abs=1e-4)
    assert result.objective == pytest.approx(rows["w"] @ (rows["a"] * expected**2 + rows["b"] * expected + rows["c"]), abs=1e-4)
    assert (result.status, result.method, result.solver) == ("optimal", "quadratic", "CLARABEL")


def test_no_point_of_a_grid_is_better() -> None:
    result = calibrate(three(), **SETTINGS)
    rows = fitted(result)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 0.1, 61)] * 3), axis=-1).reshape(-1, 3)
    grid = grid[grid @ rows["p"] <= 0.02]
    best = ((rows["a"] * grid**2 + rows["b"] * grid + rows["c"]) @ rows["w"]).max()
    assert best <= result.objective + 1e-6
    assert result.objective - best < 1e-3


def test_the_two_weights_are_not_confused() -> None:
    """IVR weighs slices by clicks and FPR by purchasing clicks; with one weight for both the answer is another."""
    result = calibrate(three(), **SETTINGS)
    rows = fitted(result)
    assert rows["w"] == pytest.approx(np.array([30, 20, 8]) / 58)
    assert rows["p"] == pytest.approx(np.array([400, 1600, 300]) / 2300)
    for one in ("w", "p"):
        confused = bisect_price(rows["a"], rows["b"], rows[one], rows[one], rows["floor"], 0.1, 0.02)
        assert np.abs(confused - rows["f"]).max() > 0.005
    assert rows["p"] @ rows["f"] == pytest.approx(0.02, abs=1e-6)


def test_thresholds_keep_every_constraint_on_the_clicks_themselves() -> None:
    slices = three()
    result = calibrate(slices, **SETTINGS | {"fpr_budget": 0.03, "min_coverage": 0.3})
    points = {name: slices[name].at(threshold) for name, threshold in result.thresholds.items()}
    spent = sum(point["purchasing_invalid"] for point in points.values())
    assert spent <= 0.03 * 2300
    assert result.fpr == spent / 2300
    assert all(point["coverage"] >= 0.3 and point["fpr"] <= 0.1 for point in points.values())
    assert result.ivr == sum(point["invalid"] for point in points.values()) / 58_000


def test_slices_beat_the_global_threshold_and_it_keeps_the_same_budget() -> None:
    slices = three()
    result = calibrate(slices, **SETTINGS)
    assert result.default_threshold == pool(slices).threshold_at_fpr(0.02)
    assert result.global_fpr <= 0.02
    assert result.ivr > result.global_ivr


def test_a_larger_budget_never_lowers_the_objective() -> None:
    objectives = [calibrate(three(), **SETTINGS | {"fpr_budget": budget}).objective for budget in np.linspace(0, 0.12, 9)]
    assert all(later >= earlier - 1e-7 for earlier, later in zip(objectives, objectives[1:], strict=False))
    assert objectives[-1] > objectives[0]


def test_price_is_the_gain_per_unit_of_budget() -> None:
    low, high = (calibrate(three(), **SETTINGS | {"fpr_budget": budget}) for budget in (0.0199, 0.0201))
    assert calibrate(three(), **SETTINGS).price == pytest.approx((high.objective - low.objective) / 0.0002, rel=1e-2)


def test_floors_above_the_budget_are_named_with_their_numbers() -> None:
    with pytest.raises(GuardrailError) as stopped:
        calibrate(three(), **SETTINGS | {"min_coverage": 0.4})
    for part in ("FPR budget 0.02", "mobile: FPR", "x 0.6957 of purchasing clicks", "raise calibration.fpr_budget to 0."):
        assert part in str(stopped.value)


def test_a_floor_above_the_slice_maximum_is_named() -> None:
    with pytest.raises(GuardrailError, match=r"calibration.fpr_max\), found: desktop needs 0\.\d+; mobile needs 0\.\d+; tablet needs 0"):
        calibrate(three(), **SETTINGS | {"min_coverage": 0.99})
    slices = three()
    slices["tablet"] = replace(slices["tablet"], heavy=10**6)
    with pytest.raises(GuardrailError, match="tablet needs more than any threshold gives"):
        calibrate(slices, **SETTINGS | {"min_coverage": 0.5})


def test_the_budget_that_the_message_asks_for_is_enough() -> None:
    with pytest.raises(GuardrailError) as stopped:
        calibrate(three(), **SETTINGS | {"min_coverage": 0.4})
    asked = float(str(stopped.value).split("raise calibration.fpr_budget to ")[1].split()[0])
    assert calibrate(three(), **SETTINGS | {"min_coverage": 0.4, "fpr_budget": asked}).status == "optimal"


def test_small_and_empty_slices_take_the_global_threshold_and_their_purchases_count() -> None:
    small = made_slice(robots=0.5, sharpness=0.3, size=900, purchases=29)
    nobody = made_slice(robots=0.5, sharpness=3, size=500, purchases=0)
    big = made_slice(robots=0.3, sharpness=4, size=20_000, purchases=600)
    slices = made(big=big, nobody=nobody, small=small)
    slices["empty"] = replace(slices["nobody"], **{name: 0 * getattr(slices["nobody"], name) for name in vars(slices["nobody"])})
    result = calibrate(slices, **SETTINGS)
    rows = {row.slice: row for row in result.slices}
    assert {result.thresholds[name] for name in ("nobody", "small", "empty")} == {result.default_threshold}
    assert rows["small"].outcome == "global: 29 purchasing clicks, 30 are needed"
    assert rows["nobody"].outcome == "global: 0 purchasing clicks, 30 are needed"
    assert rows["empty"].outcome == "global: no clicks, 30 are needed"
    spent_by_small = slices["small"].at(result.default_threshold)["fpr"] * 29 / 629
    assert rows["big"].f * 600 / 629 == pytest.approx(0.02 - spent_by_small, abs=1e-6)
    assert math.isnan(rows["nobody"].fpr)


def test_fits_that_curve_upwards_become_lines() -> None:
    upwards = made_slice(robots=0.3, sharpness=0.5, size=20_000, purchases=600)
    result = calibrate(made(a=upwards), **SETTINGS)
    (row,) = result.slices
    assert (row.outcome, row.a) == ("linear", 0.0)
    assert row.b > 0
    assert row.f == pytest.approx(0.02, abs=1e-6)


def test_two_points_make_a_line_and_one_point_the_global_threshold() -> None:
    few = made(a=made_slice(robots=0.3, sharpness=3, size=2000, purchases=30))
    assert calibrate(few, **SETTINGS).slices[0].outcome == "linear"
    result = calibrate(few, **SETTINGS | {"fit_fpr": 0.01})
    assert result.method == "global"
    assert (result.status, result.solver) == ("not needed", "none")
    assert result.thresholds == {"a": result.default_threshold}
    assert result.slices[0].outcome.startswith("global: the curve has 1 point")


def test_a_slice_without_heavy_sessions_has_no_floor() -> None:
    slices = made(
        heavy=made_slice(robots=0.3, sharpness=4, size=20_000, purchases=600),
        light=made_slice(robots=0.3, sharpness=4, size=20_000, purchases=600, heavy=False),
    )
    result = calibrate(slices, **SETTINGS | {"min_coverage": 0.4})
    rows = {row.slice: row for row in result.slices}
    assert rows["light"].floor == 0
    assert math.isnan(rows["light"].coverage)
    assert rows["heavy"].floor > 0
    assert rows["heavy"].coverage >= 0.4


def test_where_everyone_or_nobody_purchased() -> None:
    everyone = made(a=made_slice(robots=0.0, sharpness=1, size=500, purchases=500))
    result = calibrate(everyone, **SETTINGS)
    assert (result.fpr, result.ivr) == (0.02, 0.02)
    nobody = made(a=made_slice(robots=0.5, sharpness=3, size=500, purchases=0))
    with pytest.raises(GuardrailError, match="found none among 500 clicks"):
        calibrate(nobody, **SETTINGS)


def test_a_status_other_than_optimal_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration.cp.Problem, "status", "optimal_inaccurate")
    with pytest.raises(GuardrailError, match="found 'optimal_inaccurate' with 3 slices"):
        calibrate(three(), **SETTINGS)


def test_thresholds_above_the_budget_are_never_published(monkeypatch: pytest.MonkeyPatch) -> None:
    real = calibration._solve
    monkeypatch.setattr(calibration, "_solve", lambda *args, **kwargs: replace(real(*args, **kwargs), f=np.full(3, 0.05)))
    with pytest.raises(GuardrailError, match="nothing is published"):
        calibrate(three(), **SETTINGS)


def test_random_slices_always_keep_the_budget_and_the_optimum() -> None:
    for seed in range(15):
        random = np.random.default_rng(seed)
        slices = {
            f"s{i}": made_slice(
                robots=random.uniform(0.05, 0.5), sharpness=random.uniform(2, 5), size=6000, purchases=int(random.integers(5, 500))
            )
            for i in range(6)
        }
        result = calibrate(made(**slices), **SETTINGS)
        assert result.fpr <= 0.02
        rows = [row for row in result.slices if row.fitted and row.outcome == "quadratic"]
        if len(rows) == len([row for row in result.slices if row.fitted]):
            a, b, w, p = (np.array([getattr(row, name) for row in rows]) for name in ("a", "b", "w", "p"))
            left = 0.02 - sum(row.p * row.fpr for row in result.slices if not row.fitted)
            expected = bisect_price(a, b, w, p, np.zeros(len(rows)), 0.1, left)
            assert np.array([row.f for row in rows]) == pytest.approx(expected, abs=1e-4)
