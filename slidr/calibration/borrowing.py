"""What a threshold costs in a slice, estimated from the slice's own purchasing clicks and, where they are few, from its parents'.

The IVR of a slice is well known, from all its clicks. Its FPR is not: at an FPR of 1 % a slice of 300 purchasing clicks has three
that matter. Two ways to borrow, from all slices down to each one (`desktop/guest` borrows from `desktop`, that from all):

- `share`: purchasing clicks have scores like those of the parent. F = (own + k F_parent) / (P + k): the mean of a beta distribution
  whose prior is worth k purchasing clicks;
- `rate`: a click of some score is a purchasing one as often as in the parent. With expected count E above a threshold the count is
  a own + (1 - a) E, a = E / (E + k): a gamma prior worth k invalidated purchasing clicks. For large k all slices have one threshold.

Which of them, and k, is chosen by the Poisson likelihood of purchasing clicks held out, slice by slice, in SEGMENTS of score.

Shapes: S slices, C thresholds, highest first.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from slidr.calibration.counts import Counts, Levels, Numbers, Shares, Sums

SEGMENTS = 12
REACH = 5.0  # thresholds up to so many times the budget count for the likelihood
RATE_REACH = 2.0  # thresholds up to so many times the budget say how much a slice knows of its own rate
LEAST = 1e-9


@dataclass(frozen=True)
class Borrowing:
    """`strength`: what the parent is worth, in purchasing clicks (`share`) or in invalidated ones (`rate`)."""

    kind: Literal["share", "rate"]
    strength: float

    def __str__(self) -> str:
        unit = "purchasing clicks" if self.kind == "share" else "invalidated purchasing clicks"
        return f"{self.kind} of the parent worth {self.strength:g} {unit}"


CHOICES = (
    *(Borrowing("share", k) for k in (25, 50, 100, 200, 400, 800, 1600, 3200, 12800)),
    *(Borrowing("rate", k) for k in (1, 3, 10, 30, 100, 1000)),
)


def choose(counts: Counts, levels: Levels, budget: float) -> Borrowing:
    """The one under which the purchasing clicks of each fold are likeliest, estimated from the other folds."""
    folds = np.arange(counts.folds)
    everything = counts.of_folds(folds >= 0)
    edges = _segments(everything, budget)
    total = dict.fromkeys(CHOICES, 0.0)
    for fold in folds:
        known, held_out = counts.of_folds(folds != fold, edges), counts.of_folds(folds == fold, edges)
        if not held_out.all_purchasing.sum() or not known.all_purchasing.sum():
            continue  # it tells nothing of where purchasing clicks are
        seen = np.diff(held_out.purchasing, axis=1)
        for choice in CHOICES:
            cost, _ = estimate(known, levels, choice, budget)
            expected = np.maximum(np.diff(cost, axis=1), LEAST) * held_out.all_purchasing.sum()
            total[choice] += float((seen * np.log(expected) - expected).sum())
    return max(CHOICES, key=lambda choice: total[choice])


def estimate(sums: Sums, levels: Levels, borrowing: Borrowing, budget: float) -> tuple[Shares, Shares]:
    """(cost (S, C): invalidated purchasing clicks of the slice as a share of those of all slices; how much of it is its own (S,))."""
    if borrowing.kind == "share":
        return _by_share(sums, levels, borrowing.strength)
    return _by_rate(sums, levels, borrowing.strength, budget)


def _by_share(sums: Sums, levels: Levels, strength: float) -> tuple[Shares, Shares]:
    found = sums.purchasing.astype(np.float64)
    share = np.repeat(found.sum(axis=0, keepdims=True) / sums.all_purchasing.sum(), len(found), axis=0)
    for group in levels[1:]:
        bought = _of_groups(sums.all_purchasing, group)
        mixed = (_of_groups(found, group) + strength * share) / (bought + strength)[:, None]
        share = np.where(group[:, None] >= 0, mixed, share)
    own = sums.all_purchasing / (sums.all_purchasing + strength)
    return _weights(sums)[:, None] * share, own


def _weights(sums: Sums) -> Shares:
    """Each slice's share of purchasing clicks. One click of the mean rate is added, so that no slice without purchases is free."""
    expected = sums.all_clicks * sums.all_purchasing.sum() / sums.all_clicks.sum()
    return np.asarray(expected * (sums.all_purchasing + 1) / (expected + 1) / sums.all_purchasing.sum())


def _by_rate(sums: Sums, levels: Levels, strength: float, budget: float) -> tuple[Shares, Shares]:
    clicks, found = np.diff(sums.clicks, axis=1), np.diff(sums.purchasing, axis=1).astype(np.float64)
    near = max(_reach(sums, RATE_REACH * budget), 1)
    rate = np.repeat(_rate(found.sum(axis=0), clicks.sum(axis=0))[None, :], len(found), axis=0)
    own = np.ones(len(found))
    for group in levels[1:]:
        of_group = _of_groups(clicks, group)
        expected = of_group * rate
        known = expected[:, :near].sum(axis=1)
        own = np.where(group >= 0, known / (known + strength), own)
        mixed = own[:, None] * _of_groups(found, group) + (1 - own)[:, None] * expected
        rate = np.where(group[:, None] >= 0, _rate(mixed, of_group), rate)
    cost = np.cumsum(clicks * rate, axis=1) / sums.all_purchasing.sum()
    return np.concatenate([np.zeros((len(cost), 1)), cost], axis=1), own


def _of_groups(values: Shares | Numbers, group: Numbers) -> Shares:
    """The sum over its group for each slice, of values (S,) or (S, C); of no group (-1): of all such, never to be used."""
    names, place = np.unique(group, return_inverse=True)
    if len(names) == len(group):
        return values.astype(np.float64)
    totals = np.zeros((len(names), *values.shape[1:]))
    np.add.at(totals, place, values)
    return totals[place]


def _rate(part: Shares, whole: Shares | Numbers) -> Shares:
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)


def _segments(sums: Sums, budget: float) -> Numbers:
    """Positions of thresholds between which about equally many purchasing clicks lie, up to REACH times the budget."""
    reach = sums.purchasing.sum(axis=0)[_reach(sums, REACH * budget)]
    edges = np.searchsorted(sums.purchasing.sum(axis=0), np.linspace(0, reach, SEGMENTS + 1)[1:])
    found: Numbers = np.unique(np.concatenate([[0], edges]))
    return found


def _reach(sums: Sums, fpr: float) -> int:
    """Position of the last threshold whose FPR over all slices is at most this."""
    return int(np.searchsorted(sums.purchasing.sum(axis=0), fpr * sums.all_purchasing.sum(), side="right")) - 1
