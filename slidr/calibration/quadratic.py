"""The published method (Muralidhar et al., "Real-time detection of robotic traffic in online advertising", IAAI 2023): each
slice's IVR is approximated as a concave quadratic of its FPR, and

    maximise    sum_s w_s (a_s f_s² + b_s f_s + c_s)
    subject to  sum_s p_s f_s <= budget,   floor_s <= f_s <= fpr_max

with w_s the slice's share of clicks and p_s its share of purchasing clicks (IVR is a share of the one, FPR of the other),
and floor_s the FPR at which the slice reaches its minimum robotic coverage. Thresholds are then read from the empirical
curves. The budget holds on the calibration clicks, and seldom on others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from slidr.calibration.problem import Problem, draft, moved, require_affordable, require_reachable, solution
from slidr.curves import COUNT_TOLERANCE, Curve
from slidr.errors import GuardrailError
from slidr.thresholds import NAN, SliceThreshold, Solution

SOLVER = "CLARABEL"
TOUCHES = 1e-6  # an FPR this near to its bound is at it


@dataclass(frozen=True)
class _Optimum:
    f: NDArray[Any]  # FPR of each fitted slice, in the order given
    status: str
    objective: float
    price: tuple[float, float]


def solve(problem: Problem) -> Solution:
    """What happens to slices that the method does not fit:

    - fewer than `min_purchases` purchasing clicks, or a curve with one point up to `fit_fpr`: the global threshold; what it
      spends of the budget is taken off first, and no coverage is asked of the slice;
    - a fit that curves upwards, or two points: a straight line (outcome `linear`);
    - no clicks of heavy sessions: floor 0.

    Raises GuardrailError where the constraints contradict each other (the slices are named, before anything is solved), and for a
    solver status other than optimal.
    """
    default = problem.pooled.threshold_at_fpr(problem.fpr_budget)
    drafts = [_fitted(draft(problem, name, default, too_few(problem, curve)), curve, problem) for name, curve in problem.curves.items()]
    fitted = [row for row in drafts if row.fitted]
    optimum = _Optimum(np.empty(0), "not needed", NAN, (NAN, NAN))
    if fitted:
        spent = sum(row.p * row.fpr for row in drafts if not row.fitted and row.purchasing)
        require_reachable(problem, fitted)
        require_affordable(problem, fitted, spent)
        optimum = _solve(fitted, budget=problem.fpr_budget - spent, fpr_max=problem.fpr_max)
    chosen = dict(zip([row.slice for row in fitted], optimum.f, strict=True))
    slices = [_read(row, problem.curves[row.slice], float(chosen[row.slice])) if row.fitted else row for row in drafts]
    found = solution(
        problem,
        "quadratic",
        slices,
        default,
        price=optimum.price,
        solver=SOLVER if fitted else "none",
        status=optimum.status,
        objective=optimum.objective,
    )
    _require_within_budget(found, problem)
    return found


def too_few(problem: Problem, curve: Curve) -> str:
    """The outcome of a slice that has too few purchasing clicks for a curve of its own; '' where it has enough."""
    least = max(problem.min_purchases, 1)
    if curve.purchasing >= least:
        return ""
    return f"global: {f'{curve.purchasing} purchasing clicks' if curve.clicks else 'no clicks'}, {least} are needed"


def fit(curve: Curve, fit_fpr: float) -> tuple[float, float, float, str]:
    """(a, b, c, outcome) of ivr = a f² + b f + c by least squares on the curve's frontier up to `fit_fpr`, a <= 0.

    Two points, or a fit that curves upwards, give a line. One point gives NaN and an outcome that starts with `global`.
    """
    fpr, ivr = curve.frontier()
    within = fpr <= fit_fpr + COUNT_TOLERANCE
    fpr, ivr = fpr[within], ivr[within]
    if fpr.size < 2:
        return NAN, NAN, NAN, f"global: the curve has {fpr.size} point up to FPR {fit_fpr:g}, 2 are needed"
    if fpr.size > 2:
        a, b, c = np.polyfit(fpr, ivr, 2)
        if a < 0:
            return float(a), float(b), float(c), "quadratic"
    b, c = np.polyfit(fpr, ivr, 1)
    return 0.0, float(b), float(c), "linear"


def _fitted(row: SliceThreshold, curve: Curve, problem: Problem) -> SliceThreshold:
    if row.outcome:
        return row
    a, b, c, outcome = fit(curve, problem.fit_fpr)
    return replace(row, a=a, b=b, c=c, outcome=outcome)


def _solve(fitted: Sequence[SliceThreshold], *, budget: float, fpr_max: float) -> _Optimum:
    w, p, a, b, c, floor = (np.array([getattr(row, name) for row in fitted]) for name in ("w", "p", "a", "b", "c", "floor"))
    # Where the fit is flat nothing is gained above the floor, and the solver would stop anywhere.
    upper = np.maximum(np.where((a < 0) | (b > 0), fpr_max, floor), floor)
    f = cp.Variable(len(fitted))
    spent = cast(cp.Expression, p @ f)  # numpy's types don't know that cvxpy answers
    within = spent <= max(budget, float(p @ floor))
    gain = cp.sum(cp.multiply(w * a, cp.square(f)) + cp.multiply(w * b, f)) + float(w @ c)
    problem = cp.Problem(cp.Maximize(gain), [within, f >= floor, f <= upper])
    try:
        problem.solve(solver=cp.CLARABEL)
    except (cp.error.SolverError, ArithmeticError, ValueError) as error:  # cvxpy passes on what a solver raises
        raise GuardrailError(
            f"calibration expected the solver {SOLVER} to end as optimal, it failed: {type(error).__name__}: {error}; "
            "set calibration.method to one that needs no solver, such as bounded"
        ) from error
    if problem.status != cp.OPTIMAL or f.value is None or not np.isfinite(f.value).all():
        raise GuardrailError(
            f"calibration expected the solver {SOLVER} to end as optimal, found {problem.status!r} with the answer {f.value} for "
            f"{len(fitted)} slices; look at the curves, or set calibration.min_coverage to 0 to find the constraint that is in the way"
        )
    found = np.clip(f.value, floor, upper)
    left = max(budget, float(p @ floor)) - float(p @ found)
    price = _prices(found, w * (2 * a * found + b) / p, floor, upper, 0.0 if left > TOUCHES else float(within.dual_value))
    return _Optimum(found, problem.status, float(problem.value), price)


def _prices(f: NDArray[Any], gain: NDArray[Any], floor: NDArray[Any], upper: NDArray[Any], dual: float) -> tuple[float, float]:
    """Lowest and highest price at which this is the optimum: no slice that could rise gains more per unit of budget, none that could
    fall gains less. A single price wherever a slice lies between its bounds, or the budget is not spent (then 0)."""
    if not dual or ((f > floor + TOUCHES) & (f < upper - TOUCHES)).any():
        return dual, dual
    can_rise, can_fall = f < upper - TOUCHES, f > floor + TOUCHES
    low = max(float(gain[can_rise].max()), 0.0) if can_rise.any() else 0.0
    return low, float(gain[can_fall].min()) if can_fall.any() else float("inf")


def _read(row: SliceThreshold, curve: Curve, f: float) -> SliceThreshold:
    return replace(moved(row, curve, curve.threshold_at_fpr(f)), f=f)


def _require_within_budget(found: Solution, problem: Problem) -> None:
    """Against the clicks themselves, since what was optimised is a fit."""
    purchasing = problem.pooled.purchasing
    if found.fpr * purchasing > problem.fpr_budget * purchasing + COUNT_TOLERANCE:
        raise GuardrailError(
            f"calibration expected an FPR of at most {problem.fpr_budget:g} at the chosen thresholds, found {found.fpr:.6f} of "
            f"{purchasing} purchasing clicks invalidated; nothing is published; report this with the curves"
        )
