"""Thresholds of all slices chosen together under one FPR budget: score histograms in, thresholds out. numpy, scipy and cvxpy.

Four methods answer the same question on the same clicks; one decides, all are kept for comparison:

- `bounded` (default): slice by slice, with a bound on the FPR of clicks that did not choose the thresholds (crossfit.py);
- `quadratic`: the published method (quadratic.py);
- `frontier`: the best thresholds for the calibration clicks themselves: what overfitting promises (concave.py);
- `global`: one threshold for all slices under the same budget and bound as `bounded`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slidr.calibration import concave, crossfit
from slidr.calibration import quadratic as published
from slidr.calibration.borrowing import choose
from slidr.calibration.correlation import count_pairs, design_effect
from slidr.calibration.counts import counts
from slidr.calibration.problem import (
    Problem,
    draft,
    least_purchases,
    require_affordable,
    require_enough_purchases,
    require_reachable,
    solution,
    too_costly,
)
from slidr.curves import COUNT_TOLERANCE, curves, index, knee, share
from slidr.errors import GuardrailError
from slidr.thresholds import Calibration, SliceThreshold, Solution

__all__ = ["calibrate", "count_pairs", "design_effect"]

EXACT = "exact"  # solver of the methods that need none


def calibrate(
    histogram: pd.DataFrame,
    *,
    method: str,
    fpr_budget: float,
    fpr_max: float,
    min_coverage: float,
    fit_fpr: float,
    min_purchases: int,
    confidence: float,
    effect: float = 1.0,
) -> Calibration:
    """Thresholds by all methods from rows (slice, fold, bin, clicks, purchasing, high_rfm, heavy), one per slice, fold and score bin.

    `effect`: see `correlation.design_effect`. A method that can't answer is left out with its reason, but for the one that decides.

    Raises GuardrailError where nobody purchased, where there are too few purchases for a bound, where the constraints contradict
    each other (the slices are named with their numbers), and for a solver status other than optimal; InputError for bad scores.
    """
    problem = Problem(curves(histogram), counts(histogram), fpr_budget, fpr_max, min_coverage, fit_fpr, min_purchases, confidence, effect)
    if not problem.pooled.purchasing:
        raise GuardrailError(
            f"calibration expected purchasing clicks to measure FPR by, found none among {problem.pooled.clicks} clicks; "
            "choose calibration days with purchases, or check that purchases were ingested"
        )
    solutions, refused = _answers(problem, method)
    return Calibration(
        method=method,
        solutions=solutions,
        refused=refused,
        fpr_budget=fpr_budget,
        fpr_max=fpr_max,
        min_coverage=min_coverage,
        fit_fpr=fit_fpr,
        confidence=confidence,
        purchasing=problem.pooled.purchasing,
        effective=problem.effective,
        knee=knee(problem.pooled),
        resolution=_resolution(problem, solutions[method]),
    )


def _answers(problem: Problem, method: str) -> tuple[dict[str, Solution], dict[str, str]]:
    """(method -> its solution, method -> why it has none)."""
    solutions: dict[str, Solution] = {}
    refused: dict[str, str] = {}
    for name, solve in SOLVERS.items():
        try:
            solutions[name] = solve(problem)
        except GuardrailError as error:
            if name == method:
                raise
            refused[name] = str(error)
    return solutions, refused


def bounded(problem: Problem) -> Solution:
    """The choice of `crossfit.select`; or the one threshold where slicing does not pay, or where there are purchases for its bound only.

    Slices pay if, with less of the doubt, they gain more: what one threshold would gain with as little doubt, times their advantage
    over one threshold at the same FPR. Both hardly depend on how the clicks near the budget fell; the better of two that were held
    against the budget would be the luckier, too.

    Raises GuardrailError for too few purchases, and where the coverage that is asked for can't be had within the budget.
    """
    one = one_threshold(problem)
    rows = [draft(problem, name, 1.0, "") for name in problem.counts.slices]
    require_reachable(problem, rows)
    careful = replace(problem, confidence=1 - crossfit.DOUBT * (1 - problem.confidence))
    keeps = _keeps_slices(problem, one)
    with_purchases = np.count_nonzero(problem.counts.all_purchasing.sum(axis=0))  # folds
    if with_purchases < 2 or (keeps and problem.effective < least_purchases(careful)):
        return replace(one, method="bounded", note="too few purchasing clicks to look at slices")
    borrowing = choose(problem.counts, problem.levels, problem.fpr_budget)
    doubt = {"budget": problem.fpr_budget, "confidence": careful.confidence, "effect": problem.effect}
    chosen = crossfit.select(problem.counts, problem.levels, problem.allowed, borrowing, **doubt)
    if keeps and chosen.advantage * _of_one_threshold(careful) <= one.ivr:
        return replace(
            one, method="bounded", note=f"slicing does not pay: at the same FPR it invalidates {chosen.advantage - 1:+.1%} of clicks"
        )
    if not chosen.holds:
        floors = zip(rows, chosen.cost, strict=True)
        raise too_costly(problem, {row.slice: (share(cost, row.p), row.p) for row, cost in floors}, chosen.bound)
    return _by_slice(problem, chosen, one.default_threshold, str(borrowing))


def _of_one_threshold(problem: Problem) -> float:
    """Its IVR, also where not even 0 holds."""
    position, _ = crossfit.one_threshold(problem.sums, problem.fpr_budget, problem.confidence, problem.effect)
    return float(problem.sums.clicks[:, position].sum()) / problem.pooled.clicks


def _by_slice(problem: Problem, chosen: crossfit.Selection, default: float, note: str) -> Solution:
    found = zip(problem.counts.slices, problem.counts.thresholds[chosen.position], chosen.own, chosen.cost, strict=True)
    slices = []
    for name, threshold, own, cost in found:
        row = draft(problem, name, float(threshold), f"own clicks {own:.0%}")
        slices.append(replace(row, f=share(cost, row.p), own=float(own)))
    return solution(
        problem,
        "bounded",
        slices,
        default,
        price=chosen.price,
        solver=EXACT,
        status="optimal",
        objective=chosen.ivr,
        held_out=chosen.fpr,
        bound=chosen.bound,
        note=note,
    )


def frontier(problem: Problem) -> Solution:
    """The optimum for the calibration clicks themselves. Slices with too few purchasing clicks are treated as by `quadratic`."""
    default = problem.pooled.threshold_at_fpr(problem.fpr_budget)
    rows = {name: draft(problem, name, default, published.too_few(problem, curve)) for name, curve in problem.curves.items()}
    fitted = [row for row in rows.values() if row.fitted]
    unfitted = sum(row.p * row.fpr for row in rows.values() if not row.fitted and row.purchasing)
    require_reachable(problem, fitted)
    require_affordable(problem, fitted, unfitted)
    if not fitted:
        return solution(problem, "frontier", list(rows.values()), default, price=(0.0, 0.0), solver="none", status="not needed")
    chosen = np.array([problem.counts.slices.index(row.slice) for row in fitted])
    spent, gained = problem.sums.purchasing[chosen], problem.sums.clicks[chosen]
    first, last = (ends[chosen] for ends in problem.allowed(problem.sums, _fpr_of_slices(problem)))
    allowed = (problem.fpr_budget - unfitted) * problem.pooled.purchasing
    position, (low, high) = concave.best_within(spent, gained, first, last, allowed)
    for row, at in zip(fitted, position, strict=True):
        rows[row.slice] = draft(problem, row.slice, float(problem.counts.thresholds[at]), "frontier")
    unit = problem.pooled.purchasing / problem.pooled.clicks
    found = solution(problem, "frontier", list(rows.values()), default, price=(low * unit, high * unit), solver=EXACT, status="optimal")
    return replace(found, objective=found.ivr)


def one_threshold(problem: Problem) -> Solution:
    """The lowest threshold for all slices whose FPR is within the budget at the confidence. It asks no coverage of a slice and leaves
    no slice out. Raises GuardrailError for too few purchases."""
    require_enough_purchases(problem)
    position, bound = crossfit.one_threshold(problem.sums, problem.fpr_budget, problem.confidence, problem.effect)
    threshold = float(problem.counts.thresholds[position])
    slices = [draft(problem, name, threshold, "one threshold") for name in problem.counts.slices]
    spent, gained = problem.sums.purchasing.sum(axis=0), problem.sums.clicks.sum(axis=0)
    pooled = concave.path(
        spent[None, :] / problem.pooled.purchasing, gained[None, :] / problem.pooled.clicks, np.array([0]), np.array([len(spent) - 1])
    )
    slopes = pooled.slopes[0]
    price = (float(slopes[position]) if position < len(slopes) else 0.0, float(slopes[position - 1]) if position else float("inf"))
    fpr = share(int(spent[position]), problem.pooled.purchasing)
    found = solution(problem, "global", slices, threshold, price=price, solver=EXACT, status="optimal", held_out=fpr, bound=bound)
    return replace(found, objective=found.ivr)


SOLVERS: Mapping[str, Callable[[Problem], Solution]] = {
    "bounded": bounded,
    "quadratic": published.solve,
    "frontier": frontier,
    "global": one_threshold,
}


def _keeps_slices(problem: Problem, one: Solution) -> bool:
    """Whether the one threshold keeps every slice's coverage and FPR."""

    def keeps(row: SliceThreshold) -> bool:
        covered = np.isnan(row.coverage) or row.coverage >= problem.min_coverage - COUNT_TOLERANCE
        return bool(covered) and (np.isnan(row.fpr) or row.fpr <= problem.fpr_max + COUNT_TOLERANCE)

    return all(keeps(row) for row in one.slices)


def _fpr_of_slices(problem: Problem) -> NDArray[Any]:
    """(S, C); 0 for slices without purchasing clicks."""
    found: NDArray[Any] = problem.sums.purchasing / np.maximum(problem.sums.all_purchasing, 1)[:, None]
    return found


def _resolution(problem: Problem, chosen: Solution) -> float:
    """Share of the clicks in the score bin right below each threshold: all that finer bins could invalidate at the same FPR."""
    places = {row.slice: index(row.threshold) for row in chosen.slices}
    missed = sum(int(problem.curves[name].invalid[max(k - 1, 0)] - problem.curves[name].invalid[k]) for name, k in places.items())
    return share(missed, problem.pooled.clicks)
