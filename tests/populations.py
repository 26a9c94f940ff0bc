"""Populations of clicks whose FPR and IVR at any thresholds are known exactly, and samples of them: for studies of calibration.

Scores are Phi(z / 1.5) of normal z: purchasing clicks, other people (some of them odd), and two kinds of robots in each slice. The
purchasing clicks of one user may share part of z. Shapes: S slices, B = 10001 score bins.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from slidr.curves import BINS

Shares = NDArray[np.float64]
FOLDS = 5
SPREAD = 1.5  # score = Phi(z / SPREAD)
GRID = 10  # thresholds of the best choice are multiples of this many bins


@dataclass(frozen=True)
class Population:
    """`clicks`, `purchases` (S,): expected counts of a sample. `levels`: the score takes so many values only; 0: all.
    `likeness`: correlation of z of one user's purchasing clicks; `clicks_of_user`: their mean number, geometric."""

    names: tuple[str, ...]
    clicks: Shares
    purchases: Shares
    mean: Shares  # of z of purchasing clicks
    odd: Shares  # how much higher z of odd people is
    robots: Shares  # mean of z of plain robots
    robot_share: Shares
    levels: int = 0
    likeness: float = 0.0
    clicks_of_user: float = 1.0

    @cached_property
    def bought(self) -> Shares:
        """Distribution of the scores of purchasing clicks over bins (S, B)."""
        return np.stack([self._cells(mean, 1.0) for mean in self.mean])

    @cached_property
    def others(self) -> Shares:
        """The same of all other clicks."""
        rows = []
        for mean, odd, robot, share in zip(self.mean, self.odd, self.robots, self.robot_share, strict=True):
            people = 0.7 * self._cells(mean, 1.0) + 0.3 * self._cells(mean + odd, 1.1)
            rows.append((1 - share) * people + share * (0.6 * self._cells(robot, 0.8) + 0.4 * self._cells(robot + 1, 0.7)))
        return np.stack(rows)

    @cached_property
    def false_positives(self) -> Shares:
        """FPR of each slice at thresholds k/10000 (S, B)."""
        return _above(self.bought)

    @cached_property
    def invalid(self) -> Shares:
        """IVR of each slice at thresholds k/10000 (S, B)."""
        rate = (self.purchases / self.clicks)[:, None]
        return (1 - rate) * _above(self.others) + rate * self.false_positives

    def fpr(self, thresholds: Shares) -> float:
        return self._total(self.false_positives, self.purchases, thresholds)

    def ivr(self, thresholds: Shares) -> float:
        return self._total(self.invalid, self.clicks, thresholds)

    def best_ivr(self, budget: float) -> float:
        """The IVR of the best thresholds at this FPR, by falling prices and straight lines between them; an oracle of its own."""
        at = np.arange(BINS, -1, -GRID)
        cost = self.purchases[:, None] / self.purchases.sum() * self.false_positives[:, at]
        gain = self.clicks[:, None] / self.clicks.sum() * self.invalid[:, at]
        totals = []
        for price in np.geomspace(1e4, 1e-2, 1500):
            best = (gain - price * cost).argmax(axis=1)[:, None]
            totals.append([np.take_along_axis(points, best, axis=1).sum() for points in (cost, gain)])
        spent, gained = np.array(totals).T
        return float(np.interp(budget, spent, gained))

    def sample(self, random: np.random.Generator) -> "Sample":
        parts, users, user_bins = [], [], []
        for number, name in enumerate(self.names):
            others = random.poisson(self.clicks[number] - self.purchases[number])
            by_fold = _split(random.multinomial(others, self.others[number] / self.others[number].sum()), random)
            user, bins, fold = self._purchases(number, random)
            users.append(user + (number << 32))
            user_bins.append(bins)
            bought = np.zeros_like(by_fold)
            np.add.at(bought, (fold, bins), 1)
            found_fold, found_bin = np.nonzero(by_fold + bought)
            counted = {"clicks": (by_fold + bought)[found_fold, found_bin], "purchasing": bought[found_fold, found_bin]}
            parts.append(pd.DataFrame({"slice": name, "fold": found_fold, "bin": found_bin, **counted}))
        histogram = pd.concat(parts, ignore_index=True)
        # Robots are in heavy sessions; here every click with a high score is.
        histogram = histogram.assign(high_rfm=0, heavy=np.where(histogram["bin"] > 7000, histogram["clicks"] - histogram["purchasing"], 0))
        return Sample(histogram, np.concatenate(users), np.concatenate(user_bins))

    def _purchases(self, number: int, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(user, score bin, fold) of each purchasing click of a slice."""
        people = max(int(random.poisson(self.purchases[number] / self.clicks_of_user)), 1)
        each = random.geometric(1 / self.clicks_of_user, people)
        user = np.repeat(np.arange(people), each)
        if not self.likeness:
            bins = random.choice(BINS + 1, len(user), p=self.bought[number] / self.bought[number].sum())
        else:
            shared, own = random.normal(size=people)[user], random.normal(size=len(user))
            z = self.mean[number] + np.sqrt(self.likeness) * shared + np.sqrt(1 - self.likeness) * own
            bins = np.clip(np.ceil(norm.cdf(z / SPREAD) * BINS).astype(np.int64), 0, BINS)
        return user, bins, random.integers(0, FOLDS, people)[user]

    def _cells(self, mean: float, deviation: float) -> Shares:
        reached = norm.cdf(SPREAD * norm.ppf(np.linspace(0, 1, BINS + 1)), mean, deviation)
        cells = np.concatenate([[0.0], np.diff(reached)])
        if not self.levels:
            return cells
        level = np.ceil(np.arange(BINS + 1) / BINS * self.levels).astype(np.int64)
        return np.bincount(level * BINS // self.levels, weights=cells, minlength=BINS + 1)

    def _total(self, shares: Shares, weights: Shares, thresholds: Shares) -> float:
        k = np.round(thresholds * BINS).astype(np.int64)
        return float(shares[np.arange(len(k)), k] @ weights / weights.sum())


@dataclass(frozen=True)
class Sample:
    """`histogram` as `calibrate` takes it; user and score bin of each purchasing click."""

    histogram: pd.DataFrame
    user: NDArray[np.int64]
    bins: NDArray[np.int64]


def make(
    slices: int,
    seed: int,
    *,
    clicks: int = 150_000,
    purchases: int = 3000,
    spread: float = 0.6,
    rare: bool = False,
    parents: int = 2,
    levels: int = 0,
    likeness: float = 0.0,
    clicks_of_user: float = 1.0,
) -> Population:
    """Slices `p0/s0`, `p1/s1` … of `parents` parents. `spread`: how far they differ; `rare`: each has half of the clicks of the last."""
    random = np.random.default_rng(seed)
    share = 0.55 ** np.arange(slices) if rare else random.dirichlet(np.full(slices, 3.0))
    bought = share * random.lognormal(0, 0.5, slices)
    parent = np.arange(slices) * parents // slices
    of_parent = random.normal(0, spread, parents)[parent]
    mean = of_parent + random.normal(0, 0.6 * spread, slices)
    return Population(
        names=tuple(f"p{of}/s{number:02}" for number, of in enumerate(parent)),
        clicks=share / share.sum() * clicks,
        purchases=bought / bought.sum() * purchases,
        mean=mean - 1.5,
        odd=0.5 + 0.3 * random.random(slices),
        robots=1.3 + 0.5 * mean + random.normal(0, 0.4, slices),
        robot_share=np.clip(random.beta(2, 7, slices), 0.02, 0.8),
        levels=levels,
        likeness=likeness,
        clicks_of_user=clicks_of_user,
    )


def _above(cells: Shares) -> Shares:
    return np.clip(cells.sum(axis=1, keepdims=True) - np.cumsum(cells, axis=1), 0, None)


def _split(counts: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Counts (B,) at random into FOLDS equal folds: (FOLDS, B)."""
    left, folds = counts.copy(), []
    for still in range(FOLDS, 1, -1):
        folds.append(random.binomial(left, 1 / still))
        left = left - folds[-1]
    return np.stack([*folds, left])
