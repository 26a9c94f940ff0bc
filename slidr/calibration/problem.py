"""What all methods start from: curves and counts of the calibration clicks, and the constraints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np

from slidr.calibration.counts import Counts, Levels, Numbers, Shares, Sums, parents
from slidr.curves import COUNT_TOLERANCE, Curve, pool, share
from slidr.errors import GuardrailError
from slidr.thresholds import NAN, SliceThreshold, Solution


@dataclass(frozen=True)
class Problem:
    """maximise IVR, subject to an FPR of at most `fpr_budget` over all slices, and in each slice a robotic coverage of at least
    `min_coverage` (where it has clicks of heavy sessions) and an FPR of at most `fpr_max`.

    `effect`: see `correlation.design_effect`. `min_purchases` and `fit_fpr` matter to `quadratic` and `frontier`.
    """

    curves: Mapping[str, Curve]
    counts: Counts
    fpr_budget: float
    fpr_max: float
    min_coverage: float
    fit_fpr: float
    min_purchases: int
    confidence: float
    effect: float

    @cached_property
    def pooled(self) -> Curve:
        return pool(self.curves)

    @cached_property
    def levels(self) -> Levels:
        return parents(self.counts.slices)

    @cached_property
    def sums(self) -> Sums:
        return self.counts.of_folds(np.ones(self.counts.folds, dtype=np.bool_))

    @property
    def effective(self) -> float:
        """What the purchasing clicks are worth as independent ones."""
        return self.pooled.purchasing / self.effect

    def allowed(self, sums: Sums, cost: Shares) -> tuple[Numbers, Numbers]:
        """First and last allowed position of each slice (S,): from the minimum coverage on, up to the maximum FPR.

        `cost` (S, C) in any unit that is a multiple of the slice's FPR. Where no position has both, the first is after the last.
        """
        enough = sums.heavy >= self.min_coverage * sums.all_heavy[:, None] - COUNT_TOLERANCE
        first = np.where(enough.any(axis=1), enough.argmax(axis=1), cost.shape[1])
        within = cost <= (self.fpr_max + COUNT_TOLERANCE) * cost[:, -1:]
        return first, np.maximum(within.sum(axis=1) - 1, 0)


def draft(problem: Problem, name: str, threshold: float, outcome: str) -> SliceThreshold:
    """The slice at a threshold, with the counts of the calibration clicks."""
    curve = problem.curves[name]
    at = curve.at(threshold)
    return SliceThreshold(
        slice=name,
        clicks=curve.clicks,
        purchasing=curve.purchasing,
        w=share(curve.clicks, problem.pooled.clicks),
        p=share(curve.purchasing, problem.pooled.purchasing),
        floor=floor(curve, problem.min_coverage),
        f=at["fpr"],
        threshold=threshold,
        fpr=at["fpr"],
        ivr=at["ivr"],
        coverage=at["coverage"],
        outcome=outcome,
    )


def moved(row: SliceThreshold, curve: Curve, threshold: float) -> SliceThreshold:
    """The slice at another threshold."""
    at = curve.at(threshold)
    return replace(row, threshold=threshold, fpr=at["fpr"], ivr=at["ivr"], coverage=at["coverage"])


def floor(curve: Curve, min_coverage: float) -> float:
    """The lowest FPR with the minimum coverage: 0 without heavy sessions, infinite where no threshold reaches it."""
    if not curve.heavy or not min_coverage:
        return 0.0
    threshold = curve.threshold_at_coverage(min_coverage)
    return float("inf") if threshold is None else curve.at(threshold)["fpr"]


def solution(
    problem: Problem,
    method: str,
    slices: Sequence[SliceThreshold],
    default: float,
    *,
    price: tuple[float, float],
    solver: str,
    status: str,
    objective: float = NAN,
    held_out: float = NAN,
    bound: float = NAN,
    note: str = "",
) -> Solution:
    """With IVR and FPR of the calibration clicks at the thresholds."""
    points = [problem.curves[row.slice].at(row.threshold) for row in slices]
    invalid, spent = (int(sum(point[name] for point in points)) for name in ("invalid", "purchasing_invalid"))
    return Solution(
        method=method,
        slices=tuple(slices),
        default_threshold=default,
        ivr=share(invalid, problem.pooled.clicks),
        fpr=share(spent, problem.pooled.purchasing),
        price=price,
        solver=solver,
        status=status,
        objective=objective,
        held_out=held_out,
        bound=bound,
        note=note,
    )


def least_purchases(problem: Problem) -> int:
    """Independent purchasing clicks with which an FPR of 0 is shown to be within the budget: about 3 / budget at 95 %."""
    found: int = ceil(np.log(1 - problem.confidence) / np.log(1 - problem.fpr_budget))
    return found


def require_enough_purchases(problem: Problem) -> None:
    """Raises GuardrailError where not even a threshold that invalidates no purchasing click could be shown to hold."""
    least = least_purchases(problem)
    if problem.effective < least:
        possible = 1 - (1 - problem.confidence) ** (1 / max(problem.effective, 1))
        raise GuardrailError(
            f"calibration expected at least {least} independent purchasing clicks (about 3 / FPR budget {problem.fpr_budget:g}), since "
            f"with fewer no bound of {problem.confidence:.0%} confidence can hold, found {problem.pooled.purchasing} that are worth "
            f"{problem.effective:.0f} (some are of the same user); take more calibration days, a larger share of the users for calibration "
            f"(training.user_shares), a calibration.fpr_budget of at least {ceil(possible * 1e4) / 1e4:.4f}, "
            "or a calibration.method without a bound"
        )


def require_reachable(problem: Problem, slices: Sequence[SliceThreshold]) -> None:
    """Raises GuardrailError that names the slices whose minimum coverage needs a higher FPR than a slice may have."""
    above = [row for row in slices if row.floor > problem.fpr_max + COUNT_TOLERANCE]
    if above:
        found = "; ".join(f"{d.slice} needs {'more than any threshold gives' if np.isinf(d.floor) else f'{d.floor:.4f}'}" for d in above)
        raise GuardrailError(
            f"calibration expected each slice to reach coverage {problem.min_coverage:g} at an FPR of at most {problem.fpr_max:g} "
            f"(calibration.fpr_max), found: {found}; lower calibration.min_coverage or raise calibration.fpr_max"
        )


def require_affordable(problem: Problem, slices: Sequence[SliceThreshold], spent: float) -> None:
    """Raises GuardrailError that names what each slice's minimum coverage costs, where the budget is less; `spent` goes off first."""
    needed = spent + sum(row.p * row.floor for row in slices)
    if needed > problem.fpr_budget + COUNT_TOLERANCE:
        raise too_costly(problem, {row.slice: (row.floor, row.p) for row in slices}, needed, spent)


def too_costly(problem: Problem, floors: Mapping[str, tuple[float, float]], needed: float, spent: float = 0.0) -> GuardrailError:
    """`floors`: slice -> (FPR at its minimum coverage, its share of the purchasing clicks); `needed`: the budget that would do."""
    costly = sorted(((name, f, p) for name, (f, p) in floors.items() if f > 0), key=lambda row: -row[1] * row[2])
    found = "; ".join(f"{name}: FPR {f:.4f} x {p:.4f} of purchasing clicks = {f * p:.4f}" for name, f, p in costly)
    return GuardrailError(
        f"calibration expected the minimum coverage {problem.min_coverage:g} of every slice to fit into the FPR budget "
        f"{problem.fpr_budget:g}, found that it takes {needed:.4f} ({found}; slices at the global threshold: {spent:.4f}); "
        f"raise calibration.fpr_budget to {ceil(needed * 1e4) / 1e4:.4f} or lower calibration.min_coverage"
    )
