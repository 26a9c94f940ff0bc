"""Naive truths for curves, calibration and raking: click by click, or by brute force."""

import numpy as np
import pandas as pd
from scipy.optimize import linprog


def naive_counts(clicks: pd.DataFrame, threshold: float) -> dict[str, int]:
    """Counts at one threshold from the clicks themselves: score, purchasing, high_rfm, heavy."""
    invalid = clicks[clicks["score"] > threshold]
    counts = {"clicks": len(clicks), "invalid": len(invalid)}
    for name in ("purchasing", "high_rfm", "heavy"):
        counts |= {name: int(clicks[name].sum()), f"{name}_invalid": int(invalid[name].sum())}
    return counts


def naive_best_threshold(clicks: pd.DataFrame, fpr: float) -> int:
    """The most clicks that any threshold k/10000 invalidates with at most this FPR."""
    score, purchasing = clicks["score"].to_numpy(), clicks["purchasing"].to_numpy()
    best = 0
    for k in range(10_001):
        invalid = score > k / 10_000
        if (invalid & purchasing).sum() <= fpr * purchasing.sum() + 1e-9:
            best = max(best, int(invalid.sum()))
    return best


def bisect_price(a: np.ndarray, b: np.ndarray, w: np.ndarray, p: np.ndarray, low: np.ndarray, high: float, budget: float) -> np.ndarray:
    """The optimal FPRs by the closed form: f = clip((price p/w - b) / (2a), low, high), price by bisection. Needs a < 0."""

    def spend(price: float) -> np.ndarray:
        return np.clip((price * p / w - b) / (2 * a), low, high)

    if p @ spend(0.0) <= budget:
        return spend(0.0)
    left, right = 0.0, 1e6
    for _ in range(200):
        middle = (left + right) / 2
        left, right = (middle, right) if p @ spend(middle) > budget else (left, middle)
    return spend(right)


def naive_rake(cells: pd.DataFrame, dimensions: list[str], sweeps: int = 5000) -> np.ndarray:
    """Weights by the textbook loop, one value of one dimension at a time."""
    weight = np.ones(len(cells))
    for _ in range(sweeps):
        for name in dimensions:
            values = sorted(cells[name].unique())
            for value in values:
                chosen = (cells[name] == value).to_numpy()
                target = cells["clicks"].sum() / len(values)
                weight[chosen] *= target / (weight * cells["clicks"].to_numpy())[chosen].sum()
    return weight


def best_by_dynamic_programme(invalid: np.ndarray, spent: np.ndarray, allowed: int) -> int:
    """The most clicks invalidated with at most `allowed` purchasing clicks, one threshold per slice; (S, C) counts by threshold."""
    best = np.zeros(allowed + 1, dtype=np.int64)
    for gain, cost in zip(invalid, spent, strict=True):
        of_slice = np.zeros(allowed + 1, dtype=np.int64)
        for count in range(allowed + 1):
            of_slice[count] = gain[cost <= count].max(initial=0)
        best = np.array([max(best[left] + of_slice[count - left] for left in range(count + 1)) for count in range(allowed + 1)])
    return int(best[allowed])


def best_by_linear_programme(invalid: np.ndarray, spent: np.ndarray, allowed: float) -> tuple[float, float]:
    """(the most clicks invalidated, price) where each slice may mix its thresholds; by HiGHS."""
    slices, places = invalid.shape
    mixed = np.kron(np.eye(slices), np.ones(places))
    found = linprog(-invalid.ravel(), A_ub=spent.reshape(1, -1), b_ub=[allowed], A_eq=mixed, b_eq=np.ones(slices), method="highs")
    return -found.fun, -found.ineqlin.marginals[0]


def naive_design_effect(user: np.ndarray, invalid: np.ndarray) -> float:
    """Variance of the invalid share of users' clicks, user by user, over that of independent clicks."""
    f = invalid.mean()
    spread = sum((invalid[user == who].sum() - f * (user == who).sum()) ** 2 for who in np.unique(user))
    return spread / (len(user) * f * (1 - f))
