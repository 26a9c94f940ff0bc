"""Thresholds whose FPR stays within the budget on clicks that did not choose them, with a confidence that is stated.

`select`, slice by slice: the path of `concave` over the costs of `borrowing` is a sequence of choices that invalidate more and
more. For each IVR on it, thresholds are learnt from all folds but one and judged on that one; the judged counts of all folds
together give the FPR at this IVR. The largest IVR is taken up to which its Clopper–Pearson upper end is within the budget, and the
thresholds of that IVR are learnt from all clicks. Choices are named by their IVR, which hardly varies by chance, not by their cost
or price: purchasing clicks that are few by luck would lower the judged FPR and the thresholds at once, and the budget was then
exceeded in 13 % of redraws of one population, 4 % this way.

Whole users are in one fold. It is a selection by cross-fitting, without a proof: the study in tests/bench/calibration.py measures how
often it holds. The choice gets DOUBT of the doubt that a bound may be wrong: at a confidence of 95 % one population exceeded the budget in
6 % of redraws with all of it, and another in 5.3 % with half.

`one_threshold`: a fixed sequence of tests on thresholds that fall (Learn then Test, Angelopoulos et al. 2021, arXiv 2110.01052): the
sequence does not depend on the clicks, so under exchangeability the confidence is exact. For a score without ties it is the umbrella
algorithm of Neyman–Pearson classification (Tong, Feng, Li 2018, Science Advances 4(2)).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv  # type: ignore[import-untyped]

from slidr.calibration.borrowing import Borrowing, estimate
from slidr.calibration.concave import Path, Positions, path
from slidr.calibration.counts import Counts, Levels, Numbers, Shares, Sums

LEAST = 1e-9
DOUBT = 0.4  # of 1 - confidence
GRID = 200  # choices looked at, equally far apart in cost
REACH = 2.0  # times the budget: up to here the path is looked at

Allowed = Callable[[Sums, Shares], tuple[Numbers, Numbers]]  # (sums, cost) -> first and last position of each slice


@dataclass(frozen=True)
class Selection:
    """A choice (S,) and what is known of it: `own` (S,) and `cost` (S,) of the estimate, the price on the path, the FPR held out, its
    upper end, and the IVR held out. `advantage`: clicks held out that are invalid / those that one threshold invalidates at the same
    FPR, the mean over choices around this one, so that luck near the budget hardly shows. `holds` is false where not even the first
    choice does, which this is then."""

    position: Positions
    holds: bool
    own: Shares
    cost: Shares
    price: tuple[float, float]
    fpr: float
    bound: float
    ivr: float
    advantage: float


def upper(part: Shares, whole: float, confidence: float) -> Shares:
    """One-sided Clopper–Pearson upper end of the share part / whole; counts need not be whole numbers."""
    with np.errstate(invalid="ignore"):
        return np.where(part < whole, betaincinv(part + 1, np.maximum(whole - part, LEAST), confidence), 1.0)


def holds(part: Shares, whole: float, budget: float, confidence: float) -> int:
    """How many of a sequence of counts pass, one after the other, until the first whose upper end is above the budget."""
    failed = np.flatnonzero(upper(part, whole, confidence) > budget)
    return int(failed[0]) if len(failed) else len(part)


def one_threshold(sums: Sums, budget: float, confidence: float, effect: float) -> tuple[int, float]:
    """(position, upper end of its FPR) of the lowest global threshold that holds; `effect`: see `correlation`.

    Raises nothing: `problem.require_enough_purchases` says beforehand whether any threshold can hold, and position 0 invalidates nothing.
    """
    spent = sums.purchasing.sum(axis=0) / effect
    whole = float(sums.all_purchasing.sum()) / effect
    position = max(holds(spent, whole, budget, confidence) - 1, 0)
    return position, float(upper(spent[[position]], whole, confidence)[0])


def select(
    counts: Counts, levels: Levels, allowed: Allowed, borrowing: Borrowing, *, budget: float, confidence: float, effect: float
) -> Selection:
    """The choice per slice that gains most among those that hold."""
    everything = counts.of_folds(np.arange(counts.folds) >= 0)

    def learn(sums: Sums) -> tuple[Path, Shares, Shares]:
        cost, own = estimate(sums, levels, borrowing, budget)
        return path(cost, sums.clicks / sums.all_clicks.sum(), *allowed(sums, cost)), cost, own

    whole, cost, own = learn(everything)
    states = _looked_at(whole, budget)
    spent, gained = _held_out(counts, lambda sums: learn(sums)[0], whole.gain[states])
    purchasing = float(everything.all_purchasing.sum())
    passed = holds(spent / effect, purchasing / effect, budget, confidence)
    last = max(passed - 1, 0)
    position = whole.positions(states[[last]])[:, 0]
    state = int(states[last])
    after = float(whole.price[state + 1]) if state + 1 < len(whole.price) else 0.0
    return Selection(
        position=position,
        holds=passed > 0,
        own=own,
        cost=np.take_along_axis(cost, position[:, None], axis=1)[:, 0],
        price=(after, float(whole.price[state])),
        fpr=float(spent[last]) / purchasing,
        bound=float(upper(spent[[last]] / effect, purchasing / effect, confidence)[0]),
        ivr=float(gained[last]) / float(everything.all_clicks.sum()),
        advantage=_advantage(spent, gained, everything, float(spent[last])),
    )


def _advantage(spent: Numbers, gained: Numbers, sums: Sums, chosen: float) -> float:
    near = (spent >= 0.5 * chosen) & (spent <= 1.5 * chosen) & (gained > 0)
    one = np.interp(spent[near], sums.purchasing.sum(axis=0), sums.clicks.sum(axis=0))
    return float(np.mean(gained[near] / one)) if near.any() else 1.0


def _looked_at(whole: Path, budget: float) -> NDArray[np.int64]:
    """States of the path, GRID of them up to REACH times the budget, the first one always."""
    reach = whole.cost[0] + np.arange(GRID + 1) / GRID * (REACH * budget)
    found: NDArray[np.int64] = np.unique(np.searchsorted(whole.cost, reach, side="right") - 1)
    return found


def _held_out(counts: Counts, learn: Callable[[Sums], Path], gains: Shares) -> tuple[Numbers, Numbers]:
    """(purchasing clicks, clicks) invalidated (L,) at thresholds that were learnt without their fold, at each gain (L,)."""
    folds = np.arange(counts.folds)
    spent = np.zeros(len(gains), dtype=np.int64)
    gained = np.zeros(len(gains), dtype=np.int64)
    for fold in folds:
        position = learn(counts.of_folds(folds != fold)).at_gain(gains)
        judged = counts.of_folds(folds == fold)
        spent += judged.spend(position)
        gained += judged.gain(position)
    return spent, gained
