"""The concave frontier of gain over cost, slice by slice and of all slices together: exact, and without a solver.

Every slice offers points (cost, gain), one per threshold; only those on their least concave majorant can be best at some price of
cost. Where every slice stops at the same price, no other choice gains more at the same cost (Lagrange; Everett 1963). The
majorant is an isotonic regression of the slopes (Barlow et al. 1972).

Shapes: S slices, C thresholds, highest first, L levels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression  # type: ignore[import-untyped]

from slidr.calibration.counts import Numbers, Shares

EXACT_UP_TO = 300  # allowed purchasing clicks
TOLERANCE = 1e-6  # of counts that were computed from shares
FREE = 1e-12  # stands for the cost of a step that costs nothing: its slope is then far above any price

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Path:
    """Choices for falling prices: state j takes every step whose slope is at least `price[j]`. Costs and gains only rise.

    `slopes` (S, C-1) never rise within a slice: gain per cost of the step from one threshold to the next, infinite for what has to
    be taken and minus infinite for what may not be. State 0 has the first thresholds that are allowed, at an infinite price.
    """

    slopes: Shares
    price: Shares
    cost: Shares
    gain: Shares

    def positions(self, states: NDArray[np.int64]) -> Positions:
        """Thresholds of all slices at some states: (S, L)."""
        wanted = -self.price[states]
        return np.stack([np.searchsorted(-row, wanted, side="right") for row in self.slopes]).astype(np.int64)

    def at_gain(self, gains: Shares) -> Positions:
        """Thresholds of the last states that gain no more than `gains` (L,): (S, L). State 0 where even that gains more."""
        return self.positions(np.maximum(np.searchsorted(self.gain, gains, side="right") - 1, 0))


def path(cost: Shares, gain: Shares, first: Numbers, last: Numbers) -> Path:
    """Over points (S, C) whose cost and gain never fall from one threshold to the next; `first`, `last` (S,): allowed positions."""
    slopes = np.stack([_slopes(*of_slice) for of_slice in zip(cost, gain, first, last, strict=True)])
    allowed = np.isfinite(slopes)
    steps = slopes[allowed]
    order = np.argsort(-steps, kind="stable")
    price = steps[order]
    ends = np.append(np.flatnonzero(np.diff(price)), len(price) - 1) if len(price) else np.empty(0, dtype=np.int64)
    rows = np.arange(len(cost))
    base = [points[rows, first].sum() for points in (cost, gain)]
    totals = [start + np.cumsum(np.diff(points, axis=1)[allowed][order])[ends] for start, points in zip(base, (cost, gain), strict=True)]
    return Path(slopes, np.append(np.inf, price[ends]), np.append(base[0], totals[0]), np.append(base[1], totals[1]))


def best_within(spent: Numbers, gained: Numbers, first: Numbers, last: Numbers, allowed: float) -> tuple[Positions, tuple[float, float]]:
    """(position of each slice (S,), lowest and highest price) of the most clicks `gained` (S, C) with at most `allowed` purchasing clicks
    `spent` (S, C), `first` and `last` included. The price, clicks per purchasing click, is that of the linear program, which may go
    part of a step; it is unique unless the path ends right at what is allowed.

    Up to EXACT_UP_TO allowed clicks a dynamic programme finds the optimum. Above, the path is followed as far as it goes, and what is
    left buys single steps off the majorant, the largest gain first: with so many clicks the last step hardly matters.
    """
    found = path(spent.astype(np.float64), gained.astype(np.float64), first, last)
    state = max(int(np.searchsorted(found.cost, allowed + TOLERANCE, side="right")) - 1, 0)
    after = float(found.price[state + 1]) if state + 1 < len(found.price) else 0.0
    price = (after, float(found.price[state]) if abs(found.cost[state] - allowed) < TOLERANCE else after)
    whole = int(np.floor(allowed + TOLERANCE)) - int(spent[np.arange(len(spent)), first].sum())
    if whole <= EXACT_UP_TO:
        return _optimum(spent, gained, first, last, max(whole, 0)), price
    position = found.positions(np.array([state]))[:, 0]
    return _fill(spent, gained, position, last, int(np.floor(allowed + TOLERANCE - found.cost[state]))), price


def _optimum(spent: Numbers, gained: Numbers, first: Numbers, last: Numbers, whole: int) -> Positions:
    """By dynamic programming over slices: the most gain for each number of purchasing clicks spent above those of the first positions."""
    budgets = np.arange(whole + 1)
    best = np.zeros(whole + 1, dtype=np.int64)
    choices = []
    for cost, gain, start, end in zip(spent, gained, first, last, strict=True):
        # The lowest threshold that each number of clicks pays for: gains only rise along the thresholds.
        reach = np.minimum(np.searchsorted(cost, cost[start] + budgets, side="right") - 1, end)
        left = budgets[:, None] - budgets[None, :]
        total = np.where(left >= 0, best[np.maximum(left, 0)] + gain[reach][None, :], -1)
        taken = total.argmax(axis=1)
        choices.append((taken, reach))
        best = total[budgets, taken]
    position = np.empty(len(spent), dtype=np.int64)
    for place in range(len(spent) - 1, -1, -1):
        taken, reach = choices[place]
        position[place] = reach[taken[whole]]
        whole -= int(taken[whole])
    return position


def _fill(spent: Numbers, gained: Numbers, position: Positions, last: Numbers, left: int) -> Positions:
    """Spends what is `left` on the step that gains most, again and again, until no step fits."""
    position = position.copy()
    rows = np.arange(len(spent))
    columns = np.arange(spent.shape[1])
    while True:
        extra = spent - spent[rows, position][:, None]
        more = np.where((extra <= left) & (columns <= last[:, None]), gained - gained[rows, position][:, None], 0)
        best = np.unravel_index(int(np.argmax(more)), more.shape)
        if more[best] <= 0:
            return position
        left -= int(extra[best])
        position[best[0]] = best[1]


def _slopes(cost: Shares, gain: Shares, first: int, last: int) -> Shares:
    slopes = np.full(len(cost) - 1, -np.inf)
    slopes[:first] = np.inf
    if last > first:
        width = np.maximum(np.diff(cost[first : last + 1]), FREE)
        rise = np.diff(gain[first : last + 1])
        slopes[first:last] = isotonic_regression(rise / width, weights=width, increasing=False).x
    return slopes
