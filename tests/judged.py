"""A judgement made by hand: a network that finds the robots, a worse and a bad baseline, and a champion in between."""

import numpy as np
import pandas as pd

from slidr.calibration import calibrate
from slidr.curves import Curve, curves
from slidr.evaluation import Judgement
from slidr.thresholds import Calibration

SEPARATION = {"mlp": 4.5, "logistic": 2.5, "velocity": 1.2}
SLICES = ("desktop/guest", "desktop/login", "mobile/guest")
SIGNS = ("purchasing", "high_rfm", "heavy")
SETTINGS = {
    "method": "bounded",
    "fpr_budget": 0.01,
    "fpr_max": 0.1,
    "min_coverage": 0.0,
    "fit_fpr": 0.06,
    "min_purchases": 30,
    "confidence": 0.95,
}


def made_clicks(size: int, seed: int, separation: dict[str, float]) -> pd.DataFrame:
    """One row per click: slice, hour_of_week (Wednesday and Thursday), the signs, and a score of each method."""
    random = np.random.default_rng(seed)
    robot = random.random(size) < 0.3
    table = pd.DataFrame({"slice": random.choice(SLICES, size), "hour_of_week": random.integers(48, 96, size)})
    table["purchasing"] = ~robot & (random.random(size) < 0.05)
    table["high_rfm"] = ~robot & ~table["purchasing"] & (random.random(size) < 0.15)
    table["heavy"] = random.random(size) < np.where(robot, 0.3, 0.02)
    shared = random.normal(size=size)
    for method, apart in separation.items():
        logit = np.where(robot, apart / 2, -apart / 2) + 0.8 * shared + 0.8 * random.normal(size=size) - table["purchasing"]
        table[method] = np.round(1 / (1 + np.exp(-logit)), 6)
    return table


def histogram_of(clicks: pd.DataFrame, method: str) -> pd.DataFrame:
    bins = np.ceil(np.round(clicks[method] * 1e6) / 100).astype(int)
    counted = clicks.assign(bin=bins, clicks=1, fold=np.arange(len(clicks)) % 5)
    return counted.groupby(["slice", "fold", "bin"], as_index=False)[["clicks", *SIGNS]].sum()


def curves_of(clicks: pd.DataFrame, method: str) -> dict[str, Curve]:
    return curves(histogram_of(clicks, method))


def money_of(clicks: pd.DataFrame, calibration: Calibration) -> pd.DataFrame:
    """What `judging.money` gives, of clicks that cost 0.1 USD each."""
    parts = []
    for name, solution in calibration.solutions.items():
        invalid = clicks["mlp"] > clicks["slice"].map(solution.thresholds)
        costs = clicks.assign(decider=name, currency="USD", cost_micros=100_000, invalid_cost_micros=100_000 * invalid)
        parts.append(costs.groupby(["decider", "slice", "currency"], as_index=False)[["cost_micros", "invalid_cost_micros"]].sum())
    return pd.concat(parts, ignore_index=True)


def hours_of(clicks: pd.DataFrame, invalid: dict[str, pd.Series]) -> pd.DataFrame:
    """What `decided_counts` gives for these decisions, counted by pandas."""
    parts = []
    for name, decision in invalid.items():
        signs = {f"{sign}_invalid": clicks[sign] & decision for sign in SIGNS}
        rows = clicks.assign(method=name, clicks=1, invalid=decision, **signs)
        parts.append(rows.groupby(["method", "slice", "hour_of_week"], as_index=False)[["clicks", "invalid", *SIGNS, *signs]].sum())
    return pd.concat(parts, ignore_index=True)


def judgement(
    size: int = 20_000, champion: str | None = "3", note: str = "", champion_apart: float = 4.0, **separation: float
) -> Judgement:
    """Methods and champion find robots the better, the farther their scores are `apart`."""
    methods = [*SEPARATION]
    apart = {**SEPARATION, **separation, "champion": champion_apart}
    calibration, judging = made_clicks(3 * size, 1, apart), made_clicks(size, 2, apart)
    by_part = {"calibration": {m: curves_of(calibration, m) for m in methods}, "judging": {m: curves_of(judging, m) for m in methods}}
    chosen = calibrate(histogram_of(calibration, "mlp"), **SETTINGS)
    invalid = {"new": judging["mlp"] > judging["slice"].map(chosen.thresholds)}
    if champion and not note:
        by_part["judging"]["champion"] = curves_of(judging, "champion")
        invalid["champion"] = judging["champion"] > 0.5
        invalid["both"] = invalid["new"] & invalid["champion"]
    return Judgement("mlp", chosen, by_part, hours_of(judging, invalid), money_of(judging, chosen), champion, note)
