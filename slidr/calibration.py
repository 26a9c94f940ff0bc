"""Thresholds of all slices chosen together under one FPR budget: curves in, thresholds out.

The published method (Muralidhar et al., "Real-time detection of robotic traffic in online advertising", IAAI 2023): each
slice's IVR is approximated as a concave quadratic of its FPR, and

    maximise    sum_s w_s (a_s f_s² + b_s f_s + c_s)
    subject to  sum_s p_s f_s <= budget,   floor_s <= f_s <= fpr_max

with w_s the slice's share of clicks and p_s its share of purchasing clicks (IVR is a share of the one, FPR of the other),
and floor_s the FPR at which the slice reaches its minimum robotic coverage. Thresholds are then read from the empirical
curves. The budget holds on the calibration clicks; later traffic needs a check of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import cvxpy as cp
import numpy as np

from slidr.curves import COUNT_TOLERANCE, Calibration, Curve, SliceThreshold, knee, pool, share
from slidr.errors import GuardrailError

SOLVER = "CLARABEL"
NAN = float("nan")


@dataclass(frozen=True)
class _Solution:
    f: np.ndarray  # FPR of each fitted slice, in the order given
    status: str
    objective: float
    price: float  # dual of the budget: IVR per unit of FPR


def calibrate(
    curves: Mapping[str, Curve],
    *,
    fpr_budget: float,
    fpr_max: float,
    min_coverage: float,
    fit_fpr: float,
    min_purchases: int,
) -> Calibration:
    """Thresholds per slice, and the global threshold under the same budget.

    What happens to slices that the method does not fit:

    - fewer than `min_purchases` purchasing clicks, or a curve with one point up to `fit_fpr`: the global threshold; what it
      spends of the budget is taken off first, and no coverage is asked of the slice;
    - a fit that curves upwards, or two points: a straight line (outcome `linear`);
    - no clicks of heavy sessions: floor 0;
    - not one slice fitted: method `global`.

    Raises GuardrailError where nobody purchased, where the constraints contradict each other (the slices are named, before
    anything is solved), and for a solver status other than optimal.
    """
    pooled = pool(curves)
    if not pooled.purchasing:
        raise GuardrailError(
            f"calibration expected purchasing clicks to measure FPR by, found none among {pooled.clicks} clicks; "
            "choose calibration days with purchases, or check that purchases were ingested"
        )
    default = pooled.threshold_at_fpr(fpr_budget)
    drafts = [
        _draft(name, curve, pooled, default, fit_fpr=fit_fpr, min_coverage=min_coverage, min_purchases=min_purchases)
        for name, curve in curves.items()
    ]
    fitted = [draft for draft in drafts if draft.fitted]
    solution = _Solution(np.empty(0), "not needed", NAN, NAN)
    if fitted:
        spent = sum(draft.p * draft.fpr for draft in drafts if not draft.fitted and draft.purchasing)
        _require_feasible(fitted, spent, fpr_budget=fpr_budget, fpr_max=fpr_max, min_coverage=min_coverage)
        solution = _solve(fitted, budget=fpr_budget - spent, fpr_max=fpr_max)
    chosen = dict(zip([draft.slice for draft in fitted], solution.f, strict=True))
    slices = tuple(_read_threshold(d, curves[d.slice], float(chosen[d.slice])) if d.fitted else d for d in drafts)
    invalid, purchasing = _totals(slices, curves)
    _require_within_budget(purchasing, pooled.purchasing, fpr_budget)
    return Calibration(
        method="quadratic" if fitted else "global",
        thresholds={row.slice: row.threshold for row in slices},
        default_threshold=default,
        slices=slices,
        solver=SOLVER if fitted else "none",
        status=solution.status,
        objective=solution.objective,
        price=solution.price,
        fpr_budget=fpr_budget,
        fpr_max=fpr_max,
        fit_fpr=fit_fpr,
        ivr=share(invalid, pooled.clicks),
        fpr=share(purchasing, pooled.purchasing),
        global_ivr=pooled.at(default)["ivr"],
        global_fpr=pooled.at(default)["fpr"],
        knee=knee(pooled),
    )


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


def _draft(
    name: str, curve: Curve, pooled: Curve, default: float, *, fit_fpr: float, min_coverage: float, min_purchases: int
) -> SliceThreshold:
    """The slice at the global threshold, with its fit and floor where it has them."""
    at_default = curve.at(default)
    draft = SliceThreshold(
        slice=name,
        clicks=curve.clicks,
        purchasing=curve.purchasing,
        w=share(curve.clicks, pooled.clicks),
        p=share(curve.purchasing, pooled.purchasing),
        a=NAN,
        b=NAN,
        c=NAN,
        floor=NAN,
        f=at_default["fpr"],
        threshold=default,
        fpr=at_default["fpr"],
        ivr=at_default["ivr"],
        coverage=at_default["coverage"],
        outcome="",
    )
    if curve.purchasing < max(min_purchases, 1):
        found = f"{curve.purchasing} purchasing clicks" if curve.clicks else "no clicks"
        return replace(draft, outcome=f"global: {found}, {max(min_purchases, 1)} are needed")
    a, b, c, outcome = fit(curve, fit_fpr)
    return replace(draft, a=a, b=b, c=c, outcome=outcome, floor=_floor(curve, min_coverage))


def _floor(curve: Curve, min_coverage: float) -> float:
    """The lowest FPR with the minimum coverage: 0 without heavy sessions, infinite where no threshold reaches it."""
    if not curve.heavy:
        return 0.0
    threshold = curve.threshold_at_coverage(min_coverage)
    return float("inf") if threshold is None else curve.at(threshold)["fpr"]


def _require_feasible(fitted: Sequence[SliceThreshold], spent: float, *, fpr_budget: float, fpr_max: float, min_coverage: float) -> None:
    above = [d for d in fitted if d.floor > fpr_max + COUNT_TOLERANCE]
    if above:
        found = "; ".join(f"{d.slice} needs {'more than any threshold gives' if np.isinf(d.floor) else f'{d.floor:.4f}'}" for d in above)
        raise GuardrailError(
            f"calibration expected each slice to reach coverage {min_coverage:g} at an FPR of at most {fpr_max:g} "
            f"(calibration.fpr_max), found: {found}; lower calibration.min_coverage or raise calibration.fpr_max"
        )
    needed = spent + sum(d.p * d.floor for d in fitted)
    if needed > fpr_budget + COUNT_TOLERANCE:
        costly = sorted((d for d in fitted if d.floor > 0), key=lambda d: -d.p * d.floor)
        found = "; ".join(f"{d.slice}: FPR {d.floor:.4f} x {d.p:.4f} of purchasing clicks = {d.p * d.floor:.4f}" for d in costly)
        raise GuardrailError(
            f"calibration expected the minimum coverage {min_coverage:g} of every slice to fit into the FPR budget {fpr_budget:g}, "
            f"found that it takes {needed:.4f} ({found}; slices at the global threshold: {spent:.4f}); "
            f"raise calibration.fpr_budget to {ceil(needed * 1e4) / 1e4:.4f} or lower calibration.min_coverage"
        )


def _solve(fitted: Sequence[SliceThreshold], *, budget: float, fpr_max: float) -> _Solution:
    w, p, a, b, c, floor = (np.array([getattr(d, name) for d in fitted]) for name in ("w", "p", "a", "b", "c", "floor"))
    # Where the fit is flat nothing is gained above the floor, and the solver would stop anywhere.
    upper = np.maximum(np.where((a < 0) | (b > 0), fpr_max, floor), floor)
    f = cp.Variable(len(fitted))
    within = p @ f <= max(budget, float(p @ floor))
    gain = cp.sum(cp.multiply(w * a, cp.square(f)) + cp.multiply(w * b, f)) + float(w @ c)
    problem = cp.Problem(cp.Maximize(gain), [within, f >= floor, f <= upper])
    try:
        problem.solve(solver=cp.CLARABEL)
    except cp.error.SolverError as error:
        raise GuardrailError(f"calibration expected the solver {SOLVER} to end as optimal, it failed: {error}") from error
    if problem.status != cp.OPTIMAL or f.value is None:
        raise GuardrailError(
            f"calibration expected the solver {SOLVER} to end as optimal, found {problem.status!r} with {len(fitted)} slices; "
            "look at the curves, or set calibration.min_coverage to 0 to find the constraint that is in the way"
        )
    return _Solution(np.clip(f.value, floor, upper), problem.status, float(problem.value), float(within.dual_value))


def _read_threshold(draft: SliceThreshold, curve: Curve, f: float) -> SliceThreshold:
    threshold = curve.threshold_at_fpr(f)
    at = curve.at(threshold)
    return replace(draft, f=f, threshold=threshold, fpr=at["fpr"], ivr=at["ivr"], coverage=at["coverage"])


def _totals(slices: Sequence[SliceThreshold], curves: Mapping[str, Curve]) -> tuple[int, int]:
    points = [curves[row.slice].at(row.threshold) for row in slices]
    return int(sum(point["invalid"] for point in points)), int(sum(point["purchasing_invalid"] for point in points))


def _require_within_budget(purchasing_invalid: int, purchasing: int, fpr_budget: float) -> None:
    """Against the clicks themselves, since what was optimised is a fit."""
    if purchasing_invalid > fpr_budget * purchasing + COUNT_TOLERANCE:
        raise GuardrailError(
            f"calibration expected an FPR of at most {fpr_budget:g} at the chosen thresholds, found {purchasing_invalid} of "
            f"{purchasing} purchasing clicks invalidated; nothing is published; report this with the curves"
        )
