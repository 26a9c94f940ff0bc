"""How much less than independent ones the clicks of users tell about a share."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ENOUGH = 100  # purchasing clicks above a threshold, to measure at


def design_effect(purchases: pd.DataFrame, budget: float) -> float:
    """Variance of the FPR of all slices / that of as many independent clicks; at least 1 (Kish 1965).

    `purchases` has one row per score bin: bin, clicks (purchasing clicks), pairs (sum of 2 r - 1, r the rank of the click by score
    among the purchasing clicks of its user, highest first), of_user (sum of the numbers of purchasing clicks of the users). Above
    a threshold x_u of a user's n_u clicks lie; the pairs sum to x_u² and of_user to x_u n_u there, so

        effect = sum (x_u - f n_u)² / (n f (1 - f)).

    It is measured at the threshold with the budget's FPR, or a lower one that has ENOUGH purchasing clicks above it.
    """
    above = purchases.sort_values("bin", ascending=False)[["clicks", "pairs", "of_user"]].to_numpy(dtype=np.float64).cumsum(axis=0)
    if not len(above) or not above[-1, 0]:
        return 1.0
    clicks, squares = above[-1, 0], above[-1, 2]
    wanted = min(max(budget * clicks, ENOUGH), clicks / 2)
    x, pairs, of_user = above[min(int(np.searchsorted(above[:, 0], wanted)), len(above) - 1)]
    f = x / clicks
    if f >= 1:
        return float(squares / clicks)
    variance = pairs - 2 * f * of_user + f**2 * squares
    return float(np.clip(variance / (clicks * f * (1 - f)), 1.0, squares / clicks))


def count_pairs(user: NDArray[np.int64], bins: NDArray[np.int64]) -> pd.DataFrame:
    """`purchases` of `design_effect` from one user and bin per purchasing click, for studies without Spark."""
    rows = pd.DataFrame({"user": user, "bin": bins}).sort_values(["user", "bin"], ascending=[True, False], kind="stable")
    grouped = rows.groupby("user")
    rows["pairs"] = 2 * grouped.cumcount() + 1
    rows["of_user"] = grouped["bin"].transform("size")
    return rows.assign(clicks=1).groupby("bin", as_index=False)[["clicks", "pairs", "of_user"]].sum()
